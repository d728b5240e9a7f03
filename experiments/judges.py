"""The judges' tables and the positive controls, trained and judged from nothing. Rules: JUDGES.md.

    python experiments/judges.py                  all that is left, within --budget seconds; call again
    python experiments/judges.py --world rsscn7   one of rsscn7 and dubai (the tables), object, arrangement
    python experiments/judges.py --arms random simclr false-every --seeds 0
    python experiments/judges.py --workers 2      two processes of one thread each
    python experiments/judges.py --show           tables, power and verdicts of the rows that are there
    python experiments/judges.py --steps 60 --small     a smoke run: no row is kept in results/

A run has the folder runs/judges/WORLD-ARM-SEED with config, log and checkpoints; a killed or stopped run
goes on from its last checkpoint. Rows land in results/judges.json (the tables) and results/controls.json (the
other two worlds) as each run is judged; rows that are there are not made again.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from controls import (
    ARMS,
    PROTOCOL,
    VIEWS,
    WORLDS,
    boxes_chosen,
    dubai_tiles,
    imagery,
    judges_of,
    suspects_chosen,
)

from rsssl_nb.confusion import confusion_matrix, mean_iou
from rsssl_nb.data.statistics import normalise
from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.evaluation.evidence import student_factor
from rsssl_nb.evaluation.judges import as_table, band_moments, judge_power, random_like
from rsssl_nb.files import write_aside
from rsssl_nb.methods.placebos import LabelOracle
from rsssl_nb.training.config import Config, check_config
from rsssl_nb.training.engine import make_optimiser, run_task, start_engine, train_step
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.folder import code_version, locked
from rsssl_nb.training.pretrain import Pretraining

ROOT = Path(__file__).resolve().parents[1]
TABLES = ("rsscn7", "dubai")
BATCH, WIDTH, STRIDE, EVERY = 64, 16, 8, 50
KEY = ("world", "judge", "method", "labels", "seed")
MARGINS = {  # world: (ceiling, judge, labels, what it must have over SimCLR)
    "rsscn7": [("false-every", "scene", 5, 0.05)],
    "object": [("grass-told", "object-cut", 20, 0.03)],
    "arrangement": [("ssccl-class", "mosaic", 64, 0.02), ("glcnet-class", "mosaic", 64, 0.02)],
}


# rows


def rows_file(results, world):
    return results / ("judges.json" if world in TABLES else "controls.json")


def read_rows(results):
    "All rows of both files."
    files = [results / name for name in ("judges.json", "controls.json")]
    return [row for path in files if path.exists() for row in json.loads(path.read_text())]


def key_of(row):
    return tuple(row[k] for k in KEY)


def keep_rows(options, world, new):
    "Adds rows to a results file, one a line, in place of those of the same key; processes wait their turn."
    path = rows_file(options.results, world)
    while True:
        try:
            with locked(options.work / f"lock-{path.stem}"):
                old = json.loads(path.read_text()) if path.exists() else []
                rows = {key_of(r): r for r in [*old, *new]}
                lines = ",\n".join(json.dumps(rows[k]) for k in sorted(rows, key=str))
                text = f"[\n{lines}\n]\n"
                write_aside(path, lambda p, text=text: p.write_text(text))
            return
        except InputError:
            time.sleep(0.2)


# training


def config_of(arm, seed, stack, steps, precision):
    "The Config of a run: steps rounded up to whole passes over the stack."
    world, n = WORLDS[arm.world], len(stack.images)
    per_pass = n // BATCH
    mean, std = band_moments(stack.images)
    return check_config(
        Config(
            method=arm.name,
            width=WIDTH,
            stride=STRIDE,
            bands=stack.images.shape[1],
            size=world.px,
            epochs=-(-steps // per_pass),
            batch=BATCH,
            samples=per_pass * BATCH,
            seed=seed,
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
            precision=precision,
            channels_last=True,
        )
    )


def start(arm, config, stack):
    "Engine, method and optimiser of a run; oracles hear the labels of each batch before its step."
    engine = start_engine("cpu", config.precision)
    torch.manual_seed(config.seed)
    method = arm.make(Encoder(width=config.width, bands=config.bands, stride=config.stride)).train()
    method.plans, method.min_iou = (lambda: (VIEWS, VIEWS)), WORLDS[arm.world].min_iou
    if hasattr(method, "labels"):
        method.register_forward_pre_hook(lambda m, args: setattr(m, "labels", stack.told(len(args[0]))))
    method = method.to(memory_format=torch.channels_last)
    method.fits((config.size, config.size))
    return engine, method, make_optimiser(method, config.optimizer, config.lr, config.weight_decay)


def trained(arm, seed, folder, stack, steps, precision, deadline):
    "(method, config, minutes of all sittings, whether it is complete) of a run, from its last checkpoint."
    config = config_of(arm, seed, stack, steps, precision)
    engine, method, optimiser = start(arm, config, stack)

    def tell(row):
        if time.time() > deadline:
            (folder / "stop").touch()

    task = Pretraining(config, stack)
    log, complete = run_task(
        task, method, optimiser, engine, folder, "auto", progress=False, every=EVERY, tell=tell
    )
    return method, config, minutes_of(log), complete


def minutes_of(log):
    "Minutes of training in a log, whose seconds begin anew with each sitting."
    seconds = [row["seconds"] for row in log]
    steps = np.diff(seconds, prepend=0)
    return round(float(np.where(steps < 0, seconds, steps).sum()) / 60, 2)


def measured(arm, method, config, stack, batches=8):
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
        found.append(of_trace(arm, method, pair, out.trace, stack.told(BATCH), at))
    return {name: round(float(np.mean([f[name] for f in found])), 4) for name in (found[0] if found else ())}


def of_trace(arm, method, pair, trace, told, at):
    "The measures of one traced step."
    if "suspects" in arm.measures:
        return suspects_chosen(trace, told[:, 0, 0])
    ear = LabelOracle()
    ear.labels = told
    return boxes_chosen(trace, ear.seen(pair), torch.Generator().manual_seed(1))


# judging


def floors_of(judge):
    "Rows of the methods that no seed changes."
    return [dict(row, method=name, seed=0) for name, rows in judge.floors().items() for row in rows]


def judged(arm, seed, encoder, facts):
    "Rows of an encoder under its arm's judges."
    rows = []
    for judge in judges_of(arm):
        rows += [dict(row, method=arm.name, seed=seed, **facts) for row in judge.rows(encoder)]
        if arm.make is None and seed == 0:
            rows += floors_of(judge)
    return [dict(tidy(row), **common_to(arm)) for row in rows]


def tidy(row):
    "A row with five digits, its classes left out."
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items() if k != "classes"}


def tuned(arm, seed, folder, steps):
    "The row of the judge `finetune`: 1 % of Dubai's labels, everything trained, on the validation scene."
    dubai = imagery() / "dubai"
    model, _ = finetune(
        folder if arm.make else "random",
        dubai / "train/images",
        dubai / "train/labels",
        classes=dubai / "classes.json",
        subset=dubai / f"subsets/train256_01pct_seed{seed % 3}.txt",
        epochs=steps,
        batch=16,
        size=256,
        width=WIDTH,
        stride=STRIDE,
        seed=seed,
        progress=False,
    )
    images, truth, _ = dubai_tiles("val")
    with torch.no_grad():
        ready = normalise(torch.as_tensor(images).float(), model.mean.flatten(), model.std.flatten())
        scored = torch.cat([model(x) for x in ready.split(8)])
    value = mean_iou(confusion_matrix(torch.as_tensor(truth), scored.argmax(1), scored.shape[1]))
    row = dict(judge="finetune", labels=11, method=arm.name, seed=seed, value=float(value), steps=steps)
    return dict(tidy(row), **common_to(arm))


def common_to(arm):
    "What all rows of an arm say of themselves."
    return dict(world=arm.world, protocol=PROTOCOL, commit=code_version(), device=platform.machine())


# the queue


def jobs_of(options):
    "What was asked for, (kind, arm, seed): seeds before arms, for an early answer; fine-tuning at the end."
    arms = [a for a in ARMS if a.world in options.world and (not options.arms or a.name in options.arms)]
    probes = [("probe", arm, seed) for seed in options.seeds for arm in arms]
    return probes + [
        ("finetune", arm, seed) for seed in options.seeds for arm in arms if "dubai" in arm.judges
    ]


def done(kind, arm, seed, rows):
    "Whether the rows of a job are there, under this protocol."
    mine = [r for r in rows if (r["world"], r["method"], r["seed"]) == (arm.world, arm.name, seed)]
    return any(r["protocol"] == PROTOCOL and (r["judge"] == "finetune") == (kind == "finetune") for r in mine)


@cache
def pool_of(world):
    return WORLDS[world].pool()


def probed(arm, seed, folder, options, deadline):
    "Trains and judges one run; gives its rows, or none when the budget ended it first."
    if arm.make is None:
        return judged(arm, seed, random_like(Encoder(width=WIDTH, bands=3, stride=STRIDE), seed), {})
    stack, steps = pool_of(arm.world), options.steps or WORLDS[arm.world].steps
    method, config, minutes, complete = trained(arm, seed, folder, stack, steps, options.precision, deadline)
    if not complete:
        return []
    facts = dict(steps=config.total, minutes=minutes, precision=config.precision)
    rows = judged(arm, seed, method.encoder.eval(), facts)
    chosen = measured(arm, method.train(), config, stack)
    if "suspects" in arm.measures:
        return [{**row, **chosen} for row in rows]
    own = dict(method=arm.name, seed=seed, **facts, **common_to(arm))
    return rows + [dict(judge=name, labels=0, value=value, **own) for name, value in chosen.items()]


def queue(options):
    "Works through what is left, within the budget. Gives the number of jobs left."
    deadline, left = time.time() + options.budget, 0
    for kind, arm, seed in jobs_of(options):
        if done(kind, arm, seed, read_rows(options.results)):
            continue
        left += 1
        if time.time() > deadline:
            continue
        folder = options.work / f"{arm.world}-{arm.name}-{seed}"
        if kind == "finetune" and arm.make and not (folder / "encoder.safetensors").exists():
            continue
        try:
            with locked(options.work / f"job-{kind}-{arm.world}-{arm.name}-{seed}"):
                if kind == "finetune":
                    rows = [tuned(arm, seed, folder, options.steps or 500)]
                else:
                    rows = probed(arm, seed, folder, options, deadline)
        except InputError as error:
            if "another process" in str(error):
                continue
            raise
        if rows:
            left -= 1
            keep_rows(options, arm.world, rows)
            mine = [r for r in rows if r["method"] == arm.name]
            told = ", ".join(f"{r['judge']} {r['labels']}: {r['value']:.3f}" for r in mine)
            print(f"{arm.world} {arm.name} seed {seed}: {told}", flush=True)
    return left


# what the rows say


def paired(rows, one, other):
    "Differences (seeds,) of two methods' values, paired by seed."
    values = [{r["seed"]: r["value"] for r in rows if r["method"] == m} for m in (one, other)]
    return np.array([values[0][s] - values[1][s] for s in sorted(values[0].keys() & values[1].keys())])


def interval_of(gaps):
    "Mean and half of Student's 95 % interval of paired differences; infinite for one."
    half = 1.96 * student_factor(len(gaps)) * gaps.std() / len(gaps) ** 0.5 if len(gaps) > 1 else np.inf
    return float(gaps.mean()), float(half)


def verdict_of(gaps, smallest):
    "Better, worse, no difference or undecided, as JUDGES.md says."
    mean, half = interval_of(gaps)
    if abs(mean) < smallest:
        return "no difference" if half < smallest else "undecided"
    return "undecided" if half >= abs(mean) else "better" if mean > 0 else "worse"


def verdicts(rows, power):
    "A line for each method of a world against SimCLR, under the judge of the world's margin."
    lines = []
    for world, margins in MARGINS.items():
        for ceiling, judge, labels, margin in margins:
            mine = [r for r in rows if (r["world"], r["judge"], r["labels"]) == (world, judge, labels)]
            known = [p for p in power if (p["world"], p["judge"], p["labels"]) == (world, judge, labels)]
            for method in dict.fromkeys(r["method"] for r in mine):
                gaps = paired(mine, method, "simclr")
                if method in ("simclr", "random", "colour", "bands") or not len(gaps) or not known:
                    continue
                if ceiling.split("-")[0] != method.split("-")[0]:
                    continue
                mean, half = interval_of(gaps)
                told = f"{world} {judge} {labels}: {method} less simclr {mean:+.3f} +- {half:.3f}"
                told += f", {len(gaps)} seeds: {verdict_of(gaps, known[0]['smallest'])}"
                if method == ceiling:
                    told += f" (ceiling: {'passes' if mean >= margin and mean > half else 'misses'} {margin})"
                lines.append(told)
    return lines


def show(results):
    "Prints tables, power and verdicts."
    rows, powers = read_rows(results), []
    for world in dict.fromkeys(r["world"] for r in rows):
        mine = [r for r in rows if r["world"] == world and r["labels"]]
        power = judge_power(mine)
        powers += [dict(p, world=world) for p in power]
        print(f"\n## {world}\n\n{as_table(mine, power)}")
        for r in rows:
            if r["world"] == world and "suspects" in r and (r["judge"], r["labels"]) == ("scene", 5):
                print(f"{r['method']} seed {r['seed']}: {r['suspects']} suspects a row, {r['right']} true")
    print("\n".join(["", *verdicts(rows, powers)]))


def options_of(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--arms", nargs="+", help="of " + ", ".join(dict.fromkeys(a.name for a in ARMS)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=float(os.environ.get("BUDGET", 540)), help="seconds")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", choices=["bf16", "no"], default="bf16")
    parser.add_argument("--steps", type=int, help="in place of a world's own, for a smoke run")
    parser.add_argument("--small", action="store_true", help="keep rows under --work, not in results/")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "judges")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.arms or ()) - {a.name for a in ARMS}):
        raise SystemExit(
            f"arm {unknown[0]!r} is not known: choose {', '.join(dict.fromkeys(a.name for a in ARMS))}"
        )
    if options.steps and not options.small:
        raise SystemExit(
            f"--steps {options.steps} is not the protocol's: add --small, and no row reaches results/"
        )
    if options.small:
        options.work = options.work / "small"
        options.results = options.work / "results"
    return options


def main(argv=None):
    options = options_of(argv)
    options.results.mkdir(parents=True, exist_ok=True)
    if options.show:
        return show(options.results)
    torch.set_num_threads(1)
    again = [sys.executable, __file__, *(argv or sys.argv[1:]), "--workers", "1"]
    others = [subprocess.Popen(again) for _ in range(options.workers - 1)]
    left = queue(options)
    for other in others:
        other.wait()
    print(f"{left} jobs left" + (": call again" if left else ""))


if __name__ == "__main__":
    main()
