"""Every command that reads, over one table of bad inputs: exit code 2 and one sentence with the file, or a
Note and the work done; no traceback, nothing half-written, no file changed.
"""

import hashlib
import warnings

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from test_cases import classes_file, land, paint, put

from rsssl_nb.cli import main

RGB = ("red", "green", "blue")
SMALL = ("--width", 8, "--steps", 1, "--batch", 2, "--size", 32, "--device", "cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A segmenter and a GraSS run of one step, for three bands."
    folder = tmp_path_factory.mktemp("runs")
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


def cut(path):
    path.write_bytes(path.read_bytes()[:700])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("<html>404</html>")


def complex_numbers(path):
    put(path, paint(land(5)).astype("complex64"))


def all_nodata(path):
    put(path, np.zeros((3, 128, 128), np.uint8), nodata=0)


def all_beyond(path):
    put(path, np.full((3, 128, 128), -3.4e38, np.float32))


BROKEN = {  # what is done to the image: the commands that must refuse it
    cut: (*READERS, "check"),
    emptied: (*READERS, "check"),
    text: (*READERS, "check"),
    complex_numbers: (*READERS, "check"),
    all_nodata: ("pretrain", "finetune", "check", "split"),
    all_beyond: ("pretrain", "finetune", "check", "split"),
}


def sound_place(home):
    "(folder, empty folder for output, image): an image, its labels and their classes, all sound."
    place, out = home / "place", home / "out"
    out.mkdir()
    image = put(place / "images/a.tif", paint(land(5)), names=RGB)
    put(place / "labels/a.tif", land(5))
    classes_file(place / "labels/classes.json")
    return place, out, image


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda f: f.__name__)
def test_a_broken_image_is_refused_by_every_command(runs, tmp_path, break_it):
    place, out, image = sound_place(tmp_path)
    break_it(image)
    before = contents(tmp_path)
    for name in BROKEN[break_it]:
        code, errors, _, said = asked(*commands(runs, place, out)[name])
        assert code == 2, (name, said)
        if name != "check":  # which lists its faults
            assert len(errors) == 1 and "a.tif" in errors[0] and ": " in errors[0][7:], (name, said)
        assert "a.tif" in said and contents(tmp_path) == before, (name, said)


def other_size(place):
    put(place / "labels/a.tif", land(5)[:96])


def other_crs(place):
    put(place / "labels/a.tif", land(5), crs="EPSG:32632")


def far_off(place):
    where = rasterio.transform.from_origin(500900, 5200000, 0.5, 0.5)
    put(place / "labels/a.tif", land(5), transform=where)


def unknown_value(place):
    put(place / "labels/a.tif", land(5) + 7)


def hidden_class(place):
    put(place / "labels/a.tif", land(5), nodata=1)


def four_bands(place):
    put(place / "labels/a.tif", np.stack([land(5)] * 4))


def no_classes(place):
    (place / "labels/classes.json").unlink()


@pytest.mark.parametrize(
    "break_it",
    [other_size, other_crs, far_off, unknown_value, hidden_class, four_bands, no_classes],
    ids=lambda f: f.__name__,
)
def test_labels_that_do_not_fit_are_refused_by_every_command(runs, tmp_path, break_it):
    place, out, image = sound_place(tmp_path)
    mapped = put(place / "map.tif", land(5))
    classes_file(place / "map_classes.json")
    break_it(place)
    before = contents(tmp_path)
    for command in (
        commands(runs, place, out)["finetune"],
        ("score", mapped, place / "labels/a.tif"),
        ("pretrain", image, *SMALL, "--samples", 2, "--out", out / "p", "--probe-images", place / "images")
        + ("--probe-labels", place / "labels"),
    ):
        code, errors, _, said = asked(*command)
        assert code == 2 and len(errors) == 1 and "labels" in errors[0], (command[0], said)
        assert contents(tmp_path) == before, command[0]


def turned(path):
    from PIL import Image

    picture = Image.fromarray(paint(land(5)).transpose(1, 2, 0))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(path, exif=exif)


NOTED = {turned: "EXIF orientation 6"}


@pytest.mark.parametrize("change", NOTED, ids=lambda f: f.__name__)
def test_more_in_a_file_than_is_read_is_one_note_of_every_command(runs, tmp_path, change):
    place, out, image = sound_place(tmp_path)
    change(image)
    before = contents(place)
    for name in ("info", "pretrain", "finetune", "map", "embed", "boxes"):
        code, errors, notes, said = asked(*commands(runs, place, out)[name])
        told = [note for note in notes if NOTED[change] in note]
        assert code == 0 and not errors and len(told) == 1, (name, said)
    assert contents(place) == before


@pytest.mark.parametrize("source", ["no.tif", "cut.tif", "empty.tif"])
def test_an_explorer_refuses_a_broken_image_in_a_sentence(tmp_path, source):
    from rsssl_nb.errors import InputError
    from rsssl_nb.widgets.ground import find_sources, open_ground

    cut(put(tmp_path / "cut.tif", paint(land(5))))
    emptied(tmp_path / "empty.tif")
    with pytest.raises(InputError, match=source):
        for found in find_sources(tmp_path / source).values():
            open_ground(found)
