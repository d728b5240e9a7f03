"""Two processes equal one with the whole batch: loss, gradients and statistics, for every method.

And what the launchers are told.
"""

import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from rsssl_nb.cli import main
from rsssl_nb.cli.training import settings
from rsssl_nb.errors import InputError
from rsssl_nb.files import is_first_process
from rsssl_nb.training import processes as page
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.training.processes import (
    Job,
    SharedBatchNorm,
    gather_rows,
    refuse_other_world,
    share_batchnorm,
    world,
)


def connected(script, folder):
    "What two connected processes of a script beside this file found."
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(__file__).with_name(script)]
    jobs = [
        subprocess.Popen([*command, str(rank), f"{folder}/store", f"{folder}/out.pt"], env=env)
        for rank in (0, 1)
    ]
    assert [j.wait(300) for j in jobs] == [0, 0]
    return torch.load(folder / "out.pt", weights_only=True)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    "What two connected processes found of pretraining: {method: dict}."
    return connected("two_processes.py", tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    "What two connected processes found of fine-tuning: {case: dict}."
    return connected("two_tunings.py", tmp_path_factory.mktemp("tuned"))


@pytest.mark.parametrize(
    "name",
    [
        "simclr",
        "simclr-norm",
        "glcnet",
        "glcnet-official",
        "false",
        "false-fixed",
        "grass",
        "ssccl",
        "ssccl-infonce",
        "mocov2",
        "mocov2-official",
        "byol",
        "simsiam",
        "barlowtwins",
        "vicreg",
        "swav",
        "lejepa",
        "densecl",
        "pixpro",
        "inpainting",
        "grass-random",
        "false-random",
        "glcnet-unmatched",
        "ssccl-shuffled",
        "combined",
    ],
)
def test_two_halves_equal_the_whole(told, name):
    found = told[name]
    assert abs(found["loss"] - found["whole_loss"]) < 1e-5 * max(1, abs(found["whole_loss"]))
    assert found["gradient_gap"] < 1e-5 and found["buffer_gap"] < 1e-5, found


@pytest.mark.parametrize("case", ["plain", "weighted", "smooth-dice", "frozen", "keep"])
def test_two_halves_of_fine_tuning_equal_the_whole(tuned, case):
    found = tuned[case]
    assert abs(found["loss"] - found["whole_loss"]) < 1e-5 * max(1, abs(found["whole_loss"]))
    assert found["gradient_gap"] < 1e-5 and found["buffer_gap"] < 1e-5, found


def test_halves_that_never_meet_are_another_loss(told):
    assert told["simclr-alone"]["gradient_gap"] > 1e-3


def test_released_false_refuses_a_second_process(told):
    assert "train it in one process" in told["false-official"]


def test_alone_nothing_changes():
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    one, two = torch.nn.BatchNorm2d(3), share_batchnorm(torch.nn.BatchNorm2d(3))
    assert (
        isinstance(two, SharedBatchNorm)
        and torch.equal(one(x), two(x))
        and torch.equal(one.running_var, two.running_var)
    )
    assert torch.equal(one.eval()(x), two.eval()(x)) and world() == (0, 1) and gather_rows(x) is x


def test_another_world_is_refused(monkeypatch):
    with pytest.raises(InputError, match="--processes 2 was asked for and this job runs in 1"):
        refuse_other_world(2)
    with pytest.raises(InputError, match="-m rsssl_nb finetune"):
        finetune("random", "nowhere", "nowhere", processes=3)
    for name, value in dict(WORLD_SIZE="2", RANK="0", MASTER_ADDR="localhost").items():
        monkeypatch.setenv(name, value)
    assert refuse_other_world(2) == 2
    with pytest.raises(InputError, match="runs in 2"):
        refuse_other_world(1)


@pytest.mark.parametrize("told", [None, "", "1"])
def test_a_rank_left_over_in_the_shell_says_nothing(monkeypatch, tmp_path, image, told):
    from rsssl_nb.training.device import start_engine

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if told is not None:
        monkeypatch.setenv("WORLD_SIZE", told)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    assert refuse_other_world(None) == 1 and is_first_process()
    engine = start_engine("cpu")
    assert engine.num_processes == 1 and engine.is_main_process and os.environ["RANK"] == "1"
    basis, out = tmp_path / "basis.json", tmp_path / "features.tif"
    words = ["embed", "shipped:simclr-20", image, out, "--basis", basis, "--device", "cpu", "--size", 64]
    found = CliRunner().invoke(main, [str(word) for word in words])
    assert found.exit_code == 0 and f"wrote {out}" in found.output, found.output
    assert basis.exists() and out.exists()


def test_of_several_processes_the_first_speaks(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, first in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert is_first_process() is first


def test_a_job_that_fails_says_why(tmp_path):
    job = Job(
        tmp_path / "run",
        [sys.executable, "-c", "import sys; print('Error: x.tif does not exist: fetch it'); sys.exit(2)"],
    )
    with pytest.raises(InputError, match="x.tif does not exist.*resume='auto'"):
        job.wait(60)


def words_of(monkeypatch, **options):
    "What the command line of a launched job reads: its parameters by name."
    monkeypatch.setattr(page, "Job", lambda out, command: command)
    command = page.launch("a.tif", "run", **options)
    words = command[command.index("pretrain") + 1 :]
    return main.commands["pretrain"].make_context("pretrain", words).params


def test_a_launched_job_reads_the_options_it_was_given(monkeypatch):
    given = dict(
        symmetric=False, gate=None, hard=True, tau=0.2, objective="infonce", name="true", sizes=[1, 2]
    )
    read = words_of(monkeypatch, options=given, compile=True, tensorboard=False, lr=1e-3, resume="must")
    assert settings(read["options"]) == given
    assert (read["compile"], read["tensorboard"], read["lr"]) == (True, False, 1e-3)
    assert str(read["out"]) == read["resume"] == "run"


@pytest.mark.parametrize("asked", [True, False, None])
def test_a_launched_job_keeps_the_layout_it_was_given(monkeypatch, asked):
    assert words_of(monkeypatch, channels_last=asked)["channels_last"] is asked


def test_what_another_process_cannot_be_given_is_refused(monkeypatch):
    taken = set(inspect.signature(pretrain).parameters)
    assert set(page.HERE) == taken - {p.name for p in main.commands["pretrain"].params}
    with pytest.raises(InputError, match="progress cannot be given to a job of its own"):
        page.launch("a.tif", "run", progress=True)


def launch(folder, *flags, n=2, images=None):
    "`torchrun` over the real command line."
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(n),
            "-m",
            "rsssl_nb",
            "pretrain",
            str(images or folder / "image.tif"),
            "--out",
            str(folder / "run"),
            "--epochs",
            "2",
            "--samples",
            "32",
            "--batch",
            "16",
            "--size",
            "32",
            "--width",
            "8",
            "--device",
            "cpu",
            "--precision",
            "no",
            *flags,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


@pytest.mark.long
def test_torchrun_trains_as_one_process_does(tmp_path, image):
    from rsssl_nb.training.pretrain import load_encoder, pretrain

    done = launch(tmp_path, "--processes", "2", "--optimizer", "sgd", images=image)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes" in done.stdout
    same = dict(epochs=2, samples=32, batch=16, size=32, width=8, device="cpu", optimizer="sgd")
    alone = pretrain(image, precision="no", progress=False, **same)
    ours = load_encoder(tmp_path / "run")[0].state_dict()
    for name, value in alone.encoder.state_dict().items():
        assert (ours[name].float() - value.float()).abs().max() < 1e-3, name


@pytest.mark.long
def test_a_job_of_another_size_ends_in_a_sentence(tmp_path, image):
    done = launch(tmp_path, "--processes", "4", images=image)
    assert (
        done.returncode
        and "--processes 4 was asked for and this job runs in 2" in done.stderr
        and not (tmp_path / "run").exists()
    )


@pytest.mark.long
def test_a_batch_that_does_not_divide_ends_in_a_sentence(tmp_path, image):
    done = launch(tmp_path, "--batch", "15", images=image)
    assert done.returncode and "batch 15 does not divide among 2 processes" in done.stderr


@pytest.mark.long
def test_a_killed_process_ends_the_job_and_leaves_a_good_checkpoint(tmp_path, image):
    """One of two is killed in mid-run: the job ends with the reason, and its checkpoint carries on to the
    bits of a run that nobody touched.
    """
    slow = ["--epochs", "40", "--save-every", "2"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "rsssl_nb",
        "pretrain",
        str(image),
        "--out",
        str(tmp_path / "run"),
        "--samples",
        "32",
        "--batch",
        "16",
        "--size",
        "32",
        "--width",
        "8",
        "--device",
        "cpu",
        "--precision",
        "no",
        *slow,
    ]
    job = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while job.poll() is None and not list(tmp_path.glob("run/checkpoint/*.pt")):
        time.sleep(0.05)
    workers = [
        int(p)
        for p in subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True).stdout.split()
    ]
    os.kill(workers[-1], signal.SIGKILL)
    said = job.communicate(timeout=120)[1]
    assert (
        job.returncode
        and ("SIGKILL" in said or "is gone" in said)
        and not (tmp_path / "run/encoder.safetensors").exists()
    )
    assert launch(tmp_path, *slow, "--resume", "auto", images=image).returncode == 0
    (tmp_path / "whole").mkdir()
    assert launch(tmp_path / "whole", *slow, images=image).returncode == 0
    assert (tmp_path / "run/encoder.safetensors").read_bytes() == (
        tmp_path / "whole/run/encoder.safetensors"
    ).read_bytes()
