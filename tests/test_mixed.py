"What simply works stays so: odd files that are sound, and two jobs that must not share a folder."

import subprocess
import sys
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from test_cases import NAMES, classes_file, land, paint, put, run

from rsssl_nb.data.labels import read_classes, read_labels
from rsssl_nb.data.pool import Pool
from rsssl_nb.data.raster import open_raster
from rsssl_nb.training.labelled import open_pairs

SOUTH_UP = rasterio.Affine(0.5, 0, 500000, 0, 0.5, 5199936)


def masked(folder):
    x = paint(land())
    x[:, :, :32] = 0
    path = put(folder / "a.tif", x, nodata=0)
    mask = np.full((128, 128), 255, np.uint8)
    mask[:32] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    return path, x


def png16(folder):
    x = paint(land(), top=65535, dtype="uint16")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rasterio.shutil.copy(
            put(folder / "b.tif", x, crs=None, transform=None), folder / "a.png", driver="PNG"
        )
    (folder / "b.tif").unlink()
    return folder / "a.png", x


def cmyk(folder):
    image = Image.fromarray(paint(land()).transpose(1, 2, 0)).convert("CMYK")
    image.save(folder / "a.jpg", quality=95)
    return folder / "a.jpg", paint(land())


def made(**how):
    "A maker of a file with these settings."
    name, top = how.pop("name", "a.tif"), how.pop("top", 255)

    def make(folder):
        x = paint(land(), top=top, dtype="uint16" if top > 255 else "uint8")
        return put(folder / name, x, **how), x

    return make


ODD = {
    "mask and nodata": masked,
    "south-up": made(transform=SOUTH_UP),
    "BigTIFF with umlauts": made(name="Große Stadt/über sicht.TIF", bigtiff="YES"),
    "big-endian, 12 bit": made(top=4095, endianness="BIG", nbits=12),
    "16-bit PNG": png16,
    "CMYK": cmyk,
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_read_as_it_is(tmp_path, kind):
    path, x = ODD[kind](tmp_path)
    raster = open_raster(path)
    found = raster.read(0, 0, 128, 128)
    if kind == "mask and nodata":
        assert np.isnan(found[:, :32]).all() and (found[:, 32:, 32:] == x[:, 32:, 32:]).all()
    elif kind == "CMYK":
        assert found.shape == x.shape and np.abs(found - x).mean() < 6  # as RGB, through JPEG
    else:
        assert (found == x).all()
    assert Pool(tmp_path, 32).windows(4).shape == (4, 4)
    assert "0 faults" in run("check", tmp_path)


def test_labels_of_one_bit_and_of_floats_are_read(tmp_path):
    y = land(2)
    put(tmp_path / "bit/images/a.tif", paint(y))
    put(tmp_path / "bit/labels/a.tif", (y == 2).astype(np.uint8), nbits=1)
    classes_file(tmp_path / "bit/labels/classes.json", names=("other", "roof"))
    pairs, _ = open_pairs(tmp_path / "bit/images", tmp_path / "bit/labels")
    assert (pairs[0][1].read(0, 0, 128, 128) == (y == 2)).all()
    chosen = read_classes(classes_file(tmp_path / "float/classes.json", names=NAMES))
    assert (read_labels(put(tmp_path / "float/a.tif", y.astype("float32"), nodata=-9999), chosen) == y).all()


HOLD = """
import sys
from rsssl_nb.training.folder import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_the_second_of_two_jobs_is_refused_before_it_reads(tmp_path, command):
    out, nowhere = tmp_path / "run", tmp_path / "nowhere"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        data = ("random", "--images", nowhere, "--labels", nowhere, "--fraction", 1)
        told = run(command, *(data if command == "finetune" else [nowhere]), "--out", out, code=2)
        assert "being written by another process" in told and "nowhere" not in told
    finally:
        holder.communicate("")
    assert "nowhere" in run(command, *(data if command == "finetune" else [nowhere]), "--out", out, code=2)
