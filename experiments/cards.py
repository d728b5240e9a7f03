"""The scorecard's rows: mechanisms over training, scored with labels that the methods do not see."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from arms import SMALL
from jobs import Budget, json_lines
from learning import band_moments, pretraining
from tiles import audited

from rsssl_nb.data.statistics import normalise
from rsssl_nb.evaluation.evidence import PROTOCOL
from rsssl_nb.evaluation.mechanisms import MEASURES, audit, scorecard
from rsssl_nb.evaluation.probing import judge
from rsssl_nb.files import write_aside
from rsssl_nb.methods.base import At
from rsssl_nb.training.folder import code_version

ARMS_OF_CARD = "grass false glcnet ssccl simclr glcnet-unmatched ssccl-shuffled".split()


def run_cards(
    name: str,
    folder: Path,
    path: Path,
    seeds: Sequence[int],
    arms: list[str],
    budget: Budget,
    epochs: int = 10,
    looks: int = 2,
) -> None:
    """Adds the scorecard's rows of a data set to the file at `path`; arms and seeds that are there stay.

    Rows of another protocol are dropped.
    Each arm is trained on unlabelled tiles and asked before, `looks` - 1 times during, and after, on tiles of
    other scenes. `folder` holds the pack of Dubai.
    """
    near, other, classes, metres = audited(name, folder)
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [row for row in rows if row["protocol"] == PROTOCOL]
    setup = replace(SMALL, width=16, px=64, batch=32, epochs=epochs)
    mean, std = band_moments(near.images)
    bank, query = ((normalise(tiles.images.float(), mean, std), tiles.labels) for tiles in (near, other))
    scene = torch.as_tensor(np.unique(other.scene, return_inverse=True)[1])
    seen = audit(*query, torch.as_tensor(other.corner), scene, size=64, metres=metres)
    total = epochs * (len(near) // setup.batch)

    def ask(arm, seed):
        for step, method, _ in pretraining(arm, (near.images, near.labels), setup, seed, "common", "cpu"):
            if step % (total // looks):
                continue
            at = At(progress=1.0, generator=torch.Generator().manual_seed(1000 * seed + step))
            values = scorecard(method, seen, at)
            values["linear probe", "all labels"] = judge(method.encoder, bank, query, classes)["linear"]
            for (measure, arm_of_measure), value in values.items():
                if np.isfinite(value):
                    rows.append(
                        dict(
                            data=name,
                            method=arm,
                            seed=seed,
                            step=step,
                            measure=measure,
                            arm=arm_of_measure,
                            kind=MEASURES[measure][1],
                            value=round(value, 5),
                            protocol=PROTOCOL,
                            commit=code_version(),
                        )
                    )

    for seed, arm in product(seeds, arms):
        there = any((row["data"], row["method"], row["seed"]) == (name, arm, seed) for row in rows)
        if there or not budget.fits("card"):
            continue
        _, minutes = budget.timed("card", ask, arm, seed)
        write_aside(path, lambda aside: aside.write_text(json_lines(map(json.dumps, rows))))
        print(f"scorecard {name} {arm} seed {seed}: {minutes} minutes", flush=True)
