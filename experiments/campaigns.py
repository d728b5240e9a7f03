"""Works through a list of arms, one run after another, and survives being stopped: the machinery.

A job is one run of an arm with a seed. It has the folder WORK/WORLD-ARM-SEED-COMMIT with config, log and
checkpoints, and goes on from its last checkpoint. Its rows land in a file of results/ when it is judged;
those that are there are not made again, on whichever machine: `merge FOLDER` brings in the rows of another.
`pause` stops every worker after the next step, with a checkpoint; `go` lets them go on. What fails is named,
and the rest goes on.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from budgets import budget_lines, hours_used, part_of, too_long
from keeping import done, keep_rows, key_of, merge, read_rows
from trials import (
    ROOT,
    common_to,
    facts_of,
    judged,
    machine,
    measured,
    precision_here,
    tidy,
    trained,
    untrained,
)

from rsssl_nb.errors import InputError
from rsssl_nb.files import write_aside
from rsssl_nb.training.folder import code_version, locked


@dataclass(frozen=True)
class Campaign:
    """A protocol's worlds by name, its arms, and `judges`: {name in an arm: function that gives judges}.

    `late` is judged after all arms are trained: {judge's name: function of (arm, seed, run folder, asked,
    stop) that gives rows, or none when it was stopped}. `measure` gives what a mechanism chose in a traced
    step, as numbers by name. `floors` names the file of what pixels alone score, where they are asked on
    their own. `parts`: {name: function of (kind, arm, seed) that says whether a job is one of it}, in the
    order in which they are worked through, until `ceiling` core-hours are used; `guess(kind, arm)` gives a
    job's minutes before one was measured.
    """

    protocol: int
    worlds: dict
    arms: list
    judges: dict
    late: dict
    measure: Callable | None = None
    floors: str = ""
    parts: dict = field(default_factory=dict)
    ceiling: float = float("inf")
    guess: Callable = lambda kind, arm: 10.0

    def version(self, world: str) -> int:
        "The protocol under which a world's rows are made."
        return self.worlds[world].protocol or self.protocol

    def files(self) -> list:
        "The names of the files of its rows."
        return list(dict.fromkeys(world.file for world in self.worlds.values()))


# pixels alone


def keep_floors(campaign, asked):
    "Asks the judges of each world's untrained arm about pixels alone; the rows stand in a file of theirs."
    if not campaign.floors:
        raise SystemExit("pixels alone are asked beside the untrained encoder here: run the arm `random`")
    for arm in [a for a in campaign.arms if a.make is None and a.world in asked.world]:
        known = [campaign.judges[name] for name in arm.judges if name in campaign.judges]
        rows = [
            dict(tidy(row), method=method, seed=0, **common_to(campaign, arm))
            for made in known
            for judge in made()
            for method, own in judge.floors().items()
            for row in own
        ]
        keep_rows(asked.results / campaign.floors, rows)
        print(f"{arm.world}: {len(rows)} rows of pixels alone", flush=True)


# the queue


def jobs_of(campaign, asked):
    """What was asked for, (kind, arm, seed): seeds before arms, for an early answer.

    What needs the trained runs comes at the end, and all of it in the order of the campaign's parts.
    """
    arms = [a for a in campaign.arms if a.world in asked.world and (not asked.arms or a.name in asked.arms)]
    runs = [("run", arm, seed) for seed in asked.seeds for arm in arms if seed < arm.seeds]
    late = [(kind, a, s) for kind in campaign.late for _, a, s in runs if kind in a.judges]
    names = list(campaign.parts)
    return sorted(runs + late, key=lambda job: names.index(part_of(campaign, job)) if names else 0)


@cache
def pool_of(world):
    "The pool of a world."
    return world.pool()


def folder_of(asked, arm, seed):
    "The run folder of an arm and seed, for the code that runs."
    return asked.work / f"{arm.label}-{seed}-{code_version()}"


def commit_of(folder):
    "The commit of the code that trained a run, from its folder's name."
    return folder.name.rpartition("-")[2]


def folders_of(campaign, work, arm, seed, ended=True):
    """The folders of runs of an arm and seed, by whichever code, the last one last: ended, or broken off.

    Those of another protocol, as the file FOLDER.protocol beside them says, are left out.
    """
    version, found = str(campaign.version(arm.world)), []
    for folder in work.glob(f"{arm.label}-{seed}-*"):
        told = work / f"{folder.name}.protocol"
        mine = not told.exists() or told.read_text().strip() == version
        began, ends = ((folder / name).exists() for name in ("config.json", "encoder.safetensors"))
        if mine and began and ends == ended:
            found.append(folder)
    return sorted(found, key=lambda folder: folder.stat().st_mtime)


def run(campaign, arm, seed, folder, asked, stop):
    "Trains and judges one run; gives its rows, or none when it was stopped first."
    world = campaign.worlds[arm.world]
    if arm.make is None:
        facts = dict(steps=0, minutes=0.0)
        stack = pool_of(world) if arm.fitted else None
        return judged(campaign, arm, seed, untrained(world, arm, seed, stack), facts)
    method, config, log, complete = train(campaign, arm, seed, folder, asked, stop)
    if not complete:
        return []
    facts = facts_of(config, log)
    rows = judged(campaign, arm, seed, method.encoder.eval(), facts)
    chosen = measured(campaign, arm, method.train(), config, pool_of(world))
    if "suspects" in arm.measures:
        return [{**row, **chosen} for row in rows]
    own = dict(method=arm.name, seed=seed, **facts, **common_to(campaign, arm))
    return rows + [dict(judge=name, labels=0, value=value, **own) for name, value in chosen.items()]


def train(campaign, arm, seed, folder, asked, stop):
    """What `trained` gives of a run in a folder; its protocol is noted beside it.

    InputError for a folder of another protocol.
    """
    note, version = folder.parent / f"{folder.name}.protocol", f"{campaign.version(arm.world)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        write_aside(note, lambda aside: aside.write_text(f"{version}\n"))
    if (told := note.read_text().strip()) != version:
        raise InputError(
            f"{folder.name} was begun under protocol {told}, this one is {version}: commit the change, "
            "so that its runs have folders of their own"
        )
    world = campaign.worlds[arm.world]
    return trained(world, arm, seed, folder, pool_of(world), asked.precision, stop, asked.steps)


def rows_of(campaign, kind, arm, seed, asked, stop):
    """The rows of one job; none when it was stopped.

    A late job whose run was made elsewhere trains it here, too, and keeps no other rows of it.
    """
    own = folder_of(asked, arm, seed)
    if kind == "run":
        return run(campaign, arm, seed, own, asked, stop)
    folder = next(reversed(folders_of(campaign, asked.work, arm, seed)), None)
    if arm.make and folder is None:
        if not train(campaign, arm, seed, own, asked, stop)[3]:
            return []
        folder = own
    began = time.time()
    rows = campaign.late[kind](arm, seed, folder, asked, stop)
    facts = dict(minutes=round((time.time() - began) / 60, 2), trained=folder and commit_of(folder))
    return [dict(facts, **tidy(row), **common_to(campaign, arm)) for row in rows]


def queue(campaign, asked):
    "Works through what is left, within the budget. Gives what failed, in sentences."
    deadline, failed = time.time() + asked.budget, []
    pause = asked.work / "pause"
    failed += left_alone(campaign, asked)

    def stop():
        return time.time() > deadline or pause.exists()

    for job in jobs_of(campaign, asked):
        kind, arm, seed = job
        while pause.exists() and time.time() < deadline:
            time.sleep(1)
        there = read_rows(asked.results, campaign.files())
        if done(campaign, *job, there):
            continue
        if words := too_long(campaign, job, there):
            failed.append(f"{name_of(job)}: {words}")
            continue
        rows = []
        while time.time() < deadline and not rows:
            try:
                with locked(asked.work / f"job-{kind}-{arm.label}-{seed}"):
                    rows = rows_of(campaign, kind, arm, seed, asked, stop)
                    if rows:
                        keep_rows(asked.results / campaign.worlds[arm.world].file, rows)
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                rows = []
                if "another process" not in str(error):
                    failed.append(f"{name_of(job)}: {error or type(error).__name__}")
                break
            while pause.exists() and time.time() < deadline:
                time.sleep(1)
        if rows:
            mine = [r for r in rows if r["method"] == arm.name]
            told = ", ".join(f"{r['judge']} {r['labels']}: {r['value']:.3f}" for r in mine)
            print(f"{name_of(job)}: {told}", flush=True)
    return failed


def count_left(campaign, asked):
    "How many of the jobs that are asked for lack rows."
    there = read_rows(asked.results, campaign.files())
    return sum(not done(campaign, *job, there) for job in jobs_of(campaign, asked))


def name_of(job):
    "A job in words."
    kind, arm, seed = job
    return f"{arm.label} seed {seed}" + ("" if kind == "run" else f", {kind}")


def left_alone(campaign, asked):
    """Sentences on rows of another protocol, and on runs of another commit without rows.

    They were broken off, or not judged, and stay as they are.
    """
    found = []
    rows = [r for r in read_rows(asked.results, campaign.files()) if r["world"] in campaign.worlds]
    if other := sum(r["protocol"] != campaign.version(r["world"]) for r in rows):
        found.append(f"{other} rows of another protocol, until theirs are made")
    for kind, arm, seed in jobs_of(campaign, asked):
        if kind != "run" or done(campaign, kind, arm, seed, rows):
            continue
        mine = folder_of(asked, arm, seed)
        for ended, words in ((False, "broken off"), (True, "trained and not judged")):
            goal = "judge it" if ended else "go on with it"
            for folder in folders_of(campaign, asked.work, arm, seed, ended):
                if folder != mine:
                    found.append(f"{folder.name}, {words} under another commit: check that out to {goal}")
    return found


def status(campaign, asked):
    "Prints and draws what is done, running and left, a line an arm, one sign a seed, and the budget."
    rows = read_rows(asked.results, campaign.files())
    other = sum(r["protocol"] != campaign.version(r["world"]) for r in rows if r["world"] in campaign.worlds)
    print(f"protocol {campaign.protocol}; {hours_used(campaign, rows):.1f} core-hours in the rows")
    if other:
        print(f"{other} rows of another protocol are left out")
    signs = {}
    for arm in [a for a in campaign.arms if a.world in asked.world]:
        seeds = [seed for seed in asked.seeds if seed < arm.seeds]
        signs[arm] = [sign_of(campaign, asked, arm, seed, rows) for seed in seeds]
        print(f"{arm.label:44} {' '.join(signs[arm])}")
    print("# done   > running   . left")
    print("\n".join(budget_lines(campaign, jobs_of(campaign, asked), rows)))
    print(f"drawn in {draw_status(signs, asked)}")


SIGNS = {"#": "#009e73", ">": "#e69f00", ".": "#d9d9d9"}  # of Okabe and Ito, and grey


def draw_status(signs, asked):
    "A square an arm and seed, coloured by what is done, running and left, a panel a world; gives the file."
    from rsssl_nb.figures import show_grid

    worlds = list(dict.fromkeys(arm.world for arm in signs))

    def draw(ax, world):
        mine = [arm for arm in signs if arm.world == world]
        for y, arm in enumerate(mine):
            for x, sign in enumerate(signs[arm]):
                ax.plot(x, y, "s", color=SIGNS[sign], markersize=6)
        ax.set_yticks(range(len(mine)), [arm.label.removeprefix(f"{world}-") for arm in mine], fontsize=6)
        ax.set_xticks(range(len(asked.seeds)), asked.seeds, fontsize=6)
        ax.set_xlim(-0.6, len(asked.seeds) - 0.4)
        ax.invert_yaxis()
        ax.set_title(world, fontsize=8)

    most = max(sum(arm.world == world for arm in signs) for world in worlds)
    picture = show_grid([lambda ax, w=w: draw(ax, w) for w in worlds], cols=4, size=(3.2, 0.8 + 0.15 * most))
    path = asked.work / "status.png"
    picture.suptitle("done, running, left: green, orange, grey", fontsize=8)
    picture.savefig(path, dpi=110)
    return path


def sign_of(campaign, asked, arm, seed, rows):
    "# for a run whose rows are there, > while a process holds it, . for what is left."
    if done(campaign, "run", arm, seed, rows):
        return "#"
    try:
        job = asked.work / f"job-run-{arm.label}-{seed}"
        if job.exists():
            with locked(job):
                pass
        return "."
    except InputError:
        return ">"


def again(campaign, asked):
    """Runs one job drawn at random anew, in a folder of its own, and compares its rows with those kept.

    Only jobs of this make of processor and precision are drawn: others give other last bits. True where each
    value is the same.
    """
    here = machine(), precision_here(asked.precision)
    rows = read_rows(asked.results, campaign.files())
    rows = [r for r in rows if (r.get("device"), r.get("precision")) == here]
    there = [j for j in jobs_of(campaign, asked) if j[0] == "run" and j[1].make and done(campaign, *j, rows)]
    if not there:
        raise SystemExit(f"no run was made on {here[0]} in {here[1]}: nothing to be run again here")
    kind, arm, seed = there[np.random.default_rng().integers(len(there))]
    folder = asked.work / "again" / f"{arm.label}-{seed}-{time.time_ns()}"
    print(f"{arm.label} seed {seed}, made again:", flush=True)
    kept = {key_of(r): r["value"] for r in rows}
    new = run(campaign, arm, seed, folder, asked, lambda: False)
    wrong = [r for r in new if r["value"] != kept.get(key_of(r))]
    for r in wrong:
        print(f"  {r['judge']} {r['labels']}: {r['value']} now, {kept.get(key_of(r))} in the rows")
    print(f"  {len(new) - len(wrong)} of {len(new)} values are the same")
    return not wrong


# the command

WHAT = ["run", "status", "pause", "go", "again", "show", "floors", "merge"]


def add_options(parser, campaign, work):
    "The options that every campaign has."
    names = ", ".join(dict.fromkeys(a.name for a in campaign.arms))
    parser.add_argument("what", nargs="?", choices=WHAT, default="run")
    parser.add_argument("source", nargs="?", type=Path, help="merge: the results folder of another machine")
    parser.add_argument("--world", nargs="+", choices=list(campaign.worlds), default=list(campaign.worlds))
    parser.add_argument("--arms", nargs="+", help=f"of {names}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=540, help="seconds; call again for the rest")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--precision", choices=["bf16", "no"], default="bf16")
    parser.add_argument("--steps", type=int, help="in place of a world's own, for a smoke run")
    parser.add_argument("--small", action="store_true", help="keep rows under --work, not in results/")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--work", type=Path, default=work)
    return parser


def asked_of(parser, campaign, argv=None):
    "The options as given, checked. SystemExit with the cure."
    asked = parser.parse_args(argv)
    if unknown := sorted(set(asked.arms or ()) - {a.name for a in campaign.arms}):
        names = ", ".join(dict.fromkeys(a.name for a in campaign.arms))
        raise SystemExit(f"arm {unknown[0]!r} is not known: choose {names}")
    if asked.steps and not asked.small:
        raise SystemExit(
            f"--steps {asked.steps} is not the protocol's: add --small, and no row reaches results/"
        )
    if asked.precision != "bf16" and not asked.small:
        raise SystemExit(
            f"--precision {asked.precision} is not the protocol's: add --small, and no row reaches results/"
        )
    if (asked.what == "merge") != bool(asked.source):
        raise SystemExit(
            "merge needs the results folder whose rows are brought in, and nothing else takes one"
        )
    if asked.small:
        asked.work = asked.work / "small" / f"{asked.steps or 'all'}-steps"
        asked.results = asked.work / "results"
    return asked


def carry_out(campaign, asked, show, argv=None):
    "Does what was asked for: a word of WHAT."
    asked.results.mkdir(parents=True, exist_ok=True)
    asked.work.mkdir(parents=True, exist_ok=True)
    if asked.what == "show":
        return show(asked.results)
    if asked.what == "status":
        return status(campaign, asked)
    if asked.what == "pause":
        return (asked.work / "pause").touch()
    if asked.what == "merge":
        return merge(campaign, asked)
    if asked.what == "go":
        return (asked.work / "pause").unlink(missing_ok=True)
    torch.set_num_threads(1)
    if asked.what == "floors":
        return keep_floors(campaign, asked)
    if asked.what == "again":
        return sys.exit(0 if again(campaign, asked) else 1)
    command = [sys.executable, sys.argv[0], *(sys.argv[1:] if argv is None else argv), "--workers", "1"]
    others = [subprocess.Popen(command) for _ in range(asked.workers - 1)]
    failed = queue(campaign, asked)
    for other in others:
        if code := other.wait():
            how = f"was killed (signal {-code})" if code < 0 else f"ended with code {code}"
            failed.append(f"a worker {how}: its run goes on with the next call")
    for sentence in failed:
        print(f"left out: {sentence}")
    left = count_left(campaign, asked)
    print(f"{left} jobs left" + (": call again" if left else ""))
    return None


def command(campaign, text, work, show):
    "(asked, main) of a campaign's command: the options as given and checked, and what carries them out."

    def asked(argv=None):
        form = argparse.RawDescriptionHelpFormatter
        parser = argparse.ArgumentParser(description=text, formatter_class=form)
        return asked_of(add_options(parser, campaign, work), campaign, argv)

    def main(argv=None):
        carry_out(campaign, asked(argv), show, argv)

    return asked, main
