"""One ruler for all benchmarks: a question, two sides that run in turn, the median of their ratios, a row.

A script decorates functions with `@question(title, goal)`. Each builds its two sides, checks that they
compute the same thing, and
returns `Sides` to be timed, or a ready `Found`. `python benchmarks/views.py [--device cuda] [--tiny]`
prints the rows of one script;
`run.py` runs all scripts and keeps the rows. The ratio reads as the goal does: for ">=" how many times
faster than the peer, for "<="
how many times the peer's cost.
"""

import argparse
import datetime
import json
import math
import operator
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from weakref import WeakSet, finalize

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = []
GOALS = {">=": operator.ge, "<=": operator.le}


class Skip(Exception):
    "Why a row cannot be measured here."


@dataclass
class Setting:
    """Where and how long: `device`, `tiny` sizes that only prove that a script runs, `seconds` to spend on a
    pair of sides.
    """

    device: str = "cpu"
    tiny: bool = False
    seconds: float = 8.0

    @property
    def cuda(self):
        return self.device != "cpu"

    def pick(self, full, tiny, gpu=None):
        return tiny if self.tiny else gpu if self.cuda and gpu is not None else full

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()


@dataclass
class Sides:
    """Two ways to one result, callables without arguments, with what a reader should know.

    `limit` says why a missed goal is out of reach.
    """

    ours: Callable
    peer: Callable
    note: str = ""
    limit: str = ""


@dataclass
class Found:
    """What was measured: `ours` and `peer` (seconds, unless the note says otherwise), their ratios' median
    and range.
    """

    ours: float
    peer: float
    ratio: float
    spread: tuple = ()
    note: str = ""
    limit: str = ""


@dataclass
class Question:
    title: str
    goal: str
    where: str  # any, cpu or cuda
    ask: Callable

    def better(self, ours, peer):
        return peer / ours if self.goal.startswith(">=") else ours / peer

    def met(self, ratio, limit):
        sign, value = self.goal.split()
        return True if GOALS[sign](ratio, float(value)) else "limit" if limit else False


def question(title, goal, where="any"):
    "Registers a function `ask(at) -> Sides or Found` as a question."

    def register(ask):
        QUESTIONS.append(Question(title, goal, where, ask))
        return ask

    return register


def once(side, at, times=1):
    "Seconds of one call."
    at.wait()
    started = time.perf_counter()
    for _ in range(times):
        side()
    at.wait()
    return (time.perf_counter() - started) / times


def rounds(sides, at, least=3, most=60):
    """Seconds of each side, round after round [(ours, peer), ...]: warmed up, sides in turn, the first
    changing places, until the seconds are spent.
    """
    for side in sides:
        side()
    times = max(1, math.ceil(2e-3 / max(1e-9, *(once(side, at) for side in sides))))
    least, started, found = (2, 0, []) if at.tiny else (least, time.perf_counter(), [])
    while len(found) < least or (time.perf_counter() - started < at.seconds and len(found) < most):
        order = (0, 1) if len(found) % 2 else (1, 0)
        took = {k: once(sides[k], at, times) for k in order}
        found.append((took[0], took[1]))
        if at.tiny and len(found) == least:
            break
    return found


def timed(q, sides, at):
    "The Found of two sides, timed."
    found = rounds((sides.ours, sides.peer), at)
    ratios = [q.better(*pair) for pair in found]
    return Found(
        *(statistics.median(t) for t in zip(*found)),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        f"{sides.note} ({len(found)} rounds)".strip(),
        sides.limit,
    )


def slope(x, y):
    "The exponent b of y = a x^b, by least squares on logarithms."
    x, y = (torch.as_tensor(v, dtype=torch.float64).log() for v in (x, y))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def growth(work, sizes, expected, at):
    """The exponent b in seconds = a size^b, fitted over four sizes, beside the expected one.

    `work(size)` gives the callable.
    """
    sizes = sizes[:2] if at.tiny else sizes
    sides = [work(n) for n in sizes]
    for side in sides:
        once(side, at)
    found = [[once(side, at) for side in sides] for _ in range(2 if at.tiny else 7)]
    middle, every = [statistics.median(t) for t in zip(*found)], [slope(sizes, t) / expected for t in found]
    took = ", ".join(f"{n}: {1e3 * t:.3g} ms" for n, t in zip(sizes, middle))
    return Found(
        slope(sizes, middle),
        expected,
        slope(sizes, middle) / expected,
        (min(every), max(every)),
        f"exponents, fitted and expected; {took}",
    )


class Watch(TorchDispatchMode):
    """Counts what happens inside it: dispatched `ops` by name, and the bytes of the tensors made, `now` and
    at the `peak`.
    """

    def __init__(self):
        super().__init__()
        self.ops, self.now, self.peak, self.known = Counter(), 0, 0, WeakSet()

    def give_back(self, size):
        self.now -= size

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.ops[str(op)] += 1
        out = op(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if not isinstance(t, torch.Tensor) or (held := t.untyped_storage()) in self.known:
                continue
            self.known.add(held)
            finalize(held, self.give_back, held.nbytes())
            self.now += held.nbytes()
            self.peak = max(self.peak, self.now)
        return out


def peak_bytes(side, at):
    "The most bytes that tensors made by a call hold at one time."
    if at.cuda:
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
    with Watch() as watch:
        side()
    return torch.cuda.max_memory_allocated() - start if at.cuda else watch.peak


def busiest(side, at):
    "Where a call spends its time: the four operations with the largest shares of their own."
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * at.cuda]) as seen:
        once(side, at)
    own = {e.key: e.self_device_time_total if at.cuda else e.self_cpu_time_total for e in seen.key_averages()}
    most, total = sorted(own, key=own.get, reverse=True)[:4], sum(own.values())
    return (
        "profile: " + ", ".join(f"{name.removeprefix('aten::')} {own[name] / total:.0%}" for name in most)
        if total
        else "profile: no operations of torch"
    )


def commit():
    "The commit at hand, with + where the tree differs from it."
    git = lambda *a: subprocess.run(["git", "-C", ROOT, *a], capture_output=True, text=True).stdout.strip()
    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "rsssl_nb", "benchmarks") else ""
    )


def row(q, at, found=None, why=""):
    "A question's row: measured, or with the reason why not."
    base = dict(
        question=q.title, ours=None, peer=None, ratio=None, goal=q.goal, met=None, spread=None, note=why
    )
    if found:
        base |= asdict(found) | dict(
            met=q.met(found.ratio, found.limit), note="; ".join(filter(None, (found.note, found.limit)))
        )
    base.pop("limit", None)
    return base | dict(commit=commit(), date=datetime.date.today().isoformat())


def answer(q, at):
    "One question's row; what is missing here is its reason."
    if q.where == "cuda" and not at.cuda:
        return row(q, at, why="pending: no GPU here")
    if q.where == "cpu" and at.cuda:
        return row(q, at, why="skipped: a question about the processor")
    try:
        found = q.ask(at)
        if not isinstance(found, Sides):
            return row(q, at, found)
        sides, found = found, timed(q, found, at)
        if q.met(found.ratio, "") is False:
            found.note += "; " + busiest(sides.ours, at)
        return row(q, at, found)
    except ImportError as e:
        return row(q, at, why=f"skipped: {e.name or e} is not installed, pip install -e '.[bench]' brings it")
    except (Skip, MemoryError, torch.OutOfMemoryError) as e:
        return row(q, at, why=f"skipped: {str(e).splitlines()[0] if str(e) else 'too little memory'}")
    except RuntimeError as e:  # torch's own word for it on a processor
        if "can't allocate memory" not in str(e):
            raise
        return row(q, at, why="skipped: too little memory")


def line(r):
    "A row as a line of the table."
    number = lambda v: "-" if v is None else f"{v:.3g}"
    met = {True: "met", False: "MISSED", "limit": "limit", None: r["note"].split(":")[0]}[r["met"]]
    low, high = r["spread"] or (None, None)
    return (
        f"{met:8} {number(r['ratio']):>6} {r['goal']:8} {number(low):>6} .. {number(high):<6} "
        f"{number(r['ours']):>9} {number(r['peer']):>9}  {r['question']}"
    )


HEAD = f"{'':8} {'ratio':>6} {'goal':8} {'range':^16} {'ours':>9} {'peer':>9}  question"


def asked(module):
    "The questions that a script registered itself, not those of scripts it imports."
    return [q for q in QUESTIONS if q.ask.__module__ == module]


def main():
    """Answers a script's questions: prints lines, and writes rows where asked.

    Exit code 0 all measured, 3 some not.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both sides alike")
    parser.add_argument("--tiny", action="store_true", help="only prove that it runs")
    parser.add_argument("--rows", type=Path, help="write the rows here, as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"device {args.device} is not available here: use cpu")
    at, rows = Setting(args.device, args.tiny), []
    print(HEAD)
    for q in asked("__main__"):
        rows.append(answer(q, at))
        print(line(rows[-1]), "\n" + " " * 60 + rows[-1]["note"], flush=True)
        if args.rows:
            args.rows.write_text(json.dumps(rows))
    return 0 if all(r["met"] is not None for r in rows) else 3
