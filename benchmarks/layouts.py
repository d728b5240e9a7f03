"""Processor milliseconds of a training step in two precisions and two layouts of memory.

    python benchmarks/layouts.py [--out results/layouts.json]

SimCLR on ResNet-18 of stride 8, views and optimiser included, one thread. Time of the processor and
not of the clock, as others may use the machine (they still slow its memory). The four take turns; a row gives
the median and the fastest of three rounds. `kept`: whether freed memory stays with the process.
"""

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from measure import commit

from rsssl_nb.data.pool import Pool
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.methods.base import At
from rsssl_nb.training.config import Config
from rsssl_nb.training.device import freed_memory_kept
from rsssl_nb.training.engine import batchnorm_state, finite_step, train_step
from rsssl_nb.training.pretrain import Pretraining, begin
from rsssl_nb.training.windows import batches

SHAPES = ((4, 64, 64), (8, 96, 64), (16, 96, 64), (32, 96, 32), (64, 224, 8))  # width, size, batch
SETTINGS = [(precision, last) for precision in ("no", "bf16") for last in (False, True)]
ROUNDS = 3


def stepper(pool, shape, precision, channels_last):
    "A function that takes one step of a fresh run."
    width, size, batch = shape
    mean, std = (tuple(map(float, v)) for v in pool.statistics())
    sizes = dict(width=width, stride=8, bands=pool.bands, size=size, batch=batch, samples=64 * batch)
    config = Config(
        **sizes, epochs=10**6, mean=mean, std=std, precision=precision, channels_last=channels_last
    )
    engine, learner, optimiser = begin(config, "cpu")
    model, wrapped = engine.prepare(learner, optimiser)
    task, stream = Pretraining(config, pool), enumerate(batches(pool, config, workers=0))

    def step():
        number, found = next(stream)
        with engine.accumulate(model):
            before = [v.clone() for v in batchnorm_state(learner)]
            out = train_step(task, model, wrapped, found, number, engine)[0]
            return finite_step(task, model, wrapped, out, At(), engine, before)

    return step


def timed(steps, rounds=ROUNDS):
    "Milliseconds of each step function, by name: one warming step, then `rounds` in which they take turns."
    found = {name: [] for name in steps}
    for k in range(rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            found[name] += [1000 * (time.process_time() - began)] if k else []
    return found


def rows_of(shape, kept):
    "The rows of one shape, with freed memory kept or not."
    pool = Pool([make_scene(512, seed=0)], shape[1])
    with freed_memory_kept("cpu") if kept else nullcontext():
        found = timed({setting: stepper(pool, shape, *setting) for setting in SETTINGS})
    about = dict(zip(("width", "size", "batch"), shape), kept=kept, commit=commit())
    return [
        dict(about, precision=precision, channels_last=last)
        | dict(ms=round(statistics.median(ms)), fastest=round(min(ms)))
        for (precision, last), ms in found.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        for kept in (True, False):
            rows += rows_of(shape, kept)
            print(*rows[-len(SETTINGS) :], sep="\n", flush=True)
    if asked.out:
        asked.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
