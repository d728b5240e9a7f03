"The lessons as a pip user has them: listed, copied without loss, served, marked; bad input in a sentence."

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

import rsssl_nb
from rsssl_nb import lessons
from rsssl_nb.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = "gallery/lejepa.ipynb"  # a quick page with an exercise


def run(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def refused(*args, says):
    said = run(*args, code=2).stderr.strip()
    assert "Traceback" not in said and len(said.splitlines()) == 1 and says in said, said


def edit(path, old, new):
    "Replaces text in a notebook's cells, as a student would."
    nb = json.loads(path.read_text(encoding="utf-8"))
    assert any(old in "".join(c["source"]) for c in nb["cells"])
    for c in nb["cells"]:
        c["source"] = "".join(c["source"]).replace(old, new)
    path.write_text(json.dumps(nb), encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The wheel, and the copy of the sources that it was built from."
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "settings.ini", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    for name in ("rsssl_nb", "nbs", "results"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*", "*.part")
        )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(out),
            str(source),
        ],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl")), source


def test_the_wheel_has_the_lessons_and_nothing_else(wheel):
    file, source = wheel
    with zipfile.ZipFile(file) as z:
        held = {
            n.removeprefix("rsssl_nb/nbs/"): z.read(n) for n in z.namelist() if n.startswith("rsssl_nb/nbs/")
        }
        rows = {Path(n).name: z.read(n) for n in z.namelist() if n.startswith("rsssl_nb/results/")}
        packed = {n.filename: n.compress_size for n in z.infolist()}
    assert rows == {path.name: path.read_bytes() for path in lessons.results().glob("*.json")}
    assert {row["arm"] for row in lessons.rows("lights.json")} >= {"fresh", "simclr-kept"}
    ours = {
        p.relative_to(source / "nbs").as_posix(): p.read_bytes()
        for p in (source / "nbs").rglob("*")
        if p.is_file()
    }
    assert held == ours and sum(n.endswith(".ipynb") for n in held) == len(lessons.pages())
    encoders = sum(size for name, size in packed.items() if name.startswith("rsssl_nb/checkpoints/"))
    assert 0 < encoders < 25e6 and file.stat().st_size - encoders < 9e6  # encoders; pages, rows and code


def test_one_line_a_page():
    lines = run("lessons").stdout.splitlines()
    assert len(lines) == len(lessons.pages()) and all(len(line) < 110 and " min " in line for line in lines)
    assert lines[0].split()[:5] == ["course/00_tour.ipynb", "20", "min", "60", "s"] and lines[0].endswith(
        "The tour"
    )


def test_every_notebook_is_a_page_and_the_course_stands_first():
    found = {p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    listed = [p.relative_to(lessons.root()).as_posix() for p in lessons.pages()]
    assert set(lessons.pages()) == found and len(listed) == len(found)
    course = [n for n in listed if n.startswith("course/")]
    assert listed[: len(course)] == sorted(course)
    rooms = list(dict.fromkeys(n.split("/")[0] for n in listed))
    assert rooms == [room for room in lessons.ROOMS if room in rooms]


def test_what_is_no_page_is_not_listed(tmp_path):
    for name in ("course/00_tour", "other/x", "course/.ipynb_checkpoints/a", "course/00_tour.new", "_proc/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.ipynb").touch()
    listed = [p.relative_to(tmp_path).as_posix() for p in lessons.pages(tmp_path)]
    assert listed == ["course/00_tour.ipynb", "other/x.ipynb"]


@pytest.mark.parametrize(
    "name, page",
    {
        "06_false": "06_false",
        "06_false-anna": "06_false",
        "anna-false (1)": "06_false",
        "53_false": "06_false",  # its name in an earlier version
        "run_of_08_grass": "08_grass",  # the longest name wins
        "rerun": None,
        "falsely": None,
        "diary": None,
    }.items(),
)
def test_a_name_means_the_longest_page_it_holds(name, page):
    known = [Path(f"{n}.ipynb") for n in ("06_false", "08_grass", "run", "moco")]
    found = lessons.page_answered(name, known)
    assert (found and found.stem) == page


def test_pages_with_exercises_have_names_of_their_own():
    stems = [p.stem for p in lessons.pages() if lessons.exercises(lessons.cells(p))]
    assert [s for s in stems if lessons.page_answered(s, [Path(f"{n}.ipynb") for n in stems]).stem != s] == []
    assert len(stems) == len(set(stems))


def test_a_copy_keeps_what_a_student_wrote(tmp_path):
    run("copy", tmp_path)
    copied = [p.relative_to(tmp_path) for p in lessons.pages(tmp_path)]
    assert copied == [p.relative_to(lessons.root()) for p in lessons.pages()]
    assert "nothing to copy" in run("copy", tmp_path).stdout
    mine, ours = tmp_path / PAGE, lessons.root() / PAGE
    edit(mine, "...  # your turn", "return 1")
    edited = mine.read_bytes()
    said = run("copy", tmp_path).stdout
    assert (
        mine.read_bytes() == edited
        and mine.with_stem("lejepa.new").read_bytes() == ours.read_bytes()
        and "kept yours" in said
    )
    edit(mine.with_stem("lejepa.new"), "...  # your turn", "return 2")  # and wrote in ours, too
    run("copy", tmp_path)
    assert "return 2" in mine.with_stem("lejepa.new").read_text()
    assert mine.with_stem("lejepa.new.new").read_bytes() == ours.read_bytes()
    run("copy", tmp_path, "--force")
    assert mine.read_bytes() == ours.read_bytes()


def test_a_page_that_only_ran_is_no_edit(tmp_path):
    run("copy", tmp_path)
    mine = tmp_path / PAGE
    nb = json.loads(mine.read_text())
    for c in nb["cells"]:
        c.pop("outputs", None)
    mine.write_text(json.dumps(nb))
    assert "nothing to copy" in run("copy", tmp_path).stdout


def test_bad_destinations(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("mine")
    refused("copy", file, says="is a file: give a folder")
    refused("copy", file / "below", says="Not a directory")
    broken = tmp_path / "broken" / PAGE
    broken.parent.mkdir(parents=True)
    broken.write_text("no json")
    run("copy", tmp_path / "broken")
    assert broken.read_text() == "no json" and broken.with_stem("lejepa.new").exists()

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr(shutil, "copyfile", full)
    refused("copy", tmp_path / "full", says="full/course/00_tour.ipynb: No space left on device")
    assert not [p for p in (tmp_path / "full").rglob("*") if p.is_file()] and file.read_text() == "mine"


def test_a_read_only_destination():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        if root := os.geteuid() == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            refused("copy", f"{folder}/lessons", says="Permission denied")
        finally:
            root and os.seteuid(0)


def test_a_kernel_without_the_package(tmp_path, monkeypatch):
    kernel = tmp_path / "kernels/python3"
    kernel.mkdir(parents=True)
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    other.chmod(0o755)
    (kernel / "kernel.json").write_text(
        json.dumps(
            dict(
                argv=[str(other), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                display_name="x",
                language="python",
            )
        )
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)  # else the other Python finds the package after all
    monkeypatch.setattr("jupyterlab.labapp.main", lambda argv: pytest.fail("JupyterLab was started"))
    monkeypatch.chdir(tmp_path)
    refused("lab", tmp_path / "lessons", says="has no rsssl_nb")
    refused("grade", tmp_path, says="ipykernel install")
    assert not (tmp_path / "lessons").exists()


ANSWERS = {
    "anna/lejepa.ipynb": None,
    "loops-lejepa.ipynb": "while True: pass",
    "raises-lejepa.ipynb": "raise KeyError(3)",
    "shape-lejepa.ipynb": "import torch; return torch.ones(7)",
    "untouched/lejepa.ipynb": "...  # your turn",
    "cheats-lejepa.ipynb": (
        "return 0\ndef check(*a): return type('V', (), dict(passed=True, attempted=True, sentence='fine'))"
    ),
}


@pytest.mark.long
def test_grading(tmp_path):
    page = lessons.root() / PAGE
    ((name, _, solution),) = lessons.exercises(lessons.cells(page)).values()
    for file, body in ANSWERS.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(page, tmp_path / file)
        answer = body or "pass\n" + solution
        edit(tmp_path / file, "...  # your turn", f"\n    {answer}")
    (tmp_path / "torn-lejepa.ipynb").write_text("no json")
    (tmp_path / "diary.ipynb").write_text("{}")
    rows = {r["file"]: r for r in csv.DictReader(io.StringIO(run("grade", tmp_path).stdout))}
    assert {f: r["verdict"] for f, r in rows.items()} == {
        "anna/lejepa.ipynb": "passed",
        "untouched/lejepa.ipynb": "not attempted",
        "diary.ipynb": "not marked",
        "torn-lejepa.ipynb": "not marked",
        **{f"{n}-lejepa.ipynb": "failed" for n in ("loops", "raises", "shape", "cheats")},
    }
    said = {f.partition("-")[0]: r["sentence"] for f, r in rows.items()}
    assert (
        "no answer within" in said["loops"]
        and "KeyError: 3" in said["raises"]
        and "shape (7,)" in said["shape"]
        and "no page" in said["diary.ipynb"]
        and "not a notebook" in said["torn"]
    )
    assert rows["anna/lejepa.ipynb"]["exercise"] == name


def test_grading_what_is_no_folder(tmp_path):
    refused("grade", tmp_path / "none", says="is not a folder")


# --- the doctor, in broken environments


def doctor(folder, code="", **env):
    """What `rsssl-nb doctor` says in a fresh process, after some code has broken it.

    (exit code, {what: (its line, the line after it)}).
    """
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom rsssl_nb.cli import main\nmain(['doctor'])"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **env},
    )
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stdout.splitlines()
    pairs = zip(lines, [*lines[1:], ""])
    return done.returncode, {line[7:21].strip(): (line, after) for line, after in pairs if line[0] != " "}


@pytest.mark.long
def test_the_doctor_finds_nothing_here(tmp_path):
    code, rows = doctor(tmp_path)
    assert code == 0 and not [line for line, _ in rows.values() if line.startswith("FAULT")], rows
    assert rows["kernel"][0].endswith(f"with rsssl_nb {rsssl_nb.__version__}") and set(rows) >= {
        "torch pair",
        "GPU",
        "rasters",
        "widget manager",
        "write access",
        "jupyterlab",
        "numpy",
    }


BROKEN = """
import sys, torch, shutil, tempfile, importlib.metadata as meta, jupyter_core.paths as paths
class Mismatched:                                       # what torch's CPU build says to PyPI's torchvision
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision": raise RuntimeError("operator torchvision::nms does not exist")
sys.meta_path.insert(0, Mismatched())
paths.jupyter_path = lambda *a: ["/nowhere"]            # no widget manager
torch.cuda.is_available = torch.backends.mps.is_available = lambda: False
version = meta.version
meta.version = lambda name: "0.1" if name == "scipy" else version(name)
real = meta.requires
meta.requires = lambda name: [r.replace("scipy", "scipy>=1.0") if r == "scipy" else r for r in real(name)]
def refuse(*a, **k): raise PermissionError(13, "Permission denied", ".")
tempfile.TemporaryFile = refuse
import rsssl_nb.doctor
def silent(): raise TimeoutError("no answer within 60 s")
rsssl_nb.doctor.kernel_reply = silent
"""


NO_LAB = """
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, *more: None if name == "jupyterlab" else find(name, *more)
"""


def test_an_installation_for_scripts_lacks_nothing(tmp_path):
    code, rows = doctor(tmp_path, NO_LAB)
    assert code == 0 and not [line for line, _ in rows.values() if line.startswith("FAULT")], rows
    line, cure = rows["jupyterlab"]
    assert line.startswith("note") and "rsssl_nb[lab]" in cure and "kernel" not in rows


def test_the_doctor_names_each_fault_and_its_cure(tmp_path):
    code, rows = doctor(tmp_path, BROKEN)
    assert code == 2
    for what, fault, cure in (
        ("torch pair", "nms does not exist", "install --force-reinstall torch torchvision"),
        ("widget manager", "panels stay blank", "jupyterlab_widgets"),
        ("scipy", "needs scipy>=1.0", "--upgrade scipy"),
        ("write access", "Permission denied", "choose a folder"),
        ("kernel", "no answer", "ipykernel install"),
    ):
        assert rows[what][0].startswith("FAULT") and fault in rows[what][0] and cure in rows[what][1], rows[
            what
        ]
    assert rows["GPU"][0].startswith("note") and "nothing to mend" in rows["GPU"][1]
