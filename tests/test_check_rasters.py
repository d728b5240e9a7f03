"A folder's faults by kind."

import csv
import warnings

import numpy as np
import pytest
from odd_rasters import noise

from rsssl_nb.data.check import check_rasters
from rsssl_nb.data.write import write_raster


def test_check_names_what_is_wrong(mixed):
    write_raster(mixed / "30.tif", np.zeros((2, 64, 64), np.uint8), nodata=0)
    write_raster(mixed / "31.tif", noise(2, 64, 64, dtype="uint16"))
    (mixed / "32.tif").write_bytes(b"")
    found = check_rasters(mixed)
    assert [(p.name, kind) for p, kind, _ in found] == [
        ("07.tif", "corrupt"),
        ("20.tif", "mismatch"),
        ("30.tif", "empty"),
        ("31.tif", "mismatch"),
        ("32.tif", "corrupt"),
    ]
    assert "20.tif has 3 bands of uint8 and 35 others have 2 bands of uint8" in found[1][2]
    assert all(p.name in sentence and "\n" not in sentence for p, _, sentence in found)
    from click.testing import CliRunner

    from rsssl_nb.cli import main

    result = CliRunner().invoke(main, ["check", str(mixed)])
    assert result.exit_code == 2 and "5 faults" in result.output and "Traceback" not in result.output
    for name in ("07", "20", "30", "31", "32"):
        (mixed / f"{name}.tif").unlink()
    result = CliRunner().invoke(main, ["check", str(mixed)])
    assert result.exit_code == 0 and "0 faults" in result.output


def test_labels_beside_their_image_are_no_mismatch(tmp_path):
    "Files called after another one are its labels; others of one band are not."
    for name in ("scene", "other", "more"):
        write_raster(tmp_path / f"{name}.tif", noise(3, 64, 64))
    for name in ("scene-labels", "other_MASK", "scene-height", "third_labels"):
        write_raster(tmp_path / f"{name}.tif", noise(1, 64, 64))
    found = [(path.stem, kind) for path, kind, _ in check_rasters(tmp_path)]
    assert found == [("scene-height", "mismatch"), ("third_labels", "mismatch")]
    for name in ("scene-height", "third_labels"):
        (tmp_path / f"{name}.tif").unlink()
    assert check_rasters(tmp_path) == []


def test_check_gives_the_verdicts_of_the_manifest(imagery):
    with open(imagery / "geotiff/manifest.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = check_rasters(imagery / "geotiff")
    faults = {
        path.relative_to(imagery / "geotiff").as_posix(): kind
        for path, kind, _ in found
        if kind != "mismatch"
    }
    assert faults == {name: "corrupt" for name, row in rows.items() if row["opens"] != "True"}
    named = sorted(str(w.message).split(":")[0].rsplit("/", 1)[1] for w in said)
    assert named == ["cog_gcps_ovr.tif", "naip_327_AZ_SUN.tif", "naip_330_AZ.tif"]


CLASSED = dict(flags=(0, 1), mask=(0, 65535), codes=(1, 2, 3, 255), slopes=(0, 0.25), one=(7,))


@pytest.mark.parametrize("values", CLASSED.values(), ids=CLASSED)
@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_a_band_of_few_values_has_no_odd_one(tmp_path, values, dtype):
    x = np.random.default_rng(0).choice(values, (1, 64, 64)).astype(dtype)
    write_raster(tmp_path / "a.tif", x)
    assert check_rasters(tmp_path) == []


@pytest.mark.parametrize(
    "value, low, high, dtype",
    [
        (-9999, -2000, 16000, "int16"),  # reflectance as Landsat's collection 1 had it
        (-9999, 0, 6500, "float32"),  # heights of a mountain range
        (-32768, -400, 8800, "int16"),  # heights of the Earth
        (-999, -60, 50, "float64"),  # degrees
        (-9999, 1, 4, "int16"),  # classes
        (0, 30000, 32000, "uint16"),  # a collar under radiances
        (9999, 0, 1, "float32"),  # an index
    ],
)
def test_a_fill_value_is_odd_beside_wide_ranges_too(tmp_path, value, low, high, dtype):
    x = np.random.default_rng(0).uniform(low, high, (2, 64, 64)).astype(dtype)
    write_raster(tmp_path / "a.tif", x)
    assert check_rasters(tmp_path) == []
    x[1, :9, :9] = value
    write_raster(tmp_path / "a.tif", x)
    ((_, kind, sentence),) = check_rasters(tmp_path)
    assert kind == "suspect" and f"holds {value} in 81 pixels of band 2" in sentence
    write_raster(tmp_path / "a.tif", x, nodata=value)
    assert check_rasters(tmp_path) == []
