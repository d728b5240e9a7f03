"How an explorer opens, and what it saves."

import json
from pathlib import Path

import pytest

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.widgets.explorers import (
    explore_negatives,
    explore_regions,
    explore_temperature,
)


@pytest.fixture(scope="module")
def net():
    return GraSS(Encoder("resnet18", 4, 8, 8))


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
