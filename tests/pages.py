"""Runs the pages in clean kernels: two at a time, one thread each, exercises replayed, minutes noted.

    python tests/pages.py                          run every page, write nothing but runs/pages.json
    python tests/pages.py nbs/course/04_*.ipynb  run these
    python tests/pages.py --refresh [PAGES]        run, and keep the outputs in the pages
    python tests/pages.py --flags gpu [PAGES]      also run cells flagged `#| gpu`

A page fails when a cell raises, when anything is left on stderr, or when an exercise's folded solution
does not pass
its own check (or an unfilled stub does). Cells whose saved outputs say something else than this run are named
(modules, rows or weights changed below them, or the machine did): they are worth a refresh, and no fault.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from rsssl_nb.lessons import exercises, is_skipped, pages

ROOT = Path(__file__).resolve().parents[1]
MEMORY = (
    "import resource, sys\n"
    "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == 'darwin' else 2**10)"
)
ROOM = 2000  # MB that a page may take: laptops


def replay(cells):
    """The cells to run: each page cell, and after each `check` one that marks the untouched stub, the folded
    solution and a wrong answer.
    """
    asked = exercises(cells)
    for i, cell in enumerate(cells):
        yield i, cell
        if i not in asked:
            continue
        name, stub, solution = asked[i]
        wrong = (
            f"{solution}\n_right = {name}\ndef {name}(*a, **k):\n    r = _right(*a, **k)\n"
            "    return (not r) if isinstance(r, bool) else [r] if isinstance(r, (str, dict)) else r*2 + 1"
        )
        for answer, verdict in ((stub, "not attempted"), (solution, "passed"), (wrong, "failed")):
            yield (
                None,
                new_code_cell(
                    f"_mark = __import__('rsssl_nb.lessons').lessons.mark({name!r}, {answer!r}, "
                    f"{cell.source!r}, globals())\n"
                    f"assert _mark[0] == {verdict!r}, f'{name} should have {verdict}: {{_mark}}'"
                ),
            )
    yield None, new_code_cell(MEMORY)


def stamp(nb):
    "A hash of the page's code cells, kept with the outputs they made."
    return hashlib.sha256(
        "\0".join(c.source for c in nb.cells if c.cell_type == "code").encode()
    ).hexdigest()[:16]


def tidy(outputs):
    "Outputs as a reader should find them: no widget views, no bars taken back, no execution noise."
    shown = [o for o in outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})]
    return [o for o in shown if o.get("data", None) != {"text/plain": ""}]


def said(outputs):
    "What outputs say in words, without times, megabytes and addresses, which differ at every run."
    texts = (o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)
    return re.sub(r"0x[0-9a-f]+|[\d.]+ ?(?:s|ms|min|minutes|seconds|MB)\b", "", "".join(texts))


def run_page(path, refresh=False, flags=frozenset()):
    "Runs one page; gives {page, seconds, slowest cell, MB at most, error, stderr, cells that say otherwise}."
    nb, started, error, stderr, slowest = nbformat.read(path, 4), time.time(), "", [], (0, 0)
    saved = {i: said(c.outputs) for i, c in enumerate(nb.cells) if c.cell_type == "code"}
    plan = list(replay(nb.cells))
    work = nbformat.v4.new_notebook(
        cells=[c for _, c in plan], metadata={"kernelspec": {"name": "python3", "display_name": "python3"}}
    )
    client = NotebookClient(
        work,
        timeout=600,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    results = {}
    with client.setup_kernel(
        env={
            **os.environ,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "MPLBACKEND": "agg",
            "PYTHONHASHSEED": "0",
        }
    ):
        for k, (i, cell) in enumerate(plan):
            if cell.cell_type != "code" or is_skipped(cell.source, flags) or not cell.source.strip():
                continue
            t = time.time()
            try:
                client.execute_cell(cell, k)
            except Exception as e:
                error = f"cell {i if i is not None else 'replayed'}: {e}"
                break
            if i is None:
                continue
            slowest = max(slowest, (round(time.time() - t, 1), i))
            results[i] = tidy(cell.outputs)
            stderr += [o["text"] for o in cell.outputs if o.get("name") == "stderr"]
    memory = int(cell.outputs[-1]["data"]["text/plain"]) if not error else 0
    if memory > ROOM:
        error = f"the page took {memory} MB of memory: {ROOM} are a laptop's"
    if refresh and not error:
        for i, cell in enumerate(nb.cells):
            if cell.cell_type != "code":
                continue
            if i in results:
                cell.outputs = results[i]
            cell.execution_count = None
            for o in cell.outputs:
                o.pop("execution_count", None) if o.output_type != "execute_result" else o.update(
                    execution_count=None
                )
        nb.metadata.pop("widgets", None)
        nb.metadata["rsssl"] = {**nb.metadata.get("rsssl", {}), "stamp": stamp(nb)}
        nb.metadata.update(accelerator="GPU", colab={"provenance": []})
        nb.metadata["kernelspec"] = {"display_name": "python3", "language": "python", "name": "python3"}
        nb.metadata.pop("language_info", None)
        aside = path.with_suffix(".part")
        nbformat.write(nb, aside)
        os.replace(aside, path)
    return dict(
        page=path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path),
        seconds=round(time.time() - started, 1),
        slowest=slowest,
        memory=memory,
        error=error,
        stderr="".join(stderr),
        moved=[i for i, outputs in results.items() if said(outputs) != saved[i]],
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--refresh", action="store_true", help="keep the outputs in the pages")
    parser.add_argument(
        "--flags", default="", help="also run cells with these flags, comma separated: slow,gpu"
    )
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    todo = [p.resolve() for p in args.pages] or pages()
    started, rows = time.time(), []
    with ThreadPoolExecutor(args.workers) as pool:
        for row in pool.map(
            lambda p: run_page(p, args.refresh, set(filter(None, args.flags.split(",")))), todo
        ):
            rows.append(row)
            verdict = "FAIL" if row["error"] or row["stderr"] else "ok"
            print(
                f"{verdict:4} {row['seconds']:6.1f} s  {row['page']}  (slowest cell {row['slowest'][1]}: "
                f"{row['slowest'][0]} s; {row['memory']} MB)",
                flush=True,
            )
            if row["error"]:
                print(row["error"], flush=True)
            if row["stderr"]:
                print("left on stderr: " + row["stderr"], flush=True)
    bad = [r["page"] for r in rows if r["error"] or r["stderr"]]
    (ROOT / "runs").mkdir(exist_ok=True)
    if not args.pages:
        (ROOT / "runs" / "pages.json").write_text(
            json.dumps(dict(seconds=round(time.time() - started, 1), pages=rows), indent=1)
        )
    for row in rows:
        if row["moved"]:
            print(f"saved outputs say otherwise: {row['page']}, cells {', '.join(map(str, row['moved']))}")
    there = [p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    print(
        f"{len(rows)} pages ran of {len(there)} notebooks under nbs/, {len(bad)} failed, "
        f"{time.time() - started:.0f} s"
    )
    return 1 if bad or not args.pages and len(rows) != len(there) else 0


if __name__ == "__main__":
    sys.exit(main())
