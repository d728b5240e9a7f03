"""The proof on a processor: encoders trained long enough to show, when each idea helps. Rules: PROTOCOL.md.

    python experiments/proof.py                    all that is left, within --budget seconds; call again
    python experiments/proof.py --world sweep      sweep, cpu, long, or a world of the dials
    python experiments/proof.py --arms simclr false --seeds 0 --workers 2
    python experiments/proof.py status             what is done, running and left; pause and go stop and go on
    python experiments/proof.py show               tables and verdicts of the rows that are there
    python experiments/proof.py again              one run drawn at random, made again and compared
    python experiments/proof.py --steps 60 --small     a smoke run: no row is kept in results/

Rows land in results/evidence-cpu.json (sweep, cpu, long) and results/when-it-helps.json (the dials).
"""

from dataclasses import replace
from functools import partial

import judges
import torch
from controls import (
    COLOUR,
    JUDGES,
    OBJECT_VIEWS,
    VIEWS,
    FALSEDosed,
    GraSSTold,
    Stack,
    ToldCrop,
    dubai_pool,
    everywhere,
    object_pool,
    of_trace,
    rsscn7,
    rsscn7_pool,
)
from trials import ROOT, Arm, Campaign, World, command, read_rows

from rsssl_nb.data.mosaics import MosaicPlan, make_mosaics
from rsssl_nb.evaluation.evidence import PROTOCOL
from rsssl_nb.evaluation.judged import as_table, judge_power
from rsssl_nb.methods.base import uniform
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.placebos import GraSSRandom, anywhere
from rsssl_nb.methods.registry import method_class, method_options
from rsssl_nb.views.appearance import Colour

FILES = ("evidence-cpu.json", "when-it-helps.json")
HEAD = dict(dim=128, head="mlp", head_norm=True)  # one projection head, for all that have one
JUDGED = ("scene", "mosaic", "hypercolumn")


def common(name, **options):
    "What makes a method by its name on the command line, with the one head and these options."
    cls = method_class(name)
    takes = method_options(cls)
    return partial(cls, **{k: v for k, v in HEAD.items() if k in takes}, **options)


# the main arms


def main_arms():
    "The arms of the world `cpu`, of `long` for one seed, and those fine-tuned at the end."
    tuned = ("simclr", "glcnet", "false", "grass", "ssccl")
    placebos = ("glcnet-unmatched", "false-random", "grass-random", "ssccl-shuffled")
    made = {name: common(name) for name in (*tuned, *placebos, "byol", "mocov2", "densecl", "lejepa")}
    made["glcnet-mean"] = common("glcnet", style="mean")
    main = [Arm("random", "cpu", None, (*JUDGED, "finetune"))]
    for name, make in made.items():
        main.append(Arm(name, "cpu", make, (*JUDGED, "finetune") if name in tuned else JUDGED))
    longer = Arm("simclr-long", "cpu", common("simclr"), JUDGED, steps=1500)
    return [*main, longer, *(Arm(name, "long", made[name], JUDGED, seeds=1) for name in tuned)]


# the sweep, on SimCLR alone


def sweep_arms():
    "SimCLR with one dial moved at a time: temperature, least crop, colour."
    base = dict(world="sweep", judges=("scene",), seeds=1)
    arms = [
        Arm("simclr", make=common("simclr", tau=tau), also=(("dial", "tau"), ("dial_value", tau)), **base)
        for tau in (0.5, 0.2, 0.1)
    ]
    for least in (0.08, 0.4):
        plan = replace(VIEWS, scale=(least, 1.0))
        also = (("dial", "scale"), ("dial_value", least))
        arms.append(Arm("simclr", make=common("simclr"), views=plan, also=also, **base))
    for strength, plan in ((0.2, tinted(0.2)), (0.8, tinted(0.8)), (1.0, Colour())):
        also = (("dial", "colour"), ("dial_value", strength))
        arms.append(
            Arm("simclr", make=common("simclr"), views=replace(VIEWS, colour=plan), also=also, **base)
        )
    return arms


def tinted(strength):
    "The campaign's colours with brightness, contrast and saturation of this strength."
    return replace(COLOUR, brightness=strength, contrast=strength, saturation=strength)


# the dials


class PartlyToldCrop(ToldCrop):
    "Boxes of the object's size, inside it in a share `told` of the views, at random places in the others."

    told = 0.5

    def place(self, boxes, pair, at):
        u = uniform(at, len(pair), 2, 3, device=boxes.device).transpose(0, 1).flatten(0, 1)
        inside = super().place(boxes, pair, at)
        return torch.where(u[:, 2:] < self.told, inside, anywhere(inside, pair.size, u[:, :2]))


class GraSSPartlyTold(GraSSTold):
    "GraSS told by labels in a share `told` of the views, from the first step on as its ceiling is."

    crop_kind = PartlyToldCrop

    def __init__(self, encoder, told=0.5, warmup=0.0, **options):
        super().__init__(encoder, warmup=warmup, **options)
        self.crop.told = told


def few_classes(count):
    "The pool of the first `count` classes of RSSCN7."
    images, labels, _ = rsscn7("train")
    mine = labels < count
    return Stack(images[mine], everywhere(images[mine], labels[mine]))


def parcels_pool(parcels):
    "Mosaics of 128 px of so many Voronoi parcels."
    made = make_mosaics(rsscn7("train"), 2048, 128, MosaicPlan(parcels=parcels))
    return Stack(made.images, made.labels)


def arranged_pool(share):
    "Mosaics of nine blocks; in a `share` of the families siblings hold one content in other places."
    plan = MosaicPlan(parcels=9, shape="blocks", siblings=4)
    same = make_mosaics(rsscn7("train"), 2048, 96, plan)
    other = make_mosaics(rsscn7("train"), 2048, 96, replace(plan, siblings=1), seed=7)
    told = round(share * 512) * 4
    for name in ("images", "labels"):
        getattr(same, name)[told:] = getattr(other, name)[told:]
    return Stack(same.images, same.labels, siblings=4)


def dial(method, name, value, arm, world, make, asked, measures=(), views=None):
    "An arm of a dial: its rows say method, dial, dial_value and arm."
    also = (("dial", name), ("dial_value", value), ("arm", arm))
    return Arm(method, world, make, asked, measures, views, also=also)


def false_arms():
    "FALSE: precision of one suspect a row, how many true ones, classes in play. Ends: judges.json."
    arms = []
    for precision in (0.16, 0.3, 0.6):
        make = partial(FALSEDosed, precision=precision)
        arms.append(dial("false", "precision", precision, "told", "rsscn7", make, ("scene",), ("suspects",)))
    for dose in (4, 12):
        make = partial(FALSEDosed, dose=dose)
        arms.append(dial("false", "dose", dose, "told", "rsscn7", make, ("scene",), ("suspects",)))
    kinds = dict(simclr="simclr", rule="false", ceiling="every", placebo="false-random")
    for count in (2, 4):
        for arm, name in kinds.items():
            make = partial(FALSEDosed, dose=None) if name == "every" else method_class(name)
            arms.append(dial("false", "classes", count, arm, f"classes-{count}", make, ("scene",)))
    return arms


def grass_arms():
    "GraSS: share of views whose box is told, and parcels a view, both signs. 0 and 1: controls.json."
    arms = [
        dial(
            "grass",
            "told",
            told,
            "told",
            "object",
            partial(GraSSPartlyTold, told=told),
            ("object",),
            ("boxes",),
        )
        for told in (0.25, 0.5, 0.75)
    ]
    kinds = {"simclr": method_class("simclr"), "rule": GraSS, "other-sign": partial(GraSS, sign=-1)}
    for parcels in (1, 3, 6, 12):
        for arm, make in {**kinds, "placebo": GraSSRandom}.items():
            arms.append(dial("grass", "parcels", parcels, arm, f"parcels-{parcels}", make, ("mosaic",)))
    return arms


def arrangement_arms():
    "GLCNet and SSCCL: the share of families that differ in arrangement alone. 1: controls.json."
    arms = []
    for share in (0.0, 0.5):
        for method in ("simclr", "glcnet", "ssccl", "glcnet-unmatched", "ssccl-shuffled"):
            make = partial(method_class(method), **judges_options(method))
            arms.append(dial(method, "arrangement", share, "rule", f"arranged-{share}", make, ("mosaic",)))
    return arms


def judges_options(method):
    "The options that the positive controls give to a method."
    return dict(objective="infonce", head_norm=False) if method.startswith("ssccl") else {}


def crop_arms():
    "All: the least crop."
    arms = []
    for least in (0.08, 0.4, 0.7):
        views = replace(VIEWS, scale=(least, 1.0))
        for method in ("simclr", "glcnet", "false", "grass", "ssccl"):
            make = partial(method_class(method), **judges_options(method))
            asked = ("scene", "mosaic")
            arms.append(dial(method, "scale", least, "rule", "rsscn7", make, asked, views=views))
    return arms


def dial_worlds():
    "The worlds of the dials, by name; rsscn7 and object are the positive controls' own."
    made = {"rsscn7": (rsscn7_pool, 64, 1500), "object": (object_pool, 96, 1000)}
    made |= {f"classes-{n}": (partial(few_classes, n), 64, 1000) for n in (2, 4)}
    made |= {f"parcels-{n}": (partial(parcels_pool, n), 96, 1000) for n in (1, 3, 6, 12)}
    made |= {f"arranged-{s}": (partial(arranged_pool, s), 64, 1000) for s in (0.0, 0.5)}
    least = {name: 0.1 * name.startswith("arranged") for name in made}
    views = dict.fromkeys(made, VIEWS) | {"object": OBJECT_VIEWS}
    return {n: World(pool, px, steps, views[n], FILES[1], least[n]) for n, (pool, px, steps) in made.items()}


WORLDS = {
    "sweep": World(dubai_pool, 64, 1000, VIEWS, FILES[0]),
    "cpu": World(dubai_pool, 96, 1000, VIEWS, FILES[0]),
    "long": World(dubai_pool, 96, 4000, VIEWS, FILES[0]),
    **dial_worlds(),
}
ARMS = [*sweep_arms(), *main_arms(), *false_arms(), *arrangement_arms(), *grass_arms(), *crop_arms()]


def tuned(arm, seed, folder, asked):
    "The row of the judge `finetune`: 1 % of Dubai's labels, 1 500 steps, on the validation scene."
    return judges.tuned(arm, seed, folder, asked, steps=1500)


CAMPAIGN = Campaign(PROTOCOL, WORLDS, ARMS, JUDGES, {"finetune": tuned}, of_trace)


def show(results):
    "Prints the tables and power of each world, and of each dial."
    rows = [r for r in read_rows(results, FILES) if r["protocol"] == PROTOCOL]
    for world in dict.fromkeys(r["world"] for r in rows):
        mine = [dict(r, method=named(r)) for r in rows if r["world"] == world and r["labels"]]
        print(f"\n## {world}\n\n{as_table(mine, judge_power(mine))}")


def named(row):
    "A row's method, with its dial where it has one."
    return (
        f"{row['method']} {row['dial']} {row['dial_value']} {row.get('arm', '')}"
        if "dial" in row
        else row["method"]
    )


asked, main = command(CAMPAIGN, __doc__, ROOT / "runs" / "proof", show)


if __name__ == "__main__":
    main()
