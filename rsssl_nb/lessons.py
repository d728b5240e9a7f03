"""The lessons: where they are, how they get into a folder, and how a folder of answers is marked.

Written by hand, as the command line is: `rsssl-nb lessons`, `copy`, `lab` and `grade` are these functions.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

from rsssl_nb.files import write_aside
from rsssl_nb.moved import forward

FLAGS = {"slow", "gpu"}
ROOMS = ("course", "howto", "explore", "gallery", "evidence", "library")


def root():
    "The folder of the lessons: inside an installed package, beside it in a clone."
    here = Path(__file__).parent
    found = next((p for p in (here / "nbs", here.parent / "nbs") if p.is_dir()), None)
    if found is None:
        raise ValueError(
            f"{here} has no lessons: install the package again, with pip install --force-reinstall rsssl_nb"
        )
    return found


def results():
    "The folder of saved rows that the evidence pages read, beside the lessons."
    return root().parent / "results"


def rows(name):
    "The rows of a file of results, such as lights.json: a list of dicts."
    return json.loads((results() / name).read_text(encoding="utf-8"))


def pages(folder=None):
    """Every notebook under a folder of lessons (default: the package's own), as a list of paths.

    The rooms come in the order of `ROOMS`, the pages of a room by name: the course stands in its own order.
    Hidden files, Jupyter's checkpoints and versions beside a changed page (`NAME.new.ipynb`) are no pages.
    """
    folder = Path(folder or root())
    names = [p.relative_to(folder) for p in folder.rglob("*.ipynb")]
    return [folder / name for name in sorted(filter(is_page, names), key=place_in_the_house)]


def is_page(name):
    "Whether a notebook's path below the lessons is a page's: not hidden, no checkpoint, no `.new` version."
    return ".new" not in name.suffixes and not any(part.startswith((".", "_proc")) for part in name.parts)


def place_in_the_house(name):
    "What pages are sorted by: (number of the room, path)."
    room = name.parts[0]
    return ROOMS.index(room) if room in ROOMS else len(ROOMS), name.as_posix()


def cells(path):
    "A notebook's cells, each with `cell_type` and `source`; ValueError when the file is no notebook."
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        return [SimpleNamespace(cell_type=c["cell_type"], source="".join(c["source"])) for c in found]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is not a notebook: open it in a text editor, or fetch the page again with rsssl-nb copy"
        ) from None


def describe(path):
    "What a page says of itself: (minutes to read, seconds to run, title, quoted line)."
    text = "\n".join(c.source for c in cells(path) if c.cell_type == "markdown")
    minutes = re.search(r"(\d+) min to read", text)
    seconds = re.search(r"(\d+) s to run", text)
    title, line = re.search(r"^# (.+)\n+> (.+)", text, re.M).groups()
    return int(minutes[1]) if minutes else 0, int(seconds[1]) if seconds else 0, title, line


# --- into a folder of one's own


def same(one, other):
    "Whether two notebooks have the same cells, whatever their outputs; other files, the same bytes."
    try:
        return cells(one) == cells(other)
    except ValueError:
        return one.read_bytes() == other.read_bytes()


def place(source, target, force=False):
    """Copies one file; gives where it went, or None if it was there.

    A file with other content is kept, and ours goes beside it as NAME.new, unless `force`.
    """
    if target.exists() and not force:
        return None if same(source, target) else place(source, target.with_stem(target.stem + ".new"))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_aside(target, lambda aside: shutil.copyfile(source, aside))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None  # Python names the source
    return target


def copy(folder, force=False, only_missing=False):
    "Copies the lessons into a folder, not over files that differ (unless `force`): gives the files written."
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder, as in rsssl-nb copy lessons")
    written = []
    for source in sorted(p for p in root().rglob("*") if p.is_file()):
        name = source.relative_to(root())
        target = folder / name
        if any(part.startswith(".") for part in name.parts) or only_missing and target.exists():
            continue
        written.append(place(source, target, force))
    return [path for path in written if path]


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
            f"the kernel python3 starts {python}, which has no rsssl_nb: "
            f"{Path(sys.executable).name} -m ipykernel install --sys-prefix"
        )


def lab(folder, *options):
    """Copies the lessons that are missing and opens JupyterLab on the tour; returns when it is stopped.

    The server listens to this machine only, and asks for a token.
    """
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
    """A page's exercises, by the number of the cell that checks them.

    {check cell: (name of the function, source of the stub, source of the folded solution or None)}.
    """
    found = {}
    for i, cell in enumerate(cells):
        if cell.cell_type != "code" or "exercise" not in directives(cell.source):
            continue
        name = re.search(r"^def (\w+)", cell.source, re.M).group(1)
        check = next(j for j in range(i, len(cells)) if is_check(cells[j]))
        found[check] = name, cell.source, folded_solution(cells[check + 1 :])
    return found


def is_check(cell):
    "Whether a cell calls `check`."
    return cell.cell_type == "code" and re.search(r"^check\(", cell.source, re.M) is not None


def folded_solution(cells):
    "The code of the first solution folded away in Markdown cells, or None."
    for cell in cells:
        block = re.search(r"<summary>Solution</summary>.*?```python\n(.*?)```", cell.source, re.S)
        if cell.cell_type == "markdown" and block:
            return block[1]
    return None


def mark(name, answer, check, page, seconds=10):
    """The verdict on an answer's source: (passed, failed or not attempted; the sentence that `check` says).

    `check` is the source of the page's own check cell, `page` the page's globals, of which the answer sees a
    copy. Runs in the page's kernel.
    """
    from rsssl_nb.check import TooLong, limit

    mine = {**page}
    try:
        with limit(seconds):
            exec(answer, mine)
    except TooLong:
        return "failed", f"✗ no end within {seconds} s"
    except BaseException as error:
        return "failed", f"✗ it raised {type(error).__name__}: {error}"
    judge = {**page, name: mine.get(name)}
    exec(re.sub(r"^check\(", "_verdict = check(", check, flags=re.M), judge)
    verdict = judge["_verdict"]
    if not verdict.attempted:
        return "not attempted", verdict.sentence
    return "passed" if verdict.passed else "failed", verdict.sentence


# --- a folder of answers


def page_answered(name, lessons):
    """The page that a notebook's file name means, or None: of those whose name it holds, the longest.

    `name` is the file's name without its suffix. A page of the course is also found without its number, so
    `53_false-anna` of an earlier version means `06_false`. Names are whole words: `rerun` holds no `run`.
    """
    held = {}
    for page in lessons:
        for known in (page.stem, re.sub(r"^\d+_", "", page.stem)):
            if re.search(rf"(?<![^\W\d_]){known}(?![^\W\d_])", name):
                held[known] = page
    return held[max(held, key=len)] if held else None


def answers(path, page):
    "What a notebook answers to a page's exercises: {check cell: source, None where the stub is untouched}."
    mine = [c.source for c in cells(path) if c.cell_type == "code"]
    found = {}
    for check, (name, stub, _) in exercises(page).items():
        given = next((s for s in reversed(mine) if re.search(rf"^def {name}\(", s, re.M)), stub)
        found[check] = None if given.strip() == stub.strip() else given
    return found


def grade(folder):
    """Marks every notebook under a folder whose name holds a page's; yields a dict a verdict.

    Names are such as `anna/06_false.ipynb` or `06_false-anna.ipynb`. Each page runs once, from the package,
    however many answered it; answers are tried in its kernel, each on a copy of its names.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give one that holds the notebooks")
    check_kernel()
    asking = [page for page in pages() if exercises(cells(page))]
    turned_in = defaultdict(dict)
    for path in sorted(p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts):
        page = page_answered(path.stem, asking)
        file = path.relative_to(folder).as_posix()
        row = dict(file=file, page=page.stem if page else "", exercise="", verdict="not marked")
        if page is None:
            yield {**row, "sentence": "no page with an exercise has this name"}
            continue
        try:
            turned_in[page][file] = answers(path, cells(page))
        except ValueError:
            yield {**row, "sentence": "the file is not a notebook"}
    for page, files in turned_in.items():
        asked = exercises(cells(page))
        marks = run_marks(page, files)
        for file, given in files.items():
            for check in given:
                verdict, sentence = marks[file, check]
                exercise = asked[check][0]
                yield dict(file=file, page=page.stem, exercise=exercise, verdict=verdict, sentence=sentence)


def run_marks(page, files):
    "Runs a page once, marks every answer where its check stands: {(file, check cell): (verdict, sentence)}."
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    asked = exercises(cells(page))
    found = {(file, check): ("not attempted", "…") for file, given in files.items() for check in given}
    todo = [(check, file) for check in asked for file, given in files.items() if given[check] is not None]
    if not todo:
        return found
    for check, file in todo:
        found[file, check] = "not marked", "the page did not get as far as this check"
    nb = nbformat.read(page, 4)
    client = NotebookClient(
        nb,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(page.parent)}},
        extra_arguments=["--log-level=ERROR"],
    )
    with client.setup_kernel():
        try:
            for i, cell in enumerate(nb.cells[: max(check for check, _ in todo) + 1]):
                if cell.cell_type == "code" and cell.source.strip() and not is_skipped(cell.source):
                    client.execute_cell(cell, i)
                for file in [file for check, file in todo if check == i]:
                    found[file, i] = try_answer(client, asked[i][0], files[file][i], cell.source)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{page.name}: {type(error).__name__}", file=sys.stderr)
    return found


def try_answer(client, name, answer, check):
    "Has the page's kernel mark one answer."
    from nbformat.v4 import new_code_cell

    call = f"mark({name!r}, {answer!r}, {check!r}, globals())"
    cell = new_code_cell(f"__import__('rsssl_nb.lessons').lessons.{call}")
    client.execute_cell(cell, 0)
    result = next(o for o in cell.outputs if o.output_type == "execute_result")
    return ast.literal_eval(result["data"]["text/plain"])


__getattr__ = forward(__name__)
