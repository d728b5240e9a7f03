"""Is RELAX true of a network? Erasure on real views against random maps, and randomisation; one JSON line.

    python experiments/seeing.py FOLDER [RUN]   ten views from the images of FOLDER; RUN: encoder weights

Erasure: the mean cosine of an embedding to itself as pixels go, hottest first, over all shares; lower is
better. Controls: random maps as smooth as RELAX's masks, and scattered pixels. The interval of the difference
is Student's, 95 %, over the views. Randomisation: rank agreement of maps with those of weights drawn anew.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student

from rsssl_nb.data.gdal import find_rasters
from rsssl_nb.data.raster import open_raster
from rsssl_nb.encoders import Encoder
from rsssl_nb.explain.attribution import agreement, erasure, randomised
from rsssl_nb.explain.relax import likeness_to_itself, random_masks, relax
from rsssl_nb.weights import load, shipped

VIEWS, SIZE, MASKS = 10, 96, 500


def real_views(folder, bands):
    "Ten windows (10, bands, 96, 96) from the middles of ten rasters, standardised band by band."
    paths = find_rasters(Path(folder))
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, VIEWS).round().astype(int)]
    views = []
    for path in chosen:
        raster = open_raster(path)
        x, y = (raster.width - SIZE) // 2, (raster.height - SIZE) // 2
        views.append(torch.as_tensor(raster.read(x, y, SIZE, SIZE)))
    views = torch.stack(views)
    if views.shape[1] < bands:  # a network of more bands sees the last one again
        views = torch.cat([views, views[:, -1:].expand(-1, bands - views.shape[1], -1, -1)], 1)
    return (views - views.mean((0, 2, 3), keepdim=True)) / views.std((0, 2, 3), keepdim=True)


def difference(a, b):
    "Mean and 95 % interval of paired values less each other."
    gap = (a - b).double().numpy()
    half = student.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5
    return [round(float(v), 4) for v in (gap.mean(), gap.mean() - half, gap.mean() + half)]


def judge_relax(encoder, views):
    "Erasure beside both controls, and agreement with the maps of randomised copies."
    masks = random_masks(MASKS, (SIZE, SIZE))
    start = time.perf_counter()
    found = relax(likeness_to_itself(encoder, views), views, masks)
    seconds = (time.perf_counter() - start) / len(views)
    scalar = likeness_to_itself(encoder, views)
    scattered = torch.rand(len(views), SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    smooth = [random_masks(len(views), (SIZE, SIZE), seed=100 + k) for k in range(4)]
    area = erasure(scalar, views, found.importance, steps=16).mean(1)
    control = torch.stack([erasure(scalar, views, m, steps=16).mean(1) for m in smooth]).mean(0)
    pixels = erasure(scalar, views, scattered, steps=16).mean(1)
    layers = ("layer4", "layer3", "layer2", "layer1", "conv1")
    other = randomised(encoder, layers)
    fresh = random_masks(MASKS, (SIZE, SIZE), seed=7)  # the same masks would agree by their common noise
    again = relax(likeness_to_itself(other, views), views, fresh)
    half = relax(likeness_to_itself(encoder, views), views, fresh)
    return dict(
        seconds_a_view=round(seconds, 2),
        erasure=round(float(area.mean()), 4),
        smooth_random=round(float(control.mean()), 4),
        scattered_random=round(float(pixels.mean()), 4),
        less_smooth=difference(area, control),
        less_scattered=difference(area, pixels),
        agreement_other_masks=round(float(agreement(found.importance, half.importance).mean()), 3),
        agreement_all_layers_randomised=round(float(agreement(found.importance, again.importance).mean()), 3),
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    trained = load(sys.argv[2] if len(sys.argv) > 2 else shipped("simclr-20")).encoder.eval()
    untrained = Encoder(trained.name, trained.bands, trained.width, trained.stride).eval()
    views = real_views(sys.argv[1], trained.bands)
    print(json.dumps({"trained": judge_relax(trained, views), "untrained": judge_relax(untrained, views)}))
