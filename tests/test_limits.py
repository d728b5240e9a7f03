"What would take more than there is, or teach nothing, is said before it begins."

import re
import subprocess
import sys
import time
import warnings

import pytest
import rasterio
from odd_rasters import noise, plain_write
from test_attack import SCENE
from test_cli import good, refused, run

from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.write import write_scene

SHAPE = ("--steps", 2, "--size", 32, "--width", 8, "--batch", 4, "--device", "cpu")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    "The folder of a scene: in/image.tif and labels.tif."
    home = tmp_path_factory.mktemp("limits")
    _, labels = write_scene(SCENE, home / "in")
    labels.rename(home / "labels.tif")
    return home


# --- 7: memory and length


@pytest.mark.parametrize("samples", [10_000_001, 10**9, 10**15])
def test_more_windows_than_memory_holds_are_refused_at_once(scene, tmp_path, samples):
    began = time.time()
    line = ("pretrain", scene / "in", *SHAPE, "--out", tmp_path / "out", "--samples", samples)
    refused(*line, says=[f"samples {samples}", "at most 10000000", "--epochs"])
    assert time.time() - began < 20 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_batch_larger_than_the_memory_is_refused(scene, tmp_path, command, monkeypatch):
    monkeypatch.setattr("rsssl_nb.files.free_memory", lambda: 3e6)  # the network fits
    lines = dict(
        pretrain=("pretrain", scene / "in", "--samples", 64),
        finetune=("finetune", "random", "--images", scene / "in/image.tif", "--labels", scene / "labels.tif")
        + ("--classes", scene / "labels.tif", "--fraction", 1),
    )
    told = refused(
        *lines[command],
        *SHAPE,
        *("--batch", 64, "--out", tmp_path / "out"),
        says=["a batch of 64 windows", "--batch"],
    )
    assert "GB of memory" in told.stderr and not (tmp_path / "out").exists()


def test_minutes_and_memory_are_said_before_the_first_step(scene, tmp_path):
    told = good("pretrain", scene / "in", *SHAPE, "--samples", 8, "--out", tmp_path / "out")
    assert re.search(r"(minutes|less) here, in \d", told), told
    assert "GB of memory" in told


def test_a_run_of_a_thousand_million_steps_begins(scene):
    from rsssl_nb.training.config import Config
    from rsssl_nb.training.crops import CropSet, crop_batches
    from rsssl_nb.training.windows import run_loader

    began = time.time()
    crops = crop_batches(CropSet([], [0, 1, 2], 32, 0), 2, 10**9)
    config = Config(length=10**9, batch=2, samples=8)
    loader = run_loader(None, config, 0, 0)
    assert len(crops.batch_sampler) == len(loader.batch_sampler) == 10**9
    assert [list(b) for b, _ in zip(crops.batch_sampler, range(3))] == [[0, 1], [2, 3], [4, 5]]
    wanted = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [list(b) for b, _ in zip(loader.batch_sampler, range(5))] == wanted
    assert time.time() - began < 5


@pytest.mark.parametrize(
    "side, count, interleave, gigabytes", [(8192, 3, "pixel", "0.3"), (16384, 1, "band", "0.4")]
)
def test_a_file_of_one_large_tile_is_named(tmp_path, side, count, interleave, gigabytes):
    path = tmp_path / "in/large.tif"
    path.parent.mkdir()
    shape = dict(width=side, height=side, count=count, dtype="uint8", interleave=interleave, crs="EPSG:32633")
    tiles = dict(tiled=True, blockxsize=side, blockysize=side, compress="deflate", SPARSE_OK=True)
    with rasterio.open(path, "w", driver="GTiff", **shape, **tiles, transform=rasterio.Affine.scale(1)):
        pass
    assert path.stat().st_size < 2**20
    words = f"pieces of {side} x {side}, and to read one it is decoded whole, in about {gigabytes} GB"
    with pytest.warns(UserWarning, match=words):
        open_raster(path)
    assert words in run("info", path).output
    if side == 8192:
        assert words in run("check", path.parent).output


@pytest.mark.parametrize("tiles", [{}, dict(tiled=True, blockxsize=256, blockysize=256)])
def test_a_file_of_small_pieces_is_not_named(tmp_path, tiles):
    path = plain_write(tmp_path / "a.tif", noise(3, 300, 300), **tiles)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_raster(path)


FULL = """
import resource, sys
from rsssl_nb.__main__ import main
import torch, rsssl_nb.training.engine
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
main()
"""


@pytest.mark.parametrize("limit, name", [(50_000, "step-00000002.pt"), (300_000, "step-00000002.pt")])
def test_a_disk_that_is_full_at_a_checkpoint_is_a_sentence(scene, tmp_path, limit, name):
    line = ("pretrain", scene / "in", *SHAPE, "--samples", 8, "--out", tmp_path / "out")
    words = [sys.executable, "-c", FULL, str(limit), *map(str, line)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2 and "Traceback" not in found.stderr, found.stderr
    assert name in found.stderr and "Error: :" not in found.stderr
    assert not list((tmp_path / "out").rglob("*.part*"))


@pytest.fixture(scope="module")
def segmenter(scene):
    "A run of one step on the scene."
    words = (
        "--images",
        scene / "in/image.tif",
        "--labels",
        scene / "labels.tif",
        "--classes",
        scene / "labels.tif",
    )
    good("finetune", "random", *words, "--fraction", 1, *SHAPE, "--out", scene / "seg")
    return scene / "seg"


def test_a_map_says_its_memory_before_its_first_window(scene, segmenter, tmp_path):
    line = ("map", segmenter, scene / "in/image.tif", tmp_path / "map.tif", "--device", "cpu")
    assert re.search(r"128 x 128 pixels in \d+ windows, in about [\d.]+ MB of memory", good(*line))


@pytest.mark.parametrize("command", ["map", "embed"])
def test_a_map_larger_than_the_memory_is_refused_before_it_is_begun(
    scene, segmenter, tmp_path, command, monkeypatch
):
    pre = tmp_path / "pre"
    good("pretrain", scene / "in", *SHAPE, "--samples", 8, "--out", pre)
    monkeypatch.setattr("rsssl_nb.files.free_memory", lambda: 1e5)
    run = dict(map=segmenter, embed=pre)[command]
    line = (command, run, scene / "in/image.tif", tmp_path / "out/m.tif", "--device", "cpu")
    refused(*line, says=["image.tif in windows of 32 pixels", "GB of memory", "--size or --batch"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option, value, says",
    [
        ("--samples", "1e9", ["samples 1000000000", "at most 10000000"]),
        ("--samples", "1e30", ["at most 10000000"]),
        ("--samples", "many", ["'many' is no whole number", "--samples 1000"]),
        ("--samples", "1e4.5", ["no whole number"]),
        ("--steps", "nan", ["'nan' is no whole number"]),
        ("--steps", "1e30", ["too large", "or less"]),
        ("--batch", "-1e3", ["batch -1000 is too small"]),
        ("--batch", "0", ["batch 0 is too small"]),
        ("--size", "1e9", ["larger than every raster", "--size of at most"]),
        ("--seed", "1e12", ["seed 1000000000000 is out of bounds"]),
    ],
)
def test_a_number_as_people_write_it_is_read_or_named(scene, tmp_path, option, value, says):
    began = time.time()
    words = ("pretrain", scene / "in", *SHAPE, "--samples", 2, "--out", tmp_path / "out", option, value)
    refused(*words, says=says)
    assert time.time() - began < 20 and not (tmp_path / "out").exists()


def test_a_thousand_may_be_written_as_a_power(scene, tmp_path):
    assert "; wrote" in good("pretrain", scene / "in", *SHAPE, "--samples", "1e1", "--out", tmp_path / "out")
