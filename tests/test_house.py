"""The house keeps its measures: size of modules, classes of some use, names that mean one thing, no circles.

Lines, statements and annotations are held by `make lint`, imports downward by tests/test_layers.py.
"""

import ast
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from rsssl_nb.methods.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "rsssl_nb").rglob("*.py"))
    if path.name != "_modidx.py"
}


@cache
def tree(module):
    "A module's syntax tree."
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def test_no_module_is_longer_than_500_lines():
    lengths = {m: len(p.read_text(encoding="utf-8").splitlines()) for m, p in MODULES.items()}
    assert {m: n for m, n in lengths.items() if n > 500} == {}


def test_a_class_with_one_subclass_has_a_use_of_its_own():
    subclasses, classes = defaultdict(set), set()
    used = {home.split(":")[1] for home in METHODS.values()}
    for module in MODULES:
        bases = set()
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef):
                classes.add(node.name)
                bases |= {id(base) for base in node.bases}
                for base in node.bases:
                    subclasses[ast.unparse(base).split(".")[-1]].add(f"{module}.{node.name}")
        used |= {n.id for n in ast.walk(tree(module)) if isinstance(n, ast.Name) and id(n) not in bases}
    assert {c: subclasses[c] for c in classes if len(subclasses[c]) == 1 and c not in used} == {}


def names_of(module):
    "The public functions, classes and constants that a module makes at its top level."
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found = [node.name]
        else:
            targets = node.targets if isinstance(node, ast.Assign) else []
            found = [target.id for target in targets if isinstance(target, ast.Name)]
        yield from (name for name in found if not name.startswith("_"))


def test_few_names_mean_two_things():
    "The command line aside, whose commands bear the names of the functions they call."
    homes = defaultdict(set)
    for module in MODULES:
        for name in names_of(module):
            homes[name].add(module)
    twice = {n: found for n, found in homes.items() if len({m for m in found if ".cli" not in m}) > 1}
    assert len(twice) < 10, twice


def imported(module):
    "The package's modules that a module imports when it is loaded."
    package = (
        module.rsplit(".", 1)[0]
        if MODULES[module].name != "__init__.py"
        else module.removesuffix(".__init__")
    )
    for node in tree(module).body:
        if isinstance(node, ast.ImportFrom):
            home = (
                ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            )
            source = ".".join(filter(None, (home, node.module)))
            for name in (source, *(f"{source}.{alias.name}" for alias in node.names)):
                if name in MODULES and name != module:
                    yield name


def test_no_imports_go_in_a_circle():
    graph = {module: set(imported(module)) for module in MODULES}
    assert len(graph["rsssl_nb.methods.grass"]) > 5  # relative and absolute imports are both seen
    list(TopologicalSorter(graph).static_order())  # CycleError names the circle
