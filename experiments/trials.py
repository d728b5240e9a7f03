"""Trains and judges a list of arms, one run after another, and survives being stopped: the machinery.

A job is one run of an arm with a seed. It has the folder WORK/WORLD-ARM-SEED-COMMIT with config, log and
checkpoints, and goes on from its last checkpoint. Its rows land in a file of results/ when it is judged;
those that are there are not made again, on whichever machine. `pause` stops every worker after the next step,
with a checkpoint; `go` lets them go on. What fails is named, and the rest goes on.
"""

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.evaluation.judges import band_moments, random_like
from rsssl_nb.files import write_aside
from rsssl_nb.training.config import Config, check_config
from rsssl_nb.training.device import start_engine
from rsssl_nb.training.engine import make_optimiser, run_task, train_step
from rsssl_nb.training.folder import code_version, locked
from rsssl_nb.training.pretrain import Pretraining
from rsssl_nb.views.pairs import Plan

ROOT = Path(__file__).resolve().parents[1]
BATCH, WIDTH, STRIDE, EVERY = 64, 16, 8, 50
KEY = ("world", "judge", "method", "labels", "seed", "steps", "dial", "dial_value", "arm")


@dataclass(frozen=True)
class World:
    """A world: its pool of images, views of `px` as `views` says, `steps`, and the file of its rows.

    `min_iou` is the least overlap of two views. `protocol`: its own version where it is not the campaign's.
    """

    pool: Callable
    px: int
    steps: int
    views: Plan
    file: str
    min_iou: float = 0.0
    protocol: int | None = None


@dataclass(frozen=True)
class Arm:
    """An arm: its name in the rows, its world, what makes the method of an encoder, and its judges.

    `measures` names what its mechanism is asked for at the end. `views` and `steps` stand in place of its
    world's; `also`, pairs of name and value, goes into its rows; `seeds` is how many it is given at most.
    """

    name: str
    world: str
    make: Callable | None
    judges: tuple = ()
    measures: tuple = ()
    views: Plan | None = None
    steps: int | None = None
    also: tuple = ()
    seeds: int = 5

    @property
    def label(self) -> str:
        "The name of its run folders: its own and what else tells its rows apart."
        return "-".join([self.world, self.name, *(f"{k}{v}" for k, v in self.also)])


@dataclass(frozen=True)
class Campaign:
    """A protocol's worlds by name, its arms, and `judges`: {name in an arm: function that gives judges}.

    `late` is judged after all arms are trained: {judge's name: function of (arm, seed, run folder, asked)
    that gives rows}. `measure` gives what a mechanism chose in a traced step, as numbers by name. `floors`
    names the file of what pixels alone score, where they are asked on their own.
    """

    protocol: int
    worlds: dict
    arms: list
    judges: dict
    late: dict
    measure: Callable | None = None
    floors: str = ""

    def version(self, world: str) -> int:
        "The protocol under which a world's rows are made."
        return self.worlds[world].protocol or self.protocol


# rows


def read_rows(results, files):
    "All rows of these files of a results folder."
    paths = [results / name for name in dict.fromkeys(files)]
    return [row for path in paths if path.exists() for row in json.loads(path.read_text())]


def key_of(row):
    "What tells a row apart."
    return tuple(row.get(k) for k in KEY)


def keep_rows(path, work, new):
    "Adds rows to a file, one a line, in place of those of the same key; processes wait their turn."
    while True:
        try:
            with locked(work / f"lock-{path.stem}"):
                old = json.loads(path.read_text()) if path.exists() else []
                rows = {key_of(r): r for r in [*old, *new]}
                lines = ",\n".join(json.dumps(rows[k]) for k in sorted(rows, key=str))
                text = f"[\n{lines}\n]\n"
                write_aside(path, lambda p, text=text: p.write_text(text))
            return
        except InputError:
            time.sleep(0.2)


def tidy(row):
    "A row with five digits, its classes left out."
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items() if k != "classes"}


def common_to(campaign, arm):
    "What all rows of an arm say of themselves."
    version = campaign.version(arm.world)
    facts = dict(world=arm.world, protocol=version, commit=code_version(), device=machine())
    return dict(facts, **dict(arm.also))


@cache
def machine():
    "The processor's name, as its own file has it; else its architecture."
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


# training


def config_of(world, arm, seed, stack, precision, steps=None):
    "The Config of a run: steps rounded up to whole passes over the stack."
    per_pass = len(stack.images) // BATCH
    mean, std = band_moments(stack.images)
    return check_config(
        Config(
            method=arm.name,
            width=WIDTH,
            stride=STRIDE,
            bands=stack.images.shape[1],
            size=world.px,
            epochs=-(-(steps or arm.steps or world.steps) // per_pass),
            batch=BATCH,
            samples=per_pass * BATCH,
            seed=seed,
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
            precision=precision,
            channels_last=True,
        )
    )


def start(world, arm, config, stack):
    "Engine, method and optimiser of a run; oracles hear the labels of each batch before its step."
    engine, views = start_engine("cpu", config.precision), arm.views or world.views
    torch.manual_seed(config.seed)
    method = arm.make(Encoder(width=config.width, bands=config.bands, stride=config.stride)).train()
    method.view_plans, method.min_iou = (views, views), world.min_iou
    if hasattr(method, "labels"):
        method.register_forward_pre_hook(lambda m, args: setattr(m, "labels", stack.told(len(args[0]))))
    method = method.to(memory_format=torch.channels_last)
    method.fits((config.size, config.size))
    return engine, method, make_optimiser(method, config.optimizer, config.lr, config.weight_decay)


def trained(world, arm, seed, folder, stack, precision, stop, steps=None):
    """(method, config, log, whether it is complete) of a run, from its last checkpoint.

    `stop()` is asked after each step that is logged: true ends the run with a checkpoint.
    """
    config = config_of(world, arm, seed, stack, precision, steps)
    engine, method, optimiser = start(world, arm, config, stack)

    def tell(row):
        if stop():
            (folder / "stop").touch()

    task = Pretraining(config, stack)
    log, complete = run_task(
        task, method, optimiser, engine, folder, "auto", progress=False, every=EVERY, tell=tell
    )
    return method, config, log, complete


def minutes_of(log):
    "Minutes of training in a log, whose seconds begin anew with each sitting."
    seconds = [row["seconds"] for row in log]
    steps = np.diff(seconds, prepend=0)
    return round(float(np.where(steps < 0, seconds, steps).sum()) / 60, 2)


def facts_of(config, log):
    "What the rows of a run say of it: steps, minutes, precision, and the hash of its losses."
    losses = json.dumps([[row["step"], row["loss"]] for row in log])
    told = hashlib.sha256(losses.encode()).hexdigest()[:16]
    return dict(steps=config.total, minutes=minutes_of(log), precision=config.precision, log=told)


def measured(campaign, arm, method, config, stack, batches=8):
    "What the arm's mechanism chose in steps beyond the last, as a dict of means; running statistics move."
    found = []
    for k in range(batches if arm.measures else 0):
        numbers = stack.windows(config.samples, config.seed, 1000)[k * BATCH : (k + 1) * BATCH]
        images = torch.stack([torch.as_tensor(stack.read(i)) for i in numbers])
        late = replace(config, epochs=config.epochs + 1, warmup=0.0)
        engine = start_engine("cpu", config.precision)
        optimiser = make_optimiser(method, config.optimizer, 0.0)
        batch = images, torch.arange(BATCH)
        out, at, pair = train_step(Pretraining(late), method, optimiser, batch, config.total + k, engine)
        method.zero_grad(set_to_none=True)
        found.append(campaign.measure(arm, method, pair, out.trace, stack.told(BATCH), at))
    return {name: round(float(np.mean([f[name] for f in found])), 4) for name in (found[0] if found else ())}


def judged(campaign, arm, seed, encoder, facts):
    "Rows of an encoder under its arm's judges; with those of the first untrained one, the pixels' floors."
    rows, known = [], [campaign.judges[name] for name in arm.judges if name in campaign.judges]
    for judge in [judge for made in known for judge in made()]:
        rows += [dict(row, method=arm.name, seed=seed, **facts) for row in judge.rows(encoder)]
        if arm.make is None and seed == 0:
            rows += [dict(row, method=name, seed=0) for name, own in judge.floors().items() for row in own]
    return [dict(tidy(row), **common_to(campaign, arm)) for row in rows]


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
        keep_rows(asked.results / campaign.floors, asked.work, rows)
        print(f"{arm.world}: {len(rows)} rows of pixels alone", flush=True)


# the queue


def jobs_of(campaign, asked):
    """What was asked for, (kind, arm, seed): seeds before arms, for an early answer.

    What needs the trained runs comes at the end.
    """
    arms = [a for a in campaign.arms if a.world in asked.world and (not asked.arms or a.name in asked.arms)]
    runs = [("run", arm, seed) for seed in asked.seeds for arm in arms if seed < arm.seeds]
    late = [(kind, a, s) for kind in campaign.late for _, a, s in runs if kind in a.judges]
    return runs + late


def done(campaign, kind, arm, seed, rows):
    "Whether the rows of a job are there, under its world's protocol."
    wanted = (arm.world, arm.name, seed, campaign.version(arm.world))
    return any(
        (r["world"], r["method"], r["seed"], r["protocol"]) == wanted
        and all(r.get(k) == v for k, v in arm.also)
        and (r["judge"] in campaign.late) == (kind != "run")
        and (kind == "run" or r["judge"] == kind)
        for r in rows
    )


@cache
def pool_of(world):
    "The pool of a world."
    return world.pool()


def folder_of(asked, arm, seed):
    "The run folder of an arm and seed, for the code that runs."
    return asked.work / f"{arm.label}-{seed}-{code_version()}"


def finished_folder(asked, arm, seed):
    "The folder of a finished run of an arm and seed, by whichever code; None where this machine has none."
    found = asked.work.glob(f"{arm.label}-{seed}-*/encoder.safetensors")
    return max((path.parent for path in found), key=lambda folder: folder.stat().st_mtime, default=None)


def run(campaign, arm, seed, folder, asked, stop):
    "Trains and judges one run; gives its rows, or none when it was stopped first."
    if arm.make is None:
        encoder = random_like(Encoder(width=WIDTH, bands=3, stride=STRIDE), seed)
        return judged(campaign, arm, seed, encoder, dict(steps=0))
    world = campaign.worlds[arm.world]
    stack = pool_of(world)
    method, config, log, complete = trained(
        world, arm, seed, folder, stack, asked.precision, stop, asked.steps
    )
    if not complete:
        return []
    facts = facts_of(config, log)
    rows = judged(campaign, arm, seed, method.encoder.eval(), facts)
    chosen = measured(campaign, arm, method.train(), config, stack)
    if "suspects" in arm.measures:
        return [{**row, **chosen} for row in rows]
    own = dict(method=arm.name, seed=seed, **facts, **common_to(campaign, arm))
    return rows + [dict(judge=name, labels=0, value=value, **own) for name, value in chosen.items()]


def rows_of(campaign, kind, arm, seed, asked, stop):
    "The rows of one job; none when it was stopped. InputError for a late one without its run."
    if kind == "run":
        return run(campaign, arm, seed, folder_of(asked, arm, seed), asked, stop)
    folder = finished_folder(asked, arm, seed)
    if arm.make and folder is None:
        raise InputError(f"{kind} needs the trained run, and {asked.work} has none: train it here first")
    rows = campaign.late[kind](arm, seed, folder, asked)
    return [dict(tidy(row), **common_to(campaign, arm)) for row in rows]


def queue(campaign, asked):
    "Works through what is left, within the budget. Gives how many jobs are left, and what failed."
    deadline, left, failed = time.time() + asked.budget, 0, []
    pause = asked.work / "pause"
    files = {a.world: asked.results / campaign.worlds[a.world].file for a in campaign.arms}

    def stop():
        return time.time() > deadline or pause.exists()

    for kind, arm, seed in jobs_of(campaign, asked):
        while pause.exists() and time.time() < deadline:
            time.sleep(1)
        if done(campaign, kind, arm, seed, read_rows(asked.results, [files[arm.world].name])):
            continue
        left += 1
        rows = []
        while time.time() < deadline and not rows:
            try:
                with locked(asked.work / f"job-{kind}-{arm.label}-{seed}"):
                    rows = rows_of(campaign, kind, arm, seed, asked, stop)
            except (InputError, OSError) as error:
                if "another process" not in str(error):
                    failed.append(f"{arm.label} seed {seed}: {error}")
                break
            while pause.exists() and time.time() < deadline:
                time.sleep(1)
        if rows:
            left -= 1
            keep_rows(files[arm.world], asked.work, rows)
            mine = [r for r in rows if r["method"] == arm.name]
            told = ", ".join(f"{r['judge']} {r['labels']}: {r['value']:.3f}" for r in mine)
            print(f"{arm.label} seed {seed}: {told}", flush=True)
    return left, failed


def status(campaign, asked):
    "Prints what is done, running and left, a line an arm, one sign a seed."
    rows = read_rows(asked.results, [w.file for w in campaign.worlds.values()])
    minutes = {(r["world"], r["method"], r["seed"], r.get("dial_value")): r.get("minutes", 0) for r in rows}
    other = sum(r["protocol"] != campaign.version(r["world"]) for r in rows if r["world"] in campaign.worlds)
    print(f"protocol {campaign.protocol}; {sum(minutes.values()) / 60:.1f} core-hours in the rows")
    if other:
        print(f"{other} rows of another protocol are left out")
    for arm in [a for a in campaign.arms if a.world in asked.world]:
        seeds = [seed for seed in asked.seeds if seed < arm.seeds]
        signs = [sign_of(campaign, asked, arm, seed, rows) for seed in seeds]
        print(f"{arm.label:44} {' '.join(signs)}")
    print("# done   > running   . left")


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

    True where each value is the same.
    """
    rows = read_rows(asked.results, [w.file for w in campaign.worlds.values()])
    there = [j for j in jobs_of(campaign, asked) if j[0] == "run" and j[1].make and done(campaign, *j, rows)]
    if not there:
        raise SystemExit("no run is there to be run again")
    kind, arm, seed = there[np.random.default_rng().integers(len(there))]
    folder = asked.work / "again" / f"{arm.label}-{seed}-{time.time_ns()}"
    print(f"{arm.label} seed {seed}, made again:", flush=True)
    kept = {key_of(r): r["value"] for r in rows}
    new = run(campaign, arm, seed, folder, asked, lambda: False)
    wrong = [r for r in new if r["value"] != kept[key_of(r)]]
    for r in wrong:
        print(f"  {r['judge']} {r['labels']}: {r['value']} now, {kept[key_of(r)]} in the rows")
    print(f"  {len(new) - len(wrong)} of {len(new)} values are the same")
    return not wrong


# the command

WHAT = ["run", "status", "pause", "go", "again", "show", "floors"]


def add_options(parser, campaign, work):
    "The options that every campaign has."
    names = ", ".join(dict.fromkeys(a.name for a in campaign.arms))
    parser.add_argument("what", nargs="?", choices=WHAT, default="run")
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
    if asked.small:
        asked.work = asked.work / "small"
        asked.results = asked.work / "results"
    return asked


def carry_out(campaign, asked, show, argv=None):
    "Does what was asked for: run, status, pause, go, again or show."
    asked.results.mkdir(parents=True, exist_ok=True)
    asked.work.mkdir(parents=True, exist_ok=True)
    if asked.what == "show":
        return show(asked.results)
    if asked.what == "status":
        return status(campaign, asked)
    if asked.what == "pause":
        return (asked.work / "pause").touch()
    if asked.what == "go":
        return (asked.work / "pause").unlink(missing_ok=True)
    torch.set_num_threads(1)
    if asked.what == "floors":
        return keep_floors(campaign, asked)
    if asked.what == "again":
        return sys.exit(0 if again(campaign, asked) else 1)
    command = [sys.executable, sys.argv[0], *(sys.argv[1:] if argv is None else argv), "--workers", "1"]
    others = [subprocess.Popen(command) for _ in range(asked.workers - 1)]
    left, failed = queue(campaign, asked)
    for other in others:
        other.wait()
    for sentence in failed:
        print(f"left out: {sentence}")
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
