"Two views: pure functions of (seed, epoch, index), and exact about what they share."

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsssl_nb.views.appearance import N_DRAWS, Colour, blur, drop_band, recolour
from rsssl_nb.views.geometry import compose, coordinate_ramp, draws, sample, transform_points, view_affine
from rsssl_nb.views.pairs import (
    Pair,
    Plan,
    a_to_b,
    area,
    box_iou,
    boxes_of,
    intersect,
    overlap,
    overlap_iou,
    overlap_points,
    two_views,
)

IMAGES = torch.randn(6, 4, 40, 52, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
def test_any_band_count_and_shape(bands):
    pair = two_views(IMAGES[:, :1].repeat(1, bands, 1, 1), 24, seed=1)
    assert (
        pair.a.shape == pair.b.shape == (6, bands, 24, 24)
        and pair.a.isfinite().all()
        and pair.source == (40, 52)
    )
    assert len(two_views(IMAGES[:1], 24)) == 1


def test_a_pair_does_not_depend_on_its_company():
    whole = two_views(IMAGES, 24, seed=4, epoch=2)
    some = two_views(IMAGES[[5, 0]], 24, seed=4, epoch=2, index=[5, 0])
    assert (
        torch.equal(some.where_a, whole.where_a[[5, 0]])
        and torch.allclose(some.a, whole.a[[5, 0]], atol=1e-5)
        and torch.allclose(some.b, whole.b[[5, 0]], atol=1e-5)
    )
    assert not torch.allclose(two_views(IMAGES, 24, seed=4, epoch=3).where_a, whole.where_a)
    assert not torch.allclose(whole.where_a, whole.where_b)


def test_matched_points_show_the_same_ground():
    pair = two_views(IMAGES, 24, Plan(scale=(0.3, 0.9)), seed=2)
    ramp = coordinate_ramp(6, 40, 52).contiguous()
    a, b, ok = overlap_points(pair, 5)
    assert ok.all()
    read = lambda where, points: torch.nn.functional.grid_sample(
        sample(ramp, where, 24), (points / 24 * 2 - 1)[:, :, None], align_corners=False, padding_mode="border"
    )
    rim = ((a > 1) & (a < 23) & (b > 1) & (b < 23)).all(-1)
    gap = (read(pair.where_a, a) - read(pair.where_b, b))[..., 0].abs().amax(1)
    assert gap[rim].max() < 0.02 + 0.6 and gap[rim].median() < 0.01
    assert torch.allclose(transform_points(a_to_b(pair), a), b, atol=1e-2)


def test_swap_is_symmetric_and_identical_views_overlap_fully():
    pair = two_views(IMAGES, 24, seed=2)
    assert torch.equal(overlap(pair)[0], overlap(pair.swap())[0]) and torch.equal(
        pair.swap().swap().a, pair.a
    )
    same = Pair(pair.a, pair.a, pair.where_a, pair.where_a, pair.source)
    assert torch.allclose(overlap_iou(same), torch.ones(6), atol=1e-4)
    assert torch.allclose(*overlap_points(same, 4)[:2])


def test_least_overlap_is_reached_without_touching_view_a():
    plan, many = Plan(scale=(0.08, 0.3), colour=None), IMAGES[:1].expand(200, -1, -1, -1)
    free, bound = two_views(many, 8, plan, seed=1), two_views(many, 8, plan, seed=1, min_iou=0.1)
    assert torch.equal(free.where_a, bound.where_a)
    assert (overlap_iou(free) < 0.1).float().mean() > 0.02 > (overlap_iou(bound) < 0.1).float().mean()


def test_inputs_and_random_streams_are_left_alone():
    before, state = IMAGES.clone(), torch.get_rng_state()
    two_views(IMAGES, 24)
    assert torch.equal(before, IMAGES) and torch.equal(state, torch.get_rng_state())


def test_pieces_move_and_index():
    pair = two_views(IMAGES, 24)
    assert (
        len(pair[2:4]) == 2
        and torch.equal(pair[torch.tensor([3])].a, pair.a[3:4])
        and pair.to("cpu").size == (24, 24)
    )


def test_colour_off_is_identity_and_samples_are_independent():
    u = draws(torch.arange(6), N_DRAWS, seed=9)
    assert torch.equal(recolour(IMAGES, u, Colour(p=0, grey=0, blur=0)), IMAGES)
    changed = recolour(IMAGES, u, Colour(drop=0.5))
    for i in range(6):
        assert torch.allclose(
            changed[i : i + 1], recolour(IMAGES[i : i + 1], u[i : i + 1], Colour(drop=0.5)), atol=1e-5
        )


def test_blur_keeps_constants_and_small_images():
    assert torch.allclose(
        blur(torch.full((2, 3, 5, 5), 2.0), torch.tensor([0.5, 9.0])),
        torch.full((2, 3, 5, 5), 2.0),
        atol=1e-5,
    )
    assert blur(IMAGES[:, :, :2, :2], torch.full((6,), 2.0)).isfinite().all()
    assert torch.equal(
        drop_band(IMAGES[:, :1], torch.ones(6, dtype=torch.bool), torch.zeros(6)), IMAGES[:, :1]
    )


# ---- geometry of pairs, to a thousandth of a pixel ---------------------------------------------------------
def ramp_pair(n=64, source=(60, 84), size=32, **kw):
    plan = Plan(**{"scale": (0.2, 1.0), "colour": None, **kw.pop("plan", {})})
    return two_views(coordinate_ramp(n, *source), size, plan, **kw)


def read(views, points):
    "Values of views (B, C, S, S) at points (B, n, 2) in view pixels: (B, n, C)."
    return torch.nn.functional.grid_sample(
        views, points[:, None] * 2 / views.shape[-1] - 1, align_corners=False
    )[:, :, 0].transpose(1, 2)


@pytest.mark.parametrize("source, size", [((60, 84), 32), ((84, 60), 50), ((40, 40), 64)])
@pytest.mark.parametrize(
    "plan",
    [dict(), dict(turns=False), dict(flips=1.0), dict(flips=0.0, ratio=(0.4, 2.5)), dict(scale=(0.05, 0.3))],
    ids=str,
)
def test_shared_points_read_the_same_ground_in_both_views(source, size, plan):
    pair = ramp_pair(source=source, size=size, plan=plan, seed=6)
    a, b, ok = overlap_points(pair, 5)
    ground = transform_points(pair.where_a, a)
    half = torch.tensor([source[1], source[0]]) / 2
    inner = (
        ok[:, None]
        & ((torch.stack([a, b]) - size / 2).abs() <= size / 2 - 0.5).all(-1).all(0)
        & ((ground - half).abs() <= half - 0.5).all(-1)
    )
    assert inner.sum() > 300
    assert (read(pair.a, a) - read(pair.b, b)).abs()[inner].max() < 1e-3
    assert (read(pair.a, a) - ground).abs()[inner].max() < 1e-3


def test_every_pixel_of_both_views_is_where_its_affine_says():
    pair = ramp_pair(n=100, seed=3)
    told = coordinate_ramp(100, 32, 32).flatten(2).transpose(1, 2)
    for view, where in ((pair.a, pair.where_a), (pair.b, pair.where_b)):
        ground = transform_points(where, told)
        inner = ((ground > 0.5) & (ground < torch.tensor([83.5, 59.5]))).all(-1)
        assert (
            inner.float().mean() > 0.9
            and (view.flatten(2).transpose(1, 2) - ground).abs()[inner].max() < 1e-3
        )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.integers(0, 2**40),
    st.integers(0, 500),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_two_views_of_a_subset_are_the_subset_of_two_views(order, seed, epoch, min_iou):
    plan, kw = Plan(scale=(0.1, 0.5), colour=Colour(drop=0.3)), dict(seed=seed, epoch=epoch, min_iou=min_iou)
    whole = two_views(IMAGES, 12, plan, index=range(10, 16), **kw)[order]
    some = two_views(IMAGES[order], 12, plan, index=[10 + i for i in order], **kw)
    assert torch.equal(some.where_a, whole.where_a) and torch.equal(some.where_b, whole.where_b)
    torch.testing.assert_close(some.a, whole.a, atol=1e-5, rtol=0)
    torch.testing.assert_close(some.b, whole.b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [72, 80])
def test_views_pass_gradients_on(side):
    images = torch.rand(2, 4, side, side, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pair = two_views(images, 72, seed=1)
    torch.testing.assert_close(two_views(images.detach(), 72, seed=1).a, pair.a.detach(), atol=1e-6, rtol=0)
    seen = torch.autograd.grad(pair.a.square().sum(), images)[0]
    assert seen.isfinite().all() and (seen != 0).float().mean() > 0.1


def test_a_large_view_with_gradients_is_that_without():
    images = torch.rand(1, 4, 272, 272, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pair = two_views(images, 264, seed=1)
    torch.testing.assert_close(two_views(images.detach(), 264, seed=1).b, pair.b.detach(), atol=1e-5, rtol=0)
    assert torch.autograd.grad(pair.b.sum(), images)[0].isfinite().all()


def test_each_view_follows_its_own_plan():
    still = Plan(scale=(1.0, 1.0), ratio=(1.0, 1.0), flips=0.0, turns=False, colour=None)
    square = IMAGES[..., :40]
    pair = two_views(square, None, still, Plan(flips=1.0, turns=False), seed=1)
    torch.testing.assert_close(pair.a, square, atol=1e-4, rtol=0)
    assert (pair.where_b[:, 0, 0] < 0).all() and (pair.where_b[:, [0, 1], [1, 0]] == 0).all()


def test_flips_and_turns_are_drawn_evenly():
    pair = two_views(IMAGES[:1, :1].expand(4000, -1, -1, -1), 2, Plan(colour=None))
    side = pair.where_a[..., :2].sign()
    kinds, counts = side.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 8 and counts.min() > 420 and counts.max() < 580


def test_a_to_b_and_back_is_nothing():
    pair = ramp_pair(seed=2)
    back = compose(a_to_b(pair), a_to_b(pair.swap()))
    torch.testing.assert_close(back, torch.eye(2, 3).expand(64, 2, 3), atol=2e-4, rtol=0)


def test_boxes_meet_as_counted():
    p, q = torch.tensor([[0, 0, 7, 5]]), torch.tensor([[3, 2, 9, 11]])
    cells = {(x, y) for x in range(7) for y in range(5)}, {(x, y) for x in range(3, 9) for y in range(2, 11)}
    assert area(intersect(p, q)).item() == len(cells[0] & cells[1])
    assert (
        abs(box_iou(p.float(), q.float()).item() - len(cells[0] & cells[1]) / len(cells[0] | cells[1])) < 1e-6
    )
    assert box_iou(p.float(), p.float() + 20) == 0 and box_iou(torch.zeros(1, 4), torch.zeros(1, 4)) == 0


def test_overlap_is_seen_and_missed():
    x = torch.zeros(3, 1, 8, 8)
    boxes_b = torch.tensor([[10.0, 0, 30, 20], [20, 0, 40, 20], [50, 50, 60, 60]])
    pair = Pair(
        x,
        x,
        view_affine(torch.tensor([[0.0, 0, 20, 20]] * 3), 8, turns=torch.tensor([0, 1, 2])),
        view_affine(boxes_b, 8, torch.tensor([True] * 3)),
        (64, 64),
    )
    torch.testing.assert_close(boxes_of(pair.where_b, 8), boxes_b)
    box, ok = overlap(pair)
    assert ok.tolist() == [True, False, False] and box[0].tolist() == [10, 0, 20, 20]
    torch.testing.assert_close(overlap_iou(pair), torch.tensor([1 / 3, 0, 0]))


@pytest.mark.parametrize("k", [1, 2, 7])
def test_shared_points_lie_row_by_row_inside_both_views(k):
    pair = ramp_pair(seed=9)
    a, b, ok = overlap_points(pair, k)
    assert a.shape == b.shape == (64, k * k, 2) and ok.any()
    assert ((torch.stack([a, b])[:, ok] > 0) & (torch.stack([a, b])[:, ok] < 32)).all()
    ground = transform_points(pair.where_a, a)[ok].view(-1, k, k, 2)
    assert (ground.diff(dim=2)[..., 0] > 0).all() and (ground.diff(dim=1)[..., 1] > 0).all()


def test_a_pair_of_one_keeps_its_axes_and_ends():
    pair = two_views(IMAGES, 24)
    assert pair[2].a.shape == (1, 4, 24, 24) and torch.equal(pair[-1].where_b, pair.where_b[-1:])
    assert len(list(pair)) == 6 and len(pair[[1, 3]]) == 2 and len(pair[pair.a[:, 0, 0, 0] > 1e9]) == 0
    assert pair != pair.swap() and pair == pair


def test_the_default_size_is_the_height():
    assert two_views(IMAGES).size == (40, 40) and two_views(IMAGES.transpose(2, 3)).size == (52, 52)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: two_views(IMAGES, 0), "0 x 0 pixels"),
        (lambda: two_views(IMAGES, -3), "-3 x -3 pixels"),
        (lambda: two_views(IMAGES[0], 24), "one image as image"),
        (lambda: two_views(IMAGES, 24, index=[1, 2]), "one number an image"),
        (lambda: two_views(IMAGES, 24, Plan(scale=(0.0, 1.0))), "scale"),
        (lambda: two_views(IMAGES, 24, Plan(ratio=(0, 1))), "ratio"),
    ],
)
def test_errors_name_the_value(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_pair():
    here, there = two_views(IMAGES, 24, seed=3), two_views(IMAGES.cuda(), 24, seed=3)
    torch.testing.assert_close(there.to("cpu").where_b, here.where_b, atol=1e-4, rtol=0)
    torch.testing.assert_close(there.to("cpu").a, here.a, atol=1e-3, rtol=0)
