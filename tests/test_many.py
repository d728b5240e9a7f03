"Folders and lists of rasters, tiles of one grid, bases, vectors and shipped checkpoints by the commands."

import json

import numpy as np
import pytest
import torch
from test_cli import good, refused

from rsssl_nb.data.joined import join_tiles
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.shapes import fitting_block
from rsssl_nb.data.write import write_raster
from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.errors import InputError
from rsssl_nb.mapping.basis import fit_basis
from rsssl_nb.mapping.embed import embed, seam_ratio
from rsssl_nb.mapping.segment import segment
from rsssl_nb.mapping.vectors import write_vectors
from rsssl_nb.weights import load, shipped

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    "A scene of 192 pixels, whole and as four tiles of one grid."
    root = tmp_path_factory.mktemp("tiles")
    scene = make_scene(192, seed=3)
    write_raster(root / "whole.tif", scene.image, scene.crs, scene.transform, scene.nodata)
    a, b, c, d, e, f = scene.transform
    (root / "tiles").mkdir()
    for i, (x, y) in enumerate([(0, 0), (96, 0), (0, 96), (96, 96)]):
        place = (a, b, c + a * x, d, e, f + e * y)
        part = scene.image[:, y : y + 96, x : x + 96]
        write_raster(root / f"tiles/t{i}.tif", part, scene.crs, place, scene.nodata)
    return root


def a_model():
    torch.manual_seed(0)
    model = Segmenter(Encoder("resnet18", 4, 8), 3).eval()
    model.mean.fill_(100.0)
    model.std.fill_(40.0)
    model.classes, model.colors = ["a", "b", "c"], ["#ff0000", "#00ff00", "#0000ff"]
    return model


def test_a_map_of_joined_tiles_is_the_map_of_the_whole(tiles, tmp_path):
    whole = open_raster(tiles / "whole.tif")
    joined = join_tiles([open_raster(p) for p in sorted((tiles / "tiles").iterdir())])
    assert (joined.width, joined.height, joined.crs) == (whole.width, whole.height, whole.crs)
    assert np.array_equal(joined.read(50, 60, 100, 90), whole.read(50, 60, 100, 90), equal_nan=True)
    model = a_model()
    how = dict(size=64, device="cpu")
    assert (segment(model, joined, **how) == segment(model, whole, **how)).all()
    made = open_raster(segment(model, joined, tmp_path / "map.tif", **how), labels=True)
    assert made.crs == whole.crs and np.allclose(made.transform, whole.transform)


def test_overlapping_tiles_and_other_grids(tiles):
    first, second, *_ = (open_raster(p) for p in sorted((tiles / "tiles").iterdir()))
    assert join_tiles([first]) is first
    twice = join_tiles([first, first])
    assert np.array_equal(twice.read(0, 0, 96, 96), first.read(0, 0, 96, 96), equal_nan=True)
    small = twice.read_raw(0, 0, 96, 96, (24, 24))[0]
    assert small.shape == (4, 24, 24)
    for change, why in (
        (dict(crs="EPSG:32633" if "32632" in str(first.crs) else "EPSG:32632"), "another CRS"),
        (dict(transform=tuple(np.multiply(second.transform, (2, 1, 1, 1, 2, 1)))), "another pixel size"),
        (dict(bands=3), "holds 3 bands"),
    ):
        from dataclasses import replace

        with pytest.raises(InputError, match=why):
            join_tiles([first, replace(second, **change)])


def test_embed_takes_folders_lists_and_a_basis(tiles, tmp_path):
    shared = tmp_path / "simclr.basis"
    run_ = ("embed", "shipped:simclr-20")
    said = good(*run_, tiles / "tiles", tmp_path / "each", "--basis", shared, *CPU)
    assert said.count("wrote") == 4 and len(list((tmp_path / "each").glob("*.tif"))) == 4
    good(*run_, tiles / "tiles", tmp_path / "joined.tif", "--basis", shared, *CPU)
    good(*run_, tiles / "whole.tif", tmp_path / "whole.tif", "--basis", shared, *CPU)
    one, other = (open_raster(tmp_path / f"{n}.tif") for n in ("joined", "whole"))
    assert np.array_equal(one.read(0, 0, 192, 192), other.read(0, 0, 192, 192), equal_nan=True)
    other_weights = ("embed", "shipped:false-20", tiles / "whole.tif", tmp_path / "b.tif")
    refused(*other_weights, "--basis", shared, *CPU, says="another weights")
    refused(*run_, tiles / "whole.tif", tmp_path / "c.tif", "--basis", tiles / "whole.tif", says="whole.tif")


def test_mixed_bands_are_grouped_and_named(tiles, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for i, bands in enumerate((4, 3, 4)):
        write_raster(mixed / f"m{i}.tif", np.full((bands, 96, 96), 7, np.uint8))
    refused(
        "embed", "shipped:simclr-20", mixed, tmp_path / "out", *CPU, says="3 bands: m1.tif; 4 bands: m0.tif"
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/t0.tif").write_bytes((tiles / "tiles/t0.tif").read_bytes())
    two = (tiles / "tiles/t0.tif", tmp_path / "other", tmp_path / "out")
    refused("embed", "shipped:simclr-20", *two, *CPU, says="two images would be written to")
    assert not (tmp_path / "out").exists()
    same = [tiles / "tiles/t0.tif", tiles / "tiles"]
    assert good("embed", "shipped:simclr-20", *same, tmp_path / "twice", *CPU).count("wrote") == 4


def test_seams_stay_below_the_eye():
    scene = make_scene(256, seed=2)
    loaded = load(shipped("simclr-20"))
    how = dict(mean=loaded.meta["mean"], std=loaded.meta["std"], size=96, device="cpu")
    apart = embed(loaded.encoder, scene, overlap=0.0, **how)
    blended = embed(loaded.encoder, scene, **how)
    assert seam_ratio(apart, 96, 0.0, scene.valid) > 5
    assert seam_ratio(blended, 96, 0.25, scene.valid) < 1.3
    flat = np.tile(np.arange(256.0), (3, 256, 1))
    assert seam_ratio(flat, 96) == 1.0


def test_a_basis_of_several_rasters_passes_empty_ones_over():
    encoder = load(shipped("simclr-20")).encoder.eval()

    def extract(raw):
        return encoder(torch.nan_to_num(raw / 255)).dense

    empty, full = (
        open_raster(np.full((4, 96, 96), np.nan, np.float32)),
        open_raster(make_scene(128, seed=1)),
    )
    basis = fit_basis(extract, [empty, full], 64)
    assert basis.axes.shape == (128, 3) and (basis.low < basis.high).all()
    assert (basis.axes.abs().amax(0) == basis.axes.amax(0)).all()
    with pytest.raises(InputError, match="nothing to colour"):
        fit_basis(extract, [empty], 64)


def test_vectors_as_rows_and_as_cells(tiles, tmp_path):
    run_ = ("embed", "shipped:simclr-20", tiles / "whole.tif")
    good(*run_, tmp_path / "rows.npy", "--vectors", "--overlap", 0, *CPU)
    rows = np.load(tmp_path / "rows.npy")
    boxes = (tmp_path / "rows.boxes.csv").read_text().splitlines()
    about = json.loads((tmp_path / "rows.json").read_text())
    assert rows.shape == (len(boxes) - 1, 128) and about["crs"] and about["size"] == 64
    x, y, left, bottom, right, top = map(float, boxes[1].split(","))
    whole = open_raster(tiles / "whole.tif")
    assert (x, y, left, top) == (0, 0, whole.transform[2], whole.transform[5])
    assert np.isclose(right - left, 32) and np.isclose(top - bottom, 32)
    good(*run_, tmp_path / "cells.tif", "--vectors", *CPU)
    cells = open_raster(tmp_path / "cells.tif")
    assert (cells.bands, cells.width, cells.height, cells.dtype) == (128, 24, 24, "float32")
    assert cells.crs == whole.crs and cells.transform[0] == 8 * whole.transform[0]
    seen = cells.read(0, 0, 24, 24)
    gaps = ~whole.valid(0, 0, 192, 192).reshape(24, 8, 24, 8).any((1, 3))
    assert (np.isnan(seen).all(0) == gaps).all()
    refused(*run_, tmp_path / "rows.npy", "--vectors", *CPU, says="rows.npy exists")
    refused(*run_, tmp_path / "rows.txt", "--vectors", *CPU, says=".npy, .parquet or .tif")
    good(*run_, tmp_path / "cells.tif", "--vectors", *CPU)  # ours is replaced


@pytest.mark.parametrize("name", ["classes.json", "classes.boxes.csv"])
def test_vectors_replace_no_file_beside_them_unasked(tiles, tmp_path, name):
    (tmp_path / name).write_text("of another")
    line = ("embed", "shipped:simclr-20", tiles / "whole.tif", tmp_path / "classes.npy", "--vectors", *CPU)
    refused(*line, says=f"{name} exists")
    assert (tmp_path / name).read_text() == "of another" and len(list(tmp_path.iterdir())) == 1
    good(*line, "--force")
    assert (tmp_path / name).read_text() != "of another"


def test_vectors_pass_no_option_over(tiles, tmp_path):
    line = ("embed", "shipped:simclr-20", tiles / "whole.tif")
    for words in (("--resume",), ("--batch", 2)):
        says = "--batch and --resume are of colours"
        refused(*line, tmp_path / "rows.npy", "--vectors", *words, *CPU, says=says)
    cells = (*line, tmp_path / "cells.tif", "--vectors", "--overlap", 0.25, *CPU)
    refused(*cells, says="windows of a .tif overlap by half")
    assert not list(tmp_path.iterdir())


def test_parquet_needs_pyarrow_and_says_so(tiles, tmp_path):
    loaded = load(shipped("simclr-20"))
    how = dict(mean=loaded.meta["mean"], std=loaded.meta["std"], size=64, device="cpu")
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        with pytest.raises(InputError, match="pip install pyarrow"):
            write_vectors(loaded.encoder, tiles / "whole.tif", tmp_path / "rows.parquet", **how)
        return
    write_vectors(loaded.encoder, tiles / "whole.tif", tmp_path / "rows.parquet", **how)
    assert parquet.read_table(tmp_path / "rows.parquet").num_rows == 9


def test_shipped_checkpoints_wherever_a_run_does(tiles, tmp_path):
    whole = tiles / "whole.tif"
    good("boxes", "shipped:grass-20", whole, tmp_path / "boxes.geojson", *CPU)
    assert len(json.loads((tmp_path / "boxes.geojson").read_text())["features"]) > 2
    said = good("boxes", "shipped:grass-20", tiles / "tiles", tmp_path / "boxes", *CPU)
    assert said.count("wrote") == 4 and (tmp_path / "boxes/t0.geojson").exists()
    refused("boxes", "shipped:glcnet-20", whole, tmp_path / "b.geojson", says="give shipped:grass-20")
    refused("map", "shipped:glcnet-20", whole, tmp_path / "m.tif", says="fine-tune it first")
    refused("export", "shipped:glcnet-20", tmp_path / "w.safetensors", says="16 channels wide")
    refused("embed", "shipped:nothing", whole, tmp_path / "e.tif", says="no checkpoint 'nothing'")
    start = ("pretrain", whole, "--init", "shipped:glcnet-20", "--out", tmp_path / "pre", "--size", 64)
    good(*start, "--steps", 1, "--batch", 2, "--samples", 4, *CPU)
    assert "method" in good("info", "shipped:glcnet-20")
    scene = make_scene(192, seed=3)
    for kind, array, nodata in (("img", scene.image, scene.nodata), ("lab", scene.labels, 255)):
        (tmp_path / kind).mkdir()
        names = dict(colors=scene.colors, classes=scene.classes) if kind == "lab" else {}
        write_raster(tmp_path / kind / "s.tif", array, scene.crs, scene.transform, nodata, **names)
    labelled = ("--images", tmp_path / "img", "--labels", tmp_path / "lab", "--fraction", 1, "--size", 64)
    said = good("finetune", "shipped:glcnet-20", *labelled, "--steps", 2, "--out", tmp_path / "seg", *CPU)
    assert "outcome.png" in said and (tmp_path / "seg/outcome.json").exists() and "IoU" in said


def test_blocks_fit_the_scene(tiles):
    whole = open_raster(tiles / "whole.tif")
    block, buffer = fitting_block(whole)
    assert block == "10m" and buffer == "1m"  # 96 m: 81 blocks of 10 m, 16 of 20 m are too few
    assert "train" in good("split", tiles / "whole.tif", tiles / "split.geojson")
    plain = open_raster(np.zeros((1, 500, 700), np.uint8))
    assert fitting_block(plain) == ("64px", "6px")
    assert fitting_block(open_raster(np.zeros((1, 20, 30), np.uint8)))[0] == "5px"


def test_info_tells_values_share_and_resolution(tiles, tmp_path):
    said = good("info", tiles / "whole.tif")
    assert "50 cm a pixel, 96 m x 96 m in all" in said and "% of the pixels" in said
    whole = open_raster(tiles / "whole.tif").read(0, 0, 192, 192)
    low, high = np.nanmin(whole[0]), np.nanmax(whole[0])
    assert f"{low:g} to {high:g}, mean {np.nanmean(whole[0], dtype=np.float64):.4g}" in said
    write_raster(tmp_path / "empty.tif", np.zeros((1, 64, 64), np.uint8), nodata=0)
    said = good("info", tmp_path / "empty.tif")
    assert "no valid pixel" in said and "unknown, for it has no CRS" in said
