"""Evidence: every method, placebo and floor on one harness, row by row.

    python experiments/evidence.py --stage STAGE

    small       embedded scenes on a processor, two minutes: does every part work?
    scorecard   mechanisms over training, with labels that the methods do not see (page `mechanisms`)
    pack        Dubai and RSSCN7 (RSSSL_DATA) as 128-pixel tiles, 40 MB at most, into runs/evidence/
    floor       rows that learn without a network
    A, B, C     the protocol's rows; on a GPU where there is one
    ledger      the claims ledger and the positive controls as Markdown, put into README.md of the results

    python experiments/evidence.py --stage A --data potsdam --root FOLDER --setting paper
                a paper's own setting, on your disk

The rules are in experiments/PROTOCOL.md, the statistics on page `label_fractions`. Rows land in
results/evidence-STAGE.json, one at a time; rows that are there are not run again, and a call starts nothing
that would not fit into --budget seconds, by the longest so far. The test scenes are opened here only; each
opening is a line of results/test-openings.jsonl.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch
from arms import ARMS, key_of, sizes_of
from cards import ARMS_OF_CARD, run_cards
from jobs import Budget, ResultsFile, jobs_of
from report import put_tables, tables_of
from rows import run_floors, run_jobs
from tiles import dubai, embedded, on_disk, pack

from rsssl_nb.evaluation.evidence import PROTOCOL, SEEDS, ledger
from rsssl_nb.evaluation.verdicts import read_judged, verdict_table
from rsssl_nb.training.device import pick_device
from rsssl_nb.training.folder import code_version
from rsssl_nb.weights import load_weights

ROOT = Path(__file__).resolve().parents[1]


def options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stage", choices=["small", "scorecard", "pack", "floor", "A", "B", "C", "ledger"], default="small"
    )
    parser.add_argument(
        "--data",
        default="dubai",
        help="dubai; scenes (scorecard); potsdam, vaihingen, loveda, deepglobe with --root; "
        "or a folder that data.datasets reads",
    )
    parser.add_argument("--root", type=Path, help="where another data set than Dubai lies")
    parser.add_argument("--setting", choices=["common", "paper"], default="common")
    parser.add_argument(
        "--bugs",
        nargs="+",
        default=[],
        choices=["per_image", "void_as_class", "select_on_test"],
        help="what released code does and we do not",
    )
    parser.add_argument("--methods", nargs="+", help=f"of {', '.join(ARMS)}")
    parser.add_argument(
        "--imagenet", type=Path, help="a torchvision-style weights file for the arm `imagenet`"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=float(os.environ.get("BUDGET", 540)),
        help="seconds of this call (BUDGET, 540)",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, nargs="+")
    for name in ("epochs", "steps", "px", "width", "batch"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/evidence", help="packs and encoders")
    parser.add_argument(
        "--twice", action="store_true", help="run the first row two times and print the difference"
    )
    return parser


def ledger_tables(results):
    "All tables of a results folder's README.md, by name."
    return dict(ledger=ledger(results), controls=verdict_table(read_judged(results)), **tables_of(results))


def main(argv=None):
    "Runs one stage; gives how many of its rows are left (None for stages without jobs)."
    asked = options().parse_args(argv)
    stage = "paper" if asked.setting == "paper" else asked.stage
    small = stage == "small"
    budget = Budget(asked.budget)
    device = "cpu" if asked.stage == "small" else pick_device(asked.device)
    if unknown := sorted(set(asked.methods or ()) - set(ARMS)):
        raise SystemExit(f"method {unknown[0]!r} is not known: choose from {', '.join(ARMS)}")

    def is_there(arm):
        return arm == "random" or key_of(arm) or (arm == "imagenet" and asked.imagenet)

    there = [arm for arm in asked.methods or ARMS if is_there(arm)]
    if gone := sorted(set(asked.methods or ARMS) - set(there)):
        print(f"pending, for want of a registered method or a weights file: {', '.join(gone)}")
    asked.results.mkdir(parents=True, exist_ok=True)
    if stage == "pack":
        return pack(asked.work)
    if stage == "ledger":
        return put_tables(asked.results, ledger_tables(asked.results))
    if stage == "scorecard":
        card = asked.results / "scorecard.json"
        arms = [arm for arm in asked.methods or ARMS_OF_CARD if arm in there]
        return run_cards(asked.data, asked.work, card, asked.seeds or SEEDS, arms, budget)

    def opened():
        when = time.strftime("%Y-%m-%d %H:%M")
        row = dict(when=when, commit=code_version(), stage=stage, data=asked.data)
        with open(asked.results / "test-openings.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    def sizes(arm):
        given = {name: getattr(asked, name) for name in ("epochs", "steps", "px", "width", "batch")}
        return sizes_of(stage, arm, **given)

    px = sizes("simclr").px
    if small:
        data = embedded()
    elif asked.data == "dubai":
        data = dubai(asked.work, px, opened)
    else:
        data = on_disk(asked.data, asked.root or Path(asked.data), 256 if px > 128 else 128, opened)
    of_data = "" if data.name in ("dubai", "scenes") else f"-{Path(data.name).name}"
    results = ResultsFile(asked.results / f"evidence-{stage}{of_data}.json")
    common = dict(
        protocol=PROTOCOL,
        small=small,
        device=torch.cuda.get_device_name() if str(device).startswith("cuda") else "cpu",
        commit=code_version(),
        data_hash=data.hash,
    )
    if stage == "floor":
        return run_floors(data, results, budget, common)
    weights = None
    if asked.imagenet and asked.imagenet.suffix == ".safetensors":
        weights = load_weights(asked.imagenet)[0]
    elif asked.imagenet:
        weights = torch.load(asked.imagenet, weights_only=True)
    seeds = asked.seeds or ((0,) if small else SEEDS)
    jobs = jobs_of(stage, data, sizes, seeds, there, asked.bugs)
    encoders = asked.work / (f"small-{os.getpid()}" if small else "encoders")
    left = run_jobs(jobs, data, sizes, results, budget, device, encoders, common, weights, asked.twice)
    ending = ": call again" if left else ""
    print(
        f"stage {stage}: {len(results.rows)} rows in {results.path.name}, {left} of {len(jobs)} left{ending}"
    )
    return left


if __name__ == "__main__":
    sys.exit(1 if main() and "small" in sys.argv else 0)
