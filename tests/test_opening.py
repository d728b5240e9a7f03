"How an explorer opens: defaults of the method, a window with data, idle controls greyed; what it saves."

import json
import os
from pathlib import Path

import numpy as np
import pytest

from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster
from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.weights import shipped_for
from rsssl_nb.widgets.explorers import (
    explore_negatives,
    explore_pair,
    explore_regions,
    explore_temperature,
    show_negatives,
)
from rsssl_nb.widgets.features import explore_labels, explore_saliency
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


def test_a_click_into_the_table_shows_two_windows(net):
    box = explore_negatives(make_scene(160, seed=1), [net], n=4, size=32)
    before = bytes(box.view.value)
    assert bytes(box.canvas.image[:4]) == b"\x89PNG" and box.canvas.extent == [0, 0, 8, 8]
    box.canvas.points = [[6.5, 2.5, 0]]
    assert box.controls["anchor"].value == 2 and bytes(box.view.value) != before
    clicked = bytes(box.view.value)
    box.canvas.points = [[3.2, 2.1, 0]]
    assert box.controls["anchor"].value == 2 and bytes(box.view.value) != clicked
    box.controls["batch"].value = 3
    assert box.canvas.points == [] and box.trouble.value == ""


def test_the_table_of_suspects_is_shown_once(net):
    "On the canvas, where it can be clicked; the picture tells precision and recall beside the rows."
    box = explore_negatives(make_scene(160, seed=1), [net], n=4, size=32)
    values = box.values() | dict(threshold=-1.0)
    quick = {name: value for name, value in values.items() if name not in box.slow}
    (rows,) = [ax for ax in box.draw(box.seen, **quick).axes]
    assert "in the whole table" in rows.get_title() and "precision" in rows.get_title()
    assert len(show_negatives(box.seen, **quick).axes) == 2  # a still has no canvas beside it


def test_a_wrong_path_clears_all_pictures_and_the_right_one_brings_them_back():
    box = explore_pair(make_scene(160, seed=1), 32, 64)
    with pytest.raises(ValueError, match="does not exist"):
        box.source.value = "no/such/file.tif"
    assert box.pictures.layout.display == "none" and not box.view.value
    box.source.value = ""
    assert box.pictures.layout.display is None and box.view.value and not box.trouble.value


def test_an_image_that_changes_on_disk_is_read_anew_and_the_window_stays(tmp_path):
    scene, other = make_scene(160, seed=1), make_scene(160, seed=2)
    write_raster(tmp_path / "a.tif", scene.image, scene.crs, scene.transform, scene.nodata)
    box = explore_pair(str(tmp_path / "a.tif"), 32, 64)
    box.overview.boxes = [[90, 10, 154, 74]]
    before = bytes(box.view.value)
    write_raster(tmp_path / "b.tif", other.image, scene.crs, scene.transform, scene.nodata)
    os.utime(tmp_path / "b.tif", (2 * 10**9,) * 2)
    os.replace(tmp_path / "b.tif", tmp_path / "a.tif")
    box.controls["points"].value = 7
    assert "has changed on disk: read anew" in box.note.value and box.place() == (90, 10, 64)
    assert bytes(box.view.value) != before and box.controls["points"].value == 7
    (tmp_path / "a.tif").unlink()
    with pytest.raises(ValueError, match="a.tif"):
        box.controls["points"].value = 4
    assert "a.tif" in box.trouble.value and not box.view.value


def test_levels_far_from_the_training_are_noted_and_own_numbers_offered(tmp_path):
    scene = make_scene(160, seed=1)
    image = np.where(scene.valid, scene.image / 1000, np.nan).astype(np.float32)
    write_raster(tmp_path / "far.tif", image, scene.crs, scene.transform, float("nan"))
    box = explore_temperature(tmp_path / "far.tif", n=4, size=32)
    assert [name for name, _ in box.controls["network"].options] == ["shipped:grass-20", "random"]
    assert "tick &#x27;standardise by own numbers&#x27;" in box.note.value
    before, own = bytes(box.view.value), box.controls["own"]
    assert not own.disabled
    own.value = True
    assert "standardise" not in box.note.value and bytes(box.view.value) != before
    assert box.settings()["controls"]["own"] is True
    box.controls["network"].label = "random"
    assert own.disabled and own.description == "standardise by own numbers (always here)"
    box.save(tmp_path / "seen")
    own.value = False
    assert "own" not in box.settings()["controls"]
    box.restore(tmp_path / "seen")
    assert own.value is True


def test_an_explorer_opens_with_the_network_of_the_rasters_bands_and_follows_them(tmp_path):
    scene = make_scene(160, seed=1)
    for bands in (3, 4):
        write_raster(tmp_path / f"{bands}.tif", scene.image[:bands], scene.crs, scene.transform, scene.nodata)
    box = explore_temperature(tmp_path / "3.tif", n=4, size=32)
    menu, real = box.controls["network"], f"shipped:{shipped_for(3)}"
    assert [name for name, _ in menu.options] == [real, "random"] and menu.value == real != "shipped:grass-20"
    assert not box.controls["own"].disabled  # its numbers are of three bands: nothing was adapted
    box.save(tmp_path / "three")
    box.source.value = str(tmp_path / "4.tif")
    assert [name for name, _ in menu.options] == ["shipped:grass-20", "random"] == [menu.label, "random"]
    menu.label = "random"
    box.source.value = str(tmp_path / "3.tif")
    assert [name for name, _ in menu.options] == [real, "random"] and menu.label == "random"
    box.source.value = str(tmp_path / "4.tif")
    box.restore(tmp_path / "three")
    assert menu.label == real and box.source.value.endswith("3.tif") and box.trouble.value == ""
    kept = json.loads((tmp_path / "three.json").read_text())
    kept["controls"]["network"] = "shipped:grass-20"
    (tmp_path / "three.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match=f"grass-20 is no choice for this image: choose from {real}, random"):
        box.restore(tmp_path / "three")
    assert menu.label == real
    given = explore_temperature(tmp_path / "3.tif", ["shipped:grass-20"], n=4, size=32)
    assert [name for name, _ in given.controls["network"].options] == ["shipped:grass-20", "random"]


def test_maps_of_labels_are_of_the_networks_of_the_rasters_bands(tmp_path):
    scene = make_scene(160, seed=1)
    for bands in (3, 4):
        write_raster(tmp_path / f"{bands}.tif", scene.image[:bands], scene.crs, scene.transform, scene.nodata)
    box = explore_labels(tmp_path / "3.tif", window=64)
    assert box.seen["titles"] == [f"shipped:{shipped_for(3)}", "random"]
    box.canvas.points = [[70, 70, 0], [90, 90, 1]]
    bank = box.seen["bank"]
    box.source.value = str(tmp_path / "4.tif")
    assert box.seen["titles"] == ["shipped:grass-20", "random"] and box.seen["bank"] is not bank


def test_images_of_mixed_bands_are_named_in_groups(tmp_path):
    scene = make_scene(160, seed=1)
    for name, bands in (("a", 4), ("b", 3), ("c", 4)):
        write_raster(tmp_path / f"{name}.tif", scene.image[:bands], scene.crs, scene.transform, scene.nodata)
    box = explore_regions(tmp_path, ["random"], 64, n=2)
    assert "of 2 kinds (3 bands: b.tif; 4 bands: a.tif, c.tif)" in box.note.value
    box.image.value = "b.tif"
    assert box.trouble.value == "" and "of 2 kinds" in box.note.value
