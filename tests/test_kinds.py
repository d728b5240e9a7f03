"""The twelve kinds of fault, each driven through every command that it can reach, by inputs of our own.

`REACHES` says of each kind which commands it can reach, and why not the others; each test drives all of them.
"""

import json
import shutil
import unicodedata

import numpy as np
import pytest
import rasterio
from driver import RGB, SMALL, asked, commands, sound_place
from PIL import Image
from test_cases import NAMES, PLACE, a_map, classes_file, land, paint, polygons, put

from rsssl_nb.data.nodata import TOLD
from rsssl_nb.data.raster import open_raster
from rsssl_nb.widgets.ground import open_ground
from rsssl_nb.widgets.networks import open_for

EVERY = {"pretrain", "finetune", "map", "embed", "boxes", "score", "check", "explorer"}
REACHES = {  # kind: (the commands that it reaches, why the others are not)
    "A": ("finetune score check pretrain", "the others read no labels; pretrain reads its probe's"),
    "B": ("finetune score check pretrain", "the others read no labels; pretrain reads its probe's"),
    "C": ("pretrain finetune map embed boxes score", "check and explorers write nothing"),
    "D": ("finetune map embed boxes explorer", "the others open no network that images could differ from"),
    "E": ("pretrain finetune map embed boxes check explorer", "labels are codes: score refuses the value"),
    "F": ("pretrain finetune map embed boxes check explorer", "labels are read as they are stored"),
    "G": ("map embed", "the others write no raster"),
    "H": ("finetune pretrain score", "the others learn from no labels and give no score"),
    "I": ("map embed finetune score", "the others know no lengths; of metres on the ground see split below"),
    "J": ("pretrain finetune map embed boxes", "the others start no processes"),
    "K": ("pretrain finetune", "the others keep no record of settings"),
    "L": ("finetune score check", "the others read no text that people write"),
}


def reached(kind):
    return [name for name in REACHES[kind][0].split() if name != "explorer"]


def test_the_kinds_name_commands_that_there_are_and_a_reason_for_the_others():
    for names, why in REACHES.values():
        assert set(names.split()) <= EVERY and (set(names.split()) == EVERY or len(why) > 10)


def labelled(home, labels, classes, image=None, **profile):
    "A place with these labels and classes."
    put(home / "images/a.tif", paint(land(5)) if image is None else image, names=RGB)
    put(home / "labels/a.tif", labels, **profile)
    (home / "labels/classes.json").write_text(json.dumps(classes))
    return home


def listed(values, ignore=255, colours=("#0000ff", "#00ff00", "#ff0000")):
    rows = [dict(index=v, name=name, hex=colour) for v, name, colour in zip(values, NAMES, colours)]
    return dict(ignore_index=ignore, classes=rows)


def of_labels(runs, home, out):
    "The commands that read labels: fine-tuning, the score of a perfect map, check, pretraining by its probe."
    out.mkdir(exist_ok=True)
    found = commands(runs, home, out)
    probe = ("--probe-images", home / "images", "--probe-labels", home / "labels")
    mapped = a_map(home / "map.tif", land(5))
    return dict(
        finetune=found["finetune"],
        score=("score", mapped, home / "labels/a.tif"),
        check=("check", home),
        pretrain=(*found["pretrain"], *probe),
    )


# --- A: codes and colours of labels are not class numbers

CODED = dict(
    tens=(np.array([10, 20, 30], np.uint8)[land(5)], listed((10, 20, 30), 0)),
    large=((land(5).astype(int) * 1000 + 40000).astype(np.uint16), listed((40000, 41000, 42000), 0)),
    negative=((land(5).astype(int) - 1).astype(np.int16), listed((-1, 0, 1))),
    turned=((2 - land(5)).astype(np.uint8), listed((2, 1, 0))),
    colours=(
        np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)[land(5)].transpose(2, 0, 1),
        listed((7, 8, 9)),
    ),
)


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("command", reached("A"))
def test_a_codes_of_labels_are_not_class_numbers(runs, tmp_path, name, command):
    home = labelled(tmp_path / "place", *CODED[name])
    code, errors, _, said = asked(*of_labels(runs, home, tmp_path / "out")[command])
    assert code == 0 and not errors, said
    if command == "score":
        assert "OA 1.000" in said, said
    if command == "finetune":  # what its map is, its labels' codes are not
        assert (
            asked("map", tmp_path / "out/seg", home / "images/a.tif", home / "m.tif", "--device", "cpu")[0]
            == 0
        )
        assert set(np.unique(open_raster(home / "m.tif").read(0, 0, 128, 128))) <= {0, 1, 2}
        assert asked("score", home / "m.tif", home / "labels/a.tif")[0] == 0


# --- B: nodata that hides a class

BLACK = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8)[land(5)].transpose(2, 0, 1)
HIDDEN = dict(
    largest=(np.where(land(5) == 2, 255, land(5)).astype(np.uint8), listed((0, 1, 255), 254), 255),
    black=(BLACK, listed((0, 1, 2), colours=("#000000", "#ffffff", "#ff0000")), 0),
    floats=(land(5).astype("float32"), listed((0, 1, 2)), 1),
    codes=(np.array([10, 20, 30], np.uint8)[land(5)], listed((10, 20, 30), 0), 20),
)


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("command", reached("B"))
def test_b_nodata_that_hides_a_class_is_named_with_its_share(runs, tmp_path, name, command):
    labels, classes, nodata = HIDDEN[name]
    home = labelled(tmp_path / "place", labels, classes, nodata=nodata)
    code, _, _, said = asked(*of_labels(runs, home, tmp_path / "out")[command])
    assert code == 2 and " % of " in said and "declared nodata" in said and "a.tif" in said, said
    assert not any((tmp_path / "out").iterdir())
    labelled(home, labels, classes)  # the declaration taken away
    assert asked(*of_labels(runs, home, tmp_path / "out")[command])[0] == 0


# --- C: what can be known is known before the work


def into(command, old, new):
    "A command that writes elsewhere."
    return [new if str(word).startswith(str(old)) else word for word in command]


@pytest.mark.parametrize("name", ["in a file", "far below a file", "a name too long"])
@pytest.mark.parametrize("command", reached("C"))
def test_c_a_place_that_takes_no_file_is_known_before_the_work(runs, tmp_path, name, command, monkeypatch):
    from rsssl_nb.mapping import stitch
    from rsssl_nb.training import engine

    place, out, image = sound_place(tmp_path)
    (tmp_path / "file").write_text("mine")
    where = dict(zip(("in a file", "far below a file"), (tmp_path / "file/x", tmp_path / "file/a/b/x")))
    where = where.get(name, tmp_path / ("n" * 250))

    def never(*_, **__):
        raise AssertionError("the work had begun")

    monkeypatch.setattr(stitch, "weighted_predictions", never)
    monkeypatch.setattr(engine, "train", never)
    ending = dict(map=".tif", embed=".tif", boxes=".geojson").get(command, "")
    line = into(commands(runs, place, out)[command], out, f"{where}{ending}")
    if command == "score":
        line = ("score", place / "labels/a.tif", place / "labels/a.tif", "--csv", f"{where}.csv")
    code, errors, _, said = asked(*line)
    assert code == 2 and len(errors) == 1 and ("cannot be written" in said or "too long a name" in said), said
    assert (tmp_path / "file").read_text() == "mine" and not any(out.iterdir())


@pytest.mark.parametrize("option, name", [("--polygons", "x.gpkg"), ("--probabilities", "x.tif")])
def test_c_a_second_output_that_cannot_be_is_known_before_the_first(runs, tmp_path, option, name):
    place, out, _ = sound_place(tmp_path)
    (tmp_path / "file").write_text("mine")
    code, errors, _, said = asked(*commands(runs, place, out)["map"], option, tmp_path / "file" / name)
    assert code == 2 and "cannot be written" in errors[0] and not any(out.iterdir()), said
    code, errors, _, said = asked(*commands(runs, place, out)["embed"], "--basis", tmp_path / "file/basis")
    assert code == 2 and "cannot be written" in errors[0] and not any(out.iterdir()), said


# --- D: the passport

GRID = rasterio.transform.from_origin
DEGREE = 0.5 / 111_320
UNLIKE = dict(  # profile of the image: what is said of it, "" where it is alike
    names_in_capitals=(dict(names=("Red", "GREEN ", "blue")), ""),
    same_pixels_in_degrees=(
        dict(crs="EPSG:4326", transform=GRID(15, 46.9, DEGREE / np.cos(np.radians(46.9)), DEGREE)),
        "",
    ),
    same_pixels_in_feet=(dict(crs="EPSG:2263", transform=GRID(980000, 200000, 1.64, 1.64)), ""),
    same_pixels_in_mercator=(dict(crs="EPSG:3857", transform=GRID(2000000, 8399738, 1, 1)), ""),
    coarse_in_feet=(dict(crs="EPSG:2263", transform=GRID(980000, 200000, 16.4, 16.4)), "pixels are 5 m wide"),
    two_bands_swapped=(dict(names=("green", "red", "blue")), "its bands are green, red, blue"),
    signed=(dict(dtype="int16"), "it holds int16"),
    one_band_dark=(dict(dark=2), "its band 3 has mean"),
)


@pytest.mark.parametrize("name", UNLIKE)
def test_d_what_differs_from_the_training_is_one_note_of_every_command(runs, tmp_path, name):
    profile, words = dict(UNLIKE[name][0]), UNLIKE[name][1]
    x = paint(land(5)).astype(profile.pop("dtype", "uint8"))
    if (dark := profile.pop("dark", None)) is not None:
        x[dark] //= 30
    place, out, image = sound_place(tmp_path)
    put(image, x, **{"names": RGB, **profile})
    grid = {key: profile[key] for key in ("crs", "transform") if key in profile}
    put(place / "labels/a.tif", land(5), **grid)
    lines = commands(runs, place, out)
    lines["finetune"] = ["finetune", runs / "pre", *lines["finetune"][2:]]
    at = lines["finetune"].index("--width")
    del lines["finetune"][at : at + 2]
    for command in reached("D"):
        code, errors, notes, said = asked(*lines[command])
        notes = [note for note in notes if f"{image}: " in note]
        assert code == 0 and not errors and len(notes) == bool(words), (command, said)
        assert words in "".join(notes)
    import warnings

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        open_for(open_ground(image), str(runs / "seg"))
    assert len(told) == bool(words) and words in "".join(str(w.message) for w in told)


# --- E: values that nobody measured


@pytest.mark.parametrize(
    "value, dtype", [(1e35, "float32"), (np.finfo("float64").min, "float64"), (-3.4028235e38, "float32")]
)
def test_e_an_impossible_value_is_one_note_of_every_command(runs, tmp_path, value, dtype):
    place, out, image = sound_place(tmp_path)
    x = paint(land(5)).astype(dtype)
    x[:, :9, :9] = value
    put(image, x, names=RGB)
    for command in reached("E"):
        TOLD.clear()  # as in a process of its own
        code, errors, notes, said = asked(*commands(runs, place, out)[command])
        notes = [note for note in notes if "beyond any measurement" in note]
        assert code == 0 and not errors and len(notes) == 1 and "a.tif holds" in notes[0], (command, said)
        TOLD.clear()
        code, _, notes, _ = asked(
            *commands(runs, place, tmp_path / "more")[command], "--nodata", repr(float(value))
        )
        assert code == 0 and not [n for n in notes if "beyond any" in n], command
    TOLD.clear()
    with pytest.warns(UserWarning, match="beyond any measurement"):
        open_ground(image)


@pytest.mark.parametrize("value", [1.5, 1e35, -0.25])
@pytest.mark.parametrize("command", ["finetune", "score", "check", "pretrain"])
def test_e_a_label_between_two_classes_is_no_class(runs, tmp_path, value, command):
    y = land(5).astype("float32")
    y[:5] = value
    home = labelled(tmp_path / "place", y, listed((0, 1, 2)))
    code, _, _, said = asked(*of_labels(runs, home, tmp_path / "out")[command])
    if value == 1e35:  # no number at all, and so no label
        assert code == 0 and "invalid value" not in said, said
    else:
        assert code == 2 and f"the value {value:g}, which is none of the 3 classes" in said, said


# --- F: more in the file than is read


def stored(path, how):
    "The land as a file of another program."
    picture = Image.fromarray(paint(land(5)).transpose(1, 2, 0))
    exif = picture.getexif()
    if how.startswith("turned"):
        exif[274] = 8
        picture.save(path, format=how.split()[1], exif=exif)
    elif how == "a preview as second page":
        picture.save(path, format="TIFF", save_all=True, append_images=[picture.resize((32, 32))])
    elif how == "a palette as PNG":
        picture.convert("P", palette=Image.ADAPTIVE).save(path, format="PNG")
    elif how == "upright":
        exif[274] = 1
        picture.save(path, format="PNG", exif=exif)
    return path


STORED = {
    "turned PNG": "EXIF orientation 8",
    "turned JPEG": "EXIF orientation 8",
    "turned TIFF": "EXIF orientation 8",
    "a preview as second page": "has 2 pages",
    "a palette as PNG": "",
    "upright": "",
}


@pytest.mark.parametrize("how", STORED)
def test_f_more_in_a_file_than_is_read_is_one_note_of_every_command(runs, tmp_path, how):
    import warnings

    place, out, image = sound_place(tmp_path)
    stored(image, how)
    for command in ("info", *reached("F")):
        code, errors, notes, said = asked(*commands(runs, place, out)[command])
        told = [note for note in notes if "EXIF" in note or "pages" in note]
        assert code == 0 and not errors and len(told) == bool(STORED[how]), (command, said)
        assert STORED[how] in "".join(told)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert open_ground(image).raster.bands == 3
    assert len([w for w in said if "EXIF" in str(w.message) or "pages" in str(w.message)]) == bool(
        STORED[how]
    )


# --- G: sidecars


@pytest.mark.parametrize("command", [*reached("G"), "embed --vectors", "map --probabilities"])
def test_g_sidecars_of_an_overwritten_raster_go_with_it(runs, tmp_path, command):
    place, out, image = sound_place(tmp_path)
    line = commands(runs, place, out)[command.split()[0]]
    path = out / ("map.tif" if command.startswith("map") else "pca.tif")
    line += dict(zip(("embed --vectors", "map --probabilities"), (("--vectors",), ()))).get(command, ())
    if command == "map --probabilities":
        path = out / "share.tif"
        line += ("--probabilities", path)
    assert asked(*line)[0] == 0
    old = [path.with_name(path.name + ending) for ending in (".aux.xml", ".ovr", ".msk", ".vat.dbf")]
    old.append(path.with_suffix(".tfw"))
    others = [path.with_suffix(".qml"), path.with_name("notes.tif.ovr")]  # a style, and another file's
    for beside in (*old, *others):
        beside.write_bytes(b"of the first")
    assert asked(*line)[0] == 0
    assert not [p for p in old if p.exists() and p.read_bytes() == b"of the first"]
    assert all(p.exists() for p in others)


# --- H: few labels, and no NaN in JSON


def sparse(kind):
    "Labels (520, 520) of which hardly any says something."
    y = np.full((520, 520), 255, np.uint8)
    if kind == "a corner":
        y[518:, 517:] = 1
    if kind == "a pixel":
        y[300, 300] = 2
    if kind == "two pixels":
        y[10, 10], y[500, 400] = 0, 1
    return y


@pytest.mark.parametrize("kind", ["a corner", "a pixel", "two pixels", "nothing"])
def test_h_few_labels_are_found_and_no_score_is_nan(runs, tmp_path, kind):
    x = np.random.default_rng(0).integers(1, 254, (3, 520, 520)).astype(np.uint8)
    home = labelled(tmp_path / "place", sparse(kind), listed((0, 1, 2)), image=x, nodata=255)
    lines = of_labels(runs, home, tmp_path / "out")
    tune = ["finetune", "random", "--images", home / "images", "--labels", home / "labels", "--fraction", 0.1]
    code, _, _, said = asked(*tune, *SMALL, "--out", tmp_path / "out/seg")
    if kind == "nothing":
        assert (
            code == 2 and "labels/a.tif: none of the 289 windows of 32 pixels holds a labelled pixel" in said
        )
    else:
        assert code == 0 and "1 windows hold labels" in said, said
    code, errors, _, said = asked(*lines["pretrain"])
    assert code == 0 or len(errors) == 1 and "labelled" in errors[0], said
    texts = [path.read_text() for path in (tmp_path / "out").rglob("*.json*")]
    assert not any("NaN" in text for text in texts)


def test_h_a_score_that_is_none_is_null(tmp_path):
    y = np.minimum(land(5), 1)
    home = labelled(tmp_path, y, listed((0, 1, 2)))
    code, _, _, said = asked("score", a_map(tmp_path / "m.tif", y), home / "labels/a.tif", "--json")
    assert code == 0 and json.loads(said)["iou"]["roof"] is None and "NaN" not in said


# --- I: metres on the ground

GROUND = {  # CRS, transform: metres of a pixel
    "polar": ("EPSG:3995", GRID(2500000, 2500000, 10, 10), 9.51),
    "world mercator": ("EPSG:3395", GRID(2000000, 8399738, 1, 1), 0.499),
    "feet": ("EPSG:2263", GRID(980000, 200000, 1, 1), 0.305),
    "UTM": ("EPSG:32633", PLACE, 0.5),
    "no ground": ('LOCAL_CS["site",UNIT["metre",1]]', GRID(0, 0, 1, 1), None),
    "geocentric": ("EPSG:4978", GRID(0, 0, 1, 1), None),
}


@pytest.mark.parametrize("name", GROUND)
def test_i_lengths_and_areas_are_those_on_the_ground(runs, tmp_path, name):
    crs, transform, metres = GROUND[name]
    place, out, image = sound_place(tmp_path)
    put(image, paint(land(5)), names=RGB, crs=crs, transform=transform)
    put(place / "labels/a.tif", land(5), crs=crs, transform=transform)
    for command in ("map", "embed", "finetune"):
        code, errors, notes, said = asked(*commands(runs, place, out)[command])
        told = [note for note in notes if "pixels are" in note]
        differs = metres is not None and not 0.34 < metres < 0.74 and command != "finetune"
        assert code == 0 and not errors and len(told) == differs, (command, said)
    block = (
        "--block",
        f"{16 * metres}m" if metres else "8m",
        "--buffer",
        f"{2 * metres}m" if metres else "1m",
    )
    code, errors, _, said = asked("split", image, tmp_path / "s.geojson", *block)
    if metres is None:
        assert code == 2 and "places nothing on the ground" in errors[0] and "512px" in errors[0], said
    else:
        blocks = sum(int(line.split()[1]) for line in said.splitlines() if " blocks" in line)
        assert code == 0 and 30 < blocks <= 81, said  # 128 pixels are eight blocks of sixteen
    mapped = put(tmp_path / "m.tif", land(5), crs=crs, transform=transform, nodata=255)
    with rasterio.open(mapped, "r+") as file:
        file.update_tags(CLASSES=json.dumps(list(NAMES)))
    code, _, _, said = asked("score", mapped, place / "labels/a.tif", "--sample", "--json")
    found = json.loads(said)["adjusted"]
    area = sum(value[0] for value in found["areas"].values())
    assert code == 0 and area == pytest.approx(128**2 * (metres**2 / 1e4 if metres else 1), rel=0.03), found


# --- J: each error has its own cause


@pytest.mark.parametrize("command", reached("J"))
@pytest.mark.parametrize(
    "name, value",
    [("WORLD_SIZE", "3"), ("WORLD_SIZE", "two"), ("WORLD_SIZE", "0"), ("MPLBACKEND", "nothing")],
)
def test_j_a_stray_variable_is_named_or_changes_nothing(runs, tmp_path, command, name, value, monkeypatch):
    place, out, _ = sound_place(tmp_path)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv(name, value)
    code, errors, _, said = asked(*commands(runs, place, out)[command])
    assert (code == 0 and not errors) or (code == 2 and len(errors) == 1 and name in errors[0]), said
    if code:
        assert f"unset {name}" in said or "MPLBACKEND" in said, said


@pytest.mark.parametrize("words", ["EIO", "ENOTSUP", "ENOSYS"])
def test_j_a_disk_that_cannot_lock_is_a_note_of_every_command_that_locks(runs, tmp_path, words, monkeypatch):
    import errno
    import fcntl

    def lockf(*_):
        raise OSError(getattr(errno, words), "no locks here")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    place, out, _ = sound_place(tmp_path)
    for command in ("pretrain", "finetune", "map", "embed"):
        code, errors, notes, said = asked(*commands(runs, place, out)[command])
        assert code == 0 and not errors and any("without locks" in note for note in notes), (command, said)


# --- K: the record is in force


@pytest.mark.parametrize("command", reached("K"))
@pytest.mark.parametrize(
    "name, value",
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "3"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_MIXED_PRECISION", "fp16"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
    ],
)
def test_k_the_environment_changes_no_run(runs, tmp_path, command, name, value, monkeypatch):
    place, out, _ = sound_place(tmp_path)
    line = commands(runs, place, out)[command]
    assert asked(*line)[0] == 0
    folder = out / dict(pretrain="pre", finetune="seg")[command]
    plain = {p.name: p.read_bytes() for p in (*folder.glob("*.safetensors"), folder / "config.json")}
    shutil.rmtree(folder)
    monkeypatch.setenv(name, value)
    code, errors, notes, said = asked(*line)
    assert code == 0 and not errors and any(f"{name}={value} is passed over" in note for note in notes), said
    assert {p.name: p.read_bytes() for p in (*folder.glob("*.safetensors"), folder / "config.json")} == plain


# --- L: as people write

WRITTEN = dict(  # how classes.json is encoded
    utf16=lambda text: text.encode("utf-16"),
    bom=lambda text: text.encode("utf-8-sig"),
    crlf=lambda text: text.replace("{", "{\r\n").encode(),
    text_numbers=lambda text: (
        text.replace('"index": 0', '"index": "0"').replace('"index": 1', '"index": 1.0').encode()
    ),
)


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("command", reached("L"))
def test_l_a_list_of_classes_is_read_however_it_was_saved(runs, tmp_path, how, command):
    home = labelled(tmp_path / "place", land(5), listed((0, 1, 2)))
    path = home / "labels/classes.json"
    path.write_bytes(WRITTEN[how](path.read_text()))
    code, errors, _, said = asked(*of_labels(runs, home, tmp_path / "out")[command])
    assert code == 0 and not errors, said


@pytest.mark.parametrize("here, there", [("EPSG:4979", "EPSG:4326"), ("OGC:CRS84", "EPSG:4326")])
@pytest.mark.parametrize("command", reached("L"))
def test_l_heights_beside_degrees_are_no_other_place(runs, tmp_path, here, there, command):
    place = dict(transform=GRID(15, 60, 1e-5, 1e-5))
    home = labelled(tmp_path / "place", land(5), listed((0, 1, 2)), crs=there, **place)
    put(home / "images/a.tif", paint(land(5)), names=RGB, crs=here, **place)
    line = of_labels(runs, home, tmp_path / "out")[command]
    put(home / "map.tif", land(5), nodata=255, crs=here, tags=dict(CLASSES=json.dumps(list(NAMES))), **place)
    code, errors, _, said = asked(*line)
    assert code == 0 and not errors, said
    put(home / "labels/a.tif", land(5), crs="EPSG:4269", **place)  # another datum is another place
    assert asked(*line)[0] == 2


def test_l_names_of_two_spellings_are_one_in_lists_and_folders(runs, tmp_path):
    apart, whole = (unicodedata.normalize(form, "Köln") for form in ("NFD", "NFC"))
    put(tmp_path / "images" / f"{apart}.tif", paint(land(5)), names=RGB)
    put(tmp_path / "labels" / f"{whole}.tif", land(5))
    classes_file(tmp_path / "labels/classes.json")
    put(tmp_path / "maps" / f"{apart}.tif", land(5), nodata=255, tags=dict(CLASSES=json.dumps(list(NAMES))))
    assert "OA 1.000" in asked("score", tmp_path / "maps", tmp_path / "labels")[3]
    (tmp_path / "list.txt").write_bytes(f"{whole}_y0_x0\r\n".encode("utf-16"))
    data = (
        "--images",
        tmp_path / "images",
        "--labels",
        tmp_path / "labels",
        "--subset",
        tmp_path / "list.txt",
    )
    code, errors, _, said = asked("finetune", "random", *data, *SMALL, "--out", tmp_path / "seg")
    assert code == 0 and not errors, said


def test_l_a_class_in_capitals_is_the_class(runs, tmp_path):
    place, _, _ = sound_place(tmp_path)
    polygons(place / "p.geojson", ["WATER ", "Grass"])
    text = 'images = "images"\nlabels = "p.geojson"\n[classes]\nwater = "#1e3c8c"\ngrass = "#3c963c"\n'
    (place / "d.toml").write_bytes(text.encode("utf-16"))
    assert "0 faults" in asked("check", place / "d.toml")[3]
