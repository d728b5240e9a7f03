"Geometry, proven by the coordinate ramp for any crop, flip and turn."

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from rsssl_nb.views.geometry import (
    compose,
    coordinate_ramp,
    corners,
    crop_boxes,
    draws,
    invert,
    orientation,
    random_boxes,
    sample,
    transform_points,
    view_affine,
)

side = st.integers(4, 40)
views = st.tuples(
    st.integers(12, 60),
    st.integers(12, 60),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.15, 1),
    st.floats(0.15, 1),
    side,
    st.booleans(),
    st.integers(0, 3),
)


def affine_of(v):
    """A view's affine, from a drawn tuple: image size, place and size of the box as shares, view size, flip,
    turns.
    """
    H, W, fx, fy, fw, fh, size, flip, turns = v
    w, h = fw * W, fh * H
    x, y = fx * (W - w), fy * (H - h)
    return (
        view_affine(torch.tensor([[x, y, x + w, y + h]]), size, torch.tensor([flip]), torch.tensor([turns])),
        (H, W),
        size,
    )


@settings(max_examples=60, deadline=None)
@given(views)
def test_the_ramp_reads_where_the_affine_says(v):
    affine, (H, W), size = affine_of(v)
    view = sample(coordinate_ramp(1, H, W).contiguous(), affine, size)
    told = (
        transform_points(affine, coordinate_ramp(1, size, size).flatten(2).transpose(1, 2))
        .transpose(1, 2)
        .view(1, 2, size, size)
    )
    inside = (
        ((told >= 0.5) & (told <= torch.tensor([W - 0.5, H - 0.5]).view(1, 2, 1, 1)))
        .all(1, keepdim=True)
        .expand_as(told)
    )
    if inside.any():
        assert (view - told).abs()[inside].max() < 2e-3


@settings(max_examples=40, deadline=None)
@given(views)
def test_invert_and_compose(v):
    affine, _, size = affine_of(v)
    points = torch.rand(1, 7, 2, generator=torch.Generator().manual_seed(0)) * size
    assert torch.allclose(
        transform_points(invert(affine), transform_points(affine, points)), points, atol=1e-2
    )
    assert torch.allclose(compose(affine, invert(affine)), torch.eye(2, 3)[None], atol=1e-3)


def test_orientation_equals_flip_then_rot90():
    image, box = (
        torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1)),
        torch.tensor([[0.0, 0, 20, 20]]),
    )
    for flip in (False, True):
        for turns in range(4):
            seen = sample(image, view_affine(box, 20, torch.tensor([flip]), torch.tensor([turns])), 20)
            assert torch.allclose(
                seen, torch.rot90(image.flip(-1) if flip else image, -turns, (2, 3)), atol=1e-5
            ), (flip, turns)


def test_four_turns_and_two_flips_are_nothing():
    box = torch.tensor([[3.0, 5, 17, 19]])
    upright = view_affine(box, 14)
    assert torch.allclose(view_affine(box, 14, turns=torch.tensor([4])), upright)
    assert torch.allclose(
        corners(view_affine(box, 14, torch.tensor([True])), 14)[0, [1, 0, 3, 2]],
        corners(upright, 14)[0],
        atol=1e-4,
    )


def test_nearest_half_doubles_each_pixel_and_the_whole_is_itself():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    half = crop_boxes(image, torch.tensor([[0.0, 0, 4, 4]]), 8, "nearest")
    assert torch.equal(half, image[..., :4, :4].repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.allclose(crop_boxes(image, torch.tensor([[0.0, 0, 8, 8]]), 8), image, atol=1e-5)


def test_a_batch_equals_its_samples_and_keeps_its_input():
    images, boxes = (
        torch.rand(5, 13, 24, 30, generator=torch.Generator().manual_seed(2)),
        random_boxes(draws(torch.arange(5), 4), 24, 30),
    )
    before = images.clone()
    affine = view_affine(boxes, 16, draws(torch.arange(5), 1)[:, 0] < 0.5, torch.arange(5))
    whole = sample(images, affine, 16)
    assert torch.equal(images, before)
    for i in range(5):
        assert torch.allclose(whole[i : i + 1], sample(images[i : i + 1], affine[i : i + 1], 16), atol=1e-6)


@pytest.mark.parametrize("scale", [(0.05, 0.2), (0.2, 1.0), (1.0, 1.0)])
def test_boxes_lie_inside_and_have_their_area(scale):
    boxes = random_boxes(draws(torch.arange(2000), 4, seed=5), 60, 80, scale, (1.0, 1.0))
    assert (boxes[:, :2] >= -1e-4).all() and (boxes[:, 2] <= 80.01).all() and (boxes[:, 3] <= 60.01).all()
    if scale[1] < 0.5:
        assert abs(float(((boxes[:, 2:] - boxes[:, :2]).prod(1) / 4800).mean()) - sum(scale) / 2) < 0.01


def test_draws_are_a_pure_function():
    one = draws(torch.tensor([7]), 6, seed=3, epoch=2, stream=1)
    assert torch.equal(one, draws(torch.tensor([1, 7, 9]), 6, seed=3, epoch=2, stream=1)[1:2])
    assert torch.equal(one[:, :4], draws(torch.tensor([7]), 4, seed=3, epoch=2, stream=1))
    others = [
        draws(torch.tensor([7]), 6, **{**dict(seed=3, epoch=2, stream=1), k: 5})
        for k in ("seed", "epoch", "stream")
    ]
    assert not any(torch.equal(one, o) for o in others)


def test_draws_are_uniform_and_unrelated():
    u = draws(torch.arange(20_000), 5, seed=11)
    assert u.min() >= 0 and u.max() < 1
    gap = (u.sort(0).values - torch.linspace(0, 1, len(u))[:, None]).abs().max()
    assert gap < 1.63 / len(u) ** 0.5 * 1.3
    assert (torch.corrcoef(u.T) - torch.eye(5)).abs().max() < 0.03
    assert abs(float(torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1])) < 0.03


# ---- any shape, type and company ---------------------------------------------------------------------------
shapes = st.tuples(st.integers(1, 33), st.integers(1, 33))


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(8, 60), st.integers(8, 60)),
    st.integers(0, 10**6),
    shapes,
    st.booleans(),
    st.integers(-4, 7),
)
def test_the_ramp_holds_for_views_of_any_shape(source, index, size, flip, turns):
    (H, W), (h, w) = source, size
    where = view_affine(
        random_boxes(draws([index], 4), H, W, (0.02, 1.0), (0.3, 3.0)),
        size,
        torch.tensor([flip]),
        torch.tensor([turns]),
    )
    told = transform_points(where, coordinate_ramp(1, h, w).flatten(2).transpose(1, 2))
    read = sample(coordinate_ramp(1, H, W), where, size).flatten(2).transpose(1, 2)
    inside = ((told >= 0.5) & (told <= torch.tensor([W - 0.5, H - 0.5]))).all(-1)
    assert ((read - told).abs()[inside] < 1e-3).all()
    assert (corners(where, size) > -1e-3).all() and (corners(where, size) < torch.tensor([W, H]) + 1e-3).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_a_turned_view_of_two_lengths_is_rot90_of_the_upright_one(flip, turns):
    image, box, size = (
        torch.rand(2, 3, 30, 20, generator=torch.Generator().manual_seed(1)),
        torch.tensor([[2.0, 3, 19, 27]] * 2),
        (6, 10),
    )
    upright = crop_boxes(image, box, size if turns % 2 == 0 else size[::-1])
    want = torch.rot90(upright.flip(-1) if flip else upright, -turns, (2, 3))
    seen = sample(image, view_affine(box, size, torch.tensor([flip] * 2), torch.tensor([turns] * 2)), size)
    assert seen.shape == want.shape == (2, 3, 6, 10)
    torch.testing.assert_close(seen, want, atol=1e-5, rtol=0)


def test_orientations_of_one_batch_do_not_mix():
    image = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    flip, turns = torch.arange(8) >= 4, torch.arange(8) % 4
    seen = sample(image, view_affine(torch.tensor([[0.0, 0, 12, 12]] * 8), 12, flip, turns), 12)
    for i in range(8):
        want = torch.rot90(image[i : i + 1].flip(-1) if flip[i] else image[i : i + 1], -int(turns[i]), (2, 3))
        torch.testing.assert_close(seen[i : i + 1], want, atol=1e-5, rtol=0)


def test_four_turns_and_two_mirrors_compose_to_nothing():
    one, flip = torch.eye(2, 3)[None], orientation(1, flip=torch.tensor([True]))
    turn = orientation(1, turns=torch.tensor([1]))
    assert torch.equal(compose(flip, flip), one)
    assert not torch.equal(compose(turn, turn), one) and torch.equal(
        compose(compose(turn, turn), compose(turn, turn)), one
    )
    assert torch.equal(orientation(1, turns=torch.tensor([-1])), orientation(1, turns=torch.tensor([3])))
    half = compose(turn, turn)
    assert torch.equal(compose(half, flip)[0], torch.tensor([[1.0, 0, 0], [0, -1, 1]])), (
        "a mirror and two turns are the vertical mirror"
    )


def test_compose_applies_the_first_first():
    first, then = (
        view_affine(torch.tensor([[3.0, 4, 9, 12]]), 5, turns=torch.tensor([1])),
        view_affine(torch.tensor([[10.0, 20, 50, 44]]), (30, 20)),
    )
    points = torch.tensor([[[0.5, 0.5], [4, 2]]])
    torch.testing.assert_close(
        transform_points(compose(first, then), points),
        transform_points(then, transform_points(first, points)),
    )


def test_inverse_agrees_with_linear_algebra():
    affine = view_affine(
        random_boxes(draws(range(50), 4), 60, 90), (20, 30), draws(range(50), 1)[:, 0] < 0.5, torch.arange(50)
    )
    square = torch.cat([affine, torch.tensor([0.0, 0, 1]).expand(50, 1, 3)], 1)
    torch.testing.assert_close(invert(affine), torch.linalg.inv(square)[:, :2], atol=1e-4, rtol=1e-4)


def test_mixed_precision_does_not_round_coordinates():
    where = view_affine(torch.tensor([[101.3, 57.7, 399.1, 301.9]]), 224, turns=torch.tensor([1]))
    points = torch.tensor([[[0.5, 223.5], [100.25, 7.5]]])
    plain = (
        compose(where, invert(where)),
        transform_points(where, points),
        sample(coordinate_ramp(1, 512, 512), where, 224),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = (
            compose(where, invert(where)),
            transform_points(where, points),
            sample(coordinate_ramp(1, 512, 512), where, 224),
        )
    for p, m in zip(plain, mixed):
        assert m.dtype == torch.float32 and torch.equal(p, m)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_positions_are_precise_whatever_the_images_are(dtype):
    ramp, where = (
        (coordinate_ramp(1, 512, 512) / 512).to(dtype),
        view_affine(torch.tensor([[4.0, 8, 500, 501]]), 512),
    )
    seen, want = sample(ramp, where, 512), sample(ramp.double(), where, 512)
    assert seen.dtype == dtype
    assert (seen.double() - want).abs().max() <= torch.finfo(dtype).eps


def test_labels_keep_their_numbers_and_bytes_become_fractions():
    labels = torch.randint(
        0, 255, (2, 1, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(4)
    )
    where = view_affine(torch.tensor([[1.3, 2, 15, 19.5]] * 2), 33, turns=torch.tensor([0, 1]))
    near = sample(labels, where, 33, mode="nearest")
    assert near.dtype == torch.uint8 and set(near.unique().tolist()) <= set(labels.unique().tolist())
    assert sample(labels, where, 33).dtype == torch.float32


def test_padding_is_what_was_asked_for():
    ones, beyond = torch.ones(1, 1, 8, 8), view_affine(torch.tensor([[4.0, 0, 12, 8]]), 8)
    assert (sample(ones, beyond, 8) == 1).all()
    assert (sample(ones, beyond, 8, padding="zeros")[..., 5:] == 0).all()


@pytest.mark.parametrize(
    "call, said",
    [
        (
            lambda: sample(torch.zeros(2, 1, 8, 8), view_affine(torch.tensor([[0.0, 0, 8, 8]]), 8), 8),
            "2 images and 1 affines",
        ),
        (lambda: view_affine(torch.tensor([[0.0, 0, 8, 8]]), 0), "0 x 0 pixels"),
        (lambda: view_affine(torch.tensor([[0.0, 0, 8, 8]]), (4, -1)), "4 x -1 pixels"),
        (lambda: random_boxes(torch.rand(1, 4), 8, 8, scale=(0.0, 1.0)), "scale"),
        (lambda: random_boxes(torch.rand(1, 4), 8, 8, scale=(0.5, 0.2)), "scale"),
        (lambda: random_boxes(torch.rand(1, 4), 8, 8, scale=(0.5, 1.5)), "scale"),
        (lambda: random_boxes(torch.rand(1, 4), 8, 8, ratio=(2, 1)), "ratio"),
    ],
)
def test_errors_name_the_value(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(0.1, 10),
    st.floats(1, 5),
)
def test_boxes_fit_any_image(height, width, low, more, thin, wide):
    boxes = random_boxes(
        draws(range(64), 4, seed=8), height, width, (low, low + more * (1 - low)), (thin, thin * wide)
    )
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= torch.tensor([width, height]) * (1 + 1e-5)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_boxes_have_the_aspect_and_the_places_asked_for():
    boxes = random_boxes(draws(range(20_000), 4, seed=1), 100, 100, (0.2, 0.3), (0.5, 2.0))
    w, h = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    log = torch.log2(w / h)
    assert log.min() >= -1.001 and log.max() <= 1.001 and abs(float(log.mean())) < 0.02
    assert kstest((boxes[:, 0] / (100 - w)).numpy(), "uniform").pvalue > 1e-3
    assert kstest(((w * h / 1e4 - 0.2) / 0.1).numpy(), "uniform").pvalue > 1e-3


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=12),
    st.integers(-(2**63), 2**64),
    st.integers(0, 10**9),
    st.integers(0, 200),
    st.randoms(),
)
def test_draws_follow_their_index_anywhere(index, seed, epoch, stream, random):
    whole = draws(index, 5, seed, epoch, stream)
    order = list(range(len(index)))
    random.shuffle(order)
    assert torch.equal(draws([index[i] for i in order], 5, seed, epoch, stream), whole[order])
    assert torch.equal(draws(torch.tensor(index[:1]), 3, seed, epoch, stream), whole[:1, :3])
    assert whole.dtype == torch.float32 and (whole >= 0).all() and (whole < 1).all()


@pytest.mark.parametrize(
    "seed, epoch, stream", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (123456789, 77, 3)]
)
def test_draws_are_uniform_by_kolmogorov_smirnov(seed, epoch, stream):
    u = draws(range(30_000), 6, seed, epoch, stream)
    for column in u.T:
        assert kstest(column.numpy(), "uniform").pvalue > 1e-4
    pairs = torch.histogramdd(torch.stack([u[:-1, 0], u[1:, 0]], 1), bins=[10, 10], range=[0.0, 1, 0, 1]).hist
    assert ((pairs - 299.99) ** 2 / 299.99).sum() < 170  # chi-square of neighbours, 99 degrees of freedom


def test_seed_epoch_stream_and_index_are_not_interchangeable():
    keys = [(s, e, t, i) for s in range(4) for e in range(4) for t in range(4) for i in range(4)]
    seen = {tuple(draws([i], 2, s, e, t)[0].tolist()) for s, e, t, i in keys}
    assert len(seen) == len(keys)


def test_draws_take_numpy_numbers_and_stay_what_they_were():
    assert torch.equal(draws(np.array([3, 4]), 2, np.int64(5)), draws([3, 4], 2, 5))
    torch.testing.assert_close(
        draws([0, 7], 2, seed=3, epoch=1),
        torch.tensor([[0.6590863466262817, 0.2760884165763855], [0.08081609010696411, 0.020241498947143555]]),
        atol=0,
        rtol=0,
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_numbers():
    assert torch.equal(
        draws(torch.arange(1000, device="cuda"), 6, 3, 2, 1).cpu(), draws(range(1000), 6, 3, 2, 1)
    )
