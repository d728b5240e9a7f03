"""Golden values: the package computes what it computed before it was rebuilt (golden/make.py)."""

import math

import pytest
import torch
from golden import make

KEPT = make.read(make.VALUES, make.WORDS)
# The first whose words are all in the key; the rest is held to 1e-6. Gradients, and what follows an update by
# them, differ between makes of processors by this much in their small entries; losses and traces do not.
TOLERANCES = (
    (("methods/", "/grads"), 5e-2),
    (("methods/", "/trace/"), 5e-5),
    (("methods/", "embedded"), 4e-2),
    (("methods/", "second/"), 5e-3),
    (("views/pairs",), 2e-5),
    (("methods/practice",), 1e-4),
    (("checkpoints/",), 5e-5),
    (("explain/",), 1e-2),  # differences of losses in single precision
    (("probes/",), 3e-3),  # a share of pixels: one may change its class
    (("training/glcnet",), 2e-3),  # after three updates; the first losses agree, AdamW magnifies what follows
    (("training/",), 1e-4),
)


def tolerance(key):
    return next((tol for words, tol in TOLERANCES if all(w in key for w in words)), 1e-6)


def near(got, want, tol, floor=1e-3):
    """Whether two tensors agree: integers exactly, uint8 in 99 of 100, floats by `tol` of their row's size.

    A row counts as at least `floor` of the largest: 1 measures every row by the largest.
    """
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    if got.dtype == torch.uint8:
        return float((got != want).double().mean()) <= 0.01
    if not got.is_floating_point():
        return torch.equal(got, want)
    if not torch.equal(got.isnan(), want.isnan()):
        return False
    got, want = got.double().nan_to_num(0.0), want.double().nan_to_num(0.0)
    if not want.numel():
        return True
    size = want.abs().amax(-1, keepdim=True) if want.ndim else 1 + want.abs()
    size = size.clamp(min=floor * float(size.max()) + 1e-9)
    return bool(((got - want).abs() <= tol * size).all())


def same(got, want, tol, floor=1e-3):
    """Whether two values agree: numbers to a tolerance, lists and dicts part by part, words exactly."""
    if torch.is_tensor(want):
        return torch.is_tensor(got) and near(got, want, tol, floor)
    if isinstance(want, float) and not isinstance(got, (bool, str)):
        return math.isclose(got, want, rel_tol=tol, abs_tol=tol) or (math.isnan(got) and math.isnan(want))
    if isinstance(want, list):
        return len(got) == len(want) and all(same(g, w, tol) for g, w in zip(got, want))
    if isinstance(want, dict):
        return got.keys() == want.keys() and all(same(got[k], want[k], tol) for k in want)
    return got == want


def told(value):
    return str(value)[:300]


def of(values, name):
    return {k: v for k, v in values.items() if k.startswith(f"{name}/")}


@pytest.mark.parametrize("name", make.GOLDEN)
def test_golden(name):
    found = make.shortened(make.compute([name])[0])
    got, want = of(found, name), of(KEPT, name)
    assert want and got.keys() == want.keys(), got.keys() ^ want.keys()
    wrong = [k for k in want if not same(got[k], want[k], tolerance(k), 1.0 if "all_weights" in k else 1e-3)]
    assert not wrong, "\n".join(f"{k}: got {told(got[k])}, wanted {told(want[k])}" for k in wrong[:5])


def test_resumed_runs_end_on_the_same_bytes():
    resumed = {k: v for k, v in KEPT.items() if k.endswith("same bytes")}
    assert len(resumed) == 12 and all(resumed.values())


def test_every_method_and_nothing_else_is_kept():
    assert {f"methods/{name}/default" for name in make.known_methods()} <= set(make.GOLDEN)
    assert not [k for k in KEPT if not k.startswith(tuple(f"{n}/" for n in make.GOLDEN))]


def test_a_difference_is_seen():
    want = torch.tensor([[1.0, 2.0], [1e-5, 1.0]])
    assert (
        near(want, want, 1e-6) and not near(want + 1e-5, want, 1e-6) and not near(want.double(), want, 1e-6)
    )
    assert not near(torch.tensor([1, 2]), torch.tensor([1, 3]), 1.0) and not same([1.0], [1.0, 2.0], 1e-6)
    found, kept = {"a": want, "b": 1.5, "c": [1]}, {"a": want.clone(), "b": 1.5, "c": [1]}
    assert make.differences_in_bits(found, kept) == []
    kept["a"][0, 0] += 1e-6
    kept |= {"b": 1.50001, "c": [2]}
    assert len(make.differences_in_bits(found, kept)) == 3
