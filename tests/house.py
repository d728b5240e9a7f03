"""The house's counts, each beside what it may be: `python tests/house.py` (make house).

Lines, statements and annotations are ruff's and mypy's. They are counted once more here, in the modules as
they are shipped.
"""

import ast
import json
import subprocess
import sys
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "rsssl_nb").rglob("*.py"))
    if path.name != "_modidx.py"
}
WIDE = 110
ANNOTATED = ("rsssl_nb.objectives", "rsssl_nb.views", "rsssl_nb.methods")


@cache
def text(module):
    "A module's text."
    return MODULES[module].read_text(encoding="utf-8")


@cache
def tree(module):
    "A module's syntax tree."
    return ast.parse(text(module))


def lengths():
    "The lines of each module, the longest first."
    found = {module: len(text(module).splitlines()) for module in MODULES}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def wide_lines():
    "Lines over 110 columns, but for `__all__`, which nbdev writes in one."
    found = []
    for module in MODULES:
        lines = text(module).splitlines()
        named = set()
        for node in tree(module).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                named = set(range(node.lineno, node.end_lineno + 1))
        found += [(module, i) for i, line in enumerate(lines, 1) if len(line) > WIDE and i not in named]
    return found


def shared_lines():
    "Lines on which a statement begins after another has, (module, line)."
    found = []
    for module in MODULES:
        for node in ast.walk(tree(module)):
            for body in (getattr(node, field, None) for field in ("body", "orelse", "finalbody")):
                if not isinstance(body, list):
                    continue
                lines = [statement.lineno for statement in body]
                if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef | ast.ClassDef):
                    lines = [node.lineno, *lines]
                found += [(module, a) for a, b in zip(lines, lines[1:]) if a == b]
    return found


def lone_subclasses(methods):
    "Classes with one subclass that nobody uses otherwise; `methods` are the registry's module:class."
    subclasses, classes = defaultdict(set), set()
    used = {home.split(":")[1] for home in methods.values()}
    for module in MODULES:
        bases = set()
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef):
                classes.add(node.name)
                bases |= {id(base) for base in node.bases}
                for base in node.bases:
                    subclasses[ast.unparse(base).split(".")[-1]].add(f"{module}.{node.name}")
        used |= {n.id for n in ast.walk(tree(module)) if isinstance(n, ast.Name) and id(n) not in bases}
    return {c: subclasses[c] for c in classes if len(subclasses[c]) == 1 and c not in used}


def names_of(module):
    "The public functions, classes and constants that a module makes at its top level."
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found = [node.name]
        else:
            targets = node.targets if isinstance(node, ast.Assign) else []
            found = [target.id for target in targets if isinstance(target, ast.Name)]
        yield from (name for name in found if not name.startswith("_"))


def names_of_two_things():
    "Top-level names of two modules or more; the command line bears the names of the functions it calls."
    homes = defaultdict(set)
    for module in MODULES:
        for name in names_of(module):
            homes[name].add(module)
    return {n: found for n, found in homes.items() if len({m for m in found if ".cli" not in m}) > 1}


def without_annotations():
    "Public functions and methods of objectives, views and methods with a parameter or result not annotated."
    found = []
    for module in (m for m in MODULES if m.startswith(ANNOTATED)):
        tops = tree(module).body
        inner = [n for c in tops if isinstance(c, ast.ClassDef) for n in c.body]
        for node in (n for n in (*tops, *inner) if isinstance(n, ast.FunctionDef)):
            if node.name.startswith("_") and node.name != "__init__":
                continue
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            bare = [a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")]
            if bare or (node.returns is None and node.name != "__init__"):
                found.append(f"{module}.{node.name}")
    return found


def imported(module):
    "The package's modules that a module imports when it is loaded."
    is_package = MODULES[module].name == "__init__.py"
    package = module.removesuffix(".__init__") if is_package else module.rsplit(".", 1)[0]
    for node in tree(module).body:
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            home = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (home, node.module)))
            for name in (source, *(f"{source}.{alias.name}" for alias in node.names)):
                if name in MODULES and name != module:
                    yield name


def circles():
    "The circle of imports that is found first, or nothing."
    graph = {module: set(imported(module)) for module in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def says_nothing(*command):
    "Whether a command, run by this Python's environment at the root, ends well."
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True).returncode == 0


def pages():
    "Notebooks that are there, and those that `tests/pages.py` executes."
    from rsssl_nb import lessons

    there = [p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    return len(there), len(lessons.pages())


def main():
    "Prints the counts."
    from rsssl_nb.methods.registry import METHODS

    sizes = lengths()
    largest = next(iter(sizes))
    there, executed = pages()
    rows = [
        ("modules", len(MODULES), ""),
        ("lines over 110 columns", len(wide_lines()), "0"),
        ("statements that share a line", len(shared_lines()), "0"),
        (f"largest module ({largest.removeprefix('rsssl_nb.')})", sizes[largest], "at most 500"),
        ("modules over 450 lines", sum(n > 450 for n in sizes.values()), "0"),
        ("classes with one subclass and no use of their own", len(lone_subclasses(METHODS)), "0"),
        (
            "public functions without annotations (objectives, views, methods)",
            len(without_annotations()),
            "0",
        ),
        ("names at the top of two modules", len(names_of_two_things()), "below 10"),
        ("circles of imports", len(circles()), "0"),
        ("mypy", "clean" if says_nothing("mypy") else "not clean", "clean"),
        ("ruff", "clean" if says_nothing("ruff", "check", ".") else "not clean", "clean"),
        (
            "imports upward, doors",
            "none" if says_nothing("pytest", "-q", "tests/test_layers.py") else "some",
            "none",
        ),
        ("notebooks", there, ""),
        ("notebooks that are executed", executed, str(there)),
    ]
    for name, value, wanted in rows:
        print(f"{name:<66} {value:>9}  {wanted}")
    for name in ("grass", "ssccl", "glcnet", "false"):
        print(f"methods/{name}.py: {sizes[f'rsssl_nb.methods.{name}']} lines")
    if "--names" in sys.argv:
        print(json.dumps({name: sorted(homes) for name, homes in names_of_two_things().items()}, indent=1))


if __name__ == "__main__":
    main()
