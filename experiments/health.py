"""Where the lines of `training.health` may be drawn: short runs at a sane rate and at a thousand times it.

    python experiments/health.py [--out results/health.json]

Two synthetic scenes, 40 steps of 32 windows of 48 pixels, ResNet-18 of width 16, warm-up, one seed, heads as
each row says. A row: smallest and largest std, rank and cosine of strangers at every second step from 10 to
38, what the run is called at its end, and the first step at which it is called bad, looked at as training
looks, every tenth step (null: never).
"""

import argparse
import json
from pathlib import Path

import torch

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.training import record
from rsssl_nb.training.folder import code_version
from rsssl_nb.training.health import verdict
from rsssl_nb.training.pretrain import pretrain

SIAMESE = dict(objective="siamese")
RUNS = [  # method, optimiser, sane rate, options
    *((method, "adamw", 1e-3, dict(head_norm=False)) for method in ("simclr", "false", "grass")),
    ("glcnet", "adamw", 1e-3, {}),
    ("simclr", "sgd", 0.05, dict(head_norm=False)),
    ("ssccl", "adamw", 1e-3, dict(SIAMESE, head_norm=False)),
    ("ssccl", "sgd", 0.05, dict(SIAMESE, head_norm=False)),
    ("simclr", "adamw", 1e-3, dict(head_norm=True)),
    ("ssccl", "adamw", 1e-3, dict(SIAMESE, head_norm=True)),
]


def measure(method, optimizer, lr, options):
    "The row of one run."
    scenes = [make_scene(256, seed=s) for s in (1, 2)]
    shape = dict(batch=32, samples=256, size=48, width=16, epochs=5, device="cpu", progress=False)
    run = pretrain(scenes, method, lr=lr, optimizer=optimizer, options=options, seed=0, **shape)
    looks = [r["health"] for r in run.log if 10 <= r["step"] <= 38 and r.get("health")]
    found = {
        f"{k}_{end.__name__}": round(end(h[k] for h in looks), 3)
        for k in ("std", "rank", "neg")
        for end in (min, max)
    }
    seen = [{k: v for k, v in r.items() if k != "health" or r["step"] % 10 == 0} for r in run.log]
    first = next((n for n in range(1, len(seen) + 1) if verdict(seen[:n], run.config)[1] == "bad"), None)
    end = verdict(run.log, run.config)
    return found | dict(
        rank_first=round(run.log[0]["health"]["rank"], 1),
        loss_first=round(run.log[0]["loss"], 3),
        loss_last=round(run.log[-1]["loss"], 3),
        level=end[1],
        said=end[0],
        first_bad=first,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    record.HEALTH = 2
    rows = []
    for method, optimizer, sane, options in RUNS:
        for times in (1, 1000):
            about = dict(method=method, optimizer=optimizer, lr=sane * times, times=times)
            about |= dict(head_norm=options.get("head_norm", False))
            rows.append(
                about | measure(method, optimizer, sane * times, options) | dict(commit=code_version())
            )
            print(rows[-1], flush=True)
    if asked.out:
        asked.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
