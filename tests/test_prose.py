"""Numbers in prose are those of the saved rows and of the page's own outputs, or say why they need none.

A number with a comment behind it says where it comes from, and is compared to its last digit:

    0.508<!--scorecard data=scenes, method=grass, measure=box rank, arm=gradient-->
        a file of results/: the mean over the rows that match, of the last step where rows have steps;
        `, less arm=...` behind it subtracts the mean of the rows that match with that changed; a comma
        within a value is written as a semicolon; `of=beside_mb` takes another column than value or miou
    0.356<!--printed-->
        a number that an output of the same page prints; of 35 %<!--printed--> either 35 or 0.35
    0.08<!--printed by library/data/scenes--> and 1.4448<!--tests/test_false-->
        a number that another page prints, or to which a test holds the code

On every page and in the two READMEs each decimal and each per cent carries such a mark, or one of
REASONS, which nothing compares. `<!--numbers here: REASON-->` says it of all numbers of its paragraph or
table that have no mark of their own; `<!--numbers here: seeing-->` or `printed` that each of them is in that
file of results/ or in the page's outputs. Code, formulas, links, numbers of equations, sections and versions
are no results, nor is a page's first sentence; and a table between `<!--table NAME-->` and
`<!--end of table-->` is compared by another test.
"""

import json
import re
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[1]
VALUE = r"[-+−]?(?:\d+(?:\.\d+)?|\.\d+)"
MARKED = re.compile(rf"({VALUE})( ?\\?%)?<!--([^>]*?)-->")
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d+)?|\.\d+)")
REASONS = {
    "by hand",  # an example worked out in the text
    "constant",  # of mathematics or of a definition
    "guess",  # offered to who predicts
    "invented",  # of a page's own toy example
    "paper",  # as printed there, or in released code
    "setting",  # chosen, not measured
}
HERE = re.compile(r"<!--numbers here: ([^>]*?)-->")
NO_RESULTS = re.compile(
    r"<!--table .*?<!--end of table-->|```.*?```|^    .*?$|^> .*?$|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$"
    r"|\]\([^)]*\)|arXiv \d+\.\d+"
    r"|(?:[Vv]ersion|Python|sections?|until|CC0|licence) \d+\.\d+|Apache-2\.0|\(\d\d\.\d\d?\)|2008, 8\.4",
    re.DOTALL | re.MULTILINE,
)
RESULT = re.compile(rf"(?<![\w.])(?:[-+−]?(?:\d+\.\d+|\.\d+)(?![\d.])(?: ?\\?%)?|{VALUE} ?\\?%)")
PAGES = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if "<!--" in path.read_text(encoding="utf-8"))
TEXTS = [ROOT / "README.md", ROOT / "results/README.md"]
TOLD = [*TEXTS, *sorted((ROOT / "nbs").rglob("*.ipynb"))]


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


def told_by(source, path):
    "The numbers, as text, that a source names: this page's outputs, another page's, or a test's."
    if source.startswith("printed"):
        other = source.removeprefix("printed by ")
        return printed_by(path if other == "printed" else ROOT / "nbs" / f"{other}.ipynb")
    name = f"{source}.py" if source.startswith("tests/") else f"results/{source}.json"
    assert (ROOT / name).exists(), f"{source!r} is neither a reason nor a source: there is no {name}"
    return NUMBER.findall((ROOT / name).read_text(encoding="utf-8"))


def places(number):
    "How many digits a number has after the point."
    return len(number.partition(".")[2])


def is_among(number, numbers, percent=False):
    "Whether a number in prose is one of the numbers told, rounded to the digits that prose gives."
    digits = places(number)
    return any(
        places(n) >= digits + more and abs(10**more * float(n) - float(number)) <= 0.5000001 * 10**-digits
        for more in ((0, 2) if percent else (0,))
        for n in numbers
    )


def value_of(source, folder=ROOT / "results"):
    "The mean that a comment asks for: `FILE key=value, ... [, less key=value, ...]`."
    name, _, conditions = source.partition(" ")
    rows = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    rows = rows["rows"] if isinstance(rows, dict) else rows
    first, _, second = conditions.partition(", less ")

    def wanted(text):
        parts = (part.split("=", 1) for part in text.split(", ") if part)
        return {key: value.replace("; ", ", ") for key, value in parts}

    def average(want):
        mine = [row for row in rows if all(str(row.get(key)) == value for key, value in want.items())]
        assert mine, f"no row of results/{name}.json has {want}"
        last = max(row.get("step", 0) for row in mine)
        return mean(row[column] for row in mine if row.get("step", 0) == last)

    want = wanted(first)
    column = want.pop("of", "value" if any("value" in row for row in rows) else "miou")
    return average(want) - (average({**want, **wanted(second)}) if second else 0)


def wrong_numbers(path):
    "A sentence for each marked number of a file that is not what its source says."
    wrong = []
    for number, percent, source in MARKED.findall(prose_of(path)):
        number = number.replace("−", "-")
        if source.startswith(("printed", "tests/")):
            if not is_among(number, told_by(source, path), bool(percent)):
                wrong.append(f"{path.name}: {number} is printed by no output ({source})")
        elif source and source not in REASONS:
            right = value_of(source)
            if abs(float(number) - right) > 0.5000001 * 10 ** -places(number):
                wrong.append(f"{path.name}: {number} should be {right:.4f} ({source})")
    return wrong


@pytest.mark.parametrize("path", TEXTS + PAGES, ids=lambda path: path.stem)
def test_numbers_in_prose_are_those_of_rows_and_outputs(path):
    assert wrong_numbers(path) == []


def unmarked_numbers(text, path=None):
    "The numbers of a text that look like results and say nothing of where they come from, with their line."
    found = []
    for block in re.split(r"\n\s*\n", NO_RESULTS.sub("", text)):
        sources = [source for told in HERE.findall(block) for source in told.split(", ")]
        known = [number for source in sources if source not in REASONS for number in told_by(source, path)]
        bare = MARKED.sub("", block)
        for m in RESULT.finditer(bare):
            number = re.match(VALUE, m[0].strip())[0].replace("−", "-")
            if set(sources) & REASONS or is_among(number, known, "%" in m[0]):
                continue
            found.append(
                f"{m[0].strip()} in: {' '.join(bare[max(0, m.start() - 60) : m.end() + 40].split())}"
            )
    return found


@pytest.mark.parametrize("path", TOLD, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_result_in_prose_says_where_it_comes_from(path):
    assert unmarked_numbers(prose_of(path), path) == []


def test_a_number_without_a_source_is_found():
    text = """mIoU .412 and 0.5<!--printed--> at 35 %, of arXiv 2106.10605, section 4.1, (55.1), `0.3`, $0.2$.

By hand 0.75, so 25 %. <!--numbers here: by hand-->

<!--table ledger--> 0.333 <!--end of table--> and -0.07<!--guess-->, −.97

    code 0.2

0.669 [-0.102, -0.022], 0.343 <!--numbers here: seeing-->"""
    assert [told.split(" in: ")[0] for told in unmarked_numbers(text)] == [
        ".412",
        "35 %",
        "−.97",
        "0.343",
    ]
    with pytest.raises(AssertionError, match="'I say so' is neither a reason nor a source"):
        unmarked_numbers("0.1 <!--numbers here: I say so-->")
    assert is_among("35", ["0.3512"], percent=True) and not is_among("35", ["0.3512"])


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
