"""Which rows a stage asks for, the file they are kept in, and the time that a call may take."""

import json
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from arms import ARMS, Setup, options_of
from keeping import waited_for
from tiles import SUBSETS, Data

from rsssl_nb.evaluation.evidence import PROTOCOL
from rsssl_nb.files import write_aside

ONE = [("01pct", number) for number in range(3)]
ALL = [("all", 0)]
FULL = [("full", "backbone")]
BOTH = [*FULL, ("frozen", "backbone")]
# what a stage runs: (arms or None for all, settings, pools, label subsets, (mode, transfer) pairs)
STAGES = {
    "small": [(None, ["common"], ["scenes"], [("25pct", 0), ("all", 0)], FULL)],
    "A": [(None, ["common"], ["dubai"], ONE + ALL, BOTH)],
    "B": [
        (None, ["common"], ["dubai"], [subset for subset in SUBSETS if subset not in ONE], BOTH),
        (None, ["own"], ["dubai"], ONE, FULL),
        (["simclr"], ["scale0.08", "scale0.4"], ["dubai"], ONE, FULL),
        (["glcnet"], ["common", "own"], ["dubai"], ONE, [("full", "aspp"), ("full", "decoder")]),
        (["simclr", "glcnet", "random", "imagenet"], ["common"], ["rsscn7", "both"], ONE, BOTH),
    ],
    "C": [(["simclr", "glcnet", "false", "grass", "ssccl", "random"], ["common"], ["dubai"], ONE, BOTH)],
    "paper": [
        (["glcnet"], ["paper"], ["dubai"], ONE[:1], [("full", "aspp")]),
        (
            ["simclr", "false", "grass", "ssccl", "random"],
            ["paper"],
            ["dubai"],
            ONE[:1],
            [("frozen", "backbone")],
        ),
    ],
}
# what tells one row from another
IDENTITY = "dataset setting pool method encoder px fraction label_subset mode transfer seed bugs".split()


def identity(row: dict) -> tuple[str, ...]:
    "What tells a row from all others of a results file."
    return tuple(str(row.get(key)) for key in IDENTITY)


def jobs_of(
    stage: str,
    data: Data,
    sizes: Callable[[str], Setup],
    seeds: Sequence[int],
    arms: list[str],
    bugs: list[str],
) -> list[dict]:
    """The rows of a stage without their scores, each once.

    Seeds first, then arms, so that a call that ends early leaves whole comparisons. `sizes(arm)`: its Setup.
    """
    found = {}
    for wanted, settings, pools, labels, heads in STAGES[stage]:
        chosen = [arm for arm in arms if arm in (wanted or arms)]
        for seed, arm, setting, pool, subset, head in product(seeds, chosen, settings, pools, labels, heads):
            setup = sizes(arm)
            fraction, number = subset
            mode, transfer = head
            job = dict(
                dataset=data.name,
                split="test",
                setting=setting,
                pool=pool if pool in data.pools else data.name,
                method=arm,
                preset="official" if options_of(arm, setting).get("preset") else "default",
                parent=ARMS[arm][1],
                encoder=setup.encoder,
                width=setup.width,
                stride=setup.stride,
                px=setup.px,
                fraction=fraction,
                label_subset=number,
                mode=mode,
                transfer=transfer,
                seed=seed,
                seed_finetune=seed,
                bugs="+".join(bugs),
            )
            found[identity(job)] = job
    return list(found.values())


def json_lines(rows) -> str:
    "Rows as a JSON list with a row a line, so that a change of one is one line of a diff."
    return "[\n" + ",\n".join(rows) + "\n]\n"


class ResultsFile:
    "A results file: rows by identity, written whole after each change; several processes may share it."

    def __init__(self, path: Path):
        self.path = path
        self.rows = self.read()

    def read(self) -> dict:
        "The rows that are on disk, by identity."
        rows = json.loads(self.path.read_text()) if self.path.exists() else []
        return {identity(row): row for row in rows}

    def is_done(self, job: dict) -> bool:
        "Whether a job's row is there and finished, scored or diverged, under this protocol."
        row = self.rows.get(identity(job), {})
        return row.get("status") in ("done", "diverged") and row.get("protocol") == PROTOCOL

    def keep(self, row: dict) -> None:
        "Adds a row to those on disk, or replaces the one of its identity, and writes the file."
        with waited_for(self.path.parent):
            self.rows = {**self.read(), identity(row): row}
            text = json_lines(json.dumps(row, sort_keys=True) for row in self.rows.values())
            write_aside(self.path, lambda aside: aside.write_text(text))


class Budget:
    "The seconds of a call: would one more piece of work, as long as the longest of its kind, still fit?"

    def __init__(self, seconds: float):
        self.end = time.time() + seconds
        self.longest = {}

    def fits(self, *kinds: str) -> bool:
        "Whether one piece of each kind would still fit."
        return time.time() + sum(self.longest.get(kind, 0) for kind in kinds) < self.end

    def timed(self, kind: str, work: Callable, *args):
        "What `work(*args)` gives, and the minutes that it took."
        started = time.time()
        found = work(*args)
        seconds = time.time() - started
        self.longest[kind] = max(self.longest.get(kind, 0), seconds)
        return found, round(seconds / 60, 3)
