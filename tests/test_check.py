"check: what agrees, what does not, and that a verdict never raises for the answer's sake."

import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsssl_nb.check import assert_close, check, difference, own_copy, raises

numbers = st.floats(-1e6, 1e6)


@dataclass
class Record:
    loss: float
    parts: dict


@pytest.mark.parametrize(
    "got, want",
    [
        (0.6, np.float32(0.6)),
        (torch.tensor(0.5), 0.5),
        ([1, 2], torch.tensor([1.0, 2.0])),
        (True, np.bool_(True)),
        ((1, [2, 3]), (1, [2, 3])),
        ({"a": torch.ones(2)}, {"a": np.ones(2)}),
        (np.array([np.nan, np.inf]), torch.tensor([float("nan"), float("inf")])),
        (None, None),
        ("a", "a"),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2)),
        (torch.ones(2, requires_grad=True), torch.ones(2)),
        (Record(0.1, {"a": [1]}), Record(0.1, {"a": [1]})),
        (1 + 2j, 1 + 2j),
        ([], []),
        ({1, 2}, {2, 1}),
    ],
)
def test_same_answers_agree(got, want):
    assert difference(got, want) == ""


@pytest.mark.parametrize(
    "got, want, says",
    [
        (0.6, 0.61, "got 0.6, wanted 0.61"),
        (torch.full((3,), 0.6), 0.6, "shape (3,), wanted ()"),
        (np.inf, 1.0, "wanted 1"),
        (1.0, np.inf, "wanted inf"),
        (-np.inf, np.inf, "got -inf"),
        (np.nan, 0.0, "got nan"),
        (0.0, np.nan, "wanted nan"),
        ("a", "b", "wanted 'b'"),
        (None, 0.0, "got None"),
        (0.0, None, "wanted None"),
        ([1, 2], [1, 2, 3], "wanted 3"),
        ({"a": 1}, {"b": 1}, "['b']"),
        (torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "at [1, 1]"),
        ("3", 3, "got '3'"),
        (object(), 3.0, "object"),
        ({"x": (1, 2)}, {"x": (1, 3)}, "in 1 in 'x'"),
        (Record(0.1, {}), Record(0.2, {}), "in 'loss'"),
        (torch.tensor([True, False]), torch.tensor([True, True]), "wanted True at [1]"),
        (np.array(["a"]), np.array(["b"]), "wanted ['b']"),
    ],
)
def test_different_answers_say_where(got, want, says):
    assert says in difference(got, want)


@given(numbers, st.floats(1e-6, 1e-2))
def test_the_tolerance_is_absolute_near_zero_and_relative_far_away(want, tol):
    edge = tol * (1 + abs(want))
    assert difference(want + 0.9 * edge, want, tol) == "" and difference(want + 1.1 * edge, want, tol)


def test_verdicts():
    double = lambda x: 2 * x
    good, bad, lazy = (
        check(double, double, (3,), (torch.ones(2),)),
        check(lambda x: x + 2, double, (2,), (3,)),
        check(lambda x: None, double, (1,)),
    )
    assert (good.passed, bool(good), good.attempted, repr(good)) == (True, True, True, "✓ agrees on 2 cases")
    assert (bad.passed, bad.attempted, repr(bad)) == (False, True, "✗ for (3): got 5, wanted 6")
    assert (lazy.passed, lazy.attempted) == (False, False) and "not attempted" in repr(lazy)
    assert not check(lambda x: None if x else 0, double, (0,), (1,)).passed  # one answer is not all answers


@pytest.mark.parametrize(
    "error", [ValueError("odd"), TypeError("no"), ZeroDivisionError(), RecursionError("deep")]
)
def test_a_raising_answer_is_a_verdict_not_an_exception(error):
    def mine(x):
        raise error

    verdict = check(mine, abs, (1,))
    assert not verdict.passed and verdict.attempted and type(error).__name__ in repr(verdict)


@pytest.mark.parametrize("swallow", [(), Exception])
def test_an_endless_answer_is_a_verdict(swallow):
    def mine(x):
        while True:
            try:  # not contextlib.suppress: this is how an answer would swallow the interruption
                x = x + 1
            except swallow:
                continue

    verdict = check(mine, abs, (1,), (2,), seconds=0.1)
    assert not verdict.passed and verdict.attempted and "no answer within 0.1 s" in repr(verdict)


def test_the_clock_stops_with_the_answer():
    before = threading.active_count()
    assert check(abs, abs, (1,), seconds=0.05).passed
    time.sleep(0.1)  # nothing rings later
    assert threading.active_count() <= before  # threads of other tests may end meanwhile


def test_an_answer_that_leaves_is_a_verdict():
    assert "SystemExit" in repr(check(lambda x: exit(), abs, (1,)))


def test_wrong_number_of_arguments_is_a_verdict():
    assert "TypeError" in repr(check(lambda: 1, abs, (1,)))


def test_an_answer_that_is_expected_to_be_none_passes():
    assert check(lambda x: None, lambda x: None, (1,)).passed


def test_no_cases_is_the_page_writers_mistake():
    with pytest.raises(ValueError, match="0 cases"):
        check(abs, abs)


def test_a_mistake_in_the_reference_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        check(abs, lambda x: 1 / 0, (1,))


def test_arguments_are_copied_for_each_function():
    x, rows = torch.ones(3), [torch.zeros(2)]

    def spoil(x, rows):
        x.zero_()
        rows[0] += 1
        rows.append(0)
        return x.sum() + rows[0].sum()

    assert check(spoil, lambda x, rows: torch.tensor(2.0), (x, rows)).passed
    assert x.tolist() == [1, 1, 1] and len(rows) == 1 and rows[0].tolist() == [0, 0]


def test_copies_keep_gradients_and_random_state():
    assert own_copy(torch.ones(2, requires_grad=True)).requires_grad
    g = torch.Generator().manual_seed(5)
    draw = lambda g: torch.rand(3, generator=g)
    assert check(draw, draw, (g,)).passed and torch.equal(draw(own_copy(g)), draw(g))
    module = torch.nn.Linear(2, 2)
    assert own_copy(module) is not module and torch.equal(own_copy(module).weight, module.weight)
    lock = (i for i in range(3))
    assert own_copy(lock) is lock  # what cannot be copied is passed on


def test_raises():
    with raises(ValueError, "invalid literal"):
        int("x")
    with raises(ValueError, r"literal .* base 10"):
        int("x")
    with raises(ValueError, "(n,4"):
        raise ValueError("give (n,4) boxes")  # brackets as they are written
    with raises((KeyError, ValueError)):
        {}["a"]
    with pytest.raises(AssertionError, match="nothing raised; expected ValueError with 'x'"):
        with raises(ValueError, "x"):
            pass
    with pytest.raises(AssertionError, match="without 'cure'"):
        with raises(ValueError, "cure"):
            int("x")
    with pytest.raises(KeyError):
        with raises(ValueError):
            {}["a"]


def test_assert_close():
    assert_close(torch.tensor([0.1, 0.2]), [0.1, 0.2])
    assert_close(1e6, 1e6 + 0.5)
    with pytest.raises(AssertionError, match="got 1, wanted 2"):
        assert_close(1, 2)
    with pytest.raises(AssertionError):
        assert_close(1.0, 1.001)
    assert_close(1.0, 1.001, tol=1e-2)
