"""Windows drawn from a tiled, compressed GeoTIFF of 4 bands: against torchgeo and against a bare rasterio
loop, the same windows.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from measure import Sides, growth, main, question

from rsssl_nb.data.pool import Pool
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster

KEPT = {}


def raster(side):
    """The path of a synthetic scene, `side` pixels square, uint8, DEFLATE in tiles, in a folder of its own
    that lasts as long as the script.
    """
    if side not in KEPT:
        KEPT[side] = tempfile.TemporaryDirectory()
        scene = make_scene(min(side, 1024), seed=3)
        image = np.tile(scene.image, (1, side // scene.image.shape[1], side // scene.image.shape[2]))
        write_raster(Path(KEPT[side].name) / "scene.tif", image, scene.crs, scene.transform, None)
    return Path(KEPT[side].name) / "scene.tif"


def drawn(at, n=None):
    "A pool over the raster and windows of it."
    side, size, count = at.pick((4096, 224, 200), (256, 64, 4))
    pool = Pool([raster(side)], size)
    return pool, pool.windows(n or count, seed=0)


def bare(path, windows):
    "A loop over rasterio's own reads, float32."
    import rasterio
    from rasterio.windows import Window

    file = rasterio.open(path)
    return lambda: [
        file.read(window=Window(int(x), int(y), int(s), int(s))).astype(np.float32) for _, x, y, s in windows
    ]


def by_torchgeo(path, windows):
    "torchgeo's RasterDataset asked for the same windows by their place on the ground, a sample dict each."
    warnings.simplefilter("ignore")
    import rasterio
    from torchgeo.datasets import RasterDataset

    class Scene(RasterDataset):
        filename_glob = "scene.tif"

    data = Scene(path.parent)
    with rasterio.open(path) as file:
        t = file.transform
    span = data.bounds[2] if isinstance(data.bounds, tuple) else None

    def place(x, y, s):
        (left, top), (right, bottom) = t * (x, y), t * (x + s, y + s)
        return slice(left, right), slice(bottom, top), span

    queries = [place(int(x), int(y), int(s)) for _, x, y, s in windows]
    return lambda: [data[q]["image"] for q in queries]


def against(peer):
    def ask(at):
        pool, windows = drawn(at)
        ours, other = lambda: [pool.read(w) for w in windows], peer(pool.rasters[0].path, windows)
        for mine, theirs in zip(ours(), other()):
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
        return Sides(ours, other, f"{len(windows)} windows of {pool.size} px a call")

    return ask


question("window sampling from a GeoTIFF: torchgeo", ">= 4", "cpu")(against(by_torchgeo))
question("window sampling from a GeoTIFF: bare rasterio loop", ">= 0.9", "cpu")(against(bare))


@question("growth: window sampling, windows", "<= 1.15", "cpu")
def many(at):
    def work(n):
        pool, windows = drawn(at, n)
        return lambda: [pool.read(w) for w in windows]

    return growth(work, [50, 100, 200, 400], 1, at)


if __name__ == "__main__":
    sys.exit(main())
