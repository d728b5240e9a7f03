"Pretraining and fine-tuning: same seed, same bits; killed and resumed, same bits; few labels, fairly chosen."

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.methods.registry import METHODS, make_method, method_options
from rsssl_nb.training.crops import augment
from rsssl_nb.training.finetune import finetune, hold_out, load_segmenter
from rsssl_nb.training.folder import checkpoints
from rsssl_nb.training.labelled import choose, grid_windows, read_subset
from rsssl_nb.training.pretrain import load_encoder, pretrain
from rsssl_nb.training.schedule import lr_factor
from rsssl_nb.training.windows import loader

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


def test_divergence_is_counted_and_stopped():
    with pytest.raises(ValueError, match="not finite 10 times"):
        pretrain(
            SCENE, options=dict(head="linear"), **{**SMALL, "epochs": 40, "lr": 1e30, "optimizer": "sgd"}
        )


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
    assert grid_windows(100, 300, 128) == [(0, 0), (0, 128)] and all(
        not set(a.tolist()) & set(b.tolist()) for a, b in [hold_out(n) for n in (1, 5, 100)]
    )


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
        and len(log) == 2
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


def test_the_test_scene_never_chooses_the_epoch():
    "The held-out windows are labelled training windows: their labels decide, and nothing else is read."
    train, spare = hold_out(40)
    assert (
        len(spare) == 8
        and set(train.tolist()) | set(spare.tolist()) == set(range(40))
        and len(hold_out(19)[1]) == 0
    )


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
