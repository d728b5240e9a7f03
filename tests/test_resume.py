"A run goes on from its own checkpoint only, and says what may differ; no record of a run holds NaN."

import json
import shutil
import subprocess

import pytest
import torch
from test_attack import SCENE, SMALL, TUNE
from test_cli import good, refused

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster, write_scene
from rsssl_nb.errors import InputError
from rsssl_nb.training.device import start_engine
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.folder import checkpoints, code_version, keep_log
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.training.watch import read_log
from rsssl_nb.weights import load_weights, save_weights


def train(kind, out, **more):
    "A short run of pretraining or fine-tuning in a folder."
    if kind == "pretrain":
        return pretrain(SCENE, out=out, save_every=2, **SMALL | more)
    return finetune("random", SCENE, SCENE.labels, out, save_every=2, **TUNE | more)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
@pytest.mark.parametrize("name, value", [("lr", 0.5), ("seed", 7), ("warmup", 0.3), ("batch", 4)])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, kind, name, value):
    if name == "warmup" and kind == "finetune":
        name, value = "encoder_lr", 0.1
    if kind == "pretrain" and name == "batch":
        value = 8
    train(kind, tmp_path / "a")
    train(kind, tmp_path / "b", **{name: value})
    for path in checkpoints(tmp_path / "a"):
        path.unlink()
    for weights in (tmp_path / "a").glob("*.safetensors"):
        weights.unlink()
    foreign = checkpoints(tmp_path / "b")[0]
    shutil.copy(foreign, tmp_path / "a/checkpoint" / foreign.name)
    with pytest.raises(InputError, match=f"{foreign.name} is a checkpoint of another run \\({name} "):
        train(kind, tmp_path / "a", resume="auto")


@pytest.mark.parametrize(
    "bad", ["{", "[3]", '{"step": null}', '{"step": "5", "loss": 1}', '{"step": 99, "loss": 1}']
)
def test_a_bad_line_in_the_middle_of_a_log_costs_only_itself(tmp_path, bad):
    rows = [json.dumps(dict(step=i, loss=1.0)) for i in range(4)]
    (tmp_path / "log.jsonl").write_text("\n".join([*rows[:2], bad, *rows[2:]]) + "\n")
    read_log(tmp_path)
    assert [row["step"] for row in keep_log(tmp_path, 4)] == [0, 1, 2, 3]
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        0,
        1,
        2,
        3,
    ]


def test_a_run_goes_on_at_the_scale_of_its_gradients(tmp_path, monkeypatch):
    def scaled(*asked):  # as fp16 on a GPU has it
        engine = start_engine(*asked)
        engine.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
        return engine

    monkeypatch.setattr("rsssl_nb.training.pretrain.start_engine", scaled)
    train("pretrain", tmp_path / "a")
    weights, last = tmp_path / "a/encoder.safetensors", checkpoints(tmp_path / "a")[-1]
    before, kept = weights.read_bytes(), torch.load(last, weights_only=True)["scaler"]
    assert kept["scale"] == 2048 and kept["_growth_tracker"] == 1
    last.unlink()
    weights.unlink()
    train("pretrain", tmp_path / "a", resume="auto")
    assert torch.load(last, weights_only=True)["scaler"] == kept and weights.read_bytes() == before


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_another_number_of_threads_is_a_note(tmp_path, kind):
    train(kind, tmp_path / "run")
    for path in [*(tmp_path / "run").glob("*.safetensors"), checkpoints(tmp_path / "run")[-1]]:
        path.unlink()
    left = checkpoints(tmp_path / "run")[-1]
    kept = torch.load(left, weights_only=True)
    assert kept["threads"] == torch.get_num_threads()
    torch.save(kept | dict(threads=kept["threads"] + 3), left)
    with pytest.warns(UserWarning, match=f"was trained with {kept['threads'] + 3} threads"):
        train(kind, tmp_path / "run", resume="auto")


def spoil(monkeypatch, bad):
    "Makes the losses of the steps in `bad` NaN, of a pretraining of four."
    from rsssl_nb.training import pretrain as page

    whole = page.Pretraining.loss

    def loss(self, model, batch, at, device):
        step, seen = whole(self, model, batch, at, device)
        if at.progress in bad:
            step.loss = step.loss * float("nan")
        return step, seen

    monkeypatch.setattr(page.Pretraining, "loss", loss)


def test_a_last_step_that_is_skipped_costs_no_run(tmp_path, monkeypatch):
    spoil(monkeypatch, [0.75])
    run = train("pretrain", tmp_path / "run")
    assert run.complete and run.log[-1]["skipped"] == 1
    weights = tmp_path / "run/encoder.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    train("pretrain", tmp_path / "run", resume="auto")
    assert weights.read_bytes() == kept


def test_a_run_that_learnt_nothing_or_ends_in_nan_writes_no_weights(tmp_path, monkeypatch):
    train("pretrain", tmp_path / "bad")
    (tmp_path / "bad/encoder.safetensors").unlink()
    last = checkpoints(tmp_path / "bad")[-1]
    kept = torch.load(last, weights_only=True)
    kept["method"]["encoder.conv1.weight"][:] = torch.nan
    torch.save(kept, last)
    with pytest.raises(ValueError, match="the last weights are not finite"):
        train("pretrain", tmp_path / "bad", resume="auto")
    for bad in ([0.25, 0.5, 0.75], [0, 0.25, 0.5, 0.75]):
        spoil(monkeypatch, bad)
        with pytest.raises(ValueError, match=f"not finite in {len(bad)} of the run's 4 steps"):
            train("pretrain", tmp_path / f"lost-{len(bad)}")
    assert not list(tmp_path.rglob("encoder.safetensors"))


def forbid(text):
    raise AssertionError(f"{text} is no JSON")


def test_no_record_holds_nan(tmp_path, monkeypatch):
    from rsssl_nb.training import pretrain as page

    whole = page.Pretraining.loss

    def loss(self, model, batch, at, device):
        step, seen = whole(self, model, batch, at, device)
        if at.progress == 0.25:
            step.loss = step.loss * float("nan")
            step.parts["nce"] = float("inf")
        return step, seen

    monkeypatch.setattr(page.Pretraining, "loss", loss)
    train("pretrain", tmp_path / "pre", probe=lambda encoder: float("nan"))
    unlabelled = SCENE.labels.copy()
    unlabelled[:] = 255
    unlabelled[:40, :40] = 1
    other = make_scene(64, seed=8)
    blind = dict(val_images=other, val_labels=other.labels)
    finetune("random", SCENE, unlabelled, tmp_path / "seg", **TUNE, **blind)
    rows = 0
    for path in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.jsonl")]:
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(line, parse_constant=forbid)
            rows += 1
    assert rows > 8


def test_the_commit_is_found_in_a_checkout_and_in_a_linked_worktree(tmp_path, monkeypatch):
    import rsssl_nb

    def git(*words, at=tmp_path / "whole"):
        named = ("-c", "user.name=a", "-c", "user.email=a@b.c", *words)
        return subprocess.run(["git", *named], cwd=at, check=True, capture_output=True, text=True).stdout

    (tmp_path / "whole").mkdir()
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("worktree", "add", "-q", "-b", "side", "../linked")
    git("commit", "-q", "--allow-empty", "-m", "second", at=tmp_path / "linked")
    for name in ("whole", "linked"):
        monkeypatch.setattr(rsssl_nb, "__file__", str(tmp_path / name / "rsssl_nb/__init__.py"))
        assert code_version.__wrapped__() == git("rev-parse", "HEAD", at=tmp_path / name)[:12]
    git("pack-refs", "--all")
    assert code_version.__wrapped__() == git("rev-parse", "HEAD", at=tmp_path / "linked")[:12]


def command(kind, folder, *more):
    "The command line of a short run on two scenes in a folder, without the command's own images."
    short = [
        "--steps",
        3,
        "--batch",
        2,
        "--size",
        32,
        "--width",
        4,
        "--device",
        "cpu",
        "--out",
        folder / "run",
    ]
    if kind == "pretrain":
        return ["pretrain", folder / "image.tif", *short, "--samples", 4, *more]
    given = ["--images", folder / "image.tif", "--labels", folder / "labels.tif"]
    return ["finetune", "random", *given, *short, *more]


@pytest.fixture(scope="module", params=["pretrain", "finetune"])
def job(request, tmp_path_factory):
    "A finished run of a command: (the command's name, its folder)."
    folder = tmp_path_factory.mktemp(request.param)
    write_scene(make_scene(64, seed=1), folder)
    good(*command(request.param, folder))
    return request.param, folder


@pytest.mark.parametrize("log", [None, "", "\0garbage\n", '{"step": 2}\n', '{"step": 2, "loss": "x"}\n'])
def test_a_finished_run_whose_log_is_damaged_is_still_opened(job, log, tmp_path):
    kind, folder = job
    shutil.copytree(folder, tmp_path / "a")
    path = tmp_path / "a/run/log.jsonl"
    path.unlink()
    if log is not None:
        path.write_text(log)
    said = good(*command(kind, tmp_path / "a", "--resume", "auto"))
    assert "log.jsonl is damaged" in said and "safetensors" in said


def test_nan_in_the_weights_of_a_finished_run_names_their_file(job, tmp_path):
    kind, folder = job
    shutil.copytree(folder, tmp_path / "a")
    weights = next((tmp_path / "a/run").glob("*coder.safetensors" if kind == "pretrain" else "seg*"))
    state, meta = load_weights(weights)
    save_weights(
        weights, {key: v * torch.nan if v.is_floating_point() else v for key, v in state.items()}, meta
    )
    for path in checkpoints(tmp_path / "a/run"):
        path.unlink()
    refused(*command(kind, tmp_path / "a", "--resume", "auto"), says=[f"{weights.name}: its ", "holds NaN"])


def test_a_run_at_its_last_step_is_complete_whatever_its_log_says(job, tmp_path):
    kind, folder = job
    shutil.copytree(folder, tmp_path / "a")
    weights = next((tmp_path / "a/run").glob("*coder.safetensors" if kind == "pretrain" else "seg*"))
    before = weights.read_bytes()
    weights.unlink()
    path = tmp_path / "a/run/log.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "wrote" in good(*command(kind, tmp_path / "a", "--resume", "auto"))
    assert weights.read_bytes() == before


def test_a_run_that_is_not_there_is_not_begun_by_resuming_it(job):
    kind, folder = job
    short = command(kind, folder)
    where = short.index("--out")
    refused(*short[:where], *short[where + 2 :], "--resume", folder / "none", says="no checkpoint to resume")
    assert not (folder / "none").exists()


@pytest.mark.parametrize("option, says", [("--size", "size 32, not 40"), ("--fraction", "--fraction")])
def test_the_setting_that_differs_is_named(job, option, says):
    kind, folder = job
    if kind == "pretrain" and option == "--fraction":
        option, says = "--samples", "samples 4, not"
    value = {"--size": 40, "--fraction": 0.3, "--samples": 6}[option]
    refused(*command(kind, folder, "--resume", "auto", option, value), says=["was started", says])


@pytest.mark.parametrize("more", [["--accumulate", 4], ["--accumulate", 2, "--steps", 1]])
def test_a_run_without_an_update_is_refused(job, more, tmp_path):
    kind, folder = job
    refused(
        *command(kind, folder, "--out", tmp_path / "x", *more), says=[f"accumulate {more[1]}", "or fewer"]
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "option, value, says",
    [
        ("--width", 0, "width 0 is too small: use"),
        ("--width", 200000, "smaller --width"),
        ("--stride", 0, "stride 0 is too small: use 8"),
        ("--encoder", "", "choose resnet18"),
        ("--bands", 0, "bands 0 is too small: use"),
        ("--bands", -3, "bands -3 is too small: use"),
        ("--device", "cpu:abc", "'cpu:abc' is not available here: use one of"),
    ],
)
def test_a_network_that_cannot_be_is_refused(job, option, value, says, tmp_path):
    kind, folder = job
    kind = "pretrain" if option == "--bands" else kind
    refused(*command(kind, folder, "--out", tmp_path / "x", option, value), says=says)
    assert not (tmp_path / "x").exists()


def test_weights_that_are_not_finite_are_refused_by_every_command(job, tmp_path):
    kind, folder = job
    weights = next((folder / "run").glob("encoder.s*" if kind == "pretrain" else "segmenter.s*"))
    state, meta = load_weights(weights)
    next(iter(state.values())).view(-1)[0] = float("inf")
    path = tmp_path / "bad.safetensors"
    save_weights(path, state, meta)
    out, says = tmp_path / "out", ["bad.safetensors", "NaN or infinity: load"]
    if kind == "finetune":
        refused("map", path, folder / "image.tif", out, "--device", "cpu", says=says)
    else:
        refused("embed", path, folder / "image.tif", out, "--device", "cpu", says=says)
        refused("export", path, out, says=says)
        refused("pretrain", folder / "image.tif", "--init", path, "--size", 32, "--out", out, says=says)
        given = ["--images", folder / "image.tif", "--labels", folder / "labels.tif", "--out", out]
        refused("finetune", path, *given, "--size", 32, says=says)
    assert not out.exists()


def test_weights_start_at_the_stride_that_is_asked_for(tmp_path):
    run = train("pretrain", tmp_path / "a")
    for start in (tmp_path / "a", run):
        model, _ = finetune(start, SCENE, SCENE.labels, **TUNE | dict(width=None, steps=1, stride=16))
        assert model.encoder.stride == 16


def test_a_probe_of_other_bands_is_refused_before_the_first_step(job, tmp_path):
    folder = job[1]
    write_raster(tmp_path / "three.tif", SCENE.image[:3])
    write_raster(tmp_path / "labels.tif", SCENE.labels[None])
    probe = ["--probe-images", tmp_path / "three.tif", "--probe-labels", tmp_path / "labels.tif"]
    refused(*command("pretrain", folder, "--out", tmp_path / "x", *probe), says=["3 bands", "4: give"])
    assert not (tmp_path / "x").exists()


def test_a_fine_tuned_run_is_no_encoder(job, tmp_path):
    kind, folder = job
    if kind == "finetune":
        said = refused(
            "embed", folder / "run", folder / "image.tif", tmp_path / "x.tif", says="fine-tuned run"
        )
        assert "random" not in said.stderr
