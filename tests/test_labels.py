"Labels by number, colour and palette; what does not fit is refused in one sentence."

import csv
import json

import numpy as np
import rasterio
from odd_rasters import CLASSES, PLACE, noise, says
from PIL import Image

from rsssl_nb.data.labels import Classes, find_classes, pair_labels, read_classes, read_labels
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.write import write_raster


def test_index_colour_and_palette_labels_agree(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (40, 50)).astype(np.uint8)
    table = np.array([(0, 0, 255), (128, 128, 128), (0, 255, 0)], np.uint8)
    Image.fromarray(labels).save(tmp_path / "index.png")
    Image.fromarray(table[labels]).save(tmp_path / "colour.png")
    other = Image.fromarray((labels + 7).astype(np.uint8), "P")  # numbers 7..9, but the right colours
    other.putpalette([0] * 21 + table.ravel().tolist())
    other.save(tmp_path / "palette.png")
    write_raster(tmp_path / "colour.tif", table[labels].transpose(2, 0, 1), *PLACE)
    for name in ("index.png", "colour.png", "palette.png", "colour.tif"):
        np.testing.assert_array_equal(read_labels(tmp_path / name, CLASSES), labels)
    np.testing.assert_array_equal(read_labels(table[labels].transpose(2, 0, 1), CLASSES), labels)
    np.testing.assert_array_equal(read_labels(labels.astype(np.int64), CLASSES), labels)


def test_nothing_counts_where_it_should_not(tmp_path):
    labels = np.array([[1, 2, 0], [9, 200, 2]])
    loveda = Classes(("a", "b"), ignore_index=0, values=(1, 2))
    np.testing.assert_array_equal(read_labels(labels[:1], loveda), [[0, 1, 255]])
    path = write_raster(tmp_path / "l.tif", np.array([[[1, 0, 7]]], np.uint8), nodata=7)
    np.testing.assert_array_equal(read_labels(path, CLASSES), [[1, 0, 255]])
    grey = np.array([[[0x9B, 0]], [[0x9B, 0]], [[0x9B, 255]]], np.uint8)
    np.testing.assert_array_equal(
        read_labels(grey, Classes(CLASSES.names, CLASSES.colors, ignored=("#9B9B9B",))), [[255, 0]]
    )


def test_labels_that_do_not_fit(tmp_path):
    image = open_raster(write_raster(tmp_path / "image.tif", noise(3, 40, 50), *PLACE))
    labels = noise(1, 40, 50) % 3

    def file(name, array=labels, crs=PLACE[0], transform=PLACE[1]):
        return write_raster(tmp_path / name, array, crs, transform)

    assert read_labels(file("good.tif"), CLASSES, image).shape == (40, 50)
    assert read_labels(file("wkt.tif", crs=rasterio.CRS.from_epsg(32633).to_wkt()), CLASSES, image).shape == (
        40,
        50,
    )
    assert read_labels(file("bare.tif", crs=None, transform=None), CLASSES, image).shape == (40, 50)
    with says("small.tif is 49 x 40", "image.tif is 50 x 40"):
        read_labels(file("small.tif", labels[:, :, :49]), CLASSES, image)
    with says("crs.tif is in EPSG:4326", "image.tif in EPSG:32633"):
        read_labels(file("crs.tif", crs="EPSG:4326"), CLASSES, image)
    with says("off.tif lies 2 pixels off", "image.tif"):
        read_labels(file("off.tif", transform=(0.5, 0, 400001, 0, -0.5, 5800000)), CLASSES, image)
    strange = labels.copy()
    strange[0, :10] = 77
    with says("25 % of", "strange.tif", "value 77", "3 classes"):
        read_labels(file("strange.tif", strange), CLASSES, image)
    colours = np.zeros((3, 40, 50), np.uint8)
    colours[2] = 255
    colours[0, :, :5] = 0x12
    with says("10 % of", "#1200FF"):
        read_labels(colours, CLASSES, image)
    with says("no colours"):
        read_labels(colours, Classes(CLASSES.names))
    with says("2 bands"):
        read_labels(noise(2, 40, 50), CLASSES)


def test_classes_are_found_and_checked(tmp_path):
    folder = tmp_path / "set/train/labels"
    path = write_raster(folder / "a.tif", noise(1, 9, 9) % 3)
    with says("classes.json", "--classes"):
        find_classes(folder)
    text = json.dumps(
        dict(
            ignore_index=9,
            classes=[dict(index=1, name="b", rgb=[1, 2, 3]), dict(index=0, name="a", hex="#0A0B0C")],
        )
    )
    (tmp_path / "set/classes.json").write_text(text)
    assert find_classes(folder).samefile(tmp_path / "set/classes.json") and find_classes(path).samefile(
        tmp_path / "set/classes.json"
    )
    found = read_classes(find_classes(folder))
    assert (found.names, found.colors, found.ignore_index, found.values) == (
        ("a", "b"),
        ("#0a0b0c", "#010203"),
        9,
        (0, 1),
    )
    for bad in (
        "",
        "[]",
        "{}",
        '{"classes": []}',
        text.replace('"index": 1', '"index": 0'),
        text.replace("#0A0B0C", "blue"),
        text.replace(', "hex": "#0A0B0C"', ""),
    ):
        (tmp_path / "bad.json").write_text(bad)
        with says("bad.json"):
            read_classes(tmp_path / "bad.json")
    with says("does not exist"):
        read_classes(tmp_path / "none.json")
    with says("carries no class names"):
        read_classes(path)


def test_pairs_by_stem(tmp_path):
    for name in ("i/a.jpg", "i/b.jpg", "i/c.jpg", "l/b.png", "l/a.png", "x/z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [(a.name, b.name) for a, b in pair_labels(tmp_path / "i", tmp_path / "l")] == [
        ("a.jpg", "a.png"),
        ("b.jpg", "b.png"),
    ]
    assert len(pair_labels(tmp_path / "i/a.jpg", tmp_path / "x/z.png")) == 1
    with says("same stem", "z.png"):
        pair_labels(tmp_path / "i", tmp_path / "x")
    (tmp_path / "l/a.tif").write_bytes(b"")
    with says("a.tif", "a.png"):
        pair_labels(tmp_path / "i", tmp_path / "l")


def test_dubai_labels_are_read_as_described(imagery):
    dubai = imagery / "dubai"
    pairs = pair_labels(dubai / "val/images", dubai / "val/labels")
    classes = read_classes(find_classes(dubai / "val/labels"))
    rows = {r["id"]: r for r in csv.DictReader((dubai / "parts.csv").read_text().splitlines())}
    assert len(pairs) == 9 and classes.names == ("building", "land_unpaved", "road", "vegetation", "water")
    for image, label in pairs:
        counts = np.bincount(read_labels(label, classes, open_raster(image)).ravel(), minlength=256)
        row = rows[image.stem]
        assert [int(row[f"px_{n}"]) for n in classes.names] == counts[:5].tolist() and int(
            row["px_ignore"]
        ) == counts[255]
