"Verdicts of made-up rows: three seeds, a judge that sees, a ceiling that passes; tables, figure, sentences."

import json
import math

import numpy as np
import pytest

from rsssl_nb.evaluation.judged import judge_power
from rsssl_nb.evaluation.verdicts import (
    CONTROLS,
    ceiling_verdict,
    control_sentence,
    control_verdicts,
    gap_interval,
    paired_gaps,
    power_table,
    read_judged,
    role_of,
    seed_verdict,
    seen_by,
    show_methods,
    value_interval,
    verdict_table,
    verdict_told,
)

FALSE_, GRASS = CONTROLS[:2]
SEES = dict(smallest=0.03, sees=True, gain=0.1)


def made(values, seeds=3, control=FALSE_, spread=0.002):
    "Rows of a control, each method at its value and `spread` more a seed."
    common = dict(world=control.world, judge=control.judge, labels=control.labels, protocol=2)
    return [
        dict(common, method=m, seed=s, value=v + spread * s) for m, v in values.items() for s in range(seeds)
    ]


def told(rows, control=FALSE_):
    return {v["method"]: v["verdict"] for v in control_verdicts(rows, control)}


GOOD = {"random": 0.40, "simclr": 0.52, "false": 0.60, "false-random": 0.521, "false-every": 0.66}


@pytest.mark.parametrize(
    "gaps, verdict",
    [
        ([0.10, 0.11, 0.09], "better"),
        ([-0.10, -0.11, -0.09], "worse"),
        ([0.001, 0.002, -0.001], "no difference"),
        ([0.00, 0.20, 0.10], "undecided"),
        ([0.05, 0.20, 0.10, 0.05, 0.2], "better"),
        ([-0.10, 0.20, 0.10, -0.1, 0.2], "undecided at five"),
        ([0.10, 0.11], "two seeds: no verdict"),
        ([0.10], "one seed: no verdict"),
        ([], "no seed: no verdict"),
    ],
)
def test_verdicts(gaps, verdict):
    assert seed_verdict(np.array(gaps), SEES) == verdict


def test_the_interval_is_students():
    mean, half = gap_interval(np.array([0.0, 0.1, 0.2]))
    assert mean == pytest.approx(0.1) and half == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert gap_interval(np.array([0.1]))[1] == math.inf


def test_gaps_are_paired_by_seed():
    rows = made(GOOD, seeds=3) + made({"false": 0.5}, seeds=5)[3:]
    assert paired_gaps(rows, "false").tolist() == pytest.approx([0.08] * 3)


def test_the_rules_of_the_protocol():
    assert told(made(GOOD)) == {
        "false-every": "ceiling passes 0.05",
        "false": "better",
        "false-random": "no difference",
    }
    assert told(made({**GOOD, "false-every": 0.53})) == {
        "false-every": "ceiling misses 0.05: the world is broken",
        "false": "no verdict: the world is broken",
        "false-random": "no verdict: the world is broken",
    }


def test_a_ceiling_whose_seeds_differ_is_undecided_and_no_world_is_called_broken():
    rows = [dict(r) for r in made({**GOOD, "false-every": 0.6})]
    for r in rows:
        r["value"] += 0.1 * (r["seed"] - 1) * (r["method"] == "false-every")
    found = told(rows)
    assert found["false-every"] == "ceiling reaches 0.05 on average: undecided"
    assert found["false"] == "no verdict: the ceiling is undecided"
    assert "three seeds show" in control_sentence(rows, FALSE_)


def test_a_judge_that_cannot_show_simclrs_gain_is_used_for_no_verdict():
    rows = made({**GOOD, "simclr": 0.401})
    assert told(rows)["false"] == "no verdict: this judge does not show SimCLR's gain (+0.001)"
    assert "| no: it does not show the gain |" in power_table(rows)
    worse = made({**GOOD, "simclr": 0.30})
    assert "(-0.100)" in told(worse)["false"] and judge_power(worse)[0]["sees"] is False


def test_three_seeds_are_needed_of_simclr_and_random_too():
    rows = [r for r in made(GOOD) if r["method"] != "random" or r["seed"] == 0]
    assert "not measured" in told(rows)["false"] and judge_power(rows)[0]["sees"] is None
    assert "not yet: fewer than three seeds" in power_table(rows)
    assert judge_power(rows)[0]["gain"] == pytest.approx(0.122)


@pytest.mark.parametrize("seeds, words", [(1, "one seed: no verdict"), (2, "two seeds: no verdict")])
def test_too_few_seeds_give_no_verdict_and_no_number_that_is_none(seeds, words):
    rows = made(GOOD, seeds)
    assert set(told(rows).values()) == {words}
    text = verdict_table(rows) + power_table(rows) + control_sentence(rows, FALSE_)
    assert "nan" not in text and "inf" not in text and "None" not in text
    assert ceiling_verdict(np.full(seeds, 0.2), 0.05) == words
    assert seen_by(rows) == words + ("" if seeds == 1 else "; three seeds show 0.004")


def test_a_method_that_fails_its_own_control_is_a_defect_to_find():
    rows = made({**GOOD, "false": 0.521})
    assert control_sentence(rows, FALSE_).endswith(
        "false is not shown to gain (+0.001): a defect to find, or a gain smaller than three seeds show."
    )
    assert control_sentence(made({**GOOD, "false": 0.4}), FALSE_).endswith("(-0.120): a defect to find.")
    assert "defect" not in control_sentence(made(GOOD), FALSE_)
    assert "defect" not in control_sentence(made({**GOOD, "false": 0.521}, seeds=1), FALSE_)
    assert control_sentence(made({"simclr": 0.3, "grass": 0.3}, 3, GRASS), GRASS).endswith(
        "pending: grass-told, grass-random."
    )


def test_rows_of_an_older_protocol_are_left_out(tmp_path):
    assert read_judged(tmp_path) == []
    (tmp_path / "judges.json").write_text(
        json.dumps([*made(GOOD), *(dict(r, protocol=1) for r in made(GOOD))])
    )
    floor = made({"bands": 0.3}, 1)
    (tmp_path / "floors.json").write_text(json.dumps(floor))
    rows = read_judged(tmp_path)
    assert len(rows) == 16 and floor[0] in rows and {r["protocol"] for r in rows} == {2}
    (tmp_path / "controls.json").write_text(json.dumps(made({"grass": math.nan}, 1, GRASS)))
    with pytest.raises(ValueError, match="gave grass no number"):
        read_judged(tmp_path)


def test_a_world_made_anew_leaves_the_rows_of_the_others(tmp_path):
    anew = [dict(r, protocol=3) for r in made({"simclr": 0.3, "grass": 0.4}, 3, GRASS)]
    old = made({"simclr": 0.2, "grass-told": 0.2}, 3, GRASS)
    (tmp_path / "controls.json").write_text(json.dumps(old + anew))
    (tmp_path / "judges.json").write_text(json.dumps(made(GOOD)))
    rows = read_judged(tmp_path)
    assert [r for r in rows if r["world"] == "object"] == anew
    assert len(rows) == len(anew) + len(made(GOOD))


def test_intervals_say_whether_they_speak_of_seeds():
    one = [dict(value=0.5, low=0.4, high=0.6)]
    assert value_interval(one) == (0.4, 0.6, False)
    low, high, of_seeds = value_interval([dict(value=v) for v in (0.4, 0.5, 0.6)])
    assert (
        of_seeds and (low + high) / 2 == pytest.approx(0.5) and high - low == pytest.approx(0.497, abs=1e-3)
    )


def test_the_figure_shows_floors_first_and_every_seed():
    rows = made({**GOOD, "bands": 0.3, "colour": 0.41})
    picture = show_methods(rows, "scene")
    ax = picture.axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["bands", "colour", "random", "simclr", "false", "false-random", "false-every"]
    dots = [line for line in ax.lines if len(line.get_xdata()) == 3]
    assert len(dots) == len(names) and "three seeds show" in ax.get_title()
    assert "one seed: no verdict" in show_methods(made(GOOD, 1), "scene").axes[0].get_title()
    assert [t.get_text() for t in show_methods([], "scene").axes[0].texts] == ["pending"]
    assert [role_of(m) for m in ("grass-told", "false-half", "simclr-dubai")] == [
        "ceiling",
        "variant",
        "SimCLR",
    ]


@pytest.mark.parametrize(
    ("gap", "half", "verdict", "told"),
    [
        (0.02, 0.01, "no difference", "no difference (ahead by less than shows)"),
        (-0.02, 0.01, "no difference", "no difference (behind by less than shows)"),
        (0.02, 0.03, "no difference", "no difference"),
        (0.2, 0.01, "better", "better"),
        (None, None, "pending", "pending"),
    ],
)
def test_a_small_difference_says_its_side_where_its_interval_leaves_out_zero(gap, half, verdict, told):
    assert verdict_told(dict(gap=gap, half=half, verdict=verdict)) == told
