"""What the evidence is gathered on: embedded scenes, Dubai and RSSCN7 packed as 128-pixel tiles, or a data set on your disk - all as stacks of tiles."""

import csv
import hashlib
import io
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from rsssl_nb.data.scenes import CLASSES, make_scene, make_tiles
from rsssl_nb.files import write_aside
from rsssl_nb.training.labelled import choose

SUBSETS = [(f, k) for f in ("01pct", "05pct", "10pct") for k in range(3)]


@dataclass
class Tiles:
    "Images uint8 (n, C, S, S) with labels (n, S, S), 255 unknown; by tile, its test block, its 256-pixel window, its scene and the corner (n, 2) there."

    images: torch.Tensor
    labels: torch.Tensor
    block: np.ndarray
    window: np.ndarray = None
    scene: np.ndarray = None
    corner: np.ndarray = None

    def to(self, device):
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return Tiles(*(None if v is None else v[i] for v in vars(self).values()))


@dataclass
class Data:
    "What a stage learns from: `pools` by name (images, labels), labelled `train`, `test()`, class names, `subset(fraction, number)` of train, a hash, overlapping annotations."

    name: str
    pools: dict
    train: Tiles
    test: object
    classes: list
    subset: object
    hash: str
    overlaps: list = field(default_factory=list)


def hash_of(*arrays):
    "Twelve digits that stand for arrays."
    found = hashlib.sha256()
    for a in arrays:
        found.update(np.ascontiguousarray(a))
    return found.hexdigest()[:12]


def drawn(n):
    "Subsets of n tiles drawn at random, not by class, nested: (fraction, number) to indices; 1 % of Potsdam's 13824 are its papers' 138."
    return lambda fraction, number: torch.tensor(
        choose(range(n), 1.0 if fraction == "all" else int(fraction[:2]) / 100, number)
    )


def embedded(size=48):
    "Tiles of embedded scenes: a pool and labels from one set of scenes, the test from another."

    def tiles(n, seed):
        x, y = make_tiles(n, size, seed)
        return Tiles(torch.as_tensor(x), torch.as_tensor(y), np.array([f"scene{k // 8}" for k in range(n)]))

    train, test = tiles(96, 1), tiles(48, 2)
    return Data(
        "scenes",
        {"scenes": (train.images, train.labels)},
        train,
        lambda: test,
        list(CLASSES),
        drawn(len(train)),
        hash_of(train.images, train.labels, test.images, test.labels),
    )


def on_disk(name, root, px, opened):
    "Potsdam, LoveDA, DeepGlobe or folders (data.datasets) as tiles of `px`, tested on the test scenes or, where those have no labels, on val."
    from rsssl_nb.data.datasets import LAYOUTS, open_dataset
    from rsssl_nb.training.labelled import labelled_windows, read_windows

    dataset = open_dataset(root, name if name in LAYOUTS else None)

    def tiles(split):
        entries = [e for e in dataset.split(split) if e.labels is not None]
        windows = labelled_windows(
            pairs := [(dataset.raster(e), dataset.labels(e)) for e in entries], px, 1.0
        )
        x, y = read_windows(pairs, windows, px)
        return Tiles(
            x.nan_to_num(0).clamp(0, 255).to(torch.uint8),
            y,
            np.array([f"{entries[i].name}_{b // 512}_{a // 512}" for i, a, b in windows]),
        )

    train, judged = (
        tiles("train"),
        "test" if any(e.split == "test" and e.labels is not None for e in dataset.scenes) else "val",
    )
    return Data(
        name,
        {name: (train.images, train.labels)},
        train,
        lambda: opened() or tiles(judged),
        list(dataset.classes.names),
        drawn(len(train)),
        hash_of(train.images, train.labels),
    )


def as_jpeg(image, quality=75):
    from PIL import Image

    found = io.BytesIO()
    Image.fromarray(image).save(found, "JPEG", quality=quality)
    return np.frombuffer(found.getvalue(), np.uint8)


def pack(out):
    "Dubai's scenes and RSSCN7's centres (RSSSL_DATA) in two files of `out`, 40 MB at most; tiles over an edge are filled up with black and 255, and left out of training."
    from PIL import Image

    source, jpeg, labels, rows = Path(os.environ["RSSSL_DATA"]), [], [], []
    for r in csv.DictReader(open(source / "dubai/parts.csv")):
        image, told = (
            np.asarray(Image.open(source / "dubai" / r["image"]).convert("RGB")),
            np.asarray(Image.open(source / "dubai" / r["label"])),
        )
        wide = [(0, -side % 128) for side in told.shape]
        image, told = np.pad(image, (*wide, (0, 0))), np.pad(told, wide, constant_values=255)
        for y, x in np.ndindex(told.shape[0] // 128, told.shape[1] // 128):
            y, x = 128 * y, 128 * x
            if r["split"] == "train" and (x + 128 > int(r["width"]) or y + 128 > int(r["height"])):
                continue
            jpeg.append(as_jpeg(image[y : y + 128, x : x + 128]))
            labels.append(told[y : y + 128, x : x + 128])
            rows.append(
                (
                    r["split"],
                    f"{r['id']}_y{y // 256 * 256:04d}_x{x // 256 * 256:04d}",
                    r["tile"],
                    int(r["mosaic_x"]) + x,
                    int(r["mosaic_y"]) + y,
                    x % 256,
                    y % 256,
                )
            )
    split, window, scene, *places = (np.array(v) for v in zip(*rows))
    more = dict(
        subsets={
            f"{f}_{k}": (source / f"dubai/subsets/train256_{f}_seed{k}.txt").read_text().split()
            for f, k in SUBSETS
        },
        classes=[c["name"] for c in json.loads((source / "dubai/classes.json").read_text())["classes"]],
        overlaps=json.loads((source / "dubai/overlaps.json").read_text()),
    )
    far = [
        as_jpeg(np.asarray(Image.open(p).convert("RGB"))[64:192, 64:192])
        for p in sorted((source / "rsscn7").rglob("*.jpg"))
    ]
    joint = lambda pieces: dict(jpeg=np.concatenate(pieces), ends=np.cumsum([0] + [len(p) for p in pieces]))
    for name, what in (
        (
            "dubai",
            dict(
                **joint(jpeg),
                labels=np.stack(labels),
                split=split,
                window=window,
                scene=scene,
                places=np.stack(places, 1),
                more=json.dumps(more),
            ),
        ),
        ("rsscn7", joint(far)),
    ):
        with io.BytesIO() as file:
            np.savez_compressed(file, **what)
            write_aside(out / f"{name}.npz", lambda p: p.write_bytes(file.getvalue()))
    size = sum((out / f"{n}.npz").stat().st_size for n in ("dubai", "rsscn7")) / 1e6
    if size > 40:
        raise SystemExit(f"the pack has {size:.1f} MB, and may have 40: lower the quality in as_jpeg")
    print(f"{len(jpeg)} tiles of Dubai and {len(far)} of RSSCN7 in {out}: {size:.1f} MB")


def decoded(z, which):
    "Images (n, 3, 128, 128) uint8 of some rows of a pack."
    from PIL import Image

    jpeg, ends = z["jpeg"], z["ends"]
    return (
        torch.as_tensor(
            np.stack(
                [np.asarray(Image.open(io.BytesIO(jpeg[ends[i] : ends[i + 1]].tobytes()))) for i in which]
            )
        )
        .permute(0, 3, 1, 2)
        .contiguous()
    )


def joined(tiles, places):
    "256-pixel tiles from 128-pixel ones, by window; what is missing is black and 255."
    names, at = np.unique(tiles.window, return_inverse=True)
    images, labels, first = (
        torch.zeros(len(names), 3, 256, 256, dtype=torch.uint8),
        torch.full((len(names), 256, 256), 255, dtype=torch.uint8),
        np.unique(at, return_index=True)[1],
    )
    for k, (i, x, y) in enumerate(zip(at, *places.T)):
        images[i, :, y : y + 128, x : x + 128], labels[i, y : y + 128, x : x + 128] = (
            tiles.images[k],
            tiles.labels[k],
        )
    return Tiles(images, labels, tiles.block[first], names, tiles.scene[first], tiles.corner[first])


def dubai(folder, px, opened):
    "Dubai from its pack, made first where it is missing: pools dubai, rsscn7, both; nested label subsets as published; test scenes 1 and 3 behind `test`, which tells `opened`."
    if not (folder / "rsscn7.npz").exists():
        pack(folder)
    z, far = np.load(folder / "dubai.npz"), np.load(folder / "rsscn7.npz")
    more, labels, places = json.loads(str(z["more"])), torch.as_tensor(z["labels"]), z["places"]

    def tiles(*splits):
        i = np.flatnonzero(np.isin(z["split"], splits))
        block = np.array(
            [f"tile{s}_{y // 512}_{x // 512}" for s, x, y in zip(z["scene"][i], *places[i, :2].T)]
        )
        found = Tiles(decoded(z, i), labels[i], block, z["window"][i], z["scene"][i], places[i, :2])
        return joined(found, places[i, 2:]) if px > 128 else found

    train, away = tiles("train"), decoded(far, range(len(far["ends"]) - 1))
    if px > 128:
        away = torch.nn.functional.interpolate(away.float(), 256).to(torch.uint8)
    unknown = torch.full((len(away), *train.labels.shape[1:]), 255, dtype=torch.uint8)

    def subset(fraction, number):
        return torch.as_tensor(
            np.flatnonzero(
                np.isin(
                    train.window,
                    train.window if fraction == "all" else more["subsets"][f"{fraction}_{number}"],
                )
            )
        )

    pools = {
        "dubai": (train.images, train.labels),
        "rsscn7": (away, unknown),
        "both": (torch.cat([train.images, away]), torch.cat([train.labels, unknown])),
    }
    data = Data(
        "dubai",
        pools,
        train,
        lambda: opened() or tiles("test"),
        more["classes"],
        subset,
        hash_of(z["jpeg"], z["labels"]),
        more["overlaps"],
    )
    data.val = lambda: tiles("val")
    return data


def audited(name, folder, n=(32, 16)):
    "For the scorecard: tiles to learn on and tiles of other scenes to look at, eight a scene of the embedded world, or of Dubai's training (4, 7, 8) and other (5, 2) scenes; class count, metres a pixel."
    rng = np.random.default_rng(0)
    if name == "dubai":
        data = dubai(folder, 128, lambda: None)
        near, val = data.train, data.val()
        pick = lambda tiles, scenes, m: tiles[
            torch.as_tensor(
                np.sort(
                    np.concatenate(
                        [rng.choice(np.flatnonzero(tiles.scene == s), m, replace=False) for s in scenes]
                    )
                )
            )
        ]
        five, two = pick(near, "5", 64), pick(val, "2", 64)
        return (
            pick(near, "478", 85),
            Tiles(
                *(
                    np.concatenate(v) if isinstance(v[0], np.ndarray) else torch.cat(v)
                    for v in zip(vars(five).values(), vars(two).values())
                )
            ),
            len(data.classes),
            1.0,
        )

    def cut(seeds):
        scenes, at = {str(k): make_scene(320, k) for k in seeds}, rng.integers(0, 256, (8 * len(seeds), 2))
        names = np.repeat(list(scenes), 8)
        take = lambda a, s, x, y: getattr(scenes[s], a)[..., y : y + 64, x : x + 64]
        return Tiles(
            *(
                torch.as_tensor(np.stack([take(a, s, x, y) for s, (x, y) in zip(names, at)]))
                for a in ("image", "labels")
            ),
            names,
            None,
            names,
            at,
        )

    return cut(range(n[0])), cut(range(100, 100 + n[1])), len(CLASSES), 0.5
