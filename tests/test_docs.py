"""The site of `make docs`: every page and module on it, no dead link, nothing fetched from elsewhere.

And the pages for Colab.
"""

import html.parser
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rsssl_nb import lessons

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.long


class Links(html.parser.HTMLParser):
    "What a page links to, what it loads, and its anchors."

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("img", "script") and found.get("src") or tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found.get("src") or found["href"])


@pytest.fixture(scope="module")
def site():
    pytest.importorskip(
        "material",
        reason="mkdocs-material is not installed (pip install -e '.[docs]'): this test ran on nothing",
    )
    done = subprocess.run([sys.executable, ROOT / "docs/make.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "_docs/site"


def test_every_page_and_module_is_there_and_every_link_leads_somewhere(site):
    read = {p: Links(p) for p in site.rglob("*.html") if p.name != "404.html"}
    there = {p.relative_to(site / "lessons").with_suffix("") for p in read if site / "lessons" in p.parents}
    assert there == {p.relative_to(lessons.root()).with_suffix("") for p in lessons.pages()}
    assert site / "reference/methods.false.html" in read and site / "reference/commands.html" in read
    for path, page in read.items():
        assert not [link for link in page.loads if link.startswith(("http", "//"))], path
        for link in (*page.links, *page.loads):
            file, _, anchor = link.partition("#")
            if link.startswith(("http", "mailto:", "data:")):
                continue
            target = (path.parent / file).resolve() if file not in ("", ".") else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.name}: {link}"
            assert not anchor or target not in read or anchor in read[target].anchors, f"{path.name}: {link}"


def test_formulas_are_drawn_and_words_are_found(site):
    page = (site / "lessons/course/06_false.html").read_text(encoding="utf-8")
    assert "<math" in page and "arithmatex" not in page and "(53.1)" in page
    assert "suspects" in json.dumps(
        json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    )


def test_colab_installs_first_and_asks_for_a_gpu(site):
    made = sorted((ROOT / "_docs/colab").rglob("*.ipynb"))
    names = {p.relative_to(ROOT / "_docs/colab") for p in made}
    assert names == {p.relative_to(lessons.root()) for p in lessons.pages()}
    for path in made:
        nb = nbformat.read(path, 4)
        nbformat.validate(nb)
        assert "%pip install" in nb.cells[0].source and nb.metadata.accelerator == "GPU"
        name = path.relative_to(ROOT / "_docs/colab")
        text = (site / "lessons" / name.with_suffix(".html")).read_text(encoding="utf-8")
        assert f"/blob/colab/{name.as_posix()}" in text, "the page does not link to its copy for Colab"


def test_signatures_are_wrapped_and_parameters_are_a_table():
    where = importlib.util.spec_from_file_location("make_docs", ROOT / "docs/make.py")
    make = importlib.util.module_from_spec(where)
    where.loader.exec_module(make)
    text = make.entry(importlib.import_module("rsssl_nb.mapping.embed"), "embed")
    code = text.split("```")[1]
    assert code.startswith("python\nembed(\n    encoder,\n") and max(map(len, code.splitlines())) < 89
    assert "| `out` | `str \\| Path \\| None` | `None` |" in text and "Gives `ndarray | str | Path`." in text
    assert make.signature(make.signature, "signature") == "signature(thing, name)"
    assert make.parameter_table(make.signature) == ""
    assert make.called_first(["seam_ratio", "embed"]) == ["embed", "seam_ratio"]
