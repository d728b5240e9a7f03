"What people call first: each name has an example in its docstring, and the example runs."

import ast
import doctest
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import rsssl_nb
from rsssl_nb.mapping.boxes import draw_boxes
from rsssl_nb.mapping.vectors import write_vectors


@pytest.mark.parametrize("name", rsssl_nb.__all__)
def test_every_name_has_an_example_that_runs(name):
    thing = getattr(rsssl_nb, name)
    parsed = doctest.DocTestParser().get_doctest(inspect.getdoc(thing), {}, name, None, 0)
    assert any(f"import {name}" in line.source or f", {name}" in line.source for line in parsed.examples), (
        name
    )
    said = []
    failed, ran = doctest.DocTestRunner().run(parsed, out=said.append)
    assert failed == 0 and ran >= 2, "".join(said)


@pytest.mark.parametrize("thing", [write_vectors, draw_boxes])
def test_help_names_every_parameter(thing):
    told = thing.__doc__
    assert [name for name in inspect.signature(thing).parameters if f"`{name}`" not in told] == []


def test_help_has_no_runs_of_blanks():
    found = [
        f"{path.stem}: {line}"
        for path in Path(rsssl_nb.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        for line in (ast.get_docstring(node) or "").splitlines()
        if re.search(r"\S {3,}\S", line) and not line.lstrip().startswith("... ")
    ]
    assert found == []


def test_dir_offers_what_people_call_and_nothing_else():
    assert set(dir(rsssl_nb)) == {"__version__", *rsssl_nb.__all__}
    assert {"shipped", "scores", "load", "export", "embed", "explore_labels"} <= set(dir(rsssl_nb))


def test_examples_stand_in_fences_in_the_reference():
    path = Path(__file__).resolve().parents[1] / "docs/make.py"
    spec = importlib.util.spec_from_file_location("make", path)
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    text = make.fenced_examples("A sum.\n\n>>> 1 + 1\n2\n>>> for i in ():\n...     i\n\nMore.")
    assert text == "A sum.\n\n```pycon\n>>> 1 + 1\n2\n>>> for i in ():\n...     i\n```\n\nMore."
    entry = make.entry(rsssl_nb, "scores")
    assert "```pycon\n>>> from rsssl_nb import scores" in entry and "```python\nscores(confusion)" in entry
