"Page hygiene, read from the notebooks' JSON: what a machine can check of a good page."

import base64
import io
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import nbformat  # noqa: E402
from pages import stamp  # noqa: E402

from rsssl_nb.lessons import directives, exercises, pages  # noqa: E402

PAGES = pages()
read = {p: nbformat.read(p, 4) for p in PAGES}
each = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)


def code(path):
    return [c for c in read[path].cells if c.cell_type == "code" and c.source.strip()]


def prose(path):
    return "\n".join(c.source for c in read[path].cells if c.cell_type == "markdown")


def outputs(path):
    return [o for c in code(path) for o in c.outputs]


def default_exp(path):
    return [m for c in code(path) for m in re.findall(r"^#\| default_exp (\S+)", c.source, re.M)]


def test_each_module_has_one_page():
    homes = [m for p in PAGES for m in default_exp(p)]
    assert len(homes) == len(set(homes)), "two pages with one default_exp: one of them would vanish"


@each
def test_opening(path):
    titles = re.findall(r"^# .+", re.sub(r"```.*?```", "", prose(path), flags=re.S), re.M)
    assert len(titles) == 1, titles
    assert re.search(r"^# .+\n+> .+", prose(path), re.M), "the title is followed by one quoted line"
    assert re.search(r"\d+ min to read", prose(path)) and re.search(r"\d+ s to run", prose(path)), (
        "contract line with minutes"
    )
    assert "Predict" in prose(path)


@each
def test_cells_are_short_and_imports_alone(path):
    for c in code(path):
        lines = [l for l in c.source.splitlines() if l.strip()]
        assert len(lines) <= 25, f"{len(lines)} lines: {lines[0]}"
        body = [l for l in lines if not l.lstrip().startswith("#")]
        if any(re.match(r"(import|from) ", l) for l in body):
            text = re.sub(r"\([^)]*\)", "()", "\n".join(body))
            assert all(re.match(r"(import|from) ", l) for l in text.splitlines()), (
                f"imports mixed with code: {lines[:3]}"
            )


@each
def test_outputs_are_saved_and_tidy(path):
    assert path.stat().st_size <= 500_000, f"{path.stat().st_size} bytes"
    assert not code(path) or outputs(path), "no outputs saved: make refresh"
    for o in outputs(path):
        assert o.output_type != "error" and o.get("name") != "stderr", o
        assert "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
        assert not re.search(
            r"(/home/|/root/|/work/|/tmp/|/Users/)",
            json.dumps({k: v for k, v in o.items() if "image/png" not in o.get("data", {})}),
        ), "a path of this machine"
    assert "widgets" not in read[path].metadata


@each
def test_pictures_are_of_80_dpi(path):
    for data in (o["data"]["image/png"] for o in outputs(path) if "image/png" in o.get("data", {})):
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert round(picture.info.get("dpi", (80, 80))[0]) <= 80 and picture.width <= 14 * 80, (
            picture.info.get("dpi"),
            picture.width,
        )


def test_half_of_the_pages_are_under_150_kb():
    assert sorted(p.stat().st_size for p in PAGES)[len(PAGES) // 2] < 150_000


def test_cleaning_keeps_what_colab_and_the_stamp_need():
    from execnb.nbio import dict2nb
    from nbdev.clean import clean_nb
    from nbdev.config import get_config

    nb = dict2nb(
        json.loads(PAGES[0].read_text())
        | {"metadata": {"accelerator": "GPU", "colab": {"provenance": []}, "rsssl": {"stamp": "x"}, "odd": 1}}
    )
    clean_nb(nb, allowed_metadata_keys=get_config().allowed_metadata_keys.split())
    assert {"accelerator", "colab", "rsssl"} <= set(nb.metadata) and "odd" not in nb.metadata


@each
def test_outputs_belong_to_this_code(path):
    assert read[path].metadata.get("rsssl", {}).get("stamp") == stamp(read[path]), (
        "code changed since its outputs were made: make refresh"
    )


@each
def test_exported_names_are_used(path):
    cells = code(path)
    exported = [
        (i, name)
        for i, c in enumerate(cells)
        if any(d.startswith("export") for d in directives(c.source))
        for name in re.findall(r"^(?:def|class) ([A-Za-z]\w*)", c.source, re.M)
    ]
    assert [
        name
        for i, name in exported
        if not any(re.search(rf"\b{name}\b", later.source) for later in cells[i + 1 :])
    ] == [], "exported and never used on the page"


@each
def test_exercises_are_complete(path):
    found = exercises(read[path].cells)
    assert found, "no exercise with check and folded solution"
    for name, stub, solution in found.values():
        assert "..." in stub and solution and f"def {name}(" in solution, name
