"""Encoders under the probes of torchgeo-bench, rebuilt: RSSCN7 by scene, Dubai's validation scene by pixel.

    python experiments/referee.py shipped:simclr-20 RUN/encoder.safetensors --names simclr-20 simclr-rsscn7
    add --keep to put the rows into results/referee.json, in place of those of the same model

RSSSL_DATA names the folder with `rsscn7/` and `dubai/`. An encoder of other bands has its first convolution
adapted. Beside each stand untrained ones of its architecture (`--seeds`). RSSCN7 is divided by
blocks of numbers; of Dubai, windows of 256 pixels resized to 224: the first published subset of 25 % to
learn from, the validation scene to judge by, no test scene.
"""

import argparse
import csv
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from controls import imagery

from rsssl_nb.data.folders import open_folders, read_image
from rsssl_nb.data.labels import read_classes
from rsssl_nb.data.raster import open_raster
from rsssl_nb.evaluation.judges import open_encoder, random_like
from rsssl_nb.evaluation.referee import referee, referee_pixels
from rsssl_nb.files import write_aside

SIZE = 224
ROWS = Path(__file__).parents[1] / "results/referee.json"


def dubai_windows(chosen):
    "Images (n, 3, 224, 224) and labels (n, 224, 224) of Dubai's windows whose rows of the list are `chosen`."
    folder = imagery() / "dubai"
    images, labels = [], []
    with open(folder / "windows_256.csv", newline="") as file:
        for row in filter(chosen, csv.DictReader(file)):
            x, y, size = (int(row[k]) for k in ("x", "y", "size"))
            part = f"{row['split']}/{{}}/{row['part']}"
            image = open_raster(folder / f"{part.format('images')}.jpg").read(x, y, size, size)
            label = read_image(folder / f"{part.format('labels')}.png")[0][y : y + size, x : x + size]
            image = torch.as_tensor(image)[None].float()
            label = torch.as_tensor(label)[None, None].float()
            images.append(F.interpolate(image, (SIZE, SIZE), mode="bilinear", align_corners=False)[0])
            labels.append(F.interpolate(label, (SIZE, SIZE), mode="nearest")[0, 0].long())
    return torch.stack(images).numpy(), torch.stack(labels).numpy()


def rows_of(encoder, name, folder, dubai, classes):
    "A row for each probe of one encoder, as they come."
    about = dict(model=name, normalization="mean_stdev", image_size=SIZE, interpolation="bilinear")
    for row in referee(encoder, folder):
        yield about | row
    yield about | dict(dataset="dubai-val") | referee_pixels(encoder, *dubai, classes)


def keep(new):
    "Puts rows into results/referee.json, in place of those of the same model."
    old = json.loads(ROWS.read_text()) if ROWS.exists() else []
    names = {row["model"] for row in new}
    rows = sorted([row for row in old if row["model"] not in names] + new, key=lambda row: row["model"])
    text = "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"
    write_aside(ROWS, lambda path: path.write_text(text))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="run folders, weights files, or shipped:NAME")
    parser.add_argument("--names", nargs="+", help="what the rows call them")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="of untrained encoders")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    folder = open_folders(imagery() / "rsscn7")
    listed = (imagery() / "dubai/subsets/train256_25pct_seed0.txt").read_text().split()
    dubai = [
        dubai_windows(chosen)
        for chosen in (lambda row: row["window_id"] in listed, lambda row: row["split"] == "val")
    ]
    classes = len(read_classes(imagery() / "dubai/classes.json").names)
    opened = {}
    for name, source in zip(asked.names or asked.runs, asked.runs):
        opened[name] = open_encoder(source, 3).eval()
        one = opened[name]
        for seed in asked.seeds:
            opened.setdefault(f"random-{one.name}-{one.width}-{seed}", random_like(one, seed))
    for name, encoder in opened.items():
        rows = []
        for row in rows_of(encoder, name, folder, dubai, classes):
            rows.append(
                {k: round(v, 4) if isinstance(v, float) and k != "best_c" else v for k, v in row.items()}
            )
            print(json.dumps(rows[-1]), flush=True)
        if asked.keep:
            keep(rows)


if __name__ == "__main__":
    main()
