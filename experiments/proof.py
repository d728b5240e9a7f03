"""The proof on a processor: encoders trained long enough to show, when each idea helps. Rules: PROTOCOL.md.

    python experiments/proof.py                    all that is left, within --budget seconds; call again
    python experiments/proof.py --world cpu        cpu, long, imagenet, continued, or one of the dials
    python experiments/proof.py --arms simclr false --seeds 0 --workers 2
    python experiments/proof.py status             what is done, running and left, and the budget, in order
    python experiments/proof.py pause              stops every worker after its next steps; go lets them go on
    python experiments/proof.py show               tables and verdicts of the rows that are there
    python experiments/proof.py again              one run drawn at random, made again and compared
    python experiments/proof.py merge FOLDER       the rows of another machine's results folder brought in
    python experiments/proof.py --steps 60 --small     a smoke run: no row is kept in results/

Rows land in results/evidence-cpu.json (cpu, long, imagenet, continued) and results/when-it-helps.json
(the dials); `make evidence-cpu` makes every table and figure of them.
"""

from dataclasses import replace
from functools import partial

import controls
import judges
import torch
from campaigns import Campaign, command
from controls import (
    JUDGES,
    VIEWS,
    FALSEDosed,
    GLCNetClass,
    GraSSTold,
    SSCCLClass,
    Stack,
    ToldCrop,
    dubai_pool,
    everywhere,
    of_trace,
    rsscn7,
    rsscn7_pool,
)
from trials import ROOT, Arm, World

from rsssl_nb.data.mosaics import MosaicPlan, make_mosaics
from rsssl_nb.evaluation.evidence import PROTOCOL
from rsssl_nb.methods.base import uniform
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.placebos import GraSSOracle, GraSSRandom, anywhere
from rsssl_nb.methods.registry import method_class, method_options
from rsssl_nb.views.appearance import Colour

FILES = ("evidence-cpu.json", "when-it-helps.json")
HEAD = dict(dim=128, head="mlp", head_norm=True, tau=0.2)  # one head and temperature, for all that have them
DUBAI_VIEWS = replace(VIEWS, colour=Colour())  # the package's colours: results/judges-sweep.json
JUDGED = ("scene-256", "mosaic-256", "hypercolumn")
FOUR = ("false", "grass", "glcnet", "ssccl")
PLACEBOS = ("false-random", "grass-random", "glcnet-unmatched", "ssccl-shuffled")
BASELINES = ("byol", "mocov2", "densecl", "lejepa")
CEILING = 40.0  # core-hours of all parts


def common(name, **options):
    "What makes a method by its name on the command line, with the one head, temperature and these options."
    cls = method_class(name)
    takes = method_options(cls)
    return partial(cls, **{k: v for k, v in HEAD.items() if k in takes}, **options)


# the main arms


def main_arms():
    "The arms of the world `cpu`, and those of `long`; random and the five are fine-tuned, too."
    tuned = ("simclr", *FOUR)
    arms = [Arm("random", "cpu", None, (*JUDGED, "finetune"))]
    arms.append(Arm("random-fitted", "cpu", None, JUDGED, fitted=True))
    for name in (*tuned, *PLACEBOS):
        arms.append(Arm(name, "cpu", common(name), (*JUDGED, "finetune") if name in tuned else JUDGED))
    arms.append(Arm("glcnet-mean", "cpu", common("glcnet", style="mean"), JUDGED))
    arms.append(Arm("simclr-long", "cpu", common("simclr"), JUDGED, steps=1500))
    arms += [Arm(name, "cpu", common(name), JUDGED) for name in BASELINES]
    seeds = {"simclr": 3}  # of 4 000 steps: the others once
    return [*arms, *(Arm(name, "long", common(name), JUDGED, seeds=seeds.get(name, 1)) for name in tuned)]


# from weights that are there already


def start_arms():
    """Arms that go on from weights: ImageNet's on Dubai, and a shipped SimCLR of Dubai on RSSCN7.

    Beside each, in one world, the weights as they are, the untrained network, and SimCLR from there.
    """
    arms = []
    for world, source, methods in (
        ("imagenet", "imagenet", ("simclr", *FOUR)),
        ("continued", "shipped:simclr-1000", ("simclr",)),
    ):
        begun = dict(init=source, also=(("init", source),))
        alone = (("init", "random"),)
        arms.append(Arm("random", world, None, JUDGED, also=alone, seeds=3))
        arms.append(Arm(source.partition(":")[2] or source, world, None, JUDGED, seeds=1, **begun))
        arms += [Arm(name, world, common(name), JUDGED, seeds=3, **begun) for name in methods]
        arms.append(Arm("simclr", world, common("simclr"), JUDGED, also=alone, seeds=3))
    return arms


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
    "The mosaics of `arrangement`; in a `share` of the families siblings hold one content in other places."
    same = controls.arrangement_mosaics()
    other = controls.arrangement_mosaics(replace(controls.ARRANGED, siblings=1), seed=7)
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
    kinds = {name: method_class(name) for name in ("simclr", "false", "false-random")}
    for count in (2, 4):
        for method, make in {**kinds, "false-every": partial(FALSEDosed, dose=None)}.items():
            arms.append(dial(method, "classes", count, role(method), f"classes-{count}", make, ("scene",)))
    return arms


def role(method):
    "What an arm of a dial is to its method: simclr, placebo, ceiling or rule; FALSE's own has its gate."
    if method in ("simclr", "false"):
        return "gated" if method == "false" else "simclr"
    if method in PLACEBOS:
        return "placebo"
    return "ceiling" if method.endswith(("-every", "-class", "-oracle")) else "rule"


def grass_arms():
    "GraSS: share of views whose box is told, and parcels a view, both signs. 0 and 1: controls.json."
    arms = []
    for told in (0.25, 0.5, 0.75):
        make = partial(GraSSPartlyTold, told=told)
        arms.append(dial("grass", "told", told, "told", "object", make, ("object",), ("boxes",)))
    kinds = {"simclr": method_class("simclr"), "grass": GraSS, "grass-random": GraSSRandom}
    kinds["grass-oracle"] = GraSSOracle
    for parcels in (1, 3, 6, 12):
        world = f"parcels-{parcels}"
        for method, make in kinds.items():
            arms.append(dial(method, "parcels", parcels, role(method), world, make, ("mosaic",)))
        turned = partial(GraSS, sign=-1)
        arms.append(dial("grass", "parcels", parcels, "other-sign", world, turned, ("mosaic",)))
    return arms


def arrangement_arms():
    "GLCNet and SSCCL: the share of families that differ in arrangement alone. 1: controls.json."
    kinds = {m: method_class(m) for m in ("simclr", "glcnet", "glcnet-unmatched", "ssccl", "ssccl-shuffled")}
    kinds |= {"glcnet-class": GLCNetClass, "ssccl-class": SSCCLClass}
    arms = []
    for share in (0.0, 0.5):
        for method, cls in kinds.items():
            make, world = partial(cls, **judges_options(method)), f"arranged-{share}"
            arms.append(dial(method, "arrangement", share, role(method), world, make, ("arranged",)))
    return arms


def judges_options(method):
    "The options that the positive controls give to a method."
    return controls.INFONCE if method.startswith("ssccl") else {}


def crop_arms():
    "All: the least crop."
    arms = []
    for least in (0.08, 0.2, 0.4, 0.7):
        views = replace(VIEWS, scale=(least, 1.0))
        for method in ("simclr", *FOUR):
            make, asked = partial(method_class(method), **judges_options(method)), ("scene", "mosaic")
            arms.append(dial(method, "scale", least, role(method), "crops", make, asked, views=views))
    return arms


def dial_worlds():
    "The worlds of the dials, by name; rsscn7 and object are the positive controls' own."
    made = {name: replace(controls.WORLDS[name], file=FILES[1]) for name in ("rsscn7", "object")}
    made |= {f"classes-{n}": World(partial(few_classes, n), 64, 1000, VIEWS, FILES[1]) for n in (2, 4)}
    for n in (1, 3, 6, 12):
        made[f"parcels-{n}"] = World(partial(parcels_pool, n), 96, 500, VIEWS, FILES[1])
    for s in (0.0, 0.5):
        made[f"arranged-{s}"] = World(partial(arranged_pool, s), 64, 1000, VIEWS, FILES[1], min_iou=0.1)
    made["crops"] = World(rsscn7_pool, 64, 500, VIEWS, FILES[1])
    return made


LITE0 = "timm:tf_efficientnet_lite0"
WORLDS = {
    "cpu": World(dubai_pool, 96, 1000, DUBAI_VIEWS, FILES[0], exact=True, snapshots=(200,)),
    "long": World(dubai_pool, 96, 4000, DUBAI_VIEWS, FILES[0], exact=True, snapshots=(200, 1000)),
    "imagenet": World(dubai_pool, 96, 500, DUBAI_VIEWS, FILES[0], exact=True, trunk=LITE0),
    "continued": World(rsscn7_pool, 64, 500, VIEWS, FILES[0], exact=True),
    **dial_worlds(),
}
DIALS = [*false_arms(), *grass_arms(), *arrangement_arms(), *crop_arms()]
ARMS = [*main_arms(), *DIALS, *start_arms()]
PARTS = {  # in the order in which hours are spent; what does not fit is dropped from the end
    "main arms": lambda kind, arm, seed: kind == "run" and arm.world == "cpu" and arm.name not in BASELINES,
    "baselines, first seed": lambda kind, arm, seed: arm.name in BASELINES and seed == 0,
    "4 000 steps": lambda kind, arm, seed: arm.world == "long",
    "dials": lambda kind, arm, seed: WORLDS[arm.world].file == FILES[1],
    "ImageNet, continuing": lambda kind, arm, seed: arm.world in ("imagenet", "continued"),
    "fine-tuning": lambda kind, arm, seed: kind == "finetune",
    "baselines, other seeds": lambda kind, arm, seed: arm.name in BASELINES,
}


def guess(kind, arm):
    "Minutes of a job on one quiet core, where none like it was measured."
    if kind == "finetune":
        return 8.0
    world = WORLDS[arm.world]
    steps, judging = (arm.steps or world.steps) if arm.make else 0, 0.5 * len(arm.judges)
    if world.trunk == LITE0:
        return judging + steps / 30
    slower = 1.4 if arm.name.startswith("grass") else 1.0
    return judging + slower * steps / (190 if world.px == 64 else 110)


LATE = {"finetune": partial(judges.tuned, steps=1500)}  # 1 % of Dubai's labels, the defaults' steps, scene 2
CAMPAIGN = Campaign(PROTOCOL, WORLDS, ARMS, JUDGES, LATE, of_trace, parts=PARTS, ceiling=CEILING, guess=guess)


def show(results):
    "Prints every table of the rows of a results folder."
    from report import tables_of

    for name, table in tables_of(results).items():
        print(f"\n## {name}\n\n{table}")


asked, main = command(CAMPAIGN, __doc__, ROOT / "runs" / "proof", show)


if __name__ == "__main__":
    main()
