"The command line: the whole job on made scenes, and every bad input as one sentence with exit code 2."

import csv
import json
from zipfile import ZipFile

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from rsssl_nb.cli import main
from rsssl_nb.cli.training import labelled
from rsssl_nb.data.datasets import open_dataset
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import rgb, write_raster
from rsssl_nb.training.labelled import labelled_windows

SMALL = "--epochs 1 --samples 32 --batch 16 --size 64 --width 16 --device cpu".split()


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def good(*args):
    result = run(*args)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def refused(*args, says):
    "The command ends in one sentence on stderr that holds the words, with exit code 2."
    result = run(*args)
    assert result.exit_code == 2, f"exit {result.exit_code}: {result.output} {result.exception!r}"
    lines = [line for line in result.stderr.strip().splitlines() if line and not line.startswith("Note: ")]
    assert "Traceback" not in result.output and (len(lines) == 1 or lines[0].startswith("Usage")), (
        result.stderr
    )
    for word in [says] if isinstance(says, str) else says:
        assert str(word) in result.stderr, result.stderr
    return result


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    "Two scenes as files, a pretrained run and a fine-tuned one."
    root = tmp_path_factory.mktemp("job")
    for seed in (1, 2):
        good("scene", root / f"s{seed}", "--size", 256, "--seed", seed)
    for kind in ("image", "labels"):
        (root / kind).mkdir()
        for seed in (1, 2):
            (root / f"s{seed}" / f"{kind}.tif").rename(root / kind / f"s{seed}.tif")
    scene = make_scene(64)
    (root / "classes.json").write_text(
        json.dumps(
            dict(
                ignore_index=255,
                classes=[
                    dict(index=i, name=n, hex=c) for i, (n, c) in enumerate(zip(scene.classes, scene.colors))
                ],
            )
        )
    )
    good("pretrain", root / "image", "--out", root / "pre", *SMALL)
    good(
        "finetune",
        root / "pre",
        "--images",
        root / "image",
        "--labels",
        root / "labels",
        "--fraction",
        0.5,
        "--size",
        128,
        "--epochs",
        2,
        "--device",
        "cpu",
        "--out",
        root / "seg",
    )
    return root


def test_the_whole_job(job):
    good("map", job / "seg", job / "image/s1.tif", job / "map.tif", "--device", "cpu")
    made, source = open_raster(job / "map.tif"), open_raster(job / "image/s1.tif")
    assert (made.width, made.height, made.crs, made.transform, made.nodata) == (
        source.width,
        source.height,
        source.crs,
        source.transform,
        255,
    )
    found = json.loads(good("score", job / "map.tif", job / "labels/s1.tif", "--json"))
    by_class = {"iou", "class_f1", "producer", "user"}
    assert set(found) == {"oa", "kappa", "miou", "f1", "confusion", "pixels", "ignored"} | by_class
    assert (
        found["pixels"] + found["ignored"] == 256 * 256
        and found["ignored"] > 0
        and set(found["iou"]) == set(make_scene(64).classes)
    )
    assert "mIoU" in good("score", job / "map.tif", job / "labels/s1.tif", "--csv", job / "table.csv")
    rows = list(csv.reader((job / "table.csv").open(newline="")))
    assert rows[0][0] == "truth \\ map" and rows[-1][0] == "user's" and float(rows[-1][-1]) == found["oa"]
    assert [[int(cell) for cell in row[1:-2]] for row in rows[1:-2]] == found["confusion"]
    again = ("score", job / "map.tif", job / "labels/s1.tif", "--csv", job / "table.csv")
    refused(*again, says=("table.csv exists", "--force"))
    assert "table.csv" in good(*again, "--force")


def test_paths_alone_are_enough(tmp_path):
    "Labels in colours without a list, no share of them: only the size of the run is made small here."
    scene = make_scene(192, seed=3)
    table = np.array([rgb(colour) for colour in scene.colors] + [rgb("#101010")], np.uint8)
    labels = np.where(scene.labels == 255, len(scene.colors), scene.labels)
    write_raster(tmp_path / "scene.tif", scene.image)
    write_raster(tmp_path / "painted.tif", table[labels].transpose(2, 0, 1))
    small = ("--steps", 2, "--size", 64, "--batch", 4, "--device", "cpu")
    good("pretrain", tmp_path / "scene.tif", "--out", tmp_path / "run", "--width", 8, *small)
    told = ("--images", tmp_path / "scene.tif", "--labels", tmp_path / "painted.tif")
    text = good("finetune", tmp_path / "run", *told, "--out", tmp_path / "tuned", *small)
    assert "Note: no classes.json beside the labels" in text and scene.colors[0] in text
    assert "9 windows hold labels to learn from (--fraction 1: all but what is held out)" in text
    good("map", tmp_path / "tuned", tmp_path / "scene.tif", tmp_path / "map.tif", "--device", "cpu")
    text = good("score", tmp_path / "map.tif", tmp_path / "painted.tif")
    assert "OA 0." in text and f"{192 * 192} pixels" in text and "Note" not in text


def test_run_folder_has_its_shape(job):
    assert {p.name for p in (job / "pre").iterdir()} == {
        ".lock",
        "config.json",
        "log.jsonl",
        "checkpoint",
        "trace.safetensors",
        "encoder.safetensors",
    }
    rows = [json.loads(line) for line in (job / "pre/log.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and rows[0]["loss"] > 0
    for path in ("pre", "seg", "image/s1.tif", "pre/encoder.safetensors"):
        assert len(good("info", job / path).splitlines()) > 4


def test_identical_runs_give_identical_files(job):
    good("pretrain", job / "image", "--out", job / "pre2", *SMALL)
    assert (job / "pre2/encoder.safetensors").read_bytes() == (job / "pre/encoder.safetensors").read_bytes()


def test_resume_auto_of_a_finished_run_changes_nothing(job):
    before = (job / "pre/encoder.safetensors").read_bytes()
    good("pretrain", job / "image", "--out", job / "pre", "--resume", "auto", *SMALL)
    assert (job / "pre/encoder.safetensors").read_bytes() == before
    refused("pretrain", job / "image", "--out", job / "pre", *SMALL, says="holds a run already")
    refused(
        "pretrain",
        job / "image",
        "--out",
        job / "pre",
        "--resume",
        "auto",
        *SMALL,
        "--lr",
        0.5,
        says=["lr", "0.5"],
    )
    refused("pretrain", job / "image", "--resume", job / "nothing", *SMALL, says="no checkpoint")


def test_a_random_start_and_a_frozen_encoder(job):
    good(
        "finetune",
        "random",
        "--images",
        job / "image",
        "--labels",
        job / "labels",
        "--fraction",
        0.2,
        "--size",
        128,
        "--epochs",
        1,
        "--width",
        16,
        "--mode",
        "frozen",
        "--device",
        "cpu",
        "--out",
        job / "rnd",
    )
    (job / "list.txt").write_text("s1_y0000_x0128\ns2_y0128_x0000\n")
    good(
        "finetune",
        job / "pre",
        "--images",
        job / "image",
        "--labels",
        job / "labels",
        "--subset",
        job / "list.txt",
        "--size",
        128,
        "--epochs",
        1,
        "--device",
        "cpu",
        "--out",
        job / "sub",
    )


def test_the_step_that_is_told_is_the_step_that_is_kept(tmp_path, monkeypatch):
    good("scene", tmp_path, "--size", 128)
    words = [
        "--images",
        tmp_path / "image.tif",
        "--labels",
        tmp_path / "labels.tif",
        "--out",
        tmp_path / "seg",
    ]
    words += ["--size", 16, "--steps", 3, "--batch", 2, "--width", 8, "--device", "cpu"]
    scores = iter([0.50, 0.60, 0.59])  # the last is within the slack of the best
    monkeypatch.setattr("rsssl_nb.training.finetune.window_miou", lambda *_: next(scores))
    assert "kept step 3 (mIoU 0.590 on the labels that choose)" in good("finetune", "random", *words)
    assert "kept step 3 (mIoU 0.590" in good("finetune", "random", *words, "--resume", "auto")
    log = tmp_path / "seg/log.jsonl"
    log.write_text(log.read_text().replace(', "kept": true', ""))  # as older versions wrote it
    assert "kept the step that its labels chose;" in good("finetune", "random", *words, "--resume", "auto")


def test_help_speaks():
    for command in (
        "",
        "scene",
        "pretrain",
        "finetune",
        "map",
        "score",
        "info",
        "export",
        "check",
        "split",
        "embed",
        "boxes",
        "lessons",
        "copy",
        "lab",
        "grade",
    ):
        text = good(*filter(None, [command]), "--help")
        assert "Usage" in text and len(text.splitlines()) >= 5
    assert "ok     python" in good("doctor")


def test_a_split_is_learnt_from_chosen_on_and_judged(job, tmp_path):
    "Each part of a split does its work: train teaches, val keeps the step, test is scored, and no other."
    image = tmp_path / "own.tif"
    good("scene", tmp_path / "made", "--size", 256, "--seed", 3)
    (tmp_path / "made/image.tif").rename(image)
    (tmp_path / "made/labels.tif").rename(tmp_path / "own_labels.tif")
    good("split", image, "--block", "32m", "--buffer", "0px", "--seed", 1)
    (tmp_path / "own.toml").write_text(
        'images = "own.tif"\nlabels = "own_labels.tif"\nsplit = "own.split.geojson"\n'
    )
    data = open_dataset(tmp_path / "own.toml")
    (taught, labels), (spare, _) = (labelled(data, data.split(part)) for part in ("train", "val"))
    held = [
        labelled_windows(list(zip(rasters, labels)), 32, 1.0) for rasters in (taught, spare)
    ]  # blocks are two windows wide
    assert held[0] and held[1] and not set(held[0]) & set(held[1])
    seg = tmp_path / "seg"
    told = good(
        *("finetune", job / "pre", "--images", tmp_path / "own.toml", "--out", seg, "--size", 32),
        *("--steps", 2, "--device", "cpu"),
    )
    assert f"{len(held[0])} windows hold labels" in told
    assert f"the step that does best on {len(held[1])} windows of the validation images" in told
    good("map", seg, image, tmp_path / "map.tif")
    parts = []
    for part in ("train", "val", "test"):
        options = ["--split", tmp_path / "own.split.geojson", "--part", part]
        parts.append(
            json.loads(good("score", tmp_path / "map.tif", tmp_path / "own_labels.tif", "--json", *options))
        )
    whole = json.loads(good("score", tmp_path / "map.tif", tmp_path / "own_labels.tif", "--json"))
    assert sum(np.array(found["confusion"]) for found in parts).tolist() == whole["confusion"]
    refused(
        *("score", tmp_path / "map.tif", tmp_path / "own_labels.tif", "--split", tmp_path / "own.toml"),
        says=["own.toml", ".geojson"],
    )


def test_bad_pretraining_input(job, tmp_path):
    out = tmp_path / "out"
    refused("pretrain", tmp_path / "no", "--out", out, *SMALL, says=["no", "exist"])
    (tmp_path / "empty").mkdir()
    refused("pretrain", tmp_path / "empty", "--out", out, *SMALL, says="empty")
    rgb = make_scene(128).image[:3]
    write_raster(tmp_path / "rgb.tif", rgb, None, None, None)
    refused("pretrain", job / "image", tmp_path / "rgb.tif", "--out", out, *SMALL, says=["rgb.tif", "3", "4"])
    write_raster(tmp_path / "void.tif", np.zeros((4, 128, 128), np.uint8), None, None, 0)
    refused("pretrain", tmp_path / "void.tif", "--out", out, *SMALL, says="void.tif")
    refused("pretrain", job / "image", "--out", out, *SMALL, "--size", 4096, says=["4096", "256"])
    (tmp_path / "cut.tif").write_bytes((job / "image/s1.tif").read_bytes()[:3000])
    refused("pretrain", tmp_path / "cut.tif", "--out", out, *SMALL, says="cut.tif")
    refused("pretrain", job / "image", "--out", out, *SMALL, "--method", "moko", says=["moko", "simclr"])
    refused(
        "pretrain", job / "image", "--out", out, *SMALL, "--set", "temperature=1", says=["temperature", "tau"]
    )
    refused("pretrain", job / "image", "--out", out, *SMALL, "--set", "tau=0", says=["tau", "0"])
    refused("pretrain", job / "image", "--out", out, *SMALL, "--bands", 3, says=["3", "4"])
    refused(
        "pretrain",
        job / "image",
        "--out",
        out,
        *SMALL,
        "--encoder",
        "resnet19",
        says=["resnet19", "resnet18"],
    )
    refused("pretrain", job / "image", "--out", out, *SMALL, "--device", "tpu", says="tpu")
    (tmp_path / "file").write_text("x")
    refused("pretrain", job / "image", "--out", tmp_path / "file/run", *SMALL, says="file")
    assert not out.exists() or not list(out.rglob("*.safetensors"))


def test_bad_labels(job, tmp_path):
    def tune(*extra, labels=job / "labels", says):
        refused(
            "finetune",
            job / "pre",
            "--images",
            job / "image",
            "--labels",
            labels,
            "--size",
            128,
            "--epochs",
            1,
            "--device",
            "cpu",
            "--out",
            tmp_path / "seg",
            *extra,
            says=says,
        )
        assert not (tmp_path / "seg").exists()

    tune("--fraction", 0.5, "--subset", tmp_path / "no.txt", says="not both")
    tune("--fraction", 0, says="0")
    tune("--fraction", 0.5, labels=tmp_path / "no", says="no")
    tune("--subset", tmp_path / "no.txt", says="no.txt")
    classes = job / "classes.json"
    truth = open_raster(job / "labels/s1.tif")
    for name, array, crs, says in (
        ("size", np.zeros((1, 200, 256), np.uint8), truth.crs, ["200", "256"]),
        ("value", np.full((1, 256, 256), 77, np.uint8), truth.crs, ["77", "100"]),
        ("crs", np.zeros((1, 256, 256), np.uint8), "EPSG:4326", ["4326"]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for s in ("s1", "s2"):
            write_raster(folder / f"{s}.tif", array, crs, truth.transform, None)
        tune("--fraction", 0.5, "--classes", classes, labels=folder, says=says)


def test_bad_maps_and_scores(job, tmp_path):
    refused("map", job / "pre", job / "image/s1.tif", tmp_path / "m.tif", says="finetune")
    refused("map", job / "seg", tmp_path / "no.tif", tmp_path / "m.tif", says="no.tif")
    write_raster(tmp_path / "rgb.tif", make_scene(128).image[:3], None, None, None)
    refused("map", job / "seg", tmp_path / "rgb.tif", tmp_path / "m.tif", says=["3", "4"])
    refused("map", job / "seg", job / "image/s1.tif", tmp_path / "no" / "such" / "\0.tif", says="")
    refused(
        "finetune",
        job / "seg",
        "--images",
        job / "image",
        "--labels",
        job / "labels",
        "--fraction",
        0.5,
        "--out",
        tmp_path / "x",
        says="encoder",
    )
    refused("score", tmp_path / "rgb.tif", job / "labels/s1.tif", says="3 bands")
    refused("info", tmp_path / "none", says="none")
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x04}q\x00.")
    refused("info", tmp_path / "w.safetensors", says="w.safetensors")
    assert not (tmp_path / "m.tif").exists()


def test_a_virtual_path_is_read_only_when_allowed(job, tmp_path):
    with ZipFile(tmp_path / "a.zip", "w") as z:
        z.write(job / "image/s1.tif", "s1.tif")
    virtual = f"/vsizip/{tmp_path}/a.zip/s1.tif"
    refused("map", job / "seg", virtual, tmp_path / "map.tif", says="remote or virtual")
    assert not (tmp_path / "map.tif").exists()
    for name, image in (("plain", job / "image/s1.tif"), ("virtual", virtual)):
        good("map", job / "seg", image, tmp_path / f"{name}.tif", "--device", "cpu", "--allow-remote")
    assert (tmp_path / "plain.tif").read_bytes() == (tmp_path / "virtual.tif").read_bytes()
    good("embed", job / "pre", virtual, tmp_path / "embed.tif", "--device", "cpu", "--allow-remote")


def test_the_job_on_real_imagery(imagery, tmp_path):
    """CI's short form of the main job: one training step's worth on Dubai, a map of a validation part, a
    score.
    """
    dubai = imagery / "dubai"
    good(
        "pretrain",
        *sorted((dubai / "train/images").glob("tile5_part00[12]*")),
        "--out",
        tmp_path / "pre",
        *SMALL,
    )
    (tmp_path / "list.txt").write_text(
        "\n".join(
            line
            for line in (dubai / "subsets/train256_25pct_seed0.txt").read_text().split()
            if line.startswith("tile5")
        )[:400].rsplit("\n", 1)[0]
    )
    good(
        "finetune",
        tmp_path / "pre",
        "--images",
        dubai / "train/images",
        "--labels",
        dubai / "train/labels",
        "--subset",
        tmp_path / "list.txt",
        "--epochs",
        1,
        "--device",
        "cpu",
        "--out",
        tmp_path / "seg",
    )
    part = "tile2_part001"
    good("map", tmp_path / "seg", dubai / f"val/images/{part}.jpg", tmp_path / "map.tif", "--device", "cpu")
    found = json.loads(good("score", tmp_path / "map.tif", dubai / f"val/labels/{part}.png", "--json"))
    assert (
        set(found["iou"]) == {"building", "land_unpaved", "road", "vegetation", "water"}
        and found["pixels"] > 100_000
        and 0 <= found["miou"] <= 1
    )
    assert open_raster(tmp_path / "map.tif").crs is None


@pytest.mark.parametrize(
    "method, option, says",
    [
        ("simclr", "tau=abc", "tau 'abc' is not a number"),
        ("simclr", "tau=NaN", "tau nan is out of bounds"),
        ("simclr", "dim=-1", "dim -1 is out of bounds"),
        ("simclr", "head_norm=maybe", "head_norm 'maybe' is not true or false"),
        ("glcnet", "windows=0", "windows 0 is out of bounds"),
        ("glcnet", "window=999", "window of 999 pixels is larger"),
        ("glcnet", "style=foo", "style 'foo' is not known"),
        ("false", "gate=nan", "gate 'nan' is not a number"),
        ("grass", "warmup_epochs=1.5", "warmup_epochs 1.5 is not a whole number"),
        ("ssccl", "grid=999", "grid 999 is out of bounds"),
        ("ssccl", "ema=2", "ema 2 is out of bounds"),
    ],
)
def test_method_options_are_checked_before_anything_is_written(job, method, option, says):
    refused(
        "pretrain",
        job / "image",
        "--method",
        method,
        "--set",
        option,
        "--out",
        job / "options",
        *SMALL,
        says=says,
    )
    assert not (job / "options").exists()


def test_the_note_on_a_warm_up_knows_the_length_of_the_run(tmp_path):
    good("scene", tmp_path, "--size", 64)
    words = "--samples 8 --batch 4 --size 32 --width 8 --device cpu --method grass".split()
    for length, says in (
        ("--steps 5", "the first 1.25 of 2.5 epochs"),
        ("--epochs 3", "the first 1.5 of 3 ep"),
    ):
        out = tmp_path / length.strip("-")
        assert says in good("pretrain", tmp_path / "image.tif", "--out", out, *words, *length.split())


def test_nothing_is_destroyed(job, tmp_path):
    image, out = next((job / "image").glob("*.tif")), tmp_path / "note.tif"
    before = image.read_bytes()
    refused("map", job / "seg", image, image, says="is the image itself")
    out.write_text("my notes")
    refused("map", job / "seg", image, out, says="exists and is no GeoTIFF")
    refused("map", job / "seg", image, tmp_path / "map.png", says="does not end in .tif")
    refused("pretrain", job / "image", "--out", job / "image", *SMALL, says="is not empty")
    assert (
        image.read_bytes() == before
        and out.read_text() == "my notes"
        and not (job / "image/config.json").exists()
    )


def test_a_run_that_ends_in_nan_is_no_success(job, tmp_path):
    refused(
        "pretrain",
        job / "image",
        "--out",
        tmp_path / "wild",
        *SMALL,
        "--lr",
        "1e30",
        "--optimizer",
        "sgd",
        "--set",
        "head=linear",
        says="no longer finite",
    )
    assert not (tmp_path / "wild/encoder.safetensors").exists()


def test_settings_of_finetune_and_map_are_checked(job, tmp_path):
    common = (
        "finetune",
        job / "pre",
        "--images",
        job / "image",
        "--labels",
        job / "label",
        "--fraction",
        "1",
        "--out",
        tmp_path / "seg",
    )
    for option, says in (
        ("--size=-1", "size -1 is too small"),
        ("--batch=0", "batch 0 is too small"),
        ("--epochs=0", "epochs 0 is too small"),
        ("--lr=nan", "lr nan is not a positive"),
        ("--seed=-1", "seed -1 is out of bounds"),
    ):
        refused(*common, option, says=says)
    image = next((job / "image").glob("*.tif"))
    for option, says in (
        ("--size=-1", "size -1 is too small"),
        ("--size=99999", "size 99999 is too large"),
        ("--batch=0", "batch 0 is too small"),
        ("--device=foo", "device 'foo' is not available"),
    ):
        refused("map", job / "seg", image, tmp_path / "m.tif", option, says=says)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["simclr", "glcnet", "false", "grass", "ssccl"])
def test_two_steps_of_each_method_on_real_imagery(imagery, tmp_path, method):
    tiles = sorted((imagery / "dubai/train/images").glob("tile5_part00[12]*"))
    said = good(
        "pretrain",
        *tiles,
        "--method",
        method,
        "--out",
        tmp_path / "pre",
        *SMALL,
        *(["--set", "warmup=0"] if method == "grass" else []),
    )
    rows = [json.loads(line) for line in (tmp_path / "pre/log.jsonl").read_text().splitlines()]
    assert (
        len(rows) == 2
        and all(np.isfinite(r["loss"]) for r in rows)
        and ("warm-up" in said) == (method == "grass")
    )


def test_export_for_other_libraries(job, tmp_path):
    assert "wrote" in good(
        "pretrain",
        job / "image",
        "--out",
        tmp_path / "pre",
        "--epochs",
        1,
        "--samples",
        8,
        "--batch",
        4,
        "--size",
        32,
        "--width",
        64,
        "--device",
        "cpu",
    )
    assert (
        "wrote" in good("export", tmp_path / "pre", tmp_path / "timm.safetensors", "--to", "timm")
        and (tmp_path / "timm.safetensors").exists()
    )
    shown = good("info", tmp_path / "pre")
    assert "pixel_size" in shown and "commit" in shown


def test_a_run_goes_out_as_onnx_and_maps_as_itself(job, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("pyogrio")
    image = job / "image/s1.tif"
    good("export", job / "seg", tmp_path / "net.onnx", "--to", "onnx", "--resolution", 50)
    layer = ("--polygons", tmp_path / "m.gpkg", "--least-area", 1)
    assert "m.gpkg" in good(
        "map", tmp_path / "net.onnx", image, tmp_path / "m.tif", "--device", "cpu", *layer
    )
    good("map", job / "seg", image, tmp_path / "n.tif", "--device", "cpu")
    with rasterio.open(tmp_path / "m.tif") as ours, rasterio.open(tmp_path / "n.tif") as theirs:
        assert (ours.read() == theirs.read()).mean() > 0.9999 and ours.tags()["CLASSES"] == theirs.tags()[
            "CLASSES"
        ]
    refused("map", job / "seg", image, tmp_path / "m.tif", "--mean", "1,2,3", says="carries its passport")
    refused("map", job / "seg", image, tmp_path / "m.tif", "--mean", "1,x", says="no list of numbers")
    refused("map", job / "seg", image, tmp_path / "m.tif", "--polygons", tmp_path / "m.shp", says=".gpkg")
    refused("export", job / "pre", tmp_path / "pre.onnx", "--to", "onnx", says="finetune")


def test_several_images_are_mapped_into_a_folder(job, tmp_path):
    images = sorted((job / "image").glob("*.tif"))
    many = (images * 2)[:2] if len(images) < 2 else images[:2]
    said = good("map", job / "seg", *many, tmp_path / "maps", "--device", "cpu", "--tta")
    assert said.count("wrote") == len(set(many)) == len(list((tmp_path / "maps").glob("*.tif")))
    before = images[0].read_bytes()
    refused("map", job / "seg", *many, images[0], "--force", says="one of the images")
    said = good("map", job / "seg", images[0], images[0], tmp_path / "once", "--device", "cpu")
    assert said.count("wrote") == len(list((tmp_path / "once").glob("*.tif"))) == 1
    refused(
        "map", job / "seg", *many, tmp_path / "maps", "--probabilities", tmp_path / "p.tif", says="one IN"
    )
    assert images[0].read_bytes() == before


def test_info_lists_the_weights_that_come_with_the_package():
    listed = good("info")
    assert f"shipped:{'grass-20':16} method grass, 4 bands, 20 epochs" in listed
    assert f"shipped:{'simclr-0':16} method simclr (encoder alone), 3 bands, 0 steps" in listed
    assert "3 bands, 1000 steps" in listed and "Dubai (CC0 1.0)" in listed and "made scenes" in listed
    assert "width" in good("info", "shipped:simclr-20")
    refused("info", "shipped:nothing", says="choose")


def test_a_forecast_on_a_gpu_names_no_hour():
    from rsssl_nb.cli.training import notes_on
    from rsssl_nb.training.config import Config

    long = Config(length=5000)
    assert any("more than an hour" in note for note in notes_on(long, 2.0, "cpu"))
    assert not list(notes_on(long, 2.0, "cuda"))


def test_workers_are_auto_or_a_number(job, tmp_path):
    refused("pretrain", job / "image/s1.tif", "--out", tmp_path / "x", "--workers", "many", says="use auto")


def test_the_match_of_starting_weights_is_told(job, tmp_path):
    images, labels = job / "image", job / "labels"
    command = ["finetune", job / "pre", "--images", images, "--labels", labels, "--fraction", "1"]
    said = good(*command, "--out", tmp_path / "seg", "--steps", "1", "--batch", "2", "--size", "64")
    assert "starts from" in said and "encoder.safetensors: resnet18, " in said
