"Mean and deviation of the valid pixels, for any number of bands."

import numpy as np
import pytest
import rasterio
import torch
from odd_rasters import PLACE, holed, with_overviews

from rsssl_nb.data.pool import Pool
from rsssl_nb.data.raster import open_raster, overview
from rsssl_nb.data.write import write_raster


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
