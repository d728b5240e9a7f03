"""Where GLCNet's windows leave what they learn: its encoder beside its decoder, in the world `arrangement`.

    python experiments/decoders.py RUNS [--arms ...] [--seeds 0]        RUNS: a runs folder, as of judges.py

GLCNet as it is, with the released negatives of the same image, with one of its two losses alone, its placebo
and its ceiling; runs that are finished in RUNS are asked, others are trained there first. Each network's
encoder is judged as in `judges.py` (`mosaic` and its stages), and its decoder's map, which no table reads, as
`mosaic-decoder`. Rows: results/glcnet-decoder.json, one a network, seed and judge; rows that are there are
not made again. One seed a network is a look for a reason, no verdict.
"""

import argparse
import json
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from controls import ARMS, WORLDS, arranged_judge
from trials import ROOT, Arm, config_of, machine, start, trained

from rsssl_nb.files import write_aside
from rsssl_nb.methods.glcnet import GLCNet
from rsssl_nb.training.folder import code_version

OUT = ROOT / "results" / "glcnet-decoder.json"
TRIES = {
    "glcnet-same-image": partial(GLCNet, same_image=True),
    "glcnet-windows-only": partial(GLCNet, lam=0.0),
    "glcnet-style-only": partial(GLCNet, lam=1.0),
}
KNOWN = {a.name: a for a in ARMS if a.world == "arrangement" and a.name.startswith("glcnet")}
ARMS_HERE = KNOWN | {name: Arm(name, "arrangement", make, ("arranged",)) for name, make in TRIES.items()}


@torch.no_grad()
def decoder_map(method, images, frame, batch=32):
    "What GLCNet's decoder draws of images (n, C, S, S), (n, dim, h, w), its frame cut off."
    method.eval()
    parts = []
    for some in images.split(batch):
        features = method.encoder(F.pad(some, (frame,) * 4, mode="reflect"))
        drawn = method.decoder(method.aspp(features.dense), features.low, features.low.shape[2:])
        c = frame * drawn.shape[-1] // (some.shape[-1] + 2 * frame)
        parts.append(drawn[..., c : drawn.shape[2] - c, c : drawn.shape[3] - c])
    return torch.cat(parts)


def judged(method):
    "Rows of a method's encoder and of its decoder."
    judge = arranged_judge()
    maps = [[decoder_map(method, images, judge.frame)] for images in (judge.train, judge.judged)]
    return [*judge.rows(method.encoder), *judge.score(*maps, "-decoder")]


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--arms", nargs="+", choices=["random", *ARMS_HERE], default=["random", *ARMS_HERE])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    world, stack = WORLDS["arrangement"], None
    rows = json.loads(OUT.read_text()) if OUT.exists() else []
    for seed, name in product(asked.seeds, asked.arms):
        if any(row["method"] == name and row["seed"] == seed for row in rows):
            continue
        stack = stack or world.pool()
        arm = ARMS_HERE["glcnet" if name == "random" else name]
        there = [p for p in asked.runs.glob(f"arrangement-{name}-{seed}-*") if p.is_dir()]
        folder = there[-1] if there else asked.runs / f"arrangement-{name}-{seed}"
        if name == "random":
            method = start(world, arm, config_of(world, arm, seed, stack, "no"), stack)[1]
        else:
            method = trained(world, arm, seed, folder, stack, "bf16", lambda: False)[0]
        facts = dict(method=name, seed=seed, commit=code_version(), device=machine())
        rows += [
            facts | dict(judge=row["judge"], labels=row["labels"], value=round(row["value"], 5))
            for row in judged(method.float())
        ]
        print(*rows[-5:], sep="\n", flush=True)
        write_aside(OUT, lambda path: path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"))


if __name__ == "__main__":
    main()
