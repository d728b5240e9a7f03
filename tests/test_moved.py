"Names that moved: an import by an old spelling works, and a warning says where the name lives now."

import ast
from importlib import import_module
from pathlib import Path

import pytest

import rsssl_nb

ROOT = Path(rsssl_nb.__file__).parent
FORWARDING = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in sorted(ROOT.rglob("*.py"))
    if path.stem != "moved" and "__getattr__ = forward(" in path.read_text(encoding="utf-8")
]


def old_names(module):
    "The table of a module's `forward`, read from its closure."
    getter = vars(module)["__getattr__"]
    return dict(zip(getter.__code__.co_freevars, (cell.cell_contents for cell in getter.__closure__)))[
        "table"
    ]


@pytest.mark.parametrize("name", FORWARDING)
def test_every_old_name_has_a_home(name):
    module = import_module(name)
    for old in set(old_names(module)) - set(vars(module)):
        with pytest.warns(DeprecationWarning, match=f"{old} lives in rsssl_nb"):
            assert getattr(module, old) is not None
    with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
        module.__getattr__("nowhere")


@pytest.mark.parametrize("name", FORWARDING)
def test_no_old_name_is_used_inside(name):
    "Modules of the package import names from where they live."
    module = import_module(name)
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            if node.level:
                package = path.relative_to(ROOT.parent).parts[: -node.level]
                home = ".".join([*package, node.module])
            else:
                home = node.module
            if home == name:
                stale = {alias.name for alias in node.names} & set(old_names(module))
                assert not stale, f"{path.relative_to(ROOT.parent)} imports {stale} from {name}"
