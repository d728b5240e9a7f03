"""Peak memory of fine-tuning on 100 and on 10 000 windows of 256 pixels and four bands.

    python benchmarks/tuning_memory.py [--out results/tuning_memory.json]

Each run is a process of its own, on a sparse raster: one window in sixteen holds noise, the others zeros; all
pixels are labelled. `beside_mb` is the peak beyond what was resident before the images were opened: the
middle one of three runs, which all stand in `runs_mb`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from foreign_maps import resident

SIZE = 256
RUNS = 3


def sparse_pair(folder, windows):
    "An image of four bands and its labels, of about `windows` windows, as tiled TIFFs that leave zeros out."
    import rasterio
    from rasterio.windows import Window

    side = round(windows**0.5) * SIZE
    rng = np.random.default_rng(0)
    place = dict(driver="GTiff", width=side, height=side, dtype="uint8", sparse_ok=True, tiled=True)
    place |= dict(blockxsize=SIZE, blockysize=SIZE)
    with rasterio.open(folder / "image.tif", "w", count=4, **place) as image:
        for k in range(0, windows, 16):
            y, x = divmod(k, side // SIZE)
            noise = rng.integers(0, 256, (4, SIZE, SIZE), np.uint8)
            image.write(noise, window=Window(x * SIZE, y * SIZE, SIZE, SIZE))
    with rasterio.open(folder / "labels.tif", "w", count=1, **place) as labels:
        labels.write(np.ones((SIZE, SIZE), np.uint8), 1, window=Window(0, 0, SIZE, SIZE))
    return folder / "image.tif", folder / "labels.tif"


def measure(windows):
    "Fine-tunes eight steps: {windows, seconds, beside_mb, before_mb}."
    import torch

    from rsssl_nb.data.labels import Classes
    from rsssl_nb.training.finetune import finetune

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        image, labels = sparse_pair(Path(folder), windows)
        classes = Classes(["ground", "other"], [(0, 0, 0), (255, 255, 255)])
        before, began = resident(), time.perf_counter()
        shape = dict(width=4, size=SIZE, batch=4, steps=8, precision="no", device="cpu")
        _, log = finetune("random", [image], [labels], classes=classes, fraction=1.0, progress=False, **shape)
        return dict(
            windows=windows,
            steps=len(log),
            seconds=round(time.perf_counter() - began, 1),
            beside_mb=round(resident("VmHWM") - before),
            before_mb=round(before),
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--windows", type=int, help="measure this number only, here")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.windows:
        print(json.dumps(measure(asked.windows)), flush=True)
        return
    rows = []
    for windows in (100, 10_000):
        command = [sys.executable, __file__, "--windows", str(windows)]
        runs = []
        for _ in range(RUNS):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        runs.sort(key=lambda run: run["beside_mb"])
        rows.append(runs[RUNS // 2] | dict(runs_mb=[run["beside_mb"] for run in runs]))
        print(rows[-1], flush=True)
    print(f"ratio {rows[1]['beside_mb'] / rows[0]['beside_mb']:.3f}")
    if asked.out:
        asked.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
