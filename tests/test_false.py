"FALSE against the released rule restated as loops in float64, and the oracles of its specification."

import math

import pytest
import torch

from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.false import FALSE, false_nce, suspects
from rsssl_nb.objectives.nce import nce
from rsssl_nb.objectives.similarity import cosine, stack
from rsssl_nb.views.pairs import Pair


def arrows(*degrees):
    t = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([t.cos(), t.sin()], 1)


def released(a, b, tau, alpha, gate, sentinel=3.0, both=False):
    "The released rule, entry by entry; `both` triangles and an infinite sentinel give the mended one."
    z = torch.cat([a, b]).double()
    z = z / z.norm(dim=1, keepdim=True)
    n, M, s = len(a), 2 * len(a), z @ z.T
    E = (s / tau).exp().tolist()
    p = [(i + n) % M for i in range(M)]
    D = {
        (i, j): abs(E[i][j] - E[i][p[i]]) if (j > i or both) and j not in (i, p[i]) else sentinel
        for i in range(M)
        for j in range(M)
    }
    least, total = min(D.values()), 0.0
    for i in range(M):
        F = [j for j in range(M) if D[i, j] <= least + 1e-9 and j not in (i, p[i]) and s[i, p[i]] >= gate]
        total -= math.log(
            (E[i][p[i]] + alpha * sum(E[i][j] for j in F)) / sum(E[i][j] for j in range(M) if j != i)
        )
    return total / M


TOY = arrows(0, 10, 120), arrows(5, 14, 125)


@pytest.mark.parametrize(
    "alpha, told", [(0, 0.818904608), (0.5, 0.751479101), (0.9, 0.712145018), (1, 0.703608147)]
)
def test_toy_batch(alpha, told):
    assert abs(false_nce(*TOY, 0.5, alpha, 0.9, "official").item() - told) < 1e-6


def test_toy_batch_of_the_other_rules():
    assert abs(false_nce(*TOY, 0.5, 0.5, 0.9, "per_anchor").item() - 0.539210282) < 1e-6
    assert abs(false_nce(*TOY, 0.5, 1, 0.9, "per_anchor").item() - 0.337206929) < 1e-6
    assert abs(false_nce(*TOY, 0.5, 1, 0.9, "official_fixed").item() - 0.703380078) < 1e-6


def test_sentinel_leak():
    pair = arrows(0, 80), arrows(2, 84)
    assert abs(nce(*pair, 0.5).item() - 0.316337351) < 1e-6
    assert abs(false_nce(*pair, 0.5, 1, 0.9, "official").item() - 0.151117015) < 1e-6
    assert abs(false_nce(*pair, 0.5, 1, 0.9, "official_fixed").item() - 0.269485542) < 1e-6
    assert set(map(tuple, suspects(cosine(stack(*pair)), 0.5, 0.9, "official").nonzero().tolist())) == {
        (1, 0),
        (2, 1),
        (3, 0),
        (3, 2),
    }


def test_permutation_changes_the_released_rule_only():
    a, b = arrows(37, 34, 53), arrows(32, 44, 57)
    order = [1, 0, 2]
    assert abs(false_nce(a, b, 0.5, 1, 0.9, "official").item() - 1.444833839) < 1e-6
    assert abs(false_nce(a[order], b[order], 0.5, 1, 0.9, "official").item() - 1.445847121) < 1e-6
    for rule in ("official_fixed", "per_anchor", "threshold"):
        assert (
            abs(false_nce(a, b, 0.5, 1, 0.9, rule) - false_nce(a[order], b[order], 0.5, 1, 0.9, rule)) < 1e-6
        )


def batches():
    "Random, clustered, duplicated and tiny batches."
    g = torch.Generator().manual_seed(0)
    for n, d, noise in ((2, 3, 0.05), (3, 4, 0.3), (8, 8, 0.1), (16, 8, 0.02), (16, 2, 0.3), (24, 16, 0.6)):
        a = torch.randn(n, d, generator=g)
        yield a, a + noise * torch.randn(n, d, generator=g)
    centres = torch.randn(3, 6, generator=g)
    a = centres[torch.arange(12) % 3] + 0.05 * torch.randn(12, 6, generator=g)
    yield a, a + 0.05 * torch.randn(12, 6, generator=g)
    yield a[[0, 0, 1, 2]], a[[0, 0, 1, 2]]


@pytest.mark.parametrize("k", range(8))
@pytest.mark.parametrize("gate", [-1, 0.5, 0.9])
def test_official_equals_the_loops(k, gate):
    a, b = list(batches())[k]
    for alpha in (0.3, 1):
        assert (
            abs(
                false_nce(a.double(), b.double(), 0.5, alpha, gate, "official").item()
                - released(a, b, 0.5, alpha, gate)
            )
            < 2e-6
        )
        assert (
            abs(
                false_nce(a, b, 0.5, alpha, gate, "official_fixed").item()
                - released(a, b, 0.5, alpha, gate, math.inf, True)
            )
            < 2e-6
        )


@pytest.mark.parametrize("select", ["per_anchor", "official", "official_fixed", "threshold"])
def test_switched_off_it_is_infonce_and_it_never_rises_with_alpha(select):
    g = torch.Generator().manual_seed(1)
    a = torch.randn(12, 6, generator=g, requires_grad=True)
    b = (a + 0.2 * torch.randn(12, 6, generator=g)).detach()
    for loss in (false_nce(a, b, 0.5, 0, 0.9, select), false_nce(a, b, 0.5, 0.7, 1.01, select)):
        assert torch.equal(loss, nce(a, b, 0.5))
        assert torch.equal(*(torch.autograd.grad(v, a, retain_graph=True)[0] for v in (loss, nce(a, b, 0.5))))
    values = [false_nce(a, b, 0.5, alpha, 0.5, select).item() for alpha in (0, 0.25, 0.5, 0.75, 1)]
    assert all(x >= y - 1e-7 for x, y in zip(values, values[1:]))


def test_ties_go_to_the_first_and_one_image_costs_nothing():
    a = torch.ones(3, 2)
    assert suspects(cosine(stack(a, a)), 0.5, 0.9).int().argmax(1).tolist() == [1, 0, 0, 1, 0, 0]
    assert false_nce(a[:1], a[:1], 0.5, 1, 0.9).item() == 0
    assert abs(false_nce(a, a, 0.5, 1, -1, "threshold").item()) < 1e-6  # the collapsed optimum


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite(dtype):
    a = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert (
        false_nce(a, a, 0.07, 1, 0.9).isfinite()
        and false_nce(torch.zeros(4, 4, dtype=dtype), torch.zeros(4, 4, dtype=dtype), 0.07, 1, 0.9).isfinite()
    )


def test_bad_values_are_named():
    for bad in (-0.1, 1.5):
        with pytest.raises(ValueError, match=str(bad)):
            false_nce(*TOY, 0.5, bad, 0.9)
        with pytest.raises(ValueError, match=str(bad)):
            FALSE(Encoder(width=16), alpha=bad)
    with pytest.raises(ValueError, match="tau 0"):
        false_nce(*TOY, 0, 0.5, 0.9)
    with pytest.raises(ValueError, match="nearest"):
        false_nce(*TOY, 0.5, 0.5, 0.9, "nearest")


def test_official_refuses_several_processes():
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32)
    where = torch.eye(2, 3).expand(4, 2, 3)
    with pytest.raises(ValueError, match="one process"):
        FALSE.official(Encoder(width=16))(
            Pair(images, images, where, where, (32, 32)), At(gather=lambda t: torch.cat([t, t]))
        )


def test_gate_warmup_is_counted_in_progress():
    torch.manual_seed(0)
    method, images = FALSE(Encoder(width=16), gate=-1, gate_warmup=0.5), torch.randn(4, 3, 32, 32)
    where = torch.eye(2, 3).expand(4, 2, 3)
    pair = Pair(images, images.flip(-1), where, where, (32, 32))
    assert method(pair, At(0.4)).trace["suspected"] == 0 and method(pair, At(0.6)).trace["suspected"] == 8
