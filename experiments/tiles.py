"""What the evidence is gathered on, always as stacks of tiles.

Embedded scenes, Dubai and RSSCN7 packed as 128-pixel tiles, or a data set on your disk.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch

from rsssl_nb.data.scenes import CLASSES, make_scene, make_tiles
from rsssl_nb.files import write_aside
from rsssl_nb.training.labelled import choose

SUBSETS = [(fraction, number) for fraction in ("01pct", "05pct", "10pct") for number in range(3)]
SIDE = 128  # of a tile of the pack
MOST = 40  # megabytes that a pack may have


@dataclass
class Tiles:
    """Images uint8 (n, C, S, S) with labels (n, S, S), 255 unknown.

    By tile: its test block, its 256-pixel window, its scene, and its corner (n, 2) there.
    """

    images: torch.Tensor
    labels: torch.Tensor
    block: np.ndarray
    window: np.ndarray | None = None
    scene: np.ndarray | None = None
    corner: np.ndarray | None = None

    def to(self, device: str) -> "Tiles":
        "The tiles with images and labels on a device."
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        values = (getattr(self, f.name) for f in fields(self))
        return Tiles(*(None if value is None else value[i] for value in values))


@dataclass
class Data:
    """What a stage learns from.

    `pools`: {name: (images, labels)}; `train`: labelled Tiles; `test()`: the test Tiles; `classes`: names;
    `subset(fraction, number)`: numbers of tiles of `train`; `hash` of the data; `overlaps`: agreement of two
    annotators; `val()`: validation Tiles, where there are some.
    """

    name: str
    pools: dict
    train: Tiles
    test: Callable[[], Tiles]
    classes: list
    subset: Callable[[str, int], torch.Tensor]
    hash: str
    overlaps: list = field(default_factory=list)
    val: Callable[[], Tiles] | None = None


def hash_of(*arrays) -> str:
    "Twelve digits that stand for arrays."
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()[:12]


def random_subsets(n: int) -> Callable[[str, int], torch.Tensor]:
    """Nested subsets of n tiles, drawn at random and not by class.

    Gives a function from (fraction, number) to numbers of tiles; 1 % of Potsdam's 13824 are its papers' 138.
    """

    def subset(fraction, number):
        share = 1.0 if fraction == "all" else int(fraction[:2]) / 100
        return torch.tensor(choose(range(n), share, number))

    return subset


def embedded(size: int = 48) -> Data:
    "Tiles of embedded scenes: a pool and labels from one set of scenes, the test from another."

    def tiles(n, seed):
        images, labels = make_tiles(n, size, seed)
        block = np.array([f"scene{k // 8}" for k in range(n)])
        return Tiles(torch.as_tensor(images), torch.as_tensor(labels), block)

    train, test = tiles(96, 1), tiles(48, 2)
    return Data(
        "scenes",
        {"scenes": (train.images, train.labels)},
        train,
        lambda: test,
        list(CLASSES),
        random_subsets(len(train)),
        hash_of(train.images, train.labels, test.images, test.labels),
    )


def on_disk(name: str, root: Path, px: int, opened: Callable[[], None]) -> Data:
    """Potsdam, LoveDA, DeepGlobe or folders (data.datasets) as tiles of `px` pixels.

    Tested on the test scenes or, where those have no labels, on val; `opened` is called when they are read.
    """
    from rsssl_nb.data.datasets import LAYOUTS, open_dataset
    from rsssl_nb.training.labelled import labelled_windows, read_windows

    dataset = open_dataset(root, name if name in LAYOUTS else None)

    def tiles(split):
        entries = [entry for entry in dataset.split(split) if entry.labels is not None]
        pairs = [(dataset.raster(entry), dataset.labels(entry)) for entry in entries]
        windows = labelled_windows(pairs, px, 1.0)
        images, labels = read_windows(pairs, windows, px)
        block = np.array([f"{entries[i].name}_{y // 512}_{x // 512}" for i, x, y in windows])
        return Tiles(images.nan_to_num(0).clamp(0, 255).to(torch.uint8), labels, block)

    has_test = any(entry.split == "test" and entry.labels is not None for entry in dataset.scenes)
    train = tiles("train")

    def test():
        opened()
        return tiles("test" if has_test else "val")

    return Data(
        name,
        {name: (train.images, train.labels)},
        train,
        test,
        list(dataset.classes.names),
        random_subsets(len(train)),
        hash_of(train.images, train.labels),
    )


def as_jpeg(image: np.ndarray, quality: int = 75) -> np.ndarray:
    "The bytes of an image (H, W, 3) as JPEG, uint8 (n,)."
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.frombuffer(file.getvalue(), np.uint8)


def joint(pieces: list[np.ndarray]) -> dict[str, np.ndarray]:
    "Byte strings of several lengths as one, and where each ends."
    return dict(jpeg=np.concatenate(pieces), ends=np.cumsum([0] + [len(piece) for piece in pieces]))


def read_rgb(path: Path) -> np.ndarray:
    "An image file as uint8 (H, W, 3)."
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


def dubai_tiles(folder: Path) -> dict[str, np.ndarray]:
    """The tiles of Dubai's parts: jpeg, ends, labels, split, window, scene, places.

    `places` (n, 4): corner in the scene, corner in the 256-pixel window. Tiles over an edge are filled up
    with black and 255, and left out of training.
    """
    from PIL import Image

    with open(folder / "parts.csv") as file:
        parts = list(csv.DictReader(file))
    jpegs, labels, rows = [], [], []
    for part in parts:
        image, truth = read_rgb(folder / part["image"]), np.asarray(Image.open(folder / part["label"]))
        padding = [(0, -side % SIDE) for side in truth.shape]
        image = np.pad(image, (*padding, (0, 0)))
        truth = np.pad(truth, padding, constant_values=255)
        for row, column in np.ndindex(truth.shape[0] // SIDE, truth.shape[1] // SIDE):
            y, x = SIDE * row, SIDE * column
            over_edge = x + SIDE > int(part["width"]) or y + SIDE > int(part["height"])
            if part["split"] == "train" and over_edge:
                continue
            jpegs.append(as_jpeg(image[y : y + SIDE, x : x + SIDE]))
            labels.append(truth[y : y + SIDE, x : x + SIDE])
            window = f"{part['id']}_y{y // 256 * 256:04d}_x{x // 256 * 256:04d}"
            corner = int(part["mosaic_x"]) + x, int(part["mosaic_y"]) + y
            rows.append((part["split"], window, part["tile"], *corner, x % 256, y % 256))
    split, window, scene, *places = (np.array(values) for values in zip(*rows))
    return dict(
        **joint(jpegs),
        labels=np.stack(labels),
        split=split,
        window=window,
        scene=scene,
        places=np.stack(places, 1),
    )


def pack(out: Path) -> None:
    "Writes Dubai's scenes and RSSCN7's centres (RSSSL_DATA) as two files of `out`, 40 MB at most."
    source = Path(os.environ["RSSSL_DATA"])
    dubai = dubai_tiles(source / "dubai")
    lists = {f"{f}_{k}": source / f"dubai/subsets/train256_{f}_seed{k}.txt" for f, k in SUBSETS}
    described = json.loads((source / "dubai/classes.json").read_text())
    more = dict(
        subsets={name: path.read_text().split() for name, path in lists.items()},
        classes=[c["name"] for c in described["classes"]],
        overlaps=json.loads((source / "dubai/overlaps.json").read_text()),
    )
    centres = [as_jpeg(read_rgb(path)[64:192, 64:192]) for path in sorted((source / "rsscn7").rglob("*.jpg"))]
    files = dict(dubai=dict(**dubai, more=json.dumps(more)), rsscn7=joint(centres))
    size = 0
    for name, arrays in files.items():
        with io.BytesIO() as file:
            np.savez_compressed(file, **arrays)
            packed = file.getvalue()
        write_aside(out / f"{name}.npz", lambda aside, packed=packed: aside.write_bytes(packed))
        size += len(packed) / 1e6
    if size > MOST:
        raise SystemExit(f"the pack has {size:.1f} MB, and may have {MOST}: lower the quality in as_jpeg")
    print(f"{len(dubai['labels'])} tiles of Dubai and {len(centres)} of RSSCN7 in {out}: {size:.1f} MB")


def decoded(packed, which) -> torch.Tensor:
    "Images (n, 3, 128, 128) uint8 of some rows of a pack."
    from PIL import Image

    jpeg, ends = packed["jpeg"], packed["ends"]
    strings = [jpeg[ends[i] : ends[i + 1]].tobytes() for i in which]
    images = np.stack([np.asarray(Image.open(io.BytesIO(string))) for string in strings])
    return torch.as_tensor(images).permute(0, 3, 1, 2).contiguous()


def joined(tiles: Tiles, places: np.ndarray) -> Tiles:
    """256-pixel tiles from 128-pixel ones, by window; what is missing is black and 255.

    `places` (n, 2): each tile's corner x, y in its window.
    """
    names, first, of_window = np.unique(tiles.window, return_index=True, return_inverse=True)
    images = torch.zeros(len(names), 3, 256, 256, dtype=torch.uint8)
    labels = torch.full((len(names), 256, 256), 255, dtype=torch.uint8)
    for k, (i, x, y) in enumerate(zip(of_window, *places.T)):
        images[i, :, y : y + SIDE, x : x + SIDE] = tiles.images[k]
        labels[i, y : y + SIDE, x : x + SIDE] = tiles.labels[k]
    return Tiles(images, labels, tiles.block[first], names, tiles.scene[first], tiles.corner[first])


def dubai(folder: Path, px: int, opened: Callable[[], None]) -> Data:
    """Dubai from its pack in `folder`, made first where it is missing; 256-pixel tiles for `px` above 128.

    Pools dubai, rsscn7, both; nested label subsets as published; test scenes 1 and 3 behind `test`, which
    calls `opened`.
    """
    if not (folder / "rsscn7.npz").exists():
        pack(folder)
    near, far = np.load(folder / "dubai.npz"), np.load(folder / "rsscn7.npz")
    more, labels, places = json.loads(str(near["more"])), torch.as_tensor(near["labels"]), near["places"]

    def tiles(split):
        i = np.flatnonzero(np.isin(near["split"], [split]))
        scene = near["scene"][i]
        block = np.array([f"tile{s}_{y // 512}_{x // 512}" for s, x, y in zip(scene, *places[i, :2].T)])
        found = Tiles(decoded(near, i), labels[i], block, near["window"][i], scene, places[i, :2])
        return joined(found, places[i, 2:]) if px > SIDE else found

    train = tiles("train")
    away = decoded(far, range(len(far["ends"]) - 1))
    if px > SIDE:
        away = torch.nn.functional.interpolate(away.float(), 256).to(torch.uint8)
    unknown = torch.full((len(away), *train.labels.shape[1:]), 255, dtype=torch.uint8)

    def subset(fraction, number):
        windows = train.window if fraction == "all" else more["subsets"][f"{fraction}_{number}"]
        return torch.as_tensor(np.flatnonzero(np.isin(train.window, windows)))

    def test():
        opened()
        return tiles("test")

    pools = {
        "dubai": (train.images, train.labels),
        "rsscn7": (away, unknown),
        "both": (torch.cat([train.images, away]), torch.cat([train.labels, unknown])),
    }
    return Data(
        "dubai",
        pools,
        train,
        test,
        more["classes"],
        subset,
        hash_of(near["jpeg"], near["labels"]),
        more["overlaps"],
        lambda: tiles("val"),
    )


def audited_dubai(folder: Path, rng: np.random.Generator) -> tuple[Tiles, Tiles, int]:
    "Tiles of Dubai's training scenes 4, 7, 8, tiles of its scenes 5 and 2, and the number of classes."
    data = dubai(folder, SIDE, lambda: None)
    train, val = data.train, data.val()

    def pick(tiles, scenes, n):
        chosen = [rng.choice(np.flatnonzero(tiles.scene == scene), n, replace=False) for scene in scenes]
        return tiles[torch.as_tensor(np.sort(np.concatenate(chosen)))]

    five, two = pick(train, "5", 64), pick(val, "2", 64)
    both = []
    for f in fields(Tiles):
        values = getattr(five, f.name), getattr(two, f.name)
        both.append(torch.cat(values) if isinstance(values[0], torch.Tensor) else np.concatenate(values))
    return pick(train, "478", 85), Tiles(*both), len(data.classes)


def audited_scenes(seeds: range, rng: np.random.Generator) -> Tiles:
    "Eight tiles of 64 pixels from each of the embedded scenes of `seeds`."
    scenes = {str(seed): make_scene(320, seed) for seed in seeds}
    names = np.repeat(list(scenes), 8)
    corners = rng.integers(0, 256, (8 * len(seeds), 2))

    def cut(attribute):
        tiles = []
        for name, (x, y) in zip(names, corners):
            tiles.append(getattr(scenes[name], attribute)[..., y : y + 64, x : x + 64])
        return torch.as_tensor(np.stack(tiles))

    return Tiles(cut("image"), cut("labels"), names, None, names, corners)


def audited(name: str, folder: Path, n: tuple[int, int] = (32, 16)) -> tuple[Tiles, Tiles, int, float]:
    """For the scorecard: tiles to learn on, tiles of other scenes to look at, class count, metres a pixel.

    `name` is dubai (its pack in `folder`) or anything else for embedded scenes, `n` of them on each side.
    """
    rng = np.random.default_rng(0)
    if name == "dubai":
        return *audited_dubai(folder, rng), 1.0
    near = audited_scenes(range(n[0]), rng)
    other = audited_scenes(range(100, 100 + n[1]), rng)
    return near, other, len(CLASSES), 0.5
