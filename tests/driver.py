"""Every command that reads, asked about one place: what it is given, and what it says and writes."""

import hashlib
import warnings

from click.testing import CliRunner
from test_cases import classes_file, land, paint, put

from rsssl_nb.cli import main

RGB = ("red", "green", "blue")
SMALL = ("--width", 8, "--steps", 1, "--batch", 2, "--size", 32, "--device", "cpu")


def make_runs(folder):
    "A segmenter and a GraSS run of one step, for three bands, in a folder."
    put(folder / "images/a.tif", paint(land(5)), names=RGB)
    put(folder / "labels/a.tif", land(5))
    classes_file(folder / "labels/classes.json")
    data = ("--images", folder / "images", "--labels", folder / "labels", "--fraction", 1)
    for command in (
        ("pretrain", folder / "images", *SMALL, "--samples", 2, "--method", "grass", "--out", folder / "pre"),
        ("finetune", "random", *data, *SMALL, "--out", folder / "seg"),
    ):
        found = CliRunner().invoke(main, list(map(str, command)))
        assert found.exit_code == 0, found.output
    return folder


def commands(runs, place, out):
    "Each command that reads, asked about the image and the labels of a place, with what it would write."
    image, labels = place / "images/a.tif", place / "labels/a.tif"
    data = ("--images", place / "images", "--labels", place / "labels", "--fraction", 1)
    cpu = ("--size", 32, "--device", "cpu")
    return dict(
        info=("info", image),
        check=("check", place / "images"),
        split=("split", image, out / "s.geojson", "--block", "32px", "--buffer", "2px"),
        pretrain=("pretrain", place / "images", *SMALL, "--samples", 2, "--out", out / "pre"),
        finetune=("finetune", "random", *data, *SMALL, "--out", out / "seg"),
        map=("map", runs / "seg", image, out / "map.tif", *cpu),
        embed=("embed", runs / "pre", image, out / "pca.tif", *cpu),
        boxes=("boxes", runs / "pre", image, out / "boxes.geojson", *cpu),
        score=("score", labels, labels),
    )


READERS = "info split pretrain finetune map embed boxes".split()


def contents(folder):
    "Every file below a folder with the digest of its bytes."
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def asked(*command):
    "Exit code, lines of error, Notes and all output of a command, which must end without a traceback."
    with warnings.catch_warnings():
        found = CliRunner().invoke(main, list(map(str, command)))
    assert isinstance(found.exception, (SystemExit, type(None))), (command, repr(found.exception))
    lines = found.output.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    return found.exit_code, errors, [line for line in lines if line.startswith("Note: ")], found.output


def sound_place(home):
    "(folder, empty folder for output, image): an image, its labels and their classes, all sound."
    place, out = home / "place", home / "out"
    out.mkdir()
    image = put(place / "images/a.tif", paint(land(5)), names=RGB)
    put(place / "labels/a.tif", land(5))
    classes_file(place / "labels/classes.json")
    return place, out, image
