"""Where GraSS's map points in the world `object`, asked of networks that know the object and that do not.

    python experiments/pointing.py RUNS [--seeds 0 1 2]        RUNS: the runs folder of judges.py

The finished runs of `simclr`, `grass` and its ceiling `grass-told` are asked by GraSS's rule, with the
released sign and the other, for eight batches beyond their last step: how much more object, and how much less
class entropy, its boxes hold than boxes of their size at random places. Nothing is trained. Rows:
results/grass-pointing.json, one a seed, network (`of`) and sign.
"""

import argparse
import json
from pathlib import Path

import judges
import torch
from controls import ARMS, WORLDS
from trials import ROOT, machine, measured, trained

from rsssl_nb.files import write_aside
from rsssl_nb.training.folder import code_version

OUT = ROOT / "results" / "grass-pointing.json"
NETWORKS = ("simclr", "grass", "grass-told")
SIGNS = {1: "grass", -1: "grass-other-sign"}  # sign: the arm that has it


def asked_by(arm, method):
    "GraSS as an arm makes it, with the weights of another method of the same shape."
    encoder = method.encoder
    made = arm.make(type(encoder)(encoder.name, encoder.bands, encoder.width, encoder.stride))
    made.load_state_dict(method.state_dict())
    made.view_plans = method.view_plans
    return made.train().to(memory_format=torch.channels_last)


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    world, arms = WORLDS["object"], {a.name: a for a in ARMS if a.world == "object"}
    stack, rows = world.pool(), []
    for seed in asked.seeds:
        for name in NETWORKS:
            folders = [
                p for p in asked.runs.glob(f"object-{name}-{seed}-*") if (p / "encoder.safetensors").exists()
            ]
            if not folders:
                print(f"{name} seed {seed}: no finished run in {asked.runs}")
                continue
            method, config, *_ = trained(world, arms[name], seed, folders[-1], stack, "bf16", lambda: False)
            for sign, arm in SIGNS.items():
                made = asked_by(arms[arm], method)
                found = measured(judges.CAMPAIGN, arms[arm], made, config, stack)
                facts = dict(commit=code_version(), device=machine())
                rows.append(dict(of=name, sign=sign, seed=seed, **found, **facts))
                print(rows[-1], flush=True)
    write_aside(OUT, lambda path: path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"))


if __name__ == "__main__":
    main()
