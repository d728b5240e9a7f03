"""Which window next? Budget curves of three rankings on mosaics of real texture, and the labels they save.

    python experiments/active.py RUN/encoder.safetensors --name simclr-rsscn7   prints rows
    add --keep to put them into results/active.json, in place of those of the same network

RSSSL_DATA names the folder with `rsscn7/`. A pool of 256 mosaics of its training part, 96 pixels, six parcels
of seven classes; 256 of its judging part to be judged by. Two pools: all classes alike, and the first class
thirty times as frequent as the last (the judged mosaics are always alike). A linear probe of the encoder's
last map, or of all stages, is learnt from 64 pixels a labelled window; 4 windows at random to begin with, up
to 96. Seeds 0, 1, 2 draw the first windows and the random ranking. Intervals: 95 %, over seeds and judged
mosaics together.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from controls import rsscn7

from rsssl_nb.data.mosaics import MosaicPlan, make_mosaics
from rsssl_nb.evaluation.active import (
    RANKINGS,
    budget_curve,
    compare_rankings,
    labels_saved,
    saved_interval,
)
from rsssl_nb.evaluation.judges import band_moments, stage_maps
from rsssl_nb.files import write_aside
from rsssl_nb.weights import load

BUDGETS, SEEDS, MOSAICS, SIZE = (4, 8, 16, 32, 64, 96), (0, 1, 2), 256, 96
POOLS = dict(alike=MosaicPlan(), rare=MosaicPlan(imbalance=30.0))
ROWS = Path(__file__).parents[1] / "results/active.json"


def features_of(encoder, made, moments, stages):
    "Frozen maps (n, D, h, w) and labels of mosaics standardised by (mean, std): the last stage's, or all."
    mean, std = (torch.as_tensor(m).float().view(1, -1, 1, 1) for m in moments)
    images = (torch.as_tensor(made.images).float() - mean) / std
    maps = stage_maps(encoder, images)[-1 if stages == "last" else 0 :]
    same = [F.interpolate(m, (SIZE // 8,) * 2, mode="bilinear", antialias=True) for m in maps]
    return torch.cat(same, 1), torch.as_tensor(made.labels)


def finite(value):
    "A number with four digits; None for one that is not finite, which JSON cannot hold."
    return round(float(value), 4) if np.isfinite(value) else None


def rows_of(encoder, name):
    "A row for each budget of a pool, features and ranking, and one of the labels that the ranking saves."
    train, judged = rsscn7("train", 128), rsscn7("judge", 128)
    moments = band_moments(train.images)
    classes = len(train.classes)
    tests = make_mosaics(judged, MOSAICS, SIZE, seed=1)
    for stages, (pool, plan) in product(("last", "all"), POOLS.items()):
        test = features_of(encoder, tests, moments, stages)
        known = features_of(encoder, make_mosaics(train, MOSAICS, SIZE, plan, seed=0), moments, stages)
        curves = {
            ranking: np.stack([budget_curve(ranking, *known, *test, classes, BUDGETS, s) for s in SEEDS])
            for ranking in RANKINGS
        }
        for ranking, curve in curves.items():
            about = dict(network=name, stages=stages, pool=pool, ranking=ranking, seeds=len(SEEDS))
            for budget, row in zip(BUDGETS, compare_rankings(curve, curves["random"])):
                yield about | dict(budget=budget) | {k: round(v, 4) for k, v in row.items()}
            if ranking != "random":
                saved = labels_saved(curve, curves["random"], BUDGETS)
                low, high = saved_interval(curve, curves["random"], BUDGETS)
                yield about | dict(saved=finite(saved), low=finite(low), high=finite(high))


def keep(new):
    "Puts rows into results/active.json, in place of those of the same network."
    old = json.loads(ROWS.read_text()) if ROWS.exists() else []
    names = {row["network"] for row in new}
    rows = [row for row in old if row["network"] not in names] + new
    text = "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"
    write_aside(ROWS, lambda path: path.write_text(text))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="encoder weights of three bands")
    parser.add_argument("--name", help="what the rows call the network")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for row in rows_of(load(asked.run).encoder.eval(), asked.name or Path(asked.run).parent.name):
        print(json.dumps(row), flush=True)
        rows.append(row)
    if asked.keep:
        keep(rows)


if __name__ == "__main__":
    main()
