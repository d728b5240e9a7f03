"""Golden values: numbers that the package gave before it was rebuilt inside, and must go on giving.

python tests/golden/make.py                       write golden.safetensors and golden.json beside this file
python tests/golden/make.py --only methods boxes  only the goldens whose names start so; the others are kept
python tests/golden/make.py --bits                write every number in full to a file of bits, outside git
python tests/golden/make.py --compare-bits        compare with that file bit for bit (--only works here too)
python tests/golden/make.py --list                the names of the goldens

The file of bits is runs/golden-bits.safetensors and .json; GOLDEN_BITS in the environment names another stem.
Bits are for one machine. The committed values are shortened, and tests/test_golden.py holds them to a
tolerance, since processors differ in bits. A golden is a function that gives {key: tensor, number, text, list
or dict}. What stands under `bytes/` is compared on one machine only.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

# What is measured, and where it lives. When the package moves a name, only this block changes. -------------
from rsssl_nb.confusion import mean_iou
from rsssl_nb.data.coverage import cell_counts
from rsssl_nb.data.labels import raster_classes
from rsssl_nb.data.pool import Pool
from rsssl_nb.data.raster import open_raster, overview
from rsssl_nb.data.scenes import Scene, make_scene, make_tiles, standardise
from rsssl_nb.data.write import write_raster
from rsssl_nb.encoders import ASPP, Decoder, Encoder, Segmenter, adapt_bands, projection_head
from rsssl_nb.evaluation.evidence import difference_verdict as verdict
from rsssl_nb.evaluation.evidence import differences, interval, smallest_effect
from rsssl_nb.evaluation.mechanisms import audit, scorecard
from rsssl_nb.evaluation.probing import feature_maps, judge, linear_probe, pixel_samples, probe_table
from rsssl_nb.evaluation.scores import confusion, per_image_miou, score_rasters, scores
from rsssl_nb.explain.attribution import attribute, class_in, contrast, erasure, heat, likeness, sanity
from rsssl_nb.explain.neighbours import (
    classify,
    columns,
    dense_features,
    fit_points,
    nearest,
    pca_rgb,
    points_to_geojson,
)
from rsssl_nb.mapping.boxes import draw_boxes
from rsssl_nb.mapping.embed import embed
from rsssl_nb.mapping.segment import segment
from rsssl_nb.mapping.tiling import blend_weights
from rsssl_nb.mapping.tiling import plan_windows as plan
from rsssl_nb.mapping.tiling import window_starts as starts_of
from rsssl_nb.methods.base import At
from rsssl_nb.methods.dense import most_alike, neighbours
from rsssl_nb.methods.false import false_nce, suspects
from rsssl_nb.methods.glcnet import draw_centres, style, window_nce
from rsssl_nb.methods.grass import loss_map
from rsssl_nb.methods.moco import queue_nce
from rsssl_nb.methods.placebos import FALSEOracle, GraSSOracle, dominant, mixture, purest
from rsssl_nb.methods.redundancy import cross_correlation, variance_covariance
from rsssl_nb.methods.registry import METHODS, make_method, method_class, method_options, recorded_method
from rsssl_nb.methods.ssccl import agreement, point_nce
from rsssl_nb.methods.swav import sinkhorn, swapped
from rsssl_nb.objectives.nce import nce, nce_in_blocks, weighted_nce
from rsssl_nb.objectives.regions import sample_points, window_mean
from rsssl_nb.objectives.similarity import cosine, negatives, partner, positives, stack
from rsssl_nb.training.crops import augment
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.health import effective_rank, health
from rsssl_nb.training.knn import knn_miou
from rsssl_nb.training.labelled import labelled_windows
from rsssl_nb.training.practice import practice
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.training.schedule import lr_factor
from rsssl_nb.training.validation import knn_probe
from rsssl_nb.training.watch import verdict as run_verdict
from rsssl_nb.views.appearance import N_DRAWS, Colour, recolour
from rsssl_nb.views.geometry import (
    crop_boxes,
    draws,
    invert,
    random_boxes,
    sample,
    transform_points,
    view_affine,
)
from rsssl_nb.views.matched import window_boxes
from rsssl_nb.views.pairs import (
    Plan,
    a_to_b,
    box_iou,
    boxes_of,
    overlap,
    overlap_iou,
    overlap_mask,
    overlap_points,
    two_views,
)
from rsssl_nb.views.peaks import peak_boxes
from rsssl_nb.views.recut import carried, recut
from rsssl_nb.weights import load_into, load_weights, shipped
from rsssl_nb.widgets.boxes import as_geojson

# ------------------------------------------------------------------------------------------------------------

HERE = Path(__file__).parent
INPUTS, VALUES, WORDS = HERE / "inputs.safetensors", HERE / "golden.safetensors", HERE / "golden.json"
FULL = 600  # entries of a tensor that the committed file holds in full
GOLDEN = {}

torch.set_num_threads(1)


# inputs -----------------------------------------------------------------------------------------------------


def known_methods():
    "The methods of the command line; experiments register oracles beside them, which need labels."
    return [name for name in METHODS if not name.endswith("-oracle")]


def make_inputs():
    """Images and labels that the goldens are computed on, kept in a file: the same on every machine."""
    tiles, labels = make_tiles(8, 64, seed=1)
    scene = make_scene(128, seed=1)
    found = dict(tiles=tiles, tile_labels=labels, scene=scene.image, scene_labels=scene.labels)
    save_file({k: torch.as_tensor(np.ascontiguousarray(v)) for k, v in found.items()}, INPUTS)


if not INPUTS.exists():
    make_inputs()
RAW = load_file(INPUTS)
TILES, TILE_LABELS = standardise(RAW["tiles"].numpy()), RAW["tile_labels"]
SCENE = Scene(
    RAW["scene"].numpy(),
    RAW["scene_labels"].numpy(),
    "EPSG:32633",
    (0.5, 0.0, 391000.0, 0.0, -0.5, 5820000.0),
)
# The views that methods see here keep the colours of version 0.1: a golden of a method is about the method.
MILD = dict(brightness=0.4, contrast=0.4, saturation=0.4, gain=0.0, offset=0.0)
PAIR = two_views(TILES, 64, Plan(colour=Colour(**MILD)), seed=0)


def views_of(method, seed):
    """Two views of the fixed tiles, drawn as a method wants them, in the colours of version 0.1."""
    plans = [replace(p, colour=p.colour and replace(p.colour, **MILD)) for p in method.plans()]
    return two_views(TILES, 64, *plans, seed=seed, min_iou=method.min_iou)


def random(*shape, seed=0):
    """Normal numbers, the same for the same shape and seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def at(progress=0.9, epoch=9, seed=5):
    """A moment of training with a generator of its own."""
    return At(progress=progress, epoch=epoch, generator=torch.Generator().manual_seed(seed))


def tensors_digest(state):
    """The sha256 of a state dict: names, shapes, types and bytes."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def file_digest(path):
    """The sha256 of a weights file, less the commit and the images that its record names."""
    state, meta = load_weights(path)
    meta = {k: v for k, v in meta.items() if k not in ("commit", "images")}
    return tensors_digest(state) + " " + hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def golden(function):
    """Registers a golden under its function's name, with / for a double underscore."""
    GOLDEN[function.__name__.replace("__", "/")] = function
    return function


# methods ----------------------------------------------------------------------------------------------------


def seeded(name, width=4, seed=0, **options):
    """A registered method on a narrow encoder, its weights from a seed."""
    torch.manual_seed(seed)
    return make_method(name, Encoder("resnet18", 4, width), options)


def looked(method, pair, moment):
    """Loss, parts, trace and gradients of one step, and the loss of a second step after an update."""
    step = method.train()(pair, moment())
    step.loss.backward()
    found = {"loss": step.loss.detach()}
    found |= {f"parts/{k}": v for k, v in step.parts.items()}
    found |= {f"trace/{k}": v for k, v in step.trace.items() if torch.is_tensor(v)}
    trained = [(k, p) for k, p in method.named_parameters() if p.requires_grad]
    found |= {f"grad/{k}": torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in trained}
    torch.optim.SGD([p for _, p in trained], 0.01).step()
    method.after_step(moment())
    found["second/loss"] = method(pair, moment()).loss.detach()
    found["embedded"] = method.embed(pair.a)
    return found


def stepped(make, moment=at):
    """A method's step in single precision for the bits, and in double precision for the committed values.

    In single precision the BatchNorms of a narrow, untrained network turn one processor's rounding into a
    percent of a gradient: such numbers can be compared on one machine only.
    """
    method = make()
    pair = views_of(method, 3)
    single = looked(method, pair, moment)
    fine = make().double()
    precise = replace(pair, a=pair.a.double(), b=pair.b.double())
    found = {f"bytes/{k}": v for k, v in single.items()} | looked(fine, precise, moment)
    found["bytes/state"] = tensors_digest(method.state_dict())
    return found | {"names": list(method.state_dict()), "title": getattr(method, "title", "")}


VARIANTS = {
    "false/open": ("false", dict(gate=0.5)),
    "false/threshold": ("false", dict(gate=0.5, alpha=0.5, select="threshold")),
    "false/official_fixed": ("false", dict(gate=0.5, select="official_fixed")),
    "grass/shared": ("grass", dict(which_views="shared", thresh=0.3)),
    "grass/lowers": ("grass", dict(sign=-1, score="box", resize="nearest", min_side=4)),
    "grass/twice": ("grass", dict(bn_twice=True, warmup_epochs=2)),
    "ssccl/infonce": ("ssccl", dict(objective="infonce", head_norm=False, beta=0.3)),
    "ssccl/region": ("ssccl", dict(objective="siamese", head_norm=False, beta=0.3, grid=5, head="linear")),
    "ssccl/siamese": ("ssccl", dict(objective="siamese", head_norm=False)),
    "glcnet/style": ("glcnet", dict(lam=0.9, style="mean", denominator="standard")),
    "mocov2/one_way": ("mocov2", dict(symmetric=False, queue=40)),
    "combined/open": ("combined", dict(gate=0.5, which_views="shared", grid=5)),
    "simclr/norm": ("simclr", dict(tau=0.2, head="official_linear", head_norm=True, hidden=16, dim=8)),
    "false-random/open": ("false-random", dict(gate=0.5)),
}


def add_methods():
    """One golden for each registered method, for its preset `official`, and for the variants above."""
    cases = {f"{name}/default": (name, {}) for name in known_methods()}
    cases |= {
        f"{n}/official": (n, dict(preset="official"))
        for n in known_methods()
        if hasattr(method_class(n), "official")
    }
    for case, (name, options) in {**cases, **VARIANTS}.items():
        GOLDEN[f"methods/{case}"] = lambda name=name, options=options: stepped(
            lambda: seeded(name, **options)
        )


add_methods()


def told(cls, **options):
    """The step of an oracle that knows the labels."""

    def make():
        torch.manual_seed(0)
        method = cls(Encoder("resnet18", 4, 4), **options)
        method.labels = TILE_LABELS
        return method

    return stepped(make)


@golden
def methods__grass_oracle():
    return told(GraSSOracle)


@golden
def methods__false_oracle():
    return told(FALSEOracle, gate=0.5)


@golden
def methods__early():
    found = {}
    for name in ("false", "grass", "combined", "false-random", "grass-random"):
        step = seeded(name)(PAIR, at(0.0, 0))
        found |= {f"{name}/loss": step.loss.detach(), f"{name}/trace": sorted(step.trace)}
    return found


@golden
def methods__options():
    return {
        name: {k: repr(v) for k, v in method_options(method_class(name)).items()} for name in known_methods()
    }


@golden
def methods__notes():
    return {
        name: [seeded(name).note(20), seeded(name).single_process, seeded(name).min_iou]
        for name in known_methods()
    }


@golden
def methods__practice():
    method = seeded("ssccl", objective="siamese", head_norm=False)
    log = practice(method, TILES, epochs=2, batch=4, size=32, seed=3)
    return {"loss": torch.tensor(log["loss"]), "bytes/state": tensors_digest(method.state_dict())}


# mechanisms -------------------------------------------------------------------------------------------------


@golden
def boxes__peak():
    maps = random(12, 8, 8, seed=1)
    maps[10], maps[11] = 0.0, float("nan")
    found = {}
    for score in ("component", "box"):
        for thresh in (0.0, 0.3, 0.5, 0.8, 0.95, 1.0):
            for side in (0, 8):
                found[f"{score}/{thresh}/{side}"] = peak_boxes(maps, thresh, (64, 48), side, score)
    return found


@golden
def boxes__recut():
    boxes = peak_boxes(random(8, 8, 8, seed=2), 0.5, 64, 8)
    found = {"boxes": boxes}
    for mode in ("bilinear", "nearest"):
        found[f"{mode}/views"], found[f"{mode}/where"] = recut(PAIR.a, PAIR.where_a, boxes, mode)
    found["carried"], found["left"] = carried(boxes, a_to_b(PAIR), PAIR.size)
    found["loss_map"] = loss_map(random(8, 32, 8, 8), random(8, 32, seed=1))
    return found


@golden
def boxes__purest():
    boxes = peak_boxes(random(8, 8, 8, seed=2), 0.5, 64, 8)
    labels, side = TILE_LABELS.long(), (boxes[:, 2:] - boxes[:, :2]).T
    return {"purest": purest(labels, boxes), "mixture": mixture(labels, *side), "dominant": dominant(labels)}


@golden
def suspects__rules():
    a, b = random(16, 12), random(16, 12) + 0.5 * random(16, 12, seed=1)
    sim = cosine(stack(a, b)).double()
    found = {}
    for select in ("per_anchor", "official", "official_fixed", "threshold"):
        for gate in (-1.0, 0.3, 0.9, 1.1):
            found[f"{select}/{gate}"] = suspects(sim, 0.5, gate, select)
            found[f"{select}/{gate}/loss"] = false_nce(a, b, 0.5, 0.9, gate, select)
    return found


@golden
def windows__glcnet():
    found = {}
    for exclude in ("strict", "official"):
        a, b, valid = draw_centres(PAIR, 4, 14, exclude, at())
        found |= {f"{exclude}/a": a, f"{exclude}/b": b, f"{exclude}/valid": valid}
        found[f"{exclude}/boxes"] = window_boxes(a, 14, PAIR.size)
    return found


@golden
def points__ssccl():
    a, b, ok = overlap_points(PAIR, 7)
    return {"a": a, "b": b, "ok": ok, "mask": overlap_mask(PAIR, 8), "near": neighbours(PAIR, (8, 8))}


@golden
def mechanisms__scorecard():
    origin, scene = torch.zeros(8, 2), torch.arange(8) // 4
    looked = audit(TILES, TILE_LABELS.long(), origin, scene, 64, seed=2)
    found = {}
    for name in ("grass", "false", "glcnet", "ssccl", "simclr"):
        card = scorecard(seeded(name), looked)
        found |= {f"{name}/{' '.join(k)}": float(v) for k, v in card.items()}
    return found


# views ------------------------------------------------------------------------------------------------------


@golden
def views__pairs():
    wide = Plan((0.4, 1.0), flips=0.0, turns=False, colour=None)
    cases = dict(
        plain=dict(),
        plan=dict(plan=wide, other=Plan()),
        far=dict(min_iou=0.3, seed=4, epoch=2),
        index=dict(index=torch.arange(8) + 100, size=48, epoch=7),
    )
    found = {}
    for case, options in cases.items():
        pair = two_views(TILES, **options)
        found |= {f"{case}/{k}": getattr(pair, k) for k in ("a", "b", "where_a", "where_b")}
        found |= {
            f"{case}/overlap": overlap(pair)[0],
            f"{case}/iou": overlap_iou(pair),
            f"{case}/a_to_b": a_to_b(pair),
        }
    return found


@golden
def views__geometry():
    u = draws(torch.arange(6), 4, seed=3, epoch=2, stream=1)
    boxes = random_boxes(u, 50, 70)
    where = view_affine(boxes, (32, 40), u[:, 0] < 0.5, (u[:, 1] * 4).long())
    return {
        "draws": u,
        "boxes": boxes,
        "where": where,
        "back": invert(where),
        "around": boxes_of(where, (32, 40)),
        "points": transform_points(where, random(6, 5, 2)),
        "views": sample(TILES[:6], where, (32, 40)),
        "nearest": sample(TILES[:6], where, (32, 40), "nearest", "zeros"),
        "iou": box_iou(boxes, boxes.roll(1, 0)),
        "crops": crop_boxes(TILES[:6], boxes, 16),
    }


@golden
def views__appearance():
    u = draws(torch.arange(8), N_DRAWS, seed=1)
    strong = Colour(0.8, 0.8, 0.8, p=1.0, grey=0.5, blur=1.0, drop=0.5)
    moved = augment(TILES, TILE_LABELS, 1, 2)
    return {
        "plain": recolour(TILES, u),
        "strong": recolour(TILES, u, strong),
        "turned": moved[0],
        "labels": moved[1],
    }


# objectives -------------------------------------------------------------------------------------------------


@golden
def objectives__nce():
    a, b = random(16, 12), random(16, 12, seed=1)
    found = {"large": nce(random(520, 8), random(520, 8, seed=1), 0.5)}
    for denominator in ("standard", "decoupled"):
        found[f"{denominator}/nce"] = nce(a, b, 0.2, denominator)
        found[f"{denominator}/rows"] = nce(a, b, 0.2, denominator, "none")
        found[f"{denominator}/blocks"] = nce_in_blocks(a, b, 0.2, denominator, "none", rows=5)
        share = random(32, 32, seed=3).sigmoid()
        found[f"{denominator}/weighted"] = weighted_nce(
            cosine(stack(a, b)), positives(16), share, 0.2, denominator
        )
    z = a.clone().requires_grad_()
    nce(z, b, 0.2).backward()
    return {**found, "grad": z.grad, "partner": partner(16), "negatives": negatives(16)}


@golden
def objectives__others():
    a, b, c, d = (random(8, 9, 16, seed=s) for s in range(4))
    one, two = a[:, 0], b[:, 0]
    codes = sinkhorn(random(16, 8)), sinkhorn(random(16, 8, seed=1))
    return {
        "agreement": agreement(a, b, c, d),
        "points": point_nce(a, b, 0.2),
        "windows": window_nce(a[:, :4], b[:, :4], random(8, 4) > -1, 0.5, "decoupled", False),
        "windows/same": window_nce(a[:, :4], b[:, :4], random(8, 4) > -1, 0.5, "standard", True),
        "queue": queue_nce(one, two, torch.nn.functional.normalize(random(40, 16)), 0.2),
        "correlation": cross_correlation(one, two),
        "covariance": torch.stack(variance_covariance(one)),
        "codes": codes[0],
        "swapped": swapped(random(16, 8), random(16, 8, seed=1), *codes, 0.1),
        "alike": most_alike(a, b),
        "style": style(random(4, 8, 6, 6)),
        "style/mean": style(random(4, 8, 6, 6), "mean"),
    }


@golden
def objectives__regions():
    maps = random(3, 8, 8, 8)
    boxes = torch.tensor([[[0, 0, 8, 8], [1, 2, 5, 7], [7, 7, 8, 8]]]).expand(3, 3, 4)
    return {
        "cells": window_mean(maps, boxes),
        "pixels": window_mean(maps, boxes * 4, (32, 32)),
        "points": sample_points(maps, random(3, 10, 2).abs() * 16, (32, 32)),
    }


# networks ---------------------------------------------------------------------------------------------------


@golden
def networks__parts():
    torch.manual_seed(0)
    found = {}
    for name, stride in (("resnet18", 8), ("resnet18", 32), ("resnet34", 16), ("resnet50", 8)):
        encoder = Encoder(name, 4, 4, stride).eval()
        with torch.no_grad():
            single = encoder(TILES[:2])
            seen = encoder.double()(TILES[:2].double())
        found |= {f"{name}/{stride}/{k}": getattr(seen, k) for k in ("dense", "pooled", "low")}
        found |= {f"bytes/{name}/{stride}/{k}": getattr(single, k) for k in ("dense", "pooled", "low")}
        found[f"{name}/{stride}/names"] = list(encoder.state_dict())
    parts = dict(aspp=ASPP(32, 16), decoder=Decoder(16, 4, 8), head=projection_head(32, 16, 8, norm=True))
    parts["segmenter"] = Segmenter(Encoder("resnet18", 4, 4), 6)
    found |= {f"{k}/names": list(v.state_dict()) for k, v in parts.items()}
    found |= {f"bytes/{k}": tensors_digest(v.state_dict()) for k, v in parts.items()}
    with torch.no_grad():
        found["segmenter/logits"] = parts["segmenter"].eval()(TILES[:2])
    return {**found, "adapted": adapt_bands(random(4, 3, 7, 7), 5)}


def checkpoint(name):
    """What a shipped checkpoint says of the fixed tiles: features, and its loss on a fixed pair."""
    state, meta = load_weights(shipped(name))
    torch.manual_seed(0)
    encoder = Encoder(meta["encoder"], bands=meta["bands"], width=meta["width"])
    method = recorded_method(meta["method"], encoder, meta["options"]).eval()
    load_into(method, state)
    with torch.no_grad():
        seen = method.encoder(TILES)
    found = {k: getattr(seen, k) for k in ("dense", "pooled", "low")}
    step = method(views_of(method, 9), at())
    found |= {"loss": step.loss.detach()} | {f"parts/{k}": v for k, v in step.parts.items()}
    return found | {
        f"trace/{k}": v for k, v in step.trace.items() if k in ("za", "zb", "boxes", "heat", "local_a")
    }


for NAME, MADE in shipped().items():
    if MADE["bands"] == TILES.shape[1]:  # those of three bands came later
        GOLDEN[f"checkpoints/{NAME}"] = lambda name=NAME: checkpoint(name)


# data -------------------------------------------------------------------------------------------------------


@golden
def data__scenes():
    tiles, labels = make_tiles(4, 64, seed=5)
    scene = make_scene(96, seed=3)
    return {
        "tiles": torch.as_tensor(tiles),
        "labels": torch.as_tensor(labels),
        "image": torch.as_tensor(scene.image),
        "truth": torch.as_tensor(scene.labels),
        "transform": list(scene.transform),
        "classes": list(scene.classes),
    }


@golden
def data__pool():
    other = SCENE.image[:, :90, :110].astype(np.float32)
    pool = Pool([SCENE, other], 32)
    drawn = pool.windows(40, seed=3, epoch=1)
    mean, std = pool.statistics()
    found = {
        "windows": drawn,
        "again": pool.windows(5, seed=4),
        "grid": pool.grid(),
        "shuffled": pool.grid(2, 1),
        "mean": mean,
        "std": std,
        "few": np.stack(pool.statistics(9)),
        "cells": cell_counts(pool.rasters[0], 16),
        "read": np.stack([pool.read(w) for w in drawn[:4]]),
        "look": overview(pool.rasters[0], 40),
    }
    found = {k: torch.as_tensor(np.ascontiguousarray(v)) for k, v in found.items()}
    found |= {
        "said": repr(pool),
        "samples": pool.default_samples(),
        "pixels": pool.pixels,
        "dropped": pool.dropped,
    }
    return found | {"beyond": torch.as_tensor(pool.rasters[0].read(-5, 100, 40, 40))}


@golden
def data__files():
    with tempfile.TemporaryDirectory() as folder:
        names = ("red", "green", "blue", "nir")
        path = write_raster(Path(folder) / "i.tif", SCENE.image, SCENE.crs, SCENE.transform, 0, names=names)
        labels = write_raster(
            Path(folder) / "l.tif", SCENE.labels, SCENE.crs, SCENE.transform, 255, SCENE.colors, SCENE.classes
        )
        raster, known = open_raster(path), raster_classes(labels)
        mean, std = Pool([path], 32).statistics()
        return {
            "read": torch.as_tensor(raster.read(10, -4, 50, 50)),
            "valid": torch.as_tensor(raster.valid(0, 0, 64, 64)),
            "mean": torch.as_tensor(mean),
            "std": torch.as_tensor(std),
            "crs": raster.crs,
            "names": list(raster.band_names),
            "transform": list(raster.transform),
            "classes": list(known.names),
            "colors": list(known.colors),
        }


# maps, scores, probes ---------------------------------------------------------------------------------------


def segmenter():
    """A segmenter with weights from a seed and the scene's normalisation."""
    torch.manual_seed(1)
    model = Segmenter(Encoder("resnet18", 4, 4), 6).eval()
    model.mean.fill_(100.0)
    model.std.fill_(50.0)
    model.classes, model.colors = list(SCENE.classes), list(SCENE.colors)
    return model


@golden
def maps__segment():
    with tempfile.TemporaryDirectory() as folder:
        image = write_raster(Path(folder) / "i.tif", SCENE.image, SCENE.crs, SCENE.transform, 0)
        truth = write_raster(
            Path(folder) / "l.tif", SCENE.labels, SCENE.crs, SCENE.transform, 255, SCENE.colors, SCENE.classes
        )
        out, shares = Path(folder) / "m.tif", Path(folder) / "p.tif"
        segment(segmenter(), image, out, size=64, device="cpu", probabilities=shares)
        drawn = segment(segmenter(), SCENE, size=48, overlap=0.5, batch=2, device="cpu")
        judged = score_rasters(out, truth)
        found = {
            "file": open_raster(out).read(0, 0, 128, 128)[0],
            "array": drawn,
            "shares": open_raster(shares).read(0, 0, 128, 128),
        }
        found = {k: torch.as_tensor(np.nan_to_num(v, nan=255)).to(torch.uint8) for k, v in found.items()}
        table = torch.tensor(judged.pop("confusion"))
        found |= {
            "bytes/map": hashlib.sha256(drawn.tobytes()).hexdigest(),
            "classes": list(raster_classes(out).names),
        }
        found |= {
            "bytes/table": tensors_digest({"table": table}),
            "pixels": judged["pixels"],
            "ignored": judged["ignored"],
        }
        return found | {"bytes/scores": json.dumps(judged), "transform": list(open_raster(out).transform)}


@golden
def maps__embed():
    torch.manual_seed(2)
    encoder = Encoder("resnet18", 4, 4)
    mean, std = np.full((4,), 100.0), np.full((4,), 50.0)
    return {"colours": torch.as_tensor(embed(encoder, SCENE, mean=mean, std=std, size=64, device="cpu"))}


@golden
def maps__boxes():
    method = seeded("grass", seed=3).eval()
    found = draw_boxes(method, SCENE, mean=[100.0] * 4, std=[50.0] * 4, size=64, batch=4, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        out = draw_boxes(
            method, SCENE, Path(folder) / "b.geojson", [100.0] * 4, [50.0] * 4, 64, 4, device="cpu"
        )
        text = out.read_text()
    return {
        "rings": torch.tensor([f["geometry"]["coordinates"][0] for f in found], dtype=torch.float64),
        "properties": [{k: f["properties"][k] for k in ("x", "y", "view")} for f in found],
        "crs": json.loads(text)["crs"],
        "bytes/file": hashlib.sha256(text.encode()).hexdigest(),
    }


@golden
def maps__plan():
    raster = open_raster(SCENE)
    return {
        "windows": torch.as_tensor(plan(raster, 48).copy()),
        "starts": starts_of(1000, 64, 0.3),
        "blend": blend_weights(64),
    }


@golden
def maps__geojson():
    boxes = [[1, 2, 30, 40], [5.5, 6, 20, 22]]
    points = [[3.0, 4.0], [10.0, 20.5]]
    return {
        "boxes": as_geojson(boxes, "ab", SCENE.transform, SCENE.crs, [0, 3]),
        "pixels": as_geojson(boxes, "ab"),
        "points": points_to_geojson(points, [1, 0], ("x", "y"), SCENE.transform, SCENE.crs),
    }


@golden
def scores__tables():
    truth, drawn = TILE_LABELS, TILE_LABELS.roll(3, 2)
    tables = [confusion(t.numpy(), d.numpy(), 6) for t, d in zip(truth, drawn)]
    s = scores(sum(tables))
    found = {
        "table": torch.as_tensor(sum(tables)),
        "iou": torch.as_tensor(s.pop("iou")),
        "each": per_image_miou(tables),
    }
    return found | s | {"miou/evidence": torch.as_tensor(mean_iou(np.stack(tables)))}


@golden
def scores__evidence():
    rng = np.random.default_rng(3)
    a = rng.integers(0, 50, (3, 2, 4, 5, 5)) + 30 * np.eye(5, dtype=int)
    b = rng.integers(0, 50, (3, 2, 4, 5, 5))
    drawn = differences(a, b, draws=200)
    return {
        "drawn": torch.as_tensor(drawn),
        "interval": list(interval(drawn)),
        "smallest": smallest_effect(drawn),
        "verdict": verdict(drawn),
    }


@golden
def probes__frozen():
    state, meta = load_weights(shipped("simclr-20"))
    method = recorded_method(
        meta["method"], Encoder(meta["encoder"], meta["bands"], meta["width"]), meta["options"]
    )
    load_into(method, state)
    encoder, labels = method.encoder.eval(), TILE_LABELS
    maps = feature_maps(encoder, TILES)
    x, y = pixel_samples(maps, labels, each=16)
    W, b = linear_probe(x, y, 6, steps=10)
    judged = judge(encoder, (TILES[:4], labels[:4]), (TILES[4:], labels[4:]), 6)
    found = {
        "sampled": x,
        "labels": y,
        "weight": W,
        "offset": b,
        "bytes/table": probe_table(maps, labels, (W, b)).tolist(),
    }
    found["knn"] = knn_miou(encoder, TILES[:4], labels[:4], TILES[4:], labels[4:], 6)
    found["probe"] = knn_probe(SCENE, SCENE.labels, size=32)(encoder)
    return found | {f"judge/{k}": v for k, v in judged.items()}


@golden
def explain__maps():
    net = seeded("grass").eval()
    asks = dict(loss=contrast(net, PAIR, rows=[0, 1]), like=likeness(net, random(32), (10, 20)))
    found = {}
    for how in ("saliency", "gradcam", "guided_backprop", "integrated_gradients", "occlusion"):
        found |= {f"{k}/{how}": attribute(ask, PAIR.a[:2], how, steps=4, batch=8) for k, ask in asks.items()}
    region = torch.zeros(64, 64, dtype=torch.bool)
    region[10:30, 20:50] = True
    found["class"] = attribute(class_in(segmenter(), 2, region), TILES[:1], "saliency")
    maps = heat(found["loss/gradcam"], (64, 64))
    found["erasure"] = erasure(asks["loss"], PAIR.a[:2], maps, steps=4)
    checked = sanity(lambda n: likeness(n, random(32)), net, PAIR.a[:2])
    return found | {f"sanity/{k}": v for k, v in checked.items()}


@golden
def explain__features():
    net = seeded("simclr", seed=4).eval()
    dense = dense_features(net, TILES)
    numbers, cosines = nearest(random(5, 12), random(40, 12, seed=1), 4)
    model = fit_points(dense[0].flatten(1).T[:12], [0, 1, 2] * 4, 4)
    labels, sure = classify(dense[:1], model, (64, 64))
    return {
        "numbers": numbers,
        "cosines": cosines,
        "columns": columns(net, TILES[:2], bands=True),
        "colours": pca_rgb(dense),
        "weight": model.weight,
        "bias": model.bias,
        "labels": labels,
        "sure": sure,
    }


# training ---------------------------------------------------------------------------------------------------

SHORT = dict(epochs=2, batch=8, samples=16, size=32, width=4, progress=False, device="cpu", precision="no")


def interrupted(method, folder, how):
    """A short run that is `stopped` by request, or `killed`, at its third step, and then resumed."""

    def tell(row):
        if row["step"] == 2 and how == "stopped":
            (folder / "stop").touch()
        elif row["step"] == 2:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        pretrain(SCENE, method, out=folder, save_every=1, tell=tell, **SHORT)
    assert not (folder / "encoder.safetensors").exists()
    return pretrain(SCENE, method, out=folder, resume="must", save_every=1, **SHORT)


def short_run(method):
    """Losses, weights and bytes of a short pretraining run, and whether stopped and killed ones end alike."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run = pretrain(SCENE, method, out=folder / "whole", **SHORT)
        whole = (folder / "whole/encoder.safetensors").read_bytes()
        found = {
            "loss": torch.tensor([r["loss"] for r in run.log]),
            "lr": torch.tensor([r["lr"] for r in run.log]),
            "config": json.loads((folder / "whole/config.json").read_text()),
            "columns": sorted(run.log[0]),
        }
        for field in ("mean", "std"):
            found[field] = torch.tensor(found["config"].pop(field))
        for how in ("stopped", "killed"):
            interrupted(method, folder / how, how)
            found[f"{how} and resumed, same bytes"] = (
                folder / how / "encoder.safetensors"
            ).read_bytes() == whole
        found["bytes/encoder.safetensors"] = file_digest(folder / "whole/encoder.safetensors")
        found["bytes/method"] = tensors_digest(run.method.state_dict())
        found["files"] = sorted(
            str(p.relative_to(folder / "whole")) for p in (folder / "whole").rglob("*") if p.is_file()
        )
        return found | {
            f"weights/{k}": v for k, v in run.encoder.state_dict().items() if v.is_floating_point()
        }


for NAME in ("simclr", "grass", "mocov2", "glcnet", "false", "ssccl"):
    GOLDEN[f"training/{NAME}"] = lambda name=NAME: short_run(name)


@golden
def training__finetune():
    found = {}
    learn = dict(epochs=2, batch=4, size=32, width=4, progress=False, device="cpu", precision="no")
    for case, more in dict(
        full=dict(fraction=0.6, class_weight=True), frozen=dict(fraction=1.0, mode="frozen")
    ).items():
        with tempfile.TemporaryDirectory() as folder:
            model, log = finetune("random", SCENE, SCENE.labels, Path(folder) / "out", **learn, **more)
            found[f"bytes/{case}/segmenter.safetensors"] = file_digest(
                Path(folder) / "out/segmenter.safetensors"
            )
        found[f"{case}/loss"] = torch.tensor([r["loss"] for r in log])
        found |= {f"{case}/weights/{k}": v for k, v in model.state_dict().items() if v.is_floating_point()}
    listed = labelled_windows([(open_raster(SCENE), SCENE.labels)], 32, 0.3)
    return {**found, "windows": [list(map(int, w)) for w in listed]}


@golden
def training__schedule():
    return {"lr": torch.tensor([lr_factor(s, 50) for s in range(50)], dtype=torch.float64)}


@golden
def training__health():
    a, b = random(16, 12), random(16, 12) + 0.5 * random(16, 12, seed=1)
    rows = [dict(step=s, loss=3.0 / (1 + s), health=health(a, b)) for s in range(30)]
    return {**health(a, b), "effective_rank": effective_rank(a), "verdict": list(run_verdict(rows))}


# files ------------------------------------------------------------------------------------------------------


def chosen(only=()):
    """The names of all goldens, or of those that start with one of `only`."""
    return [name for name in GOLDEN if not only or name.startswith(tuple(only))]


def compute(names):
    """The values of goldens by name, {"golden/key": value}, and the seconds each took."""
    found, seconds = {}, {}
    for name in names:
        start = time.time()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            found |= {f"{name}/{key}": value for key, value in GOLDEN[name]().items()}
        seconds[name] = time.time() - start
    return found, seconds


def split(found):
    """Tensors and the rest of a dict of values."""
    tensors = {k: v.detach().contiguous().clone() for k, v in found.items() if torch.is_tensor(v)}
    return tensors, {k: v for k, v in found.items() if not torch.is_tensor(v)}


def summary(value, entries=14):
    """A tensor in a few float64 numbers: root mean square, mean, and entries evenly spread over it."""
    flat = value.detach().flatten().double().nan_to_num(0.0, 0.0, 0.0)
    if not len(flat):
        return torch.zeros(entries + 2, dtype=torch.float64)
    spread = flat[torch.linspace(0, len(flat) - 1, entries).round().long()]
    return torch.cat([flat.square().mean().sqrt()[None], flat.mean()[None], spread])


def shortened(found):
    """Values as they are committed: large tensors, gradients and weights by their summaries."""
    out, tables = {}, {}
    for key, value in found.items():
        parent = key.split("/grad/")[0].split("/weights/")[0]
        if key.endswith("/names") and isinstance(value, list):
            out[key] = hashlib.sha256(json.dumps(value).encode()).hexdigest()
        elif "/bytes/" in key:
            continue
        elif parent != key:
            table = f"{parent}/grads" if "/grad/" in key else f"{parent}/all_weights"
            tables.setdefault(table, []).append(summary(value, 4))
        elif torch.is_tensor(value) and value.numel() > FULL:
            out[key], out[f"{key}/shape"] = summary(value), list(value.shape)
        else:
            out[key] = value
    return out | {k: torch.stack(rows).float() for k, rows in tables.items()}


def read(tensors, words):
    """The values in a pair of files, as one dict."""
    return {**load_file(tensors), **json.loads(Path(words).read_text())}


def write(found, tensors, words):
    """A dict of values as a pair of files."""
    numbers, rest = split(found)
    save_file(dict(sorted(numbers.items())), tensors)
    Path(tensors).chmod(0o644)
    Path(words).write_text(json.dumps(dict(sorted(rest.items())), indent=0) + "\n")


def bits_files():
    """Where the bits of this machine are kept."""
    stem = os.environ.get("GOLDEN_BITS") or str(HERE.parents[1] / "runs/golden-bits")
    return Path(f"{stem}.safetensors"), Path(f"{stem}.json")


def differences_in_bits(found, kept):
    """A line for each value that is not the same to the bit."""
    lines = [f"{k}: gone" for k in sorted(kept.keys() - found.keys())] + [
        f"{k}: new" for k in sorted(found.keys() - kept.keys())
    ]
    for key in sorted(found.keys() & kept.keys()):
        mine, was = found[key], kept[key]
        if torch.is_tensor(mine) != torch.is_tensor(was):
            lines.append(f"{key}: {type(mine).__name__}, was {type(was).__name__}")
        elif not torch.is_tensor(mine):
            if json.dumps(mine) != json.dumps(was):
                lines.append(f"{key}: {json.dumps(mine)[:120]}, was {json.dumps(was)[:120]}")
        elif (mine.shape, mine.dtype) != (was.shape, was.dtype):
            lines.append(f"{key}: {mine.dtype} {tuple(mine.shape)}, was {was.dtype} {tuple(was.shape)}")
        elif mine.contiguous().numpy().tobytes() != was.contiguous().numpy().tobytes():
            gap = (mine.double() - was.double()).abs().nan_to_num(0.0).max().item()
            lines.append(f"{key}: other bits, largest difference {gap:.3g}")
    return lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="only goldens whose names start so"
    )
    parser.add_argument(
        "--bits", action="store_true", help="write the file of bits instead of the committed values"
    )
    parser.add_argument("--compare-bits", action="store_true", help="compare with the file of bits")
    parser.add_argument("--list", action="store_true", help="list the goldens")
    asked = parser.parse_args()
    if asked.list:
        return print("\n".join(GOLDEN))
    begun = time.time()
    names = chosen(asked.only)
    if not names:
        parser.error(f"no golden starts with {' or '.join(asked.only)}: see --list")
    found, seconds = compute(names)
    slow = ", ".join(f"{k} {v:.1f}" for k, v in sorted(seconds.items(), key=lambda x: -x[1])[:5])
    print(f"{len(seconds)} goldens, {len(found)} values in {time.time() - begun:.1f} s; slowest: {slow}")
    if asked.compare_bits:
        kept = read(*bits_files())
        kept = {k: v for k, v in kept.items() if not asked.only or k.startswith(tuple(asked.only))}
        lines = differences_in_bits(found, kept)
        print("\n".join(lines) if lines else f"all {len(found)} values are the same to the bit")
        return sys.exit(1 if lines else 0)
    tensors, words = bits_files() if asked.bits else (VALUES, WORDS)
    tensors.parent.mkdir(parents=True, exist_ok=True)
    fresh = found if asked.bits else shortened(found)
    if asked.only and tensors.exists():
        kept = {k: v for k, v in read(tensors, words).items() if not k.startswith(tuple(asked.only))}
        fresh = {**kept, **fresh}
    write(fresh, tensors, words)
    print(f"written: {tensors}, {words}")


if __name__ == "__main__":
    main()
