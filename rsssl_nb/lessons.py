"""The lessons: where they are, how they get into a folder of one's own, and how a folder of answers is marked.

Written by hand, as cli.py is: `rsssl-nb lessons`, `copy`, `lab` and `grade` are these functions.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

from rsssl_nb.moved import forward

FLAGS = {"slow", "gpu"}


def root():
    "The folder of the lessons: inside an installed package, beside it in a clone."
    here = Path(__file__).parent
    found = next((p for p in (here / "nbs", here.parent / "nbs") if p.is_dir()), None)
    if found is None:
        raise ValueError(
            f"{here} has no lessons: install the package again, with pip install --force-reinstall rsssl_nb"
        )
    return found


ROOMS = ("course", "howto", "explore", "gallery", "evidence", "library")


def pages(folder=None):
    "Every page in a folder of lessons (default: the package's own): the course in its order, then room by room."
    folder = Path(folder or root())
    found = [p for p in folder.rglob("*.ipynb") if not is_copy(p.relative_to(folder))]

    def place(path):
        room = path.relative_to(folder).parts[0]
        return ROOMS.index(room) if room in ROOMS else len(ROOMS), path.relative_to(folder).as_posix()

    return sorted(found, key=place)


def is_copy(path):
    "Whether a path is no page of ours: hidden, a checkpoint of JupyterLab's, or our version beside a changed one."
    return ".new" in path.suffixes or any(part.startswith((".", "_proc")) for part in path.parts)


def cells(path):
    "A notebook's cells, each with `cell_type` and `source`; ValueError when the file is no notebook."
    try:
        return [
            SimpleNamespace(cell_type=c["cell_type"], source="".join(c["source"]))
            for c in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        ]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is not a notebook: open it in a text editor, or fetch the page again with rsssl-nb copy"
        ) from None


def describe(path):
    "What a page says of itself: (minutes to read, seconds to run, title, quoted line)."
    text = "\n".join(c.source for c in cells(path) if c.cell_type == "markdown")
    numbers = (re.search(pattern, text) for pattern in (r"(\d+) min to read", r"(\d+) s to run"))
    return *(int(n.group(1)) if n else 0 for n in numbers), *re.search(
        r"^# (.+)\n+> (.+)", text, re.M
    ).groups()


# --- into a folder of one's own


def same(one, other):
    "Whether two notebooks have the same cells, whatever their outputs; other files, the same bytes."
    try:
        return cells(one) == cells(other)
    except ValueError:
        return one.read_bytes() == other.read_bytes()


def place(source, target, force=False):
    "Copies one file; gives where it went, or None if it was there. A file with other content is kept, and ours goes beside it as NAME.new."
    if target.exists() and not force:
        return None if same(source, target) else place(source, target.with_stem(target.stem + ".new"))
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, aside), os.replace(aside, target)
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(target)) from None  # Python names the source
    finally:
        aside.unlink(missing_ok=True)
    return target


def copy(folder, force=False, only_missing=False):
    "Copies the lessons into a folder, never over a file that differs (unless `force`): gives the files written."
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder, as in rsssl-nb copy lessons")
    files = [
        p
        for p in sorted(root().rglob("*"))
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(root()).parts)
    ]
    pairs = [(p, folder / p.relative_to(root())) for p in files]
    return list(
        filter(
            None, (place(p, target, force) for p, target in pairs if not (only_missing and target.exists()))
        )
    )


# --- in JupyterLab


def check_kernel():
    "ValueError, with the cure, unless Jupyter's kernel `python3` can import this package."
    try:
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError:
        raise ValueError("JupyterLab is not installed: pip install 'rsssl_nb[lab]'") from None
    python = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if not Path(python).is_absolute():
        python = sys.executable  # Jupyter starts its own `python` so
    if subprocess.run([python, "-c", "import rsssl_nb"], capture_output=True).returncode:
        raise ValueError(
            f"the kernel python3 starts {python}, which has no rsssl_nb: {Path(sys.executable).name} -m ipykernel install --sys-prefix"
        )


def lab(folder, *options):
    "Copies the lessons that are missing and opens JupyterLab on the tour: this machine only, with a token; returns when it is stopped."
    check_kernel()
    copy(folder, only_missing=True)
    from jupyterlab.labapp import main

    return main(
        [
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.allow_root=True",
            f"--ServerApp.root_dir={folder.resolve()}",
            "--LabApp.default_url=/lab/tree/course/00_tour.ipynb",
            *options,
        ]
    )


# --- exercises


def directives(source):
    "The `#|` lines of a cell, as a set: {'export', 'hide', 'eval: false'}."
    return {line[2:].strip() for line in source.splitlines() if line.startswith("#|")}


def is_skipped(source, flags=frozenset()):
    "Whether a run with `flags` leaves the cell alone."
    found = directives(source)
    return "eval: false" in found or bool((found & FLAGS) - set(flags))


def exercises(cells):
    "A page's exercises, by the number of the cell that checks them: {check cell: (function name, stub, folded solution)}."
    found = {}
    for i, cell in enumerate(cells):
        if cell.cell_type != "code" or "exercise" not in directives(cell.source):
            continue
        name = re.search(r"^def (\w+)", cell.source, re.M).group(1)
        check = next(
            j
            for j in range(i, len(cells))
            if cells[j].cell_type == "code" and re.search(r"^check\(", cells[j].source, re.M)
        )
        blocks = (
            re.search(r"<summary>Solution</summary>.*?```python\n(.*?)```", c.source, re.S)
            for c in cells[check + 1 :]
            if c.cell_type == "markdown"
        )
        found[check] = name, cell.source, next((b.group(1) for b in blocks if b), None)
    return found


def mark(name, answer, check, page, seconds=10):
    """The verdict on an answer's source: (passed, failed or not attempted; the sentence that `check` says).

    `check` is the source of the page's own check cell, `page` the page's globals, of which the answer sees a copy. Runs in the page's kernel.
    """
    from rsssl_nb.check import TooLong, limit

    mine = {**page}
    try:
        with limit(seconds):
            exec(answer, mine)
    except TooLong:
        return "failed", f"✗ no end within {seconds} s"
    except BaseException as e:
        return "failed", f"✗ it raised {type(e).__name__}: {e}"
    judge = {**page, name: mine.get(name)}
    exec(re.sub(r"^check\(", "_verdict = check(", check, flags=re.M), judge)
    verdict = judge["_verdict"]
    return (
        "passed" if verdict.passed else "failed" if verdict.attempted else "not attempted",
        verdict.sentence,
    )


# --- a folder of answers


def answers(path, page):
    "What a notebook answers to a page's exercises: {check cell: source, None where the stub is untouched or gone}."
    mine, found = [c.source for c in cells(path) if c.cell_type == "code"], {}
    for check, (name, stub, _) in exercises(page).items():
        given = next((s for s in reversed(mine) if re.search(rf"^def {name}\(", s, re.M)), stub)
        found[check] = None if given.strip() == stub.strip() else given
    return found


def grade(folder):
    """Marks every notebook under a folder whose name holds a page's, as `anna/53_false.ipynb` or `53_false-anna.ipynb`; yields a dict a verdict.

    Each page runs once, from the package, however many answered it; answers are tried in its kernel, each on a copy of its names.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give one that holds the notebooks")
    check_kernel()
    lessons, turned_in = pages(), defaultdict(dict)
    for path in sorted(p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts):
        page = next((p for p in lessons if p.stem in path.stem), None)
        row = dict(file=path.relative_to(folder).as_posix(), page=page.stem if page else "", exercise="")
        if page is None:
            yield {**row, "verdict": "not marked", "sentence": "no page has this name"}
        else:
            try:
                turned_in[page][row["file"]] = answers(path, cells(page))
            except ValueError:
                yield {**row, "verdict": "not marked", "sentence": "the file is not a notebook"}
    for page, files in turned_in.items():
        asked, marks = exercises(cells(page)), run_marks(page, files)
        for file, given in files.items():
            for check in given:
                yield dict(
                    file=file,
                    page=page.stem,
                    exercise=asked[check][0],
                    **dict(zip(("verdict", "sentence"), marks[file, check])),
                )


def run_marks(page, files):
    "Runs a page once and marks every answer where its check stands: {(file, check cell): (verdict, sentence)}."
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    asked, found = (
        exercises(cells(page)),
        {(f, c): ("not attempted", "…") for f, given in files.items() for c in given},
    )
    todo = [(check, file) for check in asked for file, given in files.items() if given[check] is not None]
    if not todo:
        return found
    nb = nbformat.read(page, 4)
    found.update(
        {(file, check): ("not marked", "the page did not get as far as this check") for check, file in todo}
    )
    client = NotebookClient(
        nb,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(page.parent)}},
        extra_arguments=["--log-level=ERROR"],
    )
    with client.setup_kernel():
        try:
            for i, cell in enumerate(nb.cells[: max(c for c, _ in todo) + 1]):
                if cell.cell_type == "code" and cell.source.strip() and not is_skipped(cell.source):
                    client.execute_cell(cell, i)
                for file in (f for c, f in todo if c == i):
                    found[file, i] = try_answer(client, asked[i][0], files[file][i], cell.source)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
            print(f"{page.name}: {type(e).__name__}", file=sys.stderr)
    return found


def try_answer(client, name, answer, check):
    "Has the page's kernel mark one answer."
    from nbformat.v4 import new_code_cell

    cell = new_code_cell(
        f"__import__('rsssl_nb.lessons').lessons.mark({name!r}, {answer!r}, {check!r}, globals())"
    )
    client.execute_cell(cell, 0)
    return ast.literal_eval(
        next(o["data"]["text/plain"] for o in cell.outputs if o.output_type == "execute_result")
    )


__getattr__ = forward(__name__, {"kernel_reply": "doctor:kernel_reply"})
