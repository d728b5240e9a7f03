"""Which step of a fine-tuning to keep, and whether its crops' zoom pays, judged on another scene.

    RSSSL_DATA=... python experiments/recipe.py OUT [--old CHECKOUT] [--arms ...] [--seeds ...] [--fraction 1]

A fresh network of width 16 on Dubai's windows of 128 pixels, 1 500 steps, judged on the validation scene as
in `tuning.py`. Each run is judged twice, by the best step's weights on ground held out and by the last's.
`as it is` is the default (crops of half to twice a window's side), `no zoom` has crops of a window's side;
`old` is the release at commit 6b65888, trained for as many whole epochs as come nearest to 1 500 steps.
Rows land in results/finetune-recipe.json; rows that are there are not made again.
"""

import argparse
import os
from functools import partial
from itertools import product
from pathlib import Path

import torch
from dubai import stitch
from tuning import ROOT, Rows, commit_of, dubai_windows, judged, old_steps, tuned

from rsssl_nb.training import finetune as page
from rsssl_nb.training.crops import CropSet
from rsssl_nb.weights import save_weights

ZOOMS = {"as it is": (0.5, 2.0), "no zoom": (1.0, 1.0)}
STEPS, PX, WIDTH = 1500, 128, 16


class KeepsBoth(page.Finetuning):
    "Fine-tuning that keeps the very best step, and the last one's weights in `last/`."

    def __init__(self, *given):
        super().__init__(*given)
        self.slack = 0.0

    def finish(self, folder, model):
        path = folder / "last" / "segmenter.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_weights(path, model.state_dict(), page.segmenter_meta(model, self.config, self.meta))
        super().finish(folder, model)


def best_step(log: list) -> int:
    "The step after which the held-out score was the highest, of a log."
    return max((r for r in log if "miou" in r), key=lambda r: r["miou"])["step"] + 1


def todays(folder: Path, dubai: Path, subset: Path, arm: str, seed: int) -> list[tuple]:
    "One run of today's code: [(which weights, their step, their folder)]."
    page.Finetuning, page.CropSet = KeepsBoth, partial(CropSet, zoom=ZOOMS[arm])
    where = dubai / "train/images", dubai / "train/labels"
    how = dict(subset=subset, size=PX, width=WIDTH, seed=seed, steps=STEPS, workers=0)
    _, log = page.finetune("random", *where, folder, device="cpu", progress=False, **how)
    return [("best", best_step(log), folder), ("last", STEPS, folder / "last")]


def olds(checkout: Path, folder: Path, dubai: Path, subset: Path, windows: int, seed: int) -> list[tuple]:
    "One run of the older release: the same, of the epoch that it keeps."
    epochs = max(1, round(STEPS / old_steps(windows, epochs=1)))
    how = ["--subset", subset, "--size", PX, "--width", WIDTH, "--seed", seed, "--epochs", epochs]
    tuned(folder, "random", dubai / "train/images", dubai / "train/labels", how, checkout)
    return [("best", old_steps(windows, epochs=epochs), folder)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--old", type=lambda path: Path(path).resolve(), help="a checkout of commit 6b65888")
    parser.add_argument("--arms", nargs="+", choices=["old", *ZOOMS], default=["as it is"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--fraction", type=float, default=1.0)
    asked = parser.parse_args()
    if "RSSSL_DATA" not in os.environ:
        raise SystemExit("set RSSSL_DATA to the folder that holds dubai/")
    if "old" in asked.arms and not asked.old:
        raise SystemExit("the arm old needs --old, a checkout of commit 6b65888")
    dubai, out = Path(os.environ["RSSSL_DATA"]).resolve() / "dubai", asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows = Rows(ROOT / "results/finetune-recipe.json")
    torch.set_num_threads(1)
    image, truth = stitch(dubai, 2, out)
    for seed, arm in product(asked.seeds, asked.arms):
        job = dict(arm=arm, fraction=asked.fraction, seed=seed)
        if rows.holds(job):
            continue
        subset, windows = dubai_windows(dubai, out, PX, asked.fraction, seed)
        folder = out / f"recipe-{arm.replace(' ', '-')}-{asked.fraction}-{seed}"
        old = arm == "old"
        if old:
            made = olds(asked.old, folder, dubai, subset, windows, seed)
        else:
            made = todays(folder, dubai, subset, arm, seed)
        told = dict(windows=windows, commit=commit_of(asked.old if old else ROOT))
        for kept, step, place in made:
            found = judged(place, image, truth, dubai / "classes.json")
            rows.keep(job | dict(kept=kept, kept_step=step) | found | told)


if __name__ == "__main__":
    main()
