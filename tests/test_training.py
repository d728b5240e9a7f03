"Pretraining and fine-tuning: same seed, same bits; killed and resumed, same bits; few labels, fairly chosen."

import contextlib
import copy
import errno
import inspect
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rsssl_nb.data.labels import Classes
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster
from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.methods.registry import METHODS, make_method, method_options
from rsssl_nb.training.config import TuneConfig
from rsssl_nb.training.crops import CropSet, augment
from rsssl_nb.training.device import native_bfloat16, resolve_precision, settle_precision
from rsssl_nb.training.finetune import STEPS, Finetuning, finetune, load_segmenter
from rsssl_nb.training.folder import checkpoints, locked, read_config
from rsssl_nb.training.knn import dense_cells
from rsssl_nb.training.labelled import choose, grid_windows, labelled_windows, open_pairs, read_subset
from rsssl_nb.training.practice import practice_steps
from rsssl_nb.training.pretrain import default_length, load_encoder, pretrain
from rsssl_nb.training.record import all_finite
from rsssl_nb.training.schedule import lr_factor
from rsssl_nb.training.validation import (
    Validation,
    given_validation,
    hold_out,
    knn_probe,
    open_taught,
    window_miou,
)
from rsssl_nb.training.windows import loader
from rsssl_nb.weights import load, shipped

SMALL = dict(epochs=3, batch=8, samples=16, size=32, width=8, progress=False, device="cpu")
SCENE = make_scene(128, seed=1)


def weights(run):
    return run.encoder.state_dict()


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("method", [m for m in METHODS if "oracle" not in m])
def test_same_seed_same_bits_and_the_callers_stream_is_left_alone(method):
    state = torch.get_rng_state()
    one, two = (pretrain(SCENE, method, seed=3, **SMALL) for _ in range(2))
    assert equal(weights(one), weights(two)) and [r["loss"] for r in one.log] == [r["loss"] for r in two.log]
    assert torch.equal(state, torch.get_rng_state())
    assert not equal(weights(one), weights(pretrain(SCENE, method, seed=4, **SMALL)))


@pytest.mark.parametrize("method", ["simclr", "glcnet", "grass", "ssccl"])
def test_a_run_cut_after_any_epoch_ends_on_the_same_bits(method, tmp_path, monkeypatch):
    whole = pretrain(SCENE, method, out=tmp_path / "whole", **SMALL)
    for cut in (1, 2):

        def dying(pool, samples, batch, seed, epoch, *more):
            if epoch == cut:
                raise KeyboardInterrupt
            return loader(pool, samples, batch, seed, epoch, *more)

        with monkeypatch.context() as m:
            m.setattr("rsssl_nb.training.windows.loader", dying)
            with pytest.raises(KeyboardInterrupt):
                pretrain(SCENE, method, out=tmp_path / str(cut), **SMALL)
        assert not (tmp_path / str(cut) / "encoder.safetensors").exists()
        again = pretrain(SCENE, method, out=tmp_path / str(cut), resume="auto", **SMALL)
        assert equal(weights(again), weights(whole)) and len(again.log) == len(whole.log)
        assert (tmp_path / str(cut) / "encoder.safetensors").read_bytes() == (
            tmp_path / "whole/encoder.safetensors"
        ).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("method", ["simclr", "glcnet", "false", "grass", "ssccl", "mocov2"])
def test_killed_four_times_and_resumed_by_command_line(method, tmp_path, image):
    rng = random.Random(method)

    def command(out, *more):
        return [
            sys.executable,
            "-m",
            "rsssl_nb",
            "pretrain",
            str(image),
            "--method",
            method,
            "--out",
            str(tmp_path / out),
            "--epochs",
            "6",
            "--batch",
            "8",
            "--samples",
            "32",
            "--size",
            "32",
            "--width",
            "8",
            "--device",
            "cpu",
            "--save-every",
            "3",
            *more,
        ]

    subprocess.run(command("whole"), check=True, capture_output=True)
    log, kills = tmp_path / "cut/log.jsonl", 0
    for mark in sorted(rng.sample(range(1, 24), 4)):  # killed soon after that line of the log
        job = subprocess.Popen(
            command("cut", "--resume", "auto"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while job.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= mark):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.03)
        kills += job.poll() is None
        job.send_signal(signal.SIGKILL)
        job.wait()
    done = subprocess.run(command("cut", "--resume", "auto"), check=True, capture_output=True, text=True)
    assert kills >= 3 and "encoder.safetensors" in done.stdout
    assert (tmp_path / "cut/encoder.safetensors").read_bytes() == (
        tmp_path / "whole/encoder.safetensors"
    ).read_bytes()
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(24))


def test_few_samples_still_give_a_step():
    run = pretrain(SCENE, **{**SMALL, "samples": 3, "batch": 64})
    assert len(run.log) == 3 and run.log[0]["loss"] > 0


def test_workers_give_the_same_bits(tmp_path):
    from rsssl_nb.data.write import write_scene

    image, _ = write_scene(SCENE, tmp_path)
    assert equal(weights(pretrain(image, workers=2, **SMALL)), weights(pretrain(image, **SMALL)))


def unfinished(folder, method="simclr", **more):
    "A run folder as a kill leaves it: checkpoints, no encoder."
    pretrain(SCENE, method, out=folder, save_every=2, **{**SMALL, **more})
    (folder / "encoder.safetensors").unlink()
    return checkpoints(folder)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_good(tmp_path):
    before, last = unfinished(tmp_path / "run")
    last.write_bytes(last.read_bytes()[:500])
    with pytest.raises(InputError, match=f"{last.name}.*continue from {before.name}"):
        pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL)
    last.unlink()
    assert equal(
        weights(pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL)),
        weights(pretrain(SCENE, **SMALL)),
    )


def test_a_checkpoint_of_another_version_or_method_is_refused(tmp_path):
    *_, last = unfinished(tmp_path / "run")
    kept = torch.load(last, weights_only=True)
    torch.save({**kept, "version": 99}, last)
    with pytest.raises(InputError, match="another version"):
        pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL)
    torch.save({**kept, "config": kept["config"].replace('"simclr"', '"grass"')}, last)
    with pytest.raises(InputError, match="checkpoint of grass, not of simclr"):
        pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    *_, last = unfinished(tmp_path / "run")
    torch.save(dict(version=1, step=Trap()), last)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    real, saved = torch.save, []

    def full(data, path):
        saved.append(path)
        if len(saved) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(data, path)

    with monkeypatch.context() as m:
        m.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            pretrain(SCENE, out=tmp_path / "run", save_every=2, **SMALL)
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step-00000002.pt"] and not list(
        tmp_path.rglob("*.part*")
    )
    assert equal(
        weights(pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL)),
        weights(pretrain(SCENE, **SMALL)),
    )


def test_two_processes_on_one_folder(tmp_path, image):
    hold = (
        "import sys, time; from rsssl_nb.training.folder import locked\n"
        "with locked(sys.argv[1]): print('mine', flush=True); time.sleep(99)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(InputError, match="written by another process"):
            pretrain(SCENE, out=tmp_path / "run", **SMALL)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert pretrain(SCENE, out=tmp_path / "run", **SMALL).complete


def test_a_finished_run_is_left_alone(tmp_path):
    run = pretrain(SCENE, out=tmp_path / "run", **SMALL)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.pt")}
    again = pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL)
    assert again.complete and equal(weights(again), weights(run)) and len(again.log) == len(run.log)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.pt")}


@pytest.mark.parametrize("method", ["simclr", "ssccl"])
def test_stopped_in_mid_epoch_and_resumed_is_the_same_run(method, tmp_path):
    def stop_at(row):
        if row["step"] == 2:
            (tmp_path / "run/stop").touch()

    cut = pretrain(SCENE, method, out=tmp_path / "run", tell=stop_at, **SMALL)
    assert (
        not cut.complete
        and len(cut.log) == 3
        and not (tmp_path / "run/encoder.safetensors").exists()
        and not (tmp_path / "run/stop").exists()
    )
    assert equal(
        weights(pretrain(SCENE, method, out=tmp_path / "run", resume="must", **SMALL)),
        weights(pretrain(SCENE, method, **SMALL)),
    )


def test_accumulated_steps_resume_exactly(tmp_path):
    more = {**SMALL, "samples": 32, "accumulate": 2}

    def stop_at(row):
        if row["step"] == 2:
            (tmp_path / "run/stop").touch()  # between two accumulated steps: it finishes the update first

    cut = pretrain(SCENE, out=tmp_path / "run", tell=stop_at, **more)
    assert len(cut.log) == 4
    whole = pretrain(SCENE, **more)
    assert equal(weights(pretrain(SCENE, out=tmp_path / "run", resume="auto", **more)), weights(whole))
    assert not equal(weights(whole), weights(pretrain(SCENE, **{**more, "accumulate": 1})))


def test_a_killed_reader_ends_the_run_in_a_sentence(tmp_path, image):
    import multiprocessing

    def kill(row):
        if row["step"] == 2:
            [os.kill(p.pid, signal.SIGKILL) for p in multiprocessing.active_children()]

    with pytest.raises(InputError, match="fewer --workers; the last checkpoint is good"):
        pretrain(
            image,
            out=tmp_path / "run",
            workers=1,
            tell=kill,
            **{**SMALL, "samples": 64, "epochs": 2, "save_every": 1},
        )
    assert checkpoints(tmp_path / "run")
    assert pretrain(
        image, out=tmp_path / "run", resume="auto", **{**SMALL, "samples": 64, "epochs": 2}
    ).complete


def test_a_reader_that_dies_while_a_checkpoint_is_written_is_no_full_disk(tmp_path, monkeypatch):
    def dying(kept, path):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr(torch, "save", dying)
    with pytest.raises(InputError, match="fewer --workers"):
        pretrain(SCENE, out=tmp_path / "run", **SMALL)


def test_tensorboard_and_probe_write_and_change_nothing(tmp_path):
    pytest.importorskip("tensorboard")
    run = pretrain(SCENE, out=tmp_path / "run", tensorboard=True, probe=lambda encoder: 0.25, **SMALL)
    events = list((tmp_path / "run").rglob("events.out*"))
    assert (
        len(events) == 1
        and [r["knn"] for r in run.log if "knn" in r] == [0.25] * 3
        and b"parts/instance" in events[0].read_bytes()
        and b"knn" in events[0].read_bytes()
    )
    assert equal(weights(run), weights(pretrain(SCENE, **SMALL)))


def test_mixed_precision_and_layout_train(tmp_path):
    for more in (dict(precision="bf16"), dict(channels_last=True)):
        run = pretrain(SCENE, **SMALL, **more)
        assert (
            all(np.isfinite(r["loss"]) for r in run.log) and run.encoder.conv1.weight.dtype == torch.float32
        )
    with pytest.raises(ValueError, match="fp16"):
        pretrain(SCENE, precision="fp16", **SMALL)


def test_a_batch_of_another_world_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="--processes 3 was asked for"):
        pretrain(SCENE, processes=3, **SMALL)


@pytest.mark.parametrize("size, stride", [((100, 100), 8), ((60, 36), 16), ((48, 48), 32), ((64, 64), 8)])
def test_each_cell_of_a_probe_has_the_label_in_its_middle(size, stride):
    h, w = size
    encoder = Encoder(bands=4, width=8, stride=stride)
    images = torch.randn(2, 4, h, w, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(2 * h * w).view(2, h, w)
    features, found = dense_cells(encoder, images, labels, ignore=-1)
    rows, cols = encoder.eval()(images).dense.shape[-2:]
    y, x = (np.floor((np.arange(n) + 0.5) * side / n).astype(int) for n, side in ((rows, h), (cols, w)))
    middle = torch.tensor([[labels[1, j, i] for i in x] for j in y]).flatten()
    assert len(features) == len(found) and torch.equal(found[-len(middle) :], middle)


def test_a_probe_takes_windows_of_any_size():
    assert 0 <= knn_probe(SCENE, SCENE.labels, size=60)(Encoder(bands=4, width=8)) <= 1


def test_divergence_is_counted_and_stopped():
    with pytest.raises(ValueError, match="no longer finite|not finite 10 times"):
        pretrain(
            SCENE, options=dict(head="linear"), **{**SMALL, "epochs": 40, "lr": 1e30, "optimizer": "sgd"}
        )


def test_a_bad_batch_costs_a_page_its_own_step_only():
    images = torch.randn(12, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    images[5] = 1e25  # the batch's loss is finite, its variance is not
    torch.manual_seed(0)
    method = make_method("simclr", Encoder(bands=4, width=8))
    optimiser, moved = torch.optim.SGD(method.parameters(), 0.1), []
    weight = method.encoder.conv1.weight
    before = weight.detach().clone()
    for _ in practice_steps(method, images, optimiser, epochs=2, batch=4, size=32):
        moved.append(not torch.equal(weight, before))
        before = weight.detach().clone()
    assert sum(moved) == 4 and all_finite(method.state_dict().values())


def test_every_method_and_option_is_known():
    for name in METHODS:
        assert method_options(type(make_method(name, Encoder(width=8))))
        with pytest.raises(ValueError, match="has no option 'nope'"):
            make_method(name, Encoder(width=8), {"nope": 1})
    with pytest.raises(ValueError, match="choose default or official"):
        make_method("false", Encoder(width=8), {"preset": "paper"})


def test_schedule():
    f = [lr_factor(t, 100, 0.1) for t in range(100)]
    assert (
        abs(max(f) - 1) < 1e-6
        and f[0] == 0.1
        and 0 < f[-1] < 0.01
        and all(a <= b for a, b in zip(f[:10], f[1:10]))
    )
    assert lr_factor(0, 1) == 1


def test_windows_are_nested_and_never_none():
    windows = list(range(138))
    assert len(choose(windows, 1e-6)) == 1 and set(choose(windows, 0.01)) <= set(choose(windows, 0.1)) <= set(
        choose(windows, 1)
    )
    assert grid_windows(100, 300, 128) == [(0, 0), (0, 128), (0, 256)]  # remainders count


def test_subset_lists(tmp_path):
    (tmp_path / "l.txt").write_text("# a list\ntile_1_y0256_x0000\n\n")
    assert read_subset(tmp_path / "l.txt") == [("tile_1", 0, 256)]
    (tmp_path / "l.txt").write_text("tile 7\n")
    with pytest.raises(InputError, match="line 1"):
        read_subset(tmp_path / "l.txt")


def test_augmentation_moves_labels_with_pixels():
    labels = torch.randint(0, 5, (8, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x, y = augment(labels[:, None].float(), labels, 0, 1)
    for i in range(8):
        assert torch.corrcoef(torch.stack([x[i, 0].flatten(), y[i].float().flatten()]))[0, 1] > 0.99
        assert torch.equal(y[i].flatten().sort().values, labels[i].flatten().sort().values)


@pytest.mark.parametrize("mode", ["full", "frozen"])
def test_a_segmenter_is_found_again(mode, tmp_path):
    run = pretrain(SCENE, out=tmp_path / "pre", **SMALL)
    model, log = finetune(
        tmp_path / "pre",
        SCENE,
        SCENE.labels,
        tmp_path / "seg",
        fraction=1.0,
        mode=mode,
        epochs=2,
        size=64,
        progress=False,
        device="cpu",
    )
    back, meta = load_segmenter(tmp_path / "seg")
    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), back(x))
    assert (
        meta["classes"] == list(SCENE.classes)
        and len(log) == 2  # four windows in batches of 16: an epoch is one step
        and meta["mean"] == load_encoder(tmp_path / "pre")[1]["mean"]
    )
    same = equal(weights(run), {k: v for k, v in model.encoder.state_dict().items()})
    assert same == (mode == "frozen")
    twice, _ = finetune(
        tmp_path / "pre",
        SCENE,
        SCENE.labels,
        fraction=1.0,
        mode=mode,
        epochs=2,
        size=64,
        progress=False,
        device="cpu",
    )
    assert equal(twice.state_dict(), model.state_dict())


@pytest.mark.parametrize("files", [1, 3, 5])
def test_ground_of_its_own_chooses_the_step(files):
    "Held-out windows are whole files, or one end of each file: never single windows among the others."
    scenes = [make_scene(256, seed=s) for s in range(files)]
    pairs, _ = open_pairs(scenes, [s.labels for s in scenes])
    windows = labelled_windows(pairs, 32)
    kept, held = hold_out(pairs, windows, 32)
    assert sorted(kept + held.windows) == sorted(windows)
    assert 0.1 < len(held.windows) / len(windows) < 0.35
    for i in {w[0] for w in held.windows}:
        own, others = ([w for w in part if w[0] == i] for part in (held.windows, kept))
        assert not others or max(w[1] for w in others) < min(w[1] for w in own)
    assert hold_out(pairs, windows[:19], 32)[1].windows == []


def test_windows_that_reach_into_held_out_ground_are_not_trained_on():
    pairs, _ = open_pairs([SCENE], [SCENE.labels])
    windows = [(0, x, y) for y in range(0, 97, 16) for x in range(0, 97, 16)]  # each overlaps its neighbours
    kept, held = hold_out(pairs, windows, 32)
    assert kept and held.windows and "that overlap them left out" in held.told
    assert all(max(abs(x - u), abs(y - v)) >= 32 for _, x, y in kept for _, u, v in held.windows)


def test_a_list_names_itself_and_counts_a_window_once(tmp_path):
    write_raster(tmp_path / "scene.tif", SCENE.image)
    pairs, _ = open_pairs([tmp_path / "scene.tif"], [SCENE.labels])
    path = tmp_path / "list.txt"
    path.write_text("scene_y0000_x0000\n" * 3 + "scene_y0032_x0000\n")
    with pytest.warns(UserWarning, match="list.txt names 2 windows that it has named before"):
        assert labelled_windows(pairs, 32, subset=path) == [(0, 0, 0), (0, 0, 32)]
    for line in ("other_y0000_x0000", "scene_y0000_x9999"):
        path.write_text(line)
        with pytest.raises(InputError, match="list.txt (names other|has the window)"):
            labelled_windows(pairs, 32, subset=path)


def test_images_of_mixed_bands_are_named(tmp_path):
    for name, bands in (("a", 3), ("b", 4)):
        write_raster(tmp_path / f"{name}.tif", SCENE.image[:bands])
    files = [tmp_path / "a.tif", tmp_path / "b.tif"]
    with pytest.raises(InputError, match="b.tif has 4 bands and .*a.tif 3"):
        open_pairs(files, [SCENE.labels, SCENE.labels])


TUNE = dict(fraction=1.0, size=32, width=4, batch=4, progress=False, device="cpu")


def tune(folder=None, **more):
    "A short fine-tuning of a fresh network on the scene."
    return finetune("random", SCENE, SCENE.labels, folder, **{**TUNE, "steps": 9, **more})


def test_fine_tuning_takes_the_steps_it_is_told_whatever_the_number_of_windows():
    "At 1 % of the labels, 50 epochs used to be 50 steps; a batch may be larger than the windows are many."
    assert len(tune(fraction=0.1, batch=16)[1]) == 9
    assert len(tune(steps=None, epochs=2)[1]) == 2 * 4  # 16 windows, 4 a step
    assert inspect.signature(finetune).parameters["steps"].default is None and STEPS == 1500


def test_a_killed_fine_tuning_ends_on_the_same_bytes(tmp_path):
    def die(row):
        if row["step"] in (2, 6):
            raise KeyboardInterrupt

    whole, log = tune(tmp_path / "whole", save_every=2)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(tmp_path / "cut", save_every=2, resume="auto", tell=die)
    _, again = tune(tmp_path / "cut", save_every=2, resume="auto")
    assert [r["loss"] for r in again] == [r["loss"] for r in log]
    one, two = (tmp_path / n / "segmenter.safetensors" for n in ("whole", "cut"))
    assert one.read_bytes() == two.read_bytes()
    assert equal(tune(tmp_path / "cut", resume="auto")[0].state_dict(), whole.state_dict())  # opened only


def test_fine_tuning_stops_when_asked_and_goes_on(tmp_path):
    _, log = tune(tmp_path, tell=lambda row: (tmp_path / "stop").touch() if row["step"] == 3 else None)
    assert len(log) == 4 and not (tmp_path / "segmenter.safetensors").exists()
    assert len(tune(tmp_path, resume="must")[1]) == 9


def test_a_taken_folder_is_refused_before_anything_is_read(tmp_path):
    tune(tmp_path / "seg")
    with pytest.raises(InputError, match="holds a fine-tuned model already"):
        finetune("random", "nowhere", "nowhere", tmp_path / "seg", fraction=1.0)
    with (
        locked(tmp_path / "busy"),
        pytest.raises(InputError, match="holds a run|being written|not empty|exist"),
    ):
        (tmp_path / "busy/config.json").write_text("{}")
        finetune("random", "nowhere", "nowhere", tmp_path / "busy", fraction=1.0)
    for changed, says in ((dict(lr=0.5), "lr 0.001, not 0.5"), (dict(precision="fp16"), "fp16|precision")):
        with pytest.raises((InputError, ValueError), match=says):
            tune(tmp_path / "seg", resume="auto", **changed)


def test_validation_on_training_ground_is_refused():
    with pytest.raises(InputError, match="100 % of the validation windows"):
        tune(val_images=SCENE, val_labels=SCENE.labels)
    other = make_scene(64, seed=9)
    _, log = tune(val_images=other, val_labels=other.labels)
    assert [r["step"] for r in log if "miou" in r] == list(range(9))


def test_the_best_step_is_kept_not_the_last():
    other = make_scene(64, seed=9)
    model, log = tune(val_images=other, val_labels=other.labels, lr=0.3)
    pairs, _ = open_pairs(other, other.labels)
    score = window_miou(model, pairs, labelled_windows(pairs, 32, 1.0), 32)
    assert score == pytest.approx(max(r["miou"] for r in log), abs=0.02)


@pytest.mark.parametrize("slack, step", [(0.0, 3), (0.01, 4), (0.5, 5)])
def test_of_the_steps_within_the_slack_of_the_best_the_latest_is_kept(monkeypatch, slack, step):
    pairs, _ = open_pairs(SCENE, SCENE.labels)
    task = Finetuning(TuneConfig(length=5, look_every=1), None, Validation(pairs, [(0, 0, 0)], "", slack))
    scores = iter([0.2, float("nan"), 0.6, 0.595, 0.3])
    monkeypatch.setattr("rsssl_nb.training.finetune.window_miou", lambda *_: next(scores))
    engine = SimpleNamespace(autocast=contextlib.nullcontext, device="cpu")
    for done in range(1, 6):
        task.look(torch.nn.Linear(1, 1), done, engine)
    assert task.best["step"] == step


def test_the_lists_of_what_teaches_and_what_chooses_stay_as_they_were_opened(monkeypatch):
    found = open_taught(SCENE, SCENE.labels, None, None, None, "auto", 1.0, None, 16, 0)
    pairs, validation = found[0], found[3]
    assert validation.pairs is pairs
    before = list(pairs)
    monkeypatch.setattr("rsssl_nb.training.finetune.open_taught", lambda *_: found)
    monkeypatch.setattr(
        "rsssl_nb.training.finetune.like_training", lambda rasters, *_: map(copy.copy, rasters)
    )
    short = dict(steps=1, batch=2, size=16, width=8, device="cpu", progress=False)
    finetune("random", SCENE, SCENE.labels, **short)
    assert validation.pairs is pairs and all(a is b for a, b in zip(pairs, before))


def test_only_ground_of_its_own_has_a_slack():
    pairs, classes = open_pairs(SCENE, SCENE.labels)
    windows = labelled_windows(pairs, 16, 1.0)
    assert hold_out(pairs, windows, 16)[1].slack == 0.02
    assert given_validation(SCENE, SCENE.labels, classes, "auto", 16, 4).slack == 0


def test_windows_without_labels_do_not_count():
    empty = SCENE.labels.copy()
    empty[:, 32:] = 255
    pairs, _ = open_pairs(SCENE, empty)
    assert {w[1] for w in labelled_windows(pairs, 32, 1.0)} == {0}
    with pytest.raises(InputError, match="holds a labelled pixel"):
        finetune("random", SCENE, np.full_like(empty, 255), **TUNE)


def on_disk(folder, labels=SCENE.labels):
    "The scene as a file, its labels and its classes: what a list of windows needs."
    write_raster(folder / "scene.tif", SCENE.image, SCENE.crs, SCENE.transform, None)
    return dict(images=[folder / "scene.tif"], labels=[labels], classes=Classes(SCENE.classes, SCENE.colors))


def test_a_list_of_windows_without_labels_is_refused(tmp_path):
    empty = SCENE.labels.copy()
    empty[:64] = 255
    given = on_disk(tmp_path, empty) | {k: v for k, v in TUNE.items() if k != "fraction"}
    (tmp_path / "list.txt").write_text("scene_y0000_x0000\nscene_y0032_x0032\n")
    with pytest.raises(InputError, match="chosen windows hold no labelled pixel: .* another --subset"):
        finetune("random", subset=tmp_path / "list.txt", steps=2, **given)
    (tmp_path / "list.txt").write_text("scene_y0000_x0000\nscene_y0064_x0032\n")  # one of two has some
    assert len(finetune("random", subset=tmp_path / "list.txt", steps=2, **given)[1]) == 2


def test_validation_that_overlaps_in_part_is_refused_with_its_share(tmp_path):
    given = on_disk(tmp_path) | {k: v for k, v in TUNE.items() if k != "fraction"}
    subset = [("scene", x, 0) for x in (0, 32, 64, 96)]  # a quarter of the scene
    with pytest.raises(
        InputError, match=r"25 % of the validation windows \(as in .*scene.tif\) .* trained on"
    ):
        finetune(
            "random",
            subset=subset,
            steps=2,
            val_images=given["images"],
            val_labels=given["labels"],
            **given,
        )


@pytest.mark.parametrize("length", [dict(steps=0), dict(steps=None, epochs=0)])
def test_a_fine_tuning_of_no_steps_is_refused_before_anything_is_read(length):
    with pytest.raises(ValueError, match="(steps|epochs) 0 is too small: use 1 or more"):
        finetune("random", "nowhere", "nowhere", **{**TUNE, **length})


def test_fine_tuning_holds_to_its_precision_and_tells_of_threads_and_emulation(tmp_path, monkeypatch):
    tune(tmp_path, tell=lambda row: (tmp_path / "stop").touch() if row["step"] == 3 else None)
    told = json.loads((tmp_path / "config.json").read_text())["precision"]
    assert told in ("bf16", "no")
    other = "no" if told == "bf16" else "bf16"
    with pytest.raises(InputError, match=f"precision '{told}', not '{other}'"):
        tune(tmp_path, resume="auto", precision=other)
    path = checkpoints(tmp_path)[-1]
    torch.save({**torch.load(path, weights_only=True), "threads": 99}, path)
    with pytest.warns(UserWarning, match="trained with 99 threads .* OMP_NUM_THREADS=99"):
        assert len(tune(tmp_path, resume="must")[1]) == 9
    monkeypatch.setattr("rsssl_nb.training.device.native_bfloat16", lambda device: False)
    with pytest.warns(UserWarning, match="emulates it"):
        tune(precision="bf16", steps=1)


def test_the_layout_is_settled_recorded_and_in_force_on_resume(tmp_path):
    stop = dict(tell=lambda row: (tmp_path / "stop").touch() if row["step"] == 1 else None)
    run = pretrain(SCENE, out=tmp_path, precision="bf16", channels_last=False, **stop, **SMALL)
    assert not run.config.channels_last and not run.complete
    again = pretrain(SCENE, out=tmp_path, resume="auto", precision="bf16", **SMALL)
    assert again.complete and not again.config.channels_last  # as it began, not as it would begin today
    assert pretrain(SCENE, precision="bf16", **SMALL).config.channels_last
    run = pretrain(SCENE, precision="no", **SMALL)
    assert not run.config.channels_last


def test_no_network_is_laid_out_in_a_way_that_crashes_here(monkeypatch):
    thin = SMALL | dict(width=4)
    assert not pretrain(SCENE, **thin).config.channels_last
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with pytest.raises(InputError, match="channels last at width 4 crashes"):
        pretrain(SCENE, channels_last=True, **thin)
    with pytest.raises(InputError, match="goes on where there is AVX-512"):
        settle_precision(SimpleNamespace(channels_last=True, precision="no"), "auto", None, "cpu", 4)


def test_crops_teach_their_own_windows_labels_only():
    "A zoomed-out crop shows the ground around its window; the labels there count nowhere."
    labels = np.zeros_like(SCENE.labels)
    labels[:32, :32] = 1
    pairs, _ = open_pairs(SCENE, labels)
    crops = CropSet(pairs, [(0, 0, 0)], 32, seed=0)
    assert all(set(crops[n][1].unique().tolist()) <= {1, 255} for n in range(20))
    assert any(crops.box(n)[2] > 40 for n in range(20)) and any(crops.box(n)[2] < 24 for n in range(20))


@pytest.mark.filterwarnings("ignore:.*these are normalised by their own statistics")
@pytest.mark.parametrize("source", ["shipped", "torchvision", "run"])
def test_pretraining_starts_from_weights_of_any_home(source, tmp_path):
    if source == "torchvision":
        plain = Encoder("resnet18", 3, 64)
        path = tmp_path / "resnet18.pth"
        torch.save(plain.state_dict() | {"fc.weight": torch.zeros(10, 512)}, path)
        start, want, shape = path, plain.layer4[1].conv2.weight, {}
    elif source == "run":
        run = pretrain(SCENE, out=tmp_path / "a", **SMALL)
        start, want, shape = tmp_path / "a", run.encoder.layer4[1].conv2.weight, dict(width=8)
    else:
        want = load(shipped("simclr-20")).encoder.layer4[1].conv2.weight
        start, shape = "shipped:simclr-20", {}
    small = {**SMALL, "epochs": 1, "lr": 1e-9} | dict(width=None) | shape
    run = pretrain(SCENE, init=start, out=tmp_path / "b", **small)
    assert torch.allclose(run.encoder.layer4[1].conv2.weight, want, atol=1e-6)
    assert run.encoder.bands == 4 and read_config(tmp_path / "b").init
    assert load_encoder(tmp_path / "b")[1]["init"]
    with pytest.raises(InputError, match="other weights"):
        pretrain(SCENE, out=tmp_path / "b", resume="auto", **{**small, "width": run.encoder.width})
    with pytest.raises(InputError, match="--width 12 was asked for"):
        pretrain(SCENE, init=start, **{**small, "width": 12})


def test_fine_tuning_starts_from_a_shipped_encoder():
    "Its record tells its images in words, not as a passport."
    how = {k: v for k, v in TUNE.items() if k != "width"}
    _, log = finetune("shipped:simclr-20", SCENE, SCENE.labels, **{**how, "steps": 1})
    assert len(log) == 1


def test_lengths_in_steps_and_their_default():
    steps = pretrain(SCENE, steps=3, **{k: v for k, v in SMALL.items() if k != "epochs"})
    assert len(steps.log) == 3 and steps.config.total == 3
    with pytest.raises(ValueError, match="not in both"):
        pretrain(SCENE, steps=3, **SMALL)
    with pytest.raises(ValueError, match="steps 0 is too small"):
        pretrain(SCENE, steps=0, **{k: v for k, v in SMALL.items() if k != "epochs"})
    assert default_length(64, 64) == 2000 and default_length(64000, 64) == 20000


def test_precision_auto_is_resolved_recorded_and_in_force_on_resume(tmp_path):
    run = pretrain(SCENE, out=tmp_path, **SMALL)
    told = json.loads((tmp_path / "config.json").read_text())["precision"]
    assert told == ("bf16" if native_bfloat16("cpu") else "no") == run.config.precision
    other = "no" if told == "bf16" else "bf16"
    with pytest.raises(InputError, match=f"precision '{told}', not '{other}'"):
        pretrain(SCENE, out=tmp_path, resume="auto", precision=other, **SMALL)


def test_bfloat16_that_is_emulated_says_so(monkeypatch):
    monkeypatch.setattr("rsssl_nb.training.device.native_bfloat16", lambda device: False)
    with pytest.warns(UserWarning, match="emulates it"):
        assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("auto", "cpu") == "no" and resolve_precision("auto", "cuda") == "fp16"


def test_folders_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError):
        pretrain(SCENE, "nope", out=tmp_path / "x", **SMALL)
    with pytest.raises(ValueError):
        pretrain(SCENE, out=tmp_path / "x", **{**SMALL, "epochs": 0})
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match="bands"):
        finetune(
            pretrain(SCENE, **SMALL),
            [SCENE.image[:3]],
            [SCENE.labels],
            fraction=1.0,
            classes=__import__("rsssl_nb.data.labels", fromlist=["Classes"]).Classes(
                SCENE.classes, SCENE.colors
            ),
            size=64,
        )


def test_what_a_killed_writer_left_is_swept_away(tmp_path):
    """Killed while the very first file was written: the folder holds a half of it, and the run starts all the
    same.
    """
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.config.json.part123").write_text("{")
    assert pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL).complete and not list(
        tmp_path.rglob(".*.part*")
    )


def test_readers_that_live_over_epochs_give_the_same_bits(image):
    four = {**SMALL, "epochs": 3}
    assert equal(weights(pretrain(image, workers=1, **four)), weights(pretrain(image, **four)))


def test_workers_are_chosen_for_the_device_and_the_job(monkeypatch):
    from rsssl_nb.training import device

    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert device.resolve_workers("auto", "cpu", 10**6) == 0
    assert device.resolve_workers("auto", "cuda", 100) == 0
    assert device.resolve_workers("auto", "cuda:0", 10**6) == 11
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert device.resolve_workers("auto", "cuda", 10**6) == 2
    assert device.resolve_workers(3, "cpu", 10) == 3
    with pytest.raises(ValueError, match="workers -1 .* or auto"):
        device.resolve_workers(-1, "cpu", 10)


@pytest.mark.parametrize(
    "name, value",
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
    ],
)
def test_the_environment_does_not_change_a_recorded_setting(monkeypatch, name, value):
    from rsssl_nb.training.device import start_engine

    monkeypatch.setenv(name, value)
    with pytest.warns(UserWarning, match=f"{name}={value} is passed over"):
        engine = start_engine("cpu", "no", 2)
    assert engine.gradient_accumulation_steps == 2
    assert engine.mixed_precision == "no"
    assert engine.state.dynamo_plugin.backend.value == "NO"
    assert os.environ[name] == value


def test_another_number_of_threads_on_resume_is_said(tmp_path):
    def stop(row):
        if row["step"] == 1:
            (tmp_path / "run/stop").touch()

    pretrain(SCENE, out=tmp_path / "run", tell=stop, **SMALL)
    path = checkpoints(tmp_path / "run")[-1]
    kept = torch.load(path, weights_only=True)
    assert kept["threads"] == torch.get_num_threads()
    torch.save({**kept, "threads": 99}, path)
    with pytest.warns(UserWarning, match="trained with 99 threads .* OMP_NUM_THREADS=99"):
        pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL)


def test_a_fine_tuning_killed_at_its_config_is_begun_again(tmp_path):
    from rsssl_nb.training.folder import refuse_taken

    (tmp_path / ".config.json.part77").touch()
    refuse_taken(tmp_path, "auto")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="notes.txt"):
        refuse_taken(tmp_path, "auto")
