"""The arms of the evidence: which method each one trains, beside which parent, by which options and sizes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from rsssl_nb.methods.registry import METHODS, method_class, method_options
from rsssl_nb.training.schedule import lr_factor
from rsssl_nb.views.pairs import Plan

ARMS = {  # arm: (class, parent, options); a placebo's or oracle's parent is its mechanism's
    "random": (None, None, {}),
    "imagenet": (None, "random", {}),
    "simclr": ("SimCLR", "random", {}),
    "simclr-long": ("SimCLR", "random", {}),
    "moco": ("MoCo", "simclr", {}),
    "byol": ("BYOL", "simclr", {}),
    "simsiam": ("SimSiam", "simclr", {}),
    "barlow": ("BarlowTwins", "simclr", {}),
    "vicreg": ("VICReg", "simclr", {}),
    "swav": ("SwAV", "simclr", {}),
    "densecl": ("DenseCL", "moco", {}),
    "pixpro": ("PixPro", "byol", {}),
    "inpainting": ("Inpainting", "random", {}),
    "glcnet": ("GLCNet", "simclr", {}),
    "glcnet-mean": ("GLCNet", "simclr", {"style": "mean"}),
    "glcnet-unmatched": ("GLCNetUnmatched", "simclr", {}),
    "false": ("FALSE", "simclr", {}),
    "false-random": ("FALSERandom", "simclr", {}),
    "false-oracle": ("FALSEOracle", "simclr", {}),
    "grass": ("GraSS", "simclr", {}),
    "grass-random": ("GraSSRandom", "simclr", {}),
    "grass-oracle": ("GraSSOracle", "simclr", {}),
    "ssccl": ("SSCCL", "simclr", {"objective": "infonce"}),
    "ssccl-shuffled": ("SSCCLShuffled", "simclr", {"objective": "infonce"}),
    "ssccl-siamese": ("SSCCL", "byol", {"objective": "siamese"}),
    "combined": ("Combined", "simclr", {}),
}
# oracles are told labels, so they are registered here only
METHODS["grass-oracle"] = "methods.placebos:GraSSOracle"
METHODS["false-oracle"] = "methods.placebos:FALSEOracle"

LONGER = {"simclr-long": 1.5}  # GraSS's warm-up of one half costs one encoder pass a view, the rest two
HEAD = dict(dim=128, head="mlp", head_norm=True)  # one projection head, for all that have one
COMMON = Plan()  # one view pipeline, the package's default


def key_of(arm: str) -> str | None:
    "The name of an arm's method in methods.registry.METHODS; None when it is not registered, or needs none."
    wanted = ARMS[arm][0]
    return next((key for key, home in METHODS.items() if home.split(":")[1] == wanted), None)


def options_of(arm: str, setting: str) -> dict:
    """An arm's options: its own and the common head.

    In the papers' setting the released preset, where there is one.
    """
    name, _, own = ARMS[arm]
    if not name:
        return {}
    cls = method_class(key_of(arm))
    if setting == "paper":
        return paper_options(name, cls, own)
    takes = method_options(cls)
    return {**{k: v for k, v in HEAD.items() if k in takes}, **own}


def paper_options(name: str, cls: type, own: dict) -> dict:
    """Options in the papers' setting: the released preset, or the released projection head for those without.

    So parent and method have one head. GraSS has the two stages of its abstract, a warm-up of one half.
    """
    if name.startswith("GraSS"):
        return {"preset": "official", "warmup": 0.5}
    if hasattr(cls, "official"):
        return {"preset": "official"}
    released = {"head": "official_linear", "head_norm": False}
    return {**{k: v for k, v in released.items() if k in method_options(cls)}, **own}


@dataclass(frozen=True)
class Setup:
    "Sizes of a stage: encoder, views of `px` pixels, pretraining, and fine-tuning in steps."

    encoder: str = "resnet18"
    width: int = 64
    stride: int = 8
    px: int = 128
    batch: int = 128
    epochs: int = 20
    lr: float = 1e-3
    steps: int = 400
    tune_batch: int = 16
    tune_lr: float = 1e-3
    recipe: str = "common"


SMALL = Setup(width=8, px=32, batch=16, epochs=5, steps=30, tune_batch=8)
PAPER_GLCNET = Setup("resnet50", px=224, batch=256, epochs=400, stride=16, recipe="glcnet", steps=1350)
PAPER_OTHERS = Setup("resnet50", stride=32, px=224, batch=256, epochs=200, recipe="false", steps=1300)
PAPER_GRASS = replace(PAPER_OTHERS, epochs=350)


def sizes_of(stage: str, arm: str, **given) -> Setup:
    "The Setup of an arm in a stage; `given` values that are not None have the last word."
    if stage == "small":
        found = SMALL
    elif stage == "C":
        found = Setup("resnet50", px=224, batch=64)
    elif stage == "paper":
        found = PAPER_GLCNET if arm.startswith("glcnet") else PAPER_OTHERS
        found = PAPER_GRASS if arm.startswith("grass") else found
    else:
        found = Setup()
    return replace(found, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Recipe:
    "How a segmenter is fine-tuned: `optimiser(parameters, lr)`, `rate(step, steps, epoch)` times that lr."

    optimiser: Callable
    rate: Callable[[int, int, int], float]


RECIPES = {  # "common", and the papers' as the released code of the methods has them
    "common": Recipe(
        lambda parameters, lr: torch.optim.AdamW(parameters, lr, weight_decay=1e-4),
        lambda step, steps, epoch: lr_factor(step, steps),
    ),
    "glcnet": Recipe(
        lambda parameters, lr: torch.optim.Adam(parameters, 1e-4, (0.9, 0.99), weight_decay=1e-5),
        lambda step, steps, epoch: 0.98**epoch,
    ),
    "false": Recipe(
        lambda parameters, lr: torch.optim.SGD(parameters, 0.01, 0.9, weight_decay=5e-4),
        lambda step, steps, epoch: max(0.01, (1 - step / steps) ** 0.9),
    ),
}
