"The probes of torchgeo-bench, rebuilt: parts by blocks, probes against loops and scikit-learn, bad input."

import numpy as np
import pytest
import torch

from rsssl_nb.data.folders import ImageFolder, open_folders
from rsssl_nb.data.write import write_raster
from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.evaluation.referee import (
    logistic_regression,
    nearest_classes,
    pooled_features,
    referee,
    referee_pixels,
    three_parts,
)


def blobs(n=90, classes=3, seed=0):
    "Features (n, 5) of classes that overlap, and their labels."
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, 5, dtype=torch.float64, generator=rng)
    return centres[labels] + torch.randn(n, 5, dtype=torch.float64, generator=rng), labels


def folder_of(tmp_path, bands=3, each=16):
    "A folder of two classes, dark and bright, of small images."
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("bright", 190)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(each):
            image = (level + rng.normal(0, 20, (bands, 40, 40))).clip(1, 255).astype(np.uint8)
            write_raster(tmp_path / name / f"{i:02}.tif", image)
    return open_folders(tmp_path)


def test_validation_is_the_end_of_each_block_of_numbers():
    block = np.array(["train"] * 50 + [""] * 2 + ["judge"] * 10)
    parts = np.tile(block, 4)  # two blocks of each of two classes
    labels = np.repeat([0, 1], 124)
    found = three_parts(ImageFolder("f", tuple(range(248)), labels, ("a", "b"), parts)).reshape(4, 62)
    for row in found:
        assert (row[:39] == "train").all() and row[39] == "" and (row[40:50] == "val").all()
        assert (row[50:52] == "").all() and (row[52:] == "test").all()


def test_features_that_fail_leave_the_encoder_its_mode(tmp_path):
    folder, encoder = folder_of(tmp_path, each=2), Encoder(bands=4, width=8).train()
    with pytest.raises(ValueError, match="takes 4 bands"):
        pooled_features(encoder, folder.paths, np.zeros(3), np.ones(3), 40)
    assert encoder.training


def test_a_folder_without_a_validation_part_is_named():
    folder = ImageFolder(
        "small", tuple("abc"), np.array([0, 1, 1]), ("a", "b"), np.array(["train", "", "judge"])
    )
    with pytest.raises(InputError, match="small has no image for the part val"):
        three_parts(folder)


@pytest.mark.parametrize("C", [1e-3, 1.0, 100.0])
def test_the_regression_is_scikit_learns(C):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels = blobs()
    weight, offset = logistic_regression(x, labels, 3, C)
    theirs = linear_model.LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(x.numpy(), labels.numpy())
    expected = theirs.predict_log_proba(x.numpy())
    found = (x @ weight.T + offset).log_softmax(1).numpy()
    assert np.abs(found - expected).max() < 2e-3


def test_the_nearest_five_vote():
    x, labels = blobs()
    asked, _ = blobs(20, seed=1)
    found = nearest_classes(x, labels, asked)
    for point, kind in zip(asked, found):
        near = (x - point).square().sum(1).argsort()[:5]
        assert kind == torch.bincount(labels[near], minlength=3).argmax()


def test_rows_of_a_folder(tmp_path):
    torch.manual_seed(0)
    encoder = Encoder(bands=3, width=8)
    folder = folder_of(tmp_path)
    rows = referee(encoder, folder, size=32, draws=50)
    assert encoder.training and [row["method"] for row in rows] == ["knn5", "linear"]
    for row in rows:
        assert row["metric_value"] == 1 == row["ci_lower"] == row["ci_upper"]  # dark and bright are easy
        assert (row["n_train"], row["n_val"], row["n_test"]) == (18, 4, 8)
    assert rows[0]["best_c"] is None and 1e-7 <= rows[1]["best_c"] <= 1e2
    assert rows == referee(encoder, folder, size=32, draws=50)
    with pytest.raises(InputError, match="takes 4 bands and .* has 3"):
        referee(Encoder(bands=4, width=8), folder, size=32)


def test_the_probe_of_pixels_learns_what_a_pixel_shows():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(0, 2, (16, 4, 4)), 8, 1), 8, 2)
    images = 100 + 80 * labels[:, None] + rng.normal(0, 5, (16, 3, 32, 32))
    labels[:, :4] = 255
    torch.manual_seed(0)
    encoder = Encoder(bands=3, width=8)
    state = torch.get_rng_state()
    options = dict(classes=2, epochs=200, batch=4)
    row = referee_pixels(encoder, (images[:12], labels[:12]), (images[12:], labels[12:]), **options)
    assert torch.equal(state, torch.get_rng_state())  # the random stream is left alone
    assert row["metric_value"] > 0.6 and row == referee_pixels(
        encoder, (images[:12], labels[:12]), (images[12:], labels[12:]), **options
    )
