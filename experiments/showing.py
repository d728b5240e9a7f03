"""What trained networks show of the ideas they are named after, on ground they never saw.

    python experiments/showing.py [--work runs/proof]
    python experiments/showing.py --steps 4000     the one long run of SimCLR and of each method

Three draws of views of 64 windows of Dubai's validation scene (2). Asked are, for each of the four methods,
three networks of each kind: its own (seed 0 is the one that ships), those of its placebo and of SimCLR, all
trained alike by `proof.py` (their runs are sought in WORK), and `random-fitted`, untrained ones whose
BatchNorm saw training views. A placebo's weights are asked for the true matches. SSCCL and GLCNet take
SimCLR's encoder alone, which ships; FALSE and GraSS need its head, which does not: other seeds.

FALSE: is the first suspect of one's dominant class, in the quarter of the rows whose own views agree best?
GraSS: how pure is the box among all its places, in views of several classes that were cut? GLCNet and SSCCL
need no label: does a window or a point find its place in the other view, by geometry? Nothing is trained.
Rows: results/showing.json (1 000 steps) and showing-long.json (4 000: seed 0, no placebo), one a method,
network, seed, measure and draw; `trained` names the run's commit.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from campaigns import commit_of, folders_of
from controls import dubai_tiles
from proof import ARMS, CAMPAIGN, DUBAI_VIEWS, FOUR
from trials import ROOT, refit, snapshot_path

from rsssl_nb.data.statistics import normalise
from rsssl_nb.encoders import Encoder
from rsssl_nb.evaluation.doses import PLACEBO
from rsssl_nb.evaluation.mechanisms import (
    audit,
    box_arms,
    colour_similarity,
    label_shares,
    purity_rank,
    retrieval,
    scorecard,
    similar_content,
    suspicion,
)
from rsssl_nb.files import write_aside
from rsssl_nb.methods.base import At, still_statistics
from rsssl_nb.methods.registry import recorded_method
from rsssl_nb.objectives.regions import window_mean
from rsssl_nb.objectives.similarity import negatives
from rsssl_nb.training.folder import code_version
from rsssl_nb.views.pairs import two_views
from rsssl_nb.weights import load_into, load_weights, shipped

OUT = ROOT / "results" / "showing.json"
TILES, DRAWS = 64, 3
TRAINED = {1000: ("cpu", 3), 4000: ("long", 1)}  # steps: the world of proof.py, and how many seeds are asked
WITH_HEAD = ("false", "grass")  # their rules ask the projection head: of SimCLR too
CARD = {  # (measure, arm) of the scorecard: the name in the rows
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
    if encoder_alone:  # a file of the encoder alone has no prefix
        state = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")} or state
    load_into(method.encoder if encoder_alone else method, state)
    return method


def arm_of(network, steps):
    "The arm of proof.py that trains a network so long, or None."
    return next((arm for arm in ARMS if (arm.world, arm.name) == (TRAINED[steps][0], network)), None)


def files_of(network, whole, work, steps=1000):
    "{seed: (commit, file)} of an arm: what ships as seed 0, if it is `whole` enough, and runs in a folder."
    arm = arm_of(network, steps)
    found, name = {}, f"{network}-{steps}"
    if name in shipped() and (load_weights(shipped(name))[1]["kind"] == "method" or not whole):
        found[0] = load_weights(shipped(name))[1]["commit"], shipped(name)
    for seed in range(arm.seeds):
        runs = [run for run in folders_of(CAMPAIGN, work, arm, seed) if snapshot_path(run, steps).exists()]
        if runs and seed not in found:
            found[seed] = commit_of(runs[-1]), snapshot_path(runs[-1], steps)
    return found


def asked_files(work, steps=1000):
    """{(method, network): [(seed, commit, file), ...]} of all that train so long, the first seeds there are.

    SystemExit with what lacks and the command that makes it.
    """
    (world, seeds), found = TRAINED[steps], {}
    for method in FOUR:
        for network in ("simclr", PLACEBO[method], method):
            if not arm_of(network, steps):
                continue
            there = files_of(network, network != "simclr" or method in WITH_HEAD, work, steps)
            if len(there) < seeds:
                lacks = sorted(set(range(seeds)) - there.keys())
                raise SystemExit(
                    f"{work} lacks runs of {network}: "
                    f"python experiments/proof.py --world {world} --arms {network} --seeds "
                    f"{' '.join(map(str, lacks))} --work {work}"
                )
            found[method, network] = [(s, *there[s]) for s in sorted(there)[:seeds]]
    return found


def networks(method, files, training, seeds=3):
    "(network, seed, commit of its training, method) of all that are asked about a method."
    meta = load_weights(shipped(f"{method}-1000"))[1]
    for seed in range(seeds):
        yield "random-fitted", seed, "", fitted(built(meta, seed), training)
    for (about, network), told in files.items():
        for seed, commit, path in told if about == method else ():
            alone = network == "simclr" and method not in WITH_HEAD
            yield network, seed, commit, filled(built(meta), path, alone)


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


def suspects_right(made, views):
    """FALSE: whether the first suspect is of one's class, in the rows that are surest, and who else would be.

    And in what share of all rows its gate is open.
    """
    with torch.no_grad(), still_statistics(made):
        trace = made.step(views.pair, guided()).trace
    kin, among = similar_content(views)["same class"], negatives(len(views.pair))
    sure = trace["s_pos"].argsort(descending=True)[: len(trace["s_pos"]) // 4]
    named = {
        "suspects right": suspicion(trace["sim"], made.tau, "gap"),
        "nearest in colour right": colour_similarity(torch.cat([views.pair.a, views.pair.b])),
    }
    found = {"any negative right": float(kin[sure][among[sure]].float().mean())}
    found["gate open"] = float(trace["open"]) / len(trace["s_pos"])
    for name, score in named.items():
        first = score.masked_fill(~among, -torch.inf).argmax(1)[sure]
        found[name] = float(kin[sure, first].float().mean())
    return found


def boxes_ranked(made, views):
    "GraSS: the mean rank of its boxes and of a shuffled map's, in mixed views that both cut; and how many."
    arms = box_arms(made, views.pair, guided())
    arms = {"box rank": arms["gradient"], "box rank, map shuffled": arms["shuffled"]}
    use = label_shares(views.labels).amax(1) < 0.8
    for boxes in arms.values():
        use &= (boxes[:, 2:] - boxes[:, :2]).prod(1) < 0.9 * views.labels[0].numel()
    found = {name: float(purity_rank(views.labels, boxes)[use].mean()) for name, boxes in arms.items()}
    return found | {"views ranked": float(use.sum())}


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
    if method in WITH_HEAD:
        return (suspects_right if method == "false" else boxes_ranked)(made, views)
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
    parser.add_argument("--steps", type=int, choices=TRAINED, default=1000, help="how long they were trained")
    asked, rows = parser.parse_args(), []
    torch.set_num_threads(1)
    files = asked_files(asked.work, asked.steps)
    meta = shipped()["simclr-1000"]
    seen = audits(meta)
    learnt, _ = tiles("train", meta)
    training = [two_views(learnt, meta["size"], DUBAI_VIEWS, seed=k, min_iou=0.1) for k in range(4)]
    for method in FOUR:
        for network, seed, commit, made in networks(method, files, training, TRAINED[asked.steps][1]):
            for draw, views in enumerate(seen):
                told = dict(method=method, network=network, seed=seed, trained=commit, draw=draw)
                for name, value in answers(method, network, made, views).items():
                    rows.append(told | dict(measure=name, value=round(value, 4), commit=code_version()))
            print(method, network, seed, {r["measure"]: r["value"] for r in rows[-4:]}, flush=True)
    out = OUT if asked.steps == 1000 else OUT.with_stem("showing-long")
    write_aside(out, lambda path: path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"))


if __name__ == "__main__":
    main()
