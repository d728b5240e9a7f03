"""The benchmarks run, in sizes that only prove it: both sides are built, compared and timed.

What is missing leaves a row with its reason.
"""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCH))
import measure  # noqa: E402
from campaign import campaign  # noqa: E402
from measure import Found, Question, Setting, Sides, Skip, answer, asked, growth, peak_bytes, slope  # noqa: E402

TINY = Setting(tiny=True)
SOME = {
    "imports": 1,
    "explorers": 1,
    "options": 1,
}  # the others of these scripts do the same with another name
SCRIPTS = (
    "views false_loss infonce grass glcnet ssccl step options windows maps explorers imports page_times"
).split()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_answers_its_questions(script):
    importlib.import_module(script)
    questions = asked(script)
    assert questions
    for q in questions[: SOME.get(script)]:
        row = answer(Question(q.title, q.goal, "any", q.ask), TINY)  # those for a GPU, too, on the processor
        assert row.keys() == {
            "question",
            "ours",
            "peer",
            "ratio",
            "goal",
            "met",
            "spread",
            "note",
            "commit",
            "date",
        }
        if row["met"] is None:
            assert row["note"].startswith("skipped: ") and (script, row["ratio"]) == (script, None)
        else:
            assert (
                row["peer"] > 0
                and row["ratio"] == row["ratio"]
                and (row["ours"] > 0 or q.title.startswith("growth"))
            )


def asking(ask, goal=">= 2", where="any"):
    return Question("one: two", goal, where, ask)


def counting(n):
    return lambda: sum(range(n))


def test_ratios_read_as_their_goals():
    assert answer(asking(lambda at: Sides(counting(100), counting(40_000))), TINY)["met"] is True
    assert answer(asking(lambda at: Sides(counting(40_000), counting(100))), TINY)["met"] is False
    assert answer(asking(lambda at: Sides(counting(100), counting(40_000)), "<= 1"), TINY)["met"] is True
    assert (
        answer(asking(lambda at: Found(1, 1, 1, limit="all its time goes into grid_sample")), TINY)["met"]
        == "limit"
    )
    assert (
        answer(asking(lambda at: Found(1, 3, 3, limit="all its time goes into grid_sample")), TINY)["met"]
        is True
    )


def test_what_is_missing_is_a_row_with_its_reason():
    def no_peer(at):
        import kornia_of_nobody  # noqa: F401

    def no_room(at):
        raise Skip("the whole table takes 9 GB and 2 GB are free")

    def no_memory(at):
        raise MemoryError

    def no_bytes(at):
        torch.empty(2**60)

    for ask, told in (
        (no_peer, "kornia_of_nobody is not installed"),
        (no_room, "9 GB"),
        (no_memory, "too little memory"),
        (no_bytes, "too little memory"),
    ):
        row = answer(asking(ask), TINY)
        assert (
            row["met"] is None
            and row["ratio"] is None
            and row["note"].startswith("skipped: ")
            and told in row["note"]
        )
    assert answer(asking(no_peer, where="cuda"), TINY)["note"] == "pending: no GPU here"


def test_sides_that_differ_are_an_error_and_no_row():
    def differ(at):
        torch.testing.assert_close(torch.zeros(2), torch.ones(2))

    with pytest.raises(AssertionError):
        answer(asking(differ), TINY)


def test_the_exit_code_says_what_was_measured(monkeypatch, tmp_path):
    def code(*questions):
        monkeypatch.setattr(measure, "asked", lambda module: questions)
        monkeypatch.setattr(
            sys, "argv", ["x", "--tiny", "--device", "cpu", "--rows", str(tmp_path / "rows.json")]
        )
        return measure.main()

    good, gone = asking(lambda at: Found(1, 3, 3)), asking(lambda at: 1, where="cuda")
    assert code(good) == 0 and code(good, gone) == 3
    assert [r["met"] for r in json.loads((tmp_path / "rows.json").read_text())] == [True, None]


def test_exponents_and_bytes():
    assert slope([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)
    assert growth(lambda n: counting(n), [20_000, 80_000], 1, TINY).note.startswith(
        "exponents, fitted and expected; 20000: "
    )
    assert (
        peak_bytes(lambda: torch.zeros(1000).add(1).mul(2), TINY) == 8000
    )  # the zeros and what is added; the rest lives later


def test_a_campaign_is_arithmetic_on_rows(monkeypatch):
    monkeypatch.setattr(
        "campaign.gpu_rows", lambda: {"nvidia-x": [dict(question="whole step, SimCLR, of a GPU", ours=0.64)]}
    )
    told = "\n".join(
        campaign([dict(question="window sampling from a GeoTIFF: bare rasterio loop", ours=2.0)])
    )
    assert (
        "= 100/s a core" in told
        and "8 GPUs: 10,000,000 x 100 / (8 x 2000/s) = 17 h" in told
        and "20.0 cores that read" in told
    )
    monkeypatch.setattr("campaign.gpu_rows", dict)
    assert "pending" in "\n".join(campaign([]))
