"A run's config.json, or a checkpoint's config, that no run wrote: one sentence with file, value and cure."

import json
import shutil

import pytest
import torch
from driver import asked, commands, sound_place

from rsssl_nb.errors import InputError
from rsssl_nb.training.folder import checkpoints, read_config
from rsssl_nb.widgets.networks import read_network

WRONG = dict(
    text_for_number=dict(width="16"),
    null=dict(size=None),
    true_for_number=dict(batch=True),
    half=dict(stride=8.5),
    list_for_number=dict(bands=[3]),
    nan=dict(lr=float("nan")),
    infinite=dict(warmup=float("inf")),
    number_for_text=dict(encoder=5),
    list_for_object=dict(options=[1]),
    text_for_list=dict(mean="1, 2, 3"),
    too_few=dict(mean=[1.0]),
    nan_in_a_list=dict(std=[1.0, float("nan"), 1.0]),
    out_of_bounds=dict(samples=0),
    unknown_field=dict(colour=1),
    other_precision=dict(precision="int8"),
    too_large=dict(seed=2**70),
)
WHOLE = {
    "a list": [1],
    "a number": 5,
    "null": None,
    "an empty object": {},
    "a few keys": dict(method="grass"),
}
MISSING = ("width", "mean", "seed", "method")


def changed(found, wrong):
    "A config with the fields of `wrong`, or without the one that it names; anything else instead of it."
    if isinstance(wrong, str) and wrong.startswith("without "):
        return {name: value for name, value in found.items() if name != wrong[8:]}
    return {**found, **wrong} if isinstance(wrong, dict) and wrong and "method" not in wrong else wrong


CASES = [
    *WRONG.values(),
    *WHOLE.values(),
    *(f"without {name}" for name in ("width", "mean", "seed", "method")),
]


@pytest.fixture(params=CASES, ids=[*WRONG, *WHOLE, *MISSING])
def wrong(request):
    return request.param


def unfinished(run):
    "A run folder as a killed run leaves it."
    for name in ("encoder.safetensors", "segmenter.safetensors"):
        (run / name).unlink(missing_ok=True)
    return run


def test_a_config_that_no_run_wrote_is_a_sentence_of_every_command(runs, tmp_path, wrong):
    place, out, image = sound_place(tmp_path)
    pre = unfinished(shutil.copytree(runs / "pre", tmp_path / "pre"))
    seg = unfinished(shutil.copytree(runs / "seg", tmp_path / "seg"))
    for run in (pre, seg):
        path = run / "config.json"
        path.write_text(json.dumps(changed(json.loads(path.read_text()), wrong)))
    lines = commands(tmp_path, place, out)
    for command in (
        ("info", pre),
        ("boxes", pre, image, out / "boxes.geojson", "--size", 32, "--device", "cpu"),
        (*lines["pretrain"][:-2], "--method", "grass", "--out", pre, "--resume", "auto"),
        (*lines["pretrain"][:-2], "--method", "grass", "--resume", pre),
        (*lines["finetune"][:-2], "--out", seg, "--resume", "auto"),
    ):
        code, errors, _, said = asked(*command)
        assert code == 2 and len(errors) == 1 and "config.json" in errors[0], (command[0], said)
        assert "another --out" in errors[0] or "whole run" in errors[0], errors
    assert not any(out.iterdir())


def test_a_checkpoint_that_no_run_wrote_is_a_sentence(runs, tmp_path, wrong):
    place, out, image = sound_place(tmp_path)
    pre = unfinished(shutil.copytree(runs / "pre", tmp_path / "pre"))
    for path in checkpoints(pre):
        kept = torch.load(path, weights_only=True)
        kept["config"] = json.dumps(changed(json.loads(kept["config"]), wrong))
        torch.save(kept, path)
    name = checkpoints(pre)[-1].name
    lines = commands(tmp_path, place, out)
    for command in (
        ("boxes", pre, image, out / "boxes.geojson", "--size", 32, "--device", "cpu"),
        (*lines["pretrain"][:-2], "--method", "grass", "--out", pre, "--resume", "auto"),
    ):
        code, errors, _, said = asked(*command)
        assert code == 2 and len(errors) == 1 and name in errors[0], (command[0], said)
    with pytest.raises(InputError, match=name):  # an explorer
        read_network(checkpoints(pre)[-1])
    assert not any(out.iterdir())


PARTS = dict(step="5", method=5, optimiser=None, config=[1], version=2)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("gone", [True, False])
def test_a_checkpoint_of_other_parts_is_a_sentence(runs, tmp_path, part, gone):
    place, out, image = sound_place(tmp_path)
    pre = unfinished(shutil.copytree(runs / "pre", tmp_path / "pre"))
    path = checkpoints(pre)[-1]
    kept = torch.load(path, weights_only=True)
    kept[part] = PARTS[part]
    if gone:
        del kept[part]
    torch.save(kept, path)
    command = commands(tmp_path, place, out)["pretrain"][:-2]
    for line in (
        ("boxes", pre, image, out / "boxes.geojson", "--size", 32, "--device", "cpu"),
        (*command, "--method", "grass", "--out", pre, "--resume", "auto"),
    ):
        code, errors, _, said = asked(*line)
        assert code == 2 and len(errors) == 1 and path.name in errors[0] and "delete it" in errors[0], said


@pytest.mark.parametrize("width", [4, 2**30])
def test_a_checkpoint_of_another_width_takes_no_memory(runs, tmp_path, width):
    place, out, image = sound_place(tmp_path)
    pre = unfinished(shutil.copytree(runs / "pre", tmp_path / "pre"))
    path = pre / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "width": width}))
    code, errors, _, said = asked("boxes", pre, image, out / "b.geojson", "--size", 32, "--device", "cpu")
    assert code == 2 and "does not fit" in errors[0] and checkpoints(pre)[-1].name in errors[0], said
    assert read_config(pre).width == width
