"""Pretraining of an arm, and fine-tuning of what it hands on, by the protocol's rules."""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from arms import ARMS, COMMON, LONGER, RECIPES, Setup, key_of, options_of
from tiles import Data, Tiles

from rsssl_nb.data.statistics import normalise
from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.evaluation.scores import scores
from rsssl_nb.files import write_aside
from rsssl_nb.methods.simclr import released_plans
from rsssl_nb.training.config import Config
from rsssl_nb.training.crops import augment, pixel_loss
from rsssl_nb.training.engine import ENOUGH, batchnorm_state, finite_step, seed_step, train_step
from rsssl_nb.training.pretrain import Pretraining, begin


def band_moments(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    "Mean and deviation a band of uint8 images (n, C, S, S), in float64, a slice at a time."
    sums = 0
    for part in images.split(256):
        part = part.double()
        sums = sums + torch.stack([part.sum((0, 2, 3)), part.square().sum((0, 2, 3))])
    mean, square = sums / (images.numel() / images.shape[1])
    return tuple(mean.tolist()), tuple((square - mean**2).clamp(min=0).sqrt().tolist())


def batch_of_step(seed: int, epoch: int, k: int, n: int, batch: int) -> torch.Tensor:
    "The numbers of the k-th batch of an epoch: a slice of a permutation of 0..n-1 drawn from (seed, epoch)."
    order = np.random.default_rng((seed, epoch)).permutation(n)
    return torch.as_tensor(order[k * batch : (k + 1) * batch])


def pretraining(
    arm: str,
    pool: tuple[torch.Tensor, torch.Tensor],
    setup: Setup,
    seed: int,
    setting: str,
    device: str,
    weights: dict | None = None,
) -> Iterator[tuple[int, torch.nn.Module, dict]]:
    """Pretrains an arm on a pool (images, labels): yields (steps done, method or encoder, record).

    Before the first step and after each good one. The record counts views and encoder passes (images through
    the encoder that learns) and ends as diverged after ENOUGH losses that are not finite. `weights`: those
    that an arm without a method starts from. Labels are only given to oracles.
    """
    images, labels = pool
    mean, std = band_moments(images)
    record = dict(views_seen=0, encoder_passes=0, status="done", mean=mean, std=std)
    if not ARMS[arm][0]:
        torch.manual_seed(seed)
        encoder = Encoder(setup.encoder, images.shape[1], setup.width, setup.stride, weights)
        yield 0, encoder.to(device), record
        return
    batch = min(setup.batch, len(images))
    config = Config(
        key_of(arm),
        options_of(arm, setting),
        setup.encoder,
        setup.width,
        setup.stride,
        images.shape[1],
        setup.px,
        max(1, round(setup.epochs * LONGER.get(arm, 1))),
        batch,
        len(images),
        setup.lr,
        seed=seed,
        mean=mean,
        std=std,
        precision="bf16" if str(device).startswith("cuda") else "no",
    )
    engine, method, optimiser = begin(config, device)
    if setting == "common":
        method.view_plans = COMMON, COMMON
        method.min_iou = 0.1
    elif setting == "paper" and not arm.startswith("glcnet"):
        method.view_plans = released_plans()  # FALSE's and GraSS's own, so the parent's too
    elif setting.startswith("scale"):
        plan = replace(COMMON, scale=(float(setting[5:]), 1.0))
        method.view_plans = plan, plan

    def count(module, inputs, output):
        record["encoder_passes"] += len(inputs[0])

    method.encoder.register_forward_hook(count)
    model, optimiser = engine.prepare(method, optimiser)
    yield 0, method, record
    bad, total = 0, config.steps * config.epochs
    task = Pretraining(config)
    for step in range(total):
        epoch, k = divmod(step, config.steps)
        index = batch_of_step(seed, epoch, k, len(images), batch)
        if hasattr(method, "labels"):
            method.labels = labels[index.to(labels.device)].long()
        batch_images = images[index.to(images.device)].float()
        before = [v.clone() for v in batchnorm_state(method)]
        out, at, _ = train_step(task, model, optimiser, (batch_images, index), step, engine)
        loss = finite_step(task, model, optimiser, out, at, engine, before)
        bad += not math.isfinite(loss)
        record["views_seen"] += 2 * batch
        if bad >= ENOUGH or (step == total - 1 and not math.isfinite(loss)):
            record["status"] = "diverged"
            return
        yield step + 1, method, record


def transferable_state(method: torch.nn.Module) -> dict[str, dict]:
    "What may be handed on: the encoder, and GLCNet's ASPP and decoder, on the processor."
    parts = {"encoder": getattr(method, "encoder", method)}
    parts |= {part: getattr(method, part) for part in ("aspp", "decoder") if hasattr(method, part)}
    return {
        name: {key: value.detach().cpu().clone() for key, value in part.state_dict().items()}
        for name, part in parts.items()
    }


def pretrained(
    job: dict, data: Data, setup: Setup, device: str, folder: Path, weights: dict | None = None
) -> dict:
    """A job's pretraining, {state, record}: what is handed on, and what it cost.

    Read from `folder` where it was done before. `weights` are those of the arm `imagenet`.
    """
    keys = ("dataset", "setting", "pool", "encoder", "width", "px", "method", "seed")
    path = folder / ("-".join(str(job[key]) for key in keys) + f"-{setup.epochs}.pt")
    if path.exists():
        return torch.load(path, weights_only=True)
    started = time.time()
    start_from = weights if job["method"] == "imagenet" else None
    steps = pretraining(
        job["method"], data.pools[job["pool"]], setup, job["seed"], job["setting"], device, start_from
    )
    for last in steps:
        _, method, record = last
    record = {**record, "minutes": round((time.time() - started) / 60, 3)}
    kept = dict(state=transferable_state(method), record=record)
    write_aside(path, lambda aside: torch.save(kept, aside))
    return kept


def segmenter_of(kept: dict, job: dict, setup: Setup, bands: int, classes: int) -> Segmenter:
    "A segmenter that starts from what a pretraining handed on, by the job's mode and transfer."
    encoder = Encoder(setup.encoder, bands, setup.width, setup.stride)
    encoder.load_state_dict(kept["state"]["encoder"])
    model = Segmenter(encoder, classes, frozen=job["mode"] == "frozen")
    if job["transfer"] in ("aspp", "decoder"):
        model.aspp.load_state_dict(kept["state"]["aspp"])
    if job["transfer"] == "decoder":
        decoder = kept["state"]["decoder"]
        without_output = {key: value for key, value in decoder.items() if not key.startswith("out.")}
        model.decoder.load_state_dict(without_output, strict=False)
    return model


def finetuned(
    kept: dict,
    tiles: Tiles,
    setup: Setup,
    classes: int,
    job: dict,
    device: str,
    bugs: tuple | list = (),
    test: Tiles | None = None,
) -> Segmenter:
    """A segmenter after `setup.steps` of fine-tuning on tiles, in evaluation mode: the last step's weights.

    With the bug `select_on_test`, the weights of the epoch that is best on the test tiles; with the bug
    `void_as_class`, unknown pixels become class 0.
    """
    seed = job["seed_finetune"]
    mean, std = kept["record"]["mean"], kept["record"]["std"]
    torch.manual_seed(seed)
    model = segmenter_of(kept, job, setup, tiles.images.shape[1], classes).to(device)
    recipe = RECIPES[setup.recipe]
    optimiser = recipe.optimiser([p for p in model.parameters() if p.requires_grad], setup.tune_lr)
    base = [group["lr"] for group in optimiser.param_groups]
    n = len(tiles.images)
    batch = min(setup.tune_batch, n)
    steps_of_epoch = max(1, n // batch)
    best_accuracy, best_state = -1, None
    for step in range(setup.steps):
        epoch, k = divmod(step, steps_of_epoch)
        chosen = batch_of_step(seed, epoch, k, n, batch).to(tiles.labels.device)
        model.train()
        seed_step(seed, step, device)
        for group, lr in zip(optimiser.param_groups, base):
            group["lr"] = lr * recipe.rate(step, setup.steps, epoch)
        labels = tiles.labels[chosen]
        if "void_as_class" in bugs:
            labels = labels.masked_fill(labels == 255, 0)
        images = normalise(tiles.images[chosen].float(), mean, std)
        images, labels = augment(images, labels, seed, step)
        loss = pixel_loss(model(images), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if "select_on_test" in bugs and (step + 1) % steps_of_epoch == 0:
            accuracy = scores(tables_of(model, test, classes, mean, std).sum(0))["oa"]
            if accuracy > best_accuracy:
                best_accuracy, best_state = accuracy, copy.deepcopy(model.state_dict())
    if best_state:
        model.load_state_dict(best_state)
    return model.eval()


@torch.no_grad()
def tables_of(model: torch.nn.Module, tiles: Tiles, classes: int, mean, std) -> np.ndarray:
    "Confusion matrices (n, K, K) of a model on tiles, one a tile, rows truth; leaves it in evaluation mode."
    model.eval()
    found = []
    for images, labels in zip(tiles.images.split(64), tiles.labels.split(64)):
        predicted = model(normalise(images.float(), mean, std)).argmax(1)
        tile = torch.arange(len(images), device=images.device)[:, None, None]
        cell = (tile * classes + labels.long()) * classes + predicted
        counts = torch.bincount(cell[labels != 255], minlength=len(images) * classes**2)
        found.append(counts.view(-1, classes, classes))
    return torch.cat(found).cpu().numpy()
