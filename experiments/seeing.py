"""Are RELAX and feature factors true of a network? Erasure and randomisation on ten real views; JSON rows.

    python experiments/seeing.py dubai shipped:simclr-20              a trained network, an untrained like it
    python experiments/seeing.py rsscn7 RUN/encoder.safetensors --name simclr-rsscn7
    add --keep to put the rows into results/seeing.json, in place of those of the same network and imagery

RSSSL_DATA names the folder with `dubai/` and `rsscn7/`. Erasure: what is left of a number as the hottest
pixels go, mean over all shares; lower is better. For RELAX the number is the embedding's cosine to itself;
for factors how much of a part's direction the view holds, over all parts, each erased by its own map: where
the part lay (`erasure_there`), and anywhere (`erasure`; a part that codes flat ground grows as pixels go).
Controls: random maps as smooth as RELAX's masks and, for RELAX, scattered pixels. Randomisation: rank
agreement of maps with those of eight copies whose layers are all drawn anew, less than that of two draws of
masks of the same network (`randomisation_changes`); and beside that of the copies among themselves: a map
that training has shaped agrees with them less than they do with one another, and one of an untrained network,
which is one of them, should not. Intervals are Student's, 95 %, over the views.
"""

import argparse
import json
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from controls import imagery
from scipy.optimize import linear_sum_assignment
from scipy.stats import t as student

from rsssl_nb.data.folders import open_folders
from rsssl_nb.data.gdal import find_rasters
from rsssl_nb.data.raster import open_raster
from rsssl_nb.encoders import Encoder
from rsssl_nb.explain.attribution import LAYERS, Scalar, agreement, erasure, randomised
from rsssl_nb.explain.factors import factorise
from rsssl_nb.explain.neighbours import dense_features
from rsssl_nb.explain.relax import likeness_to_itself, random_masks, relax
from rsssl_nb.files import write_aside
from rsssl_nb.weights import load, shipped

VIEWS, SIZE, MASKS, PARTS, STEPS, COPIES = 10, 96, 500, 4, 16, 8
ROWS = Path(__file__).parents[1] / "results/seeing.json"


def real_views(name, bands):
    "Ten windows (10, bands, 96, 96) from the middles of ten images, standardised band by band."
    if name == "rsscn7":  # of those kept for judging, reduced to 128 pixels as they were for training
        images = open_folders(imagery() / "rsscn7").read("judge", 128).images
        chosen = images[np.linspace(0, len(images) - 1, VIEWS).round().astype(int)]
        edge = (128 - SIZE) // 2
        views = torch.as_tensor(chosen[:, :, edge:-edge, edge:-edge]).float()
    else:
        paths = find_rasters(imagery() / "dubai/test/images")
        rasters = [open_raster(paths[i]) for i in np.linspace(0, len(paths) - 1, VIEWS).round().astype(int)]
        middles = [((r.width - SIZE) // 2, (r.height - SIZE) // 2) for r in rasters]
        windows = [r.read(x, y, SIZE, SIZE) for r, (x, y) in zip(rasters, middles)]
        views = torch.as_tensor(np.stack(windows))
    if views.shape[1] < bands:  # a network of more bands sees the last one again
        views = torch.cat([views, views[:, -1:].expand(-1, bands - views.shape[1], -1, -1)], 1)
    return (views - views.mean((0, 2, 3), keepdim=True)) / views.std((0, 2, 3), keepdim=True)


def difference(a, b):
    "Mean and 95 % interval of paired values less each other."
    gap = (a - b).double().numpy()
    half = student.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5
    return [round(float(v), 4) for v in (gap.mean(), gap.mean() - half, gap.mean() + half)]


def smooth_maps(seed):
    "One random map a view, as smooth as a mask of RELAX."
    return random_masks(VIEWS, (SIZE, SIZE), seed=seed)


def relax_of(encoder, views, seed):
    "RELAX's importance (views, H, W) under the masks of a seed."
    masks = random_masks(MASKS, (SIZE, SIZE), seed=seed)
    return relax(likeness_to_itself(encoder, views), views, masks).importance


def parts_of(encoder, views, seed):
    "The parts (views, k, h, w) of an encoder's features, from the beginning of a seed."
    return factorise(dense_features(encoder, views), PARTS, seed=seed).parts


def randomisation(encoder, views, maps_of, alike):
    """Agreement of a network's maps with themselves, with those of copies drawn anew, and of those copies.

    `maps_of(encoder, views, seed)`: maps by a draw of masks or of a beginning; the same masks would agree by
    their common noise. `alike(a, b)`: the agreement (views,) of two. The network stands apart from its copies
    when it agrees with them less than any copy does with the others, `least_among_randomised`: of nine
    networks of one kind each is the least with chance 1/9.
    """
    own = maps_of(encoder, views, 0)
    same = alike(own, maps_of(encoder, views, 7))
    layers = (*reversed(LAYERS), "conv1")
    copies = [maps_of(randomised(encoder, layers, k), views, 8 + k) for k in range(COPIES)]
    other = torch.stack([alike(own, copy) for copy in copies]).mean(0)
    table = torch.zeros(COPIES, COPIES)
    for i, j in combinations(range(COPIES), 2):
        table[i, j] = table[j, i] = alike(copies[i], copies[j]).mean()
    among = table.sum(1) / (COPIES - 1)
    return dict(
        copies=COPIES,
        agreement_again=round(float(same.mean()), 3),
        agreement_randomised=round(float(other.mean()), 3),
        agreement_among_randomised=round(float(among.mean()), 3),
        least_among_randomised=round(float(among.min()), 3),
        most_among_randomised=round(float(among.max()), 3),
        randomisation_changes=difference(same, other),
    )


def judge_relax(encoder, views):
    "Erasure beside both controls, and agreement with the maps of a randomised copy."
    scalar = likeness_to_itself(encoder, views)
    start = time.perf_counter()
    found = relax(scalar, views, random_masks(MASKS, (SIZE, SIZE))).importance
    seconds = (time.perf_counter() - start) / len(views)
    scattered = torch.rand(len(views), SIZE, SIZE, generator=torch.Generator().manual_seed(1))

    def area(maps):
        return erasure(scalar, views, maps, steps=STEPS).mean(1)

    own, pixels = area(found), area(scattered)
    control = torch.stack([area(smooth_maps(100 + k)) for k in range(4)]).mean(0)
    return dict(
        map="relax",
        seconds_a_view=round(seconds, 2),
        erasure=round(float(own.mean()), 4),
        smooth_random=round(float(control.mean()), 4),
        scattered_random=round(float(pixels.mean()), 4),
        less_smooth=difference(own, control),
        less_scattered=difference(own, pixels),
        **randomisation(encoder, views, relax_of, agreement),
    )


def amount_of(encoder, direction, weights=None):
    """How much of a direction (D,) the features of images hold, as a Scalar; with `weights` (n, h, w), there.

    The mean of features' products with the direction, which is not negative.
    """

    def ask(images):
        along = torch.einsum("ndhw,d->nhw", encoder(images).dense, direction)
        return (along if weights is None else along * weights).mean((1, 2))

    return Scalar(encoder, ask)


def matched_agreement(ours, theirs):
    "Mean rank agreement (views,) of parts (views, k, h, w), each with the other network's part most like it."
    k = ours.shape[1]
    pairs = torch.stack(
        [torch.stack([agreement(ours[:, i], theirs[:, j]) for j in range(k)]) for i in range(k)]
    )
    rows, columns = linear_sum_assignment(-pairs.mean(2).numpy())
    return pairs[rows, columns].mean(0)


def judge_factors(encoder, views):
    "Erasure of each part by its own map beside smooth random ones; agreement with a randomised copy's parts."
    start = time.perf_counter()
    features = dense_features(encoder, views)
    found = factorise(features, PARTS)
    seconds = round((time.perf_counter() - start) / len(views), 3)
    maps = F.interpolate(found.parts, (SIZE, SIZE), mode="bilinear", align_corners=False)

    def left(maps, there):
        "The share (views,) of what all parts hold that is left, each erased by its own of maps (k, B, H, W)."
        total = rest = 0
        for k, direction in enumerate(found.directions):
            scalar = amount_of(encoder, direction, found.parts[:, k] if there else None)
            values = erasure(scalar, views, maps[k], steps=STEPS)
            total, rest = total + values[:, 0], rest + values.mean(1)
        return rest / total

    own = maps.movedim(1, 0)
    row = dict(map="factors", parts=PARTS, explained=round(found.explained, 3), seconds_a_view=seconds)
    for name, there in (("erasure_there", True), ("erasure", False)):
        ours = left(own, there)
        control = torch.stack([left([smooth_maps(100 + k)] * PARTS, there) for k in range(4)]).mean(0)
        row |= {name: round(float(ours.mean()), 4), f"{name}_random": round(float(control.mean()), 4)}
        row[f"{name}_less_random"] = difference(ours, control)
    return row | randomisation(encoder, views, parts_of, matched_agreement)


def keep(new):
    "Puts rows into results/seeing.json, in place of those of the same network and imagery."
    old = json.loads(ROWS.read_text()) if ROWS.exists() else []
    known = {(row["network"], row["imagery"], row["map"]): row for row in [*old, *new]}
    text = "[\n" + ",\n".join(json.dumps(known[key]) for key in sorted(known)) + "\n]\n"
    write_aside(ROWS, lambda path: path.write_text(text))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("imagery", choices=["dubai", "rsscn7"])
    parser.add_argument("run", help="encoder weights, or shipped:NAME")
    parser.add_argument("--name", help="what the rows call the network")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    given, _, name = asked.run.partition(":")
    trained = load(shipped(name) if given == "shipped" else asked.run).encoder.eval()
    untrained = Encoder(trained.name, trained.bands, trained.width, trained.stride).eval()
    views = real_views(asked.imagery, trained.bands)
    called = asked.name or name or Path(asked.run).parent.name
    rows = []
    for network, encoder in ((called, trained), (f"untrained like {called}", untrained)):
        for judge in (judge_relax, judge_factors):
            row = dict(network=network, imagery=asked.imagery)
            rows.append(row | judge(encoder, views))
            print(json.dumps(rows[-1]), flush=True)
    if asked.keep:
        keep(rows)


if __name__ == "__main__":
    main()
