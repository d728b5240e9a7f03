"""Archives with their official layouts, the TOML of one's own, splits that do not leak, and a download that
breaks off.
"""

import hashlib
import http.server
import json
import threading
import warnings
import zipfile
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image

from rsssl_nb.cli.training import training_labels
from rsssl_nb.data.datasets import (
    DEEPGLOBE,
    FLAIR,
    LOVEDA,
    POTSDAM,
    VAIHINGEN,
    Entry,
    make_dataset,
    open_dataset,
)
from rsssl_nb.data.download import download_loveda, fetch_file, unpack
from rsssl_nb.data.labels import Classes
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.splits import by_scene, check_dataset, leaks
from rsssl_nb.data.write import write_raster, write_scene
from rsssl_nb.errors import InputError
from rsssl_nb.notebook import Note
from rsssl_nb.training.labelled import LabelRaster, open_pairs


@pytest.fixture(autouse=True)
def strict():
    "A dataset that is whole is opened without a word."
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def test_potsdam(tmp_path):
    data = open_dataset(fakes.fake_potsdam(tmp_path))
    assert (
        data.name == "potsdam"
        and len(data.split("train")) == 24
        and len(data.split("test")) == 14
        and data.missing == ()
    )
    assert not {e.name for e in data.split("train")} & {e.name for e in data.split("test")} and {
        e.name for e in data.split("test")
    } == set(POTSDAM["test"])
    assert (
        data.classes.names[:2] == ("impervious surfaces", "building")
        and data.classes.colors[4] == "#ffff00"
        and data.classes.values == ()
    )
    entry = next(e for e in data.scenes if e.name == "2_10")
    assert data.raster(entry).bands == 4
    np.testing.assert_array_equal(data.labels(entry), fakes.classes(0, 6))
    seamed = open_dataset(tmp_path, "potsdam", boundaries=False)
    labels = seamed.labels(next(e for e in seamed.scenes if e.name == "2_10"))
    assert (labels[::3] == 255).all() and (labels[1::3] == fakes.classes(0, 6)[1::3]).all()


def test_potsdam_names_what_is_missing(tmp_path):
    fakes.fake_potsdam(tmp_path, ["2_10", "2_13", "7_12"])
    fakes.fake_potsdam(tmp_path, ["2_10"], "RGB")
    (tmp_path / "5_Labels_all/top_potsdam_2_13_label.tif").unlink()
    with pytest.warns(UserWarning, match="potsdam: 36 files are missing: top_potsdam_2_11_RGBIR.tif"):
        data = open_dataset(tmp_path)
    assert (
        data.missing[-1] == "top_potsdam_2_13_label.tif"
        and len(data.scenes) == 3
        and data.scenes[1].labels is None
    )
    with pytest.warns(UserWarning, match="37 files"):
        assert (
            open_dataset(tmp_path, "potsdam", bands="RGB")
            .raster(Entry("x", tmp_path / "2_Ortho_RGB/top_potsdam_2_10_RGB.tif"))
            .bands
            == 3
        )
    with pytest.raises(InputError, match="no Potsdam tiles with IRRG .it has RGB, RGBIR"):
        open_dataset(tmp_path, "potsdam", bands="IRRG")
    with pytest.raises(InputError, match="bands is an option of one layout"):
        open_dataset(tmp_path, bands="RGB")


def test_vaihingen(tmp_path):
    data = open_dataset(fakes.fake_vaihingen(tmp_path))
    assert (
        data.name == "vaihingen"
        and [len(data.split(s)) for s in ("train", "test")] == [16, 17]
        and data.missing == ()
    )
    assert {e.name for e in data.split("train")} == set(VAIHINGEN["train"])
    assert all(
        e.image.parent.name == "top" and e.labels.parent.name != "top" and e.labels.name == e.image.name
        for e in data.scenes
    )
    eroded = open_dataset(tmp_path, "vaihingen", boundaries=False)
    assert (
        all("noBoundary" in e.labels.name for e in eroded.scenes)
        and (eroded.labels(eroded.scenes[0]) == 255).any()
    )


def test_loveda(tmp_path):
    data = open_dataset(fakes.fake_loveda(tmp_path / "LoveDA").parent)  # the folder above is as good
    assert (
        data.name == "loveda"
        and [len(data.split(s)) for s in ("train", "val", "test")] == [4, 4, 4]
        and data.missing == ()
    )
    assert all(e.labels is None for e in data.split("test")) and {
        e.name.split("/")[1] for e in data.scenes
    } == {"Urban", "Rural"}
    entry = data.split("train")[0]
    raw = np.asarray(Image.open(entry.labels))
    np.testing.assert_array_equal(data.labels(entry), np.where(raw == 0, 255, raw - 1))
    assert data.classes == Classes(LOVEDA.names, LOVEDA.colors)
    with pytest.raises(InputError, match="has no labels"):
        data.labels(data.split("test")[0])


def test_loveda_names_what_is_missing(tmp_path):
    fakes.fake_loveda(tmp_path)
    for path in (tmp_path / "Val/Rural/images_png").iterdir():
        path.unlink()
    (tmp_path / "Train/Urban/masks_png/2.png").unlink()
    with pytest.warns(
        UserWarning, match="2 files are missing: Val/Rural/images_png, Train/Urban/masks_png/2.png"
    ):
        open_dataset(tmp_path)


def test_deepglobe_rounds_its_colours(tmp_path):
    data = open_dataset(fakes.fake_deepglobe(tmp_path))
    assert data.name == "deepglobe" and [len(data.split(s)) for s in ("train", "val", "test")] == [3, 1, 1]
    for i, entry in enumerate(data.split("train")):
        want = fakes.classes(i, 7)
        np.testing.assert_array_equal(data.labels(entry), np.where(want == 6, 255, want))
    assert data.classes.names == DEEPGLOBE.names
    (tmp_path / "train/100_mask.png").unlink()
    with pytest.warns(UserWarning, match="100_mask.png"):
        open_dataset(tmp_path)


def test_flair_pairs_two_trees_and_keeps_five_bands(tmp_path):
    data = open_dataset(fakes.fake_flair(tmp_path / "two"))
    assert data.name == "flair" and data.missing == ()
    assert [len(data.split(s)) for s in ("train", "test")] == [6, 2]
    first = data.split("train")[0]
    assert first.name == "D004_2021/Z10_AU/000883" and first.labels.name == "MSK_000883.tif"
    raster = data.raster(first)
    assert (raster.bands, raster.crs, raster.transform[0]) == (5, "EPSG:2154", 0.2)
    np.testing.assert_array_equal(data.labels(first), fakes.classes(0, 19))
    assert len(FLAIR.names) == len(FLAIR.colors) == 19 and FLAIR.names[4] == "water"
    one_tree = tmp_path / "one"
    for entry in data.scenes[:2]:
        for path, folder in ((entry.image, "img"), (entry.labels, "msk")):
            there = one_tree / entry.name.rpartition("/")[0] / folder / path.name
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
    assert [e.name for e in open_dataset(one_tree, "flair").split("train")] == [
        e.name for e in data.scenes[:2]
    ]
    data.split("test")[0].labels.unlink()
    assert open_dataset(tmp_path / "two/flair_1_aerial_test").split("test")[0].labels is None
    first.labels.unlink()
    with pytest.warns(UserWarning, match="D004_2021/Z10_AU/msk/MSK_000883.tif"):
        open_dataset(tmp_path / "two")


def test_dubai_and_friends(imagery):
    data = open_dataset(imagery / "dubai")
    assert (
        [len(data.split(s)) for s in ("train", "val", "test")] == [36, 9, 18]
        and data.classes.names[0] == "building"
        and data.missing == ()
    )
    assert leaks(data) == [] and set(np.unique(data.labels(data.split("val")[0]))) <= {0, 1, 2, 3, 4, 255}
    ground = {
        s: {e.name.split("/")[1].split("_")[0] for e in data.split(s)} for s in ("train", "val", "test")
    }
    assert not ground["train"] & ground["test"] and not ground["train"] & ground["val"]
    potsdam = open_dataset(imagery / "potsdam")
    with pytest.warns(UserWarning, match="tagged alpha"):
        assert len(potsdam.scenes) == 1 and potsdam.raster(potsdam.scenes[0]).bands == 4
    pool = open_dataset(imagery / "rsscn7")
    assert len(pool.scenes) == 2520 and pool.classes is None


# ---------------------------------------------------------------- one's own


@pytest.fixture
def own(tmp_path):
    "Two scenes with labels, and room for a dataset.toml."
    for n in (1, 2):
        image, labels = write_scene(make_scene(64, seed=n), tmp_path / str(n))
        for path, home in ((image, "img"), (labels, "lab")):
            (tmp_path / home).mkdir(exist_ok=True)
            path.rename(tmp_path / home / f"s{n}.tif")
    return tmp_path


def toml(folder, text):
    (folder / "dataset.toml").write_text(text, encoding="utf-8")
    return folder


def test_labels_of_a_dataset_are_read_by_window(own):
    path = toml(own, 'images = "img"\nlabels = "lab"\n')
    rasters, labels, classes, spare = training_labels(path)
    assert spare is None
    data = open_dataset(path)
    for entry, raster, found in zip(data.split("train"), rasters, labels, strict=True):
        whole = data.labels(entry)
        assert isinstance(found, LabelRaster) and np.array_equal(
            found.read(8, 16, 32, 24), whole[16:40, 8:40]
        )
        assert found.counts.sum() == (whole != 255).sum() and raster.name
    pairs, coded = open_pairs(rasters, labels, classes)
    assert [held for _, held in pairs] == labels and coded is classes
    strange = data.labels(data.scenes[0])
    strange[0, :4] = 200
    with pytest.warns(Note, match="counts as no label"):
        few = LabelRaster(strange, data.coding, rasters[0], tolerate=0.01)
    assert (few.read(0, 0, 4, 1) == 255).all()
    with pytest.raises(InputError, match="200"):
        LabelRaster(strange, data.coding, rasters[0])


def test_toml(own):
    data = open_dataset(toml(own, 'name = "täl"\nimages = "img"\nlabels = "lab"\nsplit.test = ["s2"]'))
    assert (
        data.name == "täl"
        and [e.split for e in data.scenes] == ["train", "test"]
        and data.classes.names == tuple(make_scene(64).classes)
    )
    np.testing.assert_array_equal(data.labels(data.scenes[0]), make_scene(64, seed=1).labels)
    with pytest.warns(UserWarning, match="1 files are missing: s9"):
        open_dataset(toml(own, 'images = "img"\nsplit.val = ["s9"]'))


@pytest.mark.parametrize(
    "text, says",
    [
        ("images = ", "is no TOML file"),
        ('name = "x"', "does not say where the images are"),
        ('images = "img"\nlables = "lab"', "unknown key 'lables'"),
        ('images = "none"', "does not exist"),
        ('images = "img"\nsplit.dev = ["s1"]', "is for 'dev'"),
        ('images = "img"\nlabels = "lab"\nclasses = "no.json"', "no.json does not exist"),
    ],
)
def test_bad_toml_is_one_sentence(own, text, says):
    with pytest.raises(InputError, match=says):
        open_dataset(toml(own, text))


def test_toml_with_polygons(own):
    scene = make_scene(64, seed=1)
    a, b, c, d, e, f = scene.transform
    box = [[c, f], [c + 20 * a, f], [c + 20 * a, f + 10 * e], [c, f + 10 * e], [c, f]]
    rows = dict(
        type="FeatureCollection",
        crs=dict(type="name", properties=dict(name="urn:ogc:def:crs:" + scene.crs.replace(":", "::"))),
        features=[
            dict(
                type="Feature",
                properties=dict(kind="roof", split="test"),
                geometry=dict(type="Polygon", coordinates=[box]),
            )
        ],
    )
    (own / "roofs.geojson").write_text(json.dumps(rows))
    text = (
        'images = "img/s1.tif"\nlabels = "roofs.geojson"\nfield = "kind"\nelsewhere = "ground"\n'
        '{}[classes]\nground = "#00ff00"\nroof = "#ff0000"\n'
    )
    data = open_dataset(toml(own, text.format("")))
    labels = data.labels(data.scenes[0])
    assert (
        (labels[:10, :20] == 1).all() and (labels == 1).sum() == 200 and (labels == 0).sum() == 64 * 64 - 200
    )
    bound = open_dataset(toml(own, text.format('split = "roofs.geojson"\n')))
    assert [e.split for e in bound.scenes] == ["test"] and bound.raster(bound.scenes[0]).valid(
        0, 0, 64, 64
    ).sum() == scene.valid[:10, :20].sum()
    without = open_dataset(toml(own, text.format('outside = "roofs.geojson"\n')))
    assert not without.raster(without.scenes[0]).valid(0, 0, 20, 10).any()


def test_nothing_fits(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(tmp_path / "no")
    with pytest.raises(InputError, match="does not look like potsdam, vaihingen"):
        open_dataset(tmp_path)
    (tmp_path / "4_Ortho_RGBIR.zip").write_bytes(b"")
    with pytest.raises(InputError, match="does not look like potsdam: unpack 4_Ortho_RGBIR.zip first"):
        open_dataset(tmp_path, "potsdam")
    with pytest.raises(InputError, match="layout 'moon' is not known"):
        open_dataset(tmp_path, "moon")


# ---------------------------------------------------------------- splits and faults


def test_one_scene_one_split(tmp_path):
    image = tmp_path / "a.tif"
    with pytest.raises(InputError, match="is for train and for test"):
        make_dataset(
            "x", [Entry("a", image), Entry("b", tmp_path / "../" / tmp_path.name / "a.tif", split="test")]
        )


def test_scenes_are_dealt_whole(tmp_path):
    data = make_dataset("x", [Entry(str(i), tmp_path / f"{i}.tif") for i in range(40)])
    dealt = by_scene(data, (0.5, 0.25, 0.25), seed=4)
    assert [len(dealt.split(s)) for s in ("train", "val", "test")] == [20, 10, 10] and dealt == by_scene(
        data, (0.5, 0.25, 0.25), seed=4
    ) != by_scene(data, (0.5, 0.25, 0.25), seed=5)
    assert {e.name for e in dealt.scenes} == {e.name for e in data.scenes}
    with pytest.raises(InputError, match="there are 2 parts for 3 splits"):
        by_scene(make_dataset("y", data.scenes[:2]))


def test_leaks(tmp_path):
    scene = make_scene(64, seed=1)
    a, b, c, d, e, f = scene.transform
    place = lambda name, x: write_raster(
        tmp_path / name, scene.image[:, :, :32] + np.uint8(x), scene.crs, (a, b, c + x * a, d, e, f)
    )
    beside, over = place("beside.tif", 32), place("over.tif", 16)
    home = write_raster(tmp_path / "home.tif", scene.image[:, :, :32], scene.crs, scene.transform)
    assert (
        leaks(make_dataset("x", [Entry("a", home), Entry("b", beside, split="test")])) == []
    )  # an edge in common is none
    assert (
        "a (train) and b (val) overlap on the ground"
        in leaks(make_dataset("x", [Entry("a", home), Entry("b", over, split="val")]))[0]
    )
    assert leaks(make_dataset("x", [Entry("a", home), Entry("b", over)])) == []  # in one split nothing leaks
    bare = [write_raster(tmp_path / f"{i}.tif", scene.image) for i in range(2)]
    assert (
        "same file" in leaks(make_dataset("x", [Entry("a", bare[0]), Entry("b", bare[1], split="test")]))[0]
    )


def test_check_lists_every_fault(tmp_path):
    data = open_dataset(fakes.fake_loveda(tmp_path))
    (tmp_path / "Train/Rural/images_png/0.png").write_bytes(b"\x89PNG")
    fakes.save(tmp_path / "Train/Rural/masks_png/1.png", np.full((fakes.SIZE, fakes.SIZE), 99, np.uint8))
    fakes.save(tmp_path / "Train/Urban/masks_png/2.png", np.ones((9, 9), np.uint8))
    fakes.save(tmp_path / "Val/Rural/images_png/4.png", fakes.picture(4, 1))
    kinds = {Path(path).relative_to(tmp_path).as_posix(): kind for path, kind, _ in check_dataset(data)}
    assert kinds == {
        "Train/Rural/images_png/0.png": "corrupt",
        "Train/Rural/masks_png/1.png": "labels",
        "Train/Urban/masks_png/2.png": "labels",
        "Val/Rural/images_png/4.png": "mismatch",
    }
    sentences = {Path(path).name: text for path, _, text in check_dataset(data)}
    assert "100 % of" in sentences["1.png"] and "9 x 9" in sentences["2.png"]


def test_a_few_unknown_colours_pass_with_a_share(tmp_path):
    fakes.fake_potsdam(tmp_path, [n for s in POTSDAM.values() for n in s])
    data = open_dataset(tmp_path)
    entry = data.scenes[0]
    colours = np.asarray(Image.open(entry.labels)).copy()
    colours[0, :5] = 252, 255, 0
    fakes.save(entry.labels, colours)
    with pytest.warns(UserWarning, match="0.868 % of .* has the colour #FCFF00"):
        labels = data.labels(entry)
    assert (labels[0, :5] == 255).all() and (labels == 255).sum() == 5
    colours[:12] = 252, 255, 0
    fakes.save(entry.labels, colours)
    with pytest.raises(InputError, match="50 % of"):
        data.labels(entry)


# ---------------------------------------------------------------- downloads


@pytest.fixture
def host(tmp_path):
    """A server on this machine: {path: bytes}; `breaks` counts down answers that end half-way.

    `asked` lists the bytes asked for.
    """

    class Host(http.server.BaseHTTPRequestHandler):
        files, asked, breaks = {}, [], 0

        def do_GET(self):
            body = Host.files.get(self.path)
            if body is None:
                return self.send_error(404)
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            Host.asked.append(start)
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", len(body) - start)
            self.end_headers()
            body = body[start:]
            if Host.breaks:
                body, Host.breaks = body[: len(body) // 2], Host.breaks - 1
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Host.url = f"http://127.0.0.1:{server.server_port}"
    yield Host
    server.shutdown()
    server.server_close()
    thread.join()


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_loveda_downloads_through_breaks(tmp_path, host, capfd):
    fakes.fake_loveda(tmp_path / "made")
    for part in ("Train", "Val"):
        with zipfile.ZipFile(tmp_path / f"{part}.zip", "w") as z:
            for p in sorted((tmp_path / "made" / part).rglob("*.png")):
                z.write(p, p.relative_to(tmp_path / "made"))
            z.writestr(f"{part}/noise.bin", np.random.default_rng(0).bytes(200_000))
        host.files[f"/{part}.zip"] = (tmp_path / f"{part}.zip").read_bytes()
    sums, host.breaks = {p: sha(host.files[f"/{p}.zip"]) for p in ("Train", "Val")}, 2
    for _ in range(2):
        with pytest.raises(InputError, match="continues where it broke off"):
            download_loveda(tmp_path / "got", files=sums, host=host.url)
    with pytest.warns(UserWarning, match="Test/Urban/images_png"):
        data = download_loveda(tmp_path / "got", files=sums, host=host.url)
    assert (
        [len(data.split(s)) for s in ("train", "val")] == [4, 4]
        and host.asked[0] == 0 < host.asked[1] < host.asked[2]
        and host.asked[3] == 0
    )
    assert (
        sorted(p.name for p in (tmp_path / "got").iterdir()) == ["Train", "Val"]
        and "Train.zip" not in capfd.readouterr().err  # a bar is for a terminal, not for a log
    )
    before = len(host.asked)
    with pytest.warns(UserWarning):
        download_loveda(tmp_path / "got", files=sums, host=host.url, progress=False)
    assert len(host.asked) == before  # what is there is not fetched again


def test_a_wrong_checksum_leaves_nothing(tmp_path, host):
    host.files["/a.zip"] = b"x" * 50_000
    with pytest.raises(InputError, match="cannot be fetched .*SHA256 hash|cannot be fetched .*hash"):
        fetch_file(f"{host.url}/a.zip", tmp_path, sha(b"other"), progress=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".a.zip.part").write_bytes(host.files["/a.zip"])  # all there before the kill
    assert (
        fetch_file(f"{host.url}/a.zip", tmp_path, sha(host.files["/a.zip"]), progress=False).read_bytes()
        == host.files["/a.zip"]
    )
    with pytest.raises(InputError, match="cannot be fetched .404"):
        fetch_file(f"{host.url}/b.zip", tmp_path, sha(b""), progress=False)
    host.files["/c.zip"] = b"x" * 50_000
    with pytest.raises(InputError, match="more than the 0.0 GB expected"):
        fetch_file(f"{host.url}/c.zip", tmp_path, None, most=1000, progress=False)


def test_archives_that_mean_harm(tmp_path):
    def archive(name, member, data=b"x", attr=0):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as z:
            info = zipfile.ZipInfo(member)
            info.external_attr = attr
            z.writestr(info, data)
        return tmp_path / name

    home = tmp_path / "home"
    home.mkdir()
    for member in ("../out.txt", "/etc/out.txt", "a/../../out.txt", "..\\out.txt", "c:/out.txt"):
        with pytest.raises(InputError, match="leads out of its folder"):
            unpack(archive("a.zip", member), home)
    with pytest.raises(InputError, match="leads out"):
        unpack(archive("a.zip", "link", b"/etc/passwd", 0o120777 << 16), home)
    with pytest.raises(InputError, match="would unpack to 1 files and 0.1 GB"):
        unpack(archive("a.zip", "big", bytes(10**8)), home, most=10**7)
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 nothing")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "bad.zip", home)
    assert list(home.iterdir()) == [] and not (tmp_path / "out.txt").exists()
    unpack(archive("a.zip", "in/side.txt"), home)
    assert (home / "in/side.txt").read_bytes() == b"x" and [p.name for p in home.iterdir()] == ["in"]


def test_commands_take_datasets(own):
    from click.testing import CliRunner

    from rsssl_nb.cli import main
    from rsssl_nb.cli.training import training_images

    toml(own, 'images = "img"\nlabels = "lab"\nsplit.test = ["s2"]')
    used, plain = training_images([own, own / "img"])
    assert (
        used.path == own / "img/s1.tif" and plain == own / "img"
    )  # of a dataset the training scene, of a folder the folder
    run = lambda *args: CliRunner().invoke(main, [str(a) for a in args])
    small = "--size 32 --epochs 1 --batch 8 --width 8 --device cpu".split()
    result = run("pretrain", own / "dataset.toml", "--samples", 16, *small, "--out", own / "pre")
    assert result.exit_code == 0, result.output
    result = run("finetune", own / "pre", "--images", own, "--fraction", 1, *small, "--out", own / "seg")
    assert result.exit_code == 0 and "segmenter.safetensors" in result.output, result.output
    result = run(
        "finetune", own / "pre", "--images", own / "img", "--fraction", 1, *small, "--out", own / "no"
    )
    assert result.exit_code == 2 and "no labelled training scene" in result.stderr
