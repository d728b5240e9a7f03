"""The main job on real imagery: does pretraining beat a random start on Dubai's validation scene?

    RSSSL_DATA=... python experiments/dubai.py OUT [--seeds 3] [--methods simclr] [--subsets 10pct]
                                                   [--epochs 5] [--samples 1024] [--size 96]

Pretrains on the training scenes and fine-tunes on a published subset of their windows, beside a random start
with the same steps (`random`) and one with the pretraining's minutes added to its fine-tuning
(`random-equal-time`). Maps tile 2, stitched from its nine parts, and scores it; the majority class and
per-pixel boosting on the same labels stand beside it. The test scenes stay shut. Rows land in
results/dubai-val.json, one per (method, subset, seed); rows that are there are not run again.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from itertools import product
from os import environ
from pathlib import Path

import numpy as np

from rsssl_nb.data.labels import read_classes
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.write import write_raster
from rsssl_nb.evaluation.scores import confusion, scores

ROOT = Path(__file__).resolve().parents[1]


def command(*args) -> float:
    "Runs one `rsssl-nb` command and prints its last line; gives its seconds."
    started = time.time()
    done = subprocess.run([sys.executable, "-m", "rsssl_nb", *map(str, args)], capture_output=True, text=True)
    last = (done.stdout or done.stderr).strip().splitlines()[-1]
    print(f"[{time.time() - started:5.0f} s] {args[0]}: {last}", flush=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.time() - started


def stitch(dubai: Path, tile: int, out: Path) -> tuple[Path, Path]:
    "A tile's nine parts as one image and one label raster in `out`: (image path, label path)."
    paths = out / f"tile{tile}.tif", out / f"tile{tile}_labels.tif"
    if all(path.exists() for path in paths):
        return paths
    with open(dubai / "parts.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["tile"] == str(tile)]
    places = [tuple(int(row[key]) for key in ("mosaic_x", "mosaic_y", "width", "height")) for row in rows]
    width = max(x + w for x, _, w, _ in places)
    height = max(y + h for _, y, _, h in places)
    image = np.zeros((3, height, width), np.uint8)
    labels = np.full((1, height, width), 255, np.uint8)
    for row, (x, y, w, h) in zip(rows, places):
        image[:, y : y + h, x : x + w] = open_raster(dubai / row["image"]).read(0, 0, w, h)
        part = open_raster(dubai / row["label"]).read(0, 0, w, h)
        labels[:, y : y + h, x : x + w] = np.nan_to_num(part, nan=255)
    for path, array in zip(paths, (image, labels)):
        write_raster(path, array, None, None, None)
    return paths


def pixels(dubai: Path, subset: Path, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    "Every labelled pixel of a subset's windows: features (n, 3 + 3 + 1) and labels (n,)."
    xs, ys = [], []
    for name in Path(subset).read_text().split():
        stem, y, x = name.rsplit("_", 2)
        window = int(x[1:]), int(y[1:]), size, size
        xs.append(pixel_features(open_raster(next(dubai.glob(f"*/images/{stem}.jpg"))).read(*window)))
        ys.append(open_raster(next(dubai.glob(f"*/labels/{stem}.png"))).read(*window)[0].ravel())
    x, y = np.concatenate(xs), np.concatenate(ys)
    keep = np.isfinite(y) & (y != 255)
    return x[keep], y[keep].astype(int)


def pixel_features(image: np.ndarray) -> np.ndarray:
    "Colour, blurred colour and local contrast of each pixel: (H*W, 7)."
    from scipy.ndimage import gaussian_filter, uniform_filter

    image = np.nan_to_num(image)
    grey = image.mean(0)
    contrast = np.sqrt(np.maximum(uniform_filter(grey**2, 9) - uniform_filter(grey, 9) ** 2, 0))
    return np.concatenate([image, gaussian_filter(image, (0, 4, 4)), contrast[None]]).reshape(7, -1).T


def references(dubai: Path, subset: Path, image: Path, truth: np.ndarray, n: int) -> dict[str, dict]:
    "Scores of the majority class and of per-pixel boosting on a subset's labels."
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = pixels(dubai, subset)
    chosen = np.random.default_rng(0).choice(len(y), min(len(y), 200_000), replace=False)
    boosting = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x[chosen], y[chosen])
    raster = open_raster(image)
    features = pixel_features(raster.read(0, 0, raster.width, raster.height))
    drawn = boosting.predict(features).reshape(truth.shape).astype(np.uint8)
    majority = np.full_like(truth, np.bincount(y).argmax())
    return {
        "majority": scores(confusion(truth, majority, n)),
        "boosting": scores(confusion(truth, drawn, n)),
    }


def row_of(method: str, subset: str, seed: int, found: dict, names, **more) -> dict:
    "One line of the results file: named scores, rounded."
    values = list(found["iou"].values()) if isinstance(found["iou"], dict) else found["iou"]
    return dict(
        method=method,
        subset=subset,
        seed=seed,
        **{name: round(float(found[name]), 4) for name in ("miou", "oa", "kappa", "f1")},
        iou={name: round(float(value), 4) for name, value in zip(names, values)},
        **more,
    )


class Rows:
    "The rows of a results file, written whole after each new one."

    def __init__(self, path: Path):
        self.path = path
        self.rows = json.loads(path.read_text()) if path.exists() else []
        self.done = {(row["method"], row["subset"], row["seed"]) for row in self.rows}

    def keep(self, row: dict) -> None:
        "Adds a row, writes the file and prints the row's scores."
        self.rows.append(row)
        self.path.write_text("[\n" + ",\n".join(json.dumps(row) for row in self.rows) + "\n]\n")
        print(
            f"{row['method']:10} {row['subset']} seed {row['seed']}: "
            f"mIoU {row['miou']:.3f}  OA {row['oa']:.3f}",
            flush=True,
        )

    def pretraining_minutes(self, method: str, seed: int) -> float:
        "What the pretraining of a method and seed took, by the rows that used its encoder; 0 without one."
        same = [row for row in self.rows if (row["method"], row["seed"]) == (method, seed)]
        return max((row["minutes_pretrain"] for row in same), default=0.0)

    def longer(self, method: str, subset: str, seed: int) -> float:
        "By how much fine-tuning must grow to take as long as a method's pretraining and fine-tuning."
        for row in self.rows:
            if (row["method"], row["subset"], row["seed"]) == (method, subset, seed):
                return 1 + row["minutes_pretrain"] / row["minutes_finetune"]
        return 1


def options() -> argparse.ArgumentParser:
    "The options of the command."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    sizes = dict(seeds=3, epochs=5, samples=1024, size=96, batch=64, width=16, tune_epochs=10)
    for name, value in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--methods", nargs="+", default=["simclr"])
    parser.add_argument("--subsets", nargs="+", default=["10pct"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=ROOT / "results/dubai-val.json")
    return parser


def flags(**values) -> list:
    "Options of a command as its arguments: --name value."
    return [part for name, value in values.items() for part in (f"--{name}", value)]


def pretrain_run(run: Path, dubai: Path, method: str, seed: int, asked) -> float:
    "Pretrains a method on Dubai's training scenes into `run`; gives its minutes."
    sizes = {name: getattr(asked, name) for name in ("epochs", "samples", "batch", "size", "width")}
    how = flags(method=method, out=run, **sizes, seed=seed, device=asked.device, resume="auto")
    return command("pretrain", dubai / "train/images", *how) / 60


def finetune_and_score(
    start: Path | str, tuned: Path, dubai: Path, subset: Path, epochs: int, seed: int, image, truth, asked
) -> tuple[dict, float]:
    "Fine-tunes from a run (or `random`) on a subset and maps tile 2: (scores, minutes of fine-tuning)."
    train = flags(images=dubai / "train/images", labels=dubai / "train/labels", subset=subset)
    how = flags(epochs=epochs, width=asked.width, seed=seed, device=asked.device, out=tuned)
    minutes = command("finetune", start, *train, *how) / 60
    command("map", tuned, image, tuned / "map.tif", "--device", asked.device)
    score = ["score", tuned / "map.tif", truth, "--classes", dubai / "classes.json", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "rsssl_nb", *score], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout), minutes


def main():
    asked = options().parse_args()
    if "RSSSL_DATA" not in environ:
        raise SystemExit("set RSSSL_DATA to the folder that holds dubai/")
    dubai = Path(environ["RSSSL_DATA"]) / "dubai"
    for folder in (asked.out, asked.results.parent):
        folder.mkdir(parents=True, exist_ok=True)
    names = read_classes(dubai / "classes.json").names
    image, truth_path = stitch(dubai, 2, asked.out)
    raster = open_raster(truth_path)
    truth = raster.read(0, 0, raster.width, raster.height)[0].astype(np.uint8)
    rows = Rows(asked.results)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    setting = dict(
        tile=2,
        encoder=f"resnet18 width {asked.width} stride 8",
        epochs=asked.epochs,
        samples=asked.samples,
        px=asked.size,
        tune_epochs=asked.tune_epochs,
        device=asked.device,
        commit=commit,
        date=time.strftime("%Y-%m-%d"),
    )

    def listed(subset, seed):
        return dubai / f"subsets/train256_{subset}_seed{seed}.txt"

    for subset in asked.subsets:
        if ("boosting", subset, 0) not in rows.done:
            for name, found in references(dubai, listed(subset, 0), image, truth, len(names)).items():
                rows.keep(row_of(name, subset, 0, found, names, **setting))
    for seed, method in product(range(asked.seeds), [*asked.methods, "random", "random-equal-time"]):
        run = asked.out / f"{method}-{seed}"
        minutes = rows.pretraining_minutes(method, seed)
        todo = [subset for subset in asked.subsets if (method, subset, seed) not in rows.done]
        if todo and method in asked.methods and not (run / "encoder.safetensors").exists():
            minutes = pretrain_run(run, dubai, method, seed, asked)
        for subset in todo:
            longer = 1
            if method == "random-equal-time":
                longer = rows.longer(asked.methods[0], subset, seed)
            epochs = round(asked.tune_epochs * longer)
            start = run if method in asked.methods else "random"
            tuned = asked.out / f"{method}-{seed}-{subset}"
            found, spent = finetune_and_score(
                start, tuned, dubai, listed(subset, seed), epochs, seed, image, truth_path, asked
            )
            took = dict(minutes_pretrain=round(minutes, 1), minutes_finetune=round(spent, 1))
            rows.keep(
                row_of(method, subset, seed, found, names, **took, **{**setting, "tune_epochs": epochs})
            )


if __name__ == "__main__":
    main()
