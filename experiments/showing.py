"""What the shipped networks of the four methods show on ground they never saw: each idea's own measure.

    python experiments/showing.py [--work runs/proof]

Views of Dubai's validation scene (2), drawn five times, with labels that no method sees: how often FALSE's
surest suspects are right, how pure GraSS's box is among all places of it, how often a window of GLCNet and a
point of SSCCL find their place in the other view. Asked of the shipped networks of real imagery, of three
untrained ones, and, where its run is in WORK, of the network that was trained with the method's placebo.
Nothing is trained. Rows: results/showing.json, one a method, network, measure and draw.
"""

import argparse
import json
from pathlib import Path

import torch
from controls import dubai_tiles
from proof import DUBAI_VIEWS, FOUR, PLACEBOS
from trials import ROOT

from rsssl_nb.data.statistics import normalise
from rsssl_nb.encoders import Encoder
from rsssl_nb.evaluation.mechanisms import audit, scorecard
from rsssl_nb.files import write_aside
from rsssl_nb.methods.registry import recorded_method
from rsssl_nb.training.folder import code_version
from rsssl_nb.weights import load_into, load_weights, shipped

OUT = ROOT / "results" / "showing.json"
TILES, DRAWS, UNTRAINED = 64, 5, 3
ASKED = {  # method: {(measure, arm) of its card: the name in the rows}
    "false": {
        ("suspects, equal numbers", "gap"): "suspects right",
        ("suspects, equal numbers", "any negative"): "any negative right",
        ("suspects, equal numbers", "colour"): "nearest in colour right",
    },
    "grass": {("box rank", "gradient"): "box rank", ("box rank", "shuffled"): "box rank, map shuffled"},
    "glcnet": {("window retrieval", "matched"): "windows found"},
    "ssccl": {
        ("correspondence", "encoder"): "points found",
        ("across scenes", "encoder"): "nearest stranger of one's class",
    },
}


def built(meta, seed=0):
    "The untrained method of a file's record, drawn by a seed."
    torch.manual_seed(seed)
    encoder = Encoder(meta["encoder"], meta["bands"], meta["width"], meta["stride"])
    return recorded_method(meta["method"], encoder, meta["options"], meta["defaults"]).eval()


def placebo_weights(work, placebo, step):
    "The newest weights of a placebo's run of seed 0 after so many steps; None where there are none."
    found = sorted(work.glob(f"cpu-{placebo}-0-*/method-{step:06d}.safetensors"))
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def networks(method, work):
    "(network, seed, steps, method) of all that are asked: untrained ones, the placebo's, the shipped ones."
    made = {name: meta for name, meta in shipped().items() if meta["method"] == method and "licence" in meta}
    whole = {name: meta for name, meta in made.items() if meta["kind"] == "method"}
    meta = next(iter(whole.values()))
    for seed in range(UNTRAINED):
        yield "untrained", seed, 0, built(meta, seed)
    placebo = dict(zip(FOUR, PLACEBOS))[method]
    if path := placebo_weights(work, placebo, 1000):
        yield placebo, 0, 1000, filled(built(meta), path)
    else:
        print(f"{placebo}: no finished run of seed 0 in {work}")
    for name, meta in sorted(whole.items(), key=lambda item: item[1]["step"]):
        yield name, meta["seed"], meta["step"], filled(built(meta), shipped(name))


def filled(method, path):
    "A method with the weights of a file."
    load_into(method, load_weights(path)[0])
    return method


def audits(meta):
    "The audited views, one of each draw: the same windows for all networks."
    images, labels, _ = dubai_tiles("val")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:TILES].numpy()
    seen = normalise(torch.as_tensor(images[chosen]).float(), meta["mean"], meta["std"])
    told, origin = torch.as_tensor(labels[chosen]).long(), torch.zeros(len(chosen), 2)
    far = torch.arange(len(chosen))  # each window a scene of its own: where they lie is not asked
    return [audit(seen, told, origin, far, meta["size"], seed=k, plan=DUBAI_VIEWS) for k in range(DRAWS)]


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "proof", help="the runs of proof.py")
    asked, rows = parser.parse_args(), []
    torch.set_num_threads(1)
    seen = audits(shipped()["simclr-1000"])
    for method, measures in ASKED.items():
        for network, seed, steps, made in networks(method, asked.work):
            for draw, views in enumerate(seen):
                card = scorecard(made, views)
                for key, name in measures.items():
                    row = dict(method=method, network=network, seed=seed, steps=steps, measure=name)
                    rows.append(row | dict(draw=draw, value=round(card[key], 4), commit=code_version()))
            print(network, {r["measure"]: r["value"] for r in rows[-len(measures) :]}, flush=True)
    write_aside(OUT, lambda path: path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"))


if __name__ == "__main__":
    main()
