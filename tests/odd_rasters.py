"Odd rasters and arrays for the tests of the data modules, and `says`, a block that must end in one sentence."

import warnings

import numpy as np
import rasterio

from rsssl_nb.data.labels import Classes
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


def holed(height, width, seed, share):
    "One band with a share of round holes."
    rng, array = np.random.default_rng(seed), noise(1, height, width, seed=seed)
    y, x = np.mgrid[:height, :width]
    while (array == 0).mean() < share:
        cx, cy, r = rng.integers(0, width), rng.integers(0, height), rng.integers(2, 20)
        array[0][(x - cx) ** 2 + (y - cy) ** 2 < r * r] = 0
    return array


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
