"What the shipped networks show: who is asked, and what the kept rows hold."

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import showing  # noqa: E402

from rsssl_nb.evaluation.verdicts import LEARNT, show_learnt  # noqa: E402
from rsssl_nb.weights import load_weights, save_weights, shipped  # noqa: E402


@pytest.mark.parametrize("method", showing.ASKED)
def test_untrained_ones_the_placebo_and_what_ships_are_asked(method, tmp_path, capsys):
    name, placebo = f"{method}-1000", dict(zip(showing.FOUR, showing.PLACEBOS))[method]
    assert [n for n, *_ in showing.networks(method, tmp_path)][:4] == ["untrained"] * 3 + [name]
    assert f"{placebo}: no finished run of seed 0" in capsys.readouterr().out
    state, _ = load_weights(shipped(name))
    save_weights(tmp_path / f"cpu-{placebo}-0-abc" / "method-001000.safetensors", state, {})
    asked = list(showing.networks(method, tmp_path))
    assert [n for n, *_ in asked[:5]] == ["untrained"] * 3 + [placebo, name]
    first, second, *_, other, mine = (made.state_dict() for *_, made in asked[:5])
    assert any(not torch.equal(v, second[k]) for k, v in first.items() if k.endswith("weight"))
    assert all(torch.equal(v, other[k]) for k, v in mine.items())
    assert all(not made.training for *_, made in asked)


def test_the_kept_rows_hold_each_network_and_draw_once():
    rows = json.loads(showing.OUT.read_text())
    keys = [tuple(r[k] for k in ("method", "network", "seed", "measure", "draw")) for r in rows]
    assert len(set(keys)) == len(keys)
    for method, measures in showing.ASKED.items():
        for measure in measures.values():
            mine = [r for r in rows if (r["method"], r["measure"]) == (method, measure)]
            placebo = dict(zip(showing.FOUR, showing.PLACEBOS))[method]
            assert {"untrained", placebo, f"{method}-1000"} <= {r["network"] for r in mine}
            assert all(0 <= r["value"] for r in mine) and len(mine) % showing.DRAWS == 0


def test_a_network_is_a_bar_in_the_order_of_the_rows_and_nothing_is_pending():
    rows = [
        dict(method="grass", network=n, measure=m, value=v)
        for n, v in (("untrained", 0.5), ("grass-random", 0.4), ("grass-1000", 0.3), ("grass-1000", 0.1))
        for m in LEARNT["grass"][:2]
    ]
    ax = show_learnt(rows, "grass").axes[0]
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["box rank, map shuffled", "untrained", "grass-random", "grass-1000"]
    assert [round(p.get_width(), 3) for p in ax.patches][1:] == [0.5, 0.4, 0.2]
    assert "pending" in [t.get_text() for t in show_learnt([], "false").axes[0].texts]
