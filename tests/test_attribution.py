"Attribution against its formulas written out again, GraSS's map, odd batches, and the two trials."

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.explain.attribution import (
    HOWS,
    LAYERS,
    SLOW,
    Scalar,
    Stopped,
    agreement,
    attribute,
    box_mask,
    class_in,
    contrast,
    erasure,
    evaluating,
    heat,
    likeness,
    predicted_as,
    randomised,
    sanity,
    scaled,
)
from rsssl_nb.methods.base import At
from rsssl_nb.methods.false import FALSE
from rsssl_nb.methods.glcnet import GLCNet
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.methods.ssccl import SSCCL
from rsssl_nb.objectives.nce import nce
from rsssl_nb.views.pairs import two_views


def images(n=4, bands=3, side=32, seed=0):
    "Smooth random images."
    x = torch.randn(n, bands, side // 4, side // 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(x, side, mode="bilinear")


def build(cls=SimCLR, bands=3, **options):
    torch.manual_seed(0)
    return cls(Encoder(bands=bands, width=8), **{**({} if cls in (GLCNet,) else dict(dim=16)), **options})


def state(network):
    return [m.training for m in network.modules()], {k: v.clone() for k, v in network.state_dict().items()}


@pytest.fixture
def pair():
    return two_views(images(), 32, seed=1)


@pytest.mark.parametrize("cls", [SimCLR, FALSE, GraSS])
def test_contrast_is_the_methods_own_loss_and_its_partial_derivative(cls, pair):
    method = build(cls).eval()
    f, live = contrast(method, pair), pair.a.clone().requires_grad_()
    whole = method.contrast(*method.project(torch.cat([live, pair.b]))[0].chunk(2), At(1.0))[0]
    assert torch.allclose(f(pair.a), whole.detach().expand(4), atol=1e-6)
    (want,) = torch.autograd.grad(whole, live)
    (got,) = torch.autograd.grad(f(live).sum(), live)
    assert torch.allclose(got, want, atol=1e-7) and got.abs().max() > 1e-5


def test_contrast_freezes_keys_for_any_number_of_copies(pair):
    method = build().eval()
    f, moved = contrast(method, pair), pair.a * 0.5
    both = f(torch.cat([pair.a, moved]))
    assert torch.allclose(both, torch.cat([f(pair.a), f(moved)]), atol=1e-6)
    za, zb = (method.project(v)[0].detach() for v in (pair.a, pair.b))
    for i in range(4):  # one image moved, all others where they were
        z = za.clone()
        z[i] = method.project(moved[[i]])[0][0]
        assert torch.allclose(both[4 + i], nce(z, zb, method.tau), atol=1e-6)
    some = contrast(method, pair, [2, 0])
    assert torch.allclose(some(torch.cat([moved[[2, 0]]] * 3)), f(moved)[[2, 0]].repeat(3), atol=1e-6)


@pytest.mark.parametrize(
    "network", [build().encoder, build(GLCNet), build(SSCCL)], ids=["encoder", "GLCNet", "SSCCL"]
)
def test_contrast_of_other_networks_is_infonce_of_pooled_features(network, pair):
    encoder = getattr(network, "encoder", network).eval()
    want = nce(encoder(pair.a).pooled, encoder(pair.b).pooled, 0.2)
    assert torch.allclose(contrast(network, pair, tau=0.2).eval()(pair.a), want.expand(4), atol=1e-6)


def test_likeness_is_a_cosine(pair):
    encoder = build().encoder.eval()
    keys, f = torch.randn(4, encoder.dim), encoder(pair.a)
    want = torch.cosine_similarity(f.pooled, keys)
    assert torch.allclose(likeness(encoder, keys)(torch.cat([pair.a, pair.a])), want.repeat(2), atol=1e-5)
    at = torch.cosine_similarity(f.dense[:, :, 1, 2], keys[:1])  # the centre of cell (2, 1) is pixel (20, 12)
    assert torch.allclose(likeness(encoder, keys[0], (20, 12))(pair.a), at, atol=1e-5)


def test_class_in_is_the_mean_logit_over_the_region(pair):
    segmenter = Segmenter(build().encoder, 5, head="linear").eval()
    region, logits = torch.rand(4, 32, 32) > 0.7, segmenter(pair.a)
    want = torch.stack([rows[3][r].mean() for rows, r in zip(logits, region)])
    assert torch.allclose(class_in(segmenter, 3, region)(torch.cat([pair.a] * 3)), want.repeat(3), atol=1e-5)
    assert torch.allclose(
        class_in(segmenter, 3, box_mask((4, 8, 12, 99), (32, 32)))(pair.a),
        logits[:, 3, 8:, 4:12].mean((1, 2)),
        atol=1e-5,
    )
    assert (
        torch.equal(predicted_as(segmenter.train(), pair.a, 3), logits.argmax(1) == 3) and segmenter.training
    )
    region[2] = False
    with pytest.raises(ValueError, match="holds no pixel"):
        class_in(segmenter, 3, region)
    for box in ((5, 5, 5, 9), (40, 0, 50, 9), (9, 9, 2, 2), (-9, -9, -1, -1)):
        with pytest.raises(ValueError, match="draw it on the image"):
            box_mask(box, (32, 32))


class Small(nn.Module):
    "A network whose every ReLU is a module."

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer4 = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU()
        )
        self.last = nn.Linear(5, 1)

    def forward(self, x):
        return self.last(self.layer4(x).mean((2, 3)))[:, 0]


@pytest.fixture
def small():
    network = Small()
    return Scalar(network, lambda x: network(x)), images(3, 2, 12, seed=5)


def gradient(f, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def test_saliency_and_integrated_gradients_from_their_formulas(small):
    f, x = small
    assert torch.allclose(attribute(f, x, "saliency"), gradient(f, x).abs(), atol=1e-7)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    base = torch.full_like(x, 0.3)
    want = sum(w / 2 * gradient(f, base + (t + 1) / 2 * (x - base)) for t, w in zip(nodes, weights)) * (
        x - base
    )
    assert torch.allclose(attribute(f, x, "integrated_gradients", baseline=0.3), want, atol=1e-6)
    assert torch.allclose(attribute(f, x, "integrated_gradients", baseline=base, batch=7), want, atol=1e-6)


def test_gradcam_from_its_formula(small):
    f, x = small
    A = f.network.layer4(x).detach().requires_grad_()
    (G,) = torch.autograd.grad(f.network.last(A.mean((2, 3))).sum(), A)
    want = (G.mean((2, 3), keepdim=True) * A).sum(1, keepdim=True).detach()
    assert torch.allclose(attribute(f, x, "gradcam"), want, atol=1e-7)
    assert torch.allclose(attribute(f, x, "gradcam", layer=f.network.layer4), want, atol=1e-7)
    assert heat(torch.tensor([[[[1.0]], [[-3.0]]]])).tolist() == [[[-2]]]
    assert torch.allclose(heat(want, (24, 24)), nn.functional.interpolate(want, 24, mode="bilinear")[:, 0])


def test_guided_backprop_from_its_formula(small):
    f, x = small

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.relu()

        @staticmethod
        def backward(ctx, g):
            return g.clamp(min=0) * (ctx.saved_tensors[0] > 0)

    a, _, b, _ = f.network.layer4
    want = gradient(lambda x: f.network.last(Guided.apply(b(Guided.apply(a(x)))).mean((2, 3)))[:, 0], x)
    assert torch.allclose(attribute(f, x, "guided_backprop"), want, atol=1e-7) and not torch.allclose(
        want, gradient(f, x)
    )
    assert torch.allclose(gradient(f, x).abs(), attribute(f, x), atol=1e-7)  # no hook is left behind


@pytest.mark.parametrize("window, stride", [(3, 3), (4, 2), (None, None), (12, 12)])
def test_occlusion_from_its_formula(small, window, stride):
    f, x = small
    side = window or 3
    step = stride or 2
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    starts = range(0, -(-(12 - side) // step) * step + 1, step)
    for y0 in starts:
        for x0 in starts:
            hidden = x.clone()
            hidden[:, :, y0 : y0 + side, x0 : x0 + side] = 0.1
            total[:, :, y0 : y0 + side, x0 : x0 + side] += (f(x) - f(hidden)).detach().view(-1, 1, 1, 1)
            count[:, :, y0 : y0 + side, x0 : x0 + side] += 1
    found = attribute(f, x, "occlusion", window=window, stride=stride, baseline=0.1)
    assert torch.allclose(found, total / count, atol=1e-6)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("bands", [1, 2, 7])
def test_any_bands_and_no_image_knows_its_neighbours(how, bands):
    method, batch = build(bands=bands), two_views(images(3, bands), 32, seed=2)
    before = state(method)
    found = attribute(contrast(method, batch), batch.a, how)
    assert (
        found.shape == ((3, 1, 4, 4) if how == "gradcam" else (3, bands, 32, 32)) and not found.requires_grad
    )
    assert found.isfinite().all() and found.flatten(1).any(1).all()
    alone = attribute(contrast(method, batch, [1]), batch.a[[1]], how)
    assert torch.allclose(
        alone[0], found[1], atol=1e-6 + 1e-4 * float(found.abs().max())
    )  # a difference of losses has their rounding
    assert before[0] == state(method)[0] and all(
        torch.equal(v, before[1][k]) for k, v in method.state_dict().items()
    )
    assert all(p.grad is None for p in method.parameters())


@pytest.mark.parametrize("sign", [1, -1])
def test_the_loss_map_of_grass_is_gradcam(sign, pair):
    method = build(GraSS, sign=sign).eval()
    cam = torch.cat([attribute(contrast(method, p), p.a, "gradcam")[:, 0] for p in (pair, pair.swap())])
    want = sign * method.encoder.dim * method.guide(pair)
    assert (cam - want).abs().max() < 1e-5 * want.abs().max() and want.abs().max() > 0


@pytest.mark.parametrize("how", HOWS)
def test_where_nothing_was_measured(how, pair):
    method, hole = build(), pair.a.clone()
    hole[0], hole[1, :, :, 16:], hole[2, 1, :5] = float("nan"), float("nan"), float("nan")
    f = contrast(method, pair)
    found = attribute(f, hole, how)
    assert found.isfinite().all() and not found[0].any() and found[1].any()
    if how != "gradcam":
        assert not found[1, :, :, 16:].any() and not found[2, 1, :5].any() and found[2, 0, :5].any()
    assert torch.equal(attribute(f, hole.nan_to_num(), how)[:2], found[:2])
    assert not attribute(f, hole * float("nan"), how).any() and not attribute(f, hole * 0, how).any()
    broken = two_views(images(), 32, seed=1)
    broken.b[0] = float("nan")
    assert attribute(contrast(method, broken), broken.a, how).isfinite().all()


@pytest.mark.parametrize("how", HOWS)
def test_stopped_between_passes(how, small):
    f, x = small
    passes = []
    with pytest.raises(Stopped):
        attribute(f, x, how, stop=lambda: passes.append(1) or len(passes) > (2 if how in SLOW else 0))
    assert len(passes) == (3 if how in SLOW else 1)
    assert f.training and torch.allclose(attribute(f, x), gradient(f, x).abs(), atol=1e-7)
    with pytest.raises(Stopped):
        erasure(f, x, x[:, 0], stop=lambda: True)


def test_slow_methods_keep_to_the_batch(small):
    f, x = small
    sizes = []
    counted = Scalar(f.network, lambda images: sizes.append(len(images)) or f(images))
    for how in SLOW:
        for batch, most in ((1, 3), (3, 3), (6, 6)):
            sizes.clear()
            attribute(counted, x, how, batch=batch)
            assert max(sizes) == most, (how, batch)


def test_a_frozen_segmenter_can_be_asked(pair):
    segmenter = Segmenter(build().encoder, 3, head="linear", frozen=True).train()
    f = class_in(segmenter, 1, torch.ones(32, 32))
    assert all(attribute(f, pair.a, how).any() for how in HOWS) and not segmenter.encoder.training


def test_wrong_questions(pair):
    f = contrast(build(), pair)
    with pytest.raises(ValueError, match="how 'magic' is not known: choose saliency"):
        attribute(f, pair.a, "magic")
    with pytest.raises(ValueError, match="layer 'layer9' is not known"):
        attribute(f, pair.a, "gradcam", layer="layer9")
    with pytest.raises(ValueError, match="takes 3 bands"):
        attribute(f, pair.a[:, :2])


def test_layers_have_their_own_maps(pair):
    f = contrast(build(), pair)
    assert [attribute(f, pair.a, "gradcam", layer=name).shape[-1] for name in LAYERS] == [8, 4, 4, 4]


def test_agreement_is_spearmans():
    g = torch.Generator().manual_seed(0)
    p, q = torch.randint(0, 9, (5, 6, 7), generator=g).float(), torch.randn(5, 6, 7, generator=g)
    want = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(p, q)]
    assert np.allclose(agreement(p, q), want) and torch.allclose(
        agreement(p, p.exp()), torch.ones(5).double()
    )
    assert agreement(p, torch.zeros(5, 6, 7)).tolist() == [0] * 5


def test_randomised_copies(pair):
    method = build()
    before = state(method)[1]
    other, same = randomised(method, ["layer4"], 1), randomised(method, ["layer4"], 1)
    changed = {k.split(".")[1] for k, v in other.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"layer4"} and all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in other.state_dict().items())
    w, v = (n.encoder.layer4[0].conv2.weight for n in (method, other))
    assert abs(v.std() / w.std() - 1) < 0.05


def test_sanity_goes_from_the_top_down(pair):
    method = build()
    found = sanity(lambda n: contrast(n, pair), method, pair.a, "saliency")
    assert list(found) == ["layer4", "layer4..layer3", "layer4..layer2", "layer4..layer1", "layer4..conv1"]
    other = randomised(method, ["layer4", "layer3"])
    maps = [heat(attribute(contrast(n, pair), pair.a)) for n in (method, other)]
    assert torch.allclose(found["layer4..layer3"], agreement(*maps)) and all(
        (v < 0.99).all() for v in found.values()
    )


def test_erasure_of_a_sum():
    x = torch.tensor([[[[4.0, 1.0], [3.0, 2.0]]]])
    f = Scalar(nn.Identity(), lambda v: v.sum((1, 2, 3)))
    assert erasure(f, x, x[:, 0], steps=4).tolist() == [[10, 6, 3, 1, 0]]
    assert erasure(f, x, x[:, 0], steps=4, insert=True).tolist() == [[0, 4, 7, 9, 10]]
    assert erasure(f, x, -x[:, 0], steps=2, baseline=1.0).tolist() == [[10, 9, 4]]
    assert erasure(f, x, torch.zeros(1, 2, 2), steps=1, baseline=torch.full_like(x, 2)).tolist() == [[10, 8]]


def test_scaled_for_pictures():
    m = torch.randn(3, 20, 20)
    m[1] = 0
    m[2, 1:] = 0  # one row in twenty
    s = scaled(m, 90)
    assert (
        s.abs().max() <= 1
        and (s[0].abs() == 1).float().mean() == pytest.approx(0.1, abs=0.01)
        and not s[1].any()
    )
    assert s[2].abs().max() == 1 and (s[2].abs() == 1).sum() == 1  # most of it is 0: its peak is the measure
    assert torch.equal(s.sign(), m.sign())


def test_evaluating_gives_every_module_its_mode_back():
    method = build()
    method.encoder.layer2.eval()
    before = state(method)[0]
    with pytest.raises(RuntimeError), evaluating(method):
        assert not any(m.training for m in method.modules())
        raise RuntimeError
    assert state(method)[0] == before and True in before and False in before


def test_captum_waits_behind_its_door():
    code = (
        "import rsssl_nb.explain.attribution, rsssl_nb.explain.neighbours, sys; "
        "print([n for n in ('captum', 'torchvision', 'rasterio', 'matplotlib') if n in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_answers_take_so_many_images_through_the_encoder():
    encoder, batch = Encoder(bands=4, width=8), two_views(torch.randn(2, 4, 256, 256), 256)
    f, passed = contrast(encoder, batch, [0]), dict.fromkeys(HOWS, 0)
    for how in HOWS:
        hook = encoder.register_forward_hook(
            lambda m, i, o, how=how: passed.__setitem__(how, passed[how] + len(i[0]))
        )
        attribute(f, batch.a[[0]], how)
        hook.remove()
    assert passed == dict.fromkeys(HOWS, 1) | {"integrated_gradients": 16, "occlusion": 26}, passed


def test_guided_backprop_acts_on_every_relu_of_an_encoder(monkeypatch):
    encoder, x = Encoder(bands=3, width=8).eval(), images(2)
    f = likeness(encoder, torch.randn(encoder.dim))
    found = attribute(f, x, "guided_backprop")

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.relu()

        @staticmethod
        def backward(ctx, g):
            return g.clamp(min=0) * (ctx.saved_tensors[0] > 0)

    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: Guided.apply(x))
    monkeypatch.setattr(nn.functional, "relu", lambda x, inplace=False: Guided.apply(x))
    assert torch.allclose(found, gradient(f, x), atol=1e-6 * float(found.abs().max()))
