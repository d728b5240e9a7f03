"""What SSCCL's objective and its heads' BatchNorm do to the embedding: why its defaults are what they are.

    RSSSL_DATA=... python experiments/heads.py        what is left of 3 arms x 3 seeds, about 3 minutes a run
    python experiments/heads.py show                  the table of the rows that are there

Dubai's training windows of 128 px, views of 64 px that share a tenth of their union, batch 64, width 16, 432
steps (six passes). The rank, the partner's cosine and the strangers' cosine are those of the instance
embedding in the last line of the log that has them; `scene` and `scene-knn` are the judges of JUDGES.md.
Rows land in results/ssccl-heads.json.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from campaigns import Campaign
from controls import JUDGES, VIEWS, dubai_pool
from keeping import keep_rows, read_rows
from trials import ROOT, Arm, World, facts_of, judged, trained

from rsssl_nb.methods.ssccl import SSCCL

FILE = "ssccl-heads.json"
WORLD = World(dubai_pool, 64, 400, VIEWS, FILE, min_iou=0.1)
BARE = partial(SSCCL, objective="siamese", head_norm=False)
ARMS = [
    Arm("ssccl-siamese-bare", "heads", BARE, ("scene",)),
    Arm("ssccl-siamese", "heads", partial(SSCCL, objective="siamese"), ("scene",)),
    Arm("ssccl", "heads", SSCCL, ("scene",)),
]
CAMPAIGN = Campaign(1, {"heads": WORLD}, ARMS, {"scene": JUDGES["scene"]}, {})
HEALTH = {"rank": "rank", "partners": "pos", "strangers": "neg"}  # judge: name in the log


def rows_of(arm, seed, stack, work):
    "Rows of one run: its embedding's health at the end, and the scene judge."
    folder = work / f"{arm.label}-{seed}"
    method, config, log, _ = trained(WORLD, arm, seed, folder, stack, "bf16", lambda: False)
    rows = judged(CAMPAIGN, arm, seed, method.encoder.eval(), facts_of(config, log))
    same = {k: v for k, v in rows[0].items() if k not in ("judge", "labels", "value", "low", "high")}
    last = next(row["health"] for row in reversed(log) if "health" in row)
    return rows + [dict(same, judge=j, labels=0, value=round(last[n], 4)) for j, n in HEALTH.items()]


def show(rows):
    "Prints a line an arm: mean over seeds, lowest and highest."
    asked = [*((j, 0) for j in HEALTH), ("scene", 5), ("scene-knn", 5)]
    print(f"{'':20}" + "".join(f"{f'{j} {n}' if n else j:>22}" for j, n in asked))
    for arm in ARMS:
        line = f"{arm.name:20}"
        for judge, labels in asked:
            found = [
                r["value"]
                for r in rows
                if (r["method"], r["judge"], r["labels"]) == (arm.name, judge, labels)
            ]
            line += f"{np.mean(found):9.3f} ({min(found):.2f}-{max(found):.2f})" if found else f"{'-':>22}"
        print(line)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["run", "show"], default="run")
    parser.add_argument("--budget", type=float, default=3000, help="seconds; call again for the rest")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/heads")
    asked = parser.parse_args()
    if asked.what == "run":
        torch.set_num_threads(1)
        end, stack = time.time() + asked.budget, dubai_pool()
        for seed in range(3):
            for arm in ARMS:
                there = {(r["method"], r["seed"]) for r in read_rows(asked.results, [FILE])}
                if (arm.name, seed) not in there and time.time() < end:
                    keep_rows(asked.results / FILE, rows_of(arm, seed, stack, asked.work))
                    print(f"{arm.name} seed {seed} is done", flush=True)
    show(read_rows(asked.results, [FILE]))


if __name__ == "__main__":
    main()
