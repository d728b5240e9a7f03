"Windows are a pure function, as likely as their valid pixels; bad files raise or are skipped."

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from odd_rasters import PLACE, holed, noise, plain_write, says, tagged_alpha

from rsssl_nb.data.pool import Pool
from rsssl_nb.data.write import write_raster


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
    rows, columns = ({min(s, length - 24) for s in range(0, length, 24)} for length in (500, 400))
    shares = [np.isnan(pool.read([0, x, y, 24])).mean() for y in rows for x in columns]
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
