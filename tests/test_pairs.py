"Two views: pure functions of (seed, epoch, index), and exact about what they share."
import pytest
import torch

from rsssl_nb.views.appearance import Colour, N_DRAWS, blur, drop_band, recolour
from rsssl_nb.views.geometry import coordinate_ramp, draws, sample, transform_points
from rsssl_nb.views.pairs import Pair, Plan, a_to_b, overlap, overlap_iou, overlap_points, two_views

IMAGES = torch.randn(6, 4, 40, 52, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
def test_any_band_count_and_shape(bands):
    pair = two_views(IMAGES[:, :1].repeat(1, bands, 1, 1), 24, seed=1)
    assert pair.a.shape == pair.b.shape == (6, bands, 24, 24) and pair.a.isfinite().all() and pair.source == (40, 52)
    assert len(two_views(IMAGES[:1], 24)) == 1


def test_a_pair_does_not_depend_on_its_company():
    whole = two_views(IMAGES, 24, seed=4, epoch=2)
    some = two_views(IMAGES[[5, 0]], 24, seed=4, epoch=2, index=[5, 0])
    assert torch.equal(some.where_a, whole.where_a[[5, 0]]) and torch.allclose(some.a, whole.a[[5, 0]], atol=1e-5) and torch.allclose(some.b, whole.b[[5, 0]], atol=1e-5)
    assert not torch.allclose(two_views(IMAGES, 24, seed=4, epoch=3).where_a, whole.where_a)
    assert not torch.allclose(whole.where_a, whole.where_b)


def test_matched_points_show_the_same_ground():
    pair = two_views(IMAGES, 24, Plan(scale=(.3, .9)), seed=2)
    ramp = coordinate_ramp(6, 40, 52).contiguous()
    a, b, ok = overlap_points(pair, 5)
    assert ok.all()
    read = lambda where, points: torch.nn.functional.grid_sample(sample(ramp, where, 24), (points / 24 * 2 - 1)[:, :, None], align_corners=False, padding_mode="border")
    rim = ((a > 1) & (a < 23) & (b > 1) & (b < 23)).all(-1)
    gap = (read(pair.where_a, a) - read(pair.where_b, b))[..., 0].abs().amax(1)
    assert gap[rim].max() < .02 + .6 and gap[rim].median() < .01
    assert torch.allclose(transform_points(a_to_b(pair), a), b, atol=1e-2)


def test_swap_is_symmetric_and_identical_views_overlap_fully():
    pair = two_views(IMAGES, 24, seed=2)
    assert torch.equal(overlap(pair)[0], overlap(pair.swap())[0]) and torch.equal(pair.swap().swap().a, pair.a)
    same = Pair(pair.a, pair.a, pair.where_a, pair.where_a, pair.source)
    assert torch.allclose(overlap_iou(same), torch.ones(6), atol=1e-4)
    assert torch.allclose(*overlap_points(same, 4)[:2])


def test_least_overlap_is_reached_without_touching_view_a():
    plan, many = Plan(scale=(.08, .3), colour=None), IMAGES[:1].expand(200, -1, -1, -1)
    free, bound = two_views(many, 8, plan, seed=1), two_views(many, 8, plan, seed=1, min_iou=.1)
    assert torch.equal(free.where_a, bound.where_a)
    assert (overlap_iou(free) < .1).float().mean() > .02 > (overlap_iou(bound) < .1).float().mean()


def test_inputs_and_random_streams_are_left_alone():
    before, state = IMAGES.clone(), torch.get_rng_state()
    two_views(IMAGES, 24)
    assert torch.equal(before, IMAGES) and torch.equal(state, torch.get_rng_state())


def test_pieces_move_and_index():
    pair = two_views(IMAGES, 24)
    assert len(pair[2:4]) == 2 and torch.equal(pair[torch.tensor([3])].a, pair.a[3:4]) and pair.to("cpu").size == (24, 24)


def test_colour_off_is_identity_and_samples_are_independent():
    u = draws(torch.arange(6), N_DRAWS, seed=9)
    assert torch.equal(recolour(IMAGES, u, Colour(p=0, grey=0, blur=0)), IMAGES)
    changed = recolour(IMAGES, u, Colour(drop=.5))
    for i in range(6): assert torch.allclose(changed[i:i + 1], recolour(IMAGES[i:i + 1], u[i:i + 1], Colour(drop=.5)), atol=1e-5)


def test_blur_keeps_constants_and_small_images():
    assert torch.allclose(blur(torch.full((2, 3, 5, 5), 2.), torch.tensor([.5, 9.])), torch.full((2, 3, 5, 5), 2.), atol=1e-5)
    assert blur(IMAGES[:, :, :2, :2], torch.full((6,), 2.)).isfinite().all()
    assert torch.equal(drop_band(IMAGES[:, :1], torch.ones(6, dtype=torch.bool), torch.zeros(6)), IMAGES[:, :1])
