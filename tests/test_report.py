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
