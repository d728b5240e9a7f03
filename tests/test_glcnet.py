"GLCNet against the released rules restated slowly, and the oracles of its specification."

import math

import pytest
import torch

from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.glcnet import GLCNet, draw_centres, style, window_nce
from rsssl_nb.objectives.nce import nce
from rsssl_nb.objectives.regions import window_mean
from rsssl_nb.views.geometry import coordinate_ramp, invert, sample, transform_points, view_affine
from rsssl_nb.views.matched import admissible, window_boxes
from rsssl_nb.views.pairs import Pair, Plan, two_views

TILES = standardise(make_tiles(16, 64, seed=1)[0])
PAIR = two_views(TILES, 64, Plan(scale=(0.4, 1.0)), seed=0)


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def make(cls=GLCNet, **options):
    torch.manual_seed(0)
    return cls(Encoder(bands=4, width=16), **options)


def drawn():
    return At(generator=g())


def at():
    return At(progress=0.5, epoch=1, generator=g(5))


def released(za, zb, valid, tau, same_image, decoupled):
    "The local loss entry by entry in float64: windows (B, n, d) of both views, all others as negatives."
    B, n, d = za.shape
    rows = [
        (b, k, v, (za, zb)[v][b, k].double())
        for v in (0, 1)
        for b in range(B)
        for k in range(n)
        if valid[b, k]
    ]
    cos = lambda x, y: float(x @ y / (x.norm() * y.norm()))
    losses = []
    for b, k, v, x in rows:
        match = next(math.exp(cos(x, y) / tau) for c, m, u, y in rows if (c, m) == (b, k) and u != v)
        negatives = sum(
            math.exp(cos(x, y) / tau) for c, m, u, y in rows if (c, m) != (b, k) and (same_image or c != b)
        )
        if negatives:
            losses.append(-math.log(match / (negatives + (0 if decoupled else match))))
    return sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("same_image", [True, False])
@pytest.mark.parametrize("denominator", ["decoupled", "standard"])
@pytest.mark.parametrize("holes", [False, True])
def test_window_loss_equals_the_slow_rule(same_image, denominator, holes):
    za, zb = torch.randn(5, 3, 8, generator=g()), torch.randn(5, 3, 8, generator=g(1))
    valid = torch.rand(5, 3, generator=g(2)) > 0.4 if holes else torch.ones(5, 3, dtype=torch.bool)
    told = released(za, zb, valid, 0.5, same_image, denominator == "decoupled")
    assert abs(window_nce(za, zb, valid, 0.5, denominator, same_image).item() - told) < 1e-5


def test_rows_that_are_not_valid_count_nowhere():
    za, zb = torch.randn(4, 2, 8, generator=g()), torch.randn(4, 2, 8, generator=g(1))
    valid = torch.tensor([[True, True], [True, False], [True, True], [False, False]])
    told = window_nce(za, zb, valid, 0.5, "decoupled", True)
    za[~valid], zb[~valid] = 99.0, -99.0
    assert torch.equal(window_nce(za, zb, valid, 0.5, "decoupled", True), told)


def test_window_loss_does_not_mind_order_or_swap():
    za, zb, valid = (
        torch.randn(4, 3, 8, generator=g()),
        torch.randn(4, 3, 8, generator=g(1)),
        torch.rand(4, 3, generator=g(2)) > 0.3,
    )
    told, order = window_nce(za, zb, valid, 0.5, "decoupled", False), torch.tensor([2, 0, 3, 1])
    assert abs(window_nce(za[order], zb[order], valid[order], 0.5, "decoupled", False) - told) < 1e-6
    assert abs(window_nce(zb, za, valid, 0.5, "decoupled", False) - told) < 1e-6


@pytest.mark.parametrize("B, n", [(1, 1), (1, 4), (3, 1), (2, 2)])
@pytest.mark.parametrize("same_image", [True, False])
def test_tiny_batches_are_finite(B, n, same_image):
    z = torch.randn(B, n, 8, generator=g(), requires_grad=True)
    loss = window_nce(z, z + 0.1, torch.ones(B, n, dtype=torch.bool), 0.5, "decoupled", same_image)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()


def test_style_oracles():
    f = torch.randn(3, 5, 4, 6, generator=g())
    order = torch.randperm(24, generator=g(1))
    assert torch.allclose(style(f.flatten(2)[..., order].view_as(f)), style(f), atol=1e-6)
    mean, var = style(f).chunk(2, 1)
    moved = style(2 * f + 3)
    assert torch.allclose(moved, torch.cat([2 * mean + 3, 4 * var], 1), atol=1e-4)
    assert (style(torch.ones(2, 3, 4, 4))[:, 3:] == 0).all() and (style(f[..., :1, :1])[:, 5:] == 0).all()
    assert torch.allclose(var, f.flatten(2).var(2, unbiased=True), atol=1e-6)
    with pytest.raises(ValueError, match="gram"):
        style(f, "gram")


def views(turn, flip):
    "A pair whose first view is the whole source and whose second is turned or mirrored."
    whole = torch.tensor([[0.0, 0, 64, 64]])
    a, b = (
        view_affine(whole, 64),
        view_affine(whole, 64, flip=torch.tensor([flip]), turns=torch.tensor([turn])),
    )
    return Pair(TILES[:1], TILES[:1], a, b, (64, 64))


@pytest.mark.parametrize(
    "turn, flip, told",
    [
        (0, False, lambda x, y: (x, y)),
        (0, True, lambda x, y: (64 - x, y)),
        (1, False, lambda x, y: (64 - y, x)),
        (2, False, lambda x, y: (64 - x, 64 - y)),
    ],
)
def test_centres_move_as_the_views_do(turn, flip, told):
    a, b, valid = draw_centres(views(turn, flip), 4, 14, at=drawn())
    assert valid.any()
    for p, q, ok in zip(a[0].tolist(), b[0].tolist(), valid[0]):
        if ok:
            assert q == pytest.approx(told(*p), abs=1e-3)


def test_both_windows_show_the_same_ground():
    ramp = coordinate_ramp(16, 64, 64)
    a, b, valid = draw_centres(PAIR, 4, 14, at=drawn())
    assert valid.sum() > 40
    ground = [transform_points(w, c) for c, w in ((a, PAIR.where_a), (b, PAIR.where_b))]
    assert (ground[0] - ground[1])[valid].abs().max() < 1e-2
    seen = [sample(ramp, w, 64) for w in (PAIR.where_a, PAIR.where_b)]  # what each view shows, by place
    means = [window_mean(s, window_boxes(c, 14, (64, 64))) for s, c in zip(seen, (a, b))]
    assert (means[0] - ground[0])[valid].abs().max() < 1 and (means[1] - ground[1])[valid].abs().max() < 1


def test_window_mean_of_positions_is_the_centre():
    boxes = window_boxes(torch.tensor([[[30.0, 20.0], [7.0, 7.0], [57.0, 57.0]]]), 14, (64, 64))
    assert torch.allclose(
        window_mean(coordinate_ramp(1, 64, 64), boxes)[0],
        torch.tensor([[30.0, 20.0], [7.0, 7.0], [57.0, 57.0]]),
        atol=1e-4,
    )


@pytest.mark.parametrize("window", [6, 14, 20])
def test_strict_windows_are_disjoint_in_both_views(window):
    a, b, valid = draw_centres(PAIR, 6, window, at=drawn())
    both = valid[:, :, None] & valid[:, None] & ~torch.eye(6, dtype=torch.bool)
    for c in (a, b):
        assert ((c[:, :, None] - c[:, None]).abs().amax(-1)[both] >= window).all()
    assert valid.any() and (window < 20 or not valid.all())


def test_released_windows_keep_centres_out_of_earlier_windows_of_view_a():
    a, _, valid = draw_centres(PAIR, 3, 10, "official", drawn())
    gap = (a[:, :, None] - a[:, None]).abs().amax(-1) + 99 * torch.eye(3)
    assert valid.all() and (gap.amin((1, 2)) >= 5).float().mean() > 0.9 and (gap < 10).any()


def test_released_views_collide_about_as_often_as_simulated():
    """Design notes 2.8: about 21 % of pairs of windows overlap in view 1 and 23 % in view 2 of 224 px,
    windows of 48.
    """
    many = two_views(
        TILES[:1].expand(600, -1, -1, -1), 64, *GLCNet.official(Encoder(bands=4, width=16)).plans(), seed=9
    )
    a, b, _ = draw_centres(many, 4, 14, "official", drawn())
    share = [
        float(
            ((c[:, :, None] - c[:, None]).abs().amax(-1) < 13.7)[
                ~torch.eye(4, dtype=torch.bool).expand(600, 4, 4)
            ]
            .float()
            .mean()
        )
        for c in (a, b)
    ]
    assert 0.15 < share[0] < 0.27 and 0.17 < share[1] < 0.29, share


def test_admissible_rectangle_holds_the_centres():
    box, ok = admissible(PAIR, 14)
    a, b, valid = draw_centres(PAIR, 4, 14, at=drawn())
    ground = transform_points(PAIR.where_a, a)
    inside = ((ground >= box[:, None, :2] - 1e-3) & (ground <= box[:, None, 2:] + 1e-3)).all(-1)
    assert inside[valid].all() and not valid[~ok].any()
    back = transform_points(invert(PAIR.where_b), ground)
    assert (back - b)[valid].abs().max() < 1e-2


def test_lambda_one_leaves_decoder_and_window_head_alone():
    method = make(lam=1.0)
    step = method(PAIR, at())
    step.loss.backward()
    assert abs(step.loss.item() - step.parts["global"].item()) < 1e-6
    for part in (method.decoder, method.head_local):
        assert all(p.grad is None or p.grad.abs().sum() == 0 for p in part.parameters())
    assert method.head[0].weight.grad.abs().sum() > 0


def test_lambda_zero_leaves_the_style_head_alone():
    method = make(lam=0.0)
    method(PAIR, at()).loss.backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in method.head.parameters())
    assert method.head_local[0].weight.grad.abs().sum() > 0


def test_switched_off_it_is_simclr_on_the_aspp_map():
    method = make(lam=1.0, style="mean", denominator="standard")
    f = method.encoder(torch.cat([PAIR.a, PAIR.b]))
    assert (
        abs(method(PAIR, at()).loss - nce(*method.head(method.aspp(f.dense).mean((2, 3))).chunk(2), 0.5))
        < 1e-6
    )


@pytest.mark.parametrize("denominator, told", [("decoupled", 0.004831120), ("standard", 0.818904608)])
def test_toy_batch_as_windows(denominator, told):
    arrows = lambda *degrees: torch.stack(
        [torch.deg2rad(torch.tensor(degrees)).cos(), torch.deg2rad(torch.tensor(degrees)).sin()], 1
    )[:, None]
    assert (
        abs(
            window_nce(
                arrows(0.0, 10.0, 120.0),
                arrows(5.0, 14.0, 125.0),
                torch.ones(3, 1, dtype=torch.bool),
                0.5,
                denominator,
                True,
            ).item()
            - told
        )
        < 1e-6
    )


def test_skipped_windows_are_counted():
    apart = Pair(
        PAIR.a,
        PAIR.b,
        PAIR.where_a,
        torch.cat([PAIR.where_b[..., :2], PAIR.where_b[..., 2:] + 999], -1),
        PAIR.source,
    )
    step = make()(apart, at())
    step.loss.backward()
    assert step.trace["skipped"] == 64 and step.parts["local"] == 0 and step.loss.isfinite()


def test_released_dropout_comes_from_the_steps_generator():
    one, two = make(GLCNet.official)(PAIR, at()).loss, make(GLCNet.official)(PAIR, at()).loss
    assert torch.equal(one, two) and not torch.equal(one, make(GLCNet.official, dropout=0.0)(PAIR, at()).loss)


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(lam=1.5), "1.5"),
        (dict(tau=0.0), "0"),
        (dict(exclude="none"), "none"),
        (dict(views="both"), "both"),
        (dict(window=80), "80"),
        (dict(style="gram"), "gram"),
        (dict(denominator="half"), "half"),
    ],
)
def test_bad_options_name_the_value(options, word):
    with pytest.raises(ValueError, match=word):
        make(**options)(PAIR, at())
