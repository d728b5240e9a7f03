"""Baselines: losses against an independent library, closed forms, limits.

Queue, copy and masks do what their pages say.
"""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods import byol, combined, dense, inpainting, moco, redundancy, swav
from rsssl_nb.methods.base import At
from rsssl_nb.methods.byol import BYOL, SimSiam
from rsssl_nb.methods.dense import DenseCL, PixPro, cells, most_alike, neighbours, propagate, taken
from rsssl_nb.methods.ema import move_towards, rising_momentum, slow_copy
from rsssl_nb.methods.inpainting import Inpainting, holes
from rsssl_nb.methods.moco import MoCo, pushed, queue_nce
from rsssl_nb.methods.redundancy import BarlowTwins, VICReg
from rsssl_nb.methods.ssccl import SSCCL, agreement
from rsssl_nb.methods.swav import SwAV, sinkhorn, swapped
from rsssl_nb.objectives.similarity import unit
from rsssl_nb.views.geometry import view_affine
from rsssl_nb.views.pairs import Pair, two_views

TILES = standardise(make_tiles(12, 48, seed=2)[0])
PAIR = two_views(TILES, 48, seed=0)


def build(cls, seed=0, **options):
    torch.manual_seed(seed)
    return cls(Encoder(bands=4, width=8), **options)


def rows(*shape, seed=0, scale=1.0):
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def same(ours, theirs, *inputs):
    "Value and gradients of two losses agree to 1e-5."
    torch.testing.assert_close(ours, theirs.reshape(()), rtol=1e-5, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, retain_graph=True), torch.autograd.grad(theirs.sum(), inputs)
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def lightly():
    return pytest.importorskip(
        "lightly.loss",
        reason="lightly is not installed: the comparison with an independent library ran on nothing",
    )


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_queue_loss_is_lightlys(lightly, tau):
    q, k, old = rows(6, 16), rows(6, 16, seed=1).detach(), unit(rows(50, 16, seed=2).detach())
    theirs = lightly.NTXentLoss(tau, memory_bank_size=(50, 16))
    theirs.memory_bank.bank = old.T.clone() if theirs.memory_bank.feature_dim_first else old.clone()
    if theirs.memory_bank.bank.shape != (50, 16):
        theirs.memory_bank.bank = old.clone()
    same(queue_nce(q, k, old, tau).mean(), theirs(q, k), q)


def test_agreement_is_lightlys(lightly):
    p, r, t, u = rows(6, 16), rows(6, 16, seed=1), rows(6, 16, seed=2), rows(6, 16, seed=3)
    cos = lightly.NegativeCosineSimilarity()
    same(agreement(p, r, t, u).mean(), (cos(p, u.detach()) + cos(r, t.detach())) / 2, p, r)


@pytest.mark.parametrize("n, d", [(32, 8), (4, 16)])
def test_redundancy_losses_are_lightlys(lightly, n, d):
    a, b = rows(n, d), rows(n, d, seed=1, scale=0.3)
    m, v = build(BarlowTwins, lam=0.005), build(VICReg, lam=25.0, mu=25.0, nu=1.0)
    same(sum(m.terms(a, b).values()), lightly.BarlowTwinsLoss(5e-3)(a, b), a, b)
    same(sum(v.terms(a, b).values()), lightly.VICRegLoss()(a, b), a, b)


def test_swav_is_lightlys(lightly):
    from lightly.loss.swav_loss import sinkhorn as theirs

    scores = rows(24, 10).detach().tanh()
    torch.testing.assert_close(sinkhorn(scores), theirs(scores), rtol=1e-4, atol=1e-6)
    sa, sb = (rows(24, 10, seed=s).tanh() for s in (1, 2))
    sa, sb = sa.detach().requires_grad_(), sb.detach().requires_grad_()
    same(
        swapped(sa, sb, sinkhorn(sa.detach()), sinkhorn(sb.detach()), 0.1).mean(),
        lightly.SwaVLoss(0.1)([sa, sb], []),
        sa,
        sb,
    )


# MoCo -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_queue_holds_the_last_keys(size, n, times):
    queue, fed = -torch.arange(1.0, size + 1).flip(0)[:, None], []
    for t in range(times):
        keys = torch.arange(t * n, (t + 1) * n).float()[:, None]
        queue, fed = pushed(queue, keys), fed + keys[:, 0].tolist()
    want = ([-float(i) for i in range(size, 0, -1)] + fed)[-size:]
    assert queue[:, 0].tolist() == want


def test_keys_enter_after_the_step_and_the_copy_follows():
    m = build(MoCo, queue=30, ema=0.9)
    before, weights = m.queue.clone(), m.slow[1][0].weight.clone()
    step = m(PAIR)
    step.loss.backward()
    assert torch.equal(m.queue, before) and all(p.grad is None for p in m.slow.parameters())
    torch.optim.SGD([p for p in m.parameters() if p.requires_grad], 1.0).step()
    m.after_step()
    assert torch.equal(m.queue, torch.cat([before, step.trace["keys"]])[-30:])
    torch.testing.assert_close(m.slow[1][0].weight, 0.9 * weights + 0.1 * m.head[0].weight)
    torch.testing.assert_close(m.queue[-24:].norm(dim=1), torch.ones(24))


def test_official_moco_asks_from_view_a_only():
    m = build(MoCo.official, queue=16).eval()
    other = Pair(PAIR.a.flip(0), PAIR.b, PAIR.where_a, PAIR.where_b, PAIR.source)
    assert len(m(PAIR).trace["keys"]) == 12 and torch.equal(m(PAIR).trace["keys"], m(other).trace["keys"])
    assert (m.ema, m.symmetric, build(MoCo).symmetric) == (0.999, False, True)


def test_a_resumed_queue_is_the_same_queue():
    def steps(m, optimiser, first, last):
        for i in range(first, last):
            step = m(two_views(TILES, 48, seed=0, epoch=i))
            optimiser.zero_grad()
            step.loss.backward()
            optimiser.step()
            m.after_step()

    fresh = lambda: (lambda m: (m, torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], 1e-3)))(
        build(MoCo, queue=50)
    )
    (whole, o), (half, h), (again, g) = fresh(), fresh(), fresh()
    steps(whole, o, 0, 4)
    steps(half, h, 0, 2)
    again.load_state_dict(copy.deepcopy(half.state_dict()))
    g.load_state_dict(copy.deepcopy(h.state_dict()))
    steps(again, g, 2, 4)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))
    assert "queue" in whole.state_dict()


# self-distillation ------------------------------------------------------------------------------------------


def test_byol_is_the_siamese_parent_of_ssccl():
    parent = build(BYOL, head_norm=False, dim=32)
    child = build(SSCCL, objective="siamese", head_norm=False, lam=0.0, dim=32)
    for part in ("encoder", "head", "predict"):
        getattr(child, part).load_state_dict(getattr(parent, part).state_dict())
    child.target.encoder.load_state_dict(parent.encoder.state_dict())
    child.target.head.load_state_dict(parent.head.state_dict())
    torch.testing.assert_close(parent(PAIR).loss, child(PAIR).loss)
    for m in (parent, child):
        m.encoder.conv1.weight.data += 1
        m.after_step(At(progress=0.3))
    torch.testing.assert_close(parent.slow[0].conv1.weight, child.target.encoder.conv1.weight)


def test_copies_that_copy_and_copies_that_stay():
    m = build(BYOL, ema=0.0)
    m.encoder.conv1.weight.data += 1
    m.after_step(At(progress=0.0))
    torch.testing.assert_close(m.slow[0].conv1.weight, m.encoder.conv1.weight)
    m.encoder.conv1.weight.data += 1
    m.after_step(At(progress=1.0))
    torch.testing.assert_close(m.slow[0].conv1.weight + 1, m.encoder.conv1.weight)
    assert rising_momentum(0.99, 0.5) == pytest.approx(0.995)
    with pytest.raises(ValueError):
        move_towards(slow_copy(m.encoder), (m.encoder, m.head), 0.9)  # a module the copy was not made from


def test_targets_get_no_gradient_and_perfect_agreement_costs_minus_one():
    m = build(SimSiam)
    m.predict = torch.nn.Identity()
    twin = Pair(PAIR.a, PAIR.a, PAIR.where_a, PAIR.where_a, PAIR.source)
    assert abs(m.eval()(twin).loss + 1) < 1e-5
    z = torch.randn(4, 8, requires_grad=True)
    assert not m.targets(None, z).requires_grad


# clustering -------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(2, 12), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_codes_are_shares(n, k, seed):
    q = sinkhorn(rows(n, k, seed=seed).detach().tanh(), 0.1, 60)
    torch.testing.assert_close(q.sum(1), torch.ones(n))
    torch.testing.assert_close(q.sum(0), torch.full((k,), n / k), rtol=0.02, atol=0.02)


def test_scores_of_any_size_are_finite():
    assert sinkhorn(1e4 * rows(6, 5).detach(), 1.0).isfinite().all()


# dense ------------------------------------------------------------------------------------------------------


def test_densecl_without_its_branch_is_moco():
    for options in ({}, dict(symmetric=False)):
        d, m = build(DenseCL, lam=0.0, queue=32, **options), build(MoCo, queue=32, **options)
        assert torch.equal(d(PAIR).loss, m(PAIR).loss)
        d.after_step(), m.after_step()
        assert torch.equal(d.queue, m.queue) and torch.equal(d.slow[0].conv1.weight, m.slow[0].conv1.weight)


def test_matches_are_the_nearest_by_hand():
    ours, theirs = rows(2, 5, 4).detach(), rows(2, 7, 4, seed=1).detach()
    want = [
        [
            max(range(7), key=lambda j: torch.cosine_similarity(ours[b, i], theirs[b, j], dim=0))
            for i in range(5)
        ]
        for b in range(2)
    ]
    assert most_alike(ours, theirs).tolist() == want
    assert torch.equal(taken(theirs, most_alike(ours, theirs))[1, 3], theirs[1, want[1][3]])


def test_the_dense_key_of_an_image_is_its_mean_cell():
    m = build(DenseCL, queue=40, grid=3).eval()
    m(PAIR)
    with torch.no_grad():
        maps = m.slow[2](m.slow[0](PAIR.b).dense)
    key = unit(torch.nn.functional.adaptive_avg_pool2d(maps, 3).mean((2, 3)))
    m.after_step()
    torch.testing.assert_close(
        m.queue_dense[-24:-12], key, rtol=1e-4, atol=1e-5
    )  # both views answer: b's keys, then a's


def test_neighbours_turn_with_the_views():
    near = neighbours(PAIR, (6, 6))
    assert torch.equal(neighbours(PAIR.swap(), (6, 6)), near.mT)
    boxes = torch.tensor([[4.0, 4, 40, 44]])
    plain, turned = (
        view_affine(boxes, 48),
        view_affine(boxes, 48, flip=torch.tensor([True]), turns=torch.tensor([1])),
    )
    still = neighbours(Pair(PAIR.a[:1], PAIR.b[:1], plain, turned, (48, 48)), (6, 6), 0.1)[0]
    assert (
        (still.sum(0) == 1).all() and (still.sum(1) == 1).all() and not torch.equal(still, torch.eye(36) > 0)
    )


def test_pixpro_by_hand():
    m, x = (
        build(PixPro, dim=6),
        rows(1, 6, 2, 2).detach(),
    )  # random maps: half of the cosines are negative, and count nothing
    c, v = cells(x)[0], F.normalize(cells(m.transform(x))[0], dim=1)
    cos = lambda i, j: torch.cosine_similarity(c[i], c[j], dim=0).item()
    assert min(cos(i, j) for i in range(4) for j in range(4)) < -0.1
    want = [sum(max(cos(i, j), 0) ** 2 * v[j] for j in range(4)) for i in range(4)]
    torch.testing.assert_close(propagate(x, m.transform)[0], torch.stack(want), rtol=1e-4, atol=1e-5)


# inpainting -------------------------------------------------------------------------------------------------


def test_nothing_under_a_hole_reaches_the_encoder():
    m, at = build(Inpainting).eval(), lambda: At(generator=torch.Generator().manual_seed(3))
    first = m(PAIR, at())
    hole = first.trace["hole"]
    noise = [torch.where(h, torch.randn_like(v), v) for h, v in zip(hole.chunk(2), (PAIR.a, PAIR.b))]
    again = m(Pair(*noise, PAIR.where_a, PAIR.where_b, PAIR.source), at())
    assert torch.equal(first.trace["painted"], again.trace["painted"]) and first.loss != again.loss
    assert 0.15 < hole.float().mean() < 0.35


def test_holes_fit_views_of_any_size():
    assert holes(torch.rand(3, 8, 8), 0.5, (45, 61)).shape == (3, 1, 45, 61)


# all --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module, methods",
    [(byol, 2), (moco, 1), (redundancy, 2), (swav, 1), (dense, 2), (inpainting, 1), (combined, 1)],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_a_method_is_short(module, methods):
    lines = [
        line
        for line in inspect.getsource(module).splitlines()
        if line.strip() and not line.startswith(("#", "from", "import", "__all__"))
    ]
    assert len(lines) <= 90 * methods, len(lines)


@pytest.mark.parametrize(
    "cls, options, words",
    [
        (MoCo, dict(queue=0), "queue 0 holds no key"),
        (MoCo, dict(tau=0), "tau 0 is not a temperature"),
        (SwAV, dict(prototypes=1), "prototypes 1"),
        (SwAV, dict(eps=0.0), "eps 0.0"),
        (DenseCL, dict(lam=1.5), "lam 1.5 is not a share"),
        (Inpainting, dict(share=0), "share 0 of 8 x 8"),
    ],
)
def test_wrong_options_are_named(cls, options, words):
    with pytest.raises(ValueError, match=words):
        build(cls, **options)


def test_products_in_losses_stay_float32_under_autocast():
    a, b = rows(8, 4), rows(8, 4, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert redundancy.cross_correlation(a, b).dtype == torch.float32
        assert {v.dtype for v in redundancy.variance_covariance(a)} == {torch.float32}
        assert build(SwAV)(PAIR).trace["codes_a"].dtype == torch.float32


@pytest.mark.parametrize(
    "make", [SSCCL, lambda e, **o: SSCCL(e, objective="siamese", **o), combined.Combined]
)
def test_a_head_whose_branch_is_off_is_not_trained(make):
    "Else processes wait for a gradient of it that never comes."
    method = build(make, lam=0.0)
    method(PAIR).loss.backward()
    lacking = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []
    assert all(p.requires_grad for p in build(make).dense.parameters())
