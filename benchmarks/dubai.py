"""The main job on real imagery, by command line: does pretraining beat a random start on Dubai's validation scene?

    RSSSL_DATA=... python benchmarks/dubai.py OUT [--seeds 3] [--methods simclr] [--subsets 10pct] [--epochs 5] [--samples 1024] [--size 96]

Pretrains on the training scenes, fine-tunes on a published subset of their windows, beside a random start with the same steps
(`random`) and with the pretraining's minutes added to its fine-tuning (`random-equal-time`), maps tile 2 stitched from its nine parts, scores it, and puts the majority class and per-pixel boosting on the same labels beside it. The test scenes stay shut.
Rows land in results/dubai-val.json, one per (method, subset, seed); rows that are there are not run again.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from os import environ
from pathlib import Path

import numpy as np

from rsssl_nb.data.labels import read_classes
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.write import write_raster
from rsssl_nb.evaluation.scores import confusion, scores

ROOT = Path(__file__).resolve().parents[1]


def command(*args):
    "One `rsssl-nb` command, timed; its last line printed."
    started = time.time()
    done = subprocess.run([sys.executable, "-m", "rsssl_nb", *map(str, args)], capture_output=True, text=True)
    print(
        f"[{time.time() - started:5.0f} s] {args[0]}: {(done.stdout or done.stderr).strip().splitlines()[-1]}",
        flush=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.time() - started


def stitch(dubai, tile, out):
    "A tile's nine parts as one image and one label raster in `out`: (image path, label path)."
    paths = out / f"tile{tile}.tif", out / f"tile{tile}_labels.tif"
    if all(p.exists() for p in paths):
        return paths
    rows = [r for r in csv.DictReader(open(dubai / "parts.csv")) if r["tile"] == str(tile)]
    at = [(int(r["mosaic_x"]), int(r["mosaic_y"]), int(r["width"]), int(r["height"])) for r in rows]
    width, height = max(x + w for x, _, w, _ in at), max(y + h for _, y, _, h in at)
    image, labels = np.zeros((3, height, width), np.uint8), np.full((1, height, width), 255, np.uint8)
    for r, (x, y, w, h) in zip(rows, at):
        image[:, y : y + h, x : x + w] = open_raster(dubai / r["image"]).read(0, 0, w, h)
        labels[:, y : y + h, x : x + w] = np.nan_to_num(
            open_raster(dubai / r["label"]).read(0, 0, w, h), nan=255
        )
    for path, array in zip(paths, (image, labels)):
        write_raster(path, array, None, None, None)
    return paths


def pixels(dubai, subset, size=256):
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


def pixel_features(image):
    "Colour, blurred colour and local contrast of each pixel: (H*W, 7)."
    from scipy.ndimage import gaussian_filter, uniform_filter

    image = np.nan_to_num(image)
    grey = image.mean(0)
    contrast = np.sqrt(np.maximum(uniform_filter(grey**2, 9) - uniform_filter(grey, 9) ** 2, 0))
    return np.concatenate([image, gaussian_filter(image, (0, 4, 4)), contrast[None]]).reshape(7, -1).T


def references(dubai, subset, image, truth, n):
    "Scores of the majority class and of per-pixel boosting on a subset's labels."
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = pixels(dubai, subset)
    chosen = np.random.default_rng(0).choice(len(y), min(len(y), 200_000), replace=False)
    boosting = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x[chosen], y[chosen])
    raster = open_raster(image)
    drawn = (
        boosting.predict(pixel_features(raster.read(0, 0, raster.width, raster.height)))
        .reshape(truth.shape)
        .astype(np.uint8)
    )
    return {
        "majority": scores(confusion(truth, np.full_like(truth, np.bincount(y).argmax()), n)),
        "boosting": scores(confusion(truth, drawn, n)),
    }


def row(method, subset, seed, found, names, **more):
    "One line of the results file: named scores, rounded."
    return dict(
        method=method,
        subset=subset,
        seed=seed,
        **{k: round(float(found[k]), 4) for k in ("miou", "oa", "kappa", "f1")},
        iou={
            n: round(float(v), 4)
            for n, v in zip(
                names, list(found["iou"].values()) if isinstance(found["iou"], dict) else found["iou"]
            )
        },
        **more,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    for name, value in dict(
        seeds=3, epochs=5, samples=1024, size=96, batch=64, width=16, tune_epochs=10
    ).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--methods", nargs="+", default=["simclr"])
    parser.add_argument("--subsets", nargs="+", default=["10pct"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=ROOT / "results/dubai-val.json")
    a = parser.parse_args()
    if "RSSSL_DATA" not in environ:
        raise SystemExit("set RSSSL_DATA to the folder that holds dubai/")
    dubai = Path(environ["RSSSL_DATA"]) / "dubai"
    for folder in (a.out, a.results.parent):
        folder.mkdir(parents=True, exist_ok=True)
    names = read_classes(dubai / "classes.json").names
    image, truth_path = stitch(dubai, 2, a.out)
    truth = (
        open_raster(truth_path)
        .read(0, 0, *(lambda r: (r.width, r.height))(open_raster(truth_path)))[0]
        .astype(np.uint8)
    )
    rows = json.loads(a.results.read_text()) if a.results.exists() else []
    done = {(r["method"], r["subset"], r["seed"]) for r in rows}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    setting = dict(
        tile=2,
        encoder=f"resnet18 width {a.width} stride 8",
        epochs=a.epochs,
        samples=a.samples,
        px=a.size,
        tune_epochs=a.tune_epochs,
        device=a.device,
        commit=commit,
        date=time.strftime("%Y-%m-%d"),
    )

    def keep(new):
        rows.append(new)
        a.results.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
        print(
            f"{new['method']:10} {new['subset']} seed {new['seed']}: mIoU {new['miou']:.3f}  OA {new['oa']:.3f}",
            flush=True,
        )

    for subset in a.subsets:
        listed = lambda seed: dubai / f"subsets/train256_{subset}_seed{seed}.txt"
        if ("boosting", subset, 0) not in done:
            for name, found in references(dubai, listed(0), image, truth, len(names)).items():
                keep(row(name, subset, 0, found, names, **setting))
    for seed in range(a.seeds):
        for method in [*a.methods, "random", "random-equal-time"]:
            run = a.out / f"{method}-{seed}"
            minutes = max(
                (r["minutes_pretrain"] for r in rows if (r["method"], r["seed"]) == (method, seed)),
                default=0.0,
            )  # of the same encoder, trained before
            todo = [s for s in a.subsets if (method, s, seed) not in done]
            if todo and method in a.methods and not (run / "encoder.safetensors").exists():
                minutes = (
                    command(
                        "pretrain",
                        dubai / "train/images",
                        "--method",
                        method,
                        "--out",
                        run,
                        "--epochs",
                        a.epochs,
                        "--samples",
                        a.samples,
                        "--batch",
                        a.batch,
                        "--size",
                        a.size,
                        "--width",
                        a.width,
                        "--seed",
                        seed,
                        "--device",
                        a.device,
                        "--resume",
                        "auto",
                    )
                    / 60
                )
            for subset in todo:
                tuned = a.out / f"{method}-{seed}-{subset}"
                longer = next(
                    (
                        1 + r["minutes_pretrain"] / r["minutes_finetune"]
                        for r in rows
                        if method == "random-equal-time"
                        and (r["method"], r["subset"], r["seed"]) == (a.methods[0], subset, seed)
                    ),
                    1,
                )
                epochs = round(a.tune_epochs * longer)
                spent = (
                    command(
                        "finetune",
                        run if method in a.methods else "random",
                        "--images",
                        dubai / "train/images",
                        "--labels",
                        dubai / "train/labels",
                        "--subset",
                        dubai / f"subsets/train256_{subset}_seed{seed}.txt",
                        "--epochs",
                        epochs,
                        "--width",
                        a.width,
                        "--seed",
                        seed,
                        "--device",
                        a.device,
                        "--out",
                        tuned,
                    )
                    / 60
                )
                command("map", tuned, image, tuned / "map.tif", "--device", a.device)
                found = json.loads(
                    subprocess.run(
                        [
                            sys.executable,
                            "-m",
                            "rsssl_nb",
                            "score",
                            tuned / "map.tif",
                            truth_path,
                            "--classes",
                            dubai / "classes.json",
                            "--json",
                        ],
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                )
                keep(
                    row(
                        method,
                        subset,
                        seed,
                        found,
                        names,
                        minutes_pretrain=round(minutes, 1),
                        minutes_finetune=round(spent, 1),
                        **{**setting, "tune_epochs": epochs},
                    )
                )


if __name__ == "__main__":
    main()
