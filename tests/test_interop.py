"""Weights out to torchvision, timm and segmentation-models-pytorch, and in from VISSL, MoCo and lightly:
every tensor there, the same features.
"""

import io
import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.weights import export, from_layout, load, load_into, load_weights, networks, save_weights

PASSPORT = dict(
    band_names=["b", "g", "r"],
    mean=[1.0, 2.0, 3.0],
    std=[4.0, 5.0, 6.0],
    pixel_size=[10.0, 10.0],
    method="simclr",
    commit="abc",
)


def seeded(name="resnet18", bands=3, width=64, stride=32, seed=0):
    """An encoder with statistics that are not those of a fresh BatchNorm, so that a lost running mean shows
    in the features.
    """
    torch.manual_seed(seed)
    encoder = Encoder(name, bands, width, stride)
    for m in encoder.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 2)
            m.weight.data.uniform_(0.3, 0.7)
            m.bias.data.normal_(0, 0.1)
            m.num_batches_tracked.fill_(7)
    return encoder.eval()


def images(bands=3):
    return torch.randn(2, bands, 64, 96, generator=torch.Generator().manual_seed(1))


def map_of(m, x):
    return m.layer4(m.layer3(m.layer2(m.layer1(m.maxpool(m.relu(m.bn1(m.conv1(x))))))))


def same(a, b):
    "To 1e-5 of the values themselves; none of them so small that this says nothing."
    assert a.shape == b.shape and b.abs().max() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


CASES = pytest.mark.parametrize("name, bands", [("resnet50", 3), ("resnet18", 4)])


@CASES
@torch.no_grad()
def test_torchvision_takes_the_export(tmp_path, name, bands):
    from torchvision import models

    ours, model = seeded(name, bands), getattr(models, name)(weights=None)
    if bands != 3:
        model.conv1 = nn.Conv2d(bands, 64, 7, 2, 3, bias=False)
    state, _ = load_weights(export(ours, tmp_path / "w.safetensors", "torchvision"))
    told = model.load_state_dict(state, strict=False)
    assert set(told.missing_keys) == {"fc.weight", "fc.bias"} and told.unexpected_keys == []
    same(map_of(model.eval(), images(bands)), ours(images(bands)).dense)


@CASES
@torch.no_grad()
def test_timm_takes_the_export(tmp_path, name, bands):
    timm = pytest.importorskip("timm")
    ours, path = seeded(name, bands), tmp_path / "w.safetensors"
    state, _ = load_weights(export(ours, path, "timm"))
    model = timm.create_model(name, pretrained=False, in_chans=bands)
    found = load_into(model, state, allow=["fc."])
    assert found.missing == ["fc.weight", "fc.bias"] and found.unexpected == found.mismatched == []
    same(model.eval().forward_features(images(bands)), ours(images(bands)).dense)
    direct = timm.create_model(
        name, pretrained=False, in_chans=bands, num_classes=0, checkpoint_path=str(path)
    ).eval()  # timm's own strict reader
    same(direct(images(bands)), ours(images(bands)).pooled)


@CASES
@torch.no_grad()
def test_smp_takes_the_export(tmp_path, name, bands):
    smp = pytest.importorskip("segmentation_models_pytorch")
    ours, net = seeded(name, bands), smp.Unet(name, encoder_weights=None, in_channels=bands)
    state, _ = load_weights(export(ours, tmp_path / "w.safetensors", "smp"))
    found = load_into(net, state, allow=["decoder.", "segmentation_head."])
    assert len(found.matched) == len(state) == len(net.encoder.state_dict()) and not any(
        k.startswith("encoder.") for k in found.missing
    )
    same(net.eval().encoder(images(bands))[-1], ours(images(bands)).dense)
    alone = smp.Unet(name, encoder_weights=None, in_channels=bands).encoder.eval()
    alone.load_state_dict(
        load_weights(export(ours, tmp_path / "tv.safetensors", "torchvision"))[0]
    )  # the encoder by itself: torchvision's names
    same(alone(images(bands))[-1], ours(images(bands)).dense)


@pytest.mark.parametrize("stride", [8, 16])
@torch.no_grad()
def test_smp_dilates_as_we_do(stride):
    smp, ours = pytest.importorskip("segmentation_models_pytorch"), seeded("resnet18", stride=stride)
    net = smp.DeepLabV3Plus("resnet18", encoder_weights=None, encoder_output_stride=stride).eval()
    net.encoder.load_state_dict(ours.state_dict())
    same(net.encoder(images())[-1], ours(images()).dense)


@torch.no_grad()
def test_torchvision_and_timm_dilate_otherwise():
    "The page says so; when they change their minds, so must it."
    from torchvision.models import resnet50

    ours = seeded("resnet50", stride=8)
    theirs = resnet50(weights=None, replace_stride_with_dilation=[False, True, True]).eval()
    load_into(theirs, ours.state_dict(), allow=["fc."])
    a, b = ours(images()).dense, map_of(theirs, images())
    assert (a - b).norm() > 0.05 * b.norm()
    timm = pytest.importorskip("timm")
    other = timm.create_model("resnet50", output_stride=8).eval()
    load_into(other, ours.state_dict(), allow=["fc."])
    same(other.forward_features(images()), b)


@pytest.mark.parametrize("to", ["torchvision", "timm", "smp"])
def test_the_passport_travels_and_the_file_comes_back(tmp_path, to):
    ours = seeded(stride=16)
    back = load(export(ours, tmp_path / "w.safetensors", to, PASSPORT))
    assert (
        {k: back.meta[k] for k in PASSPORT} == PASSPORT
        and back.meta["layout"] == to
        and back.encoder.stride == 16
        and back.aside == []
    )
    assert all(torch.equal(v, ours.state_dict()[k]) for k, v in back.encoder.state_dict().items())
    assert "passport is complete" in repr(back) and "120 tensors matched, 0 missing" in repr(back)
    first = (tmp_path / "w.safetensors").read_bytes()
    assert (
        export(ours, tmp_path / "w.safetensors", to, PASSPORT).read_bytes() == first
        and len(list(tmp_path.iterdir())) == 1
    )


def test_a_run_goes_out_by_folder_object_and_checkpoint(tmp_path):
    from rsssl_nb.data.scenes import make_scene
    from rsssl_nb.training.pretrain import load_encoder, pretrain

    scene, how = (
        make_scene(64, seed=1),
        dict(epochs=1, batch=2, samples=2, size=32, width=64, progress=False, device="cpu"),
    )
    run = pretrain(scene, out=tmp_path / "run", **how)
    by_folder, by_object = export(tmp_path / "run"), export(run, tmp_path / "o.safetensors")
    assert (
        by_folder == tmp_path / "run" / "resnet18-torchvision.safetensors"
        and by_folder.read_bytes() == by_object.read_bytes()
    )
    state, meta = load_weights(by_folder)
    assert (
        all(torch.equal(v, state[k]) for k, v in run.encoder.state_dict().items())
        and meta["mean"] == list(run.config.mean)
        and meta["method"] == "simclr"
    )
    assert torch.equal(load_encoder(by_folder)[0].conv1.weight, state["conv1.weight"])
    (tmp_path / "run" / "encoder.safetensors").unlink()  # as if it had not finished
    with pytest.raises(
        ValueError, match=r"no finished run: resume it, or give its checkpoint .*step-\d+\.pt"
    ):
        export(tmp_path / "run")
    last = max((tmp_path / "run" / "checkpoint").glob("*.pt"))
    state, meta = load_weights(export(last, tmp_path / "c.safetensors"))
    assert (
        torch.equal(state["conv1.weight"], run.encoder.conv1.weight)
        and meta["mean"] == list(run.config.mean)
        and meta["stride"] == 8
    )
    memory = pretrain(scene, **how)
    with pytest.raises(ValueError, match="give a path"):
        export(memory)
    assert load_weights(export(memory, tmp_path / "m.safetensors"))[1]["std"] == pytest.approx(
        list(memory.config.std)
    )


def test_a_segmenter_gives_its_encoder(tmp_path):
    model = Segmenter(seeded(bands=2), 3)
    model.mean.copy_(torch.tensor([1.0, 2.0]))
    state, meta = load_weights(export(model, tmp_path / "s.safetensors", "timm"))
    assert (
        state.keys() == model.encoder.state_dict().keys()
        and meta["mean"] == [1.0, 2.0]
        and meta["kind"] == "encoder"
    )
    save_weights(
        tmp_path / "segmenter.safetensors",
        model.state_dict(),
        dict(kind="segmenter", classes=["a", "b", "c"], std=[1.0, 1.0], stride=32),
    )
    state, meta = load_weights(export(tmp_path, to="smp"))
    assert (
        torch.equal(state["encoder.conv1.weight"], model.encoder.conv1.weight)
        and "classes" not in meta
        and meta["std"] == [1.0, 1.0]
    )


def test_exports_that_are_refused(tmp_path):
    narrow, ours, out = seeded(width=16), seeded(), tmp_path / "w.safetensors"
    (tmp_path / "config.json").write_text("{}")
    for source, options, words in [
        (narrow, {}, "16 channels wide.*width 64"),
        (ours, dict(to="keras"), "keras.*torchvision, timm, smp"),
        (nn.Linear(2, 2), {}, "Linear holds no encoder"),
        (ours, dict(meta=dict(mean=[1.0])), "mean has 1 values and the encoder 3 bands"),
        (ours, dict(path=tmp_path / "w.pth"), "name it so"),
        (ours, dict(path=tmp_path / "encoder.safetensors"), "run's own encoder"),
        (ours, dict(path=None), "give a path"),
        (tmp_path, {}, "no finished run"),
        (tmp_path / "none", {}, "none does not exist"),
    ]:
        with pytest.raises(ValueError, match=words):
            export(source, **{"path": out, **options})
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


# -- in: released layouts


def vissl(state):
    "The wrapper of facebookresearch/vissl issue 235, its trunk names of issue 292."
    trunk = {f"_feature_blocks.{k}": v for k, v in state.items()}
    model = dict(model=dict(trunk=trunk, heads={"0.clf.0.weight": torch.zeros(4, 4)}), meters={})
    return dict(
        phase_idx=9,
        iteration=100,
        loss={},
        classy_state_dict=dict(
            train=True,
            base_model=model,
            meters=[],
            optimizer=dict(optim=dict(state={0: dict(momentum_buffer=torch.zeros(3))})),
            phase_idx=9,
        ),
    )


def moco(state):
    fc = {"fc.0.weight": torch.zeros(4, 4), "fc.2.weight": torch.zeros(4, 4)}
    both = {f"module.encoder_{w}.{k}": v + (w == "k") for w in "kq" for k, v in {**state, **fc}.items()}
    return dict(
        epoch=200,
        arch="resnet18",
        state_dict={
            **both,
            "module.queue": torch.zeros(4, 8),
            "module.queue_ptr": torch.zeros(1, dtype=torch.long),
        },
        optimizer=dict(state={}, param_groups=[]),
    )


def lightly(state):
    """As its examples build it: Sequential of a torchvision ResNet's children, in a LightningModule with a
    projection head and a momentum copy.
    """
    from rsssl_nb.encoders import trunk

    model = trunk("resnet18", state["conv1.weight"].shape[1], state["conv1.weight"].shape[0], 32)
    model.load_state_dict(state)
    numbered = nn.Sequential(*list(model.children())[:-1]).state_dict()
    return dict(
        epoch=3,
        global_step=40,
        state_dict={
            **{f"backbone.{k}": v for k, v in numbered.items()},
            **{f"backbone_momentum.{k}": v + 1 for k, v in numbered.items()},
            "projection_head.layers.0.weight": torch.zeros(4, 4),
        },
        optimizer_states=[],
        hyper_parameters=dict(lr=0.1),
    )


@pytest.mark.parametrize(
    "layout, prefix, ending",
    [
        (vissl, "base_model.model.trunk._feature_blocks.", "torch"),
        (moco, "module.encoder_q.", "pth.tar"),
        (lightly, "backbone.", "ckpt"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
@torch.no_grad()
def test_released_layouts_load_whole(tmp_path, layout, prefix, ending, legacy):
    theirs, path = seeded(bands=4, width=8), tmp_path / f"w.{ending}"
    torch.save(layout(theirs.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    got = load(path, stride=32)
    assert got.prefix == prefix and (got.encoder.name, got.encoder.bands, got.encoder.width) == (
        "resnet18",
        4,
        8,
    )
    assert (
        len(got.match.matched) == 120
        and got.match.missing == got.match.unexpected == got.match.mismatched == []
    )
    same(got.encoder.eval()(images(4)).dense, theirs(images(4)).dense)
    assert (
        got.aside
        and not any(k.startswith(f"{prefix}layer") for k in got.aside)
        and "does not say: band names, mean, std" in repr(got)
    )


def test_a_released_file_goes_on_to_another_library(tmp_path):
    theirs = seeded()
    torch.save(moco(theirs.state_dict()), tmp_path / "moco.pth.tar")
    state, meta = load_weights(export(tmp_path / "moco.pth.tar", to="smp"))
    assert (
        torch.equal(state["encoder.conv1.weight"], theirs.conv1.weight)
        and len(state) == 120
        and meta["encoder"] == "resnet18"
    )


def test_lightlys_own_examples_write_this_layout(tmp_path):
    "A real lightly module, not our idea of one."
    heads = pytest.importorskip("lightly.models.modules")
    from torchvision.models import resnet18

    class SimCLR(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(*list(resnet18(weights=None).children())[:-1])
            self.projection_head = heads.SimCLRProjectionHead(512, 512, 128)

    model = SimCLR()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "l.ckpt")
    got = load(tmp_path / "l.ckpt")
    assert (
        len(got.match.matched) == 120
        and torch.equal(got.encoder.conv1.weight, model.backbone[0].weight)
        and all(k.startswith("projection_head.") for k in got.aside)
    )


def test_which_network_of_several():
    state = Encoder(width=4).state_dict()
    pair = {f"{who}.{k}": v + (who == "teacher") for who in ("student", "teacher") for k, v in state.items()}
    assert (
        networks(pair) == ["student.", "teacher."]
        and networks(state) == [""]
        and networks({"a.weight": torch.zeros(1)}) == []
    )
    with pytest.raises(ValueError, match="2 ResNets: choose one with prefix='student.' or 'teacher.'"):
        from_layout(pair)
    assert torch.equal(from_layout(pair, "teacher.")["bn1.weight"], state["bn1.weight"] + 1)
    with pytest.raises(ValueError, match="under prefix 'online.'"):
        from_layout(pair, "online.")
    deep = {f"model.encoder_{w}.{k}": v + (w == "k") for w in "kq" for k, v in state.items()}
    assert torch.equal(from_layout(deep)["bn1.weight"], state["bn1.weight"])  # encoder_q, behind any wrapper
    swav = {
        f"module.{k}": v
        for k, v in {
            **state,
            "projection_head.0.weight": torch.zeros(2),
            "prototypes.weight": torch.zeros(2),
        }.items()
    }
    assert from_layout(swav).keys() == state.keys()


def test_bands_are_adapted_when_asked_and_only_then(tmp_path):
    rgb = seeded(width=8)
    save_weights(tmp_path / "w.safetensors", rgb.state_dict(), {})
    with pytest.raises(ValueError, match="w.safetensors: 1 tensors are of another shape, first conv1.weight"):
        load(tmp_path / "w.safetensors", into=Encoder(bands=5, width=8))
    six, grey = load(tmp_path / "w.safetensors", bands=6).encoder, images(1)
    with torch.no_grad():
        same(six.conv1(grey.expand(-1, 6, -1, -1)), rgb.conv1(grey.expand(-1, 3, -1, -1)))
    assert load(tmp_path / "w.safetensors", bands=5).encoder.bands == 5 and torch.equal(
        six.layer4[1].conv2.weight, rgb.layer4[1].conv2.weight
    )


def test_partial_files_need_a_name(tmp_path):
    whole = seeded(width=8).state_dict()
    part = {k: v for k, v in whole.items() if not k.startswith("layer4.")}
    torch.save(part, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="part.pth: a ResNet with 2, 2, 2, 0 blocks"):
        load(tmp_path / "part.pth")
    with pytest.raises(ValueError, match="part.pth: 25 tensors are missing"):
        load(tmp_path / "part.pth", into=Encoder(width=8))
    target = Encoder(width=8)
    before = target.layer4[0].conv1.weight.clone()
    got = load(tmp_path / "part.pth", into=target, allow=["layer4."])
    assert (
        got.encoder is target
        and torch.equal(target.layer4[0].conv1.weight, before)
        and torch.equal(target.conv1.weight, whole["conv1.weight"])
    )
    assert all(k.startswith("layer4.") for k in got.match.missing) and got.match.missing
    torch.save({**whole, "attention.weight": torch.zeros(2)}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match="1 tensors are unknown to the model, first attention.weight"):
        load(tmp_path / "more.pth")
    old = {
        k: v for k, v in whole.items() if not k.endswith("num_batches_tracked")
    }  # files older than the counters
    torch.save(old, tmp_path / "old.pth")
    assert len(load(tmp_path / "old.pth").match.matched) == 100


# -- in: files that are not weights


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def bad_files(folder):
    good = io.BytesIO()
    torch.save(dict(state_dict=moco(Encoder(width=4).state_dict())["state_dict"]), good)
    legacy = io.BytesIO()
    torch.save(Encoder(width=4).state_dict(), legacy, _use_new_zipfile_serialization=False)
    bomb = io.BytesIO()
    torch.save(dict(state_dict=Bomb(folder / "ran")), bomb)
    save_weights(folder / "s.safetensors", Encoder(width=4).state_dict(), {})
    safe = (folder / "s.safetensors").read_bytes()
    (folder / "s.safetensors").unlink()
    tensor = io.BytesIO()
    torch.save(torch.zeros(3), tensor)
    numbers = io.BytesIO()
    torch.save(dict(epoch=3, loss=0.2), numbers)
    return {
        "empty.pth": (b"", "is empty"),
        "empty.safetensors": (b"", "is empty"),
        "cut.pth.tar": (good.getvalue()[:-2000], "damaged"),
        "cut.torch": (legacy.getvalue()[:5000], "damaged"),
        "cut.safetensors": (safe[:-9], "damaged"),
        "cut2.safetensors": (safe[:7], "not a weights file"),
        "cut3.safetensors": (safe[:100], "damaged"),
        "bomb.ckpt": (bomb.getvalue(), r"would run code.*(posix|nt)\.system"),
        "bomb.safetensors": (bomb.getvalue(), "would run code"),
        "pickle.pt": (pickle.dumps(Bomb(folder / "ran")), "would run code"),
        "page.pth": (b"<!DOCTYPE html>", "DOCTYPE.*download it again"),
        "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "version h"),
        "photo.pth": (b"\x89PNG\r\n\x1a\n0000", "not a weights file"),
        "office.pt": (b"PK\x03\x04" + bytes(60), "damaged"),
        "tensor.pt": (tensor.getvalue(), "no named tensors"),
        "numbers.pt": (numbers.getvalue(), "no named tensors"),
    }


def test_bad_files_are_refused_in_one_sentence(tmp_path, recwarn):
    for name, (data, words) in bad_files(tmp_path).items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=words) as told:
            load(tmp_path / name)
        text = str(told.value)
        assert str(tmp_path / name) in text and ": " in text and "\n" not in text and len(text) < 400, text
    assert (
        not (tmp_path / "ran").exists()
        and [str(w.message) for w in recwarn if "pickle" in str(w.message)] == []
    )
    with pytest.raises(ValueError, match="folder"):
        load(tmp_path)


def test_weights_of_something_else_are_refused(tmp_path):
    torch.save({"state_dict": nn.Linear(3, 3).state_dict()}, tmp_path / "linear.pth")
    with pytest.raises(
        ValueError, match="linear.pth: there is no ResNet among the file's 2 tensors.*first: weight"
    ):
        load(tmp_path / "linear.pth")
    from torchvision.models import resnet101

    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in resnet101(weights=None).state_dict().items()}
    save_weights(
        tmp_path / "r101.safetensors",
        {
            k: torch.zeros(()).expand(s)
            for k, s in shapes.items()
            if "layer3" in k or "layer1.0" in k or k == "conv1.weight"
        },
        {},
    )
    with pytest.raises(
        ValueError, match=r"r101.safetensors: a ResNet with 1, 0, 23, 0 blocks \(Bottleneck\)"
    ):
        load(tmp_path / "r101.safetensors")


def test_equal_names_of_other_shapes_are_told_with_their_shapes():
    with pytest.raises(ValueError, match=r"first weight: \(2, 2\) for \(4, 3\).*of another size"):
        load_into(torch.nn.Linear(3, 4), {"weight": torch.zeros(2, 2), "more": torch.zeros(1)})


def test_the_module_does_not_wake_the_other_libraries():
    code = (
        "import rsssl_nb.weights, sys, json; print(json.dumps([n for n in ('torchvision', 'timm', "
        "'segmentation_models_pytorch', 'lightly') if n in sys.modules]))"
    )
    assert (
        json.loads(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        )
        == []
    )
