"What an attack on files, folders and runs found: nothing is lost, nothing lies, every refusal is a sentence."

import json

import pytest
import rasterio
import torch
from test_cli import good, refused
from test_maps import Pixels

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster, write_scene
from rsssl_nb.errors import InputError
from rsssl_nb.files import part_path, write_aside
from rsssl_nb.mapping.segment import segment
from rsssl_nb.mapping.store import band_path
from rsssl_nb.training.finetune import Finetuning, finetune
from rsssl_nb.training.folder import checkpoints
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.weights import load_weights

SCENE = make_scene(128, seed=1)
SMALL = dict(steps=4, samples=8, batch=4, size=32, width=8, device="cpu", progress=False)
TUNE = dict(steps=3, fraction=1.0, batch=2, size=32, width=8, device="cpu", progress=False)


@pytest.fixture(scope="module")
def seg(tmp_path_factory):
    "A fine-tuned run of three steps on a scene of four bands."
    folder = tmp_path_factory.mktemp("seg") / "run"
    finetune("random", SCENE, SCENE.labels, folder, **TUNE)
    return folder


def two_scenes(folder):
    return [write_scene(make_scene(64, seed=n), folder / str(n))[0] for n in (1, 2)]


# --- data that a mistyped line must not destroy


def test_map_of_a_glob_leaves_the_second_image_as_it_is(seg, tmp_path):
    a, b = two_scenes(tmp_path)
    before = b.read_bytes()
    refused("map", seg, a, b, "--device", "cpu", says=[b, "--force"])
    assert b.read_bytes() == before
    out = tmp_path / "map.tif"
    good("map", seg, a, out, "--device", "cpu")
    good("map", seg, a, out, "--device", "cpu")  # a map of ours is replaced
    good("map", seg, a, b, "--device", "cpu", "--force")
    with rasterio.open(b) as file:
        assert file.count == 1


def test_map_of_several_images_refuses_a_folder_that_holds_one_of_them(seg, tmp_path):
    a, b = two_scenes(tmp_path)
    c = b.rename(b.with_name("other.tif"))
    before = a.read_bytes()
    refused("map", seg, c, a, a.parent, "--device", "cpu", says=str(a))
    assert a.read_bytes() == before and not (a.parent / "other.tif").exists()


@pytest.mark.parametrize("name", ["b.tif", "theirs.geojson"])
def test_split_replaces_only_a_split(tmp_path, name):
    image, _ = write_scene(make_scene(256, seed=1), tmp_path)
    theirs = tmp_path / name
    theirs.write_bytes(b'{"type": "FeatureCollection", "features": []}')
    before = theirs.read_bytes()
    refused("split", image, theirs, "--block", "64px", "--buffer", "0px", says=str(theirs))
    assert theirs.read_bytes() == before
    for _ in range(2):
        good("split", image, tmp_path / "ours.geojson", "--block", "64px", "--buffer", "0px")


def test_scene_and_export_replace_only_their_own(tmp_path):
    write_raster(tmp_path / "s" / "image.tif", SCENE.image)
    refused("scene", tmp_path / "s", "--size", 64, says=["image.tif", "--force"])
    assert not (tmp_path / "s" / "labels.tif").exists()
    good("scene", tmp_path / "s", "--size", 64, "--force")
    good("scene", tmp_path / "s", "--size", 64)
    encoder = _wide(tmp_path)
    theirs = write_aside(tmp_path / "theirs.safetensors", lambda p: p.write_bytes(encoder.read_bytes()))
    refused("export", encoder, theirs, says=["theirs.safetensors", "--force"])
    assert theirs.read_bytes() == encoder.read_bytes()
    for _ in range(2):
        good("export", encoder, tmp_path / "ours.safetensors")


def _wide(folder):
    "An encoder's file as wide as torchvision's."
    from rsssl_nb.encoders import Encoder
    from rsssl_nb.weights import save_weights

    meta = dict(kind="encoder", encoder="resnet18", bands=3, width=64, stride=8)
    save_weights(folder / "wide.safetensors", Encoder("resnet18", 3).state_dict(), meta)
    return folder / "wide.safetensors"


@pytest.mark.parametrize("train", ["pretrain", "finetune"])
def test_a_foreign_folder_keeps_every_file(tmp_path, train):
    theirs = [tmp_path / "x" / ".notes.part1", tmp_path / ".image.tif.part77", tmp_path / "photo.jpg"]
    for path in theirs:
        write_aside(path, lambda aside: aside.write_text("mine"))
    with pytest.raises(InputError, match="holds no run"):
        if train == "pretrain":
            pretrain(SCENE, out=tmp_path, **SMALL)
        else:
            finetune("random", SCENE, SCENE.labels, tmp_path, **TUNE)
    assert all(path.read_text() == "mine" for path in theirs)


def test_a_run_killed_while_it_wrote_its_config_starts_again(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.part12").write_text("{")
    assert pretrain(SCENE, out=tmp_path, resume="auto", **SMALL).complete
    assert not list(tmp_path.glob(".*.part*"))


def test_a_finished_run_without_its_checkpoints_is_finished(tmp_path):
    first = pretrain(SCENE, out=tmp_path / "run", **SMALL)
    for path in checkpoints(tmp_path / "run"):
        path.unlink()
    (tmp_path / "run" / "checkpoint").rmdir()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    for mode in ("auto", "must"):
        again = pretrain(SCENE, out=tmp_path / "run", resume=mode, **SMALL)
        assert again.complete and again.log == first.log
        state = again.encoder.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in first.encoder.state_dict().items())
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


# --- no lies about what is there


@pytest.mark.parametrize("train", ["pretrain", "finetune"])
def test_damaged_weights_of_a_finished_run_are_written_again(tmp_path, train):
    def go():
        if train == "pretrain":
            pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL)
            return tmp_path / "run" / "encoder.safetensors"
        finetune("random", SCENE, SCENE.labels, tmp_path / "run", resume="auto", **TUNE)
        return tmp_path / "run" / "segmenter.safetensors"

    path = go()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="written again from the last checkpoint"):
        go()
    assert path.read_bytes() == whole
    path.write_bytes(whole[:1000])
    for last in checkpoints(tmp_path / "run"):
        last.unlink()
    with pytest.raises(InputError, match="another --out"):
        go()


# --- no folder that is stuck


def test_a_map_stopped_inside_a_run_folder_does_not_stop_the_run(tmp_path):
    run = tmp_path / "run"
    pretrain(SCENE, out=run, save_every=2, **SMALL)
    (run / "encoder.safetensors").unlink()
    checkpoints(run)[-1].unlink()
    bands = run / ".map.tif.parts"
    bands.mkdir()
    (bands / "0000000.band").write_bytes(b"kept")
    assert pretrain(SCENE, out=run, resume="auto", **SMALL).complete
    assert (bands / "0000000.band").exists()


@pytest.mark.parametrize("damage", [b"", b"x\x9c", b"junk"])
def test_a_damaged_band_is_made_anew_on_resume(tmp_path, damage):
    out = tmp_path / "map.tif"
    image, _ = write_scene(SCENE, tmp_path)
    model = Pixels()
    wanted = segment(model, image, size=32, device="cpu")
    stopped = Pixels()
    stopped.forward = lambda x: (_ for _ in ()).throw(RuntimeError("stop"))
    with pytest.raises(RuntimeError, match="stop"):
        segment(stopped, image, out, size=32, device="cpu", resume=True)
    band_path(tmp_path / ".map.tif.parts", 0).write_bytes(damage)
    segment(model, image, out, size=32, device="cpu", resume=True)
    with rasterio.open(out) as file:
        assert (file.read(1) == wanted).all()


def test_a_torn_record_blocks_only_a_resume(tmp_path):
    parts = tmp_path / ".map.tif.parts"
    parts.mkdir()
    (parts / "about.json").write_text('{"raster": "im')
    with pytest.raises(InputError, match="about.json is damaged.*without --resume"):
        segment(Pixels(), SCENE, tmp_path / "map.tif", size=32, device="cpu", resume=True)
    assert segment(Pixels(), SCENE, tmp_path / "map.tif", size=32, device="cpu") == tmp_path / "map.tif"


def test_a_fine_tune_that_failed_at_its_last_write_is_retried(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Finetuning, "finish", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError):
            finetune("random", SCENE, SCENE.labels, tmp_path / "run", **TUNE)
    _, log = finetune("random", SCENE, SCENE.labels, tmp_path / "run", resume="auto", **TUNE)
    assert len(log) == 3 and load_weights(tmp_path / "run" / "segmenter.safetensors")[0]


# --- links are not followed


def test_a_link_under_a_temporary_name_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for write in (
        lambda out: write_aside(out, lambda aside: aside.write_text("new")),
        lambda out: write_raster(out, SCENE.image),
    ):
        out = tmp_path / "out.tif"
        part_path(out).symlink_to(victim)
        write(out)
        assert victim.read_text() == "mine" and out.exists() and not out.is_symlink()


def test_a_link_where_finished_bands_are_kept_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0000000.band").write_text("mine")
    (tmp_path / ".map.tif.parts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        segment(Pixels(), SCENE, tmp_path / "map.tif", size=32, device="cpu")
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["0000000.band"]


# --- no silent garbage


def far_out(value, share=0.002):
    "A float scene in which a few pixels hold a value that nobody declared."
    image = SCENE.image.astype("float32")
    n = max(9, int(share * image[0].size))
    rows, columns = torch.randint(128, (2, n), generator=torch.Generator().manual_seed(0)).numpy()
    image[:, rows, columns] = value
    return image


@pytest.mark.parametrize("value", [-3.4028235e38, 1e35])
def test_absurd_values_do_not_reach_an_encoder(tmp_path, value):
    path = write_raster(tmp_path / "far.tif", far_out(value))
    run = pretrain(path, out=tmp_path / "run", **SMALL)
    assert max(abs(v) for v in (*run.config.mean, *run.config.std)) < 1e4
    state, _ = load_weights(tmp_path / "run" / "encoder.safetensors")
    assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())


def test_a_skipped_batch_does_not_move_batchnorm(monkeypatch):
    from rsssl_nb.training import pretrain as page

    spoil = page.Pretraining.batches

    def batches(self, first, workers):
        for step, (images, index) in enumerate(spoil(self, first, workers), first):
            yield (images * 1e37 if step == 2 else images), index

    plain = pretrain(SCENE, **SMALL)
    monkeypatch.setattr(page.Pretraining, "batches", batches)
    run = pretrain(SCENE, **SMALL)
    assert run.log[-1]["skipped"] == 1 and run.log[1]["loss"] == plain.log[1]["loss"]
    assert all(v.isfinite().all() for v in run.method.state_dict().values() if v.is_floating_point())
    count = run.encoder.state_dict()
    steps = {int(v) for k, v in count.items() if k.endswith("num_batches_tracked")}
    fewer = {int(v) for k, v in plain.encoder.state_dict().items() if k.endswith("num_batches_tracked")}
    assert max(steps) == max(fewer) * 3 // 4


def test_a_rate_too_high_keeps_finite_states_and_says_what_can_be_done(tmp_path):
    with pytest.raises(ValueError, match="lower --lr in another --out") as caught:
        pretrain(
            SCENE,
            "simclr",
            tmp_path / "run",
            optimizer="sgd",
            lr=1e30,
            save_every=1,
            **SMALL | dict(steps=40),
        )
    for path in checkpoints(tmp_path / "run"):
        state = torch.load(path, weights_only=True)["method"]
        assert all(v.isfinite().all() for v in state.values() if v.is_floating_point())
        assert str(path) in str(caught.value) or path != checkpoints(tmp_path / "run")[-1]
    text = (tmp_path / "run" / "log.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


def test_a_score_that_is_none_is_never_the_best(monkeypatch):
    from rsssl_nb.training import finetune as page

    scores = iter([float("nan"), 0.25, float("nan")] + [0.1] * 20)
    monkeypatch.setattr(page, "window_miou", lambda *_: next(scores))
    task = page.Finetuning.__new__(page.Finetuning)
    task.config, task.windows, task.pairs, task.best = page.TuneConfig(length=4, look_every=1), [0], [], {}
    task.slack = 0.0
    engine = type("E", (), dict(autocast=lambda self: __import__("contextlib").nullcontext(), device="cpu"))()
    for step in range(1, 5):
        task.look(torch.nn.Linear(1, 1), step, engine)
    assert task.best["step"] == 2 and task.best["miou"] == 0.25


def test_a_bad_line_in_a_log_costs_only_itself(tmp_path):
    from rsssl_nb.training.folder import keep_log
    from rsssl_nb.training.watch import read_log

    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0, "loss": 1}\n{"st\n[3]\n{"step": 1, "loss": null}\n{"step": 2, "loss": 1}\n')
    assert [row["step"] for row in read_log(tmp_path)] == [0, 1, 2]
    rows = keep_log(tmp_path, 2)
    assert [row["step"] for row in rows] == [0, 1] and rows[1]["loss"] != rows[1]["loss"]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1]


# --- a full disk in one sentence


def test_a_disk_full_at_a_checkpoint_is_a_sentence_with_the_path(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(InputError, match="step-00000004.pt cannot be written.*--resume auto"):
            pretrain(SCENE, out=tmp_path / "run", save_every=4, **SMALL)
    assert pretrain(SCENE, out=tmp_path / "run", resume="auto", **SMALL).complete


def test_an_error_without_a_file_begins_with_its_reason():
    from rsssl_nb.cli.shared import sentence

    assert sentence(OSError(28, "No space left")).startswith("No space left: ")
    assert sentence(OSError(28, "No space left", "a.tif")).startswith("a.tif: No space left: ")
