"Labels by number, colour and palette; what does not fit is refused in one sentence."

import csv
import json

import numpy as np
import pytest
import rasterio
from odd_rasters import CLASSES, PLACE, noise, says
from PIL import Image

from rsssl_nb.data.labels import Classes, find_classes, pair_labels, read_classes, read_labels
from rsssl_nb.data.legend import classes_of, seen_classes
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.write import write_raster
from rsssl_nb.errors import InputError
from rsssl_nb.mapping.categories import write_categories
from rsssl_nb.notebook import Note
from rsssl_nb.training.labelled import LabelRaster, open_pairs


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


# --- labels without a list of classes (page `data/legend`)


def xml(names):
    "GDAL's file of category names."
    rows = "".join(f"<Category>{name}</Category>" for name in names)
    band = f"<PAMRasterBand band='1'><CategoryNames>{rows}</CategoryNames></PAMRasterBand>"
    return f"<PAMDataset>{band}</PAMDataset>"


def test_values_in_use_are_the_classes_and_are_told(tmp_path):
    array = np.array([[[1, 3, 3], [7, 255, 1]]], np.uint8)
    path = write_raster(tmp_path / "l/a.tif", array)
    write_raster(tmp_path / "l/b.tif", array * 0 + 9)
    with pytest.warns(
        Note, match=r"4 values are the classes \(class 1, class 3, class 7, class 9\); 255 is no"
    ) as told:
        found = classes_of(tmp_path / "l")
    assert len(told) == 1 and str(tmp_path / "l/classes.json") in str(told[0].message)
    assert found.values == (1, 3, 7, 9) and found.colors == () and found.ignore_index == 255
    np.testing.assert_array_equal(read_labels(path, found), [[0, 1, 1], [2, 255, 0]])
    (tmp_path / "l/classes.json").write_text('{"classes": ["a", "b"]}')
    assert classes_of(tmp_path / "l").names == ("a", "b")  # a list is believed
    assert classes_of(tmp_path / "l").values == (0, 1)


def test_a_mask_of_0_and_255_has_two_classes(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.array([[[0, 255], [255, 0]]], np.uint8))
    np.testing.assert_array_equal(read_labels(path, seen_classes([path])), [[0, 1], [1, 0]])


def test_declared_nodata_is_no_class(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.array([[[0, 1, 2]]], np.uint8), nodata=0)
    assert seen_classes([path]).values == (1, 2)


def test_names_come_from_category_names_and_attribute_tables(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.array([[[0, 1, 2, 3]]], np.uint8))
    beside = tmp_path / "a.tif.aux.xml"
    beside.write_text(xml(("", "sea", "land", "land")))
    assert seen_classes([path]).names == ("class 0", "sea", "land (2)", "land (3)")
    write_categories(path, ("sea", "sand", "rock", "wood"))
    assert seen_classes([path]).names == ("sea", "sand", "rock", "wood")
    for broken in (
        "",
        "<a",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        xml("abcd").replace("Category>", "Cat>"),
    ):
        beside.write_text(broken)
        assert seen_classes([path]).names[3] == "class 3"


def palette_png(path, numbers, colours):
    picture = Image.fromarray(np.array(numbers, np.uint8), "P")
    picture.putpalette(np.array(colours, np.uint8).ravel().tolist())
    picture.save(path)
    return path


def test_a_palette_gives_colours_and_two_palettes_are_colours(tmp_path):
    red, blue, green = (255, 0, 0), (0, 0, 255), (0, 255, 0)
    a = palette_png(tmp_path / "a.png", [[0, 1]], [red, blue])
    found = seen_classes([a])
    assert found.names == ("class 0", "class 1") and found.colors == ("#ff0000", "#0000ff")
    b = palette_png(tmp_path / "b.png", [[0, 1]], [blue, green])
    found = seen_classes([a, b])
    assert found.names == ("#0000ff", "#00ff00", "#ff0000")
    np.testing.assert_array_equal(read_labels(a, found), [[2, 0]])
    np.testing.assert_array_equal(read_labels(b, found), [[0, 1]])


def test_a_palette_is_judged_by_all_pixels_of_a_file_at_once(tmp_path):
    values = np.ones((2049, 2048), np.uint8)  # more than the rows that are read at once
    values[:100] = 0
    values[-1, 1024:] = 2
    about = dict(driver="GTiff", width=2048, height=2049, count=1, dtype="uint8", nodata=0)
    about |= dict(crs=PLACE[0], transform=rasterio.Affine(*PLACE[1]))
    with rasterio.open(tmp_path / "l.tif", "w", **about) as file:
        file.write_colormap(1, {0: (0, 0, 0), 1: (0, 255, 0), 2: (255, 0, 0)})
        file.write(values, 1)
    classes = Classes(("A", "B"), ("#ff0000", "#00ff00"), 0, (1, 2))
    labels = read_labels(tmp_path / "l.tif", classes)
    assert (labels == np.array([255, 1, 0], np.uint8)[values]).all()
    assert (labels == LabelRaster(tmp_path / "l.tif", classes).read(0, 0, 2048, 2049)).all()


def test_colours_in_use_are_the_classes(tmp_path):
    table = np.array([(0, 0, 255), (128, 128, 128), (0, 255, 0)], np.uint8)
    numbers = np.random.default_rng(0).integers(0, 3, (30, 40))
    Image.fromarray(table[numbers]).save(tmp_path / "a.png")
    found = seen_classes([tmp_path / "a.png"])
    assert found.names == found.colors == ("#0000ff", "#00ff00", "#808080")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", found), np.array([0, 2, 1])[numbers])


def test_what_cannot_be_classes_is_refused(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (3, 20, 20)).astype(np.uint8)
    for name, array, words in (
        ("heights", np.linspace(0, 1, 9, dtype=np.float32).reshape(1, 3, 3), ["0.125", "measurements"]),
        (
            "counts",
            np.arange(100, dtype=np.int16).reshape(1, 10, 10),
            ["more than 64 values", "classes.json"],
        ),
        ("photo", photo, ["more than 32 colours", "JPEG"]),
        ("deep", photo.astype(np.uint16), ["3 bands of uint16"]),
        ("two", photo[:2], ["2 bands"]),
        ("empty", np.full((1, 2, 2), 255, np.uint8), ["no labelled pixel"]),
    ):
        with says(f"{name}.tif", *words):
            seen_classes([write_raster(tmp_path / f"{name}.tif", array)])
    with says("of one kind"):
        seen_classes(
            [
                write_raster(tmp_path / "n.tif", photo[:1] % 4),
                write_raster(tmp_path / "c.tif", photo // 200 * 9),
            ]
        )


def test_arrays_without_a_list_of_classes_are_named_by_number():
    rng = np.random.default_rng(0)
    image, told = rng.integers(1, 255, (3, 64, 64), np.uint8), rng.integers(0, 3, (64, 64), np.uint8)
    assert open_pairs([image], [told])[1].names == ["class 0", "class 1", "class 2"]
    with pytest.raises(InputError, match="give class numbers from 0, or classes"):
        open_pairs([image], [np.full_like(told, 255)])
