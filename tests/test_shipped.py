"""The checkpoints in the package: whole, small, with what made them, and better at their own task than an
untrained method.
"""

import json
from pathlib import Path

import pytest
import torch

from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.registry import recorded_method
from rsssl_nb.views.pairs import two_views
from rsssl_nb.weights import load, load_into, load_weights, shipped

NAMES = list(shipped())


def built(meta):
    torch.manual_seed(meta["seed"])
    encoder = Encoder(meta["encoder"], bands=meta["bands"], width=meta["width"])
    with pytest.warns(UserWarning, match="defaults of version 1 and keeps them"):
        return recorded_method(meta["method"], encoder, meta["options"], meta.get("defaults", 1)).eval()


def test_four_methods_and_their_parent_in_ten_megabytes():
    assert {n.split("-")[0] for n in NAMES} == {"simclr", "glcnet", "false", "grass", "ssccl"} and len(
        [n for n in NAMES if n.startswith("grass")]
    ) > 1
    assert sum(p.stat().st_size for p in shipped(NAMES[0]).parent.iterdir()) < 10e6
    with pytest.raises(ValueError, match="choose false-20"):
        shipped("imagenet")


@pytest.mark.parametrize("name", NAMES)
def test_what_made_it_is_said(name):
    meta, log = (
        shipped()[name],
        [
            json.loads(line)
            for line in shipped(name).with_name(f"{name.split('-')[0]}.jsonl").read_text().splitlines()
        ],
    )
    script = Path(meta["command"].split()[1])  # it lay in benchmarks/ when these files were made
    assert script.name == "checkpoints.py"
    assert (Path(__file__).parents[1] / "experiments" / script.name).exists()
    assert {"seed", "device", "minutes", "commit", "mean", "std", "images"} <= meta.keys() and not load(
        shipped(name)
    ).match.missing
    assert len(log) == meta["epochs"] and log[meta["epoch"] - 1]["minutes"] == meta["minutes"]


@pytest.mark.parametrize("name", NAMES)
def test_it_has_learnt(name):
    meta = shipped()[name]
    images = standardise(make_tiles(32, 96, seed=77)[0])
    fresh, method = built(meta), built(meta)
    load_into(method, load_weights(shipped(name))[0])
    pair = two_views(images, meta["size"], *method.plans(), seed=9, min_iou=method.min_iou)
    loss = lambda m: m(pair, At(0.0, generator=torch.Generator().manual_seed(0))).loss.item()
    with torch.no_grad() if meta["method"] != "grass" else torch.enable_grad():
        assert loss(method) < loss(fresh)
