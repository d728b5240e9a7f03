"""FALSE's loss, forward and backward at 512 rows: against the released loop over rows, and against plain
InfoNCE.
"""

import sys

import torch
from measure import Sides, growth, main, question

from rsssl_nb.methods.false import false_nce
from rsssl_nb.objectives.nce import nce
from rsssl_nb.objectives.suspects import SENTINEL

TAU, GATE = 0.5, 0.9


def views(n, device="cpu", d=128):
    "Embeddings of two views (n, d): alike enough that FALSE's gate opens."
    g = torch.Generator().manual_seed(0)
    a = torch.randn(n, d, generator=g)
    return [v.to(device).requires_grad_() for v in (a, a + 0.3 * torch.randn(n, d, generator=g))]


def by_rows(a, b, alpha, select):
    """The loss a row at a time (methods.md 3.3): gaps of the exponentials, the closest negatives, alpha of
    them moved to the positives.
    """
    z = torch.nn.functional.normalize(torch.cat([a, b]))
    n, E = len(a), (z @ z.T / TAU).exp()
    rows, gaps = range(2 * n), torch.full_like(E, SENTINEL)
    for i in rows:
        p = (i + n) % (2 * n)
        gap = (E[i].detach() - E[i, p].detach()).abs()
        gap[[i, p]] = float("inf")
        later = slice(i + 1, None) if select == "official" else slice(None)
        gaps[i, later] = gap[later].where(
            gap[later].isfinite(),
            torch.tensor(SENTINEL if select == "official" else float("inf"), device=a.device),
        )
    losses = []
    for i in rows:
        p, least = (i + n) % (2 * n), gaps.min() if select == "official" else gaps[i].min()
        near = (gaps[i] == least) & (TAU * E[i, p].log() >= GATE)
        near[[i, p]] = False
        losses.append(-((E[i, p] + alpha * E[i][near].sum()) / (E[i].sum() - E[i, i])).log())
    return torch.stack(losses).mean()


def learn(loss, n, device):
    "A callable: the loss of n pairs and its gradient."
    a, b = views(n, device)

    def step():
        value = loss(a, b)
        return value.detach(), *torch.autograd.grad(value, (a, b))

    return step


def against_loop(select):
    def ask(at):
        n = at.pick(256, 8)
        ours, loop = (
            learn(lambda a, b: false_nce(a, b, TAU, 0.9, GATE, select), n, at.device),
            learn(lambda a, b: by_rows(a, b, 0.9, select), n, at.device),
        )
        for mine, theirs in zip(ours(), loop()):
            torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-3)
        return Sides(ours, loop, f"{2 * n} rows, rule {select}")

    return ask


for rule in ("official", "per_anchor"):
    for where, goal in (("cpu", ">= 5"), ("cuda", ">= 50")):
        question(f"FALSE loss forward+backward, 512 rows, {rule}, on {where}: loop over rows", goal, where)(
            against_loop(rule)
        )


@question("FALSE loss forward+backward, 512 rows: our InfoNCE", "<= 1.3")
def against_nce(at):
    n = at.pick(256, 8)
    sides = [
        learn(loss, n, at.device)
        for loss in (lambda a, b: false_nce(a, b, TAU, 0.9, GATE), lambda a, b: nce(a, b, TAU))
    ]
    off = learn(lambda a, b: false_nce(a, b, TAU, 0.0, GATE), n, at.device)
    for mine, theirs in zip(off(), sides[1]()):
        assert torch.equal(mine, theirs)
    return Sides(*sides, f"{2 * n} rows of 128, rule per_anchor; alpha 0 is InfoNCE to the bit")


@question("growth: FALSE loss, rows", "<= 1.15")
def rows(at):
    return growth(
        lambda n: learn(lambda a, b: false_nce(a, b, TAU, 0.9, GATE), n // 2, at.device),
        [256, 512, 1024, 2048],
        2,
        at,
    )


if __name__ == "__main__":
    sys.exit(main())
