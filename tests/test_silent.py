"A run that can learn nothing says so: one window, images of one value, values that no measurement has."

import warnings

import numpy as np
import pytest
from test_attack import SCENE, SMALL, TUNE, far_out
from test_cli import good, run

from rsssl_nb.data.pool import Pool
from rsssl_nb.data.write import write_raster, write_scene
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.folder import checkpoints
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.weights import load_weights

SHAPE = ("--steps", 2, "--size", 32, "--width", 8, "--device", "cpu")


@pytest.mark.parametrize(
    "more", [("--samples", 1), ("--samples", 8, "--batch", 1), ("--samples", 1, "--batch", 4)]
)
def test_a_batch_of_one_is_a_note(tmp_path, more):
    write_scene(SCENE, tmp_path / "in")
    told = run("pretrain", tmp_path / "in/image.tif", *SHAPE, *more, "--out", tmp_path / "out")
    assert told.exit_code == 0 and "Note: in a batch of one" in told.stderr, told.output


def test_two_windows_are_no_batch_of_one(tmp_path):
    write_scene(SCENE, tmp_path / "in")
    line = ("pretrain", tmp_path / "in/image.tif", *SHAPE, "--samples", 2, "--out", tmp_path / "out")
    assert "batch of one" not in good(*line)


def flat(bands):
    "The scene with these bands at one value."
    image = SCENE.image.astype("float32")
    image[list(bands)] = 0.1
    return image


@pytest.mark.parametrize(
    "bands, words", [((0, 1, 2, 3), "every band"), ((1,), "band 2"), ((0, 3), "bands 1, 4")]
)
def test_images_of_one_value_are_a_note(tmp_path, bands, words):
    path = write_raster(tmp_path / "flat.tif", flat(bands))
    with pytest.warns(UserWarning, match=f"{words} .* one value.*nothing can be learnt"):
        pretrain(path, **SMALL)
    with pytest.warns(UserWarning, match=f"{words} .* one value.*nothing can be learnt"):
        finetune("random", [path], [SCENE.labels], **TUNE, classes=classes())


def classes():
    from rsssl_nb.data.labels import Classes

    return Classes(tuple(SCENE.classes), tuple(SCENE.colors))


@pytest.mark.parametrize("value, dtype", [(1e300, "float64"), (-1e35, "float32"), (3.4028235e38, "float32")])
def test_values_beyond_any_measurement_are_a_note(tmp_path, value, dtype):
    image = SCENE.image.astype(dtype)
    image[:, 40:60, 40:60] = value
    path = write_raster(tmp_path / "far.tif", image)
    with pytest.warns(UserWarning, match=r"far.tif holds .*e\+.*, beyond any measurement.*--nodata"):
        pretrain(path, **SMALL)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Pool(path, 32).statistics()
    assert not [w for w in said if "beyond" in str(w.message)]  # said once


@pytest.mark.parametrize("nodata", [-3.4e38, 1e300])
def test_who_declares_such_a_value_hears_nothing(tmp_path, nodata):
    image = SCENE.image.astype("float64")
    image[:, 40:60, 40:60] = nodata
    path = write_raster(tmp_path / "far.tif", image, nodata=nodata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pool(path, 32).statistics()


# --- 1: finite states only


@pytest.mark.parametrize("value", [-3.4e38, -3.4028235e38, 1e20])
def test_nine_undeclared_pixels_spoil_no_encoder(tmp_path, value):
    path = write_raster(tmp_path / "far.tif", far_out(value, share=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run = pretrain(path, out=tmp_path / "run", **SMALL | dict(steps=8, samples=16))
        except ValueError as error:  # a value that could be one, and is named
            assert "far.tif" in str(error) or "not finite" in str(error)
            return
    assert max(run.config.std) < 1e4 or value == 1e20
    state, _ = load_weights(tmp_path / "run/encoder.safetensors")
    assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_rate_of_a_million_keeps_only_finite_states(tmp_path, optimizer):
    import torch

    wild = SMALL | dict(steps=40, lr=1e6, optimizer=optimizer, save_every=2)
    try:
        pretrain(SCENE, "simclr", tmp_path / "run", **wild)
    except ValueError as error:
        assert "lower --lr in another --out" in str(error)
    kept = [torch.load(path, weights_only=True)["method"] for path in checkpoints(tmp_path / "run")]
    assert kept
    weights = tmp_path / "run/encoder.safetensors"
    states = [*kept, *([load_weights(weights)[0]] if weights.exists() else [])]
    for state in states:
        assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())
    assert not any(np.isnan(v.numpy()).any() for s in states for v in s.values() if v.is_floating_point())
