"""The checkpoints that are to ship, from the campaign's runs of seed 0 on Dubai (CC0).

    python experiments/shipping.py --out FOLDER [--work runs/proof]

SimCLR after 0, 200, 1 000 and 4 000 steps and the four after 4 000, as encoders alone; the four after 1 000
as whole methods, since their pages ask the rule in the head. After 0 it is what every arm of seed 0 begins
with; after 200 it is on the way of the cosine to 1 000, in the warm-up's wake; the others are ends of cosines
of their own. Float16, with passport, log and the imagery's licence in the header; 25 MB at most as a wheel
packs them, those of made scenes included. What has not been trained yet is named.
"""

import argparse
import json
import zlib
from pathlib import Path

from campaigns import folders_of
from keeping import read_rows
from proof import ARMS, CAMPAIGN, FILES, FOUR, HEAD, WORLDS
from trials import (
    ROOT,
    Arm,
    facts_of,
    machine,
    minutes_of,
    precision_here,
    snapshot_path,
    untrained,
)

from rsssl_nb.errors import InputError
from rsssl_nb.files import write_json_lines
from rsssl_nb.methods.registry import DEFAULTS, method_class, method_options
from rsssl_nb.training.folder import read_config
from rsssl_nb.weights import load_weights, save_weights

SHIPPED = (
    *(("simclr", step, world) for step, world in ((0, "cpu"), (200, "cpu"), (1000, "cpu"), (4000, "long"))),
    *((method, step, world) for method in FOUR for step, world in ((1000, "cpu"), (4000, "long"))),
)
LICENCE = "CC0 1.0"
IMAGES = "Dubai, semantic segmentation of aerial imagery: scenes 4, 5, 7, 8, windows of 128 px"
MOST = 25e6  # bytes of all files in the wheel
KEPT = {"cpu": 10, "long": 40}  # world: steps to a line of the log that ships


def packed(folder):
    "Bytes of a folder's files as a wheel packs them."
    return sum(len(zlib.compress(path.read_bytes())) for path in folder.iterdir())


def ended(work, method, world):
    "The folder of a finished run of seed 0, the newest; None where there is none."
    arm = next(arm for arm in ARMS if (arm.world, arm.name) == (world, method))
    return next(reversed(folders_of(CAMPAIGN, work, arm, 0)), None)


def made_on(config, log):
    "Processor and precision of a run, from the rows that have its losses; those of here where none has."
    run = config.method, facts_of(config, log)["log"]
    rows = [r for r in read_rows(ROOT / "results", FILES) if (r["method"], r.get("log")) == run]
    here = dict(device=machine(), precision=precision_here(config.precision))
    return {name: rows[0][name] for name in here} if rows else here


def header(config, folder, log, step, world):
    "The record of a file: architecture, normalisation, what made it, and whose images it saw."
    minutes = minutes_of(log[:step]) if step else 0.0
    names = ("method", "encoder", "width", "stride", "bands", "size", "seed", "mean", "std", "batch", "lr")
    made = {name: getattr(config, name) for name in names}
    return made | dict(
        kind="encoder" if encoder_alone(config.method, world) else "method",
        options={k: v for k, v in HEAD.items() if k in method_options(method_class(config.method))},
        defaults=DEFAULTS,
        band_names=["red", "green", "blue"],
        step=step,
        steps=config.total,
        world=world,
        images=IMAGES,
        licence=LICENCE,
        minutes=minutes,
        **made_on(config, log),
        commit=load_weights(folder / "encoder.safetensors")[1]["commit"],
        command=f"python experiments/proof.py --world {world} --arms {config.method} --seeds 0",
    )


def encoder_alone(method, world):
    "Whether of a method the encoder alone ships."
    return method == "simclr" or world == "long"


def weights_of(folder, method, step, world):
    "The tensors of a run after so many steps: the encoder alone, or the whole method."
    if step == 0:
        return untrained(WORLDS[world], Arm(method, world, None), 0).state_dict()
    path = snapshot_path(folder, step)
    if not path.exists():
        raise InputError(f"{folder.name} kept no weights after {step} steps: {path.name} is not there")
    state = load_weights(path)[0]
    if not encoder_alone(method, world):
        return state
    return {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}


def ship(work, out, steps_of=None):
    """Writes what is there into a folder; gives the names written, and sentences on what is not.

    `steps_of`: {steps asked for: steps of a smoke run}. InputError when all files exceed MOST bytes.
    """
    written, left = [], []
    for method, asked, world in SHIPPED:
        folder, step = ended(work, method, world), (steps_of or {}).get(asked, asked)
        if folder is None:
            left.append(f"{method}-{asked}: no finished run of seed 0 in the world {world}")
            continue
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        try:
            state = weights_of(folder, method, step, world)
        except InputError as error:
            left.append(f"{method}-{asked}: {error}")
            continue
        half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        path = out / f"{method}-{asked}.safetensors"
        save_weights(path, half, header(read_config(folder), folder, log, step, world))
        rows = [
            dict(step=r["step"] + 1, loss=round(r["loss"], 4))
            for r in log
            if not (r["step"] + 1) % KEPT[world]
        ]
        write_json_lines(out / f"{method}-{world}.jsonl", rows)
        written.append(path.name)
    size = packed(out) if written else 0
    if size > MOST:
        raise InputError(f"{out} holds {size / 1e6:.1f} MB and may hold {MOST / 1e6:.0f}: ship fewer")
    print(f"{len(written)} files, {size / 1e6:.1f} MB, in {out}")
    return written, left


if __name__ == "__main__":
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "proof")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    for sentence in ship(given.work, given.out)[1]:
        print(f"left out: {sentence}")
