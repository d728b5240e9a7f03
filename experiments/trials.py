"""One run of an arm with a seed: its training from the last checkpoint on, and its rows under its judges.

`campaigns.py` works through many of them.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from rsssl_nb.data.statistics import normalise
from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.evaluation.judges import band_moments, random_like
from rsssl_nb.training.config import Config, check_config
from rsssl_nb.training.device import native_bfloat16, start_engine
from rsssl_nb.training.engine import make_optimiser, run_task, train_step
from rsssl_nb.training.folder import code_version
from rsssl_nb.training.pretrain import Pretraining, digest
from rsssl_nb.training.start import open_start
from rsssl_nb.views.pairs import Plan, two_views
from rsssl_nb.weights import load_into, save_weights

ROOT = Path(__file__).resolve().parents[1]
BATCH, WIDTH, STRIDE, EVERY = 64, 16, 8, 50
TRUNK = "resnet18"


@dataclass(frozen=True)
class World:
    """A world: its pool of images, views of `px` as `views` says, `steps`, and the file of its rows.

    `min_iou` is the least overlap of two views. `exact`: as many steps as that, not whole passes over the
    pool. `snapshots`: steps after which a run keeps its method's weights on the way. `trunk` names the
    encoder: TRUNK of width WIDTH and stride STRIDE, or a network of timm as it is. `protocol`: its own
    version where it is not the campaign's.
    """

    pool: Callable
    px: int
    steps: int
    views: Plan
    file: str
    min_iou: float = 0.0
    protocol: int | None = None
    exact: bool = False
    snapshots: tuple = ()
    trunk: str = TRUNK


@dataclass(frozen=True)
class Arm:
    """An arm: its name in the rows, its world, what makes the method of an encoder, and its judges.

    Without `make` the encoder is judged as it begins: drawn by the seed, or `init`, which is a weights file,
    "imagenet" or "shipped:NAME" to start from. `measures` names what its mechanism is asked for at the end.
    `views` and `steps` stand in place of its world's; `also`, pairs of name and value, goes into its rows;
    `seeds` is how many it is given at most. `fitted`: untrained, with BatchNorm that saw its world's views.
    """

    name: str
    world: str
    make: Callable | None
    judges: tuple = ()
    measures: tuple = ()
    views: Plan | None = None
    steps: int | None = None
    also: tuple = ()
    seeds: int = 5
    init: str = ""
    fitted: bool = False

    @property
    def label(self) -> str:
        "The name of its run folders: its own and what else tells its rows apart."
        return "-".join([self.world, self.name, *(f"{k}{v}" for k, v in self.also)]).replace(":", "_")


# what rows say of themselves


def tidy(row):
    "A row with five digits, its classes left out."
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items() if k != "classes"}


def common_to(campaign, arm):
    "What all rows of an arm say of themselves."
    version = campaign.version(arm.world)
    facts = dict(world=arm.world, protocol=version, commit=code_version(), device=machine())
    return dict(facts, **dict(arm.also))


@cache
def machine():
    "The processor's name, as its own file has it; else its architecture."
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


# training


def encoder_of(world, bands):
    "An encoder of a world's trunk, drawn from torch's random stream as it stands."
    if world.trunk == TRUNK:
        return Encoder(TRUNK, bands, WIDTH, STRIDE)
    return Encoder(world.trunk, bands)


def started_from(arm):
    "The weights that an arm's encoder begins with, as a state dict. InputError where they are not here."
    try:
        return open_start(arm.init, 3).encoder.state_dict()
    except ValueError as error:
        raise InputError(f"{arm.label} starts from {arm.init}: {error}") from error


def untrained(world, arm, seed, stack=None):
    "The encoder of an arm before its first step; `stack` is the pool of one that is fitted."
    encoder = random_like(encoder_of(world, 3), seed)
    if arm.init:
        load_into(encoder, started_from(arm))
    if arm.fitted:
        refit(encoder, [partial(encoder, views) for views in first_views(world, stack, seed)])
    return encoder.eval()


def first_views(world, stack, seed):
    "Batches of both views of windows of a world's pool."
    mean, std = band_moments(stack.images)
    for k in range(4):
        images = torch.as_tensor(stack.images[stack.windows(BATCH, seed, k)]).float()
        pair = two_views(normalise(images, mean, std), world.px, world.views, seed=seed, epoch=k)
        yield torch.cat([pair.a, pair.b])


def refit(module, passes):
    "Gives a module's BatchNorm the mean statistics of passes through it, functions; its weights stay."
    for layer in module.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # the mean of all passes alike
    module.train()
    with torch.no_grad():
        for go in passes:
            go()
    module.eval()


def config_of(world, arm, seed, stack, precision, steps=None):
    "The Config of a run: steps rounded up to whole passes over the stack unless its world is exact."
    per_pass, wanted = len(stack.images) // BATCH, steps or arm.steps or world.steps
    mean, std = band_moments(stack.images)
    with torch.random.fork_rng(devices=[]):
        shape = encoder_of(world, stack.images.shape[1])
    return check_config(
        Config(
            method=arm.name,
            encoder=shape.name,
            width=shape.width,
            stride=shape.stride,
            bands=stack.images.shape[1],
            size=world.px,
            epochs=-(-wanted // per_pass),
            batch=BATCH,
            samples=per_pass * BATCH,
            seed=seed,
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
            precision=precision,
            channels_last=True,
            length=wanted if world.exact else 0,
            init=f"{arm.init} {digest(started_from(arm))}" if arm.init else "",
        )
    )


def multiplied_in_float32(conv, x):
    """A convolution under bfloat16 as processors with AMX do it: what is rounded to bfloat16 is multiplied
    and summed in float32, and rounded again."""
    if not torch.is_autocast_enabled("cpu"):
        return conv._conv_forward(x, conv.weight, conv.bias)
    with torch.autocast("cpu", enabled=False):
        bias = None if conv.bias is None else conv.bias.bfloat16().float()
        return conv._conv_forward(x.bfloat16().float(), conv.weight.bfloat16().float(), bias).bfloat16()


@contextmanager
def bfloat16_of_here(precision):
    """Convolutions of bf16 runs emulated while it lasts, where the processor has no bfloat16.

    PyTorch's own take twelve times as long there. Those that do more than multiply, as timm's that fill up
    their own edges, stay as they are.
    """
    plain = torch.nn.Conv2d.forward
    if precision_here(precision) == "bf16 emulated":
        torch.nn.Conv2d.forward = multiplied_in_float32
    try:
        yield
    finally:
        torch.nn.Conv2d.forward = plain


def start(world, arm, config, stack):
    "Engine, method and optimiser of a run; oracles hear the labels of each batch before its step."
    engine, views = start_engine("cpu", config.precision), arm.views or world.views
    torch.manual_seed(config.seed)
    encoder = Encoder(config.encoder, config.bands, config.width, config.stride)
    if arm.init:
        load_into(encoder, started_from(arm))
    method = arm.make(encoder).train()
    method.view_plans, method.min_iou = (views, views), world.min_iou
    if hasattr(method, "labels"):
        method.register_forward_pre_hook(lambda m, args: setattr(m, "labels", stack.told(len(args[0]))))
    method = method.to(memory_format=torch.channels_last)
    method.fits((config.size, config.size))
    return engine, method, make_optimiser(method, config.optimizer, config.lr, config.weight_decay)


def snapshot_path(folder, step):
    "The file of a run's whole method after so many steps."
    return folder / f"method-{step:06d}.safetensors"


def trained(world, arm, seed, folder, stack, precision, stop, steps=None):
    """(method, config, log, whether it is complete) of a run, from its last checkpoint.

    `stop()` is asked after each step that is logged: true ends the run with a checkpoint. After the steps of
    the world's `snapshots` and at the end the method's weights are kept beside the log.
    """
    config = config_of(world, arm, seed, stack, precision, steps)
    engine, method, optimiser = start(world, arm, config, stack)
    kept = {*world.snapshots, config.total} if world.snapshots else ()

    def tell(row):
        if (done := row["step"] + 1) in kept:  # before the checkpoint of this step: none is ever missed
            save_weights(snapshot_path(folder, done), method.state_dict(), dict(step=done, of=config.total))
        if stop():
            (folder / "stop").touch()

    task = Pretraining(config, stack)
    with bfloat16_of_here(precision):
        log, complete = run_task(
            task, method, optimiser, engine, folder, "auto", progress=False, every=EVERY, tell=tell
        )
    return method, config, log, complete


def minutes_of(log):
    "Minutes of training in a log, whose seconds begin anew with each sitting."
    seconds = [row["seconds"] for row in log]
    steps = np.diff(seconds, prepend=0)
    return round(float(np.where(steps < 0, seconds, steps).sum()) / 60, 2)


def precision_here(precision):
    "A precision as rows tell it: whether this processor emulates it."
    emulated = precision == "bf16" and not native_bfloat16("cpu")
    return f"{precision} emulated" if emulated else precision


def facts_of(config, log):
    "What the rows of a run say of it: steps, minutes, precision, and the hash of its losses."
    losses = json.dumps([[row["step"], row["loss"]] for row in log])
    told = hashlib.sha256(losses.encode()).hexdigest()[:16]
    precision = precision_here(config.precision)
    return dict(steps=config.total, minutes=minutes_of(log), precision=precision, log=told)


def measured(campaign, arm, method, config, stack, batches=8):
    "What the arm's mechanism chose in steps beyond the last, as a dict of means; running statistics move."
    found = []
    for k in range(batches if arm.measures else 0):
        numbers = stack.windows(config.samples, config.seed, 1000)[k * BATCH : (k + 1) * BATCH]
        images = torch.stack([torch.as_tensor(stack.read(i)) for i in numbers])
        length = config.length and config.length + config.steps
        late = replace(config, epochs=config.epochs + 1, length=length, warmup=0.0)
        engine = start_engine("cpu", config.precision)
        optimiser = make_optimiser(method, config.optimizer, 0.0)
        batch = images, torch.arange(BATCH)
        with bfloat16_of_here(config.precision):
            out, at, pair = train_step(Pretraining(late), method, optimiser, batch, config.total + k, engine)
        method.zero_grad(set_to_none=True)
        found.append(campaign.measure(arm, method, pair, out.trace, stack.told(BATCH), at))
    return {name: round(float(np.mean([f[name] for f in found])), 4) for name in (found[0] if found else ())}


def judged(campaign, arm, seed, encoder, facts):
    """Rows of an encoder under its arm's judges; with those of the first untrained one, the pixels' floors.

    Rows say how many minutes the judges took together.
    """
    began, rows, floors = time.time(), [], []
    known = [campaign.judges[name] for name in arm.judges if name in campaign.judges]
    for judge in [judge for made in known for judge in made()]:
        rows += [dict(row, method=arm.name, seed=seed, **facts) for row in judge.rows(encoder)]
        if arm.make is None and not arm.init and not arm.fitted and seed == 0:
            floors += [dict(row, method=name, seed=0) for name, own in judge.floors().items() for row in own]
    rows = [dict(row, judging=(time.time() - began) / 60) for row in rows]
    return [dict(tidy(row), **common_to(campaign, arm)) for row in [*rows, *floors]]
