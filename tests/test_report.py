"The proof's tables and figures: from any subset of rows, also none, and README holds what the files say."

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "experiments"))
import proof  # noqa: E402
import report  # noqa: E402


def rows_of(arms, seeds, **more):
    "Rows as the campaign writes them, of these arms under every judge that is shown."
    made = []
    for k, arm in enumerate(arms):
        for judge, labels in report.ASKED:
            for seed in range(seeds):
                value = 0.4 + 0.02 * k + 0.002 * seed + 0.001 * len(judge) * seed
                told = dict(world=arm.world, method=arm.name, judge=judge, labels=labels, seed=seed)
                told |= dict(value=value, protocol=2, device="a processor", minutes=6.0, steps=1000)
                made.append({**told, **dict(arm.also), **more})
    return made


@pytest.mark.parametrize("seeds", [0, 1, 2, 3])
@pytest.mark.parametrize("how_many", [1, 2, 7, None])
def test_any_subset_of_rows_gives_tables_and_figures(seeds, how_many, tmp_path):
    cpu = [a for a in proof.ARMS if a.world in ("cpu", "imagenet", "long")][:how_many]
    files = {report.FILES[0]: rows_of(cpu, seeds), report.FILES[1]: rows_of(proof.DIALS[:how_many], seeds)}
    for name, rows in files.items():
        (tmp_path / name).write_text(json.dumps(rows))
    (tmp_path / "README.md").write_text("<!--table proof-verdicts-->\n\n<!--end of table-->\nrest\n")
    report.main(tmp_path)
    told = (tmp_path / "README.md").read_text()
    assert "| false | scene | 5 | simclr |" in told and told.endswith("rest\n")
    assert ("| pending |" in told) == (seeds == 0 or how_many is not None)
    assert not {"nan", "inf"} & set(told.replace("|", " ").split())
    assert all((tmp_path / name).stat().st_size > 3000 for name in ("evidence-cpu.png", "when-it-helps.png"))


def test_no_file_at_all_is_pending(tmp_path):
    tables = report.tables_of(tmp_path)
    assert tables["proof-arms"] == "pending" and "pending" in tables["proof-hours"]
    assert all(line.endswith("pending.") for line in tables["proof-doses"].splitlines())
    assert len(report.figures_of(tmp_path)) == 2


def test_readme_holds_what_the_files_say():
    text = (ROOT / "results/README.md").read_text()
    for name, table in report.tables_of(ROOT / "results").items():
        begin = f"<!--table {name}-->\n\n"
        assert begin in text
        assert text.partition(begin)[2].startswith(f"{table}\n\n<!--end of table-->"), (
            f"{name}: make evidence-cpu"
        )


def test_each_dial_is_drawn():
    drawn = {(d.method, d.name) for d in report.DIALS}
    methods = {(a.name, dict(a.also)["dial"]) for a in proof.DIALS if dict(a.also)["arm"] in ("rule", "told")}
    assert {m for m in methods if m[0] in proof.FOUR} <= drawn


def test_simclr_stands_beside_the_untrained_network_of_its_seed():
    told = dict(judge="scene", labels=5)
    rows = [dict(told, world="cpu", method="random", seed=s, value=0.4 + 0.01 * s) for s in range(3)]
    rows += [dict(told, world="cpu", method="simclr", seed=s, value=0.5 + 0.01 * s) for s in (0, 2)]
    rows += [dict(told, world="long", method="simclr", seed=0, value=0.6)]
    rows += [dict(told, world="cpu", method="random-fitted", seed=0, value=0.45)]
    lines = report.alive_table(rows).splitlines()[2:]
    head = "| Dubai, 96 px, 1 000 steps | scene | 5 |"
    assert lines[0] == head + " 0.410 | 0.450 | 0.510 | +0.100 | 0.000 | +0.050 | - | 2, 1 |"
    assert (
        lines[1]
        == "| Dubai, 96 px, 4 000 steps | scene | 5 | 0.400 | 0.450 | 0.600 | +0.200 | - | +0.150 | - | 1 |"
    )
    assert len(lines) == 2 and report.alive_table(rows[:3]) == "pending"


def test_what_was_trained_says_where_it_started_and_what_was_not_needs_no_word():
    assert report.named(dict(method="simclr", init="imagenet", steps=500)) == "simclr from imagenet"
    for untrained in (dict(steps=0, init="random"), dict(init="random"), dict(steps=500)):
        assert report.named(dict(untrained, method="random")) == "random"


def test_what_networks_show_is_a_line_a_measure(tmp_path):
    assert report.learnt_table(tmp_path / "showing.json") == "pending"
    told = dict(method="false", measure="right", network="a")
    rows = [dict(told, seed=s, value=v) for s, v in ((0, 0.5), (1, 0.7), (1, 0.9))]
    (tmp_path / "showing.json").write_text(json.dumps(rows))
    assert (
        report.learnt_table(tmp_path / "showing.json").splitlines()[2]
        == "| false | right | a | 0.650 | 0: 0.500, 1: 0.800 |"
    )


def test_a_folder_that_is_none_and_a_table_without_its_end_are_named(tmp_path):
    with pytest.raises(SystemExit, match="is no folder"):
        report.main(tmp_path / "resluts")
    for between in ("\n", "\n\ntext\n\n"):
        (tmp_path / "README.md").write_text(
            f"<!--table proof-arms-->{between}<!--table proof-power-->\n\n<!--end of table-->\n"
        )
        with pytest.raises(SystemExit, match="table proof-arms has no"):
            report.main(tmp_path)
    assert not list(tmp_path.glob("*.png")) and "text" in (tmp_path / "README.md").read_text()
