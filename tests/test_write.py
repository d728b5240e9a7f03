"Written rasters keep everything, appear whole or not at all."

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import rasterio
from odd_rasters import CLASSES, PLACE, noise, says
from rasterio.enums import ColorInterp

from rsssl_nb.data.labels import read_classes, read_labels
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.write import raster_writer, write_raster


def test_written_maps_keep_everything(tmp_path):
    labels = noise(1, 300, 280) % 3
    labels[0, :9] = 255
    path = write_raster(
        tmp_path / "deep/map.tif", labels, *PLACE, 255, CLASSES.colors, CLASSES.names, ["class"]
    )
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 32633 and tuple(file.transform)[:6] == PLACE[1] and file.nodata == 255
        assert (
            file.profile["tiled"] and file.compression.name == "deflate" and file.descriptions == ("class",)
        )
        assert [file.colormap(1)[i][:3] for i in range(3)] == [(0, 0, 255), (128, 128, 128), (0, 255, 0)]
        assert json.loads(file.tags()["CLASSES"]) == list(CLASSES.names)
    found = read_classes(path)
    assert (found.names, found.colors) == (CLASSES.names, CLASSES.colors)
    np.testing.assert_array_equal(read_labels(path, found), labels[0])


def test_no_crs_is_invented_and_infrared_is_no_alpha(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bare = open_raster(write_raster(tmp_path / "bare.tif", noise(1, 20, 20)))
        four = open_raster(write_raster(tmp_path / "four.tif", noise(4, 20, 20), *PLACE))
    assert bare.crs is None and bare.transform == (1, 0, 0, 0, 1, 0) and four.bands == 4
    with rasterio.open(tmp_path / "four.tif") as file:
        assert ColorInterp.alpha not in file.colorinterp


def test_piecewise_equals_whole(tmp_path):
    array = noise(2, 100, 90, dtype="float32")
    with raster_writer(tmp_path / "a.tif", 2, 100, 90, "float32", *PLACE, float("nan")) as write:
        assert not (tmp_path / "a.tif").exists()
        for y in range(0, 100, 30):
            write(array[:, y : y + 30], 0, y)
    np.testing.assert_array_equal(open_raster(tmp_path / "a.tif").read(0, 0, 90, 100), array)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise(1, 20, 20))
    before = path.read_bytes()
    with pytest.raises(KeyError), raster_writer(path, 1, 20, 20, "uint8") as write:
        write(noise(1, 10, 20))
        raise KeyError("mine")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.tif"]
    with says("a.tif", "written"):
        write_raster(path, noise(1, 20, 20), "EPSG:nonsense")
    with says("written"):
        write_raster(path / "b.tif", noise(1, 20, 20))
    with says("written"):
        write_raster(tmp_path, noise(1, 20, 20))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.tif"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    code = f"""
import resource, signal, numpy as np
from rsssl_nb.data.write import write_raster
from rsssl_nb.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
noise = np.random.default_rng(0).integers(0, 255, (3, 600, 600), dtype=np.uint8)
try: write_raster({str(tmp_path / "a.tif")!r}, noise)
except InputError as e: print("said:", e)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "said:" in out.stdout and "a.tif" in out.stdout and "free space" in out.stdout, out
    assert os.listdir(tmp_path) == []
