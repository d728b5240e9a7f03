"Encoders against torchvision, weights that travel, and decoders that draw."

import pytest
import torch

from rsssl_nb.encoders import ASPP, Encoder, Segmenter, projection_head
from rsssl_nb.weights import from_layout, load_into, load_weights, match, save_weights


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_stride_changes_the_map_and_no_weight(name, stride):
    encoder = Encoder(name, bands=5, width=8, stride=stride)
    f = encoder(torch.randn(2, 5, 64, 96))
    assert (
        f.dense.shape[2:] == (64 // stride, 96 // stride)
        and f.pooled.shape == (2, encoder.dim)
        and f.low.shape == (2, encoder.low_dim, 16, 24)
    )
    assert {k: v.shape for k, v in encoder.state_dict().items()} == {
        k: v.shape for k, v in Encoder(name, 5, 8, 32).state_dict().items()
    }


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_weights_both_ways_and_equal_features(name):
    from torchvision import models

    theirs = getattr(models, name)(weights=None).eval()
    ours = Encoder(name, stride=32, weights=theirs.state_dict()).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    again = getattr(models, name)(weights=None).eval()
    assert set(again.load_state_dict(ours.state_dict(), strict=False).missing_keys) == {
        "fc.weight",
        "fc.bias",
    }
    again.fc = theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        assert torch.allclose(ours(x).pooled, theirs(x), atol=1e-5) and torch.allclose(
            again(x), theirs(x), atol=1e-5
        )


def test_interop_libraries_take_the_weights():
    timm, smp = pytest.importorskip("timm"), pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    ours, x = Encoder("resnet50", stride=32).eval(), torch.randn(1, 3, 64, 64)
    model = timm.create_model("resnet50", num_classes=0).eval()
    assert not model.load_state_dict(ours.state_dict(), strict=False).missing_keys
    with torch.no_grad():
        assert torch.allclose(model(x), ours(x).pooled, atol=1e-4)
    net = smp.Unet("resnet50", encoder_weights=None).eval()
    net.encoder.load_state_dict(ours.state_dict())
    with torch.no_grad():
        assert torch.allclose(net.encoder(x)[-1], ours(x).dense, atol=1e-4)


def test_first_convolution_is_adapted_not_drawn_anew():
    rgb = Encoder(width=8)
    four = Encoder(bands=4, width=8, weights=rgb.state_dict())
    assert (
        torch.allclose(four.conv1.weight[:, 3], rgb.conv1.weight[:, 0] / 2)
        and torch.allclose(four.conv1.weight.sum(1), rgb.conv1.weight.sum(1), atol=1e-6)
        and torch.equal(four.layer1[0].conv1.weight, rgb.layer1[0].conv1.weight)
    )


@pytest.mark.parametrize(
    "options, words",
    [(dict(name="vgg"), "resnet18"), (dict(stride=4), "8, 16 or 32"), (dict(bands=0), "1 or more")],
)
def test_bad_encoders(options, words):
    with pytest.raises(ValueError, match=words):
        Encoder(**options)


def test_weights_of_another_architecture_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        Encoder("resnet18", width=8, weights=Encoder("resnet18", width=16).state_dict())
    with pytest.raises(ValueError, match="takes 3 bands"):
        Encoder(width=8)(torch.zeros(1, 4, 32, 32))
    with pytest.raises(ValueError, match="choose mlp"):
        projection_head(4, kind="conv")


def test_segmenters():
    for head in ("deeplab", "linear"):
        model = Segmenter(Encoder(bands=2, width=8), 3, head)
        assert model(torch.randn(2, 2, 40, 56)).shape == (2, 3, 40, 56)
    frozen = Segmenter(Encoder(bands=2, width=8), 3, frozen=True).train()
    before = {k: v.clone() for k, v in frozen.encoder.state_dict().items()}
    frozen(torch.randn(2, 2, 40, 40)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in frozen.encoder.state_dict().items()) and all(
        p.grad is None for p in frozen.encoder.parameters()
    )
    assert ASPP(6, 8).eval()(torch.randn(1, 6, 1, 1)).shape == (1, 8, 1, 1)


def test_weights_file(tmp_path):
    state = Encoder(width=8).state_dict()
    save_weights(tmp_path / "w.safetensors", state, dict(b=1, a=[2]))
    back, meta = load_weights(tmp_path / "w.safetensors")
    assert (
        meta == dict(a=[2], b=1)
        and all(torch.equal(back[k], v) for k, v in state.items())
        and [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    )
    for name, data in (
        ("cut", (tmp_path / "w.safetensors").read_bytes()[:-9]),
        ("text", b"hello"),
        ("empty", b""),
    ):
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match=name):
            load_weights(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match="none.st"):
        load_weights(tmp_path / "none.st")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    import os
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save({"state_dict": Bomb()}, tmp_path / "bomb2.pth")
    for name in ("bomb", "bomb2"):
        with pytest.raises(ValueError, match=f"{name}.pth"):
            load_weights(tmp_path / f"{name}.pth")
    assert not (tmp_path / "ran").exists()


def test_foreign_layouts_and_partial_loads():
    state, model = Encoder(width=8).state_dict(), Encoder(width=8)
    moco = {
        **{f"module.encoder_q.{k}": v for k, v in state.items()},
        **{f"module.encoder_k.{k}": v + 1 for k, v in state.items()},
        "module.queue": torch.zeros(3),
    }
    vissl = {f"base_model.model.trunk._feature_blocks.{k}": v for k, v in state.items()}
    for foreign in (moco, vissl, {f"backbone.{k}": v for k, v in state.items()}):
        assert len(load_into(model, from_layout(foreign)).matched) == len(state)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="none of"):
        load_into(model, {"x.y": torch.zeros(2)})
    part = {k: v for k, v in state.items() if not k.startswith("layer4")}
    with pytest.raises(ValueError, match="missing from the file"):
        load_into(model, part)
    assert (
        all(k.startswith("layer4") for k in load_into(model, part, allow=["layer4."]).missing)
        and match(model, part).missing
    )
