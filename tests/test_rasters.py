"The raster door: odd files, exact windows, honest nodata, labels, and everything refused in one sentence."

import csv
import json
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp

from rsssl_nb.data.check import check_rasters, count_valid
from rsssl_nb.data.coverage import box_sum, corner_boxes, has_enough_valid, summed_area_table
from rsssl_nb.data.gdal import find_rasters
from rsssl_nb.data.labels import Classes, find_classes, pair_labels, read_classes, read_labels
from rsssl_nb.data.pool import Pool
from rsssl_nb.data.raster import open_raster, overview
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import raster_writer, write_raster, write_scene
from rsssl_nb.errors import InputError

PLACE = ("EPSG:32633", (0.5, 0.0, 400000.0, 0.0, -0.5, 5800000.0))
CLASSES = Classes(("water", "road", "field"), ("#0000ff", "#808080", "#00ff00"))


def noise(*shape, dtype="uint8", seed=0, low=1):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(50, 9, shape).astype(dtype)
        if np.dtype(dtype).kind == "f"
        else rng.integers(low, 120, shape).astype(dtype)
    )


def plain_write(path, array, **profile):
    "A TIFF as other tools write it: rasterio's own defaults."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=len(array),
            height=array.shape[1],
            width=array.shape[2],
            dtype=array.dtype,
            **profile,
        ) as file:
            file.write(array)
    return path


class says:
    "A block that must end in an InputError of one sentence holding the words."

    def __init__(self, *words):
        self.words = words

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        assert kind is not None and issubclass(kind, InputError), (
            f"wanted an InputError with {self.words}, got {error!r}"
        )
        text = str(error)
        assert "\n" not in text and ":" in text and not text.endswith("."), text
        for word in self.words:
            assert str(word) in text, f"{word!r} is missing in: {text}"
        return True


# ---------------------------------------------------------------- reading


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


# ---------------------------------------------------------------- nodata and masks


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


def test_infinite_and_undeclared_nan_are_missing(tmp_path):
    array = noise(1, 10, 10, dtype="float64")
    array[0, 0, :3] = np.nan, np.inf, 1e300
    assert np.isnan(open_raster(plain_write(tmp_path / "a.tif", array)).read(0, 0, 10, 10)).sum() == 3


def test_a_nodata_value_the_type_cannot_hold_means_none(tmp_path):
    raster = open_raster(np.array([[[241, 5]]], np.uint8))
    assert raster.nodata is None
    from rsssl_nb.data.raster import usable_nodata

    assert (
        usable_nodata(-9999, "uint8") is None
        and usable_nodata(0.5, "int16") is None
        and usable_nodata(-9999.0, "int16") == -9999
    )
    assert usable_nodata(float("nan"), "uint8") is None


def tagged_alpha(path, band):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=4,
        height=64,
        width=64,
        dtype="uint8",
        photometric="rgb",
        alpha="yes",
        crs=PLACE[0],
        transform=rasterio.Affine(*PLACE[1]),
    ) as file:
        file.write(np.concatenate([noise(3, 64, 64), band[None]]))
    return path


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


def test_band_counts_are_compared_without_masks(tmp_path):
    cut = tagged_alpha(tmp_path / "cut.tif", np.full((64, 64), 255, np.uint8))
    rgb = write_raster(tmp_path / "rgb.tif", noise(3, 64, 64), *PLACE)
    assert Pool([cut, rgb], 32).bands == 3
    with says("rgb.tif has 3 bands", "cut.tif has 4 bands", "--alpha"):
        Pool([cut, rgb], 32, alpha="band")
    with says("3 bands", "4 are asked for"):
        Pool([rgb], 32, bands=4)


def test_one_warning_for_many_files(tmp_path):
    for i in range(3):
        tagged_alpha(tmp_path / f"{i}.tif", noise(64, 64, seed=i, low=0))
    with pytest.warns(UserWarning, match="so in 3 files") as said:
        assert Pool(tmp_path, 32).bands == 4
    assert len(said) == 1


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


# ---------------------------------------------------------------- processes, threads, replaced files


class Reads(torch.utils.data.Dataset):
    def __init__(self, pool):
        self.pool, self.windows = pool, pool.windows(24, seed=2)

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return torch.as_tensor(self.pool.read(self.windows[i]))


def test_workers_and_threads_read_the_same(tmp_path):
    files = [write_raster(tmp_path / f"{i}.tif", noise(3, 300, 300, seed=i), *PLACE, 0) for i in range(3)]
    pool = Pool(files, 64)
    alone = [x for x in Reads(pool)]  # handles are open here before the workers fork
    for got, want in zip(torch.utils.data.DataLoader(Reads(pool), batch_size=None, num_workers=2), alone):
        assert torch.equal(got, want)
    with ThreadPoolExecutor(4) as threads:
        for got, want in zip(threads.map(pool.read, pool.windows(24, seed=2)), alone):
            assert torch.equal(torch.as_tensor(got), want)
    for got, want in zip(Reads(pickle.loads(pickle.dumps(pool))), alone):
        assert torch.equal(got, want)


def test_many_files_keep_few_handles(tmp_path):
    from rsssl_nb.data.gdal import OPEN

    files = [write_raster(tmp_path / f"{i:03}.tif", noise(1, 16, 16, seed=i)) for i in range(80)]
    rasters = [open_raster(f) for f in files]
    for i, r in enumerate(rasters):
        np.testing.assert_array_equal(r.read(0, 0, 16, 16), noise(1, 16, 16, seed=i))
    assert len(OPEN.files) <= 64


def test_a_replaced_file_is_read_anew(tmp_path):
    path = tmp_path / "a.tif"
    open_raster(write_raster(path, noise(1, 16, 16))).read(0, 0, 16, 16)
    write_raster(path, noise(2, 20, 20, seed=9))
    np.testing.assert_array_equal(open_raster(path).read(0, 0, 20, 20), noise(2, 20, 20, seed=9))


# ---------------------------------------------------------------- the pool


def holed(height, width, seed, share):
    "One band with a share of round holes."
    rng, array = np.random.default_rng(seed), noise(1, height, width, seed=seed)
    y, x = np.mgrid[:height, :width]
    while (array == 0).mean() < share:
        cx, cy, r = rng.integers(0, width), rng.integers(0, height), rng.integers(2, 20)
        array[0][(x - cx) ** 2 + (y - cy) ** 2 < r * r] = 0
    return array


@settings(max_examples=40, deadline=None)
@given(
    st.integers(20, 90),
    st.integers(20, 90),
    st.integers(3, 60),
    st.integers(1, 9),
    st.floats(0, 0.8),
    st.integers(0, 99),
    st.floats(0, 1),
)
def test_cells_never_lie(height, width, size, cell, share, seed, keep):
    from rsssl_nb.data.coverage import Coverage, cell_counts
    from rsssl_nb.data.raster import open_array

    array = holed(height, width, seed, share)
    raster = open_array(array, nodata=0)
    cover = Coverage(raster, cell, summed_area_table(cell_counts(raster, cell)))
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, max(1, width - size + 1), 50), rng.integers(0, max(1, height - size + 1), 50)
    true = np.array([(array[0, b : b + size, a : a + size] > 0).sum() for a, b in zip(x, y)])
    least, most = cover.bounds(x, y, x + size, y + size)
    assert (least <= true).all() and (true <= most).all()
    need = max(1, int(keep * size * size))
    assert (has_enough_valid(cover, x, y, size, need) == (true >= need)).all()
    boxes = corner_boxes(cover, size, need)
    for a, b in np.stack([x, y], 1)[true >= need]:
        assert (
            (boxes[:, 0] <= a)
            & (a < boxes[:, 0] + boxes[:, 2])
            & (boxes[:, 1] <= b)
            & (b < boxes[:, 1] + boxes[:, 3])
        ).sum() == 1


def test_windows_are_a_pure_function(tmp_path):
    path = write_raster(tmp_path / "a.tif", holed(400, 300, 3, 0.3), nodata=0)
    pool, again = Pool([path], 32), Pool([path], 32)
    np.testing.assert_array_equal(pool.windows(300, 7, 2)[:40], again.windows(40, 7, 2))
    assert (pool.windows(40, 7, 2) != pool.windows(40, 7, 3)).any() and (
        pool.windows(40, 7, 2) != pool.windows(40, 8, 2)
    ).any()
    assert pool.windows(0).shape == (0, 4) and pool.windows(5, -1, 2**40).shape == (5, 4)


@pytest.mark.parametrize("max_nodata", [0, 0.25, 0.5, 1])
def test_no_window_lacks_more_than_allowed(max_nodata):
    from rsssl_nb.data.raster import open_array

    pool = Pool([open_array(holed(500, 400, 5, 0.45), nodata=0)], 24, max_nodata)
    lost = np.array([np.isnan(pool.read(w)).mean() for w in pool.windows(400)])
    assert lost.max() <= max_nodata and lost.max() < 1 and (max_nodata == 0 or lost.max() > max_nodata - 0.25)
    corners = lambda length: {min(s, length - 24) for s in range(0, length, 24)}
    shares = [np.isnan(pool.read([0, x, y, 24])).mean() for y in corners(500) for x in corners(400)]
    assert pool.total == len(shares) and pool.dropped == sum(s > max_nodata or s == 1 for s in shares)


def test_every_allowed_place_is_as_likely():
    from rsssl_nb.data.raster import open_array

    array = np.zeros((1, 40, 60), np.uint8)
    array[0, 5:30, 10:50] = 9
    pool = Pool([open_array(array, nodata=0)], 16, max_nodata=0)
    found = pool.windows(20000)
    counts = np.unique(found[:, 1:3], axis=0, return_counts=True)[1]
    assert (
        len(counts) == 25 * 10 and abs(counts.mean() - 80) < 1 and counts.std() < 1.3 * 80**0.5
    )  # 250 corners, Poisson spread


def test_rasters_are_drawn_by_their_valid_pixels():
    half = noise(1, 200, 200)
    half[:, :, :100] = 0
    from rsssl_nb.data.raster import open_array

    pool = Pool([open_array(half, nodata=0), noise(1, 100, 100), noise(1, 14, 14)], 16)
    share = np.bincount(pool.windows(6000)[:, 0]) / 6000
    assert pool.pixels == 20000 + 10000 + 196 and pool.default_samples() == 30196 // 256
    np.testing.assert_allclose(share, np.array([20000, 10000, 196]) / 30196, atol=0.02)
    assert share[2] > 0 and np.isnan(pool.read([2, 0, 0, 16])).sum() == 256 - 196  # the small one, padded


def test_statistics_leave_nodata_out(tmp_path):
    array = holed(600, 600, 1, 0.4).repeat(3, 0).astype(np.uint16)
    array[1] *= 50
    array[:, :, :150] = 0
    pool = Pool([write_raster(tmp_path / "a.tif", array, nodata=0)], 64)
    mean, std = pool.statistics()
    true = array[:, array[0] > 0].astype(float)
    np.testing.assert_allclose(mean, true.mean(1), rtol=0.01)
    np.testing.assert_allclose(std, true.std(1), rtol=0.01)
    assert mean.tolist() == pool.statistics()[0].tolist()
    flat = Pool([np.full((1, 64, 64), 1e6, np.float32)], 32).statistics()
    assert flat[0].tolist() == [1e6] and flat[1].tolist() == [0]


def test_pools_that_cannot_be(tmp_path):
    empty, images = tmp_path / "empty", tmp_path / "images"
    empty.mkdir()
    write_raster(images / "a.tif", noise(4, 128, 100), *PLACE)
    with says(tmp_path / "no", "does not exist"):
        Pool(tmp_path / "no", 32)
    with says("empty", "no raster"):
        Pool([images, empty], 32)
    with says("no image"):
        Pool([], 32)
    with says(101, "100 x 128"):
        Pool(images, 101)
    void = write_raster(tmp_path / "void.tif", np.zeros((4, 64, 64), np.uint8), nodata=0)
    with says("void.tif", "nodata (0)"):
        Pool([images, void], 32)
    write_raster(images / "b.tif", noise(3, 128, 128))
    with says("b.tif has 3 bands", "a.tif has 4 bands"):
        Pool(images, 32)
    sparse = np.zeros((1, 128, 128), np.uint8)
    sparse[0, ::8, ::8] = 5
    with says("sparse.tif", 0.5, "--max-nodata"):
        Pool(write_raster(tmp_path / "sparse.tif", sparse, nodata=0), 32)
    assert Pool(tmp_path / "sparse.tif", 32, max_nodata=0.99).windows(5).shape == (5, 4)
    for bad in (-0.1, 1.1):
        with says(bad, "share"):
            Pool(images / "a.tif", 32, max_nodata=bad)


def test_the_grid_covers_once_and_shuffles_purely(tmp_path):
    pool = Pool([noise(2, 100, 130), noise(2, 64, 40)], 32)
    grid = pool.grid()
    seen = [np.zeros((r.height, r.width), int) for r in pool.rasters]
    for i, x, y, s in grid:
        seen[i][y : y + s, x : x + s] += 1
    assert all(s.min() == 1 for s in seen) and len(grid) == pool.total == 4 * 5 + 2 * 2
    assert (
        (pool.grid(3, 1) == Pool([noise(2, 100, 130), noise(2, 64, 40)], 32).grid(3, 1)).all()
        and (pool.grid(3, 1) != pool.grid(3, 2)).any()
        and (pool.grid(4, 1) != pool.grid(3, 1)).any()
    )
    assert sorted(map(tuple, pool.grid(3, 1))) == sorted(map(tuple, grid))


def test_block_order_is_a_permutation_along_the_blocks(tmp_path):
    a = plain_write(tmp_path / "a.tif", noise(1, 256, 256), tiled=True, blockxsize=64, blockysize=32)
    b = plain_write(tmp_path / "b.tif", noise(1, 200, 200))
    pool = Pool([a, b], 16)
    windows = pool.windows(300)
    order = pool.in_block_order(windows)
    assert sorted(order) == list(range(300))
    ordered = windows[order]
    keys = [
        (r, y // pool.rasters[r].block[0], x // pool.rasters[r].block[1]) for r, x, y, _ in ordered.tolist()
    ]
    assert keys == sorted(keys) and pool.rasters[0].block == (32, 64)


def test_rasters_of_other_places_and_pixels_pool(tmp_path):
    coarse = write_raster(tmp_path / "coarse.tif", noise(3, 60, 60), "EPSG:4326", (1e-3, 0, 10, 0, -1e-3, 50))
    fine = write_raster(tmp_path / "fine.tif", noise(3, 120, 200, seed=1), *PLACE)
    bare = write_raster(tmp_path / "other.tif", noise(3, 80, 80, seed=2), "EPSG:3857", (2, 0, 0, 0, -2, 0))
    pool = Pool([coarse, fine, bare], 32)
    windows = pool.windows(200)
    assert set(windows[:, 0]) == {0, 1, 2}
    for w in windows[:30]:
        with rasterio.open([coarse, fine, bare][w[0]]) as file:
            np.testing.assert_array_equal(
                pool.read(w), file.read(window=((w[2], w[2] + 32), (w[1], w[1] + 32)))
            )


def with_overviews(path, array, resampling):
    plain_write(
        path,
        array,
        tiled=True,
        blockxsize=64,
        blockysize=64,
        nodata=0,
        crs=PLACE[0],
        transform=rasterio.Affine(*PLACE[1]),
    )
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], resampling)
    return path


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


@pytest.mark.parametrize("resampling", ["average", "nearest"])
def test_overviews_make_statistics_better_whatever_they_are(tmp_path, resampling):
    trend = np.linspace(20, 200, 1024)[None, :, None] + np.linspace(-15, 30, 1024)
    array = np.clip(trend + np.random.default_rng(0).normal(0, 12, (1, 1024, 1024)), 1, 255).astype(np.uint8)
    path = with_overviews(tmp_path / "a.tif", array, rasterio.enums.Resampling[resampling])
    from dataclasses import replace

    raster, error = (
        open_raster(path),
        lambda found: abs(found[0][0] - array.mean()) + abs(found[1][0] - array.std()),
    )
    with_them, without = Pool(raster, 64).statistics(), Pool(replace(raster, overviews=()), 64).statistics()
    assert error(with_them) < 0.8 and error(with_them) < error(without) / 2


# ---------------------------------------------------------------- bad files among good ones


@pytest.fixture
def mixed(tmp_path):
    "Forty tiles, one of them cut short and one of three bands."
    for i in range(40):
        write_raster(tmp_path / f"{i:02}.tif", noise(2, 64, 64, seed=i), nodata=0)
    cut = tmp_path / "07.tif"
    cut.write_bytes(cut.read_bytes()[:2000])
    write_raster(tmp_path / "20.tif", noise(3, 64, 64))
    return tmp_path


def test_errors_raise_by_default_and_skip_within_a_budget(mixed):
    with says("20.tif has 3 bands"):
        Pool(mixed, 16)
    pool = Pool(mixed, 16, on_error="skip")
    assert (
        len(pool.rasters) == 38
        and sorted(Path(p).name for p, _ in pool.skipped) == ["07.tif", "20.tif"]
        and all("07.tif cannot" in s or "3 bands" in s for _, s in pool.skipped)
    )
    assert "skipped" in repr(pool) and pool.windows(100)[:, 0].max() == 37
    with says("2 of 40 files cannot be used and 1 may be skipped", "rsssl-nb check"):
        Pool(mixed, 16, on_error="skip", budget=0.04)
    write_raster(mixed / "30.tif", np.zeros((2, 64, 64), np.uint8), nodata=0)
    with says("3 of 40 files cannot be used and 2 may be skipped", "nothing but nodata"):
        Pool(mixed, 16, on_error="skip")
    with says("no usable image is left"):
        Pool(mixed / "07.tif", 16, on_error="skip")
    with says("on_error is 'ignore'"):
        Pool(mixed, 16, on_error="ignore")


def test_windows_that_cannot_be_read_are_replaced_purely(tmp_path):
    for i in range(3):
        write_raster(tmp_path / f"{i}.tif", noise(1, 512, 512, seed=i))
    damaged = bytearray((tmp_path / "1.tif").read_bytes())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    (tmp_path / "1.tif").write_bytes(damaged)
    pool = Pool(tmp_path, 64, on_error="skip")
    windows = pool.windows(60)
    with pytest.warns(UserWarning, match="windows are replaced: .*1.tif cannot be read") as said:
        first = [pool.read(w) for w in windows]
    assert (
        len(said) == 1
        and [Path(p).name for p, _ in pool.skipped] == ["1.tif"]
        and all(np.isfinite(a).all() for a in first)
    )
    again = Pool(tmp_path, 64, on_error="skip")
    with pytest.warns(UserWarning):
        second = [again.read(w) for w in windows[::-1]][::-1]
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)
    with says("1.tif cannot be read"):
        [Pool(tmp_path, 64).read(w) for w in windows]


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


# ---------------------------------------------------------------- one to thirteen bands


@pytest.mark.parametrize("bands", range(1, 14))
def test_any_number_of_bands_goes_all_the_way(tmp_path, bands):
    from rsssl_nb.data.statistics import normalise
    from rsssl_nb.encoders import Encoder
    from rsssl_nb.figures import show_image
    from rsssl_nb.views.pairs import two_views

    path = write_raster(
        tmp_path / "a.tif",
        np.random.default_rng(bands).integers(1, 4000, (bands, 64, 64)).astype("uint16"),
        *PLACE,
    )
    pool = Pool(path, 32)
    images = normalise(torch.as_tensor(np.stack([pool.read(w) for w in pool.windows(2)])), *pool.statistics())
    pair = two_views(images, seed=1)
    assert pair.a.shape == pair.b.shape == (2, bands, 32, 32) and not torch.equal(pair.a, images)
    assert torch.isfinite(Encoder(bands=bands, width=8)(pair.a).pooled).all()
    assert show_image(overview(open_raster(path)))._repr_png_() and show_image(pair.a[0])._repr_png_()


# ---------------------------------------------------------------- files that are no rasters


def test_files_that_are_not_what_they_say(tmp_path):
    (tmp_path / "lfs.tif").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "none.jpg").write_bytes(b"")
    (tmp_path / "vrt.tif").write_text("<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>")
    with says("lfs.tif", "git lfs pull"):
        open_raster(tmp_path / "lfs.tif")
    with says("is empty (0 bytes)"):
        open_raster(tmp_path / "none.jpg")
    for name in ("text.png", "vrt.tif"):
        with says(name, "no TIFF, PNG or JPEG"):
            open_raster(tmp_path / name)
    with says("does not exist"):
        open_raster(tmp_path / "missing.tif")
    with says("is a folder"):
        open_raster(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "/vsicurl/https://example.org/a.tif",
        "https://example.org/a.tif",
        "s3://bucket/a.tif",
        "/vsizip/a.zip/b.tif",
        Path("s3://bucket/a.tif"),
    ],
)
def test_remote_paths_are_refused(path):
    with says("remote or virtual", "allow_remote"):
        open_raster(path)
    with says("remote or virtual"):
        find_rasters([path])


def test_virtual_paths_open_when_asked(tmp_path):
    import zipfile

    write_raster(tmp_path / "a.tif", noise(1, 20, 20))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.write(tmp_path / "a.tif", "a.tif")
    raster = open_raster(f"/vsizip/{tmp_path}/a.zip/a.tif", allow_remote=True)
    np.testing.assert_array_equal(raster.read(0, 0, 20, 20), noise(1, 20, 20))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
def test_truncated_files_name_themselves(tmp_path, share):
    for name, save in (
        ("a.tif", lambda p: write_raster(p, noise(3, 300, 300), *PLACE, 0)),
        ("a.png", lambda p: Image.fromarray(noise(300, 300, 3)).save(p)),
        ("a.jpg", lambda p: Image.fromarray(noise(300, 300, 3)).save(p, quality=95)),
    ):
        save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
        with says(name, "damaged or cut short"):
            open_raster(tmp_path / name).read(0, 0, 300, 300)


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


# ---------------------------------------------------------------- writing


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


# ---------------------------------------------------------------- folders, labels, classes


def test_find_rasters(tmp_path):
    for name in ("b/2.tif", "b/1.TIF", ".hidden/x.tif", "b/.part.tif", "b/notes.txt", "c/d/3.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in find_rasters(tmp_path)] == ["1.TIF", "2.tif", "3.tif"]
    assert [p.name for p in find_rasters([tmp_path / "b", tmp_path / "b/2.tif"])] == ["1.TIF", "2.tif"]


def test_index_colour_and_palette_labels_agree(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (40, 50)).astype(np.uint8)
    table = np.array([(0, 0, 255), (128, 128, 128), (0, 255, 0)], np.uint8)
    Image.fromarray(labels).save(tmp_path / "index.png")
    Image.fromarray(table[labels]).save(tmp_path / "colour.png")
    other = Image.fromarray((labels + 7).astype(np.uint8), "P")  # numbers 7..9, but the right colours
    other.putpalette([0] * 21 + table.ravel().tolist())
    other.save(tmp_path / "palette.png")
    write_raster(tmp_path / "colour.tif", table[labels].transpose(2, 0, 1), *PLACE)
    for name in ("index.png", "colour.png", "palette.png", "colour.tif"):
        np.testing.assert_array_equal(read_labels(tmp_path / name, CLASSES), labels)
    np.testing.assert_array_equal(read_labels(table[labels].transpose(2, 0, 1), CLASSES), labels)
    np.testing.assert_array_equal(read_labels(labels.astype(np.int64), CLASSES), labels)


def test_nothing_counts_where_it_should_not(tmp_path):
    labels = np.array([[1, 2, 0], [9, 200, 2]])
    loveda = Classes(("a", "b"), ignore_index=0, values=(1, 2))
    np.testing.assert_array_equal(read_labels(labels[:1], loveda), [[0, 1, 255]])
    path = write_raster(tmp_path / "l.tif", np.array([[[1, 0, 7]]], np.uint8), nodata=7)
    np.testing.assert_array_equal(read_labels(path, CLASSES), [[1, 0, 255]])
    grey = np.array([[[0x9B, 0]], [[0x9B, 0]], [[0x9B, 255]]], np.uint8)
    np.testing.assert_array_equal(
        read_labels(grey, Classes(CLASSES.names, CLASSES.colors, ignored=("#9B9B9B",))), [[255, 0]]
    )


def test_labels_that_do_not_fit(tmp_path):
    image = open_raster(write_raster(tmp_path / "image.tif", noise(3, 40, 50), *PLACE))
    labels = noise(1, 40, 50) % 3

    def file(name, array=labels, crs=PLACE[0], transform=PLACE[1]):
        return write_raster(tmp_path / name, array, crs, transform)

    assert read_labels(file("good.tif"), CLASSES, image).shape == (40, 50)
    assert read_labels(file("wkt.tif", crs=rasterio.CRS.from_epsg(32633).to_wkt()), CLASSES, image).shape == (
        40,
        50,
    )
    assert read_labels(file("bare.tif", crs=None, transform=None), CLASSES, image).shape == (40, 50)
    with says("small.tif is 49 x 40", "image.tif is 50 x 40"):
        read_labels(file("small.tif", labels[:, :, :49]), CLASSES, image)
    with says("crs.tif is in EPSG:4326", "image.tif in EPSG:32633"):
        read_labels(file("crs.tif", crs="EPSG:4326"), CLASSES, image)
    with says("off.tif lies 2 pixels off", "image.tif"):
        read_labels(file("off.tif", transform=(0.5, 0, 400001, 0, -0.5, 5800000)), CLASSES, image)
    strange = labels.copy()
    strange[0, :10] = 77
    with says("25 % of", "strange.tif", "value 77", "3 classes"):
        read_labels(file("strange.tif", strange), CLASSES, image)
    colours = np.zeros((3, 40, 50), np.uint8)
    colours[2] = 255
    colours[0, :, :5] = 0x12
    with says("10 % of", "#1200FF"):
        read_labels(colours, CLASSES, image)
    with says("no colours"):
        read_labels(colours, Classes(CLASSES.names))
    with says("2 bands"):
        read_labels(noise(2, 40, 50), CLASSES)


def test_classes_are_found_and_checked(tmp_path):
    folder = tmp_path / "set/train/labels"
    path = write_raster(folder / "a.tif", noise(1, 9, 9) % 3)
    with says("classes.json", "--classes"):
        find_classes(folder)
    text = json.dumps(
        dict(
            ignore_index=9,
            classes=[dict(index=1, name="b", rgb=[1, 2, 3]), dict(index=0, name="a", hex="#0A0B0C")],
        )
    )
    (tmp_path / "set/classes.json").write_text(text)
    assert find_classes(folder).samefile(tmp_path / "set/classes.json") and find_classes(path).samefile(
        tmp_path / "set/classes.json"
    )
    found = read_classes(find_classes(folder))
    assert (found.names, found.colors, found.ignore_index, found.values) == (
        ("a", "b"),
        ("#0a0b0c", "#010203"),
        9,
        (0, 1),
    )
    for bad in (
        "",
        "[]",
        "{}",
        '{"classes": []}',
        text.replace('"index": 1', '"index": 0'),
        text.replace("#0A0B0C", "blue"),
        text.replace(', "hex": "#0A0B0C"', ""),
    ):
        (tmp_path / "bad.json").write_text(bad)
        with says("bad.json"):
            read_classes(tmp_path / "bad.json")
    with says("does not exist"):
        read_classes(tmp_path / "none.json")
    with says("carries no class names"):
        read_classes(path)


def test_pairs_by_stem(tmp_path):
    for name in ("i/a.jpg", "i/b.jpg", "i/c.jpg", "l/b.png", "l/a.png", "x/z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [(a.name, b.name) for a, b in pair_labels(tmp_path / "i", tmp_path / "l")] == [
        ("a.jpg", "a.png"),
        ("b.jpg", "b.png"),
    ]
    assert len(pair_labels(tmp_path / "i/a.jpg", tmp_path / "x/z.png")) == 1
    with says("same stem", "z.png"):
        pair_labels(tmp_path / "i", tmp_path / "x")
    (tmp_path / "l/a.tif").write_bytes(b"")
    with says("a.tif", "a.png"):
        pair_labels(tmp_path / "i", tmp_path / "l")


def test_summed_area_table_is_the_slow_sum():
    counts = noise(13, 17)
    table = summed_area_table(counts.astype(int))
    for x0, y0, x1, y1 in np.random.default_rng(0).integers(0, 13, (50, 4)):
        assert box_sum(table, x0, y0, x1, y1) == counts[y0 : max(y0, y1), x0 : max(x0, x1)].sum()


# ---------------------------------------------------------------- real files


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
    assert raster.bands == int(row["count"]) - cut_out and (raster.width, raster.height, raster.dtype) == (
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


def test_dubai_labels_are_read_as_described(imagery):
    dubai = imagery / "dubai"
    pairs = pair_labels(dubai / "val/images", dubai / "val/labels")
    classes = read_classes(find_classes(dubai / "val/labels"))
    rows = {r["id"]: r for r in csv.DictReader((dubai / "parts.csv").read_text().splitlines())}
    assert len(pairs) == 9 and classes.names == ("building", "land_unpaved", "road", "vegetation", "water")
    for image, label in pairs:
        counts = np.bincount(read_labels(label, classes, open_raster(image)).ravel(), minlength=256)
        row = rows[image.stem]
        assert [int(row[f"px_{n}"]) for n in classes.names] == counts[:5].tolist() and int(
            row["px_ignore"]
        ) == counts[255]
