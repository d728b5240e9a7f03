"README's eight lines run, its links lead somewhere, and the ledger is that of the files in results/."

import base64
import json
import re
from pathlib import Path

import pytest

from rsssl_nb.evaluation.evidence import ledger
from rsssl_nb.evaluation.verdicts import read_judged, verdict_table

ROOT = Path(__file__).resolve().parents[1]
FRONT = (
    "README.md CONTRIBUTING.md TEACHING.md CHANGELOG.md llms.txt results/README.md docs/page-scores.md"
).split()


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_eight_lines_run(capsys):
    code = re.search(r"```python\n(.+?)```", text_of("README.md"), re.S)[1]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 8
    exec(code, {})
    assert "(256, 256)" in capsys.readouterr().out


def test_the_picture_is_the_tours():
    cells = json.loads(text_of("nbs/course/00_tour.ipynb"))["cells"]
    drawn = next(c for c in cells if "".join(c["source"]).endswith("show_maps(days[order[0]])"))
    shown = base64.b64decode(drawn["outputs"][-1]["data"]["image/png"])
    assert (ROOT / "nbs/images/readme.png").read_bytes() == shown, "copy the tour's picture of another day"


@pytest.mark.parametrize("name", FRONT)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)", text_of(name))
    missing = [li for li in links if "://" not in li and not ((ROOT / name).parent / li).exists()]
    assert missing == []


@pytest.mark.parametrize("name", FRONT)
def test_files_that_are_named_are_there(name):
    named = re.findall(
        r"(?<![\w/.-])((?:nbs|rsssl_nb|tests|benchmarks|experiments|docs|results)/[\w/.-]*[\w/])",
        text_of(name),
    )
    kept = [n for n in named if "<" not in n]
    assert [n for n in kept if not (ROOT / n).exists()] == []


def test_the_tables_are_the_files():
    told = "run `python experiments/evidence.py --stage ledger`: it puts its tables into results/README.md"
    assert ledger(ROOT / "results") in text_of("results/README.md"), told
    assert verdict_table(read_judged(ROOT / "results")) in text_of("results/README.md"), told


def test_contributing_fits_two_screens():
    assert len(text_of("CONTRIBUTING.md").splitlines()) <= 80
