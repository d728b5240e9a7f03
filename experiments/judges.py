"""The judges' tables and the positive controls, trained and judged from nothing. Rules: JUDGES.md.

    python experiments/judges.py                  all that is left, within --budget seconds; call again
    python experiments/judges.py --world rsscn7   one of rsscn7 and dubai (the tables), object, arrangement
    python experiments/judges.py --arms random simclr false-every --seeds 0
    python experiments/judges.py --workers 2      two processes of one thread each
    python experiments/judges.py status           what is done, running and left; pause and go stop and go on
    python experiments/judges.py show             tables, power and verdicts of the rows that are there
    python experiments/judges.py floors           pixels alone under every judge, into results/floors.json
    python experiments/judges.py again            one run drawn at random, made again and compared
    python experiments/judges.py merge FOLDER     the rows of another machine's results folder brought in
    python experiments/judges.py --steps 60 --small     a smoke run: no row is kept in results/

Rows land in results/judges.json (the tables) and results/controls.json (the other two worlds). What stays
undecided is given seeds 3 and 4: --seeds 0 1 2 3 4.
"""

from functools import partial

import torch
from campaigns import Campaign, command
from controls import ARMS, JUDGES, PROTOCOL, WORLDS, dubai_tiles, imagery, of_trace
from trials import ROOT, STRIDE, WIDTH, bfloat16_of_here, minutes_of, precision_here

from rsssl_nb.confusion import confusion_matrix, mean_iou
from rsssl_nb.data.statistics import normalise
from rsssl_nb.evaluation.judged import as_table, judge_power
from rsssl_nb.evaluation.verdicts import CONTROLS, control_sentence, power_table, read_judged, verdict_table
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.folder import code_version

TABLES = {  # of `show`: worlds whose rows stand in one table
    "the tables: RSSCN7 and Dubai": ("rsscn7", "dubai"),
    "the world object": ("object",),
    "the world arrangement": ("arrangement",),
}


def tuned(arm, seed, folder, asked, stop, steps=500, judge="finetune"):
    """The row of fine-tuning on 1 % of Dubai's labels, everything trained, judged on the validation scene.

    No row when it was stopped: the folder WORK/JUDGE/ARM-SEED-COMMIT goes on from its checkpoint.
    """
    dubai, steps = imagery() / "dubai", asked.steps or steps
    out = asked.work / judge / f"{arm.label}-{seed}-{code_version()}"

    def tell(row):
        if stop():
            (out / "stop").touch()

    with bfloat16_of_here(asked.precision):
        model, log = finetune(
            folder if arm.make else "random",
            dubai / "train/images",
            dubai / "train/labels",
            out,
            classes=dubai / "classes.json",
            subset=dubai / f"subsets/train256_01pct_seed{seed % 3}.txt",
            steps=steps,
            precision=asked.precision,
            batch=16,
            size=256,
            width=WIDTH,
            stride=STRIDE,
            seed=seed,
            resume="auto",
            progress=False,
            tell=tell,
        )
    if not log or log[-1]["step"] + 1 < steps:
        return []
    images, truth, _ = dubai_tiles("val")
    with torch.no_grad():
        ready = normalise(torch.as_tensor(images).float(), model.mean.flatten(), model.std.flatten())
        scored = torch.cat([model(x) for x in ready.split(8)])
    value = mean_iou(confusion_matrix(torch.as_tensor(truth), scored.argmax(1), scored.shape[1]))
    facts = dict(steps=steps, minutes=minutes_of(log), precision=precision_here(asked.precision))
    return [dict(judge=judge, labels=11, method=arm.name, seed=seed, value=float(value), **facts)]


LATE = {"finetune-60": partial(tuned, steps=60, judge="finetune-60"), "finetune": tuned}
CAMPAIGN = Campaign(PROTOCOL, WORLDS, ARMS, JUDGES, LATE, of_trace, "floors.json")


# what the rows say


def show(results):
    "Prints tables, power and verdicts of a results folder."
    rows = read_judged(results)
    for title, worlds in TABLES.items():
        mine = [r for r in rows if r["world"] in worlds and r["labels"]]
        if not mine:
            print(f"\n## {title}\n\npending")
            continue
        known = next(c.known for c in CONTROLS if c.world in worlds)
        power = power_table(mine, known)
        print(f"\n## {title}\n\n{as_table(mine, judge_power(mine))}\n\n{power}")
        for r in rows:
            if r["world"] in worlds and "suspects" in r and (r["judge"], r["labels"]) == ("scene", 5):
                print(f"{r['method']} seed {r['seed']}: {r['suspects']} suspects a row, {r['right']} true")
    for r in rows:
        if r["labels"] == 0:
            print(f"{r['world']} {r['method']} seed {r['seed']}: {r['judge']} {r['value']:+.4f}")
    print(f"\n## Verdicts\n\n{verdict_table(rows)}\n")
    print("\n".join(control_sentence(rows, control) for control in CONTROLS))


asked, main = command(CAMPAIGN, __doc__, ROOT / "runs" / "judges", show)


if __name__ == "__main__":
    main()
