"Page 99's seven promises: every method keeps them, and each of seven broken ones is found out."

import pytest
import torch
from test_methods import METHODS, PAIR, make

from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At, Step
from rsssl_nb.methods.contract import PROMISES, judge, verdict
from rsssl_nb.methods.simclr import SimCLR


def build(method):
    torch.manual_seed(0)
    return method(Encoder(bands=4, width=16))


class Worse(SimCLR):
    "SimCLR with something done to its step."

    def step(self, pair, at=At()):
        return self.spoil(super().step(pair, at), pair, at)


class KeepsGradient(Worse):
    def spoil(self, step, pair, at):
        return Step(step.loss, step.parts, {"za": step.loss[None]})


class Climbs(Worse):
    def spoil(self, step, pair, at):
        return Step(2 * step.loss.detach() - step.loss, step.parts, step.trace)


class Forgets(Worse):
    calls = 0

    def spoil(self, step, pair, at):
        self.calls += 1
        return Step(step.loss * self.calls, {"instance": step.loss.detach() * self.calls}, step.trace)


class DrawsFromEveryone(Worse):
    def spoil(self, step, pair, at):
        return torch.rand(1) and step


class Divides(Worse):
    def spoil(self, step, pair, at):
        return Step(step.loss / pair.a.std(), {"instance": step.loss.detach() / pair.a.std()}, step.trace)


class Alone(SimCLR):
    def contrast(self, za, zb, at):
        return super().contrast(za, zb, At())


class Overflows(Worse):
    def spoil(self, step, pair, at):
        wild = self.encoder(pair.a).pooled.sum() * 0 + float("nan") if torch.is_autocast_enabled("cpu") else 0
        return Step(step.loss + wild, {"instance": (step.loss + wild).detach()}, step.trace)


@pytest.mark.parametrize(
    "promise, method, says",
    list(
        zip(
            PROMISES,
            [KeepsGradient, Climbs, Forgets, DrawsFromEveryone, Divides, Alone, Overflows],
            [
                "detach ['za']",
                "after four updates",
                "outside state_dict",
                "global stream",
                "constant images",
                "gather the rows",
                "bfloat16",
            ],
        )
    ),
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_each_promise_finds_its_breaker(promise, method, says):
    assert says in verdict(promise, lambda: build(method), PAIR)
    assert verdict(promise, lambda: build(SimCLR), PAIR) == ""


def test_a_judge_never_raises():
    class Broken(SimCLR):
        def step(self, pair, at=At()):
            return 1 / 0

    assert all(
        "ZeroDivisionError" in said or "two halves" in said for said in judge(lambda: build(Broken)).values()
    )


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_every_promise(name):
    assert not any(judge(lambda: make(name), PAIR).values()), judge(lambda: make(name), PAIR)
