"""Numbers in prose are those of the saved rows and of the page's own outputs.

A number with a comment behind it says where it comes from, and is compared to its last digit:

    0.508<!--scorecard data=scenes, method=grass, measure=box rank, arm=gradient-->
        a file of results/: the mean over the rows that match, of the last step where rows have steps;
        `, less arm=...` behind it subtracts the mean of the rows that match with that changed; a comma
        within a value is written as a semicolon
    0.356<!--printed-->
        a number that an output of the same page prints
"""

import json
import re
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"([-+−]?\d+(?:\.\d+)?)<!--([^>]*?)-->")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?")
PAGES = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if "<!--" in path.read_text(encoding="utf-8"))
TEXTS = [ROOT / "README.md", ROOT / "results/README.md"]


def prose_of(path):
    "The prose of a page or of a Markdown file."
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def printed_by(path):
    "Every number that the saved outputs of a page print, as text."
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            found += NUMBER.findall("".join(text))
    return found


def places(number):
    "How many digits a number has after the point."
    return len(number.partition(".")[2])


def is_among(number, numbers):
    "Whether a number in prose is one of the numbers printed, rounded to the digits that prose gives."
    return any(
        places(n) >= places(number)
        and f"{float(n):.{places(number)}f}" == f"{float(number):.{places(number)}f}"
        for n in numbers
    )


def value_of(source, folder=ROOT / "results"):
    "The mean that a comment asks for: `FILE key=value, ... [, less key=value, ...]`."
    name, _, conditions = source.partition(" ")
    rows = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    first, _, second = conditions.partition(", less ")

    def wanted(text):
        parts = (part.split("=", 1) for part in text.split(", ") if part)
        return {key: value.replace("; ", ", ") for key, value in parts}

    def average(want):
        mine = [row for row in rows if all(str(row.get(key)) == value for key, value in want.items())]
        assert mine, f"no row of results/{name}.json has {want}"
        last = max(row.get("step", 0) for row in mine)
        return mean(row.get("value", row.get("miou")) for row in mine if row.get("step", 0) == last)

    want = wanted(first)
    return average(want) - (average({**want, **wanted(second)}) if second else 0)


def wrong_numbers(path):
    "A sentence for each marked number of a file that is not what its source says."
    wrong, printed = [], None
    for number, source in MARKED.findall(prose_of(path)):
        number = number.replace("−", "-")
        if source == "printed":
            printed = printed_by(path) if printed is None else printed
            if not is_among(number, printed):
                wrong.append(f"{path.name}: {number} is printed by no output")
        elif source:
            right = value_of(source)
            if abs(float(number) - right) > 0.5000001 * 10 ** -places(number):
                wrong.append(f"{path.name}: {number} should be {right:.4f} ({source})")
    return wrong


@pytest.mark.parametrize("path", TEXTS + PAGES, ids=lambda path: path.stem)
def test_numbers_in_prose_are_those_of_rows_and_outputs(path):
    assert wrong_numbers(path) == []


def test_a_wrong_number_is_found(tmp_path):
    page = tmp_path / "page.ipynb"
    outputs = [{"output_type": "stream", "text": ["kNN 0.1234 of 9"]}]
    prose = "0.123<!--printed--> and 0.124<!--printed--> and 0.9<!--scorecard data=scenes, measure=gate-->"
    cells = [
        {"cell_type": "code", "source": [], "outputs": outputs},
        {"cell_type": "markdown", "source": [prose]},
    ]
    page.write_text(json.dumps({"cells": cells}))
    told = wrong_numbers(page)
    assert len(told) == 2 and "0.124 is printed by no output" in told[0] and "0.9 should be" in told[1]


def test_sentences_about_the_scorecard_name_their_rows():
    "Page `mechanisms` reads rows aloud: each decimal of those paragraphs carries its source."
    prose = prose_of(ROOT / "nbs/evidence/mechanisms.ipynb")
    told = [
        part for part in prose.split("\n\n") if part.startswith(("*See:* Dubai left", "**The question.**"))
    ]
    assert len(told) == 2
    for part in told:
        assert not re.findall(r"\d\.\d+(?![\d<])", MARKED.sub("", part))
