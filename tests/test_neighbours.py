"Neighbours, colours and clicks against loops, NumPy and scikit-learn; clicks as GeoJSON, there and back."

import json
from time import process_time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.errors import InputError
from rsssl_nb.explain.neighbours import (
    PointModel,
    classify,
    columns,
    dense_features,
    feature_at,
    feature_in,
    fit_points,
    nearest,
    pca_basis,
    pca_rgb,
    points_from_geojson,
    points_to_geojson,
    points_to_labels,
    show_neighbours,
    show_points,
    show_similar,
    similar,
    stages,
)
from rsssl_nb.methods.simclr import SimCLR

NAMES = ["field", "<b>road</b>", "roof"]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(bands=3, width=8)


def test_nearest_against_a_loop():
    query, bank = noise(7, 5), noise(30, 5, seed=1)
    bank[11] = bank[4] * 3  # the same direction: a tie
    numbers, cosines = nearest(query, bank, 6)
    for q, row, c in zip(query, numbers, cosines):
        table = torch.cosine_similarity(q[None], bank)
        assert (
            torch.allclose(c, table[row], atol=1e-6)
            and (c.diff() <= 0).all()
            and c[-1] >= table.topk(7).values[-1] - 1e-6
        )
    assert nearest(bank[[4]], bank[[9, 4, 4]], 2)[0].tolist() == [[1, 2]]
    own = nearest(bank, bank, 40, skip=torch.arange(30))
    assert (
        own[0].shape == (30, 29)
        and not (own[0] == torch.arange(30)[:, None]).any()
        and own[1].isfinite().all()
    )


def test_nearest_in_pieces():
    bank, skip = noise(2000, 2), torch.arange(2400) % 2000
    query = bank[skip]  # each query is in the bank, and must not find itself
    numbers, cosines = nearest(query, bank, 1, skip=skip)
    assert (
        torch.equal(numbers[2000:], numbers[:400]) and (numbers[:, 0] != skip).all() and len(cosines) == 2400
    )


def test_features_of_any_network_leave_it_alone(encoder):
    images = noise(5, 3, 32, 32)
    method = SimCLR(encoder, dim=8).train()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    for make in (dense_features, columns):
        found = make(method, images)
        assert (
            torch.allclose(found[3:4], make(encoder, images[3:4], batch=1), atol=1e-5)
            and not found.requires_grad
        )
        assert torch.equal(make(Segmenter(encoder, 2, head="linear"), images), found)
        hole = images.clone()
        hole[0] = float("nan")
        assert make(encoder, hole).isfinite().all() and torch.equal(
            make(encoder, hole)[1:4], make(encoder, hole.nan_to_num())[1:4]
        )
    assert (
        method.training
        and encoder.layer2.training
        and all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    )
    encoder.eval()
    assert torch.allclose(dense_features(encoder, images), encoder(images).dense, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (30, 41), (5, 8), (100, 64)])
def test_columns_are_stages_in_place(encoder, size):
    images = noise(2, 3, *size)
    found = columns(encoder, images, bands=True)
    assert (
        found.shape == (2, 3 + 8 + 16 + 32 + 64, -(-size[0] // 4), -(-size[1] // 4))
        and found.isfinite().all()
    )
    for k in (8, 16, 32, 64):
        assert found[:, 3:].split([8, 16, 32, 64], 1)[(8, 16, 32, 64).index(k)].norm(dim=1).max() < 1.001
    if min(size) % 4 == 0:
        assert torch.allclose(found[:, :3], torch.nn.functional.avg_pool2d(images, 4), atol=1e-5)
    if size == (100, 64):  # far from the border the frame changes nothing of the first stage
        bare = columns(encoder, images, frame=0)
        assert torch.allclose(
            found[:, 3:11, 8:16, 6:10], bare[:, :8, 8:16, 6:10], atol=1e-4
        ) and not torch.allclose(found[:, 3:11, 0], bare[:, :8, 0], atol=1e-2)


def test_a_frame_hides_the_border(encoder):
    flat = torch.ones(1, 3, 64, 64)
    spread = lambda d: d.std((2, 3)).mean()
    framed, bare = columns(encoder, flat), columns(encoder, flat, frame=0)
    assert spread(framed) < 0.7 * spread(bare)
    assert (
        spread(framed[:, :8]) < 1e-5 < spread(bare[:, :8])
    )  # the first stage sees less far than the frame is wide
    with torch.no_grad():
        assert [s.shape[1:] for s in stages(encoder.eval(), flat)] == [
            (8, 16, 16),
            (16, 8, 8),
            (32, 8, 8),
            (64, 8, 8),
        ]
    assert not encoder.layer1._forward_hooks


def test_feature_at_and_in(encoder):
    dense = noise(6, 4, 8)  # cells of 8 x 8 pixels in an image of 32 x 64
    assert torch.allclose(feature_at(dense, (8 * 5 + 4, 8 * 2 + 4), (32, 64)), dense[:, 2, 5], atol=1e-6)
    assert torch.allclose(
        feature_at(dense, [[48, 20], [0, 0]], (32, 64)),
        torch.stack([(dense[:, 2, 5] + dense[:, 2, 6]) / 2, dense[:, 0, 0]]),
        atol=1e-6,
    )
    assert torch.allclose(
        feature_in(torch.ones(6, 4, 8) * 3, (5, 5, 9, 30), (32, 64)), torch.full((6,), 3.0), atol=1e-5
    )
    assert torch.allclose(feature_in(dense, (-50, -50, 500, 500), (4, 8)), dense.mean((1, 2)), atol=1e-5)
    for box in ((70, 0, 80, 9), (9, 9, 9, 20), (8, 8, 2, 2)):
        with pytest.raises(ValueError, match="draw it on the image"):
            feature_in(dense, box, (32, 64))


def test_similar_against_a_loop():
    dense, key, centre = noise(2, 5, 3, 4), noise(5, seed=1), noise(5, seed=2)
    for mid, option in ((torch.zeros(5), None), (centre, centre)):
        found = similar(dense, key, option)
        for b in range(2):
            for v in range(3):
                for u in range(4):
                    assert (
                        abs(
                            found[b, v, u]
                            - torch.cosine_similarity(dense[b, :, v, u] - mid, key - mid, dim=0)
                        )
                        < 1e-5
                    )
    assert not similar(torch.zeros(1, 5, 2, 2), key).any()


def test_colours_are_principal_components_with_one_sign():
    dense = noise(3, 6, 5, 7) * torch.tensor([5.0, 1, 3, 1, 1, 2]).view(1, 6, 1, 1)
    cells = dense.double().movedim(1, -1).reshape(-1, 6)
    want = np.linalg.svd((cells - cells.mean(0)).numpy(), full_matrices=False)[2][:3]
    basis = pca_basis(dense)
    assert np.allclose(np.abs(basis.axes.numpy() @ want.T), np.eye(3), atol=1e-8)
    assert (basis.axes.gather(1, basis.axes.abs().argmax(1, keepdim=True)) > 0).all()
    assert torch.allclose(pca_basis(dense.flip(0, 2, 3)).axes, basis.axes) and torch.allclose(
        pca_basis(-dense).axes, basis.axes
    )
    rgb = pca_rgb(dense)
    assert (
        rgb.shape == (3, 5, 7, 3)
        and rgb.min() == 0
        and rgb.max() == 1
        and torch.equal(pca_rgb(dense[1:2], basis), rgb[1:2])
    )
    assert ((rgb == 0) | (rgb == 1)).float().mean() < 0.1
    assert pca_rgb(torch.ones(1, 4, 3, 3)).isfinite().all()


@pytest.mark.parametrize("n, D, classes", [(6, 4, 2), (40, 30, 3), (200, 12, 5), (15, 300, 4)])
def test_fit_points_is_logistic_regression(n, D, classes):
    from sklearn.linear_model import LogisticRegression

    y = torch.arange(n) % classes
    x = noise(n, D) * 3 + noise(classes, D, seed=1)[y] + 5
    model = fit_points(x, y, classes, lam=0.02)
    f = (x - x.mean(0)).double()
    f = f / f.square().mean().sqrt()
    # of two classes scikit-learn keeps one weight vector, whose penalty counts double
    theirs = LogisticRegression(C=(1 + (classes == 2)) / (0.02 * n), tol=1e-10, max_iter=10_000).fit(
        f.numpy(), y.numpy()
    )
    ours = (x @ model.weight.T + model.bias).softmax(1)
    assert np.allclose(ours.numpy(), theirs.predict_proba(f.numpy()), atol=1e-3)


def test_few_and_odd_clicks():
    x = noise(5, 8)
    only = fit_points(x[:1], [2], 4)
    labels, sure = classify(noise(1, 8, 3, 3, seed=1), only, (7, 5))
    assert (
        labels.shape == (1, 7, 5)
        and labels.dtype == torch.uint8
        and (labels == 2).all()
        and torch.allclose(sure, torch.ones(1, 7, 5))
    )
    two = fit_points(x, [0, 3, 0, 3, 3], 4)
    labels, sure = classify(noise(2, 8, 6, 6, seed=1), two, (11, 12))
    assert set(labels.unique().tolist()) == {0, 3} and (sure >= 0.5 - 1e-6).all() and sure.isfinite().all()
    assert (x @ two.weight.T + two.bias).argmax(1).tolist() == [0, 3, 0, 3, 3]
    same = fit_points(x[[0, 0]], [0, 1], 2)
    assert same.weight.isfinite().all() and torch.allclose(
        (x[:1] @ same.weight.T + same.bias).softmax(1), torch.tensor([[0.5, 0.5]]), atol=1e-3
    )
    again = fit_points(x, [0, 3, 0, 3, 3], 4)
    assert torch.equal(again.weight, two.weight) and torch.equal(again.bias, two.bias)
    s = torch.tensor(6.0).sigmoid()  # two cells over four pixels: cell centres lie between pixel centres
    _, sure = classify(
        torch.tensor([[[[3.0, -3.0]]]]), PointModel(torch.tensor([[1.0], [-1.0]]), torch.zeros(2)), (1, 4)
    )
    assert torch.allclose(
        sure[0, 0], torch.stack([s, 0.75 * s + 0.25 * (1 - s), 0.75 * s + 0.25 * (1 - s), s])
    )
    for points, y in ((x[:0], []), (x[:1], [4]), (x[:1], [-1])):
        with pytest.raises(ValueError, match="click at least one"):
            fit_points(points, y, 4)


def test_a_click_redraws_in_time():
    dense, points = noise(1, 964, 64, 64), torch.rand(200, 2) * 256
    spent = []
    for _ in range(3):  # the first one pays for what torch sets up
        started = process_time()
        known = fit_points(feature_at(dense[0], points, (256, 256)), torch.arange(200) % 6, 6)
        classify(dense, known, (256, 256))
        spent.append(process_time() - started)
    assert min(spent) < 0.3, spent


numbers = st.floats(-4000, 4000)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(numbers, numbers, st.integers(0, 2)), max_size=6),
    st.tuples(*[st.floats(0.01, 30)] * 2, st.floats(0, 6), st.floats(0, 1e6), st.floats(0, 1e7)),
)
def test_geojson_there_and_back(clicks, place):
    w, h, turn, x, y = place
    transform = (w * np.cos(turn), h * np.sin(turn), x, w * np.sin(turn), -h * np.cos(turn), y)
    points, labels = (
        torch.tensor([c[:2] for c in clicks], dtype=torch.float64).reshape(-1, 2),
        [c[2] for c in clicks],
    )
    told = json.loads(json.dumps(points_to_geojson(points, labels, NAMES, transform, "EPSG:32633")))
    back, y = points_from_geojson(told, NAMES, transform, "EPSG:32633")
    assert torch.allclose(back, points, atol=1e-4) and y.tolist() == labels
    assert [f["properties"]["class"] for f in told["features"]] == [NAMES[k] for k in labels]


def test_geojson_says_where():
    told = points_to_geojson([[0.5, 1.5]], [1], NAMES, (2, 0, 100, 0, -2, 900), "EPSG:32633")
    assert (
        told["features"][0]["geometry"] == {"type": "Point", "coordinates": [101, 897]}
        and told["crs"]["properties"]["name"] == "EPSG:32633"
    )
    assert "crs" not in points_to_geojson([[1, 2]], [0], NAMES) and points_from_geojson(
        points_to_geojson([[1, 2]], [0], NAMES), NAMES
    )[0].tolist() == [[1, 2]]
    assert points_from_geojson(told, NAMES, (2, 0, 100, 0, -2, 900), None)[0].tolist() == [[0.5, 1.5]]


def broken(**changes):
    feature = points_to_geojson([[1, 2]], [0], NAMES)["features"][0]
    return {"type": "FeatureCollection", "features": [{**feature, **changes}]}


@pytest.mark.parametrize(
    "found, match",
    [
        ([], "no GeoJSON"),
        ({"features": 3}, "no GeoJSON"),
        ({"features": [3]}, "no point"),
        (broken(geometry=None), "no point"),
        (broken(properties={}), "no point"),
        (broken(geometry={"type": "Point", "coordinates": [1]}), "no point"),
        (broken(geometry={"type": "Point", "coordinates": ["a", 2]}), "two numbers"),
        (broken(geometry={"type": "Point", "coordinates": [float("nan"), 2]}), "two numbers"),
        (broken(geometry={"type": "LineString", "coordinates": [1, 2]}), "two numbers"),
        (broken(properties={"class": "sea"}), "class 'sea': the classes are"),
        (broken(properties={"class": ["field"]}), "the classes are"),
        (broken(geometry={"coordinates": [1, 2]}), "two numbers"),
        ({**broken(), "crs": {"properties": {"name": "EPSG:4326"}}}, "reproject"),
    ],
)
def test_broken_geojson(found, match):
    with pytest.raises(InputError, match=match):
        points_from_geojson(found, NAMES, crs="EPSG:32633")


def test_points_to_labels():
    out = points_to_labels([[0.0, 0.0], [5.9, 3.2], [5.1, 3.9]], [0, 1, 2], (4, 6))
    assert out.dtype == torch.uint8 and out[0, 0] == 0 and out[3, 5] == 2 and (out != 255).sum() == 2
    disc = points_to_labels([[8.5, 8.5]], [1], (17, 17), radius=3)
    y, x = np.mgrid[:17, :17]
    assert np.array_equal(disc.numpy() == 1, (x - 8) ** 2 + (y - 8) ** 2 <= 9)
    for point in ((6, 1), (-0.1, 1), (1, 4)):
        with pytest.raises(ValueError, match="click on the image"):
            points_to_labels([point], [0], (4, 6))


def test_figures():
    image = noise(4, 16, 24)
    assert [a.get_title() for a in show_neighbours([image] * 3, [0.5, 0.25], ["a", "b"]).axes] == [
        "query a",
        "0.50 b",
        "0.25",
    ]
    picture = show_similar(image, noise(4, 6), (3, 4), "alike")
    assert picture.axes[0].get_title() == "alike" and picture.axes[0].lines[-1].get_xydata().tolist() == [
        [3, 4]
    ]
    picture = show_points(image, [[1, 2], [3, 4], [5, 6]], [0, 2, 0], NAMES)
    assert [t.get_text() for t in picture.axes[0].get_legend().get_texts()] == ["field", "roof"] and len(
        picture._repr_png_()
    ) > 1000
    assert show_points(image, torch.zeros(0, 2), [], NAMES).axes[0].get_legend() is None
