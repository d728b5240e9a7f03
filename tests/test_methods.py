"The contract of pages `methods/base` and `training/practice`, for every method: one list, one line a method."

import copy

import pytest
import torch

from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.byol import BYOL, SimSiam
from rsssl_nb.methods.combined import Combined
from rsssl_nb.methods.dense import DenseCL, PixPro
from rsssl_nb.methods.false import FALSE
from rsssl_nb.methods.glcnet import GLCNet, draw_centres
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.inpainting import Inpainting
from rsssl_nb.methods.lejepa import LeJEPA
from rsssl_nb.methods.moco import MoCo
from rsssl_nb.methods.placebos import FALSERandom, GLCNetUnmatched, GraSSRandom, SSCCLShuffled
from rsssl_nb.methods.redundancy import BarlowTwins, VICReg
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.methods.ssccl import SSCCL
from rsssl_nb.methods.swav import SwAV
from rsssl_nb.views.pairs import Pair, two_views

METHODS = {
    "simclr": SimCLR,
    "false": lambda e, **k: FALSE(e, gate_warmup=0.0, gate=0.5, **k),
    "false-threshold": lambda e, **k: FALSE(e, gate_warmup=0.0, gate=0.5, alpha=0.5, select="threshold", **k),
    "grass": lambda e, **k: GraSS(e, warmup=0.0, **k),
    "ssccl": lambda e, **k: SSCCL(e, objective="siamese", **k),
    "ssccl-infonce": lambda e, **k: SSCCL(e, objective="infonce", beta=0.3, **k),
    "glcnet": GLCNet,
    "glcnet-style": lambda e, **k: GLCNet(e, lam=0.9, style="mean", denominator="standard", **k),
    "mocov2": lambda e, **k: MoCo(e, queue=40, **k),
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlowtwins": BarlowTwins,
    "vicreg": VICReg,
    "swav": SwAV,
    "lejepa": LeJEPA,
    "densecl": lambda e, **k: DenseCL(e, queue=40, **k),
    "pixpro": PixPro,
    "inpainting": Inpainting,
    "grass-random": lambda e, **k: GraSSRandom(e, warmup=0.0, **k),
    "false-random": lambda e, **k: FALSERandom(e, gate_warmup=0.0, gate=0.5, **k),
    "glcnet-unmatched": GLCNetUnmatched,
    "ssccl-shuffled": SSCCLShuffled,
    "combined": lambda e, **k: Combined(e, gate_warmup=0.0, gate=0.5, warmup=0.0, **k),
}
QUEUES = ("mocov2", "densecl")  # their loss climbs while real keys take the place of random ones
DRAWN = (
    "inpainting",
    "grass-random",
    "false-random",
    "glcnet-unmatched",
    "ssccl-shuffled",
)  # random numbers by row: another order is another draw
OFFICIAL = {
    "glcnet": GLCNet.official,
    "false": FALSE.official,
    "grass": GraSS.official,
    "mocov2": MoCo.official,
}
each = pytest.mark.parametrize("name", METHODS)
TILES = standardise(make_tiles(16, 64, seed=1)[0])
PAIR = two_views(TILES, 64, seed=0)


def make(name, seed=0, **options):
    "A seeded method on a narrow encoder."
    torch.manual_seed(seed)
    return METHODS[name](Encoder(bands=4, width=16), **options)


def at(**k):
    return At(progress=0.9, epoch=9, generator=torch.Generator().manual_seed(5), **k)


@each
def test_step_shape(name):
    step = make(name)(PAIR, at())
    assert step.loss.ndim == 0 and step.loss.requires_grad and step.loss.isfinite()
    assert abs(float(sum(step.parts.values())) - step.loss.item()) < 1e-4 * max(1, abs(step.loss.item()))
    tensors = [v for v in step.trace.values() if torch.is_tensor(v)] + [
        v for v in step.parts.values() if torch.is_tensor(v)
    ]
    assert tensors and not any(t.requires_grad for t in tensors)


@each
def test_three_steps_lower_the_loss_and_reach_every_parameter(name):
    method = make(name)
    optimiser, losses, reached = torch.optim.AdamW(method.parameters(), 1e-3), [], set()
    for _ in range(4):
        step = method(PAIR, at())
        optimiser.zero_grad()
        step.loss.backward()
        optimiser.step()
        if name not in QUEUES:
            method.after_step(at())
        losses.append(step.loss.item())
        reached |= {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert losses[3] < losses[0], losses
    assert {n for n, p in method.named_parameters() if p.requires_grad} == reached


@each
def test_state_dict_is_the_whole_state(name):
    one, two = make(name), make(name, seed=1)
    optimiser = torch.optim.SGD([p for p in one.parameters() if p.requires_grad], 1e-2)
    step = one(PAIR, at())
    step.loss.backward()
    optimiser.step()
    one.after_step(at())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    a, b = one(PAIR, at()), two(PAIR, at())
    one.after_step(at()), two.after_step(at())
    assert torch.equal(a.loss, b.loss)
    assert all(torch.equal(p, q) for p, q in zip(one.state_dict().values(), two.state_dict().values()))


@each
def test_global_stream_and_inputs_are_left_alone(name):
    method, before, state = make(name), copy.deepcopy(PAIR), None
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = method(PAIR, at())
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(getattr(PAIR, f), getattr(before, f)) for f in ("a", "b", "where_a", "where_b"))
    again = make(name)(PAIR, at())
    assert torch.equal(first.loss, again.loss)


@each
@pytest.mark.parametrize("case", ["one", "constant", "duplicates", "apart"])
def test_odd_batches_are_finite(name, case):
    pair = {
        "one": PAIR[:1],
        "constant": Pair(
            torch.zeros_like(PAIR.a), torch.zeros_like(PAIR.b), PAIR.where_a, PAIR.where_b, PAIR.source
        ),
        "duplicates": PAIR[torch.zeros(6, dtype=torch.long)],
        "apart": Pair(
            PAIR.a,
            PAIR.b,
            PAIR.where_a,
            torch.cat([PAIR.where_b[..., :2], PAIR.where_b[..., 2:] + 999], -1),
            PAIR.source,
        ),
    }[case]
    method = make(name)
    step = method(pair, at())
    step.loss.backward()
    assert step.loss.isfinite() and all(
        p.grad.isfinite().all() for p in method.parameters() if p.grad is not None
    )


@each
def test_order_of_images_and_views_does_not_matter(name, monkeypatch):
    if name in DRAWN:
        pytest.skip("random numbers go by row: another order of images is another draw")
    method = make(name).eval()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    whole = method(PAIR, at()).loss
    assert abs(method(PAIR.swap(), at()).loss - whole) < 1e-4
    windows = draw_centres(PAIR, 4, 14, at=at())  # drawn by row, so they must move with the images
    monkeypatch.setattr("rsssl_nb.methods.glcnet.draw_centres", lambda *_: [t[order] for t in windows])
    assert abs(method(PAIR[order], at()).loss - whole) < 1e-4


@pytest.mark.parametrize("name", ["simclr", "false"])
def test_two_gathered_halves_equal_the_whole(name):
    whole = make(name).eval()
    step = whole(PAIR, at())
    za, zb = step.trace["za"], step.trace["zb"]
    rest = iter([za[8:], zb[8:]])
    half = whole(PAIR[:8], at(gather=lambda t: torch.cat([t, next(rest)])))
    assert abs(half.loss - step.loss) < 1e-5
    half.loss.backward()
    assert whole.head[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each
def test_half_precision_features_give_finite_losses(name, dtype):
    if dtype is torch.float16:
        pytest.skip("float16 autocast is a GPU's; embeddings in float16 are covered by test_nce")
    with torch.autocast("cpu", dtype):
        step = make(name)(PAIR, at())
    assert step.loss.float().isfinite()


def test_limits_equal_simclr():
    same = dict(tau=0.5, dim=32)
    told = make("simclr", **same)(PAIR, at()).loss
    torch.manual_seed(0)
    assert torch.equal(FALSE(Encoder(bands=4, width=16), alpha=0.0, **same)(PAIR, at()).loss, told)
    torch.manual_seed(0)
    assert torch.equal(FALSE(Encoder(bands=4, width=16), gate=1.01, **same)(PAIR, at()).loss, told)
    torch.manual_seed(0)
    assert torch.equal(GraSS(Encoder(bands=4, width=16), warmup=1.0, **same)(PAIR, at()).loss, told)
    torch.manual_seed(0)
    assert torch.equal(
        SSCCL(Encoder(bands=4, width=16), lam=0.0, head_norm=False, **same)(PAIR, at()).loss, told
    )


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_presets_run(name):
    torch.manual_seed(0)
    step = OFFICIAL[name](Encoder(bands=4, width=16))(PAIR, at())
    assert step.loss.isfinite()


def test_a_network_keeps_its_mode_where_embedding_fails():
    method = SimCLR(Encoder(bands=4, width=8)).train()
    with pytest.raises(ValueError, match="4 bands"):
        method.embed(torch.zeros(1, 3, 32, 32))
    assert method.training and all(m.training for m in method.modules())
