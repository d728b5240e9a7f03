"""Every command that reads, over one table of bad inputs: exit code 2 and one sentence with the file, or a
Note and the work done; no traceback, nothing half-written, no file changed.
"""

import numpy as np
import pytest
import rasterio
from driver import READERS, SMALL, asked, commands, contents, sound_place
from test_cases import classes_file, land, paint, put


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


@pytest.mark.parametrize(
    "break_it",
    [other_size, other_crs, far_off, unknown_value, hidden_class, four_bands],
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
