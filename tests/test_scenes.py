"The embedded world: exact, repeatable, georeferenced."

import numpy as np
import pytest

from rsssl_nb.data.scenes import IGNORE, make_scene, make_tiles, standardise


def test_shape_and_truth():
    s = make_scene(200, seed=5)
    assert (
        s.image.shape == (4, 200, 200)
        and s.image.dtype == np.uint8
        and s.labels.shape == (200, 200)
        and s.labels.dtype == np.uint8
    )
    assert (
        s.crs.startswith("EPSG:")
        and len(s.transform) == 6
        and s.transform[0] == 0.5
        and len(s.classes) == len(s.colors) == 6
    )
    assert (
        (s.valid == (s.labels != IGNORE)).all()
        and 0 < (~s.valid).mean() < 0.3
        and s.labels[s.valid].max() < 6
    )


def test_seeds():
    a, b, c = make_scene(96, 1), make_scene(96, 1), make_scene(96, 2)
    assert (
        a.image.tobytes() == b.image.tobytes()
        and a.labels.tobytes() == b.labels.tobytes()
        and a.image.tobytes() != c.image.tobytes()
    )


@pytest.mark.parametrize("size", [16, 33, 100])
def test_any_size(size):
    assert make_scene(size).image.shape == (4, size, size)


def test_too_small_is_refused():
    with pytest.raises(ValueError, match="size 8"):
        make_scene(8)


def test_every_class_occurs_and_none_rules():
    shares = np.mean(
        [np.bincount(make_scene(512, k).labels.ravel(), minlength=256)[:6] / 512**2 for k in range(4)], 0
    )
    assert (shares > 0.02).all() and (shares < 0.6).all()


def test_tiles():
    x, y = make_tiles(30, 64, seed=1)
    assert x.shape == (30, 4, 64, 64) and y.shape == (30, 64, 64) and y.max() < 6 and x.min() > 0
    assert (
        np.median([len(np.unique(t)) for t in y]) >= 2
        and make_tiles(30, 64, seed=1)[0].tobytes() == x.tobytes()
    )
    z = standardise(x)
    assert abs(z.mean((0, 2, 3))).max() < 1e-4 and abs(z.std((0, 2, 3)) - 1).max() < 1e-3
    assert standardise(np.ones((2, 1, 4, 4))).abs().max() == 0
