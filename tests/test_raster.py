"Exact windows, honest nodata, masks and alpha, odd files, real files."

import csv
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from odd_rasters import CLASSES, PLACE, noise, plain_write, says, tagged_alpha, with_overviews
from PIL import Image

from rsssl_nb.data.check import count_valid
from rsssl_nb.data.labels import read_labels
from rsssl_nb.data.pool import Pool
from rsssl_nb.data.raster import open_raster, overview
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster, write_scene


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6, 13])
def test_any_type_and_band_count_reads_back(tmp_path, dtype, bands):
    array = noise(bands, 70, 90, dtype=dtype)
    raster = open_raster(write_raster(tmp_path / "a.tif", array, *PLACE))
    assert (raster.bands, raster.height, raster.width, raster.dtype, raster.nodata) == (
        bands,
        70,
        90,
        dtype,
        None,
    )
    assert (raster.crs, raster.transform) == PLACE
    got = raster.read(-5, 60, 40, 20)
    assert got.dtype == np.float32 and got.shape == (bands, 20, 40)
    assert np.isnan(got[:, 10:]).all() and np.isnan(got[:, :, :5]).all()
    np.testing.assert_array_equal(got[:, :10, 5:], array[:, 60:70, :35].astype(np.float32))


@pytest.mark.parametrize(
    "profile",
    [
        {},
        dict(tiled=True, blockxsize=16, blockysize=32),
        dict(interleave="band", compress="lzw"),
        dict(photometric="minisblack", compress="packbits"),
        dict(bigtiff="yes"),
    ],
)
def test_layouts_of_other_tools(tmp_path, profile):
    array = noise(3, 50, 61)
    raster = open_raster(plain_write(tmp_path / "ein Bild, größer.tif", array, **profile))
    np.testing.assert_array_equal(raster.read(0, 0, 61, 50), array)


def test_rotated_south_up_and_one_pixel(tmp_path):
    for name, transform in (
        ("rotated", (17.3, 5.0, 100.0, 10.0, -8.6, 200.0)),
        ("southup", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
    ):
        raster = open_raster(
            plain_write(tmp_path / f"{name}.tif", noise(1, 9, 7), transform=rasterio.Affine(*transform))
        )
        assert np.allclose(raster.transform, transform) and raster.crs is None
    dot = open_raster(plain_write(tmp_path / "dot.tif", noise(2, 1, 1)))
    assert dot.read(-1, -1, 3, 3).shape == (2, 3, 3) and dot.valid(-1, -1, 3, 3).sum() == 1


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_without_a_place(tmp_path, suffix):
    array = noise(40, 50, 3)
    Image.fromarray(array).save(tmp_path / f"a.{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raster = open_raster(tmp_path / f"a.{suffix}")
        got = raster.read(3, 4, 20, 10)
    assert raster.crs is None and raster.bands == 3 and got.shape == (3, 10, 20)
    if suffix == "png":
        np.testing.assert_array_equal(got, array.transpose(2, 0, 1)[:, 4:14, 3:23])


def test_arrays_and_scenes_read_like_their_files(tmp_path):
    scene = make_scene(200, seed=1)
    image, labels = write_scene(scene, tmp_path)
    a, b = open_raster(scene), open_raster(image)
    np.testing.assert_array_equal(a.read(-9, 20, 77, 210), b.read(-9, 20, 77, 210))
    assert (a.crs, a.transform, a.nodata, a.bands, a.band_names) == (
        b.crs,
        b.transform,
        b.nodata,
        b.bands,
        b.band_names,
    )
    assert (b.valid(0, 0, 200, 200) == scene.valid).all() and open_raster(labels).nodata == 255
    assert open_raster(np.zeros((5, 6))).bands == 1
    with says("shape (2, 3, 4, 5)"):
        open_raster(np.zeros((2, 3, 4, 5)))


def test_zero_is_nodata_only_where_every_band_is_zero(tmp_path):
    array = noise(3, 20, 20)
    array[0, :5], array[:, 10:] = 0, 0
    raster = open_raster(write_raster(tmp_path / "a.tif", array, nodata=0))
    got = raster.read(0, 0, 20, 20)
    assert (got[0, :5] == 0).all() and np.isnan(got[:, 10:]).all() and raster.valid(0, 0, 20, 20).sum() == 200


@pytest.mark.parametrize(
    "dtype, nodata", [("int16", -9999), ("float32", -3.4e38), ("float64", float("nan")), ("uint16", 999)]
)
def test_other_nodata_is_missing_in_its_own_band(tmp_path, dtype, nodata):
    array = noise(2, 20, 20, dtype=dtype)
    array[0, :4], array[:, 15:] = nodata, nodata
    got = open_raster(plain_write(tmp_path / "a.tif", array, nodata=nodata)).read(0, 0, 20, 20)
    assert np.isnan(got[0, :4]).all() and np.isfinite(got[1, :15]).all() and np.isnan(got[:, 15:]).all()


@pytest.mark.filterwarnings("ignore:.*beyond any measurement")
def test_infinite_and_undeclared_nan_are_missing(tmp_path):
    array = noise(1, 10, 10, dtype="float64")
    array[0, 0, :3] = np.nan, np.inf, 1e300
    assert np.isnan(open_raster(plain_write(tmp_path / "a.tif", array)).read(0, 0, 10, 10)).sum() == 3


def test_a_nodata_value_the_type_cannot_hold_means_none(tmp_path):
    raster = open_raster(np.array([[[241, 5]]], np.uint8))
    assert raster.nodata is None
    from rsssl_nb.data.nodata import usable_nodata

    assert (
        usable_nodata(-9999, "uint8") is None
        and usable_nodata(0.5, "int16") is None
        and usable_nodata(-9999.0, "int16") == -9999
    )
    assert usable_nodata(float("nan"), "uint8") is None


def test_alpha_is_judged_by_its_values(tmp_path):
    mask = np.full((64, 64), 255, np.uint8)
    mask[:, 40:] = 0
    cut, nir = (
        tagged_alpha(tmp_path / "cut.tif", mask),
        tagged_alpha(tmp_path / "nir.tif", noise(64, 64, low=0)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raster = open_raster(cut)
    assert raster.bands == 3 and (raster.valid(0, 0, 64, 64) == (mask > 0)).all()
    with pytest.warns(UserWarning, match="band 4 is tagged alpha"):
        raster = open_raster(nir)
    assert raster.bands == 4 and raster.valid(0, 0, 64, 64).all()
    assert open_raster(nir, alpha="mask").bands == 3 and open_raster(cut, alpha="band").bands == 4
    with says("maks"):
        open_raster(cut, alpha="maks")


def test_an_empty_look_is_no_evidence_for_a_mask(tmp_path):
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        count=4,
        height=9000,
        width=9000,
        dtype="uint8",
        tiled=True,
        sparse_ok=True,
        compress="deflate",
        photometric="rgb",
        alpha="yes",
        crs=PLACE[0],
        transform=rasterio.Affine(*PLACE[1]),
    ) as file:
        file.write(
            noise(4, 60, 60), window=((700, 760), (700, 760))
        )  # between the windows that are looked at first
    with pytest.warns(UserWarning, match="tagged alpha"):
        assert open_raster(tmp_path / "a.tif").bands == 4


def test_internal_masks(tmp_path):
    array, mask = noise(3, 64, 64), np.full((64, 64), 255, np.uint8)
    mask[:20] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(
            tmp_path / "a.tif",
            "w",
            driver="GTiff",
            count=3,
            height=64,
            width=64,
            dtype="uint8",
            crs=PLACE[0],
            transform=rasterio.Affine(*PLACE[1]),
        ) as file:
            file.write(array)
            file.write_mask(mask)
    raster = open_raster(tmp_path / "a.tif")
    assert (
        raster.bands == 3
        and (raster.valid(0, 0, 64, 64) == (mask > 0)).all()
        and np.isnan(raster.read(0, 0, 64, 64)[:, :20]).all()
    )


def test_a_look_reads_overviews_masks_and_areas(tmp_path):
    array = np.repeat(np.repeat(noise(2, 64, 64), 8, 1), 8, 2)
    array[:, :, :256] = 0
    raster = open_raster(with_overviews(tmp_path / "a.tif", array, rasterio.enums.Resampling.average))
    assert raster.overviews == (2, 4, 8)
    small = overview(raster, 64)
    assert small.shape == (2, 64, 64) and np.isnan(small[:, :, :32]).all()
    np.testing.assert_array_equal(small[:, :, 32:], array[:, ::8, 256::8])
    np.testing.assert_array_equal(overview(open_raster(array), 64)[:, 0, 40], array[:, 0, 320])
    assert overview(raster, 1000).shape == (2, 512, 512) and overview(
        open_raster(noise(1, 1, 400)), 64
    ).shape == (
        1,
        1,
        64,
    )
    mask = np.full((64, 64), 255, np.uint8)
    mask[:, :32] = 0
    assert np.isnan(overview(open_raster(tagged_alpha(tmp_path / "m.tif", mask)), 16)).sum() == 3 * 16 * 8


def test_complex_numbers_and_huge_windows_are_refused(tmp_path):
    with says("complex", "magnitude"):
        open_raster(plain_write(tmp_path / "c.tif", np.ones((1, 8, 8), np.complex64)))
    with rasterio.open(
        tmp_path / "huge.tif",
        "w",
        driver="GTiff",
        count=4,
        height=100_000,
        width=100_000,
        dtype="uint8",
        photometric="minisblack",
        tiled=True,
        sparse_ok=True,
        compress="deflate",
        crs=PLACE[0],
        transform=rasterio.Affine(*PLACE[1]),
    ):
        pass
    huge = open_raster(tmp_path / "huge.tif")
    with says("huge.tif", "160.0 GB"):
        huge.read(0, 0, 100_000, 100_000)
    assert (huge.read(90_000, 90_000, 64, 64) == 0).all()


def test_a_small_file_that_declares_40_gb_is_refused_by_its_windows(tmp_path):
    def claim(name, **profile):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(
                tmp_path / name,
                "w",
                driver="GTiff",
                height=100_000,
                dtype="uint8",
                photometric="minisblack",
                sparse_ok=True,
                **profile,
            ):
                pass
        assert (tmp_path / name).stat().st_size < 3e7
        return tmp_path / name

    tiled = claim("tiles.tif", width=100_000, count=4, tiled=True, blockxsize=512, blockysize=512)
    with says("tiles.tif", "40.0 GB"):
        open_raster(tiled).read(0, 0, 50_000, 50_000)
    with says("labels of 10.0 GB"):
        read_labels(
            claim("labels.tif", width=100_000, count=1, tiled=True, blockxsize=512, blockysize=512), CLASSES
        )
    with says("tile.tif", "pieces of 49152 x 49152, 2.4 GB each"):
        open_raster(
            claim(
                "tile.tif",
                width=100_000,
                count=1,
                tiled=True,
                blockxsize=49_152,
                blockysize=49_152,
                compress="deflate",
            )
        )


def manifest():
    folder = Path(os.environ.get("RSSSL_DATA", "")) / "geotiff/manifest.csv"
    if not os.environ.get("RSSSL_DATA") or not folder.is_file():
        return [pytest.param(None, id="RSSSL_DATA-not-set")]
    with open(folder, newline="") as f:
        return [pytest.param(row, id=row["file"]) for row in csv.DictReader(f)]


@pytest.mark.parametrize("row", manifest())
def test_the_manifest_of_real_geotiffs(imagery, row):
    if row is None:
        pytest.skip("RSSSL_DATA has no geotiff/manifest.csv: no real raster was read")
    path = imagery / "geotiff" / row["file"]
    if row["opens"] == "False":
        with says(Path(row["file"]).name):
            open_raster(path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        raster = open_raster(path)
        pool = Pool(path, min(48, raster.width, raster.height), max_nodata=1)
    cut_out = raster.mask not in (None, "internal")
    bands = 3 if raster.palette is not None else int(row["count"]) - cut_out
    assert raster.bands == bands and (raster.width, raster.height, raster.dtype) == (
        int(row["width"]),
        int(row["height"]),
        row["dtype"],
    )
    assert cut_out == (row["file"] == "rgb/cog_rgba.tif")  # NAIP's infrared stays a band
    assert (raster.crs is None) == (row["crs"] == "") and (
        raster.crs == row["crs"] or not row["crs"].startswith("EPSG")
    )
    assert (raster.nodata is None) == (row["nodata"] == "") and np.allclose(
        raster.transform, [float(v) for v in row["transform"].split()], rtol=1e-6
    )
    w, h = min(raster.width, 1024), min(raster.height, 1024)
    got = raster.read(0, 0, w, h)
    with rasterio.open(path) as file:
        raw = file.read(raster.indexes, window=((0, h), (0, w)))
        if raster.palette is not None:  # a picture of colour numbers is read as its colours
            colours = np.array([file.colormap(1)[n][:3] for n in range(256)])
            raw = np.moveaxis(colours[raw[0]], -1, 0)
    ok = np.isfinite(got)
    np.testing.assert_array_equal(got[ok], raw.astype(np.float32)[ok])
    if raster.mask is None and raster.nodata is not None and raster.nodata == raster.nodata:
        assert (raw[~ok] == np.array(raster.nodata).astype(raw.dtype)).all()
    mean, std = pool.statistics()
    assert (
        pool.windows(20).shape == (20, 4)
        and np.isfinite(mean).all()
        and np.isfinite(std).all()
        and pool.bands == raster.bands
    )
    assert count_valid(raster) == pool.pixels  # every pixel was read, as full_read_ok says it can
    from rsssl_nb.figures import show_image

    assert (
        show_image(overview(raster))._repr_png_()[:4] == b"\x89PNG"
        and show_image(pool.read(pool.windows(1)[0]))._repr_png_()
    )


def test_three_encodings_of_one_picture_read_alike(imagery):
    a, b, c = (
        open_raster(imagery / f"geotiff/rgb/{n}").read(100, 200, 500, 400)
        for n in ("RGB.byte.tif", "rgb_deflate.tif", "rgb_lzw.tif")
    )
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
