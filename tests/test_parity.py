"""Parity with the released code: each rule restated here in plain loops, or in fixed numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

from rsssl_nb.cli.training import notes_on
from rsssl_nb.data.scenes import make_scene, make_tiles, standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.dense import DenseCL, PixPro, cells
from rsssl_nb.methods.grass import recut
from rsssl_nb.methods.moco import MoCo, queue_nce
from rsssl_nb.methods.ssccl import point_nce
from rsssl_nb.objectives.nce import nce
from rsssl_nb.objectives.similarity import cosine
from rsssl_nb.training.config import Config
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.views.geometry import transform_points
from rsssl_nb.views.pairs import two_views

TILES = standardise(make_tiles(6, 64, seed=2)[0])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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
