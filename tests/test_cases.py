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
