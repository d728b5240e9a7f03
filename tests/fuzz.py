"""Mutated files: each is read, or refused with a named error, inside bounded address space and 3 s a file.

    python tests/fuzz.py                 1 000 files in two processes (make fuzz)
    python tests/fuzz.py --kind labels   labels, classes, polygons and segmenters, instead of TIFFs as rasters
    python tests/fuzz.py --n 200         fewer
    python tests/fuzz.py --keep DIR      keep the files that break something

Rasters meet the raster door within 1 GB. Labels are read for a fine-tuning and scored, classes and polygons
are read, a segmenter is loaded and maps, within 8 GB (torch alone takes 3).

Half of the changes hit the header and the directories, the rest bytes anywhere and the length. A worker
that dies, hangs or raises anything but an InputError is a failure.
Exit code 1 when there is one; outcomes are counted by kind.
"""

import argparse
import json
import multiprocessing
import os
import resource
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

SPACE, SECONDS = 2**30, 3


def seeds(folder):
    """A TIFF of each make: strips and tiles, six types, compressions, palette, alpha, mask, overviews,
    BigTIFF.
    """
    import rasterio
    from rasterio.enums import Resampling

    makes = [
        dict(),
        dict(dtype="uint16", compress="lzw", predictor=2),
        dict(dtype="float32", compress="deflate", predictor=3, nodata=float("nan")),
        dict(count=1, palette=True),
        dict(count=4, photometric="RGB", alpha="YES"),
        dict(tiled=True, blockxsize=32, blockysize=32, compress="deflate", overviews=True),
        dict(dtype="int16", nodata=-9999, interleave="band", compress="packbits"),
        dict(bigtiff="YES", tiled=True, blockxsize=16, blockysize=16),
        dict(count=1, dtype="uint8", nbits=1),
        dict(dtype="float64", count=2),
        dict(mask=True, compress="deflate"),
        dict(compress="jpeg", photometric="YCBCR"),
    ]
    paths = []
    for i, make in enumerate(makes):
        extra = {k: make.pop(k, False) for k in ("palette", "overviews", "mask")}
        profile = (
            dict(
                driver="GTiff",
                width=97,
                height=81,
                count=3,
                dtype="uint8",
                crs="EPSG:32633",
                transform=rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 58e5),
            )
            | make
        )
        array = (
            np.random.default_rng(i)
            .integers(0, 2 if make.get("nbits") else 255, (profile["count"], 81, 97))
            .astype(profile["dtype"])
        )
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(folder / f"seed{i}.tif", "w", **profile) as file,
        ):
            file.write(array)
            if extra["palette"]:
                file.write_colormap(1, {v: (v, v, 255 - v, 255) for v in range(256)})
            if extra["mask"]:
                file.write_mask(array[0] > 99)
        if extra["overviews"]:
            with rasterio.open(folder / f"seed{i}.tif", "r+") as file:
                file.build_overviews([2, 4], Resampling.average)
        paths.append(folder / f"seed{i}.tif")
    return paths


def directories(data):
    "Byte ranges of the header and of every entry of the directories of a TIFF, classic or big."
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    found = [(0, 16 if big else 8)]
    while at and at + 8 < len(data) and len(found) < 99:
        n = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        start, size = at + (8 if big else 2), 20 if big else 12
        found += [(start + i * size, start + (i + 1) * size) for i in range(n)]
        at = struct.unpack_from(order + ("Q" if big else "I"), data, start + n * size)[0]
    return found


def mutate(data, rng):
    "One file, changed in one to eight places; half of the time in the header and the directories."
    data = bytearray(data)
    spots = directories(data) if rng.random() < 0.5 else None
    for _ in range(rng.integers(1, 9)):
        low, high = spots[rng.integers(len(spots))] if spots else (0, len(data))
        at, kind = int(rng.integers(low, high)), rng.integers(4)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at] = int(rng.integers(256))
        elif kind == 2:
            data[at : at + 4] = struct.pack(
                "<I", int(rng.choice([0, 1, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
            )[: len(data[at : at + 4])]
        else:
            data[at : at + 2] = rng.bytes(len(data[at : at + 2]))
    if not spots and rng.random() < 0.4:
        data = (
            data[: int(rng.integers(len(data)))]
            if rng.random() < 0.7
            else data + rng.bytes(int(rng.integers(1, 999)))
        )
    return bytes(data)


KINDS = {
    "cannot be read": "damaged",
    "declares": "too many bands",
    "is no TIFF": "no TIFF",
    "is empty": "empty",
    " GB": "too large",
    "numbers: convert": "numbers of another kind",
}


def use(path):
    """What the library does with a file it does not know: opened, read in windows, looked at, read as labels,
    sampled. Gives the kind of outcome.
    """
    from rsssl_nb.data.labels import Classes, read_labels
    from rsssl_nb.data.pool import Pool
    from rsssl_nb.data.raster import open_raster, overview
    from rsssl_nb.errors import InputError

    try:
        raster = open_raster(path)
        for x in (0, raster.width // 2, raster.width - 40):
            raster.read(x, raster.height // 2, 64, 64)
        raster.valid(0, 0, 64, 64)
        small = raster.width * raster.height < 2**22  # larger ones are never taken whole
        if small:
            overview(raster, 64)
    except InputError as error:
        return "refused: " + next(
            (kind for words, kind in KINDS.items() if words in str(error)),
            str(error).replace(str(path), "FILE"),
        )
    for whole in (
        lambda: read_labels(path, Classes(("a", "b"), ("#000000", "#ffffff"))),
        lambda: Pool(path, 16).windows(4),
    ) * small:
        with suppress(InputError):
            whole()
    return "read"


STRANGE = (None, True, -1, 2**70, 1e308, "", "\x1b[31m", "x" * 5000, [], {}, [[[]]], {"a": {}}, "NaN", 0.5)


def label_seeds(folder):
    "Files of a labelled place, as users bring them: labels, classes, polygons, a segmenter; image.tif stays."
    from rsssl_nb.data.scenes import make_scene
    from rsssl_nb.data.write import write_scene
    from rsssl_nb.mapping.polygons import write_polygons
    from rsssl_nb.training.finetune import finetune

    scene = make_scene(64, seed=1)
    image, labels = write_scene(scene, folder)
    rows = [dict(index=i, name=n, hex=h) for i, (n, h) in enumerate(zip(scene.classes, scene.colors))]
    (folder / "classes.json").write_text(json.dumps(dict(ignore_index=255, classes=rows)))
    write_polygons(labels, folder / "polygons.gpkg")
    a, _, c, _, e, f = scene.transform[:6]
    features = []
    for i in range(len(rows)):
        x, y, side = c + 8 * i * a, f + 8 * i * e, 8 * a
        ring = [[x, y], [x + side, y], [x + side, y - side], [x, y - side], [x, y]]
        geometry = dict(type="Polygon", coordinates=[ring])
        features.append(dict(type="Feature", properties={"class": i}, geometry=geometry))
    crs = dict(type="name", properties=dict(name=scene.crs))
    collection = dict(type="FeatureCollection", crs=crs, features=features)
    (folder / "polygons.geojson").write_text(json.dumps(collection))
    short = dict(steps=1, fraction=1.0, batch=1, size=32, width=4, device="cpu", progress=False)
    finetune("random", scene, scene.labels, folder / "run", **short)
    names = ("labels.tif", "classes.json", "polygons.geojson", "polygons.gpkg", "run/segmenter.safetensors")
    return [folder / name for name in names]


def places(value, path=()):
    "The ways to every value inside a JSON document."
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*path, key))


def mutate_json(data, rng):
    "One document with a strange, a missing or a very deep value; every fourth time changed as bytes."
    if rng.random() < 0.25:
        return mutate_bytes(data, rng)
    document = json.loads(data)
    for _ in range(rng.integers(1, 3)):
        *way, last = (list(places(document))[1:] or [("x",)])[rng.integers(len(list(places(document))) - 1)]
        home = document
        for key in way:
            home = home[key]
        kind = rng.integers(4)
        if kind == 0:
            del home[last]
        elif kind == 1:
            return json.dumps(document).encode().replace(b"[", b"[" * int(rng.integers(2, 9000)), 1)
        else:
            home[last] = STRANGE[rng.integers(len(STRANGE))]
        if not document:
            break
    return json.dumps(document).encode()


def mutate_bytes(data, rng):
    "One file changed in one to eight bytes, half of the time in its first 2 000, and sometimes cut short."
    data = bytearray(data)
    high = min(len(data), 2000) if rng.random() < 0.5 else len(data)
    for _ in range(rng.integers(1, 9)):
        data[rng.integers(high)] = rng.integers(256)
    return bytes(data[: rng.integers(len(data))] if rng.random() < 0.2 else data)


def mutate_as(path, data, rng):
    "The file's bytes, changed as its kind can be."
    if path.suffix in (".json", ".geojson"):
        return mutate_json(data, rng)
    return mutate(data, rng) if path.suffix == ".tif" else mutate_bytes(data, rng)


def use_labels(path):
    "What fine-tuning, scores and maps do with a file beside image.tif, labels.tif and classes.json."
    from rsssl_nb.data.labels import read_classes
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.data.shapes import polygon_labels
    from rsssl_nb.evaluation.scores import score_rasters
    from rsssl_nb.mapping.segment import segment
    from rsssl_nb.training.finetune import load_segmenter
    from rsssl_nb.training.labelled import labelled_windows, open_pairs, read_windows

    image, labels = path.with_name("image.tif"), path.with_name("labels.tif")
    chosen = path.with_name("classes.json")
    try:
        if path.suffix == ".safetensors":
            segment(load_segmenter(path)[0], image, size=32, device="cpu")
        elif "polygons" in path.name:
            polygon_labels(path, read_classes(chosen), open_raster(image))
        elif path.suffix == ".json":
            open_pairs([image], [labels], read_classes(path))
        else:
            pairs, _ = open_pairs([image], [path], read_classes(chosen))
            read_windows(pairs, labelled_windows(pairs, 32, 1.0), 32)
            score_rasters(path, labels, read_classes(chosen), progress=False)
    except ValueError as error:
        if not any(words in str(error) for words in (path.name, labels.name, "holds a labelled pixel")):
            return f"FAILURE names no file, {type(error).__name__}: {error}"[:200]
        return f"refused: {path.suffix}"
    return f"read: {path.suffix}"


def work_labels(pipe):
    "A worker for labels: bounded, silent, its imports done before the clock runs."
    import rsssl_nb.evaluation.scores
    import rsssl_nb.mapping.segment
    import rsssl_nb.training.finetune

    rsssl_nb.training.finetune.torch.set_num_threads(1)
    from rsssl_nb.encoders import Encoder, Segmenter

    model = Segmenter(Encoder(bands=4, width=4), 3)
    rsssl_nb.mapping.segment.segment(model, np.ones((4, 32, 32), np.uint8), size=32, device="cpu")
    global use
    use = use_labels
    work(pipe, 8 * SPACE)


def work(pipe, space=SPACE):
    "A worker: bounded, silent, one file after another."
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    pipe.send("ready")
    while (path := pipe.recv()) is not None:
        try:
            pipe.send(use(Path(path)))
        except BaseException as error:
            pipe.send(f"FAILURE {type(error).__name__}: {error}"[:200])


class Worker:
    "A process that is replaced when it dies or takes too long; both are failures."

    def __init__(self, target=None):
        self.target = target
        self.start()

    def start(self):
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=self.target or work, args=(theirs,), daemon=True
        )
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def stop(self):
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def run(self, path):
        self.pipe.send(str(path))
        try:
            said = self.pipe.recv() if self.pipe.poll(SECONDS) else f"FAILURE longer than {SECONDS} s"
        except (EOFError, ConnectionResetError):
            said = "FAILURE the process died"
        if said.startswith("FAILURE the") or said.startswith("FAILURE longer"):
            self.stop()
            self.start()
        return said


def fuzz(n, seed=0, keep=None, workers=2, kind="rasters"):
    "Outcomes of `n` mutated files, {kind: count}, and [(number, failure)]."
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as threads:
        folder = Path(folder)
        paths = label_seeds(folder) if kind == "labels" else seeds(folder)
        originals = [p.read_bytes() for p in paths]
        crew = [Worker(work_labels if kind == "labels" else None) for _ in range(workers)]

        def share(k):
            for i in range(k, n, workers):
                rng = np.random.default_rng((seed, i))
                original = paths[i % len(paths)]
                data = mutate_as(original, originals[i % len(paths)], rng)
                path = folder / f"{k}-{original.name}" if kind == "labels" else folder / f"{k}.tif"
                path.write_bytes(data)
                said = crew[k].run(path)
                if keep and said.startswith("FAILURE"):
                    Path(keep, f"{seed}-{i}{path.suffix}").write_bytes(data)
                yield i, said

        found = [row for rows in threads.map(lambda k: list(share(k)), range(workers)) for row in rows]
        for worker in crew:
            worker.stop()
    return Counter(said if not said.startswith("FAILURE") else said[:60] for _, said in found), [
        (i, said) for i, said in found if said.startswith("FAILURE")
    ]


if __name__ == "__main__":
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--n", type=int, default=1000)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--keep", type=Path)
    args.add_argument("--kind", choices=["rasters", "labels"], default="rasters")
    args = args.parse_args()
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    started = time.time()
    counts, failures = fuzz(args.n, args.seed, args.keep, kind=args.kind)
    for kind, count in counts.most_common():
        print(f"{count:6} {kind}")
    print(f"{args.n} files, {time.time() - started:.0f} s, {len(failures)} failures")
    for i, said in failures:
        print(f"seed {args.seed}, file {i}: {said}")
    sys.exit(bool(failures))
