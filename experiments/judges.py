"""The judges' tables and the positive controls, trained and judged from nothing. Rules: JUDGES.md.

    python experiments/judges.py                  all that is left, within --budget seconds; call again
    python experiments/judges.py --world rsscn7   one of rsscn7 and dubai (the tables), object, arrangement
    python experiments/judges.py --arms random simclr false-every --seeds 0
    python experiments/judges.py --workers 2      two processes of one thread each
    python experiments/judges.py status           what is done, running and left; pause and go stop and go on
    python experiments/judges.py show             tables, power and verdicts of the rows that are there
    python experiments/judges.py again            one run drawn at random, made again and compared
    python experiments/judges.py --steps 60 --small     a smoke run: no row is kept in results/

Rows land in results/judges.json (the tables) and results/controls.json (the other two worlds).
"""

import numpy as np
import torch
from controls import ARMS, JUDGES, PROTOCOL, WORLDS, dubai_tiles, imagery, of_trace
from trials import ROOT, STRIDE, WIDTH, Campaign, command, read_rows

from rsssl_nb.confusion import confusion_matrix, mean_iou
from rsssl_nb.data.statistics import normalise
from rsssl_nb.evaluation.evidence import student_factor
from rsssl_nb.evaluation.judges import as_table, judge_power
from rsssl_nb.training.finetune import finetune

FILES = ("judges.json", "controls.json")
MARGINS = {  # world: (ceiling, judge, labels, what it must have over SimCLR)
    "rsscn7": [("false-every", "scene", 5, 0.05)],
    "object": [("grass-told", "object-cut", 20, 0.03)],
    "arrangement": [("ssccl-class", "mosaic", 64, 0.02), ("glcnet-class", "mosaic", 64, 0.02)],
}


def tuned(arm, seed, folder, asked, steps=500):
    "The row of the judge `finetune`: 1 % of Dubai's labels, everything trained, on the validation scene."
    dubai, steps = imagery() / "dubai", asked.steps or steps
    model, _ = finetune(
        folder if arm.make else "random",
        dubai / "train/images",
        dubai / "train/labels",
        classes=dubai / "classes.json",
        subset=dubai / f"subsets/train256_01pct_seed{seed % 3}.txt",
        steps=steps,
        precision=asked.precision,
        batch=16,
        size=256,
        width=WIDTH,
        stride=STRIDE,
        seed=seed,
        progress=False,
    )
    images, truth, _ = dubai_tiles("val")
    with torch.no_grad():
        ready = normalise(torch.as_tensor(images).float(), model.mean.flatten(), model.std.flatten())
        scored = torch.cat([model(x) for x in ready.split(8)])
    value = mean_iou(confusion_matrix(torch.as_tensor(truth), scored.argmax(1), scored.shape[1]))
    return [dict(judge="finetune", labels=11, method=arm.name, seed=seed, value=float(value), steps=steps)]


CAMPAIGN = Campaign(PROTOCOL, WORLDS, ARMS, JUDGES, {"finetune": tuned}, of_trace)


# what the rows say


def paired(rows, one, other):
    "Differences (seeds,) of two methods' values, paired by seed."
    values = [{r["seed"]: r["value"] for r in rows if r["method"] == m} for m in (one, other)]
    return np.array([values[0][s] - values[1][s] for s in sorted(values[0].keys() & values[1].keys())])


def interval_of(gaps):
    "Mean and half of Student's 95 % interval of paired differences; infinite for one."
    half = 1.96 * student_factor(len(gaps)) * gaps.std() / len(gaps) ** 0.5 if len(gaps) > 1 else np.inf
    return float(gaps.mean()), float(half)


def verdict_of(gaps, smallest):
    "Better, worse, no difference or undecided, as JUDGES.md says."
    mean, half = interval_of(gaps)
    if abs(mean) < smallest:
        return "no difference" if half < smallest else "undecided"
    return "undecided" if half >= abs(mean) else "better" if mean > 0 else "worse"


def verdicts(rows, power):
    "A line for each method of a world against SimCLR, under the judge of the world's margin."
    lines = []
    for world, margins in MARGINS.items():
        for ceiling, judge, labels, margin in margins:
            mine = [r for r in rows if (r["world"], r["judge"], r["labels"]) == (world, judge, labels)]
            known = [p for p in power if (p["world"], p["judge"], p["labels"]) == (world, judge, labels)]
            for method in dict.fromkeys(r["method"] for r in mine):
                gaps = paired(mine, method, "simclr")
                if method in ("simclr", "random", "colour", "bands") or not len(gaps) or not known:
                    continue
                if ceiling.split("-")[0] != method.split("-")[0]:
                    continue
                mean, half = interval_of(gaps)
                told = f"{world} {judge} {labels}: {method} less simclr {mean:+.3f} +- {half:.3f}"
                told += f", {len(gaps)} seeds: {verdict_of(gaps, known[0]['smallest'])}"
                if method == ceiling:
                    told += f" (ceiling: {'passes' if mean >= margin and mean > half else 'misses'} {margin})"
                lines.append(told)
    return lines


def show(results):
    "Prints tables, power and verdicts."
    rows, powers = [r for r in read_rows(results, FILES) if r["protocol"] == PROTOCOL], []
    for world in dict.fromkeys(r["world"] for r in rows):
        mine = [r for r in rows if r["world"] == world and r["labels"]]
        power = judge_power(mine)
        powers += [dict(p, world=world) for p in power]
        print(f"\n## {world}\n\n{as_table(mine, power)}")
        for r in rows:
            if r["world"] == world and "suspects" in r and (r["judge"], r["labels"]) == ("scene", 5):
                print(f"{r['method']} seed {r['seed']}: {r['suspects']} suspects a row, {r['right']} true")
    print("\n".join(["", *verdicts(rows, powers)]))


asked, main = command(CAMPAIGN, __doc__, ROOT / "runs" / "judges", show)


if __name__ == "__main__":
    main()
