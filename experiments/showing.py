"""What networks of 1 000 steps show of the ideas they are named after, on ground they never saw.

    python experiments/showing.py [--work runs/proof]

Three draws of views of 64 windows of Dubai's validation scene (2). Asked are, for each of the four methods,
three networks of each kind: its own (seed 0 is the one that ships), those of its placebo and of SimCLR, all
trained alike by `proof.py` (their runs are sought in WORK), and untrained ones, whose BatchNorm saw training
views. A placebo's weights are asked for the true matches; of SimCLR's, SSCCL and GLCNet take the encoder.

FALSE: is the first suspect of one's dominant class, in the quarter of the rows whose own views agree best?
GraSS: how pure is the box among all its places, in views of several classes that were cut? GLCNet and SSCCL
need no label: does a window or a point find its place in the other view, by geometry? Nothing is trained.
Rows: results/showing.json, one a method, network, seed, measure and draw; `trained` names the run's commit.
"""

import argparse
import json
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from controls import dubai_tiles
from proof import DUBAI_VIEWS, FOUR, PLACEBOS
from trials import ROOT, refit

from rsssl_nb.data.statistics import normalise
from rsssl_nb.encoders import Encoder
from rsssl_nb.evaluation.mechanisms import audit, box_arms, label_shares, purity_rank, retrieval, scorecard
from rsssl_nb.files import write_aside
from rsssl_nb.methods.base import At, still_statistics
from rsssl_nb.methods.registry import recorded_method
from rsssl_nb.objectives.regions import window_mean
from rsssl_nb.training.folder import code_version
from rsssl_nb.views.pairs import two_views
from rsssl_nb.weights import load_into, load_weights, shipped

OUT = ROOT / "results" / "showing.json"
TILES, DRAWS, NETWORKS, STEPS = 64, 3, 3, 1000
CARD = {  # (measure, arm) of the scorecard: the name in the rows
    ("suspects, equal numbers", "gap"): "suspects right",
    ("suspects, equal numbers", "any negative"): "any negative right",
    ("suspects, equal numbers", "colour"): "nearest in colour right",
    ("window retrieval", "matched"): "windows found",
    ("correspondence", "encoder"): "points found",
    ("across scenes", "encoder"): "nearest stranger of one's class",
}


# who is asked


def built(meta, seed=0):
    "The untrained method of a file's record, drawn by a seed."
    torch.manual_seed(seed)
    encoder = Encoder(meta["encoder"], meta["bands"], meta["width"], meta["stride"])
    return recorded_method(meta["method"], encoder, meta["options"], meta["defaults"]).eval()


def guided():
    "The moment at which all are asked, with draws of its own."
    return At(progress=1.0, generator=torch.Generator().manual_seed(0))


def fitted(method, pairs):
    "A method whose BatchNorm has the statistics of these pairs of views; its weights stay."
    refit(method, [partial(method.step, pair, guided()) for pair in pairs])
    return method


def filled(method, path, encoder_alone=False):
    "A method with the weights of a file, or with those of its encoder."
    state = load_weights(path)[0]
    if encoder_alone:
        state = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    load_into(method.encoder if encoder_alone else method, state)
    return method


def files_of(arm, work):
    "(seed, commit, path) of the networks of an arm, seed 0 first: what ships, and runs in a folder."
    if arm in FOUR:
        path = shipped(f"{arm}-{STEPS}")
        yield 0, load_weights(path)[1]["commit"], path
    for seed in range(arm in FOUR, 5):
        found = work.glob(f"cpu-{arm}-{seed}-*/method-{STEPS:06d}.safetensors")
        if path := max(found, key=lambda path: path.stat().st_mtime, default=None):
            yield seed, path.parent.name.rpartition("-")[2], path


def networks(method, work, training):
    "(network, seed, commit of its training, method) of all that are asked; too few are named."
    meta = load_weights(shipped(f"{method}-{STEPS}"))[1]
    for seed in range(NETWORKS):
        yield "untrained", seed, "", fitted(built(meta, seed), training)
    for arm in ("simclr", dict(zip(FOUR, PLACEBOS))[method], method):
        there = list(islice(files_of(arm, work), NETWORKS))
        if len(there) < NETWORKS:
            print(f"{method}: {len(there)} of {NETWORKS} networks of {arm} are in {work}")
        alone = arm == "simclr" and method in ("glcnet", "ssccl")
        for seed, commit, path in there:
            yield arm, seed, commit, filled(built(meta), path, alone)


# what they are asked


def tiles(split, meta):
    "64 windows of a split, normalised, and their labels."
    images, labels, _ = dubai_tiles(split)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:TILES].numpy()
    seen = normalise(torch.as_tensor(images[chosen]).float(), meta["mean"], meta["std"])
    return seen, torch.as_tensor(labels[chosen]).long()


def audits(meta):
    "The audited views, one of each draw: the same windows for all networks."
    seen, told = tiles("val", meta)
    origin, alone = torch.zeros(TILES, 2), torch.arange(TILES)  # each window a scene of its own
    return [audit(seen, told, origin, alone, meta["size"], seed=k, plan=DUBAI_VIEWS) for k in range(DRAWS)]


def boxes_ranked(made, views):
    "GraSS: the mean rank of its boxes and of those of a shuffled map, in mixed views that were cut."
    arms = box_arms(made, views.pair, guided())
    mixed = label_shares(views.labels).amax(1) < 0.8
    found = {}
    for arm, name in (("gradient", "box rank"), ("shuffled", "box rank, map shuffled")):
        sides = arms[arm][:, 2:] - arms[arm][:, :2]
        use = mixed & (sides.prod(1) < 0.9 * views.labels[0].numel())
        found[name] = float(purity_rank(views.labels, arms[arm])[use].mean())
    return found


def windows_found(made, views):
    "GLCNet: the share of windows that the encoder's own map finds, without decoder and head."
    pair = views.pair
    with torch.no_grad(), still_statistics(made):
        trace = made.step(pair, guided()).trace
        dense = made.encoder(torch.cat([pair.a, pair.b])).dense
    boxes = torch.cat([trace["boxes_a"], trace["boxes_b"]])
    return {
        "windows found, encoder": retrieval(*window_mean(dense, boxes, pair.size).chunk(2), trace["valid"])
    }


def answers(method, network, made, views):
    "{measure: value} of a network that is asked about a method's idea."
    if method == "grass":
        return boxes_ranked(made, views)
    found = {CARD[key]: value for key, value in scorecard(made, views).items() if key in CARD}
    if method == "glcnet":
        found |= windows_found(made, views)
        if network == "simclr":  # it has no decoder
            found.pop("windows found")
    return found


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "proof", help="the runs of proof.py")
    asked, rows = parser.parse_args(), []
    torch.set_num_threads(1)
    meta = shipped()[f"simclr-{STEPS}"]
    seen = audits(meta)
    learnt, _ = tiles("train", meta)
    training = [two_views(learnt, meta["size"], DUBAI_VIEWS, seed=k, min_iou=0.1) for k in range(4)]
    for method in FOUR:
        for network, seed, commit, made in networks(method, asked.work, training):
            for draw, views in enumerate(seen):
                told = dict(method=method, network=network, seed=seed, trained=commit, draw=draw)
                for name, value in answers(method, network, made, views).items():
                    rows.append(told | dict(measure=name, value=round(value, 4), commit=code_version()))
            print(method, network, seed, {r["measure"]: r["value"] for r in rows[-4:]}, flush=True)
    write_aside(OUT, lambda path: path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"))


if __name__ == "__main__":
    main()
