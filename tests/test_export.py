"""The pages are the only source: exporting them into an empty folder gives the package as it stands, nothing
more, nothing less.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HAND_WRITTEN = {"__init__.py", "__main__.py", "doctor.py", "lessons.py", "moved.py", "py.typed"}


def is_hand_written(name):
    return name in HAND_WRITTEN or name.startswith("cli/")


def generated(folder):
    "Every exported file of a package folder, by relative name."
    return {
        p.relative_to(folder).as_posix(): p.read_text()
        for p in folder.rglob("*.py")
        if p.name != "__init__.py" and not is_hand_written(p.relative_to(folder).as_posix())
    }


def test_export_is_in_sync(tmp_path):
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (tmp_path / "rsssl_nb").mkdir()
    for name in sorted(HAND_WRITTEN):
        shutil.copy(ROOT / "rsssl_nb" / name, tmp_path / "rsssl_nb")
    shutil.copytree(ROOT / "rsssl_nb/cli", tmp_path / "rsssl_nb/cli")
    subprocess.run(
        [Path(sys.executable).parent / "nbdev-export"], cwd=tmp_path, check=True, capture_output=True
    )
    # nbdev 3 lists modules with docstrings of more than three lines in the package's docstring and llms.txt
    assert not (tmp_path / "nbs/llms.txt").exists(), "a module's docstring is longer than three lines"
    init = "rsssl_nb/__init__.py"
    assert (tmp_path / init).read_text(encoding="utf-8") == (ROOT / init).read_text(encoding="utf-8")
    fresh, here = generated(tmp_path / "rsssl_nb"), generated(ROOT / "rsssl_nb")
    assert set(fresh) == set(here), f"left over or missing: {set(fresh) ^ set(here)}"
    assert [n for n in fresh if fresh[n] != here[n]] == [], "differs from its page: run nbdev-export"


def test_pages_are_clean(tmp_path):
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    before = {p: p.read_text() for p in (tmp_path / "nbs").rglob("*.ipynb")}
    subprocess.run(
        [Path(sys.executable).parent / "nbdev-clean"], cwd=tmp_path, check=True, capture_output=True
    )
    assert [p.name for p, text in before.items() if p.read_text() != text] == [], "run nbdev-clean"


def test_lines_of_modules_are_at_most_110_wide():
    for path in sorted((ROOT / "rsssl_nb").rglob("*.py")):
        if path.name == "_modidx.py":
            continue
        text = re.sub(r"^__all__ = \[.*?\]", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        assert [line for line in text.splitlines() if len(line) > 110] == [], path
