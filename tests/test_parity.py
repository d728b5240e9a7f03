"""Parity with the released code: each rule restated here in plain loops, or in fixed numbers."""

import colorsys
import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random

import pytest
import torch
import torch.nn.functional as F

from rsssl_nb.cli.training import notes_on
from rsssl_nb.data.pool import Pool
from rsssl_nb.data.scenes import make_scene, make_tiles, standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.contract import judge, late
from rsssl_nb.methods.dense import DenseCL, PixPro, cells
from rsssl_nb.methods.glcnet import GLCNet
from rsssl_nb.methods.lejepa import LeJEPA, disagreement, sketched_gaussian
from rsssl_nb.methods.moco import MoCo, queue_nce
from rsssl_nb.methods.registry import METHODS, make_method, method_class, method_options, recorded_method
from rsssl_nb.methods.simclr import released_plans
from rsssl_nb.methods.ssccl import point_nce
from rsssl_nb.objectives.nce import nce
from rsssl_nb.objectives.similarity import cosine
from rsssl_nb.training.config import Config
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.views.appearance import N_DRAWS, Colour, tint
from rsssl_nb.views.geometry import draws, transform_points
from rsssl_nb.views.pairs import Plan, mirrors_and_turns, two_views
from rsssl_nb.views.recut import recut

TILES = standardise(make_tiles(6, 64, seed=2)[0])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def arms(monkeypatch):
    "The arms of the evidence, which register oracles when they are imported: gone again afterwards."
    known = set(METHODS)
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "experiments")
    yield import_module("arms")
    for name in set(METHODS) - known:
        del METHODS[name]


# PixPro -----------------------------------------------------------------------------------------------------


def length_one(v):
    return v / v.norm()


def propagated_slow(own, moved):
    "Cells own (n, d) weigh cells moved (n, d): cosine, negative ones 0, squared; moved ones of length 1."
    out = []
    for x in own:
        total = torch.zeros(moved.shape[1])
        for y, value in zip(own, moved):
            alike = max(0.0, float(length_one(x) @ length_one(y)))
            total = total + alike**2 * length_one(value)
        out.append(length_one(total))
    return out


def pixpro_slow(method, pair):
    "The loss, one image, one pair of cells after another."
    images = torch.cat([pair.a, pair.b])
    maps = method.dense(method.encoder(images).dense)
    own, moved = cells(maps), cells(method.transform(maps))
    slow = cells(method.slow[1](method.slow[0](images).dense))
    B, (h, w) = len(pair.a), maps.shape[2:]
    size = pair.size[0]
    total = 0.0
    for i in range(B):
        centres, diagonals = [], []
        for where in (pair.where_a[i], pair.where_b[i]):
            grid = [[(c + 0.5) * size / w, (r + 0.5) * size / h] for r in range(h) for c in range(w)]
            centres.append(transform_points(where[None], torch.tensor([grid]))[0])
            a, b = where[:, 0].norm() * size / w, where[:, 1].norm() * size / h
            diagonals.append(float((a**2 + b**2).sqrt()))
        pairs = [
            (m, n)
            for m in range(h * w)
            for n in range(h * w)
            if float((centres[0][m] - centres[1][n]).norm()) / max(diagonals) < method.radius
        ]
        y_a, y_b = propagated_slow(own[i], moved[i]), propagated_slow(own[B + i], moved[B + i])
        one = sum(float(y_a[m] @ length_one(slow[B + i][n])) for m, n in pairs)
        two = sum(float(y_b[n] @ length_one(slow[i][m])) for m, n in pairs)
        total -= (one + two) / 2 / max(1, len(pairs))
    return total / B


def test_pixpro_propagates_cells_of_length_one():
    torch.manual_seed(0)
    method = PixPro(Encoder(bands=4, width=8, stride=16), dim=8).eval()
    pair = two_views(TILES[:4], 64, seed=1)
    with torch.no_grad():
        assert abs(method(pair, At()).loss.item() - pixpro_slow(method, pair)) < 1e-6


# bfloat16 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [16, 600])
def test_tables_stay_float32_under_autocast(n):
    a, b, queue = random(n, 32), random(n, 32, seed=1), F.normalize(random(64, 32, seed=2), dim=1)
    points = random(4, 6, 32), random(4, 6, 32, seed=1)
    asked = {
        "cosine": lambda: cosine(a, b),
        "nce": lambda: nce(a, b, 0.1),
        "queue": lambda: queue_nce(a, b, queue, 0.1),
        "points": lambda: point_nce(*points, 0.1),
    }
    for name, ask in asked.items():
        with torch.autocast("cpu", torch.bfloat16):
            got = ask()
        assert got.dtype == torch.float32, name
        torch.testing.assert_close(got, ask(), atol=1e-6, rtol=0, msg=name)


# accumulation -----------------------------------------------------------------------------------------------


def keys_of_a_run(monkeypatch, cls, spoilt=()):
    "The keys of each batch of a run with two batches to an update, and the method after it."
    found, step = [], cls.step

    def remembered(self, pair, at=At()):
        out = step(self, pair, at)
        found.append(self.fresh[-2 * len(pair) :].clone())
        if len(found) - 1 in spoilt:
            out.loss = out.loss * math.nan
        return out

    monkeypatch.setattr(cls, "step", remembered)
    small = dict(samples=32, batch=8, size=32, width=4, progress=False, device="cpu", precision="no")
    name = {MoCo: "mocov2", DenseCL: "densecl"}[cls]
    more = dict(epochs=1, accumulate=2, options=dict(queue=96, dim=8))
    run = pretrain(make_scene(128, seed=3), name, **more, **small)
    return found, run.method


@pytest.mark.parametrize("cls", [MoCo, DenseCL])
def test_all_keys_of_an_update_join_the_queue(monkeypatch, cls):
    keys, method = keys_of_a_run(monkeypatch, cls)
    assert len(keys) == 4 and torch.equal(method.queue[-64:], torch.cat(keys))


def test_keys_of_a_batch_that_was_dropped_stay_out_of_the_queue(monkeypatch):
    keys, method = keys_of_a_run(monkeypatch, MoCo, spoilt=[2])
    assert torch.equal(method.queue[-48:], torch.cat([keys[0], keys[1], keys[3]]))


@pytest.mark.parametrize(
    "batch, accumulate, lr, optimizer, told",
    [
        (64, 1, 1e-3, "adamw", ""),
        (8, 1, 1e-3, "adamw", ""),
        (1024, 1, 1e-3, "adamw", ""),
        (2048, 1, 1e-3, "adamw", "try --lr 0.0057"),
        (256, 8, 1e-3, "adamw", "2048 images an update"),
        (64, 1, 1e-1, "adamw", "try --lr 0.001"),
        (64, 1, 1e-3, "sgd", "try --lr 0.013"),
        (256, 1, 5e-2, "sgd", ""),
    ],
)
def test_a_note_where_batch_and_rate_are_far_apart(batch, accumulate, lr, optimizer, told):
    chosen = dict(batch=batch, accumulate=accumulate, lr=lr, optimizer=optimizer, samples=4096, epochs=300)
    notes = [note for note in notes_on(Config(**chosen), None) if "learning rate" in note]
    assert len(notes) == bool(told) and told in "".join(notes)


# nearest resize ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [13, 64, 224])
def test_nearest_takes_the_pixels_of_interpolate(side):
    views = random(40, 2, side, side)
    low = (torch.rand(40, 2, generator=torch.Generator().manual_seed(3)) * (side - 1)).long()
    most = torch.rand(40, 2, generator=torch.Generator().manual_seed(4))
    high = low + 1 + (most * (side - low - 1)).long()
    boxes = torch.cat([low, high], 1).float()
    where = torch.eye(2, 3).expand(40, 2, 3)
    again, _ = recut(views, where, boxes, "nearest")
    for view, got, (x0, y0, x1, y1) in zip(views, again, boxes.long().tolist()):
        want = F.interpolate(view[None, :, y0:y1, x0:x1], size=(side, side), mode="nearest")[0]
        assert torch.equal(got, want)


# SSCCL ------------------------------------------------------------------------------------------------------


def test_ssccl_has_one_objective_and_batchnorm_in_its_heads_by_default(arms):
    assert arms.ARMS["ssccl"][2].get("objective", "infonce") == "infonce"
    for name in ("ssccl", "ssccl-shuffled"):
        options = method_options(method_class(name))
        assert (options["objective"], options["head_norm"]) == ("infonce", True)
        assert arms.options_of(name, "common")["head_norm"] is True
    method = make_method("ssccl", Encoder(width=8), {"objective": "siamese"})
    kinds = [[type(m).__name__ for m in head] for head in (method.head, method.predict)]
    assert kinds == [["Linear", "BatchNorm1d", "ReLU", "Linear"]] * 2
    old = {"objective": "siamese", "head_norm": False}
    with pytest.warns(UserWarning, match="objective siamese, head_norm False"):
        before = recorded_method("ssccl", Encoder(width=8), {}, 1)
    assert before.objective == "siamese" and len(before.head) == len(before.predict) == 3
    assert before.state_dict().keys() == make_method("ssccl", Encoder(width=8), old).state_dict().keys()


# LeJEPA -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, d", [(1, 4), (7, 5), (64, 128)])
def test_lejepa_is_lightlys(n, d):
    theirs = pytest.importorskip("lightly.loss.lejepa_loss")
    a, b = random(n, d), 0.5 * random(n, d, seed=1) + 0.3
    lines = F.normalize(random(d, 256, seed=2), dim=0)
    judge = theirs.LeJEPALoss(sigreg_num_vectors=256)
    judge.sigreg._generate_unit_vectors = lambda *_: lines
    both = torch.stack([a, b])
    want = judge.sigreg(both)
    torch.testing.assert_close(sketched_gaussian(both, lines), want, atol=1e-6, rtol=1e-6)
    near = theirs.lejepa_invariance_loss(all_proj=both, global_proj=both)
    torch.testing.assert_close(disagreement(a, b), near, atol=1e-6, rtol=1e-6)


def test_lejepa_keeps_its_promises_and_weighs_by_one_dial():
    def make(**options):
        torch.manual_seed(0)
        return LeJEPA(Encoder(bands=4, width=16), lines=64, **options)

    assert not any(judge(make).values())
    pair = two_views(TILES, 64, seed=1)
    parts = {lam: make(lam=lam)(pair, late()).parts for lam in (0.0, 0.25, 1.0)}
    for name, share in (("gaussian", 0.25), ("agreement", 0.75)):
        whole = parts[1.0 if name == "gaussian" else 0.0][name]
        torch.testing.assert_close(parts[0.25][name], share * whole)
        assert parts[0.0 if name == "gaussian" else 1.0][name] == 0


# GLCNet's views ---------------------------------------------------------------------------------------------


def released_orientation(rng):
    "`join_transform`: one of four mirrors, then one of four turns; gives (mirrored, quarter turns)."
    u, mirrored, turns = rng.random(), False, 0
    if u < 0.2:
        mirrored = True
    elif u < 0.4:
        mirrored, turns = True, 2  # up-down
    elif u < 0.6:
        turns = 2  # both
    if rng.random() < 0.8:
        turns += rng.choice([0, 1, 2, 3])
    return mirrored, turns % 4


def test_official_glcnet_turns_and_mirrors_as_released():
    rng, n = Random(0), 10_000
    plan = GLCNet.official(Encoder(bands=4, width=4)).plans()[1]
    mirrored, turns = mirrors_and_turns(draws(range(n), 2, seed=1), plan)
    theirs = [released_orientation(rng) for _ in range(n)]
    assert abs(float(mirrored.float().mean()) - 0.4) < 0.015
    for way in (False, True):
        for k in range(4):
            ours = float(((mirrored == way) & (turns == k)).float().mean())
            assert abs(ours - sum(t == (way, k) for t in theirs) / n) < 0.015, (way, k)


def test_a_mirror_up_down_is_one_left_right_and_a_half_turn():
    x = random(1, 1, 4, 4)
    still = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0), colour=None, turns=False)
    cases = {(1.0, 0.0, 0.0): x.flip(3), (0.0, 1.0, 0.0): x.flip(2), (0.0, 0.0, 1.0): x.flip(2, 3)}
    for flips, want in cases.items():
        torch.testing.assert_close(two_views(x, 4, Plan(flips=flips, **still)).a, want, atol=1e-5, rtol=0)
    turned = two_views(x, 4, Plan(**{**still, "flips": 0.0, "turns": (0.0, 0.0, 1.0, 0.0)})).a
    torch.testing.assert_close(turned, x.flip(2, 3), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="not three probabilities"):
        two_views(x, 4, Plan(flips=(0.9, 0.9, 0.0)))
    with pytest.raises(ValueError, match="not four probabilities"):
        two_views(x, 4, Plan(turns=(0.9, 0.9, 0.0, 0.0)))


def test_the_default_orientation_is_what_it_was_to_the_bit():
    u = draws(range(5000), 2, seed=3)
    mirrored, turns = mirrors_and_turns(u, Plan())
    assert torch.equal(mirrored, u[:, 0] < 0.5) and torch.equal(turns, (u[:, 1] * 4).long())
    assert mirrors_and_turns(u, Plan(turns=False))[1] is None


def released_colour(pixels, rng, bands=4):
    "uint8 pixels (lists of bands) after the released jitter: HSV of three, and of more +-10 % a band."
    if rng.random() >= 0.8:
        return pixels
    if rng.random() < 0.5:
        dh, ds, dv = rng.randint(-30, 30), rng.randint(-5, 5), rng.randint(-15, 15)
        out = []
        for r, g, b, *rest in pixels:
            h, s, v = colorsys.rgb_to_hsv(r / 255, g / 255, b / 255)
            hue = (round(h * 180) + dh) % 256 / 180 % 1  # uint8 wraps at 256, OpenCV's hue at 180
            s, v = (min(255, max(0, 255 * x + d)) / 255 for x, d in ((s, ds), (v, dv)))
            out.append([*(255 * x for x in colorsys.hsv_to_rgb(hue, s, v)), *rest])
        pixels = out
    for k in range(bands if bands > 3 else 0):
        light, spread = 1 + rng.uniform(-0.1, 0.1), 1 + rng.uniform(-0.1, 0.1)
        mean = sum(p[k] for p in pixels) / len(pixels)
        pixels = [[*p[:k], (mean + spread * (p[k] - mean)) * light, *p[k + 1 :]] for p in pixels]
    return pixels


def test_released_colours_shift_dubai_by_what_the_preset_was_fitted_to(imagery):
    pool, rng, shifts = Pool([imagery / "dubai/train/images"], 128), Random(1), []
    windows = torch.stack([torch.as_tensor(pool.read(w)) for w in pool.windows(100, seed=1)])
    deviation = windows.std((0, 2, 3))
    for image in windows[:, :, 8::16, 8::16].repeat(8, 1, 1, 1):
        moved = torch.tensor(released_colour(image.flatten(1).T.tolist(), rng, 3)).mean(0)
        shifts.append(float(((moved - image.mean((1, 2))) / deviation).abs().mean()))
    assert abs(sum(shifts) / len(shifts) - 0.045) < 0.01


@pytest.mark.parametrize("bands, most", [(3, 0.05), (4, 0.06)])
def test_official_glcnet_shifts_colours_little_and_greys_by_one_band(bands, most):
    colour = GLCNet.official(Encoder(bands=bands, width=4)).plans()[1].colour
    images = standardise(make_tiles(100, 32, seed=5)[0])[:, :bands].repeat(100, 1, 1, 1)
    assert (colour.grey_by, colour.grey, colour.blur) == ("band", 0.1, 0.5)
    moved = tint(images, draws(range(10_000), N_DRAWS, 2), replace(colour, grey=0.0))
    assert 0.04 < float((moved.mean((2, 3)) - images.mean((2, 3))).abs().mean()) < most
    alone = Colour(p=0, grey=1, blur=0, grey_by="band")
    greyed = tint(images[:200], draws(range(200), N_DRAWS, 2), alone)
    assert all(any(torch.equal(g[0], x[k]) for k in range(bands)) for g, x in zip(greyed, images))


# the papers' setting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arm, epochs, stride", [("false", 200, 32), ("grass", 350, 32), ("simclr", 200, 32), ("glcnet", 400, 16)]
)
def test_the_papers_setting_is_the_papers(arms, arm, epochs, stride):
    setup = arms.sizes_of("paper", arm)
    assert (setup.epochs, setup.stride, setup.encoder) == (epochs, stride, "resnet50")
    method = make_method(arms.key_of(arm), Encoder(width=8), arms.options_of(arm, "paper"))
    if arm == "glcnet":
        return
    assert [type(layer).__name__ for layer in method.head] == [
        "Linear",
        "Linear",
    ]  # one for parent and method
    if arm == "grass":
        assert method.crop.warmup == 0.5
    for plan in released_plans() if arm == "simclr" else method.plans():
        assert (plan.scale, plan.flips, plan.turns) == ((0.08, 1.0), 0.5, False)
        colour = plan.colour
        assert (colour.brightness, colour.contrast, colour.saturation, colour.p) == (0.8, 0.8, 0.8, 0.8)
        assert (colour.gain, colour.offset, colour.grey, colour.blur) == (0.2, 0.2, 0.2, 0.5)
