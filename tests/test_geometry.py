"Geometry, proven by the coordinate ramp for any crop, flip and turn."
import pytest
import torch
from hypothesis import given, settings, strategies as st

from rsssl_nb.views.geometry import (compose, coordinate_ramp, corners, crop_boxes, draws, invert, random_boxes, sample, transform_points, view_affine)

side = st.integers(4, 40)
views = st.tuples(st.integers(12, 60), st.integers(12, 60), st.floats(0, 1), st.floats(0, 1), st.floats(.15, 1), st.floats(.15, 1), side, st.booleans(), st.integers(0, 3))


def affine_of(v):
    "A view's affine, from a drawn tuple: image size, place and size of the box as shares, view size, flip, turns."
    H, W, fx, fy, fw, fh, size, flip, turns = v
    w, h = fw * W, fh * H
    x, y = fx * (W - w), fy * (H - h)
    return view_affine(torch.tensor([[x, y, x + w, y + h]]), size, torch.tensor([flip]), torch.tensor([turns])), (H, W), size


@settings(max_examples=60, deadline=None)
@given(views)
def test_the_ramp_reads_where_the_affine_says(v):
    affine, (H, W), size = affine_of(v)
    view = sample(coordinate_ramp(1, H, W).contiguous(), affine, size)
    told = transform_points(affine, coordinate_ramp(1, size, size).flatten(2).transpose(1, 2)).transpose(1, 2).view(1, 2, size, size)
    inside = ((told >= .5) & (told <= torch.tensor([W - .5, H - .5]).view(1, 2, 1, 1))).all(1, keepdim=True).expand_as(told)
    if inside.any(): assert (view - told).abs()[inside].max() < 2e-3


@settings(max_examples=40, deadline=None)
@given(views)
def test_invert_and_compose(v):
    affine, _, size = affine_of(v)
    points = torch.rand(1, 7, 2, generator=torch.Generator().manual_seed(0)) * size
    assert torch.allclose(transform_points(invert(affine), transform_points(affine, points)), points, atol=1e-2)
    assert torch.allclose(compose(affine, invert(affine)), torch.eye(2, 3)[None], atol=1e-3)


def test_orientation_equals_flip_then_rot90():
    image, box = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1)), torch.tensor([[0., 0, 20, 20]])
    for flip in (False, True):
        for turns in range(4):
            seen = sample(image, view_affine(box, 20, torch.tensor([flip]), torch.tensor([turns])), 20)
            assert torch.allclose(seen, torch.rot90(image.flip(-1) if flip else image, -turns, (2, 3)), atol=1e-5), (flip, turns)


def test_four_turns_and_two_flips_are_nothing():
    box = torch.tensor([[3., 5, 17, 19]])
    upright = view_affine(box, 14)
    assert torch.allclose(view_affine(box, 14, turns=torch.tensor([4])), upright)
    assert torch.allclose(corners(view_affine(box, 14, torch.tensor([True])), 14)[0, [1, 0, 3, 2]], corners(upright, 14)[0], atol=1e-4)


def test_nearest_half_doubles_each_pixel_and_the_whole_is_itself():
    image = torch.arange(64.).view(1, 1, 8, 8)
    half = crop_boxes(image, torch.tensor([[0., 0, 4, 4]]), 8, "nearest")
    assert torch.equal(half, image[..., :4, :4].repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.allclose(crop_boxes(image, torch.tensor([[0., 0, 8, 8]]), 8), image, atol=1e-5)


def test_a_batch_equals_its_samples_and_keeps_its_input():
    images, boxes = torch.rand(5, 13, 24, 30, generator=torch.Generator().manual_seed(2)), random_boxes(draws(torch.arange(5), 4), 24, 30)
    before = images.clone()
    affine = view_affine(boxes, 16, draws(torch.arange(5), 1)[:, 0] < .5, torch.arange(5))
    whole = sample(images, affine, 16)
    assert torch.equal(images, before)
    for i in range(5): assert torch.allclose(whole[i:i + 1], sample(images[i:i + 1], affine[i:i + 1], 16), atol=1e-6)


@pytest.mark.parametrize("scale", [(.05, .2), (.2, 1.), (1., 1.)])
def test_boxes_lie_inside_and_have_their_area(scale):
    boxes = random_boxes(draws(torch.arange(2000), 4, seed=5), 60, 80, scale, (1., 1.))
    assert (boxes[:, :2] >= -1e-4).all() and (boxes[:, 2] <= 80.01).all() and (boxes[:, 3] <= 60.01).all()
    if scale[1] < .5: assert abs(float(((boxes[:, 2:] - boxes[:, :2]).prod(1) / 4800).mean()) - sum(scale) / 2) < .01


def test_draws_are_a_pure_function():
    one = draws(torch.tensor([7]), 6, seed=3, epoch=2, stream=1)
    assert torch.equal(one, draws(torch.tensor([1, 7, 9]), 6, seed=3, epoch=2, stream=1)[1:2])
    assert torch.equal(one[:, :4], draws(torch.tensor([7]), 4, seed=3, epoch=2, stream=1))
    others = [draws(torch.tensor([7]), 6, **{**dict(seed=3, epoch=2, stream=1), k: 5}) for k in ("seed", "epoch", "stream")]
    assert not any(torch.equal(one, o) for o in others)


def test_draws_are_uniform_and_unrelated():
    u = draws(torch.arange(20_000), 5, seed=11)
    assert u.min() >= 0 and u.max() < 1
    gap = (u.sort(0).values - torch.linspace(0, 1, len(u))[:, None]).abs().max()
    assert gap < 1.63 / len(u) ** .5 * 1.3
    assert (torch.corrcoef(u.T) - torch.eye(5)).abs().max() < .03
    assert abs(float(torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1])) < .03
