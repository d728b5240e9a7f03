"The proof's campaign: its arms, dials and pools, and that its protocol says what they are."

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
sys.path.append(str(EXPERIMENTS))
import proof  # noqa: E402
import trials  # noqa: E402
from controls import GROUND, Stack  # noqa: E402

from rsssl_nb.data.folders import ImageSet  # noqa: E402
from rsssl_nb.encoders import Encoder  # noqa: E402
from rsssl_nb.methods.base import At  # noqa: E402
from rsssl_nb.methods.registry import METHODS, method_class, method_options  # noqa: E402

TRAINED = [a for a in proof.ARMS if a.make and not a.init]
ONE_EACH = list({(a.name, str(a.also and a.also[0]), str(a.make)): a for a in TRAINED}.values())


@pytest.fixture
def stack():
    rng = np.random.default_rng(0)
    labels = np.full((16, 48, 48), GROUND)
    labels[:, 10:30, 20:40] = 4
    return Stack(rng.integers(0, 256, (16, 3, 48, 48), dtype=np.uint8), labels, siblings=4)


def test_every_run_has_a_folder_and_rows_of_its_own():
    assert len({a.label for a in proof.ARMS}) == len(proof.ARMS)
    others = {"random", "random-fitted", "glcnet-mean", "simclr-long", "imagenet", "simclr-1000"}
    ceilings = {"false-every", "grass-oracle", "glcnet-class", "ssccl-class"}
    assert {a.name for a in proof.ARMS} - others - ceilings <= set(METHODS)
    assert {a.world for a in proof.ARMS} == set(proof.WORLDS)


@pytest.mark.parametrize("arm", ONE_EACH, ids=lambda a: a.label)
def test_each_arm_trains_a_step_with_its_own_views(arm, stack, tmp_path, monkeypatch):
    world = replace(proof.WORLDS[arm.world], pool=lambda: stack, px=48, steps=1)
    monkeypatch.setattr(trials, "BATCH", 16)
    monkeypatch.setattr(trials, "WIDTH", 8)
    sizes = stack, "no", lambda: False, 1
    method, config, log, complete = trials.trained(world, arm, 0, tmp_path / "run", *sizes)
    assert complete and config.total == 1 and np.isfinite(log[0]["loss"])
    assert method.plans() == (arm.views or proof.WORLDS[arm.world].views,) * 2


def test_the_main_arms_have_one_head():
    for arm in proof.main_arms():
        if arm.make and "head_norm" in method_options(
            method_class(arm.name.removesuffix("-long").removesuffix("-mean"))
        ):
            method = arm.make(Encoder(width=8, bands=3, stride=8))
            assert any(isinstance(m, torch.nn.BatchNorm1d) for m in method.head), arm.name


def test_a_partly_told_box_lies_on_the_object_in_its_share_of_the_views():
    boxes = torch.tensor([[0, 0, 8, 8]]).repeat(400, 1)
    mask = torch.full((400, 48, 48), GROUND)
    mask[:, 14:48, 14:48] = 4
    crop = proof.PartlyToldCrop.__new__(proof.PartlyToldCrop)
    crop.labels = mask

    class Pairs:
        size = (48, 48)

        def __len__(self):
            return 200

    for told in (0.25, 1.0):
        crop.told = told
        placed = crop.place(boxes, Pairs(), At(1.0, 1, torch.Generator().manual_seed(0)))
        on = (placed == torch.tensor([19, 19, 43, 43])).all(1).float().mean()
        assert abs(float(on) - told) < 0.07 and (placed[:, 2:] - placed[:, :2] == 24).all()


def test_arrangement_is_shared_by_the_asked_share_of_families(monkeypatch):
    rng = np.random.default_rng(0)
    textures = ImageSet(
        rng.integers(0, 256, (56, 3, 64, 64), dtype=np.uint8), np.arange(56) % 7, tuple("abcdefg")
    )
    monkeypatch.setattr(proof.controls, "rsscn7", lambda part, size: textures)
    half = proof.arranged_pool(0.5)
    content = np.sort(half.images.reshape(512, 4, -1), axis=-1)
    same = (content == content[:, :1]).all((1, 2))
    assert same[:256].mean() > 0.99 and same[256:].mean() < 0.01


def test_emulated_bfloat16_is_bfloat16(monkeypatch):
    torch.manual_seed(0)
    real = torch.nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)
    monkeypatch.setattr(trials, "native_bfloat16", lambda device: False)
    x = torch.randn(4, 8, 32, 32).to(memory_format=torch.channels_last)

    def passed(conv, half=True):
        "The map and the gradients of a pass and back."
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = conv(x)
        assert out.dtype == (torch.bfloat16 if half else torch.float32)
        out.float().square().mean().backward()
        return torch.cat([out.float().flatten(), *(p.grad.flatten() for p in conv.parameters())])

    plain, half = passed(real, half=False), passed(real)
    with trials.bfloat16_of_here("bf16"):
        emulated = passed(real)
        assert not emulated.equal(half) and passed(real, half=False).equal(plain)
    assert passed(real).equal(half)
    assert (emulated - half).norm() < (plain - half).norm() / 5


def test_rows_tell_a_precision_that_is_emulated(monkeypatch):
    monkeypatch.setattr(trials, "native_bfloat16", lambda device: False)
    assert [trials.precision_here(p) for p in ("bf16", "no")] == ["bf16 emulated", "no"]
    monkeypatch.setattr(trials, "native_bfloat16", lambda device: True)
    assert trials.precision_here("bf16") == "bf16"


def test_convolutions_that_fill_up_their_own_edges_are_left_alone(monkeypatch):
    monkeypatch.setattr(trials, "native_bfloat16", lambda device: False)
    same = pytest.importorskip("timm.layers").Conv2dSame(3, 4, 5, stride=2)
    x = torch.randn(1, 3, 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        plain = same(x)
        with trials.bfloat16_of_here("bf16"):
            assert plain.shape == (1, 4, 4, 4) and same(x).equal(plain)


def test_the_protocol_says_what_the_campaign_does():
    text = (EXPERIMENTS / "PROTOCOL.md").read_text()
    assert f"version {proof.PROTOCOL}" in text
    for name in ("cpu", "long", "imagenet", "continued"):
        assert f"- `{name}`" in text and f"{proof.WORLDS[name].steps:,}".replace(",", " ") in text
    for word in ("glcnet-mean", "simclr-long", "byol", "mocov2", "densecl", "lejepa"):
        assert word in text
