"""Every table and figure of the proof's rows, and fine-tuning's, from results/ alone: `make evidence-cpu`.

    python experiments/report.py [RESULTS]

Tables go between their marks in RESULTS/README.md, the figures are RESULTS/evidence-cpu.png (arms under
judges) and RESULTS/when-it-helps.png (gain against dose). Any subset of the rows is drawn, also none.
"""

import json
import sys
from itertools import chain, product
from pathlib import Path

import numpy as np
from trials import ROOT

from rsssl_nb.evaluation.doses import (
    ASKED,
    DIALS,
    arm_verdict_table,
    arm_verdicts,
    dose_lines,
    dose_points,
    read_proof,
    show_dose,
)
from rsssl_nb.evaluation.judged import as_table, judge_power
from rsssl_nb.evaluation.verdicts import (
    gap_interval,
    paired_gaps,
    power_table,
    read_judged,
    show_methods,
    signed,
)
from rsssl_nb.figures import show_grid
from rsssl_nb.files import write_aside

FILES = ("evidence-cpu.json", "when-it-helps.json")
SHOWN = ("scene", "mosaic", "hypercolumn", "finetune")
POOLS = {  # world: its pool in words, and the world of its untrained networks
    "cpu": ("Dubai, 96 px, 1 000 steps", "cpu"),
    "long": ("Dubai, 96 px, 4 000 steps", "cpu"),
    "rsscn7": ("RSSCN7's training part, 64 px, 1 500 steps", "rsscn7"),
}
STAGES = tuple((f"mosaic{stage}", 64) for stage in ("", "-but-last", "-stage3", "-last"))
ALSO = (("scene", 20), ("scene", 100), ("scene-knn", 5))  # they show SimCLR's gain, too; not named beforehand
ALIVE = (("scene", 5), *ALSO, *STAGES, ("hypercolumn", 11))


def named(row):
    "A row's method, with what its training started from where its world has several starts."
    return row["method"] + (f" from {row['init']}" if row.get("init") and row.get("steps") else "")


def tables_of(results):
    "The tables by name, as Markdown: arms, verdicts, power, what else was trained, and the dials in words."
    cpu, dials = (read_proof(results, name) for name in FILES)
    controls = read_judged(results)
    arms = [r for r in cpu if r["world"] == "cpu"]
    main = [r for r in arms if r["judge"] in SHOWN]
    tables = {"proof-arms": as_table(main, judge_power(main)) or "pending"}
    tables["proof-verdicts"] = arm_verdict_table(arm_verdicts(main))
    tables["proof-also"] = arm_verdict_table(arm_verdicts(arms, asked=ALSO))
    tables["proof-power"] = power_table(main)
    tables["proof-stages"] = arm_verdict_table(arm_verdicts(arms, asked=STAGES[1:]))
    tables["proof-alive"] = alive_table([*cpu, *controls])
    tables["proof-learnt"] = learnt_table(Path(results) / "showing.json")
    tables["proof-learnt-long"] = learnt_table(Path(results) / "showing-long.json")
    for world in ("long", "imagenet", "continued"):
        mine = [dict(r, method=named(r)) for r in cpu if r["world"] == world and r["judge"] in SHOWN]
        tables[f"proof-{world}"] = as_table(mine) or "pending"
    tables["proof-hours"] = hours_sentence(cpu, dials)
    told = [dose_lines(dials, controls, dial) for dial in DIALS]
    tables["proof-doses"] = "\n".join("\n  - ".join([f"- {first}", *rest]) for first, *rest in told)
    return tables | tuning_tables(results)


def alive_table(rows):
    """SimCLR beside untrained networks of its seeds, a line a pool and judge, as Markdown.

    Untrained: as drawn, and with BatchNorm fitted to the pool. Means are of SimCLR's seeds that are there,
    differences of the seeds that both have; how many these are stands last.
    """
    head = ["pool", "judge", "labels", "untrained", "fitted", "SimCLR"]
    head += ["over untrained", "+-", "over fitted", "+-", "seeds"]
    lines = [head, ["---"] * len(head)]
    for (world, (pool, start)), (judge, labels) in product(POOLS.items(), ALIVE):
        asked = [r for r in rows if (r["judge"], r["labels"]) == (judge, labels)]
        homes = {"random": start, "random-fitted": start, "simclr": world}
        mine = [r for r in asked if homes.get(r["method"]) == r["world"]]
        gaps = {m: paired_gaps(mine, "simclr", m) for m in ("random", "random-fitted")}
        if len(gaps["random"]):
            lines.append([pool, judge, labels, *means_of(mine, homes), *chain(*map(told_gap, gaps.values()))])
            lines[-1].append(", ".join(dict.fromkeys(str(len(gap)) for gap in gaps.values())))
    return as_lines(lines) if len(lines) > 2 else "pending"


def means_of(rows, methods):
    "The mean of each method over the seeds that SimCLR has, in words."
    seeds = {r["seed"] for r in rows if r["method"] == "simclr"}
    for method in methods:
        values = [r["value"] for r in rows if r["method"] == method and r["seed"] in seeds]
        yield f"{np.mean(values):.3f}" if values else "-"


def told_gap(gaps):
    "A mean difference and half its interval, in words."
    if not len(gaps):
        return "-", "-"
    mean, half = gap_interval(gaps)
    return signed(mean), f"{half:.3f}" if np.isfinite(half) else "-"


def learnt_table(path):
    "What networks of a file of rows show of their methods' ideas: a line a measure and network."
    found = {}
    for r in json.loads(path.read_text()) if path.exists() else []:
        seeds = found.setdefault((r["method"], r["measure"], r["network"]), {})
        seeds.setdefault(r["seed"], []).append(r["value"])
    head = ["method", "measure", "network", "mean", "each seed"]
    lines = []
    for key, seeds in sorted(found.items()):
        each = [np.mean(values) for _, values in sorted(seeds.items())]
        told = ", ".join(f"{s}: {v:.3f}" for s, v in zip(sorted(seeds), each))
        lines.append([*key, f"{np.mean(each):.3f}", told])
    return as_lines([head, ["---"] * len(head), *lines]) if found else "pending"


def as_lines(lines):
    "Lines of cells as a Markdown table."
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def tuning_tables(results):
    "What fine-tuning's default, its choices and the options of its loss are worth, as Markdown."
    found = {}
    for part, file, key in (
        ("defaults", "finetune-defaults", "fraction"),
        ("recipe", "finetune-recipe", "fraction"),
        ("losses", "finetune-losses", "data"),
        ("four-lines", "four_lines", "data"),
    ):
        path = Path(results) / f"{file}.json"
        more = {"defaults": ("steps",), "four-lines": ("steps", "minutes")}.get(part, ())
        rows = json.loads(path.read_text()) if path.exists() else []
        columns = sorted({row[key] for row in rows})
        lines = [
            ["mean IoU", *(f"{c:.0%} of the labels" if key == "fraction" else c.title() for c in columns)]
        ]
        lines.append(["---"] * len(lines[0]))
        for arm in dict.fromkeys(map(arm_in_words, rows)):
            cells = [[r for r in rows if arm_in_words(r) == arm and r[key] == c] for c in columns]
            lines.append([arm, *(seeds_in_words(cell, more) for cell in cells)])
        found[f"tuning-{part}"] = as_lines(lines) if rows else "pending"
    return found


def arm_in_words(row):
    "A row's arm, and which of its steps was kept where the row says so."
    return row["arm"] + (f", {row['kept']} step" if "kept" in row else "")


def seeds_in_words(rows, more=()):
    """A cell: each seed's mean IoU over its parts, and their mean where there are several; - without rows.

    `more`: of the first row, such as its steps.
    """
    if not rows:
        return "-"
    seeds = [np.mean([r["miou"] for r in rows if r["seed"] == s]) for s in sorted({r["seed"] for r in rows})]
    each = ", ".join(f"{v:.3f}" for v in seeds)
    told = f"**{np.mean(seeds):.3f}** ({each})" if len(seeds) > 1 else f"{each} (one seed)"
    return ", ".join([told, *(f"{round(rows[0][name])} {name}" for name in more)])


def hours_sentence(*files):
    "Runs, core-hours and machines of rows, in words."
    runs, machines = {}, set()
    for r in (row for rows in files for row in rows if row["method"] not in ("bands", "colour")):
        told = ("world", "method", "seed", "steps", "init", "dial", "dial_value", "arm")
        key = (*(r.get(k) for k in told), r["judge"] == "finetune")
        runs[key] = max(runs.get(key, 0.0), r.get("minutes", 0.0) + r.get("judging", 0.0))
        machines.add(r["device"])
    if not runs:
        return "No run is there yet: pending."
    hours = f"{sum(runs.values()) / 60:.1f} core-hours on {', '.join(sorted(machines))}"
    return f"{len(runs)} runs and judgements, {hours}."


def figures_of(results):
    "The figures by file name, as Pictures."
    cpu, dials = (read_proof(results, name) for name in FILES)
    controls = read_judged(results)

    def arms(ax, judge, labels):
        mine = [r for r in cpu if (r["world"], r["judge"], r["labels"]) == ("cpu", judge, labels)]
        show_methods(mine, f"{judge} at {labels} labels", ax=ax)

    def doses(ax, dial):
        show_dose(dials, controls, dial, ax)

    there = [d for d in DIALS if dose_points(dials, controls, d)] or DIALS
    asked = [(j, n) for j, n in ASKED if any((r["judge"], r["labels"]) == (j, n) for r in cpu)] or ASKED
    most = len({r["method"] for r in cpu if r["world"] == "cpu"})
    return {
        "evidence-cpu.png": show_grid(
            [lambda ax, j=j, n=n: arms(ax, j, n) for j, n in asked], cols=3, size=(4.0, 1.4 + 0.25 * most)
        ),
        "when-it-helps.png": show_grid(
            [lambda ax, d=d: doses(ax, d) for d in there], cols=3, size=(3.7, 2.7)
        ),
    }


def put_tables(results, tables):
    "Prints tables, by name, and puts each between its marks in the results folder's README.md."
    path = results / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for name, table in tables.items():
        print(f"\n## {name}\n\n{table}")
        begin, end = f"<!--table {name}-->", "\n<!--end of table-->"
        if begin in text:
            before, _, rest = text.partition(begin)
            if end not in rest or "\n<!--table" in rest[: rest.index(end)]:
                raise SystemExit(
                    f"{path}: table {name} has no <!--end of table--> of its own: write one below it"
                )
            text = before + begin + "\n\n" + table + "\n" + rest[rest.index(end) :]
    if text:
        write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def main(results):
    "Writes tables and figures into a results folder; prints the tables."
    results = Path(results)
    if not results.is_dir():
        raise SystemExit(
            f"{results} is no folder: give the folder of results, or nothing for the repository's"
        )
    put_tables(results, tables_of(results))
    for name, picture in figures_of(results).items():
        write_aside(results / name, lambda aside, picture=picture: aside.write_bytes(picture._repr_png_()))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ROOT / "results")
