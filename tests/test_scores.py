"Scores as people hand them in: per class, areas by a stratified sample, tables, folders of maps."

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from rsssl_nb.cli import main
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster
from rsssl_nb.errors import InputError
from rsssl_nb.evaluation.areas import area_adjusted
from rsssl_nb.evaluation.scores import class_scores, confusion_rows, score_rasters

OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])  # rows map
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])


def test_the_worked_example_of_olofsson_2014():
    "Section 5.2 of the paper; half widths .23 and .01 printed there are .254 and .018 by its equation 7."
    found = area_adjusted(OLOFSSON.T, PIXELS)
    assert np.round(found.overall, 2).tolist() == [0.95, 0.02]
    assert np.round(found.user[:, 0], 2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert np.round(found.user[:, 1], 2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert np.round(found.producer[:, 0], 2).tolist() == [0.75, 0.85, 0.93, 0.96]
    assert np.round(found.producer[:, 1], 3).tolist() == [0.213, 0.254, 0.034, 0.018]
    assert np.round(found.areas[0]).tolist() == [235086, 68418]
    hectares = area_adjusted(OLOFSSON.T, PIXELS * 0.09).areas
    assert np.round(hectares[:, 0]).tolist() == [21158, 11686, 285770, 581386]
    assert np.round(hectares[:, 1]).tolist() == [6158, 3756, 15510, 16282]


def test_the_interval_covers_the_truth_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    ground = np.array([[0.08, 0.02, 0.0], [0.05, 0.5, 0.05], [0.0, 0.05, 0.25]])  # rows map
    mapped = ground.sum(1)
    inside = []
    for _ in range(600):
        sample = np.stack([rng.multinomial(80, row / row.sum()) for row in ground])
        found = area_adjusted(sample.T, mapped)
        inside.append(
            [
                abs(found.overall[0] - ground.trace()) <= found.overall[1],
                *(np.abs(found.areas[:, 0] - ground.sum(0)) <= found.areas[:, 1]),
                *(np.abs(found.producer[:, 0] - ground.diagonal() / ground.sum(0)) <= found.producer[:, 1]),
            ]
        )
    share = np.mean(inside, 0)
    assert (share > 0.91).all() and (share < 0.985).all(), share


def test_a_sample_that_tells_nothing_is_refused():
    with pytest.raises(InputError, match="road covers 50 % of the map and has 1 sample units.*draw some"):
        area_adjusted([[5, 0], [0, 1]], [10, 10], ["field", "road"])
    with pytest.raises(InputError, match="no area in the map"):
        area_adjusted([[5, 1], [0, 3]], [10, 0])
    unmapped = area_adjusted([[5, 0], [2, 0]], [10, 0])
    assert np.isnan(unmapped.user[1, 0]) and unmapped.producer[1, 0] == 0 and unmapped.areas[1, 0] > 0


def test_classes_and_the_table():
    by_class = class_scores([[50, 10, 0], [5, 35, 0], [0, 0, 0]])
    assert np.allclose(by_class["producer"][:2], [50 / 60, 35 / 40])
    assert np.allclose(by_class["user"][:2], [50 / 55, 35 / 45])
    assert all(np.isnan(values[2]) for values in by_class.values())
    rows = confusion_rows([[50, 10], [5, 35]], ["a", "b"])
    assert rows[1] == ["a", 50, 10, 60, 50 / 60] and rows[3] == ["total", 55, 45, 100, ""]
    assert rows[-1][0] == "user's" and rows[-1][-1] == 0.85


def a_map(path, labels, scene, **how):
    how = dict(crs=scene.crs, transform=scene.transform, nodata=255) | how
    return write_raster(path, labels, colors=scene.colors, classes=scene.classes, **how)


def test_folders_are_one_matrix(tmp_path):
    scenes = {f"s{seed}": make_scene(64, seed=seed) for seed in (1, 2)}
    for kind in ("maps", "labels"):
        (tmp_path / kind).mkdir()
    for name, scene in scenes.items():
        drawn = np.where(scene.labels == 1, 0, scene.labels) if name == "s1" else scene.labels
        a_map(tmp_path / f"maps/{name}.tif", drawn, scene)
        a_map(tmp_path / f"labels/{name}.tif", scene.labels, scene)
    whole = score_rasters(tmp_path / "maps", tmp_path / "labels")
    parts = [score_rasters(tmp_path / f"maps/{n}.tif", tmp_path / f"labels/{n}.tif") for n in scenes]
    assert (np.array(whole["confusion"]) == sum(np.array(p["confusion"]) for p in parts)).all()
    assert [one["oa"] for one in whole["files"].values()] == [p["oa"] for p in parts]
    listed = sorted((tmp_path / "maps").iterdir())
    assert score_rasters(listed, tmp_path / "labels")["oa"] == whole["oa"]
    said = CliRunner().invoke(main, ["score", *map(str, listed), str(tmp_path / "labels")]).output
    assert "s1.tif: OA" in said and "truth \\ map" in said
    with pytest.raises(InputError, match="is no folder"):
        score_rasters(listed, tmp_path / "labels/s1.tif")
    a_map(tmp_path / "maps/s3.tif", scenes["s1"].labels, scenes["s1"])
    with pytest.warns(UserWarning, match="1 of the maps, such as .*s3.tif, have no labels of their name"):
        assert score_rasters(tmp_path / "maps", tmp_path / "labels")["oa"] == whole["oa"]


def test_what_is_undefined_is_a_dash_and_never_nan(tmp_path):
    scene = make_scene(64, seed=1)
    one = np.zeros_like(scene.labels)
    for name in ("map", "labels"):
        a_map(tmp_path / f"{name}.tif", one, scene)
    said = CliRunner().invoke(main, ["score", str(tmp_path / "map.tif"), str(tmp_path / "labels.tif")])
    assert said.exit_code == 0 and "Kappa -" in said.output and "nan" not in said.output


def test_a_sample_on_the_command_line(tmp_path):
    scene = make_scene(128, seed=4)
    rng = np.random.default_rng(0)
    drawn = np.where((scene.labels == 1) & (rng.random(scene.labels.shape) < 0.3), 0, scene.labels)
    places = np.full_like(scene.labels, 255)
    for k in np.unique(drawn[drawn != 255]):
        spots = rng.choice(np.flatnonzero(drawn == k), 30, replace=False)
        places.flat[spots] = scene.labels.flat[spots]
    a_map(tmp_path / "map.tif", drawn, scene)
    a_map(tmp_path / "places.tif", places, scene)
    paths = [str(tmp_path / "map.tif"), str(tmp_path / "places.tif")]
    found = json.loads(CliRunner().invoke(main, ["score", *paths, "--sample", "--json"]).output)["adjusted"]
    assert found["unit"] == "ha"
    assert np.isclose(sum(found["mapped"].values()), (drawn != 255).sum() * 0.25 / 10_000)
    assert np.isclose(sum(v for v, _ in found["areas"].values()), sum(found["mapped"].values()))
    said = CliRunner().invoke(main, ["score", *paths, "--sample", "--csv", str(tmp_path / "t.csv")]).output
    assert "95 % intervals" in said and "overall accuracy" in said and " ha (mapped" in said
    assert len(list(csv.reader((tmp_path / "t.csv").open(newline="")))) == len(scene.classes) + 3
