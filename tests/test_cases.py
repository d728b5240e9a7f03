"""Faults that people reported, rebuilt small: each is a kind, and each test asks for the right value."""

import errno
import json
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from odd_rasters import says

from rsssl_nb.cli import main
from rsssl_nb.data.labels import Classes, read_classes, read_labels
from rsssl_nb.data.raster import open_raster
from rsssl_nb.evaluation.scores import score_rasters
from rsssl_nb.training.labelled import LabelRaster

COLOURS = np.array([[30, 60, 140], [60, 150, 60], [190, 170, 160]], float)
NAMES = ("water", "grass", "roof")
PLACE = rasterio.transform.from_origin(500000, 5200000, 0.5, 0.5)


def land(seed=0, size=128):
    "Labels (size, size) of three classes in blocks of 32 pixels."
    blocks = np.random.default_rng(seed).integers(0, 3, (size // 32, size // 32))
    blocks.flat[:3] = (0, 1, 2)
    return np.kron(blocks, np.ones((32, 32))).astype(np.uint8)


def paint(labels, top=255, dtype="uint8", order=(0, 1, 2)):
    "Three bands that show the labels, from 0 to `top`."
    noise = np.random.default_rng(99).normal(0, 8, (3, *labels.shape))
    bands = np.clip(COLOURS[labels].transpose(2, 0, 1) + noise, 1, 254) / 255 * top
    return bands.astype(dtype)[list(order)]


def put(path, array, crs="EPSG:32633", transform=PLACE, names=(), tags=None, **profile):
    "A GeoTIFF as rasterio writes it; the path."
    array = array if array.ndim == 3 else array[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = dict(count=len(array), height=array.shape[1], width=array.shape[2], dtype=array.dtype)
    if transform is not None:
        shape["transform"] = transform
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="GTiff", crs=crs, **shape, **profile) as file:
            file.write(array)
            file.update_tags(**(tags or {}))
            for i, name in enumerate(names, 1):
                file.set_band_description(i, name)
    return path


def classes_file(path, first=0, ignore=255, names=NAMES):
    rows = [dict(index=i + first, name=name, rgb=COLOURS[i].tolist()) for i, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(ignore_index=ignore, classes=rows)))
    return path


def a_map(path, labels, names=NAMES):
    "What `rsssl-nb map` writes: class numbers, the names inside, 255 as nodata."
    return put(path, labels, nodata=255, tags=dict(CLASSES=json.dumps(list(names))))


def run(*args, code=0):
    "The output of a command, which must end with this code and without a traceback."
    found = CliRunner().invoke(main, [str(arg) for arg in args])
    assert found.exit_code == code, f"{found.output}\n{found.exception!r}"
    return found.output


# --- A: file codes and class numbers


@pytest.mark.parametrize("given", [True, False])
def test_a_perfect_map_of_labels_from_one_scores_one(tmp_path, given):
    y = land(1)
    truth = y + 1
    truth[:32, :32] = 0
    chosen = classes_file(tmp_path / "labels/classes.json", first=1, ignore=0)
    put(tmp_path / "labels/a.tif", truth)
    a_map(tmp_path / "map.tif", y)
    found = score_rasters(
        tmp_path / "map.tif", tmp_path / "labels/a.tif", read_classes(chosen) if given else None
    )
    assert found["oa"] == 1.0 and found["miou"] == 1.0
    assert found["ignored"] == 32 * 32
    extra = ["--classes", chosen] if given else []
    assert "OA 1.000" in run("score", tmp_path / "map.tif", tmp_path / "labels/a.tif", *extra)


def test_a_place_without_one_class_is_scored_by_names(tmp_path):
    y = np.where(land(1) == 2, 1, land(1)).astype(np.uint8)
    classes_file(tmp_path / "labels/classes.json", first=1, ignore=0)
    found = score_rasters(a_map(tmp_path / "map.tif", y), put(tmp_path / "labels/a.tif", y + 1))
    assert found["oa"] == 1.0 and list(found["iou"]) == list(NAMES)


def test_a_map_in_another_order_is_scored_by_names(tmp_path):
    y = land(2)
    classes_file(tmp_path / "labels/classes.json")
    turned = a_map(tmp_path / "map.tif", 2 - y, names=("Roof", "GRASS ", "water"))
    assert score_rasters(turned, put(tmp_path / "labels/a.tif", y))["oa"] == 1.0


def test_a_class_that_only_the_map_knows_is_wrong_and_foreign_names_are_refused(tmp_path):
    y = land(3)
    classes_file(tmp_path / "labels/classes.json", names=NAMES[:2])
    truth = put(tmp_path / "labels/a.tif", np.minimum(y, 1))
    with pytest.warns(UserWarning, match="knows roof"):
        found = score_rasters(a_map(tmp_path / "map.tif", y), truth)
    assert found["oa"] == pytest.approx((y < 2).mean())
    with says("no name is the same", "--classes"):
        score_rasters(a_map(tmp_path / "other.tif", y, names=("a", "b", "c")), truth)


# --- B: declared nodata over a listed class


@pytest.fixture
def hidden(tmp_path):
    "Labels whose declared nodata is class 0."
    y = land(2)
    put(tmp_path / "images/a.tif", paint(y))
    put(tmp_path / "labels/a.tif", (y == 2).astype(np.uint8), nodata=0)
    classes_file(tmp_path / "labels/classes.json", names=("background", "building"))
    return tmp_path


def test_nodata_over_a_class_is_named_with_its_share(hidden):
    share = f"{100 * (land(2) != 2).mean():.3g} %"
    words = (share, "declared nodata", "'background'", "unsetnodata")
    chosen = read_classes(hidden / "labels/classes.json")
    with says(*words):
        LabelRaster(hidden / "labels/a.tif", chosen)
    with says(*words):
        read_labels(hidden / "labels/a.tif", chosen)
    with says(*words):
        score_rasters(
            a_map(hidden / "map.tif", land(2) // 2, names=("background", "building")), hidden / "labels/a.tif"
        )


def test_nodata_over_a_class_is_named_by_check_and_finetune(hidden):
    assert "declared nodata" in run("check", hidden, code=2)
    command = ("finetune", "random", "--images", hidden / "images", "--labels", hidden / "labels")
    assert "declared nodata" in run(*command, "--fraction", 1, "--out", hidden / "seg", code=2)
    assert not (hidden / "seg").exists()


@pytest.mark.parametrize("nodata", [255, 7])
def test_nodata_that_is_no_class_is_no_label(tmp_path, nodata):
    y = land(2)
    y[:32] = nodata
    found = read_labels(put(tmp_path / "a.tif", y, nodata=nodata), Classes(NAMES))
    assert (found[:32] == 255).all() and (found[32:] == y[32:]).all()


def test_nodata_declared_and_not_used_hides_nothing(tmp_path):
    y = np.maximum(land(2), 1)
    assert (read_labels(put(tmp_path / "a.tif", y, nodata=0), Classes(NAMES)) == y).all()


# --- G: sidecars go with the file they belong to


@pytest.mark.parametrize("ending", [".aux.xml", ".ovr", ".msk"])
def test_sidecars_of_an_overwritten_file_go_with_it(tmp_path, ending):
    from rsssl_nb.data.write import write_raster

    beside = tmp_path / f"a.tif{ending}"
    write_raster(tmp_path / "a.tif", land())
    beside.write_bytes(b"of the first")
    write_raster(tmp_path / "a.tif", land(1))
    assert not beside.exists()
    beside.write_bytes(b"of a file that stays")
    with pytest.raises(ValueError, match="colour"):
        write_raster(tmp_path / "a.tif", land(2), colors=["no colour"])
    assert beside.exists()


# --- J: each error has its own cause


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_is_a_warning(tmp_path, monkeypatch, code):
    import fcntl

    from rsssl_nb.training.folder import locked

    def lockf(*_):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.warns(UserWarning, match="without locks"), locked(tmp_path / "run") as folder:
        assert folder.is_dir()


def test_a_folder_in_use_is_refused(tmp_path, monkeypatch):
    import fcntl

    from rsssl_nb.training.folder import locked

    def lockf(*_):
        raise OSError(errno.EAGAIN, "taken")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with says("another process"), locked(tmp_path / "run"):
        pass


# --- L: what people write


def test_files_with_a_byte_order_mark_are_read(tmp_path):
    from rsssl_nb.data.datasets import open_toml

    bom = b"\xef\xbb\xbf"
    y = land(9)
    put(tmp_path / "images/a.tif", paint(y))
    path = classes_file(tmp_path / "labels/classes.json")
    path.write_bytes(bom + path.read_bytes())
    assert read_classes(path).names == NAMES
    polygons(tmp_path / "p.geojson", ["water", "grass"], bom)
    (tmp_path / "d.toml").write_bytes(
        bom + b'images = "images"\nlabels = "p.geojson"\n[classes]\nwater = "#1e3c8c"\ngrass = "#3c963c"\n'
    )
    data = open_toml(tmp_path / "d.toml")
    assert set(np.unique(data.labels(data.scenes[0]))) == {0, 1, 255}
    assert "0 faults" in run("check", tmp_path / "d.toml")


def polygons(path, values, start=b""):
    "Two squares of 30 m in GeoJSON with a class each."
    rows = []
    for i, value in enumerate(values):
        x, y = 500000 + 30 * i, 5200000
        ring = [[x, y], [x + 30, y], [x + 30, y - 30], [x, y - 30], [x, y]]
        geometry = dict(type="Polygon", coordinates=[ring])
        rows.append(dict(type="Feature", properties={"class": value}, geometry=geometry))
    crs = dict(type="name", properties=dict(name="urn:ogc:def:crs:EPSG::32633"))
    path.write_bytes(start + json.dumps(dict(type="FeatureCollection", crs=crs, features=rows)).encode())
    return path


@pytest.mark.parametrize("values", [(0.0, 1.0), ("0.0", "1.0"), (0, 1), ("0", " 1 "), ("water", "grass")])
def test_a_class_may_be_written_as_a_decimal_number(tmp_path, values):
    from rsssl_nb.data.shapes import polygon_labels

    raster = open_raster(put(tmp_path / "a.tif", paint(land())))
    found = polygon_labels(polygons(tmp_path / "p.geojson", values), Classes(NAMES), raster)
    assert found[0, 0] == 0 and found[0, 100] == 1


@pytest.mark.parametrize("crs", ["EPSG:32633+5773", "EPSG:32633+5782", "EPSG:32633"])
def test_heights_beside_a_crs_are_no_other_place(tmp_path, crs):
    y = land()
    image = open_raster(put(tmp_path / "a.tif", paint(y), crs=crs))
    read_labels(put(tmp_path / "b.tif", y), Classes(NAMES), image)
    with says("is in EPSG:32632 and", "WGS 84" if "+" in crs else "EPSG:32633") as _:
        read_labels(put(tmp_path / "c.tif", y, crs="EPSG:32632"), Classes(NAMES), image)


@pytest.mark.parametrize("name", ["Köln", "São Paulo", "Ål"])
def test_names_of_two_spellings_are_paired(tmp_path, name):
    from rsssl_nb.data.labels import pair_labels

    y = land()
    put(tmp_path / "images" / f"{unicodedata.normalize('NFD', name)}.tif", paint(y))
    put(tmp_path / "labels" / f"{unicodedata.normalize('NFC', name)}.tif", y)
    assert len(pair_labels(tmp_path / "images", tmp_path / "labels")) == 1


def test_linked_folders_are_searched_once(tmp_path):
    from rsssl_nb.data.gdal import find_rasters

    put(tmp_path / "disk/deep/a.tif", paint(land()))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/link").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "disk/deep/round").symlink_to(tmp_path / "images", target_is_directory=True)
    assert [path.name for path in find_rasters(tmp_path / "images")] == ["a.tif"]
    assert isinstance(find_rasters(tmp_path / "images")[0], Path)


# --- E: impossible values


def elevation(value, dtype="float32"):
    x = np.random.default_rng(0).normal(400, 30, (1, 128, 128)).astype(dtype)
    x[:, :, :50] = value
    return x


@pytest.mark.parametrize("value", [np.finfo("float32").min, -3.4e38, 3.4028235e38, 1e31, np.inf, np.nan])
def test_values_beyond_any_measurement_are_nodata(tmp_path, value):
    from rsssl_nb.data.pool import Pool

    path = put(tmp_path / "dem.tif", elevation(value), nodata=-3.4e38)
    pool = Pool(path, size=32)
    mean, std = pool.statistics()
    assert abs(mean[0] - 400) < 5 and std[0] < 60
    assert open_raster(path).valid(0, 0, 128, 128).sum() == 78 * 128
    assert "0 faults" in run("check", path.parent)


@pytest.mark.parametrize(
    "value, dtype",
    [(-9999, "float32"), (-9999, "int16"), (-32768, "int16"), (1e20, "float32"), (65535, "uint16")],
)
def test_a_repeated_extreme_is_named_by_check(tmp_path, value, dtype):
    put(tmp_path / "dem.tif", elevation(value, dtype))
    assert f"holds {value:g} in 6400 pixels" in run("check", tmp_path, code=2)
    put(tmp_path / "dem.tif", elevation(value, dtype), nodata=value)
    assert "0 faults" in run("check", tmp_path)


def test_an_assumed_nodata_value_is_one(tmp_path):
    from rsssl_nb.data.nodata import assumed_nodata

    path = put(tmp_path / "dem.tif", elevation(-9999))
    assert open_raster(path).valid(0, 0, 128, 128).all()
    with assumed_nodata(-9999):
        raster = open_raster(path)
        labels = open_raster(path, labels=True)
    assert raster.valid(0, 0, 128, 128).sum() == 78 * 128 and labels.nodata is None
    with assumed_nodata(-9999), says("uint8", "-9999", "--nodata"):
        open_raster(put(tmp_path / "b.tif", paint(land())))


# --- D: the passport is compared


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    "A small segmenter fine-tuned on one place, and that place."
    from rsssl_nb.training.finetune import finetune

    folder = tmp_path_factory.mktemp("learnt")
    y = land(5)
    rgb = ("red", "green", "blue")
    put(folder / "images/a.tif", paint(y), names=rgb)
    put(folder / "labels/a.tif", y + 1, nodata=255)
    classes_file(folder / "labels/classes.json", first=1, ignore=0)
    where = (folder / "images", folder / "labels", folder / "seg")
    shape = dict(fraction=1.0, width=8, steps=2, batch=2, size=64, device="cpu", progress=False)
    finetune("random", *where, **shape)
    put(folder / "bgr.tif", paint(y, order=(2, 1, 0)), names=rgb[::-1])
    put(folder / "u16.tif", paint(y, top=10000, dtype="uint16"), names=rgb)
    put(folder / "f01.tif", paint(y, top=1, dtype="float32"), names=rgb)
    coarse = rasterio.transform.from_origin(500000, 5200000, 5, 5)
    put(folder / "5m.tif", paint(y), names=rgb, transform=coarse)
    turned = rasterio.Affine(3, -4, 500000, -4, -3, 5200000)
    put(folder / "turned5m.tif", paint(y), names=rgb, transform=turned)
    turned = rasterio.Affine(0.3, -0.4, 500000, -0.4, -0.3, 5200000)
    put(folder / "same_turned.tif", paint(y), names=rgb, transform=turned)
    return folder


NOTES = {
    "images/a": [],
    "same_turned": [],
    "bgr": ["its bands are blue, green, red"],
    "u16": ["it holds uint16", "its band 1 has mean"],
    "f01": ["it holds float32", "its band 1 has mean"],
    "5m": ["its pixels are 5 m wide"],
    "turned5m": ["its pixels are 5 m wide"],
}


@pytest.mark.parametrize("name", NOTES)
def test_a_map_of_other_images_says_what_differs(learnt, tmp_path, name):
    from rsssl_nb.mapping.models import open_model
    from rsssl_nb.mapping.segment import segment

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        segment(
            open_model(learnt / "seg"), learnt / f"{name}.tif", tmp_path / "map.tif", size=64, device="cpu"
        )
    said = [str(w.message) for w in said if f"{name}.tif: " in str(w.message)]
    assert len(said) == len(NOTES[name]), said
    assert all(any(note in text for text in said) for note in NOTES[name]), said


def test_a_map_remembers_how_its_labels_were_written(learnt, tmp_path):
    from rsssl_nb.mapping.models import open_model
    from rsssl_nb.mapping.segment import segment

    model = open_model(learnt / "seg")
    assert model.coding == dict(values=[1, 2, 3], ignore_index=0)
    segment(model, learnt / "images/a.tif", tmp_path / "map.tif", size=64, device="cpu")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert json.loads(file.tags()["LABEL_CODING"]) == model.coding
    found = score_rasters(tmp_path / "map.tif", learnt / "labels/a.tif")
    assert found["pixels"] == 128 * 128 and found["oa"] > 0


@pytest.mark.parametrize("offset", [-0.1, -0.05, 0.0])
def test_scale_and_offset_tags_are_honoured(tmp_path, offset):
    from rsssl_nb.data.passport import like_training, raster_passport
    from rsssl_nb.data.pool import Pool

    r = paint(land(), top=3000, dtype="uint16")
    paths = []
    for name, o in (("old", 0.0), ("new", offset)):
        paths.append(put(tmp_path / f"{name}.tif", r + np.uint16(round(-o * 1e4))))
        with rasterio.open(paths[-1], "r+") as file:
            file.scales, file.offsets = [1e-4] * 3, [o] * 3
    old, new = map(open_raster, paths)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (alike,) = like_training([new], dict(images=raster_passport(old)))
        pool = Pool(paths, size=64)
    assert len(said) == 2 * (offset != 0)
    assert np.allclose(alike.read(0, 0, 128, 128), r, atol=0.01)
    assert np.allclose(*(raster.read(0, 0, 64, 64) for raster in pool.rasters), atol=0.01)


def test_scale_tags_on_one_side_are_named(tmp_path):
    from rsssl_nb.data.passport import like_training, raster_passport

    r = paint(land(), top=3000, dtype="uint16")
    plain, tagged = open_raster(put(tmp_path / "a.tif", r)), put(tmp_path / "b.tif", r)
    with rasterio.open(tagged, "r+") as file:
        file.scales, file.offsets = [1e-4] * 3, [-0.1] * 3
    with pytest.warns(UserWarning, match="taken as they are"):
        (found,) = like_training([open_raster(tagged)], dict(images=raster_passport(plain)))
    assert np.array_equal(found.read(0, 0, 128, 128), r)


# --- F: more in the file than is read


def test_pages_of_a_file_are_named(tmp_path):
    put(tmp_path / "a.tif", land())
    with pytest.warns(UserWarning, match="has 3 pages") as said:
        put_pages(tmp_path / "a.tif", 3)
        open_raster(tmp_path / "a.tif")
    assert "gdalbuildvrt" in str(said[0].message)
    assert "has 3 pages" in run("check", tmp_path)


def put_pages(path, n):
    import rasterio.shutil

    for i in range(n):
        extra = dict(append_subdataset="YES") if i else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = put(path.with_name("one.tiff"), land(i), crs=None, transform=None)
            rasterio.shutil.copy(one, path, driver="GTiff", **extra)
            one.unlink()


def test_colours_of_a_palette_picture_are_read_and_its_labels_are_numbers(tmp_path):
    y = land()
    path = put(tmp_path / "a.tif", y)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {i: (*COLOURS[i].astype(int).tolist(), 255) for i in range(3)})
    raster = open_raster(path)
    assert raster.bands == 3 and raster.band_names == ("red", "green", "blue")
    assert np.array_equal(raster.read(0, 0, 128, 128), COLOURS[y].transpose(2, 0, 1))
    assert np.array_equal(read_labels(path, Classes(NAMES)), y)
    assert open_raster(a_map(tmp_path / "map.tif", y)).bands == 1


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_a_turned_photograph_is_named(tmp_path, turn):
    from PIL import Image

    picture = Image.fromarray(paint(land()).transpose(1, 2, 0))
    exif = picture.getexif()
    exif[274] = turn
    picture.save(tmp_path / "a.jpg", exif=exif)
    with pytest.warns(UserWarning, match=f"EXIF orientation {turn}"):
        open_raster(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_ground_control_points_go_into_the_map(learnt, tmp_path):
    from rasterio.control import GroundControlPoint as Point

    from rsssl_nb.mapping.models import open_model
    from rsssl_nb.mapping.segment import segment

    path = put(tmp_path / "a.tif", paint(land(5)), crs=None, transform=None, names=("red", "green", "blue"))
    points = [
        Point(r, c, 500000 + c / 2, 5200000 - r / 2) for r, c in ((0, 0), (0, 128), (128, 0), (128, 128))
    ]
    with rasterio.open(path, "r+") as file:
        file.gcps = points, rasterio.crs.CRS.from_epsg(32633)
    with pytest.warns(UserWarning, match="4 ground control points"):
        segment(open_model(learnt / "seg"), path, tmp_path / "map.tif", size=64, device="cpu")
    with rasterio.open(tmp_path / "map.tif") as file:
        found, crs = file.gcps
    assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]
    assert crs.to_epsg() == 32633


# --- I: metres of a map


@pytest.mark.parametrize("degrees, metres", [(0, 2.0), (45, 1.418), (60, 1.004), (-60, 1.004)])
def test_metres_are_metres_on_the_ground(tmp_path, degrees, metres):
    from rsssl_nb.data.raster import pixel_metres
    from rsssl_nb.data.shapes import length_in_pixels

    y = 6378137 * np.log(np.tan(np.pi / 4 + np.radians(degrees) / 2))
    where = rasterio.transform.from_origin(2000000, y, 2, 2)
    raster = open_raster(put(tmp_path / "tile.tif", paint(land()), crs="EPSG:3857", transform=where))
    assert np.allclose(pixel_metres(raster), metres, rtol=0.005)
    assert np.allclose(length_in_pixels("200m", raster), 200 / metres, rtol=0.005)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:25832", "EPSG:2154"])
def test_metres_of_a_national_grid_are_taken_at_their_word(tmp_path, crs):
    from rsssl_nb.data.raster import pixel_metres

    where = rasterio.transform.from_origin(700000, 6600000 if crs == "EPSG:2154" else 5200000, 0.5, 0.5)
    assert pixel_metres(open_raster(put(tmp_path / "a.tif", paint(land()), crs=crs, transform=where))) == (
        0.5,
        0.5,
    )


# --- C: known before the first step


def test_weights_without_a_method_are_exported_and_learnt_from(tmp_path):
    import torch
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    y = land(23)
    put(tmp_path / "images/a.tif", paint(y))
    put(tmp_path / "labels/a.tif", y)
    classes_file(tmp_path / "labels/classes.json")
    run("export", tmp_path / "resnet18.pth", tmp_path / "out.safetensors")
    data = ("--images", tmp_path / "images", "--labels", tmp_path / "labels", "--fraction", 1)
    length = ("--steps", 1, "--batch", 1, "--size", 64, "--device", "cpu")
    out = run("finetune", tmp_path / "out.safetensors", *data, *length, "--out", tmp_path / "seg")
    assert "wrote" in out and (tmp_path / "seg/segmenter.safetensors").exists()


@pytest.mark.parametrize("command", ["finetune", "pretrain", "map"])
def test_a_disk_without_space_is_known_before_the_first_step(learnt, tmp_path, monkeypatch, command):
    import shutil

    full = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    shape = ("--width", 8, "--steps", 1, "--batch", 2, "--size", 64)
    data = ("--images", learnt / "images", "--labels", learnt / "labels", "--fraction", 1)
    args = dict(
        finetune=("random", *data, *shape, "--out", tmp_path / "out"),
        pretrain=(learnt / "images", *shape, "--samples", 2, "--out", tmp_path / "out"),
        map=(learnt / "seg", learnt / "images/a.tif", tmp_path / "out.tif"),
    )
    assert "MB free" in run(command, *args[command], "--device", "cpu", code=2)


# --- E: one option for every command that reads


def test_every_command_takes_a_nodata_value(learnt, tmp_path):
    place = tmp_path / "images"
    x = paint(land(5)).astype("int16")
    x[:, :40] = -7
    put(place / "a.tif", x, names=("red", "green", "blue"))
    (tmp_path / "labels").mkdir()
    put(tmp_path / "labels/a.tif", land(5))
    classes_file(tmp_path / "labels/classes.json")
    cpu = ("--device", "cpu", "--nodata", -7)
    small = ("--width", 8, "--steps", 1, "--batch", 2, "--size", 32)
    run("pretrain", place, *small, "--samples", 2, "--method", "grass", "--out", tmp_path / "pre", *cpu)
    run("map", learnt / "seg", place / "a.tif", tmp_path / "map.tif", "--size", 64, *cpu)
    run("embed", tmp_path / "pre", place / "a.tif", tmp_path / "pca.tif", "--size", 64, *cpu)
    run("boxes", tmp_path / "pre", place / "a.tif", tmp_path / "boxes.geojson", "--size", 64, *cpu)
    for name in ("map", "pca"):
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            found = file.read(1)
            assert (found[:40] == 255).all() and (found[40:] != 255).all()
    from rsssl_nb.training.folder import read_config

    assert min(read_config(tmp_path / "pre").mean) > 40
    data = ("--images", place, "--labels", tmp_path / "labels", "--fraction", 1)
    run("finetune", "random", *data, *small, "--out", tmp_path / "seg", *cpu)
    assert "nodata           -7" in run("info", place / "a.tif", "--nodata", -7)
    run("check", place, "--nodata", -7)
    run(
        "split", place / "a.tif", tmp_path / "s.geojson", "--block", "64px", "--buffer", "4px", "--nodata", -7
    )
    assert open_raster(place / "a.tif").nodata is None


# --- J: each error has its own sentence


@pytest.mark.parametrize(
    "error, words",
    [
        (UnicodeEncodeError("ascii", "ü", 0, 1, "ordinal not in range(128)"), "PYTHONUTF8"),
        (RuntimeError("InvalidCxxCompiler: No working C++ compiler found in [None]"), "install g++"),
        (ModuleNotFoundError("No module named 'matplotlib_inline'"), "MPLBACKEND"),
    ],
)
def test_a_cause_is_named_for_itself(monkeypatch, error, words):
    from rsssl_nb.cli.shared import sentence

    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert words in sentence(error) and "free space" not in sentence(error)


def test_a_reader_that_has_seen_enough_is_no_error():
    import subprocess
    import sys

    command = f"set -o pipefail; {sys.executable} -m rsssl_nb lessons | head -1"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert found.stderr == "" and found.returncode == 0


def test_a_world_left_in_the_environment_is_named(learnt, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    shape = ("--width", 8, "--steps", 1, "--batch", 2, "--size", 64, "--device", "cpu")
    out = run("pretrain", learnt / "images", *shape, "--samples", 2, "--out", tmp_path / "p", code=2)
    assert "unset WORLD_SIZE" in out
    out = run("map", learnt / "seg", learnt / "images/a.tif", tmp_path / "m.tif", "--device", "cpu", code=2)
    assert "unset WORLD_SIZE" in out and not (tmp_path / "m.tif").exists()


@pytest.mark.parametrize("name", ["labels.geojson", "labels.gpkg"])
def test_polygons_given_as_labels_are_told_where_they_go(learnt, tmp_path, name):
    polygons(tmp_path / name, ["water"])
    classes_file(tmp_path / "classes.json")
    data = ("--images", learnt / "images", "--labels", tmp_path / name, "--fraction", 1)
    assert "dataset.toml" in run("finetune", "random", *data, "--out", tmp_path / "seg", code=2)


def test_a_foreign_proj_is_named(learnt, tmp_path):
    import os
    import shutil
    import sqlite3
    import subprocess
    import sys

    shutil.copy(Path(rasterio.__file__).parent / "proj_data/proj.db", tmp_path / "proj.db")
    with sqlite3.connect(tmp_path / "proj.db") as base:
        base.execute("update metadata set value = '0' where key = 'DATABASE.LAYOUT.VERSION.MINOR'")
    polygons(tmp_path / "p.geojson", ["water", "grass"])
    toml = (
        f'images = "{learnt}/images"\nlabels = "p.geojson"\n[classes]\nwater = "#1e3c8c"\ngrass = "#3c963c"\n'
    )
    (tmp_path / "d.toml").write_text(toml)
    said = subprocess.run(
        [sys.executable, "-m", "rsssl_nb", "check", tmp_path / "d.toml"],
        env={**os.environ, "PROJ_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode == 2 and "PROJ_DATA" in said.stdout + said.stderr, said
    code = "from rsssl_nb.doctor import coordinates, probe; print(probe('coordinates', coordinates, 'unset'))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PROJ_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.stdout.startswith("FAULT"), told


def test_the_doctor_looks_at_coordinates_backend_and_device():
    from rsssl_nb.doctor import backend, computes, coordinates

    assert "EPSG:32633" in coordinates() and backend()
    assert computes("cpu", "a processor").endswith("it computes")


# --- K: what the record says is in force


@pytest.mark.parametrize(
    "name, value",
    [("GRADIENT_ACCUMULATION_STEPS", "4"), ("MIXED_PRECISION", "bf16"), ("DYNAMO_BACKEND", "EAGER")],
)
def test_the_environment_changes_no_recorded_setting(monkeypatch, name, value):
    from rsssl_nb.training.device import start_engine

    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.warns(UserWarning, match=f"ACCELERATE_{name}={value} is passed over"):
        engine = start_engine("cpu", "no", 1)
    assert engine.gradient_accumulation_steps == 1 and engine.mixed_precision == "no"
    assert engine.state.dynamo_plugin.backend.value == "NO"


# --- H: windows among the labelled ones


def test_few_labels_in_a_large_mosaic_are_all_learnt_from(tmp_path):
    from rsssl_nb.training.labelled import labelled_windows, open_pairs

    y = np.full((512, 512), 255, np.uint8)
    y[100:140, 200:300] = land()[:40, :100]
    y[400:420, 400:420] = 1
    put(tmp_path / "images/a.tif", paint(land(0, 512)))
    put(tmp_path / "labels/a.tif", y, nodata=255)
    classes_file(tmp_path / "labels/classes.json")
    pairs, _ = open_pairs(tmp_path / "images", tmp_path / "labels")
    for fraction in (0.1, 0.5, 1.0):
        windows = labelled_windows(pairs, 64, fraction)
        held = [(y[b : b + 64, a : a + 64] != 255).any() for _, a, b in windows]
        assert windows and all(held)


# --- D, E, F: explorers compare, score takes a nodata value, a turned TIFF is named


@pytest.mark.parametrize("name", NOTES)
def test_an_explorer_of_other_images_says_what_differs(learnt, name):
    from rsssl_nb.widgets.ground import open_ground
    from rsssl_nb.widgets.networks import open_for, open_network

    ground = open_ground(learnt / f"{name}.tif")
    for _ in range(2):  # told at every look: the explorer shows it beside the picture
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            opened = open_for(ground, str(learnt / "seg"))
        wanted, said = NOTES[name], [str(w.message) for w in said]
        assert len(said) == len(wanted) and all(any(note in text for text in said) for note in wanted), said
    assert opened[0] is open_network(str(learnt / "seg"), 3)[0]


@pytest.mark.parametrize("dtype, value", [("uint8", 0), ("int16", -7), ("float32", -9999)])
def test_score_takes_the_value_for_no_label(tmp_path, dtype, value):
    y = land(1)
    truth = y.astype(dtype) if value else (y + 1).astype(dtype)
    truth[:32] = value
    path = put(tmp_path / "labels/a.tif", truth)
    classes_file(tmp_path / "labels/classes.json", first=int(not value))
    mapped = a_map(tmp_path / "map.tif", y)
    assert "none of the 3 classes" in run("score", mapped, path, code=2)
    out = run("score", mapped, path, "--nodata", value)
    assert "OA 1.000" in out and f"{32 * 128} ignored" in out
    assert "declared nodata" in run("score", mapped, path, "--nodata", 2, code=2)
    assert "cannot occur" in run("score", mapped, put(tmp_path / "labels/b.tif", y), "--nodata", -5, code=2)


@pytest.mark.parametrize("turn", [3, 6, 8])
@pytest.mark.parametrize("big", [False, True])
def test_a_turned_tiff_is_named(tmp_path, turn, big):
    tifffile = pytest.importorskip("tifffile")
    picture = np.ascontiguousarray(paint(land()).transpose(1, 2, 0))
    tags = [(274, "H", 1, turn, True)]
    tifffile.imwrite(tmp_path / "a.tif", picture, bigtiff=big, photometric="rgb", extratags=tags)
    with pytest.warns(UserWarning, match=f"EXIF orientation {turn}"):
        open_raster(tmp_path / "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_raster(put(tmp_path / "b.tif", paint(land()), bigtiff="YES" if big else "NO"))


def test_an_image_of_other_units_is_standardised_by_its_own_numbers(tmp_path):
    from rsssl_nb.data.passport import at_levels_of, level_difference
    from rsssl_nb.data.scenes import make_scene
    from rsssl_nb.data.write import write_raster
    from rsssl_nb.errors import InputError
    from rsssl_nb.weights import load, shipped

    scene = make_scene(192, seed=3)
    write_raster(tmp_path / "a.tif", scene.image, scene.crs, scene.transform, scene.nodata)
    image = open_raster(tmp_path / "a.tif").read(0, 0, 192, 192) / 1000
    write_raster(tmp_path / "b.tif", image, scene.crs, scene.transform, float("nan"))
    meta = load(shipped("simclr-20")).meta
    raw, other = open_raster(tmp_path / "a.tif"), open_raster(tmp_path / "b.tif")
    assert level_difference(other, meta["mean"], meta["std"])
    near, again = (at_levels_of(r, meta["mean"], meta["std"]) for r in (raw, other))
    assert level_difference(again, meta["mean"], meta["std"]) is None
    assert np.allclose(near.read(9, 9, 64, 64), again.read(9, 9, 64, 64), rtol=1e-3, atol=0.1, equal_nan=True)
    twice = at_levels_of(again, meta["mean"], meta["std"])
    assert np.allclose(twice.read(9, 9, 64, 64), again.read(9, 9, 64, 64), rtol=1e-3, equal_nan=True)
    with pytest.raises(InputError, match="has 4 bands and the network takes 3"):
        at_levels_of(raw, [1, 2, 3], [1, 1, 1])
    made, own = {}, "--own-numbers"
    for name, image, options in (("plain", "a", [own]), ("own", "b", [own]), ("far", "b", [])):
        words = ["embed", "shipped:simclr-20", str(tmp_path / f"{image}.tif"), str(tmp_path / f"{name}.tif")]
        done = CliRunner().invoke(main, [*words, "--size", "128", *options])
        assert done.exit_code == 0, done.output
        assert ("standardised by their own numbers" in done.output) == (name == "far")
        made[name] = open_raster(tmp_path / f"{name}.tif").read(0, 0, 192, 192)
    known = np.isfinite(made["plain"]).all(0)

    def likeness(name):
        return np.corrcoef(made["plain"][:, known].ravel(), made[name][:, known].ravel())[0, 1]

    assert likeness("own") > 0.99 > likeness("far")


# --- c20: what has always been read stays right


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_mixed_bag_of_files_is_read_as_it_was_written(learnt, tmp_path):
    import rasterio.shutil
    from PIL import Image

    def read(path):
        raster = open_raster(path)
        return raster.read(0, 0, raster.width, raster.height)

    y = land(20)
    x = paint(y)
    x[:, :, :32] = 0
    masked = put(tmp_path / "mask/a.tif", x, nodata=0)
    mask = np.full(y.shape, 255, np.uint8)
    mask[:32] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as file:
        file.write_mask(mask)
    assert open_raster(masked).valid(0, 0, 128, 128).sum() == 96 * 96
    bits = put(tmp_path / "bit.tif", (y == 2).astype(np.uint8), nbits=1)
    assert np.array_equal(read_labels(bits, Classes(("other", "roof"))), y == 2)
    floats = put(tmp_path / "float.tif", y.astype("float32"), nodata=-9999)
    assert np.array_equal(read_labels(floats, Classes(NAMES)), y)
    assert np.array_equal(LabelRaster(floats, Classes(NAMES)).read(0, 0, 128, 128), y)
    umlauts = put(tmp_path / "Große Stadt/über sicht.TIF", paint(y), bigtiff="YES")
    assert np.array_equal(read(umlauts), paint(y))
    large = paint(y, top=4095, dtype="uint16")
    assert np.array_equal(read(put(tmp_path / "end.tif", large, endianness="BIG", nbits=12)), large)
    deep = paint(y, top=65535, dtype="uint16")
    rasterio.shutil.copy(
        put(tmp_path / "d.tif", deep, crs=None, transform=None), tmp_path / "d.png", driver="PNG"
    )
    assert np.array_equal(read(tmp_path / "d.png"), deep)
    ink = Image.fromarray(paint(y).transpose(1, 2, 0)).convert("CMYK")
    ink.save(tmp_path / "ink.jpg", quality=100, subsampling=0)
    raster = open_raster(tmp_path / "ink.jpg")
    wanted = paint(y) if raster.bands == 3 else np.asarray(ink).transpose(2, 0, 1)
    assert np.abs(raster.read(0, 0, 128, 128) - wanted).mean() < 3
    up = rasterio.Affine(0.5, 0, 500000, 0, 0.5, 5199936)
    south = put(tmp_path / "south.tif", paint(land(5))[:, ::-1], transform=up, names=("red", "green", "blue"))
    run("map", learnt / "seg", south, tmp_path / "map.tif", "--size", 64, "--device", "cpu")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.transform == up and file.read(1).shape == (128, 128)
    put(tmp_path / "turned_labels.tif", land(5)[::-1] + 1, transform=up, nodata=255)
    classes = classes_file(tmp_path / "classes.json", first=1, ignore=0)
    told = run("score", tmp_path / "map.tif", tmp_path / "turned_labels.tif", "--classes", classes, "--json")
    assert json.loads(told)["pixels"] == 128 * 128
