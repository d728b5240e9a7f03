"""Files of version 0.1 go on being read: runs, segmenters, maps, boxes, settings of explorers.

They lie in golden/v01; golden/make_v01.py shows how they came about.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rsssl_nb.data.labels import raster_classes
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.shapes import read_shapes
from rsssl_nb.encoders import Encoder
from rsssl_nb.evaluation.scores import score_rasters
from rsssl_nb.explain.neighbours import points_from_geojson
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.registry import DEFAULTS
from rsssl_nb.training.config import Config
from rsssl_nb.training.finetune import finetune, load_segmenter
from rsssl_nb.training.folder import checkpoints, read_checkpoint, read_config
from rsssl_nb.training.pretrain import load_encoder, pretrain
from rsssl_nb.training.watch import read_log, show_trace, status
from rsssl_nb.weights import load, load_weights
from rsssl_nb.widgets.explorers import (
    explore_negatives,
    explore_pair,
    explore_regions,
    explore_temperature,
)
from rsssl_nb.widgets.features import explore_labels, explore_matches, explore_saliency
from rsssl_nb.widgets.networks import open_network

with pytest.warns(DeprecationWarning, match="lives in rsssl_nb"):  # as version 0.1 spelled them
    from rsssl_nb.evaluation.maps import draw_boxes, embed, guided_method, segment
    from rsssl_nb.widgets.explorers import open_network

pytestmark = pytest.mark.filterwarnings("ignore:this .* was made with the defaults of version 1")
V01 = Path(__file__).parent / "golden/v01"
UNFINISHED = sorted(p.name for p in (V01 / "unfinished").iterdir())


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the old files, as the present folder: settings name their image as seen from there."""
    shutil.copytree(V01, tmp_path / "v01")
    monkeypatch.chdir(tmp_path / "v01")
    return tmp_path / "v01"


def resumed(folder):
    """A run that goes on with just what its own config says."""
    config = vars(read_config(folder)).copy()
    for worked_out in ("bands", "mean", "std", "weight_decay", "length", "init", "defaults"):
        config.pop(worked_out)
    return pretrain("image.tif", out=folder, resume="must", device="cpu", progress=False, **config)


@pytest.mark.parametrize("method", UNFINISHED)
def test_an_unfinished_run_goes_on(old, method):
    folder = old / "unfinished" / method
    assert not (folder / "encoder.safetensors").exists() and len(checkpoints(folder)) == 1
    run = resumed(folder)
    ended, state = load_file(old / "resumed.safetensors"), run.encoder.state_dict()
    assert run.complete and len(run.log) == 4 and (folder / "encoder.safetensors").exists()
    torch.testing.assert_close(
        torch.tensor([r["loss"] for r in run.log]), ended.pop(f"{method}/loss"), rtol=1e-3, atol=1e-3
    )
    mine = {k.split("/")[1]: v for k, v in ended.items() if k.startswith(f"{method}/")}
    assert len(mine) == 4
    for name, want in mine.items():
        torch.testing.assert_close(state[name], want, rtol=1e-3, atol=1e-3)


def test_an_old_run_keeps_its_defaults_and_says_so(old):
    assert read_config(old / "complete").defaults == 1 and Config().defaults == DEFAULTS == 2
    with pytest.warns(UserWarning, match="grass was made with the defaults of version 1 and keeps them"):
        method, _ = guided_method(old / "complete")
    for plan in method.plans():
        colour = plan.colour
        assert (colour.brightness, colour.contrast, colour.saturation) == (0.4, 0.4, 0.4)
        assert (colour.gain, colour.offset) == (0, 0)


def test_a_complete_run_is_opened(old):
    folder = old / "complete"
    encoder, meta = load_encoder(folder)
    config = read_config(folder)
    assert isinstance(config, Config) and (config.method, config.width, config.options["dim"]) == (
        "grass",
        2,
        8,
    )
    assert (
        meta["kind"] == "encoder"
        and meta["band_names"] == ["red", "green", "blue", "nir"]
        and encoder.bands == 4
    )
    assert meta["pixel_size"] == [0.5, 0.5] and np.allclose(meta["mean"], config.mean)
    assert load(folder / "encoder.safetensors").match.missing == []
    assert status(folder)["state"] == "finished" and len(read_log(folder)) == 4
    assert read_checkpoint(checkpoints(folder)[-1])["step"] == 4
    run = resumed(folder)
    assert run.complete and all(
        torch.equal(v, run.encoder.state_dict()[k]) for k, v in encoder.state_dict().items()
    )
    assert show_trace(folder)._repr_png_()[:4] == b"\x89PNG"


def test_an_old_encoder_is_finetuned(old):
    model, log = finetune(
        "complete", "image.tif", "labels.tif", fraction=0.5, epochs=1, batch=4, size=32, device="cpu"
    )
    assert len(log) == 1 and len(model.classes) == 6


def test_an_old_segmenter_draws_the_old_map(old):
    model, meta = load_segmenter(old / "finetuned")
    assert meta["kind"] == "segmenter" and meta["classes"] == list(raster_classes("map.tif").names)
    segment(model, "image.tif", "new.tif", size=64, device="cpu")
    was, now = (open_raster(p) for p in ("map.tif", "new.tif"))
    same = was.read(0, 0, 96, 96) == now.read(0, 0, 96, 96)
    assert (was.crs, was.transform, was.nodata) == (now.crs, now.transform, now.nodata)
    assert (same | np.isnan(was.read(0, 0, 96, 96))).mean() > 0.99


def test_an_old_map_is_judged(old):
    found = score_rasters("map.tif", "labels.tif")
    assert found["pixels"] > 5000 and 0 <= found["miou"] <= 1
    assert open_raster("shares.tif").band_names[-1] == "entropy" and open_raster("embedded.tif").bands == 3


def test_old_pictures_and_boxes_are_drawn_again(old):
    encoder, meta = load_encoder("complete")
    new = embed(encoder, "image.tif", mean=meta["mean"], std=meta["std"], size=64, device="cpu")
    was = np.nan_to_num(open_raster("embedded.tif").read(0, 0, 96, 96), nan=255)
    assert (np.abs(new.astype(float) - was) <= 2).mean() > 0.99
    method, config = guided_method("complete")
    found = draw_boxes(method, "image.tif", None, config.mean, config.std, 32, 4, device="cpu")
    kept = json.loads(Path("boxes.geojson").read_text())
    said = [{key: f["properties"][key] for key in ("x", "y", "view")} for f in found]
    assert said == [f["properties"] for f in kept["features"]]
    rings = [[f["geometry"]["coordinates"] for f in features] for features in (found, kept["features"])]
    np.testing.assert_allclose(*rings, atol=1e-3)


def test_old_geojson_is_read(old):
    raster = open_raster("image.tif")
    assert len(read_shapes("boxes.geojson", raster)) == len(
        json.loads(Path("boxes.geojson").read_text())["features"]
    )
    found = json.loads(Path("points.geojson").read_text())
    points, labels = points_from_geojson(found, ("field", "road"), raster.transform, raster.crs)
    assert points.tolist() == [[3.5, 4.5], [40.0, 20.5]] and labels.tolist() == [1, 0]


@pytest.mark.parametrize("path", ["complete", "finetuned", "complete/checkpoint/step-00000004.pt"])
def test_an_explorer_opens_old_networks(old, path):
    network, mean, std = open_network(old / path, 4)
    assert isinstance(network, torch.nn.Module) and mean.shape == std.shape == (4, 1, 1)


MAKE = dict(
    temperature=lambda n: explore_temperature(None, n, n=4, size=32),
    pair=lambda n: explore_pair(None, 32, 64),
    regions=lambda n: explore_regions(None, n, 64, n=2),
    negatives=lambda n: explore_negatives(None, n, n=4, size=32),
    matches=lambda n: explore_matches(None, n, 64),
    saliency=lambda n: explore_saliency(None, n, 64),
    labels=lambda n: explore_labels(None, n, window=64),
)


@pytest.mark.parametrize("name", MAKE)
def test_old_settings_come_back(old, name):
    torch.manual_seed(0)
    network = GraSS(Encoder("resnet18", 4, 2, 8))
    network.title = "small"
    box = MAKE[name]([network])
    box.wait()
    box.restore(old / "explorers" / f"{name}.json")
    box.wait()
    assert box.trouble.value == "" and bytes(box.view.value[:4]) == b"\x89PNG"
    assert box.settings() == json.loads((old / "explorers" / f"{name}.json").read_text())
    shapes = old / "explorers" / f"{name}.geojson"
    box.save(old / "again")
    if shapes.exists():
        before, now = (json.loads(path.read_text()) for path in (shapes, old / "again.geojson"))
        assert now | dict(features=now["features"][: len(before["features"])]) == before  # more may follow
        assert len(now["features"]) == len(before["features"]) + (name == "regions")
    box.close()


def test_weights_say_what_they_hold(old):
    state, meta = load_weights("finetuned/segmenter.safetensors")
    assert {"mean", "std"} <= state.keys() and {"classes", "colors", "head", "size"} <= meta.keys()
