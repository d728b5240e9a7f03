"""GraSS: the loss map against a hooked backward, peak_boxes against the released rule in loops, and
everything it must leave alone.
"""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from rsssl_nb.encoders import Encoder
from rsssl_nb.evaluation.mechanisms import box_arms
from rsssl_nb.methods.base import At, still_statistics
from rsssl_nb.methods.grass import GraSS, loss_map
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.objectives.nce import nce
from rsssl_nb.views.geometry import coordinate_ramp, crop_boxes, view_affine
from rsssl_nb.views.pairs import Pair, Plan, box_iou, boxes_of, two_views
from rsssl_nb.views.peaks import (
    box_around,
    connected,
    grow,
    has_peak,
    maxima,
    peak_boxes,
    released_choice,
    runs,
    touching,
)
from rsssl_nb.views.recut import carried, recut

GUIDED = At(progress=0.9, epoch=9)
EIGHT = np.ones((3, 3))


def build(kind=GraSS, seed=0, **options):
    torch.manual_seed(seed)
    return kind(Encoder("resnet18", 3, 16, 8), **options)


def images(n=8, size=64, seed=1):
    g = torch.Generator().manual_seed(seed)
    return F.interpolate(
        torch.randn(n, 3, 8, 8, generator=g), (size, size), mode="bilinear"
    ) + 0.3 * torch.randn(n, 3, size, size, generator=g)


def maps(kind, n, h, w, seed=0):
    g = np.random.default_rng(seed)
    if kind == "smooth":
        return torch.from_numpy(
            ndimage.gaussian_filter(g.normal(size=(n, h, w)), (0, 1, 1)).astype(np.float32)
        )
    if kind == "noise":
        return torch.from_numpy(g.normal(size=(n, h, w)).astype(np.float32))
    return torch.from_numpy(g.integers(0, 4, (n, h, w)).astype(np.float32))  # ties


def slow_boxes(heat, threshold, size, score):
    "One map at a time, one component at a time: the rules as sentences, min_side 0."
    found = []
    for h in heat:
        box = [0, 0, size[1], size[0]]
        if torch.isfinite(h).all() and h.min() < h.max() and 0 <= threshold < 1:
            up = F.interpolate(h[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()
            lo, hi = up.min(), up.max()
            labels, count = ndimage.label(up > lo + np.float32(threshold) * (hi - lo), EIGHT)
            top, best = np.unravel_index(up.argmax(), up.shape), -np.inf
            order = sorted(range(1, count + 1), key=lambda k: np.flatnonzero(labels == k)[0])
            for k in order:
                y, x = np.where(labels == k)
                here = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
                if score == "component":
                    if labels[top] == k:
                        box = here
                elif up[here[1] : here[3], here[0] : here[2]].max() >= best:
                    best, box = up[here[1] : here[3], here[0] : here[2]].max(), here
        found.append(box)
    return torch.tensor(found)


# ---- components --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.62, 0.9])
def test_components_are_scipys(share):
    mask = torch.rand(5, 23, 31, generator=torch.Generator().manual_seed(int(100 * share))) < share
    mask[3], mask[4] = False, True
    row, x0, x1 = runs(mask)
    label = connected(len(row), *touching(row, x0, x1, 23, 31))
    boxes = box_around(row, x0, x1, label, 23)
    mine = sorted((int(r), *boxes[k].tolist()) for k, r in zip(label.unique(), (row // 23)[label.unique()]))
    want = [
        (n, s[1].start, s[0].start, s[1].stop, s[0].stop)
        for n in range(5)
        for s in ndimage.find_objects(ndimage.label(mask[n].numpy(), EIGHT)[0])
    ]
    assert mine == sorted(want)


def test_runs_of_full_rows_and_nothing():
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    row, x0, x1 = runs(mask)
    assert row.tolist() == list(range(6)) and set(x0.tolist()) == {0} and set(x1.tolist()) == {4}
    assert connected(6, *touching(row, x0, x1, 3, 4)).tolist() == [0, 0, 0, 3, 3, 3], "images must not touch"
    assert len(runs(~mask)[0]) == 0


def test_a_spiral_is_one_component():
    mask = np.zeros((41, 41), bool)
    y, x, d = 0, 0, 0
    for length in [40, *(k for k in range(40, 0, -2) for _ in (0, 1))]:
        for _ in range(length):
            mask[y, x] = True
            y, x = y + (0, 1, 0, -1)[d], x + (1, 0, -1, 0)[d]
        mask[y, x] = True
        d = (d + 1) % 4
    assert ndimage.label(mask, EIGHT)[1] == 1
    row, x0, x1 = runs(torch.from_numpy(mask)[None])
    assert connected(len(row), *touching(row, x0, x1, 41, 41)).unique().tolist() == [0]


# ---- peak_boxes --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("score", ["component", "box"])
@pytest.mark.parametrize("kind", ["smooth", "noise", "ties"])
@pytest.mark.parametrize(
    "shape, size",
    [((7, 7), (56, 56)), ((7, 5), (40, 64)), ((8, 8), (64, 64)), ((3, 1), (30, 9)), ((1, 1), (8, 8))],
)
def test_boxes_equal_the_rule_in_loops(kind, score, shape, size):
    heat = maps(kind, 24, *shape, seed=3)
    heat[0], heat[1, 0, 0], heat[2, -1, -1] = 0.1, float("nan"), float("inf")
    for threshold in (0.0, 0.2, 0.5, 0.8, 0.97):
        assert torch.equal(
            peak_boxes(heat, threshold, size, 0, score), slow_boxes(heat, threshold, size, score)
        ), threshold


def test_the_two_rules_differ_and_the_released_one_can_miss_the_peak():
    heat = maps("noise", 400, 7, 7, seed=5)
    a, b = (peak_boxes(heat, 0.6, (56, 56), 0, s) for s in ("component", "box"))
    assert (a != b).any(1).sum() > 0
    up = F.interpolate(heat[:, None], (56, 56), mode="bilinear")[:, 0]
    for u, box in zip(up, a):
        assert u[box[1] : box[3], box[0] : box[2]].max() == u.max()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("score", ["component", "box"])
def test_flat_and_non_finite_maps_give_the_whole_view(value, score):
    heat = torch.full((3, 7, 5), value)
    assert peak_boxes(heat, 0.5, (50, 33), 8, score).tolist() == [[0, 0, 33, 50]] * 3


@pytest.mark.parametrize("threshold", [-0.01, -1.0, 1.0, 1.5, float("inf"), float("-inf")])
def test_thresholds_outside_the_range_cut_nothing(threshold):
    assert peak_boxes(maps("smooth", 4, 7, 7), threshold, (20, 30), 0).tolist() == [[0, 0, 30, 20]] * 4


def test_threshold_zero_is_the_whole_image_of_a_generic_map():
    assert (peak_boxes(maps("smooth", 50, 7, 7), 0.0, (56, 56), 0) == torch.tensor([0, 0, 56, 56])).all(
        1
    ).float().mean() > 0.95


def test_two_blobs():
    heat = torch.zeros(1, 8, 8)
    heat[0, 1:3, 1:3], heat[0, 5:7, 5:7] = 1.0, 0.9
    box = peak_boxes(heat, 0.5, (64, 64), 0)[0].tolist()
    assert box == [8, 8, 24, 24]
    assert peak_boxes(-heat + 1, 0.5, (64, 64), 0)[0].tolist() != box


def test_boxes_ignore_scale_and_offset():
    heat = maps("smooth", 64, 7, 7).double()
    want = peak_boxes(heat, 0.5, (56, 56), 8)
    assert torch.equal(peak_boxes(3 * heat + 7, 0.5, (56, 56), 8), want) and not torch.equal(
        peak_boxes(-heat, 0.5, (56, 56), 8), want
    )


def test_least_side():
    heat = maps("noise", 200, 7, 7)
    bare, held = peak_boxes(heat, 0.95, (56, 48), 0), peak_boxes(heat, 0.95, (56, 48), 12)
    side = held[:, 2:] - held[:, :2]
    assert (bare[:, 2:] - bare[:, :2]).min() < 12 <= side.min()
    assert (held[:, :2] >= 0).all() and (held[:, 2] <= 48).all() and (held[:, 3] <= 56).all()
    assert (held[:, :2] <= bare[:, :2]).all() and (held[:, 2:] >= bare[:, 2:]).all()
    assert grow(torch.tensor([[10, 10, 12, 30], [0, 0, 1, 1]]), 6, (32, 32)).tolist() == [
        [8, 10, 14, 30],
        [0, 0, 6, 6],
    ]
    assert grow(torch.tensor([[1, 1, 2, 2]]), 99, (10, 20)).tolist() == [[0, 0, 20, 10]]


def test_integer_boxes_half_precision_arrays_and_bad_words():
    heat = maps("smooth", 3, 7, 7)
    boxes = peak_boxes(heat.half(), 0.5, 56, 0)
    assert boxes.dtype == torch.int64 and boxes.shape == (3, 4)
    assert torch.equal(peak_boxes(heat.numpy(), 0.5, (56, 56), 0), peak_boxes(heat, 0.5, (56, 56), 0))
    assert torch.equal(
        peak_boxes(heat, np.float64(0.5), (56, 56), 0), peak_boxes(heat, torch.tensor(0.5), (56, 56), 0)
    )
    assert peak_boxes(heat[:0], 0.5, (56, 56), 0).shape == (0, 4)
    with pytest.raises(ValueError, match="score 'area'"):
        peak_boxes(heat, 0.5, (56, 56), 0, "area")
    with pytest.raises(ValueError, match="nan"):
        peak_boxes(heat, float("nan"), (56, 56), 0)


def test_one_map_does_not_depend_on_its_batch():
    heat = maps("noise", 30, 7, 7)
    for score in ("component", "box"):
        together = peak_boxes(heat, 0.5, (56, 56), 0, score)
        assert torch.equal(torch.cat([peak_boxes(h[None], 0.5, (56, 56), 0, score) for h in heat]), together)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: this test ran on nothing")
@pytest.mark.parametrize("score", ["component", "box"])
def test_boxes_are_the_same_on_the_gpu(score):
    heat = maps("noise", 64, 7, 7).double()
    assert torch.equal(
        peak_boxes(heat.cuda(), 0.5, (56, 56), 8, score).cpu(), peak_boxes(heat, 0.5, (56, 56), 8, score)
    )


# ---- the guide ---------------------------------------------------------------------------------------------
def hooked(method, pair):
    "The slow way: the whole graph, the gradient at the map itself, pooled."
    features = method.encoder(torch.cat([pair.a, pair.b]))
    loss = nce(*method.head(features.pooled).chunk(2), method.tau)
    (grad,) = torch.autograd.grad(loss, features.dense)
    return (features.dense * grad.mean((2, 3))[:, :, None, None]).mean(1).detach(), grad, features


def test_fast_map_equals_the_hooked_one():
    method, pair = build(), two_views(images(), 64)
    want, grad, features = hooked(deepcopy(method), pair)
    got = method.guide(pair)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-9)
    assert got.dtype == torch.float32 and torch.equal(has_peak(got), torch.ones(16, dtype=torch.bool))
    torch.testing.assert_close(
        grad, grad.mean((2, 3), keepdim=True).expand_as(grad), rtol=1e-4, atol=1e-9
    )  # constant over space
    torch.testing.assert_close(loss_map(features.dense, grad.sum((2, 3))), want, rtol=1e-4, atol=1e-9)


def test_heat_sums_to_zero_without_biases():
    method, pair = build(), two_views(images(), 64)
    for layer in (method.head[0], method.head[2]):
        layer.bias = None
    heat = method.guide(pair).double().flatten(1)
    assert (heat.sum(1).abs() / heat.abs().sum(1)).max() < 1e-4
    biased = build()
    with torch.no_grad():
        biased.head[0].bias.fill_(0.5)
    heat = biased.guide(pair).flatten(1)
    assert (heat.sum(1).abs() / heat.abs().sum(1)).max() > 1e-2


@pytest.mark.parametrize("head_norm", [False, True])
def test_guide_leaves_everything_alone(head_norm):
    method, pair = build(head_norm=head_norm), two_views(images(), 64)
    for p in method.parameters():
        p.grad = torch.full_like(p, 0.5)
    before, stream = deepcopy(method.state_dict()), torch.random.get_rng_state()
    method.guide(pair)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert all(torch.equal(p.grad, torch.full_like(p, 0.5)) for p in method.parameters())
    assert (
        all(m.track_running_stats for m in method.modules() if isinstance(m, torch.nn.BatchNorm2d))
        and method.training
    )
    assert torch.equal(stream, torch.random.get_rng_state())
    build(GraSS.official).guide(pair)


def test_released_guide_moves_the_statistics_too():
    pair = two_views(images(), 64)
    once, twice = build(), build(bn_twice=True)
    for method in (once, twice):
        method.step(pair, GUIDED)
    assert once.encoder.bn1.num_batches_tracked == 1 and twice.encoder.bn1.num_batches_tracked == 2


def test_guide_uses_batch_statistics_in_training():
    method, pair = build(), two_views(images(), 64)
    with torch.no_grad():
        method.encoder.bn1.running_mean.fill_(50.0)
    trained = method.guide(pair)
    assert torch.equal(trained, build().guide(pair)) and not torch.allclose(
        method.eval().guide(pair), trained
    )


def test_statistics_come_back_after_an_error():
    method = build()
    with pytest.raises(RuntimeError, match="stop"):
        with still_statistics(method):
            raise RuntimeError("stop")
    assert method.encoder.bn1.track_running_stats


# ---- cutting again -----------------------------------------------------------------------------------------
def test_cutting_a_half_doubles_pixels_and_the_whole_is_the_view():
    x = images(2, 16)
    where = view_affine(torch.tensor([[3.0, 5, 19, 21], [0, 0, 32, 32]]), 16)
    half, _ = recut(x, where, torch.tensor([[0, 0, 8, 8], [8, 8, 16, 16]]), "nearest")
    assert torch.equal(half[0], x[0, :, :8, :8].repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.equal(half[1], x[1, :, 8:, 8:].repeat_interleave(2, 1).repeat_interleave(2, 2))
    same, still = recut(x, where, torch.tensor([[0, 0, 16, 16]] * 2))
    assert torch.equal(same, x) and torch.equal(still, where)
    torch.testing.assert_close(
        recut(x, where, torch.tensor([[2, 1, 9, 14]] * 2))[0],
        crop_boxes(x, torch.tensor([[2, 1, 9, 14]] * 2), 16),
    )


def test_views_cut_again_know_where_they_are():
    ramp = coordinate_ramp(6, 80, 80)
    pair = two_views(ramp, 32, Plan(colour=None, scale=(0.3, 0.6)), seed=2)
    boxes = torch.tensor([[4, 6, 20, 30]] * 6)
    view, where = recut(pair.a, pair.where_a, boxes)
    from rsssl_nb.views.geometry import sample

    inner = slice(2, -2)
    torch.testing.assert_close(
        view[..., inner, inner], sample(ramp, where, 32)[..., inner, inner], atol=2e-2, rtol=0
    )


def test_a_carried_box_shows_the_same_ground():
    pair = two_views(images(40, 64), 64, Plan(scale=(0.3, 0.8)), seed=4)
    method = build(which_views="shared", min_side=0)
    boxes, _ = method.crop.boxes(maps("smooth", 80, 8, 8), pair)
    mine, other = boxes.chunk(2)
    from rsssl_nb.views.pairs import a_to_b

    _, left = carried(mine, a_to_b(pair), pair.size)
    assert 0 < left.sum() and (other[~left] == torch.tensor([0, 0, 64, 64])).all()
    ground = [
        boxes_of(recut(v, w, b)[1], 64)
        for v, w, b in ((pair.a, pair.where_a, mine), (pair.b, pair.where_b, other))
    ]
    inside = (ground[1][:, :2] >= ground[0][:, :2] - 2).all(1) & (
        ground[1][:, 2:] <= ground[0][:, 2:] + 2
    ).all(1)
    assert inside[left].all()


# ---- the method --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, at",
    [
        ({}, At(0.49)),
        (dict(warmup=1.0), At(0.99)),
        (dict(warmup_epochs=3), At(0.99, epoch=2)),
        (dict(thresh=1.0), GUIDED),
        (dict(thresh=-0.1), GUIDED),
        (dict(thresh=1.0, which_views="shared", min_side=0), GUIDED),
    ],
)
def test_limits_are_simclr(options, at):
    pair = two_views(images(), 64, Plan(scale=(1.0, 1.0), ratio=(1.0, 1.0)))
    grass, simclr = build(**options), build(SimCLR)
    got, want = grass.step(pair, at), simclr.step(pair, at)
    assert abs(got.loss - want.loss) <= 1e-6
    got.loss.backward(), want.loss.backward()
    for (name, p), q in zip(grass.named_parameters(), simclr.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-7, msg=name)


def test_warm_up_ends_when_told():
    method = build()
    assert method.crop.warming(At(0.499)) and not method.crop.warming(At(0.5))
    method = build(warmup_epochs=3)
    assert method.crop.warming(At(0.9, epoch=2)) and not method.crop.warming(At(0.1, epoch=3))
    assert not build(GraSS.official).crop.warming(At()) and build(GraSS.official, warmup=0.25).crop.warming(
        At(0.2)
    )


@pytest.mark.parametrize("official", [False, True])
def test_a_guided_step_is_simclr_on_what_was_cut(official):
    method, pair = build(GraSS.official if official else GraSS), two_views(images(), 64)
    heat = deepcopy(method).guide(pair)
    boxes = (
        slow_boxes(heat, 0.5, (64, 64), "box")
        if official
        else grow(slow_boxes(heat, 0.5, (64, 64), "component"), 8, (64, 64))
    )
    views = torch.cat([pair.a, pair.b])
    if official:
        sides = zip(views, boxes.tolist())
        parts = [v[None, :, y0:y1, x0:x1] for v, (x0, y0, x1, y1) in sides]
        cut = torch.cat([torch.nn.functional.interpolate(part, (64, 64), mode="nearest") for part in parts])
    else:
        cut = crop_boxes(views, boxes, (64, 64), "bilinear")
    step = method.step(pair, GUIDED)
    assert torch.equal(step.trace["boxes"], boxes) and (boxes != torch.tensor([0, 0, 64, 64])).any()
    torch.testing.assert_close(torch.cat([step.trace["a"], step.trace["b"]]), cut, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(step.loss, nce(step.trace["za"], step.trace["zb"], 0.5))
    ground = [boxes_of(step.trace[k], 64) for k in ("where_a", "where_b")]
    torch.testing.assert_close(step.trace["box_iou"], box_iou(*ground))
    assert (
        step.trace["heat"].shape == (16, 8, 8)
        and int(step.trace["skipped"]) == 0
        and sum(step.parts.values()) == step.loss.detach()
    )
    assert not any(v.requires_grad for v in step.trace.values())


def test_the_input_is_not_written_on():
    pair = two_views(images(), 64)
    before = pair.a.clone()
    build(GraSS.official).step(pair, GUIDED)
    assert torch.equal(pair.a, before)


@pytest.mark.parametrize(
    "name, change",
    [
        ("batch of one", lambda x: x[:1]),
        ("constant image", lambda x: torch.zeros_like(x)),
        ("duplicates", lambda x: x[:1].expand_as(x)),
    ],
)
@pytest.mark.parametrize("which", ["own", "shared"])
def test_hard_batches(name, change, which):
    pair = two_views(change(images()), 64)
    step = build(which_views=which).step(pair, GUIDED)
    assert torch.isfinite(step.loss)
    step.loss.backward()
    if name == "batch of one":
        assert step.loss == 0 and int(step.trace["skipped"]) == 2 and torch.equal(step.trace["a"], pair.a)


def test_no_overlap_is_counted():
    x = images(4)
    apart = Pair(
        x,
        x.flip(0),
        view_affine(torch.tensor([[0.0, 0, 20, 20]] * 4), 64),
        view_affine(torch.tensor([[40.0, 40, 60, 60]] * 4), 64),
        (64, 64),
    )
    step = build(which_views="shared").step(apart, GUIDED)
    assert (
        int(step.trace["skipped"]) == 4
        and torch.equal(step.trace["b"], apart.b)
        and (step.trace["box_iou"] == 0).all()
    )


def test_maps_of_one_cell_cut_nothing():
    torch.manual_seed(0)
    method = GraSS(Encoder("resnet18", 3, 16, 32))
    step = method.step(two_views(images(8, 32), 32), GUIDED)
    assert int(step.trace["skipped"]) == 16 and (step.trace["boxes"] == torch.tensor([0, 0, 32, 32])).all()


def test_views_need_not_be_square():
    x = images(6, 64)[:, :, :40]
    pair = Pair(
        x,
        x.flip(3),
        view_affine(torch.tensor([[0.0, 0, 64, 40]] * 6), (40, 64)),
        view_affine(torch.tensor([[0.0, 0, 64, 40]] * 6), (40, 64)),
        (40, 64),
    )
    step = build().step(pair, GUIDED)
    assert (
        step.trace["a"].shape == (6, 3, 40, 64)
        and (step.trace["boxes"][:, 3] <= 40).all()
        and torch.isfinite(step.loss)
    )


def test_order_and_swap_do_not_matter():
    pair, order = two_views(images(), 64), torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    losses = [build().step(p, GUIDED).loss.item() for p in (pair, pair[order], pair.swap())]
    assert max(losses) - min(losses) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(sign=-1),
        dict(which_views="shared"),
        dict(score="box", resize="nearest", min_side=0, bn_twice=True),
    ],
)
def test_three_steps_lower_the_loss_and_reach_every_tensor(options):
    method, pair = build(warmup=0.0, **options), two_views(images(16), 64)
    optimiser, losses, stream = torch.optim.AdamW(method.parameters(), 1e-3), [], torch.random.get_rng_state()
    for _ in range(4):
        step = method(pair, GUIDED)
        optimiser.zero_grad()
        step.loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())
        optimiser.step()
        losses.append(step.loss.item())
    assert losses[-1] < losses[0] and torch.equal(stream, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_keeps_the_guide_in_float32(dtype):
    method, pair = build(), two_views(images(), 64)
    with torch.autocast("cpu", dtype=dtype):
        step = method.step(pair, GUIDED)
    assert (
        torch.isfinite(step.loss)
        and step.trace["heat"].dtype == torch.float32
        and torch.isfinite(step.trace["heat"]).all()
    )
    a, where = recut(pair.a, pair.where_a, step.trace["boxes"].chunk(2)[0])
    assert torch.equal(a, step.trace["a"]) and torch.equal(where, step.trace["where_a"]), (
        "geometry in half precision misplaces views"
    )


def test_guide_works_without_gradients():
    method, pair = build(), two_views(images(), 64)
    with torch.no_grad():
        step = method.step(pair, GUIDED)
    assert not step.loss.requires_grad and (step.trace["heat"] != 0).any()


def test_all_rows_are_contrasted_in_the_guide():
    method, pair = build(), two_views(images(), 64)
    seen = []

    def gather(t):
        seen.append(t.shape)
        return torch.cat([t, t.detach().flip(0)])

    alone, together = method.guide(pair), method.guide(pair, At(gather=gather))
    assert len(seen) == 2 and not torch.allclose(alone, together)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(sign=0), "sign 0"),
        (dict(which_views="b"), "which_views 'b'"),
        (dict(score="x"), "score 'x'"),
        (dict(resize="cubic"), "resize 'cubic'"),
        (dict(warmup=1.5), "warmup 1.5"),
        (dict(tau=0), "tau 0"),
        (dict(thresh=float("nan")), "thresh nan"),
        (dict(warmup_epochs=-1), "warmup_epochs -1"),
    ],
)
def test_options_are_refused_by_name(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)


def test_names_tell_ours_from_theirs():
    ours, theirs = build(), build(GraSS.official)
    assert ours.title == "GraSS" and theirs.title == "GraSS-released (warm-up ours)"
    assert [type(m).__name__ for m in theirs.head] == ["Linear", "Linear"] and (
        theirs.crop.score,
        theirs.crop.resize,
        theirs.crop.min_side,
        theirs.crop.warmup,
    ) == ("box", "nearest", 0, 0.0)
    assert not hasattr(GraSS, "title") or GraSS.title == "GraSS"


def test_maxima_are_all_of_them_in_reading_order():
    maps = torch.randint(0, 3, (5, 4, 6), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(torch.stack(maxima(maps), 1), (maps == maps.amax((1, 2), keepdim=True)).nonzero())


def test_released_choice_takes_the_later_of_two_boxes():
    peak = torch.zeros(1, 6, 6)
    peak[0, 2, 2] = 1
    boxes = torch.tensor([[0, 0, 6, 6], [2, 2, 3, 3], [4, 4, 6, 6]])
    assert released_choice(
        boxes, torch.tensor([0, 1, 2]), torch.zeros(3, dtype=torch.long), peak
    ).tolist() == [1]
    assert released_choice(boxes, torch.tensor([2]), torch.zeros(3, dtype=torch.long), peak).tolist() == [-1]


def test_the_boxes_that_are_judged_are_those_that_are_trained_on():
    method = build(min_side=40, warmup=0.0)
    pair = two_views(images(), 64, seed=2)
    arms = box_arms(method, pair, At(1.0, 1, torch.Generator().manual_seed(0)))
    trained_on, _ = method.crop.boxes(method.guide(pair, GUIDED), pair)
    assert arms["gradient"].equal(trained_on)
    assert all((boxes[:, 2:] - boxes[:, :2]).min() >= 40 for boxes in arms.values())
