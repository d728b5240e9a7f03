"InfoNCE's closed forms, and regions against their slow versions."

import math

import pytest
import torch

from rsssl_nb.objectives.nce import nce, weighted_nce
from rsssl_nb.objectives.regions import sample_points, window_mean
from rsssl_nb.objectives.similarity import cosine, negatives, partner, positives, stack


@pytest.mark.parametrize("n", [2, 4, 256])
def test_identical_embeddings(n):
    z = torch.ones(n, 8)
    assert abs(nce(z, z, 0.5).item() - math.log(2 * n - 1)) < 1e-4
    assert abs(nce(z, z, 0.5, "decoupled").item() - math.log(2 * n - 2)) < 1e-4


def test_perfect_embeddings():
    z = torch.eye(4)
    assert (
        abs(nce(z, z, 0.5).item() - 0.594438) < 1e-6
        and abs(nce(z, z, 0.5, "decoupled").item() + 0.208241) < 1e-6
    )


def test_one_image():
    a, b = torch.randn(1, 4, requires_grad=True), torch.randn(1, 4)
    loss = nce(a, b, 0.5)
    loss.backward()
    assert loss.item() == 0 and (a.grad == 0).all() and nce(a, b, 0.5, reduction="none").shape == (2,)
    s = torch.cosine_similarity(a, b).item()
    assert abs(nce(a, b, 0.5, "decoupled").item() - (-s / 0.5 + math.log(1e-8))) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.01, 0.07, 0.5])
def test_any_type_and_temperature_is_finite_and_float32(dtype, tau):
    z = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    for kind in ("standard", "decoupled"):
        loss = nce(z, -z, tau, kind)
        assert loss.dtype == torch.float32 and loss.isfinite()
    assert nce(torch.zeros(3, 4, dtype=dtype), torch.zeros(3, 4, dtype=dtype), tau).isfinite()


def test_equals_cross_entropy():
    a, b = (torch.randn(7, 5, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    s = cosine(stack(a, b)) / 0.3
    s.fill_diagonal_(float("-inf"))
    told = torch.nn.functional.cross_entropy(s, partner(7), reduction="none")
    assert torch.allclose(nce(a, b, 0.3, reduction="none"), told, atol=1e-5)
    assert torch.allclose(nce(a, b, 0.3), told.mean(), atol=1e-5)
    assert torch.allclose(told, torch.nn.functional.softplus(nce(a, b, 0.3, "decoupled", "none")), atol=1e-4)


def test_weights_and_refusals():
    s = cosine(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(
        weighted_nce(s, positives(4), negatives(4), 0.5),
        weighted_nce(s, positives(4).float(), negatives(4).float(), 0.5),
        atol=1e-6,
    )
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="tau"):
            nce(torch.ones(2, 2), torch.ones(2, 2), bad)
    with pytest.raises(ValueError, match="choose standard"):
        nce(torch.ones(2, 2), torch.ones(2, 2), 0.5, "other")
    with pytest.raises(ValueError, match="same shape"):
        nce(torch.ones(2, 2), torch.ones(3, 2), 0.5)


def test_gradient_is_right():
    a = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    b = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (g,) = torch.autograd.grad(nce(a, b, 0.5), a)
    step = torch.zeros_like(a)
    step[1, 2] = 1e-2
    assert abs(float((nce(a + step, b, 0.5) - nce(a - step, b, 0.5)).detach() / 2e-2) - g[1, 2].item()) < 1e-3


def test_regions():
    f = torch.randn(3, 4, 9, 12, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[0, 0, 12, 9], [2, 1, 7, 9]]]).expand(3, 2, 4)
    assert torch.allclose(window_mean(f, boxes)[1, 1], f[1, :, 1:9, 2:7].mean((1, 2)), atol=1e-5)
    with pytest.raises(ValueError, match="leaves the map"):
        window_mean(f, boxes + 1)
    centres = torch.tensor([[[(5 + 0.5) * 64 / 12, (3 + 0.5) * 64 / 9]]]).expand(3, 1, 2)
    assert torch.allclose(sample_points(f, centres, 64)[:, 0], f[:, :, 3, 5], atol=1e-4)


def test_a_row_without_weight_has_no_gradient():
    """Two rows, one without a positive or a negative: -inf in words, zero in gradient, for bool and for float
    weights.
    """
    from rsssl_nb.objectives.nce import log_total

    for weights in (torch.tensor([[True, True], [False, False]]), torch.tensor([[1.0, 0.5], [0.0, 0.0]])):
        sim = torch.randn(2, 2, requires_grad=True)
        total = log_total(sim, weights, 0.5)
        torch.where(total.isfinite(), total, 0).sum().backward()
        assert (
            total[1] == float("-inf")
            and sim.grad.isfinite().all()
            and (sim.grad[1] == 0).all()
            and sim.grad[0].abs().sum() > 0
        )
