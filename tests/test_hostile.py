"Files made to do harm: no order reaches a terminal, no traceback, nothing outside is touched, nothing hangs."

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from odd_rasters import says
from test_cases import a_map, classes_file, land, paint, put

from rsssl_nb.cli import main
from rsssl_nb.errors import InputError, printable

NAMES = ("\x1b]0;owned\x07water", "\x9b31mgrass", "roof\u202efoor")
ORDER = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


# --- the terminal


def spoken(*args, alone=False):
    "All that a command prints, here or `alone` in a process of its own: (exit code, output)."
    if not alone:
        found = CliRunner().invoke(main, list(map(str, args)))
        return found.exit_code, found.output
    found = subprocess.run(
        [sys.executable, "-m", "rsssl_nb", *map(str, args)], capture_output=True, text=True, timeout=120
    )
    return found.returncode, found.stdout + found.stderr


@pytest.fixture
def theirs(tmp_path):
    "A place whose file names and class names hold orders to a terminal; with its map."
    classes_file(tmp_path / "classes.json", names=NAMES)
    image = put(tmp_path / "images" / "\x1b[2Ja.tif", paint(land()))
    put(tmp_path / "labels" / "\x1b[2Ja.tif", land())
    return image, a_map(tmp_path / "\x1b[31mmap.tif", land(1), names=NAMES)


def test_no_order_reaches_the_terminal(theirs, tmp_path):
    image, mapped = theirs
    labels = tmp_path / "labels" / image.name
    cut = image.with_name("\x1b[1mcut.tif")
    cut.write_bytes(image.read_bytes()[:900])
    for code, command in (
        (0, ("score", mapped, labels)),
        (0, ("info", image)),
        (0, ("split", image, tmp_path / "\x07s.geojson", "--block", "32px", "--buffer", "2px")),
        (2, ("check", image.parent)),
        (2, ("map", tmp_path / "\x1b[1mno", cut, tmp_path / "out.tif")),
        (2, ("info", cut)),
        (2, ("score", mapped, labels, "--\x1b[1mno")),
        (2, ("score", mapped, cut)),
        (2, ("\x1b[1mno",)),
        (2, ("judge", "\x1b[1mno.pt")),
    ):
        got, said = spoken(*command, alone=cut in command)
        assert got == code, (command, said)
        assert not ORDER.search(said), (command, said)
        assert r"\x" in said or r"\u" in said, (command, said)
        assert "Traceback" not in said, said


def test_what_is_printed_is_cleaned_in_one_place():
    import rsssl_nb.cli

    for path in Path(rsssl_nb.cli.__file__).parent.glob("*.py"):
        lines = [
            line for line in path.read_text().splitlines() if re.search(r"click\.s?echo\(|\bprint\(", line)
        ]
        own = [line for line in lines if r"\033" not in line]  # doctor's line of progress, of our own words
        assert len(own) == (path.stem == "shared"), (path, own)


def test_a_notebook_shows_no_order():
    error = InputError("\x1b[31ma.tif")
    assert error._render_traceback_()[0] == r"InputError: \x1b[31ma.tif"
    assert printable("a\tb\nß\ud83d") == "a\tb\nß\\ud83d"


# --- records of weights


WRONG = (5, -1, 10**40, float("inf"), "x", [], [1], [[1]] * 3, {"a": 1}, True, [None] * 3)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    "The weights files of a small segmenter and a small encoder, and a picture for them."
    from rsssl_nb.training.finetune import finetune
    from rsssl_nb.training.pretrain import pretrain

    folder = tmp_path_factory.mktemp("networks")
    picture = put(folder / "images/a.tif", paint(land()), names=("red", "green", "blue"))
    put(folder / "labels/a.tif", land())
    classes_file(folder / "labels/classes.json")
    small = dict(steps=1, batch=2, size=32, width=8, device="cpu", progress=False)
    pretrain(picture, out=folder / "pre", samples=2, **small)
    finetune("random", folder / "images", folder / "labels", folder / "seg", fraction=1.0, **small)
    return dict(
        segmenter=folder / "seg/segmenter.safetensors",
        encoder=folder / "pre/encoder.safetensors",
        picture=picture,
    )


def records(meta):
    "Records that differ from `meta` in one field: gone, or of another kind; what they are called with each."
    for field in meta:
        yield f"no {field}", {k: v for k, v in meta.items() if k != field}
        for value in (None, *WRONG):
            yield f"{field} {value!r}"[:60], {**meta, field: value}
    for field in (*meta["images"], "scales", "offsets"):
        for value in WRONG:
            yield f"images {field} {value!r}"[:60], {**meta, "images": {**meta["images"], field: value}}
    for value in (5, "x", [], [[1]], None):
        yield f"all {value!r}", value


@pytest.mark.parametrize("kind", ["segmenter", "encoder"])
def test_a_record_of_another_kind_is_a_sentence(networks, tmp_path, kind):
    from rsssl_nb.mapping.embed import embed
    from rsssl_nb.mapping.models import open_model
    from rsssl_nb.mapping.segment import segment
    from rsssl_nb.tensors import load_weights, save_weights
    from rsssl_nb.training.pretrain import load_encoder
    from rsssl_nb.weights import load

    state, meta = load_weights(networks[kind])
    path = tmp_path / "odd.safetensors"
    refused = 0
    for what, record in records(meta):
        save_weights(path, state, record)
        try:
            if kind == "segmenter":
                model = open_model(path)
                segment(model, networks["picture"], size=32, device="cpu")
            else:
                load(path)
                encoder, told = load_encoder(path)
                if (
                    told.get("mean")
                    and told.get("std")
                    and what.startswith(("mean", "std", "images", "band"))
                ):
                    embed(encoder, networks["picture"], None, told["mean"], told["std"], 32, device="cpu")
        except ValueError as error:
            assert str(path) in str(error) and len(str(error)) < 500, (what, error)
            refused += 1
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
    assert refused > 80


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "5", "nonsense", '{"width": 1e999}', '{"bands": "\x1b[31m"}']
)
def test_a_record_that_is_no_record_is_a_sentence(networks, tmp_path, text):
    from safetensors.torch import save_file

    from rsssl_nb.tensors import load_weights

    state, _ = load_weights(networks["encoder"])
    save_file(state, tmp_path / "odd.safetensors", {"rsssl_nb": text})
    for command in (("info",), ("embed",), ("export",)):
        place = (networks["picture"], tmp_path / "out.tif") if command == ("embed",) else ()
        code, said = spoken(*command, tmp_path / "odd.safetensors", *place)
        assert code == 2 and "odd.safetensors" in said and "Traceback" not in said, said


def test_every_shipped_record_is_read():
    from rsssl_nb.weights import shipped

    assert all(meta["method"] for meta in shipped().values())


# --- lists of classes, datasets and polygons


def refuses(*command, names):
    "The command ends with exit code 2 and one sentence that has `names` in it."
    code, said = spoken(*command)
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert code == 2 and len(lines) == 1 and str(names) in lines[0], said


ONE = '{"classes": [{"index": 0, "name": "a", "hex": "#ffffff"}'
CLASSES = [
    *("", "5", "null", "[]", "[" * 100_000, '{"classes": 5}', '{"classes": {"a": 1}}', '{"classes": [5]}'),
    f'{ONE}, {{"index": 1.5, "name": "b", "hex": "#ffffff"}}]}}',
    f'{ONE}, {{"index": true, "name": "b", "hex": "#ffffff"}}]}}',
    f'{ONE}, {{"index": 1e400, "name": "b", "hex": "#ffffff"}}]}}',
    f'{ONE}, {{"index": {10**30}, "name": "b", "hex": "#ffffff"}}]}}',
    f'{ONE}, {{"index": 1, "name": {{}}, "hex": "#ffffff"}}]}}',
    f'{ONE}, {{"index": 1, "name": null, "hex": "#ffffff"}}]}}',
    f'{ONE}, {{"index": 1, "name": "b", "hex": 5}}]}}',
    f'{ONE}, {{"index": 1, "name": "b", "rgb": [1e400, 0, 0]}}]}}',
    f'{ONE}, {{"index": 1, "name": "b", "rgb": ["x", 0, 0]}}]}}',
    f'{ONE}], "ignore_index": [0]}}',
    f'{ONE}], "ignore_index": NaN}}',
    f'{ONE}], "ignored_source_colours": 5}}',
    f'{ONE}], "ignored_source_colours": [5]}}',
    f'{ONE}], "ignored_source_colours": "red"}}',
]


@pytest.mark.parametrize("text", CLASSES, ids=range(len(CLASSES)))
def test_a_list_of_classes_of_another_kind_is_a_sentence(tmp_path, text):
    put(tmp_path / "images/a.tif", paint(land()))
    labels = put(tmp_path / "labels/a.tif", land())
    (tmp_path / "labels/classes.json").write_text(text)
    refuses("check", tmp_path, names="classes.json")
    refuses("score", labels, labels, "--classes", tmp_path / "labels/classes.json", names="classes.json")


RING = [[500000, 5200000], [500030, 5200000], [500030, 5199970], [500000, 5200000]]
SHAPES = [
    *("", "5", "[]", "[" * 100_000, '{"type": "FeatureCollection"}', '{"type": "Feature"}'),
    *('{"type": "FeatureCollection", "features": 5}', '{"type": "FeatureCollection", "features": [5]}'),
    *(
        json.dumps(dict(type="Feature", properties=properties, geometry=geometry, crs=crs))
        for properties in ({"class": "water"}, [5], "x")
        for crs in (None, 5, {"properties": {"name": 5}}, {"properties": {"name": "EPSG:99999999"}})
        for geometry in (
            "x",
            [5],
            {"type": ["Polygon"], "coordinates": [RING]},
            {"type": "Point", "coordinates": [1, 2]},
            *(
                {"type": kind, "coordinates": inside}
                for kind in ("Polygon", "MultiPolygon")
                for inside in (5, [5], [[5]], [[[5]]], [[[[[1, 2]]]]], [RING[:2]], [[*RING, [1]]], {"a": 1})
            ),
            {"type": "Polygon", "coordinates": [[*RING, ["a", "b"]]]},
            {"type": "Polygon", "coordinates": [[*RING, [float("nan"), 0]]]},
            {"type": "Polygon", "coordinates": [[*RING, [10**400, 0]]]},
        )
    ),
]


def test_polygons_of_another_nesting_are_a_sentence(tmp_path):
    from rsssl_nb.data.labels import Classes
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.data.shapes import polygon_labels

    raster = open_raster(put(tmp_path / "a.tif", paint(land())))
    path = tmp_path / "odd.geojson"
    for text in SHAPES:
        path.write_text(text)
        with says("odd.geojson"):
            polygon_labels(path, Classes(("water", "grass")), raster)


def geopackage(path, blob, table="CREATE TABLE shapes (geom BLOB, class TEXT)", **told):
    "A GeoPackage of one layer whose first row holds these bytes."
    import sqlite3
    from contextlib import closing

    told = dict(srs=32633, organization="EPSG", code=32633, column="geom") | told
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as base:
        base.execute("CREATE TABLE gpkg_geometry_columns (table_name, column_name, srs_id)")
        base.execute(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_id, organization, organization_coordsys_id, definition)"
        )
        base.execute(
            "INSERT INTO gpkg_geometry_columns VALUES ('shapes', ?, ?)", (told["column"], told["srs"])
        )
        row = (told["srs"], told["organization"], told["code"], "x")
        base.execute("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?)", row)
        base.execute(table)
        if "CREATE TABLE" in table:
            base.execute("INSERT INTO shapes VALUES (?, 'water')", (blob,))
        base.commit()
    return path


def test_a_geopackage_of_other_bytes_is_a_sentence(tmp_path):
    import struct

    from rsssl_nb.data.labels import Classes
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.data.shapes import polygon_labels

    raster = open_raster(put(tmp_path / "a.tif", paint(land())))
    head = b"GP\0\1" + struct.pack("<i", 32633)
    many = struct.pack("<BII", 1, 6, 1)
    square = struct.pack("<BIII", 1, 3, 1, 4) + np.array(RING, "<f8").tobytes()
    nan = struct.pack("<BIII", 1, 3, 1, 4) + np.full((4, 2), np.nan).tobytes()
    bad = [b"", b"GP", 5, "text", 1.5, head, head + b"\1", head + many * 5000]
    bad += [head + square[:-1], head + struct.pack("<BIII", 1, 3, 2**32 - 1, 2**31), head + nan]
    bad += [head + struct.pack("<BIIdd", 1, 1, 1, 0, 0), head + struct.pack("<BIII", 1, 3, 1, 0)]
    files = [dict(blob=blob) for blob in bad]
    square = head + square
    files += [dict(blob=square, column="other"), dict(blob=square, organization=None)]
    files += [dict(blob=square, srs="x"), dict(blob=square, code="x"), dict(blob=square, code=10**9)]
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS geom FROM n"
    files += [dict(blob=None, table=f"CREATE VIEW shapes AS {endless}")]
    for given in files:
        with says("odd.gpkg"):
            polygon_labels(geopackage(tmp_path / "odd.gpkg", **given), Classes(("water", "grass")), raster)
    found = polygon_labels(geopackage(tmp_path / "even.gpkg", square), Classes(("water", "grass")), raster)
    assert (found == 0).any()


TOMLS = [
    *("images = 5", 'images = ["a"]', 'images = "images"\nlabels = 5', 'images = "images"\nname = 5'),
    *('images = "images"\nsplit = 5', 'images = "images"\n[split]\ntrain = 5', "a = " + "[" * 100_000),
    *('images = "images"\n[split]\ntrain = [5]', 'images = "images"\nsplit = "s.geojson"'),
    *('images = "images"\nlabels = "labels"\nclasses = 5', 'images = "images"\noutside = ["x"]'),
    *(
        f'images = "images"\nlabels = "labels"\n[classes]\nwater = {value}'
        for value in ("5", '"red"', "[]", "[1e400, 0, 0]", "{a = 1}", '"#12345"')
    ),
]


@pytest.mark.parametrize("text", TOMLS, ids=range(len(TOMLS)))
def test_a_dataset_file_of_another_kind_is_a_sentence(tmp_path, text):
    put(tmp_path / "images/a.tif", paint(land()))
    put(tmp_path / "labels/a.tif", land())
    (tmp_path / "s.geojson").write_text('{"type": "Feature", "properties": [1], "geometry": 5, "crs": 7}')
    (tmp_path / "d.toml").write_text(text)
    refuses("check", tmp_path / "d.toml", names="s.geojson" if "s.geojson" in text else "d.toml")


# --- archives


def zipped(path, **members):
    "A zip of members by their names (a double underscore stands for a dot)."
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "."), data)
    return path


def test_an_archive_replaces_nothing(tmp_path):
    from rsssl_nb.data.download import unpack

    home = tmp_path / "home"
    (home / "images").mkdir(parents=True)
    (home / "dataset.toml").write_text("mine")
    taken = zipped(tmp_path / "a.zip", dataset__toml="theirs", new__txt="new")
    with pytest.raises(InputError, match="dataset.toml is there already.*force=True"):
        unpack(taken, home)
    with pytest.raises(InputError, match="images is there already"):
        unpack(zipped(tmp_path / "b.zip", **{"images/a__txt": "theirs"}), home, force=True)
    assert (home / "dataset.toml").read_text() == "mine" and len(list(home.iterdir())) == 2
    unpack(taken, home, force=True)
    assert (home / "dataset.toml").read_text() == "theirs" and (home / "new.txt").exists()


def test_an_archive_may_not_grow_without_end(tmp_path, monkeypatch):
    import shutil

    from rsssl_nb.data import download

    monkeypatch.setattr(download, "RATIO", 0)
    bomb = zipped(tmp_path / "bomb.zip", a=bytes(2**20))
    info = __import__("zipfile").ZipFile(bomb).infolist()
    info[0].file_size = 2**31  # as its list of contents may claim
    monkeypatch.setattr(download.zipfile.ZipFile, "infolist", lambda _: info)
    with pytest.raises(InputError, match="bomb.zip would unpack to 1 files and 2.15 GB, more than.*1.07 GB"):
        download.unpack(bomb, tmp_path / "home")
    full = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(InputError, match="MB free"):
        download.unpack(bomb, tmp_path / "home", most=2**32)
    assert not (tmp_path / "home").exists()


def test_an_archive_that_cannot_be_unpacked_is_a_sentence(tmp_path):
    from rsssl_nb.data.download import unpack

    good = zipped(tmp_path / "good.zip", a="x" * 1000)
    (tmp_path / "file").touch()
    twice = zipped(tmp_path / "twice.zip", **{"a": "x", "a/b": "y"})
    spoilt = bytearray(good.read_bytes())
    spoilt[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "spoilt.zip").write_bytes(spoilt)
    long = zipped(tmp_path / "long.zip", **{"x" * 300: "y"})
    for archive, home in (
        (tmp_path / "no.zip", tmp_path / "home"),
        (tmp_path, tmp_path / "home"),
        (good, tmp_path / "file"),
        (twice, tmp_path / "home"),
        (tmp_path / "spoilt.zip", tmp_path / "home"),
        (long, tmp_path / "home"),
    ):
        with pytest.raises(InputError, match=re.escape(archive.name)):
            unpack(archive, home)
    assert not list((tmp_path / "home").glob("**/*"))


def test_links_where_an_archive_is_kept_are_not_followed(tmp_path):
    from rsssl_nb.data.download import resuming, unpack

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/a").write_text("mine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.good.part").symlink_to(tmp_path / "theirs")
    unpack(zipped(tmp_path / "good.zip", a="new"), tmp_path / "home")
    assert (tmp_path / "theirs/a").read_text() == "mine"
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["a"]
    part = tmp_path / ".x.part"
    part.symlink_to(tmp_path / "theirs/a")
    with pytest.raises(Exception, match="localhost|invalid|connection|refused"):
        resuming(part, 10, False)("http://localhost:1/x", tmp_path / "x", None)
    assert not part.is_symlink() and (tmp_path / "theirs/a").read_text() == "mine"


# --- rows of judges


def test_judge_writes_its_rows_whole_and_over_nothing(tmp_path, monkeypatch):
    from rsssl_nb.evaluation import judges

    theirs = tmp_path / "theirs.json"
    theirs.write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()

    def never(*_):
        raise AssertionError("the judges were asked before the place was looked at")

    monkeypatch.setattr(judges, "open_encoder", never)
    refuses("judge", "shipped:simclr-20", "--out", theirs, names="--force")
    refuses("judge", "shipped:simclr-20", "--out", folder, names="is a folder")
    assert theirs.read_text() == "mine"


def test_judge_follows_no_link_and_writes_no_nan(tmp_path, monkeypatch):
    from rsssl_nb.evaluation import judged, judges
    from rsssl_nb.files import part_path

    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "rows.json"
    part_path(out).symlink_to(victim)
    monkeypatch.setattr(judges, "judge_encoders", lambda *_: [dict(oa=float("nan"))])
    monkeypatch.setattr(judged, "as_table", lambda _: "table")
    code, said = spoken(
        "judge", "shipped:simclr-20", "--tiles", 2, "--labels", 2, "--adapt-bands", "--out", out
    )
    assert code == 0 and json.loads(out.read_text()) == [dict(oa=None)], said
    assert victim.read_text() == "mine" and not out.is_symlink()
