"""Rows with scores: fine-tune, map the test tiles, count; and the floors, which learn without a network."""

import time
from pathlib import Path

import numpy as np
import torch
from arms import Setup
from jobs import Budget, ResultsFile, identity
from learning import finetuned, pretrained, tables_of
from tiles import SUBSETS, Data, Tiles

from rsssl_nb.data.statistics import normalise
from rsssl_nb.encoders import Encoder
from rsssl_nb.evaluation.probing import feature_maps, spread
from rsssl_nb.evaluation.scores import per_image_miou, scores


def with_scores(row: dict, tables: np.ndarray, blocks: np.ndarray, classes: list, bugs=()) -> dict:
    """A row with its scores and its tables by block, from tables (n, K, K) of tiles in `blocks` (n,).

    Scores are those of the added tables; with the bug `per_image`, mean IoU is the mean over images.
    """
    found = scores(tables.sum(0))
    iou = {name: round(float(value), 5) for name, value in zip(classes, found["iou"])}
    if "per_image" in bugs:
        found["miou"] = per_image_miou(tables)
    return {
        **row,
        **{name: round(float(found[name]), 5) for name in ("miou", "oa", "kappa", "f1")},
        "iou": iou,
        "confusion_by_block": {
            block: tables[blocks == block].sum(0).tolist() for block in sorted(set(blocks))
        },
    }


def finished_row(job: dict, kept: dict, data: Data, test: Tiles, setup: Setup, device: str) -> dict:
    "A job's finished row: fine-tune what its pretraining handed on, map the test tiles, count."
    record = kept["record"]
    bugs = job["bugs"].split("+")
    if record["status"] != "done":
        return {**job, "status": record["status"], "miou": None}
    mean, std = record["mean"], record["std"]
    classes = len(data.classes)
    tiles = data.train[data.subset(job["fraction"], job["label_subset"])].to(device)
    model = finetuned(kept, tiles, setup, classes, job, device, bugs, test)
    row = with_scores(job, tables_of(model, test, classes, mean, std), test.block, data.classes, bugs)
    encoder = Encoder(setup.encoder, test.images.shape[1], setup.width, setup.stride)
    encoder.load_state_dict(kept["state"]["encoder"])
    images = normalise(data.train.images[:64].to(device).float(), mean, std)
    health = spread(feature_maps(encoder.to(device), images))
    return {
        **row,
        "status": "done" if np.isfinite(row["miou"]) else "diverged",
        "views_seen": record["views_seen"],
        "encoder_passes": record["encoder_passes"],
        **{name: round(value, 5) for name, value in health.items()},
    }


def run_jobs(
    jobs: list[dict],
    data: Data,
    sizes,
    results: ResultsFile,
    budget: Budget,
    device: str,
    folder: Path,
    common: dict,
    weights: dict | None = None,
    twice: bool = False,
) -> int:
    """Runs jobs, row by row, until they or the budget end; gives how many are left.

    `common` is added to every row, `folder` keeps pretrained encoders. `twice`: only the first job, two times
    from nothing, and how far apart the rows are.
    """
    left = [job for job in jobs if twice or not results.is_done(job)]
    wanted = {job["pool"] for job in left}
    data.pools = {
        pool: tuple(tensor.to(device) for tensor in pair)
        for pool, pair in data.pools.items()
        if pool in wanted
    }
    test = None
    for n, job in enumerate(left):
        if not budget.fits("pretraining", "row"):
            return len(left) - n
        setup = sizes(job["method"])
        if twice:
            folder = folder / f"twice-{time.time_ns()}"
        else:
            results.keep({**job, **common, "status": "started"})  # what a killed call leaves behind
        kept, _ = budget.timed("pretraining", pretrained, job, data, setup, device, folder, weights)
        test = test or data.test().to(device)
        row, minutes = budget.timed("row", finished_row, job, kept, data, test, setup, device)
        if twice:
            kept = pretrained(job, data, setup, device, folder / "again", weights)
            again = finished_row(job, kept, data, test, setup, device)
            print(
                f"{job['method']} {job['fraction']} {job['mode']}: mIoU {row['miou']} and {again['miou']}, "
                f"{100 * abs(row['miou'] - again['miou']):.3f} points apart; "
                f"rows {'equal' if row == again else 'differ'}"
            )
            return 0
        minutes_pretrain = kept["record"]["minutes"]
        results.keep({**row, **common, "minutes": minutes, "minutes_pretrain": minutes_pretrain})
        print(
            f"[{n + 1}/{len(left)}] {job['method']:16} {job['setting']} {job['pool']} {job['fraction']} "
            f"{job['mode']} seed {job['seed']}: {row['status']}, mIoU {row['miou']}",
            flush=True,
        )
    return 0


def floor_tables(predicted: np.ndarray, test: Tiles, classes: int) -> np.ndarray:
    "Confusion matrices (n, K, K) of predictions (n, pixels) on test tiles, rows truth."
    tables = []
    for truth, guess in zip(test.labels.flatten(1).numpy(), predicted):
        known = truth != 255
        pairs = truth[known].astype(int) * classes + guess[known]
        tables.append(np.bincount(pairs, minlength=classes**2).reshape(classes, classes))
    return np.stack(tables)


def run_floors(data: Data, results: ResultsFile, budget: Budget, common: dict) -> None:
    """Rows that learn without a network, one for each share of the labels.

    The most common class; boosting on each pixel's colour and surroundings; and two people about one ground
    (their published agreement).
    """
    from dubai import pixel_features
    from sklearn.ensemble import HistGradientBoostingClassifier

    classes = len(data.classes)
    base = dict(
        dataset=data.name,
        split="test",
        setting="floor",
        pool="none",
        preset="default",
        parent=None,
        encoder="none",
        px=data.train.labels.shape[-1],
        mode="none",
        transfer="none",
        seed=None,
        bugs="",
        status="done",
        **common,
    )
    for overlap in data.overlaps[:1]:
        agreement = dict(miou=round(overlap["mean_iou"], 5), iou=overlap["iou"], confusion_by_block={})
        results.keep({**base, "method": "annotators", "fraction": "none", "label_subset": 0, **agreement})

    def features(tiles):
        return np.concatenate([pixel_features(image.numpy().astype(np.float32)) for image in tiles.images])

    def fit(job, test):
        tiles = data.train[data.subset(job["fraction"], job["label_subset"])]
        order = np.random.default_rng(0).permutation(len(tiles))
        tiles = tiles[torch.as_tensor(order[:600])]
        x, y = features(tiles), tiles.labels.numpy().ravel()
        known = np.flatnonzero(y != 255)
        chosen = np.random.default_rng(0).choice(known, min(len(known), 200_000), replace=False)
        boosting = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x[chosen], y[chosen])
        asked = features(test)
        guesses = dict(
            majority=np.full(len(asked), np.bincount(y[known]).argmax()), boosting=boosting.predict(asked)
        )
        for name, guess in guesses.items():
            tables = floor_tables(guess.reshape(len(test), -1), test, classes)
            results.keep(with_scores({**job, "method": name}, tables, test.block, data.classes))

    test = None
    for fraction, number in [*SUBSETS, ("all", 0)]:
        job = {**base, "method": "boosting", "fraction": fraction, "label_subset": number}
        if results.is_done(job) or not budget.fits("floor"):
            continue
        test = test or data.test()
        _, minutes = budget.timed("floor", fit, job, test)
        miou = results.rows[identity(job)]["miou"]
        print(f"floors {fraction} {number}: {minutes} minutes, boosting {miou}", flush=True)
