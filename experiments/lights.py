"""A dozen labelled windows of one day, a map of another: the tour's table, with seeds and controls.

    python experiments/lights.py [--seeds 0 1 2] [--arms boosting fresh simclr-kept]     what is left

Twelve windows of 128 px of two parts of a satellite scene of Dubai (training side) teach five classes in 200
steps. The middle 512 px of two other parts are mapped as they were taken, and under light they were never
taken in (`data.mosaics.lit`: a gain a band and a slope of brightness; strengths .1, .2, .4, four draws each,
the same for all arms). Arms: `boosting` of the pixel's three bands; `fresh`, a network that begins untrained;
`simclr`, the shipped network of 1 000 steps, trained on; both with `-strong`, taught under the colours of
SimCLR's views in place of mild ones; and with `-kept` an encoder that stays as it is, below a decoder that
learns: untrained (`fresh`), SimCLR's and the four methods'. With `-standard` every image is first brought to
one mean and deviation a band, in learning as in mapping. One row an arm, light and seed in
results/lights.json: mean IoU over the two parts and all draws, and the IoU of each class.
"""

import argparse
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from trials import machine

from rsssl_nb.confusion import class_iou, confusion_matrix, mean_iou
from rsssl_nb.data.examples import example_scenes, few_windows
from rsssl_nb.data.mosaics import lit
from rsssl_nb.files import write_aside
from rsssl_nb.mapping.segment import segment
from rsssl_nb.training import crops
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.folder import code_version
from rsssl_nb.views.appearance import Colour

OUT = Path(__file__).resolve().parents[1] / "results" / "lights.json"
LIGHTS, DRAWS, STEPS, SIZE = (0.0, 0.1, 0.2, 0.4), 4, 200, 128
ARMS = {  # name: what it begins with, mode, colours of the fine-tuning (None: its own, mild ones)
    "boosting": (None, "", None),
    "fresh": ("random", "full", None),
    "fresh-strong": ("random", "full", Colour()),
    "simclr": ("shipped:simclr-1000", "full", None),
    "simclr-strong": ("shipped:simclr-1000", "full", Colour()),
    "fresh-kept": ("random", "frozen", None),
    "fresh-standard": ("random", "full", None),
    "simclr-kept-standard": ("shipped:simclr-1000", "frozen", None),
    **{
        f"{m}-kept": (f"shipped:{m}-1000", "frozen", None)
        for m in ("simclr", "glcnet", "false", "grass", "ssccl")
    },
}


def boosted(scenes):
    "A map (H, W) of an image (3, H, W) by gradient boosting of its pixels, taught by scenes."
    from sklearn.ensemble import HistGradientBoostingClassifier

    pixels = np.concatenate([s.image.reshape(3, -1).T for s in scenes])
    labels = np.concatenate([s.labels.ravel() for s in scenes])
    known = np.flatnonzero(labels != 255)[::4]
    made = HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(pixels[known], labels[known])
    return lambda image: made.predict(image.reshape(3, -1).T).reshape(image.shape[1:])


def standard(image):
    "An image (3, H, W) brought to a mean of 128 and a deviation of 45 a band."
    each = image.astype(np.float32)
    mean, std = (getattr(each, of)((1, 2), keepdims=True) for of in ("mean", "std"))
    return (128 + 45 * (each - mean) / std.clip(1)).round().clip(1, 255).astype(np.uint8)


def mapper(arm, taught, seed):
    "What draws the map of an image, learnt from windows of scenes by an arm."
    start, mode, colours = ARMS[arm]
    ready = standard if arm.endswith("-standard") else lambda image: image
    if start is None:
        return boosted(taught)
    taught = [replace(scene, image=ready(scene.image)) for scene in taught]
    strong = mock.patch.object(crops, "Colour", lambda *_, **__: colours) if colours else nullcontext()
    how = dict(steps=STEPS, batch=8, size=SIZE, width=16, seed=seed, mode=mode, progress=False, device="cpu")
    with strong:
        model, _ = finetune(start, taught, [s.labels for s in taught], **how)
    return lambda image: segment(model, ready(image), size=SIZE)


def days(scene, part, light):
    "The middle of a scene as it was taken, or under light of a strength, DRAWS times."
    image = scene.image[:, 256:768, 256:768]
    if not light:
        return [image]
    return [lit(np.random.default_rng([part, k, 2034]), image[None], light)[0] for k in range(DRAWS)]


def row_of(arm, light, seed, draw, mapped):
    "The row of an arm under lights of one strength."
    table = np.zeros((5, 5))
    for part, scene in enumerate(mapped):
        truth = torch.as_tensor(scene.labels[None, 256:768, 256:768])
        for image in days(scene, part, light):
            found = torch.as_tensor(draw(image)[None].astype(np.uint8))
            table += np.asarray(confusion_matrix(truth, found, 5))
    classes = dict(zip(mapped[0].classes, map(float, np.round(class_iou(table), 4))))
    value = round(float(mean_iou(table)), 4)
    facts = dict(steps=STEPS, windows=12, commit=code_version(), device=machine())
    return dict(arm=arm, light=light, seed=seed, value=value, classes=classes, **facts)


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    scenes = example_scenes(yes=False)
    rows = json.loads(OUT.read_text()) if OUT.exists() else []
    for seed in asked.seeds:
        taught = few_windows(scenes[:2], 12, SIZE, seed)
        for arm in asked.arms:
            if any((r["arm"], r["seed"]) == (arm, seed) for r in rows):
                continue
            draw = mapper(arm, taught, seed)
            rows += [row_of(arm, light, seed, draw, scenes[2:]) for light in LIGHTS]
            write_aside(
                OUT, lambda path: path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
            )
            print(arm, seed, [r["value"] for r in rows[-len(LIGHTS) :]], flush=True)


if __name__ == "__main__":
    main()
