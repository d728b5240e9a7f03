"""What the defaults of fine-tuning are worth: an older release beside today's, and the options of the loss.

    RSSSL_DATA=... python experiments/tuning.py OUT --part defaults [--old CHECKOUT] [--fractions 0.01 0.1 1]
    RSSSL_DATA=... python experiments/tuning.py OUT --part losses

`defaults`: each arm fine-tunes a fresh network of width 16 on the same windows of Dubai, with
nothing said of its length: 50 epochs at commit 6b65888 (a checkout of it in CHECKOUT), 1 500 steps today;
a third arm trains today's for as many steps as the old default.
`losses`: class weights, label smoothing, dice and BatchNorm's two modes, 400 steps each, on a tenth of
Dubai's windows, and on half a tile of Potsdam (8 windows of 64 pixels and four bands), judged on the other.
Dubai is judged on its validation scene, stitched from its parts; today's code draws every map.

Rows land in results/finetune-defaults.json and results/finetune-losses.json; rows that are there are not made
again. With `--most N` a call ends after N new rows, with exit 1 when rows are left.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
from dubai import stitch
from jobs import json_lines

from rsssl_nb.data.labels import read_classes
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.write import write_raster
from rsssl_nb.files import write_aside
from rsssl_nb.training.labelled import choose

ROOT = Path(__file__).resolve().parents[1]
STEPS = 400  # of a run that compares losses
LONG = "new, as many steps as old"
SIDE = 64  # of a window on Potsdam's tile
# name: (what it starts from, options of the command)
LOSSES = {
    "plain": ("random", []),
    "class weights": ("random", ["--class-weight"]),
    "smoothing 0.1": ("random", ["--smoothing", 0.1]),
    "dice 1": ("random", ["--dice", 1]),
    "pretrained": ("simclr", []),
    "pretrained, BatchNorm kept": ("simclr", ["--batchnorm", "keep"]),
    "pretrained, batch 2": ("simclr", ["--batch", 2]),
    "pretrained, batch 2, BatchNorm kept": ("simclr", ["--batch", 2, "--batchnorm", "keep"]),
}


class Rows:
    "The rows of a results file by what tells them apart, written whole after each new one."

    def __init__(self, path: Path):
        self.path = path
        self.rows = json.loads(path.read_text()) if path.exists() else []

    def holds(self, job: dict) -> bool:
        "Whether a row has everything that `job` says."
        return any(all(row.get(key) == job[key] for key in job) for row in self.rows)

    def keep(self, row: dict) -> None:
        "Adds a row, writes the file and prints the row."
        self.rows.append(row)
        text = json_lines(json.dumps(row) for row in self.rows)
        write_aside(self.path, lambda aside: aside.write_text(text))
        print({key: row[key] for key in row if key != "iou"}, flush=True)


def command(*args, root: Path = ROOT) -> tuple[str, float]:
    "One command of the package in a checkout: (its output, its seconds). SystemExit when it fails."
    started = time.time()
    line = [sys.executable, "-m", "rsssl_nb", *map(str, args)]
    place = dict(os.environ, PYTHONPATH=str(root))
    done = subprocess.run(line, capture_output=True, text=True, cwd=root, env=place)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout, time.time() - started


def commit_of(root: Path) -> str:
    "The commit of a checkout, in seven letters."
    line = ["git", "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(line, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def tuned(out: Path, start, images, labels, options: list, root: Path = ROOT) -> float:
    "Fine-tunes into a fresh folder `out` and gives the minutes it took."
    shutil.rmtree(out, ignore_errors=True)
    sources = ["--images", images, "--labels", labels, "--out", out]
    return command("finetune", start, *sources, *options, "--device", "cpu", root=root)[1] / 60


def judged(out: Path, image: Path, truth: Path, classes: Path) -> dict:
    "Scores of a segmenter's map of one image, drawn by today's code."
    command("map", out, image, out / "map.tif", "--device", "cpu")
    found = json.loads(command("score", out / "map.tif", truth, "--classes", classes, "--json")[0])
    values = found["iou"].values() if isinstance(found["iou"], dict) else found["iou"]
    iou = {name: value and round(value, 4) for name, value in zip(read_classes(classes).names, values)}
    return {name: round(float(found[name]), 4) for name in ("miou", "oa", "kappa")} | dict(iou=iou)


def precision_of(out: Path) -> str:
    "The precision that a run's config records; an older release always trained in float32."
    path = out / "config.json"
    return json.loads(path.read_text())["precision"] if path.exists() else "no"


# windows and images


def dubai_windows(dubai: Path, out: Path, px: int, fraction: float, seed: int) -> tuple[Path, int]:
    "A list of a share of the training scenes' published windows of `px` pixels: (its file, how many)."
    with open(dubai / f"windows_{px}.csv") as file:
        names = [row["window_id"] for row in csv.DictReader(file) if row["split"] == "train"]
    chosen = choose(names, fraction, seed)
    path = out / f"windows-{px}-{fraction}-{seed}.txt"
    path.write_text("\n".join(chosen) + "\n")
    return path, len(chosen)


def potsdam_halves(potsdam: Path, out: Path) -> list[tuple[Path, Path]]:
    "The left and the right half of Potsdam's tile: [(image, labels)]."
    image = open_raster(next(potsdam.glob("images/*.tif")))
    labels = open_raster(next(potsdam.glob("labels/*.png")))
    halves = []
    for name, x in (("left", 0), ("right", image.width // 2)):
        box = x, 0, image.width // 2, image.height
        pixels = np.nan_to_num(image.read(*box)).round().astype(np.uint8)
        known = np.nan_to_num(labels.read(*box), nan=255).astype(np.uint8)
        paths = out / f"potsdam-{name}.tif", out / f"potsdam-{name}-labels.tif"
        for path, array in zip(paths, (pixels, known)):
            write_raster(path, array)
        halves.append(paths)
    return halves


# the two parts


def old_steps(windows: int, batch: int = 16, epochs: int = 50) -> int:
    "Steps of 50 epochs at commit 6b65888: a fifth of the windows is held out, from twenty upward."
    kept = windows - (windows // 5 if windows >= 20 else 0)
    return epochs * -(-kept // min(batch, kept))


def defaults(asked, dubai: Path, rows: Rows):
    "Old and new defaults on the same windows, one row each; yields after every row."
    image, truth = stitch(dubai, 2, asked.out)
    roots = dict(old=asked.old) if asked.old else {}
    for fraction, seed, arm in product(asked.fractions, range(asked.seeds), asked.arms):
        root = roots.get(arm, ROOT)
        if arm == "old" and not asked.old:
            continue
        job = dict(arm=arm, data="dubai", px=asked.px, fraction=fraction, seed=seed)
        if rows.holds(job):
            continue
        subset, windows = dubai_windows(dubai, asked.out, asked.px, fraction, seed)
        folder = asked.out / f"defaults-{arm}-{asked.px}-{fraction}-{seed}"
        how = ["--subset", subset, "--size", asked.px, "--width", 16, "--seed", seed]
        steps = 1500 if arm == "new" else old_steps(windows)
        if arm == LONG:
            how += ["--steps", steps]
        minutes = tuned(folder, "random", dubai / "train/images", dubai / "train/labels", how, root)
        found = judged(folder, image, truth, dubai / "classes.json")
        told = dict(steps=steps, minutes=round(minutes, 2), windows=windows, width=16)
        told |= dict(precision=precision_of(folder), commit=commit_of(root), judged_on="dubai tile 2")
        rows.keep(job | found | told)
        yield


def losses(asked, dubai: Path, rows: Rows):
    "Each loss on two data sets, one row each; yields after every row."
    potsdam = dubai.parent / "potsdam"
    halves = potsdam_halves(potsdam, asked.out)
    tile = stitch(dubai, 2, asked.out)
    for seed, data, (arm, (start, how)) in product(range(asked.seeds), asked.data, LOSSES.items()):
        for part in (0, 1) if data == "potsdam" else (0,):
            job = dict(arm=arm, data=data, part=part, seed=seed)
            if rows.holds(job):
                continue
            folder = asked.out / f"losses-{data}-{part}-{list(LOSSES).index(arm)}-{seed}"
            length = ["--steps", STEPS, "--seed", seed]
            if data == "dubai":
                subset, windows = dubai_windows(dubai, asked.out, 128, 0.1, seed)
                where = dubai / "train/images", dubai / "train/labels"
                length += ["--subset", subset, "--size", 128]
                judge, classes = tile, dubai / "classes.json"
                source = start if start == "random" else pretrained(asked.out, dubai)
            else:
                where, judge, windows = halves[part], halves[1 - part], 8
                length += ["--fraction", 1, "--size", SIDE, "--classes", potsdam / "classes.json"]
                classes = potsdam / "classes.json"
                source = start if start == "random" else f"shipped:{start}-20"
            width = ["--width", 16] if start == "random" else []
            minutes = tuned(folder, source, *where, [*length, *width, *how])
            found = judged(folder, *judge, classes)
            told = dict(steps=STEPS, minutes=round(minutes, 2), windows=windows, width=16)
            rows.keep(job | found | told | dict(precision=precision_of(folder), commit=commit_of(ROOT)))
            yield


def pretrained(out: Path, dubai: Path) -> Path:
    "A run of SimCLR on Dubai's training scenes, 300 short steps, made once."
    run = out / "simclr"
    if not (run / "encoder.safetensors").exists():
        how = ["--steps", 300, "--batch", 32, "--size", 96, "--width", 16, "--resume", "auto"]
        command("pretrain", dubai / "train/images", "--out", run, *how, "--device", "cpu")
    return run


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=("defaults", "losses"), required=True)
    parser.add_argument("--old", type=lambda path: Path(path).resolve(), help="a checkout of commit 6b65888")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--arms", nargs="+", choices=("old", "new", LONG), default=["old", "new"])
    parser.add_argument("--data", nargs="+", choices=("potsdam", "dubai"), default=["potsdam", "dubai"])
    parser.add_argument("--px", type=int, choices=(128, 256), default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=10**6, help="new rows of this call")
    asked = parser.parse_args()
    if "RSSSL_DATA" not in os.environ:
        raise SystemExit("set RSSSL_DATA to the folder that holds dubai/ and potsdam/")
    asked.out = asked.out.resolve()
    asked.out.mkdir(parents=True, exist_ok=True)
    rows = Rows(ROOT / f"results/finetune-{asked.part}.json")
    work = globals()[asked.part](asked, Path(os.environ["RSSSL_DATA"]).resolve() / "dubai", rows)
    for made, _ in enumerate(work, 1):
        if made >= asked.most:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
