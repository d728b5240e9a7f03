"""The checkpoints in the package, those of imagery and those of made scenes: whole, small, with what made
them, and better at their own task than an untrained method.
"""

import json
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch

from rsssl_nb.data.examples import SUMS, example_images
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.data.statistics import normalise
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.registry import recorded_method
from rsssl_nb.objectives.nce import nce
from rsssl_nb.views.pairs import two_views
from rsssl_nb.weights import load, load_into, load_weights, shipped, shipped_for, training_told

MADE = shipped()
REAL = [name for name, meta in MADE.items() if "licence" in meta]
SCENES = [name for name in MADE if name not in REAL]
ALONE = [name for name in REAL if MADE[name]["kind"] == "encoder"]
EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def built(meta):
    "The untrained method of a record, in evaluation mode."
    torch.manual_seed(meta["seed"])
    encoder = Encoder(meta["encoder"], bands=meta["bands"], width=meta["width"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        method = recorded_method(meta["method"], encoder, meta["options"], meta.get("defaults", 1)).eval()
    assert [True for w in said if "defaults of version 1 and keeps them" in str(w.message)] == (
        [] if "defaults" in meta else [True]
    )
    return method


@cache
def dubai():
    "32 windows of 128 pixels of Dubai's scene 5, of the training side (32, 3, 128, 128)."
    paths = example_images(SUMS, yes=False)
    if not paths:
        pytest.skip("no imagery of Dubai here: set RSSSL_DATA, or fetch it with rsssl_nb.data.examples")
    rasters = [open_raster(path) for path in paths]
    corners = [(x, y) for y in (40, 200, 360, 500) for x in (40, 200, 360, 500)]
    read = [torch.as_tensor(r.read(*corner, 128, 128)).float() for r in rasters for corner in corners]
    return torch.stack(read[:: max(1, len(read) // 32)][:32])


def log_of(name):
    "The lines of the log that lies beside a checkpoint."
    meta = MADE[name]
    log = f"{meta['method']}-{meta['world']}.jsonl" if "world" in meta else f"{meta['method']}.jsonl"
    return [json.loads(line) for line in shipped(name).with_name(log).read_text().splitlines()]


def test_both_kinds_hold_four_methods_and_their_parent():
    five = {"simclr", "glcnet", "false", "grass", "ssccl"}
    assert {n.split("-")[0] for n in REAL} == {n.split("-")[0] for n in SCENES} == five
    assert "grass-20" in SCENES and {"simclr-0", "simclr-200", "simclr-1000"} <= set(ALONE)
    assert {f"{method}-4000" for method in five} <= set(ALONE)
    assert {MADE[n]["bands"] for n in REAL} == {3} and {MADE[n]["bands"] for n in SCENES} == {4}
    with pytest.raises(ValueError, match="choose false-1000, false-20"):
        shipped("imagenet")


@pytest.mark.parametrize("name", MADE)
def test_what_made_it_is_said(name):
    meta, log = MADE[name], log_of(name)
    script = Path(meta["command"].split()[1])  # it lay in benchmarks/ when those of scenes were made
    assert script.name == ("proof.py" if name in REAL else "checkpoints.py")
    assert (EXPERIMENTS / script.name).exists()
    assert {"seed", "device", "minutes", "commit", "mean", "std", "images", "band_names"} <= meta.keys()
    assert len(meta["mean"]) == len(meta["std"]) == len(meta["band_names"]) == meta["bands"]
    found = load(shipped(name))
    assert not found.match.missing and found.encoder.bands == meta["bands"]
    if name in SCENES:
        assert len(log) == meta["epochs"] and log[meta["epoch"] - 1]["minutes"] == meta["minutes"]
        return
    assert name == f"{meta['method']}-{meta['step']}" and log[-1]["step"] == meta["steps"]
    assert meta["licence"] == "CC0 1.0" and meta["images"].startswith("Dubai")
    assert (meta["minutes"] > 0) == (meta["step"] > 0)


def test_a_line_tells_bands_length_minutes_and_images():
    told = {name: training_told(meta) for name, meta in MADE.items()}
    assert told["grass-20"] == "method grass, 4 bands, 20 epochs, 6.4 minutes, made scenes"
    assert told["simclr-200"].startswith("method simclr (encoder alone), 3 bands, 200 steps, ")
    assert told["false-1000"].endswith(" minutes, Dubai (CC0 1.0)") and "alone" not in told["false-1000"]
    assert ", 0 steps, not trained, Dubai" in told["simclr-0"]
    assert max(map(len, told.values())) < 85  # a line of a terminal with the name before it


def test_the_number_of_bands_and_the_method_choose():
    for bands, of in ((1, REAL), (3, REAL), (4, SCENES), (8, SCENES)):
        for method in ("simclr", "glcnet", "false", "grass", "ssccl"):
            name = shipped_for(bands, method)
            assert name in of and MADE[name]["method"] == method
            assert not [n for n in of if n.startswith(f"{method}-") and len(n) > len(name)]
    assert shipped_for(4) == "grass-20" and shipped_for(3, "simclr") != "simclr-0"
    with pytest.raises(ValueError, match="no checkpoint 'imagenet' comes with this package: choose false"):
        shipped_for(3, "imagenet")


@pytest.mark.parametrize("name", [name for name in MADE if name not in ALONE])
def test_it_has_learnt(name):
    meta = MADE[name]
    if name in SCENES:
        images = standardise(make_tiles(32, 96, seed=77)[0])
    else:
        images = normalise(dubai(), meta["mean"], meta["std"])
    fresh, method = built(meta), built(meta)
    load_into(method, load_weights(shipped(name))[0])
    pair = two_views(images, meta["size"], *method.plans(), seed=9, min_iou=method.min_iou)
    loss = lambda m: m(pair, At(0.0, generator=torch.Generator().manual_seed(0))).loss.item()
    with torch.no_grad() if meta["method"] != "grass" else torch.enable_grad():
        assert loss(method) < loss(fresh)


def test_encoders_alone_lower_their_loss_the_longer_they_learn_and_simclr_0_has_not_learnt():
    """Their heads do not ship, so SimCLR's loss is taken of the pooled features themselves."""
    log = log_of("simclr-1000")
    assert sum(r["loss"] for r in log[-5:]) < sum(r["loss"] for r in log[:5]) - 5
    begun = load_weights(shipped("simclr-0"))[0]
    assert not any(v.any() for k, v in begun.items() if k.endswith(("running_mean", "num_batches_tracked")))
    meta = MADE["simclr-1000"]
    images = normalise(dubai(), meta["mean"], meta["std"])
    pair = two_views(images, meta["size"], *built(meta).plans(), seed=9)
    losses = {}
    with torch.no_grad():
        for name in ALONE:
            encoder = load(shipped(name)).encoder.eval()
            losses[name] = nce(encoder(pair.a).pooled, encoder(pair.b).pooled, 0.2).item()
    simclr = sorted((MADE[name]["step"], loss) for name, loss in losses.items() if name.startswith("simclr"))
    assert [loss for _, loss in simclr] == sorted((loss for _, loss in simclr), reverse=True), losses
    assert all(loss < losses["simclr-0"] for name, loss in losses.items() if name != "simclr-0"), losses


def test_a_whole_method_goes_before_a_longer_encoder_alone(monkeypatch):
    made = {
        f"grass-{n}": dict(method="grass", bands=3, kind=k) for n, k in ((1000, "method"), (4000, "encoder"))
    }
    made |= {f"simclr-{n}": dict(method="simclr", bands=3, kind="encoder") for n in (1000, 4000)}
    monkeypatch.setattr("rsssl_nb.weights.shipped", lambda: made)
    assert [shipped_for.__wrapped__(3, m) for m in ("grass", "simclr")] == ["grass-1000", "simclr-4000"]
    del made["grass-1000"]
    assert shipped_for.__wrapped__(4, "grass") == "grass-4000"
