"""Whether the default precision trains as float32 does: SimCLR's loss over a short run, three seeds of each.

    python benchmarks/precision_curves.py [--out results/precision_curves.json]

ResNet-18 of width 16, 32 windows of 96 pixels a step of a synthetic scene. `loss`: mean of the last third.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from measure import commit

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.training.pretrain import pretrain

STEPS, SEEDS = 60, (0, 1, 2)


def measure(precision, seed, scene):
    "A short run: {precision, channels_last, seed, loss}."
    shape = dict(size=96, batch=32, width=16, samples=64)
    run = pretrain(scene, steps=STEPS, seed=seed, precision=precision, device="cpu", progress=False, **shape)
    last = [row["loss"] for row in run.log[-STEPS // 3 :]]
    loss = round(statistics.mean(last), 4)
    settled = dict(precision=run.config.precision, channels_last=run.config.channels_last)
    return settled | dict(seed=seed, loss=loss, commit=commit())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    scene = make_scene(1024, seed=0)
    rows = []
    for seed in SEEDS:
        for precision in ("auto", "no"):
            rows.append(measure(precision, seed, scene))
            print(rows[-1], flush=True)
    if asked.out:
        asked.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
