"""Placebos keep the amount and lose the finding; oracles find with labels.

The combination reduces to its parts.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.combined import Combined
from rsssl_nb.methods.false import FALSE
from rsssl_nb.methods.glcnet import GLCNet
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.placebos import (
    FALSEOracle,
    FALSERandom,
    GLCNetUnmatched,
    GraSSOracle,
    GraSSRandom,
    Labelled,
    SSCCLShuffled,
    anywhere,
    dominant,
    instead,
    mixture,
    purest,
)
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.methods.ssccl import SSCCL
from rsssl_nb.objectives.similarity import negatives
from rsssl_nb.training.practice import practice
from rsssl_nb.views.geometry import transform_points
from rsssl_nb.views.pairs import Pair, two_views

IMAGES, LABELS = make_tiles(16, 64, seed=1)
TILES, LABELS = standardise(IMAGES), torch.as_tensor(LABELS)
PAIR = two_views(TILES, 64, seed=0, min_iou=0.1)


def build(cls, seed=0, **options):
    torch.manual_seed(seed)
    return cls(Encoder(bands=4, width=8), **options)


def at(seed=5, **k):
    return At(progress=0.9, epoch=9, generator=torch.Generator().manual_seed(seed), **k)


# GraSS ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_a_box_anywhere_stays_inside_and_keeps_its_sides(w, h, seed):
    u = torch.rand(50, 2, generator=torch.Generator().manual_seed(seed))
    box = torch.tensor([[0, 0, w, h]]).expand(50, 4)
    found = anywhere(box, (9, 12), u)
    assert (found[:, :2] >= 0).all() and (found[:, 2] <= 12).all() and (found[:, 3] <= 9).all()
    assert torch.equal(found[:, 2:] - found[:, :2], box[:, 2:] - box[:, :2])


def test_every_place_is_equally_likely():
    x = anywhere(
        torch.tensor([[0, 0, 3, 9]]).expand(6000, 4),
        (9, 8),
        torch.rand(6000, 2, generator=torch.Generator().manual_seed(0)),
    )[:, 0]
    assert (x.bincount(minlength=6).float() / 6000 - 1 / 6).abs().max() < 0.02


def test_random_boxes_have_the_sizes_of_grass_and_other_places():
    real, blind = (build(cls, warmup=0.0)(PAIR, at()).trace["boxes"] for cls in (GraSS, GraSSRandom))
    side = lambda b: b[:, 2:] - b[:, :2]
    assert torch.equal(side(real), side(blind)) and (real != blind).any(1).float().mean() > 0.5
    assert not torch.equal(build(GraSSRandom, warmup=0.0)(PAIR, at(6)).trace["boxes"], blind)


def test_a_shared_random_box_is_one_place_in_both_views():
    t = build(GraSSRandom, warmup=0.0, which_views="shared")(PAIR, at()).trace
    apart = build(GraSSRandom, warmup=0.0)(PAIR, at()).trace
    assert t["box_iou"].mean() > apart["box_iou"].mean() + 0.1


# FALSE ------------------------------------------------------------------------------------------------------


@given(st.integers(2, 9), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_as_many_instead(n, seed):
    g = torch.Generator().manual_seed(seed)
    neg, found = negatives(n), torch.rand(2 * n, 2 * n, generator=g) < 0.4
    drawn = instead(found & neg, neg, At(generator=g))
    assert not (drawn & ~neg).any() and torch.equal(drawn.sum(1), (found & neg).sum(1))
    few = neg & (torch.rand(2 * n, 2 * n, generator=g) < 0.2)
    assert torch.equal(
        instead(found & neg, few, At(generator=g)).sum(1), torch.minimum((found & neg).sum(1), few.sum(1))
    )


@pytest.mark.parametrize("select", ["per_anchor", "threshold", "official_fixed"])
def test_random_suspects_are_as_many_a_row(select):
    real, blind = (
        build(cls, gate=0.5, gate_warmup=0.0, select=select)(PAIR, at()).trace["suspects"]
        for cls in (FALSE, FALSERandom)
    )
    assert (
        torch.equal(real.sum(1), blind.sum(1))
        and not (blind & ~negatives(16)).any()
        and not torch.equal(real, blind)
    )


def test_the_released_rule_has_a_placebo_too():
    m = build(FALSERandom.official)
    assert (
        isinstance(m, FALSERandom)
        and m.suspects.alpha == 1
        and m.suspects.select == "official"
        and m.single_process
    )


# GLCNet and SSCCL -------------------------------------------------------------------------------------------


def test_unmatched_windows_look_like_matched_ones_in_each_view():
    real, blind = (build(cls) for cls in (GLCNet, GLCNetUnmatched))
    a, b, valid = real.windows.match(PAIR, 14, at())
    c, d, both = blind.windows.match(PAIR, 14, at())
    again = at()
    first, second = (real.windows.match(PAIR, 14, again) for _ in range(2))
    assert torch.equal(c, a) and torch.equal(d, second[1]) and torch.equal(both, first[2] & second[2])
    ground = lambda p, q, ok: (
        (transform_points(PAIR.where_a, p) - transform_points(PAIR.where_b, q)).norm(dim=-1)[ok].mean()
    )
    assert ground(a, b, valid) < 1e-3 and ground(c, d, both) > 4


def test_shuffled_points_are_the_same_points():
    real, blind = (build(cls)(PAIR, at()).trace for cls in (SSCCL, SSCCLShuffled))
    assert torch.equal(real["points_a"], blind["points_a"]) and not torch.equal(
        real["points_b"], blind["points_b"]
    )
    order = lambda p: [sorted(map(tuple, row)) for row in p.tolist()]
    assert order(real["points_b"]) == order(blind["points_b"])


@pytest.mark.parametrize(
    "cls, parent, options",
    [
        (GraSSRandom, SimCLR, dict(warmup=1.0)),
        (FALSERandom, SimCLR, dict(alpha=0.0)),
        (FALSERandom, SimCLR, dict(gate=1.01)),
    ],
)
def test_switched_off_a_placebo_is_its_parent(cls, parent, options):
    assert torch.equal(build(cls, **options)(PAIR, at()).loss, build(parent)(PAIR, at()).loss)


# oracles ----------------------------------------------------------------------------------------------------


def test_labels_are_cut_as_the_views_are():
    ramp = torch.arange(64).expand(16, 64, 64)  # label = column of the source
    m = build(GraSSOracle)
    m.labels = ramp
    seen = m.seen(PAIR)
    middle = transform_points(PAIR.where_b, torch.tensor([[[20.5, 40.5]]]).expand(16, 1, 2))[:, 0, 0]
    assert ((seen[16:, 40, 20] + 0.5 - middle).abs() <= 0.5 + 1e-3).all() and seen.shape == (32, 64, 64)


@pytest.mark.parametrize("cls", [GraSSOracle, FALSEOracle])
@pytest.mark.parametrize("labels", [None, LABELS[:3], LABELS[:, :32]])
def test_an_oracle_without_its_labels_says_so(cls, labels):
    m = build(cls, **({"warmup": 0.0} if cls is GraSSOracle else {}))
    m.labels = labels
    with pytest.raises(ValueError, match=r"is an oracle: set its labels to \(16, 64, 64\)"):
        m(PAIR, at())


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_the_purest_place_is_the_purest(w, h, seed):
    labels = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(seed))

    def entropy(box):
        p = labels[k, box[1] : box[3], box[0] : box[2]].flatten().bincount() / (w * h)
        return -torch.xlogy(p, p).sum().item()

    found = purest(labels, torch.tensor([[0, 0, w, h]] * 2))
    for k in range(2):
        assert (
            entropy(found[k])
            <= min(entropy((x, y, x + w, y + h)) for x in range(9 - w) for y in range(9 - h)) + 1e-4
        )
    assert torch.equal(found[:, 2:] - found[:, :2], torch.tensor([[w, h]] * 2))


def test_unknown_ground_is_not_pure():
    labels = torch.full((1, 6, 6), 255)
    labels[0, :, 4:] = torch.tensor([0, 1])
    assert (
        purest(labels, torch.tensor([[0, 0, 2, 2]]))[0, 0] == 4
        and mixture(labels, *torch.tensor([[6], [6]])).isfinite().sum() == 1
    )
    assert dominant(labels).item() == 0


def test_the_grass_oracle_cuts_purer_ground_of_the_same_size():
    teller = build(GraSSOracle, warmup=0.0)
    teller.labels = LABELS
    told, real = teller(PAIR, at()).trace["boxes"], build(GraSS, warmup=0.0)(PAIR, at()).trace["boxes"]
    side = real[:, 2:] - real[:, :2]
    cost = lambda b: mixture(teller.seen(PAIR), *side.T)[torch.arange(32), b[:, 1], b[:, 0]]
    assert (
        torch.equal(told[:, 2:] - told[:, :2], side)
        and (cost(told) <= cost(real) + 1e-4).all()
        and cost(told).mean() < cost(real).mean() - 0.01
    )


def test_the_false_oracle_names_true_ones_only():
    m, rule = build(FALSEOracle, gate=0.5, gate_warmup=0.0), build(FALSE, gate=0.5, gate_warmup=0.0)
    m.labels = LABELS
    found, c = m(PAIR, at()).trace["suspects"], dominant(m.seen(PAIR))
    same = negatives(16) & (c[:, None] == c)
    assert found.any() and not (found & ~same).any()
    assert torch.equal(found.sum(1), torch.minimum(rule(PAIR, at()).trace["suspects"].sum(1), same.sum(1)))
    m.every = True
    assert torch.equal(m(PAIR, at()).trace["suspects"], same)


def test_nobody_is_suspected_on_unknown_ground():
    m = build(FALSEOracle, gate=-1.0, gate_warmup=0.0)
    m.every = True
    m.labels = torch.where(torch.arange(16)[:, None, None] < 5, 255, LABELS)
    found = m(PAIR, at()).trace["suspects"]
    blank = (torch.arange(32) % 16) < 5
    assert found[~blank].any() and not found[blank].any() and not found[:, blank].any()


@pytest.mark.parametrize("cls", [GraSSOracle, FALSEOracle])
def test_an_oracle_trains_in_the_practice_loop_and_keeps_no_label(cls):
    m = build(cls, **({"warmup": 0.0} if cls is GraSSOracle else {"gate_warmup": 0.0}))
    log = practice(m, Labelled(TILES, LABELS, m), epochs=2, batch=8, keep=(1,))
    assert len(log["loss"]) == 4 and torch.equal(m.labels, LABELS[log["traces"][1]["index"]])
    assert list(m.state_dict()) == list(build(GraSS if cls is GraSSOracle else FALSE).state_dict())


def test_the_false_oracle_gathers_its_classes():
    m = build(FALSEOracle, gate=0.5, gate_warmup=0.0, head="linear").eval()
    m.labels = LABELS
    whole = m(PAIR, at())
    c = dominant(m.seen(PAIR)).chunk(2)
    rest = iter([c[0][8:], c[1][8:], whole.trace["za"][8:], whole.trace["zb"][8:]])
    m.labels = LABELS[:8]
    half = m(PAIR[:8], at(gather=lambda t: torch.cat([t, next(rest)]), world=2))
    torch.testing.assert_close(half.loss, whole.loss)


# the combination --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "off, cls, options",
    [
        (dict(warmup=1.0, alpha=0.0, lam=0.0), SimCLR, {}),
        (dict(warmup=0.0, alpha=0.0, lam=0.0), GraSS, dict(warmup=0.0)),
        (dict(warmup=1.0, lam=0.0, gate=0.5), FALSE, dict(gate=0.5)),
        (dict(warmup=1.0, alpha=0.0, grid=5), SSCCL, dict(head_norm=False, tau=0.5, grid=5)),
    ],
    ids=["simclr", "grass", "false", "ssccl"],
)
def test_the_combination_reduces_to_its_parts(off, cls, options):
    ours, theirs = build(Combined, **off), build(cls, **options)
    a, b = ours(PAIR, at()), theirs(PAIR, at())
    assert torch.equal(a.loss, b.loss)
    a.loss.backward(), b.loss.backward()
    torch.testing.assert_close(ours.encoder.conv1.weight.grad, theirs.encoder.conv1.weight.grad)
    assert ours.min_iou == getattr(theirs, "min_iou", 0.0)


def test_all_three_are_on_at_once():
    step = build(Combined, warmup=0.0, gate=0.5, gate_warmup=0.0)(PAIR, at())
    assert (
        {"heat", "boxes", "suspects", "points_a", "ok"} <= set(step.trace)
        and step.trace["suspected"] > 0
        and step.parts["consistency"] > 0
    )
    for off in (dict(warmup=1.0), dict(alpha=0.0), dict(lam=0.0)):
        assert not torch.equal(
            build(Combined, **{**dict(warmup=0.0, gate=0.5, gate_warmup=0.0), **off})(PAIR, at()).loss,
            step.loss,
        )


def test_the_overlap_is_that_of_the_cut_views():
    t = build(Combined, warmup=0.0)(PAIR, at()).trace
    cut = Pair(t["a"], t["b"], t["where_a"], t["where_b"], PAIR.source)
    from rsssl_nb.views.pairs import overlap_iou

    torch.testing.assert_close(t["iou"], overlap_iou(cut))
    here = transform_points(t["where_a"], t["points_a"]) - transform_points(t["where_b"], t["points_b"])
    assert here[t["ok"]].abs().max() < 1e-2
