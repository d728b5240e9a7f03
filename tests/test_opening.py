"How an explorer opens: defaults of the method, a window with data, idle controls greyed; what it saves."

import json
from pathlib import Path

import numpy as np
import pytest

from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.widgets.explorers import (
    explore_negatives,
    explore_pair,
    explore_regions,
    explore_temperature,
)
from rsssl_nb.widgets.features import explore_saliency
from rsssl_nb.widgets.ground import find_sources, first_window
from rsssl_nb.widgets.panel import slider


@pytest.fixture(scope="module")
def net():
    return GraSS(Encoder("resnet18", 4, 8, 8))


def test_controls_begin_at_the_methods_defaults(net):
    encoder = Encoder("resnet18", 4, 8, 8)
    box = explore_temperature(make_scene(160, seed=1), [net], n=4, size=32)
    assert box.controls["tau"].value == SimCLR(encoder).tau
    box = explore_negatives(make_scene(160, seed=1), [net], n=4, size=32)
    assert (box.controls["alpha"].value, box.controls["threshold"].value) == (0.9, 0.9)
    assert box.controls["rule"].value == "per_anchor"
    box = explore_regions(make_scene(160, seed=1), [net], 64, n=2)
    assert box.controls["threshold"].value == net.crop.thresh
    assert slider(0, 10, start=7).value == 7 and slider(0, 10).value == 5


def test_the_first_window_holds_data(tmp_path):
    image = np.zeros((1, 300, 300), np.uint8)
    image[:, 200:, 200:] = 9
    write_raster(tmp_path / "corner.tif", image, nodata=0)
    raster = open_raster(tmp_path / "corner.tif")
    x, y = first_window(raster, 64)
    assert raster.valid(x, y, 64, 64).mean() >= 0.5
    assert first_window(open_raster(image + 1), 64) == (118, 118)
    assert first_window(open_raster(np.full((1, 99, 99), np.nan, np.float32)), 33) == (33, 33)


def test_controls_that_do_nothing_are_greyed_with_a_word(net):
    box = explore_saliency(make_scene(160, seed=1), [net], 64)
    box.wait()
    layer, kind = box.controls["layer"], box.controls["klass"]
    assert not layer.disabled and kind.disabled and kind.description == "class (a class only)"
    box.controls["how"].value = "saliency"
    box.wait()
    assert layer.disabled and layer.description == "layer (gradcam only)"
    box.controls["how"].value = "gradcam"
    box.wait()
    assert not layer.disabled and layer.description == "layer"
    box.close()


def test_buttons_turn_the_boxes():
    box = explore_pair(make_scene(160, seed=1), 32, 64)
    before = bytes(box.view.value)
    box.actions["Turn b"].click()
    assert box.canvas.turns == [0, 1] and "turned by 90 degrees" in box.note.value
    assert bytes(box.view.value) != before
    for _ in range(3):
        box.actions["Turn b"].click()
    assert box.canvas.turns == [0, 0] and bytes(box.view.value) == before


def test_home_is_expanded_when_opened_and_when_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    scene = make_scene(160, seed=1)
    write_raster(tmp_path / "a.tif", scene.image, scene.crs, scene.transform, scene.nodata)
    assert list(find_sources("~/a.tif")) == ["a.tif"]
    box = explore_pair("~/a.tif", 32, 64)
    assert box.save("~/seen")[0] == tmp_path / "seen.png"
    box.restore("~/seen")


def features_of(paths):
    (path,) = [p for p in paths if Path(p).suffix == ".geojson"]
    found = json.loads(Path(path).read_text())
    assert found["crs"]["properties"]["name"]
    return found["features"]


def test_the_box_of_grass_is_saved_with_score_and_entropies(net, tmp_path):
    scene = make_scene(160, seed=1)
    box = explore_regions(scene, [net], 64, n=2)
    window, chosen = features_of(box.save(tmp_path / "seen"))
    about = chosen["properties"]
    x0, y0, x1, y1 = about["pixels"]
    left, top, right, bottom = window["properties"]["pixels"]
    assert left <= x0 < x1 <= right and top <= y0 < y1 <= bottom
    assert about["network"] == box.controls["network"].label and about["threshold"] == 0.5
    assert about["score"] == pytest.approx(float(box.seen["heat"].max()))
    assert 0 <= about["entropy"] <= 3 and about["entropy_of_window"] >= 0 and about["components"] >= 1
    a, _, c, _, e, f = scene.transform
    assert chosen["geometry"]["coordinates"][0][0] == pytest.approx([c + a * x0, f + e * y0])


def test_without_labels_no_entropy_is_claimed(tmp_path):
    scene = make_scene(160, seed=1)
    write_raster(tmp_path / "a.tif", scene.image, scene.crs, scene.transform, scene.nodata)
    box = explore_regions(tmp_path / "a.tif", [], 64, n=2)
    assert "entropy" not in features_of(box.save(tmp_path / "seen"))[1]["properties"]


@pytest.mark.parametrize("make", [explore_temperature, explore_negatives])
def test_a_batch_is_saved_as_its_windows(make, net, tmp_path):
    scene = make_scene(160, seed=1)
    box = make(scene, [net], n=4, size=32)
    found = features_of(box.save(tmp_path / "seen"))
    assert [f["properties"]["name"] for f in found] == [f"window {i}" for i in range(4)]
    assert all(f["properties"]["kind"] in scene.classes for f in found if "kind" in f["properties"])
