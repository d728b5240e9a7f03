"""The four-line job: fine-tuning from paths alone, beside options thought best and an older release.

    RSSSL_DATA=... python experiments/four_lines.py OUT [--old CHECKOUT] [--scenes ...] [--arms ...]

Two scenes with few windows, learnt on one half and judged on the other, from a fresh network of width 16:
a part of Dubai as a user's own file may be (uint16, a fourth band made of the others, labels in colours), and
a tile of Potsdam. `paths alone` says nothing else; `small windows` and `long, weighted` say what was thought
best once; `old` and `old, long, weighted` are the release at commit 6b65888 (a checkout of it in CHECKOUT).
Today's code draws every map. Rows land in results/four_lines.json; rows that are there are not made again.
"""

import argparse
import json
import os
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor
from tuning import ROOT, Rows, commit_of, judged, potsdam_halves, precision_of, tuned

from rsssl_nb.data.labels import read_classes
from rsssl_nb.data.write import write_raster

SMALL, LONG = ["--size", 128], ["--size", 128, "--epochs", 200, "--class-weight"]
ARMS = {  # name: (whether it is the older release, options of the command)
    "paths alone": (False, []),
    "small windows": (False, SMALL),
    "long, weighted": (False, LONG),
    "old": (True, []),
    "old, long, weighted": (True, LONG),
}
PART = "tile4_part006"  # 1 099 x 846 pixels of a training scene, all five classes in both halves


def own_file(pixels: np.ndarray) -> np.ndarray:
    "Pixels (H, W, 3) of 8 bits as uint16 (4, H, W) that fill a part of their range; the last is made."
    r, g, b = (16 * pixels[..., k].astype(np.uint16) for k in range(3))
    return np.stack([r, g, b, (r + g) // 2])


def dubai_halves(dubai: Path, out: Path) -> list[tuple[Path, Path]]:
    "The west and the east half of a part of Dubai: [(image, labels in colours)]."
    pixels = np.asarray(Image.open(dubai / f"train/images/{PART}.jpg").convert("RGB"))
    known = np.asarray(Image.open(dubai / f"train/labels/{PART}.png"))
    colours = np.zeros((256, 3), np.uint8)
    for label, colour in enumerate(read_classes(dubai / "classes.json").colors):
        colours[label] = ImageColor.getrgb(colour)[:3]
    halves, middle = [], pixels.shape[1] // 2
    for name, columns in (("west", slice(0, middle)), ("east", slice(middle, None))):
        paths = out / f"dubai-{name}.tif", out / f"dubai-{name}-labels.tif"
        write_raster(paths[0], own_file(pixels[:, columns]))
        write_raster(paths[1], colours[known[:, columns]].transpose(2, 0, 1).copy())
        halves.append(paths)
    return halves


HALVES = {"dubai": dubai_halves, "potsdam": potsdam_halves}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--old", type=lambda path: Path(path).resolve(), help="a checkout of commit 6b65888")
    parser.add_argument("--scenes", nargs="+", choices=list(HALVES), default=list(HALVES))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    asked = parser.parse_args()
    if "RSSSL_DATA" not in os.environ:
        raise SystemExit("set RSSSL_DATA to the folder that holds dubai/ and potsdam/")
    data, out = Path(os.environ["RSSSL_DATA"]).resolve(), asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows = Rows(ROOT / "results/four_lines.json")
    for seed, scene, arm in product(asked.seeds, asked.scenes, asked.arms):
        (old, options), job = ARMS[arm], dict(arm=arm, data=scene, seed=seed)
        if rows.holds(job) or old and not asked.old:
            continue
        learnt, asked_of = HALVES[scene](data / scene, out)
        classes, root = data / scene / "classes.json", asked.old if old else ROOT
        folder = out / f"{scene}-{list(ARMS).index(arm)}-{seed}"
        common = ["--classes", classes, "--width", 16, "--seed", seed]
        common += ["--fraction", 1] * old  # which the older release wants said
        minutes = tuned(folder, "random", *learnt, [*options, *common], root)
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        found = judged(folder, *asked_of, classes)
        told = dict(options=" ".join(map(str, options)), steps=len(log), minutes=round(minutes, 2))
        rows.keep(job | told | found | dict(precision=precision_of(folder), commit=commit_of(root)))


if __name__ == "__main__":
    main()
