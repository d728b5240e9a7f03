"""Worlds in which a mechanism must work if its code is right, and the arms trained there: JUDGES.md."""

import csv
import json
import os
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from trials import Arm, World

from rsssl_nb.data.folders import ImageSet, open_folders, read_image
from rsssl_nb.data.mosaics import MosaicPlan, lit, make_mosaics
from rsssl_nb.evaluation.judges import PixelJudge, SceneJudge, standard_judges
from rsssl_nb.methods.base import At, uniform
from rsssl_nb.methods.false import FALSE, Suspects
from rsssl_nb.methods.glcnet import GLCNet, MatchedWindows
from rsssl_nb.methods.grass import GraSS, GuidedCrop
from rsssl_nb.methods.placebos import (
    FALSERandom,
    GLCNetUnmatched,
    GraSSRandom,
    LabelOracle,
    SSCCLShuffled,
    anywhere,
    dominant,
    instead,
)
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.methods.ssccl import SSCCL, OverlapBranch, point_nce
from rsssl_nb.objectives.regions import sample_points
from rsssl_nb.objectives.similarity import negatives
from rsssl_nb.views.appearance import Colour
from rsssl_nb.views.pairs import Plan
from rsssl_nb.views.peaks import grow

PROTOCOL = 2
GROUND = 1  # RSSCN7's class field


def imagery():
    "The folder of real imagery; SystemExit when RSSSL_DATA does not name one."
    folder = os.environ.get("RSSSL_DATA")
    if not folder or not Path(folder).is_dir():
        raise SystemExit("RSSSL_DATA names no folder of real imagery: set it to where rsscn7/ and dubai/ lie")
    return Path(folder)


# pools


class Stack:
    """A pool of ready images (n, C, H, W) for `training.pretrain.run_in`, with labels (n, H, W).

    An epoch is a permutation of the images by (seed, epoch); `siblings` in a row stay together. `told(n)`
    gives the labels of the last `n` images that were read, for oracles.
    """

    rasters = (None,)  # no file, so no band names and no pixel size in a passport

    def __init__(self, images, labels, siblings=1):
        self.images, self.labels, self.siblings, self.recent = images, labels, siblings, []

    def windows(self, samples, seed=0, epoch=0):
        families = np.random.default_rng([seed, epoch, 2032]).permutation(len(self.images) // self.siblings)
        return (families[:, None] * self.siblings + np.arange(self.siblings)).ravel()[:samples]

    def read(self, number):
        self.recent = [*self.recent[-4095:], int(number)]
        return self.images[number].astype(np.float32)

    def told(self, n):
        return torch.as_tensor(self.labels[self.recent[-n:]]).long()


def everywhere(images, labels):
    "Labels (n, H, W) of images (n, C, H, W) of one class each (n,): a view that costs no memory."
    return np.broadcast_to(labels[:, None, None], (len(images), *images.shape[2:]))


@cache
def rsscn7(part, size=128):
    return open_folders(imagery() / "rsscn7").read(part, size)


def dubai_tiles(split, names=None):
    "Tiles of 128 px of Dubai: images, labels and the 256-px window of each, by split and names of windows."
    folder, images, labels, window = imagery() / "dubai", [], [], []
    for row in csv.DictReader((folder / "parts.csv").read_text().splitlines()):
        if row["split"] != split or (names and not any(n.startswith(row["id"]) for n in names)):
            continue
        image = read_image(folder / row["image"])
        told = read_image(folder / row["label"])[0]
        for y in range(0, image.shape[1] - 127, 128):
            for x in range(0, image.shape[2] - 127, 128):
                name = f"{row['id']}_y{y // 256 * 256:04d}_x{x // 256 * 256:04d}"
                if names is None or name in names:
                    images.append(image[:, y : y + 128, x : x + 128])
                    labels.append(told[y : y + 128, x : x + 128])
                    window.append(name)
    return np.stack(images), np.stack(labels), np.array(window)


@cache
def object_mosaics(part):
    """The mosaics of the world `object`: an ellipse of texture each, on one and the same picture of ground.

    Each ground lies under a light of its own, which the object does not share: all that a ground tells of its
    mosaic is a colour.
    """
    textures, plan = rsscn7(part, 256), MosaicPlan(shape="object", object=(48, 80), ground=GROUND)
    made = make_mosaics(textures, 2048 if part == "train" else 512, 128, plan, seed=part == "judge")
    train = rsscn7("train", 256)
    picture = train.images[np.flatnonzero(train.labels == GROUND)[:1], :, 64:192, 64:192]
    ground = lit(np.random.default_rng([part == "judge", 2033]), picture.repeat(len(made.images), 0), 0.5)
    return made._replace(images=np.where(made.parcels[:, None] == 1, made.images, ground))


def object_sets(part):
    "ImageSets of the object's class: of whole mosaics, and of the box inside the object at a view's size."
    made = object_mosaics(part)
    boxes = within(torch.as_tensor(made.parcels == 1), 24).tolist()
    cuts = []
    for image, (x0, y0, x1, y1) in zip(made.images, boxes):
        box = torch.as_tensor(image[None, :, y0:y1, x0:x1].astype(np.float32))
        cut = torch.nn.functional.interpolate(box, 96, mode="bilinear", align_corners=False)[0]
        cuts.append(cut.round().to(torch.uint8).numpy())
    others = [k for k in range(len(made.classes)) if k != GROUND]
    kinds = made.labels.max(axis=(1, 2), where=made.parcels == 1, initial=0)
    labels, names = np.searchsorted(others, kinds.astype(int)), tuple(made.classes[k] for k in others)
    return ImageSet(made.images, labels, names), ImageSet(np.stack(cuts), labels, names)


ARRANGED = MosaicPlan(parcels=4, shape="blocks", siblings=4)  # of 48 px, a good half of an image each


def arrangement_mosaics(plan=ARRANGED, seed=0, part="train", n=2048):
    "The mosaics of the world `arrangement`: of images that are reduced to 64 px."
    return make_mosaics(rsscn7(part, 64), n, 96, plan, seed)


# judges


@cache
def scene_and_mosaics(size=128):
    "The judges of RSSCN7's images, reduced to so many pixels; at 256 they are as they are."
    return standard_judges(imagery() / "rsscn7", size)


@cache
def arranged_judge():
    "The pixel judge of the world `arrangement`: mosaics of its own form, without siblings."
    alone = replace(ARRANGED, siblings=1)
    made = [arrangement_mosaics(alone, k, part, 256) for k, part in enumerate(("train", "judge"), 1)]
    return PixelJudge(*made, made[0].classes, (64,))


@cache
def dubai_judge():
    "The pixel judge of Dubai's validation scene, from the three published subsets of 1 % of the windows."
    folder = imagery() / "dubai"
    listed = [(folder / f"subsets/train256_01pct_seed{k}.txt").read_text().split() for k in range(3)]
    images, labels, window = dubai_tiles("train", set().union(*map(set, listed)))
    asked, truth, _ = dubai_tiles("val")
    names = [c["name"] for c in json.loads((folder / "classes.json").read_text())["classes"]]
    subsets = {len(listed[0]): [np.flatnonzero(np.isin(window, names)) for names in listed]}
    return PixelJudge(
        (images, labels), (asked, truth), names, points=256, name="hypercolumn", subsets=subsets
    )


@cache
def object_judges():
    made = []
    for name, train, judged in zip(
        ("object-whole", "object-cut"), object_sets("train"), object_sets("judge")
    ):
        made.append(SceneJudge(train, judged, labels=(5, 20, 80)))
        made[-1].name = name
    return made


# mechanisms told by labels


class DosedSuspects(Suspects):
    """`dose` suspects a row: true ones in a share `precision` of the rows, wrong ones in the others.

    `dose` None: all true ones. `classes` (2n,) of the views, -1 where unknown.
    """

    classes, precision, dose = None, 1.0, 1

    def choose(self, sim, tau, at):
        others, c = negatives(len(sim) // 2, sim.device), self.classes
        true = others & (c[:, None] == c) & (c >= 0)
        if self.dose is None:
            return true
        right = torch.rand(len(sim), generator=at.generator, device=sim.device) < self.precision
        counts = torch.zeros_like(true)
        counts[:, : self.dose] = True
        return instead(counts, torch.where(right[:, None], true, others & ~true), at)


class NearestSuspects(Suspects):
    "The twelve negatives of largest cosine."

    def choose(self, sim, tau, at):
        others = negatives(len(sim) // 2, sim.device)
        near = sim.masked_fill(~others, -torch.inf).topk(min(12, len(sim) - 2), 1).indices
        return torch.zeros_like(others).scatter_(1, near, True)


class FALSEDosed(LabelOracle, FALSE):
    "FALSE told by labels: a dose of suspects of a chosen precision."

    suspects_kind = DosedSuspects

    def __init__(self, encoder, precision=1.0, dose=1, **options):
        super().__init__(encoder, gate=-1, **options)
        self.suspects.precision, self.suspects.dose = precision, dose

    def step(self, pair, at=At()):
        self.suspects.classes = dominant(self.seen(pair))
        return super().step(pair, at)


class FALSENearest(FALSE):
    "FALSE that suspects the twelve nearest."

    suspects_kind = NearestSuspects


def within(mask, least):
    """Boxes (N, 4) around the middle of what is true in masks (N, h, w), its sides over the root of two.

    So a box lies inside an ellipse. At least `least` pixels wide and high; whole where a mask is empty.
    """
    (h, w), (cols, rows) = mask.shape[1:], (mask.any(1).int(), mask.any(2).int())
    low = torch.stack([cols.argmax(1), rows.argmax(1)], 1)
    high = torch.stack([v.shape[1] - v.flip(1).argmax(1) for v in (cols, rows)], 1)
    side = ((high - low) * 0.5**0.5).round().long()
    low = low + (high - low - side) // 2
    boxes = grow(torch.cat([low, low + side], 1), least, (h, w))
    return torch.where(mask.flatten(1).any(1)[:, None], boxes, torch.tensor([0, 0, w, h], device=mask.device))


class ToldCrop(GuidedCrop):
    "Boxes inside the object, which is what is not of class GROUND; a view that shows none of it stays whole."

    labels, least = None, 24

    def guide(self, method, pair, at):
        "A peak in a corner, no gradient: what is told asks no map."
        heat = torch.zeros(2 * len(pair), 8, 8)
        heat[:, 0, 0] = 1
        return heat

    def place(self, boxes, pair, at):
        return within(self.labels != GROUND, self.least)


class ElsewhereCrop(ToldCrop):
    "Boxes of the object's sides, at random places."

    def place(self, boxes, pair, at):
        u = uniform(at, len(pair), 2, 2, device=boxes.device).transpose(0, 1).flatten(0, 1)
        return anywhere(super().place(boxes, pair, at), pair.size, u)


class GraSSTold(LabelOracle, GraSS):
    "GraSS told by labels: boxes inside the object."

    crop_kind = ToldCrop

    def step(self, pair, at=At()):
        self.crop.labels = self.seen(pair)
        return super().step(pair, at)


def by_class(a, b, kinds_a, kinds_b, at, most=1024):
    """Vectors (k, n, d) of two views: a row a class, about `most` in all, drawn with replacement.

    `a`, `b` (m, d) of classes `kinds_a`, `kinds_b` (m,), from all images of a batch; classes that both views
    show. In the place of (images, points, d) they tell a loss that any two places of a class match, and those
    of other classes are strangers.
    """
    both = [k for k in kinds_a.unique().tolist() if k != 255 and (kinds_b == k).any()]
    n = max(1, most // max(1, len(both)))

    def drawn(vectors, kinds):
        owned = [(kinds == k).nonzero()[:, 0] for k in both]
        return torch.stack(
            [vectors[own[torch.randint(len(own), (n,), generator=at.generator)]] for own in owned]
        )

    return drawn(a, kinds_a), drawn(b, kinds_b)


def labels_at(labels, points):
    "Labels (B, n) of a view (B, h, w) at points (B, n, 2)."
    h, w = labels.shape[1:]
    x, y = points[..., 0].long().clamp(0, w - 1), points[..., 1].long().clamp(0, h - 1)
    return labels.flatten(1).gather(1, y * w + x)


class ClassOverlap(OverlapBranch):
    "The same points and loss, with classes in the place of images; `labels` (2B, h, w) of the views."

    labels = None

    def __call__(self, pair, online, target, predict, at):
        _, _, trace = super().__call__(pair, online.detach(), target, predict, at)
        points = torch.cat([trace["points_a"], trace["points_b"]])
        kinds = labels_at(self.labels, points).chunk(2)
        own = sample_points(online, points, pair.size).chunk(2)
        a, b = by_class(*(v.flatten(0, 1) for v in own), *(k.flatten() for k in kinds), at)
        cells = point_nce(a, b, self.tau).mean()
        return cells, 0 * cells, trace


class SSCCLClass(LabelOracle, SSCCL):
    "SSCCL told by labels: the ceiling of its world."

    overlap_kind = ClassOverlap

    def step(self, pair, at=At()):
        self.overlap.labels = self.seen(pair)
        return super().step(pair, at)


class ClassWindows(MatchedWindows):
    "Windows matched as ever, which note the class at their centres; `labels` (2B, h, w) of the views."

    labels, kinds = None, None

    def match(self, pair, window, at):
        a, b, valid = super().match(pair, window, at)
        self.kinds = labels_at(self.labels, torch.cat([a, b])).masked_fill(~valid.repeat(2, 1), 255)
        return a, b, valid


class GLCNetClass(LabelOracle, GLCNet):
    "GLCNet told by labels: the same windows and the same loss, with classes in the place of images."

    windows_kind = ClassWindows

    def step(self, pair, at=At()):
        self.windows.labels = self.seen(pair)
        return super().step(pair, at)

    def compare(self, la, lb, valid, at):
        kinds = (k.flatten() for k in self.windows.kinds.chunk(2))
        a, b = by_class(la.flatten(0, 1), lb.flatten(0, 1), *kinds, at, valid.numel())
        return super().compare(a, b, torch.ones(a.shape[:2], dtype=torch.bool), at)


class GraSSElsewhere(GraSSTold):
    "The ceiling's own floor: boxes as large as the object, at random places."

    crop_kind = ElsewhereCrop


# arms


def rsscn7_pool():
    images, labels, _ = rsscn7("train")
    return Stack(images, everywhere(images, labels))


def dubai_pool():
    images, labels, _ = dubai_tiles("train")
    return Stack(images, labels)


def object_pool():
    made = object_mosaics("train")
    return Stack(made.images, made.labels)


def arrangement_pool():
    made = arrangement_mosaics()
    return Stack(made.images, made.labels, siblings=4)


COLOUR = Colour(0.4, 0.4, 0.4, p=0.8, grey=0.2, blur=0.5, gain=0.0, offset=0.0)
VIEWS = Plan(scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), flips=0.5, turns=True, colour=COLOUR)  # of all arms
OBJECT_VIEWS = replace(VIEWS, scale=(0.4, 1.0), colour=replace(COLOUR, grey=0.0))  # so that both see ground
WORLDS = {
    "rsscn7": World(rsscn7_pool, 64, 1500, VIEWS, "judges.json"),
    "dubai": World(dubai_pool, 64, 2160, VIEWS, "judges.json"),
    "object": World(object_pool, 96, 1000, OBJECT_VIEWS, "controls.json", protocol=3),
    "arrangement": World(arrangement_pool, 64, 1000, VIEWS, "controls.json", min_iou=0.1, protocol=3),
}
TABLE = ("scene", "mosaic", "hypercolumn", "finetune-60", "finetune")
INFONCE = dict(objective="infonce", head_norm=False)  # one head for all arms here
ARMS = [
    Arm("random", "rsscn7", None, TABLE),
    Arm("random-fitted", "rsscn7", None, TABLE[:3], fitted=True),
    Arm("simclr", "rsscn7", SimCLR, TABLE),
    Arm("simclr-dubai", "dubai", SimCLR, TABLE),
    Arm("false", "rsscn7", FALSE, ("scene",), ("suspects",)),
    Arm("false-open", "rsscn7", partial(FALSE, gate=-1), ("scene",), ("suspects",)),
    Arm("false-random", "rsscn7", partial(FALSERandom, gate=-1), ("scene",), ("suspects",)),
    Arm("false-oracle", "rsscn7", FALSEDosed, ("scene",), ("suspects",)),
    Arm("false-every", "rsscn7", partial(FALSEDosed, dose=None), ("scene",), ("suspects",)),
    Arm("false-three-quarters", "rsscn7", partial(FALSEDosed, precision=0.75), ("scene",), ("suspects",)),
    Arm("false-half", "rsscn7", partial(FALSEDosed, precision=0.5), ("scene",), ("suspects",)),
    Arm("false-twelve", "rsscn7", partial(FALSENearest, gate=-1), ("scene",), ("suspects",)),
    Arm("false-threshold", "rsscn7", partial(FALSE, gate=-1, select="threshold"), ("scene",), ("suspects",)),
    Arm("random", "object", None, ("object",)),
    Arm("simclr", "object", SimCLR, ("object",)),
    Arm("grass", "object", GraSS, ("object",), ("boxes",)),
    Arm("grass-other-sign", "object", partial(GraSS, sign=-1), ("object",), ("boxes",)),
    Arm("grass-random", "object", GraSSRandom, ("object",), ("boxes",)),
    Arm("grass-told", "object", partial(GraSSTold, warmup=0.0), ("object",), ("boxes",)),
    Arm("grass-elsewhere", "object", partial(GraSSElsewhere, warmup=0.0), ("object",), ("boxes",)),
    Arm("simclr", "arrangement", SimCLR, ("arranged",)),
    Arm("ssccl", "arrangement", partial(SSCCL, **INFONCE), ("arranged",)),
    Arm("ssccl-shuffled", "arrangement", partial(SSCCLShuffled, **INFONCE), ("arranged",)),
    Arm("ssccl-class", "arrangement", partial(SSCCLClass, **INFONCE), ("arranged",)),
    Arm("glcnet", "arrangement", GLCNet, ("arranged",)),
    Arm("glcnet-unmatched", "arrangement", GLCNetUnmatched, ("arranged",)),
    Arm("glcnet-class", "arrangement", GLCNetClass, ("arranged",)),
    Arm("random", "arrangement", None, ("arranged",)),
]


JUDGES = {  # name in an arm: what gives its judges
    "scene": lambda: scene_and_mosaics()[:1],
    "mosaic": lambda: scene_and_mosaics()[1:],
    "scene-256": lambda: scene_and_mosaics(256)[:1],
    "mosaic-256": lambda: scene_and_mosaics(256)[1:],
    "hypercolumn": lambda: [dubai_judge()],
    "object": object_judges,
    "arranged": lambda: [arranged_judge()],
}


# what a mechanism chose at the end


def suspects_chosen(trace, labels):
    "How many suspects a row has, and the share of them that are true; labels (B,) of the images."
    kinds, chosen = torch.cat([labels, labels]), trace["suspects"]
    true = chosen & (kinds[:, None] == kinds)
    return dict(
        suspects=float(chosen.sum(1).float().mean()), right=float(true.sum() / chosen.sum().clamp(min=1))
    )


def entropy(shares):
    return -torch.xlogy(shares, shares).sum(-1)


def inside(labels, boxes, known):
    "The share of each class (N, known) in boxes (N, 4) of labels (N, h, w)."
    found = []
    for told, (x0, y0, x1, y1) in zip(labels, boxes.tolist()):
        cells = told[y0:y1, x0:x1].flatten()
        found.append(torch.bincount(cells, minlength=known)[:known] / len(cells))
    return torch.stack(found)


def boxes_chosen(trace, labels, generator):
    """Share of object and class entropy in the boxes cut, each less that of such boxes at random places.

    `labels` (2B, h, w) of the views before they were cut.
    """
    boxes, size = trace["boxes"], tuple(labels.shape[1:])
    chance = anywhere(boxes, size, torch.rand(len(boxes), 2, generator=generator))
    own, other = (inside(labels, b, 7) for b in (boxes, chance))
    return {
        "box-share": float((other[:, GROUND] - own[:, GROUND]).mean()),
        "box-entropy": float((entropy(own) - entropy(other)).mean()),
    }


def of_trace(arm, method, pair, trace, told, at):
    "The measures of one traced step, by the labels `told` of its images."
    if "suspects" in arm.measures:
        return suspects_chosen(trace, told[:, 0, 0])
    ear = LabelOracle()
    ear.labels = told
    return boxes_chosen(trace, ear.seen(pair), torch.Generator().manual_seed(1))
