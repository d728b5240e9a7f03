"""Evidence: every method, placebo and floor on one harness, row by row. The rules are in benchmarks/PROTOCOL.md, the statistics on page `label_fractions`.

    python benchmarks/evidence.py --stage small         embedded scenes on a processor, two minutes: does every part work?
    python benchmarks/evidence.py --stage scorecard     mechanisms over training, with labels the methods do not see (page `mechanisms`)
    python benchmarks/evidence.py --stage pack          Dubai and RSSCN7 (RSSSL_DATA) as 128-pixel tiles, 40 MB at most, into runs/evidence/
    python benchmarks/evidence.py --stage floor|A|B|C   the protocol's rows; on a GPU where there is one
    python benchmarks/evidence.py --stage A --data potsdam --root FOLDER --setting paper     a paper's own setting, on your disk
    python benchmarks/evidence.py --stage ledger        the claims ledger as Markdown

Rows land in results/evidence-STAGE.json, one at a time; rows that are there are not run again, and a call starts nothing that
would not fit into --budget seconds, by the longest so far. The test scenes are opened here only, each opening is a line of results/test-openings.jsonl.
"""

import argparse
import copy
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tiles import SUBSETS, audited, dubai, embedded, on_disk, pack

from rsssl_nb.data.statistics import normalise
from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.evaluation.evidence import PROTOCOL, SEEDS, ledger
from rsssl_nb.evaluation.mechanisms import MEASURES, audit, scorecard
from rsssl_nb.evaluation.probing import feature_maps, judge, spread
from rsssl_nb.evaluation.scores import per_image_miou, scores
from rsssl_nb.files import write_aside
from rsssl_nb.methods.base import At
from rsssl_nb.methods.registry import METHODS, method_class, method_options
from rsssl_nb.training.config import Config
from rsssl_nb.training.engine import finite_step, pick_device, seed_step, train_step
from rsssl_nb.training.folder import code_version
from rsssl_nb.training.labelled import augment, pixel_loss
from rsssl_nb.training.pretrain import ENOUGH, begin
from rsssl_nb.training.schedule import lr_factor
from rsssl_nb.views.pairs import Plan
from rsssl_nb.weights import load_weights

ROOT = Path(__file__).resolve().parents[1]
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
METHODS.update(
    {"grass-oracle": "methods.placebos:GraSSOracle", "false-oracle": "methods.placebos:FALSEOracle"}
)  # only here are they told labels
LONGER = {"simclr-long": 1.5}  # GraSS's warm-up of one half costs one encoder pass a view, the rest two
HEAD = dict(dim=128, head="mlp", head_norm=True)  # one projection head, for all that have one
COMMON = Plan()  # one view pipeline, the package's default


def key_of(arm):
    "The name of an arm's method in methods.registry.METHODS, None when it is not registered (or needs none)."
    return next((k for k, v in METHODS.items() if v.split(":")[1] == ARMS[arm][0]), None)


def options_of(arm, setting):
    "An arm's options: its own and the common head; in the papers' setting the released preset where there is one."
    if not ARMS[arm][0]:
        return {}
    cls = method_class(key_of(arm))
    if setting == "paper":
        return {"preset": "official"} if hasattr(cls, "official") else ARMS[arm][2]
    return {**{k: v for k, v in HEAD.items() if k in method_options(cls)}, **ARMS[arm][2]}


@dataclass(frozen=True)
class Setup:
    "Sizes of a stage: encoder, views of `px`, pretraining, and fine-tuning in steps."

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
RECIPES = {  # optimiser and rate(step, steps, epoch) of a fine-tuning; the papers' as methods' released code has them
    "common": (lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=1e-4), lambda t, n, e: lr_factor(t, n)),
    "glcnet": (
        lambda p, lr: torch.optim.Adam(p, 1e-4, (0.9, 0.99), weight_decay=1e-5),
        lambda t, n, e: 0.98**e,
    ),
    "false": (
        lambda p, lr: torch.optim.SGD(p, 0.01, 0.9, weight_decay=5e-4),
        lambda t, n, e: max(0.01, (1 - t / n) ** 0.9),
    ),
}


def band_moments(images):
    "Mean and deviation a band of uint8 images, in float64, a slice at a time."
    total = sum(
        torch.stack([p.sum((0, 2, 3)), p.square().sum((0, 2, 3))])
        for p in (c.double() for c in images.split(256))
    )
    mean, square = total / (images.numel() / images.shape[1])
    return tuple(mean.tolist()), tuple((square - mean**2).clamp(min=0).sqrt().tolist())


def learn(arm, pool, s, seed, setting, device, weights=None):
    """Pretraining of an arm on a pool (images, labels): yields (steps done, method or encoder, record) before the first step and after each good one.

    The record counts views and encoder passes (images through the encoder that learns) and ends as diverged after ENOUGH non-finite losses.
    """
    images, labels = pool
    (mean, std), record = band_moments(images), dict(views_seen=0, encoder_passes=0, status="done")
    record.update(mean=mean, std=std)
    if not ARMS[arm][0]:
        torch.manual_seed(seed)
        yield 0, Encoder(s.encoder, images.shape[1], s.width, s.stride, weights).to(device), record
        return
    batch = min(s.batch, len(images))
    config = Config(
        key_of(arm),
        options_of(arm, setting),
        s.encoder,
        s.width,
        s.stride,
        images.shape[1],
        s.px,
        max(1, round(s.epochs * LONGER.get(arm, 1))),
        batch,
        len(images),
        s.lr,
        seed=seed,
        mean=mean,
        std=std,
        precision="bf16" if str(device).startswith("cuda") else "no",
    )
    engine, method, optimiser = begin(config, device)
    if setting == "common":
        method.plans, method.min_iou = (lambda: (COMMON, COMMON)), 0.1
    elif setting.startswith("scale"):
        method.plans = lambda: (replace(COMMON, scale=(float(setting[5:]), 1.0)),) * 2

    def count(module, inputs, output):
        record["encoder_passes"] += len(inputs[0])

    method.encoder.register_forward_hook(count)
    model, optimiser = engine.prepare(method, optimiser)
    yield 0, method, record
    bad, total = 0, config.steps * config.epochs
    for step in range(total):
        epoch, k = divmod(step, config.steps)
        index = torch.as_tensor(
            np.random.default_rng((seed, epoch)).permutation(len(images))[k * batch : (k + 1) * batch]
        )
        if hasattr(method, "labels"):
            method.labels = labels[index.to(labels.device)].long()  # oracles are told
        out, at, _ = train_step(
            model, optimiser, images[index.to(images.device)].float(), index, config, step, engine
        )
        loss = finite_step(model, optimiser, out, at, engine)
        bad += loss - loss != 0
        record["views_seen"] += 2 * batch
        if bad >= ENOUGH or (step == total - 1 and loss - loss != 0):
            record["status"] = "diverged"
            return
        yield step + 1, method, record


def kept_state(method):
    "What may be handed on: the encoder, and GLCNet's ASPP and decoder, on the processor."
    parts = {
        "encoder": getattr(method, "encoder", method),
        **{p: getattr(method, p) for p in ("aspp", "decoder") if hasattr(method, p)},
    }
    return {
        name: {k: v.detach().cpu().clone() for k, v in m.state_dict().items()} for name, m in parts.items()
    }


def pretrained(job, data, s, device, folder, weights=None):
    "A job's pretraining: what is handed on and its record, read from `folder` where it was done before."
    path = folder / (
        "-".join(
            str(job[k]) for k in ("dataset", "setting", "pool", "encoder", "width", "px", "method", "seed")
        )
        + f"-{s.epochs}.pt"
    )
    if path.exists():
        return torch.load(path, weights_only=True)
    started = time.time()
    for _, method, record in learn(
        job["method"],
        data.pools[job["pool"]],
        s,
        job["seed"],
        job["setting"],
        device,
        weights if job["method"] == "imagenet" else None,
    ):
        pass
    kept = dict(
        state=kept_state(method), record={**record, "minutes": round((time.time() - started) / 60, 3)}
    )
    write_aside(path, lambda p: torch.save(kept, p))
    return kept


def tune(kept, tiles, s, classes, job, device, bugs=(), test=None):
    "A segmenter after `steps` of fine-tuning on tiles; the last step's weights - or, as the bug `select_on_test` has it, the best epoch on the test tiles."
    torch.manual_seed(job["seed_finetune"])
    encoder = Encoder(s.encoder, tiles.images.shape[1], s.width, s.stride)
    encoder.load_state_dict(kept["state"]["encoder"])
    model = Segmenter(encoder, classes, frozen=job["mode"] == "frozen")
    if job["transfer"] in ("aspp", "decoder"):
        model.aspp.load_state_dict(kept["state"]["aspp"])
    if job["transfer"] == "decoder":
        model.decoder.load_state_dict(
            {k: v for k, v in kept["state"]["decoder"].items() if not k.startswith("out.")}, strict=False
        )
    model, (make, rate), mean, std = (
        model.to(device),
        RECIPES[s.recipe],
        kept["record"]["mean"],
        kept["record"]["std"],
    )
    optimiser, n, best = (
        make([p for p in model.parameters() if p.requires_grad], s.tune_lr),
        len(tiles.images),
        (-1, None),
    )
    batch, base = min(s.tune_batch, n), [g["lr"] for g in optimiser.param_groups]
    for t in range(s.steps):
        epoch, k = divmod(t, max(1, n // batch))
        chosen = torch.as_tensor(
            np.random.default_rng((job["seed_finetune"], epoch)).permutation(n)[k * batch : (k + 1) * batch]
        ).to(tiles.labels.device)
        model.train()
        seed_step(job["seed_finetune"], t, device)
        for g, lr in zip(optimiser.param_groups, base):
            g["lr"] = lr * rate(t, s.steps, epoch)
        y = (
            tiles.labels[chosen].masked_fill(tiles.labels[chosen] == 255, 0)
            if "void_as_class" in bugs
            else tiles.labels[chosen]
        )
        x, y = augment(normalise(tiles.images[chosen].float(), mean, std), y, job["seed_finetune"], t)
        loss = pixel_loss(model(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if "select_on_test" in bugs and (t + 1) % max(1, n // batch) == 0:
            oa = scores(tables_of(model, test, classes, mean, std).sum(0))["oa"]
            if oa > best[0]:
                best = (oa, copy.deepcopy(model.state_dict()))
    if best[1]:
        model.load_state_dict(best[1])
    return model.eval()


@torch.no_grad()
def tables_of(model, tiles, classes, mean, std):
    "Confusion matrices (n, K, K) of tiles, rows truth."
    model.eval()
    found = []
    for x, y in zip(tiles.images.split(64), tiles.labels.split(64)):
        drawn, at = (
            model(normalise(x.float(), mean, std)).argmax(1),
            torch.arange(len(x), device=x.device)[:, None, None],
        )
        known = y != 255
        found.append(
            torch.bincount(
                ((at * classes + y.long()) * classes + drawn)[known], minlength=len(x) * classes**2
            ).view(-1, classes, classes)
        )
    return torch.cat(found).cpu().numpy()


def scored(row, tables, blocks, classes, bugs=()):
    "A row with its scores, over the whole test set after adding, and its tables by block."
    found, iou = scores(tables.sum(0)), scores(tables.sum(0))["iou"]
    if "per_image" in bugs:
        found["miou"] = per_image_miou(tables)
    return {
        **row,
        **{k: round(float(found[k]), 5) for k in ("miou", "oa", "kappa", "f1")},
        "iou": {n: round(float(v), 5) for n, v in zip(classes, iou)},
        "confusion_by_block": {b: tables[blocks == b].sum(0).tolist() for b in sorted(set(blocks))},
    }


ONE, ALL = [("01pct", k) for k in range(3)], [("all", 0)]
FULL, BOTH = [("full", "backbone")], [("full", "backbone"), ("frozen", "backbone")]
STAGES = {  # what a stage runs: (arms or None for all, settings, pools, label subsets, (mode, transfer) pairs)
    "small": [(None, ["common"], ["scenes"], [("25pct", 0), ("all", 0)], FULL)],
    "A": [(None, ["common"], ["dubai"], ONE + ALL, BOTH)],
    "B": [
        (None, ["common"], ["dubai"], [l for l in SUBSETS if l not in ONE], BOTH),
        (None, ["own"], ["dubai"], ONE, FULL),
        (["simclr"], ["scale0.08", "scale0.4"], ["dubai"], ONE, FULL),
        (["glcnet"], ["common", "own"], ["dubai"], ONE, [("full", "aspp"), ("full", "decoder")]),
        (["simclr", "glcnet", "random", "imagenet"], ["common"], ["rsscn7", "both"], ONE, BOTH),
    ],
    "C": [(["simclr", "glcnet", "false", "grass", "ssccl", "random"], ["common"], ["dubai"], ONE, BOTH)],
    "paper": [
        (["glcnet"], ["paper"], ["dubai"], ONE[:1], [("full", "aspp")]),
        (
            ["simclr", "false", "grass", "ssccl", "random"],
            ["paper"],
            ["dubai"],
            ONE[:1],
            [("frozen", "backbone")],
        ),
    ],
}
IDENTITY = "dataset setting pool method encoder px fraction label_subset mode transfer seed bugs".split()


def identity(row):
    return tuple(str(row.get(k)) for k in IDENTITY)


def sizes_of(stage, arm, **given):
    "The Setup of an arm in a stage; `given` values that are not None have the last word."
    paper = (
        dict(encoder="resnet50", px=224, batch=256, epochs=400, stride=16, recipe="glcnet", steps=1350)
        if arm.startswith("glcnet")
        else dict(encoder="resnet50", px=224, batch=256, epochs=200, recipe="false", steps=1300)
    )
    found = {"small": SMALL, "C": Setup("resnet50", px=224, batch=64), "paper": Setup(**paper)}.get(
        stage, Setup()
    )
    return replace(found, **{k: v for k, v in given.items() if v is not None})


def jobs_of(stage, data, sizes, seeds, arms, bugs):
    "The rows of a stage without their scores, by identity: seeds first, then arms, so that a call that ends early leaves whole comparisons."
    found = {}
    for wanted, settings, pools, labels, heads in STAGES[stage]:
        for seed, arm, setting, pool, (fraction, number), (mode, transfer) in product(
            seeds, [m for m in arms if m in (wanted or arms)], settings, pools, labels, heads
        ):
            s, pool = sizes(arm), pool if pool in data.pools else data.name
            job = dict(
                dataset=data.name,
                split="test",
                setting=setting,
                pool=pool,
                method=arm,
                preset="official" if options_of(arm, setting).get("preset") else "default",
                parent=ARMS[arm][1],
                encoder=s.encoder,
                width=s.width,
                stride=s.stride,
                px=s.px,
                fraction=fraction,
                label_subset=number,
                mode=mode,
                transfer=transfer,
                seed=seed,
                seed_finetune=seed,
                bugs="+".join(bugs),
            )
            found[identity(job)] = job
    return list(found.values())


class Book:
    "A results file: rows by identity, written whole after each change."

    def __init__(self, path):
        self.path, self.rows = (
            path,
            {identity(r): r for r in json.loads(path.read_text())} if path.exists() else {},
        )

    def done(self, job):
        return self.rows.get(identity(job), {}).get("status") in ("done", "diverged")

    def keep(self, row):
        self.rows[identity(row)] = row
        write_aside(
            self.path,
            lambda p: p.write_text(
                "[\n" + ",\n".join(json.dumps(r, sort_keys=True) for r in self.rows.values()) + "\n]\n"
            ),
        )


class Clock:
    "The budget of a call: whether one more piece of a kind, as long as the longest so far, would still fit; and how many minutes a piece took."

    def __init__(self, budget):
        self.end, self.longest = time.time() + budget, {}

    def fits(self, *kinds):
        return time.time() + sum(self.longest.get(k, 0) for k in kinds) < self.end

    def timed(self, kind, what):
        started = time.time()
        found = what()
        self.longest[kind] = max(self.longest.get(kind, 0), time.time() - started)
        return found, round((time.time() - started) / 60, 3)


def one_row(job, kept, data, test, s, device):
    "A finished row: fine-tune, draw the test tiles, count."
    record, bugs, classes = kept["record"], job["bugs"].split("+"), len(data.classes)
    if record["status"] != "done":
        return {**job, "status": record["status"], "miou": None}
    model = tune(
        kept,
        data.train[data.subset(job["fraction"], job["label_subset"])].to(device),
        s,
        classes,
        job,
        device,
        bugs,
        test,
    )
    row = scored(
        job, tables_of(model, test, classes, record["mean"], record["std"]), test.block, data.classes, bugs
    )
    encoder = Encoder(s.encoder, test.images.shape[1], s.width, s.stride)
    encoder.load_state_dict(kept["state"]["encoder"])
    health = spread(
        feature_maps(
            encoder.to(device),
            normalise(data.train.images[:64].to(device).float(), record["mean"], record["std"]),
        )
    )
    return {
        **row,
        "status": "done" if np.isfinite(row["miou"]) else "diverged",
        "views_seen": record["views_seen"],
        "encoder_passes": record["encoder_passes"],
        **{k: round(v, 5) for k, v in health.items()},
    }


def run(jobs, data, sizes, book, clock, device, folder, common, weights=None, twice=False):
    "Rows, one by one, until the jobs or the budget end; gives how many are left. `twice`: only the first one, two times from nothing, and how far apart they are."
    test, left = None, [j for j in jobs if twice or not book.done(j)]
    data.pools = {
        pool: tuple(t.to(device) for t in pair)
        for pool, pair in data.pools.items()
        if any(j["pool"] == pool for j in left)
    }
    for n, job in enumerate(left):
        if not clock.fits("pretraining", "row"):
            return len(left) - n
        s, start = (
            sizes(job["method"]),
            lambda where: pretrained(job, data, sizes(job["method"]), device, where, weights),
        )
        if twice:
            folder = folder / f"twice-{time.time_ns()}"
        else:
            book.keep({**job, **common, "status": "started"})  # what a killed call leaves behind
        kept, _ = clock.timed("pretraining", lambda: start(folder))
        test = test or data.test().to(device)
        row, minutes = clock.timed("row", lambda: one_row(job, kept, data, test, s, device))
        if twice:
            again = one_row(job, start(folder / "again"), data, test, s, device)
            print(
                f"{job['method']} {job['fraction']} {job['mode']}: mIoU {row['miou']} and {again['miou']}, {100 * abs(row['miou'] - again['miou']):.3f} points apart; rows {'equal' if row == again else 'differ'}"
            )
            return 0
        book.keep({**row, **common, "minutes": minutes, "minutes_pretrain": kept["record"]["minutes"]})
        print(
            f"[{n + 1}/{len(left)}] {job['method']:16} {job['setting']} {job['pool']} {job['fraction']} {job['mode']} seed {job['seed']}: {row['status']}, mIoU {row['miou']}",
            flush=True,
        )
    return 0


def floors(data, book, clock, common):
    "Rows that learn without a network: the most common class, boosting on each pixel's colour and surroundings, and two people about one ground (their published agreement)."
    from dubai import pixel_features
    from sklearn.ensemble import HistGradientBoostingClassifier

    features, K, test = (
        lambda tiles: np.concatenate([pixel_features(x.numpy().astype(np.float32)) for x in tiles.images]),
        len(data.classes),
        None,
    )
    base = dict(
        dataset=data.name,
        split="test",
        setting="floor",
        pool="none",
        preset="default",
        parent=None,
        encoder="none",
        px=data.train.labels.shape[-1],
        mode="none",
        transfer="none",
        seed=None,
        bugs="",
        status="done",
        **common,
    )
    for two in data.overlaps[:1]:
        book.keep(
            {
                **base,
                "method": "annotators",
                "fraction": "none",
                "label_subset": 0,
                "miou": round(two["mean_iou"], 5),
                "iou": two["iou"],
                "confusion_by_block": {},
            }
        )

    def fit(job):
        tiles = data.train[data.subset(job["fraction"], job["label_subset"])]
        tiles = tiles[torch.as_tensor(np.random.default_rng(0).permutation(len(tiles))[:600])]
        x, y = features(tiles), tiles.labels.numpy().ravel()
        chosen = np.random.default_rng(0).choice(
            np.flatnonzero(y != 255), min((y != 255).sum(), 200_000), replace=False
        )
        model = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x[chosen], y[chosen])
        for name, draw in (
            ("majority", lambda x: np.full(len(x), np.bincount(y[y != 255]).argmax())),
            ("boosting", model.predict),
        ):
            told, drawn = test.labels.flatten(1).numpy(), draw(features(test)).reshape(len(test), -1)
            tables = np.stack(
                [
                    np.bincount(t[t != 255].astype(int) * K + d[t != 255], minlength=K * K).reshape(K, K)
                    for t, d in zip(told, drawn)
                ]
            )
            book.keep(scored({**job, "method": name}, tables, test.block, data.classes))

    for fraction, number in [*SUBSETS, ("all", 0)]:
        job = {**base, "method": "boosting", "fraction": fraction, "label_subset": number}
        if book.done(job) or not clock.fits("floor"):
            continue
        test = test or data.test()
        print(
            f"floors {fraction} {number}: {clock.timed('floor', lambda: fit(job))[1]} minutes, boosting {book.rows[identity(job)]['miou']}",
            flush=True,
        )


def cards(name, folder, path, seeds, arms, clock, epochs=10, looks=2):
    "The scorecard's rows: each arm trained on unlabelled tiles, asked before, during and after, on tiles of other scenes."
    near, other, classes, metres = audited(name, folder)
    rows = json.loads(path.read_text()) if path.exists() else []
    s, (mean, std) = replace(SMALL, width=16, px=64, batch=32, epochs=epochs), band_moments(near.images)
    ready = lambda tiles: (normalise(tiles.images.float(), mean, std), tiles.labels)
    seen = audit(
        *ready(other),
        torch.as_tensor(other.corner),
        torch.as_tensor(np.unique(other.scene, return_inverse=True)[1]),
        size=64,
        metres=metres,
    )
    total = epochs * (len(near) // s.batch)

    def ask(arm, seed):
        for step, method, _ in learn(arm, (near.images, near.labels), s, seed, "common", "cpu"):
            if step % (total // looks):
                continue
            at = At(progress=1.0, generator=torch.Generator().manual_seed(1000 * seed + step))
            values = {
                **scorecard(method, seen, at),
                ("linear probe", "all labels"): judge(method.encoder, ready(near), ready(other), classes)[
                    "linear"
                ],
            }
            rows.extend(
                dict(
                    data=name,
                    method=arm,
                    seed=seed,
                    step=step,
                    measure=m,
                    arm=a,
                    kind=MEASURES[m][1],
                    value=round(v, 5),
                    protocol=PROTOCOL,
                    commit=code_version(),
                )
                for (m, a), v in values.items()
                if np.isfinite(v)
            )

    for seed, arm in product(seeds, arms):
        if any((r["data"], r["method"], r["seed"]) == (name, arm, seed) for r in rows) or not clock.fits(
            "card"
        ):
            continue
        _, minutes = clock.timed("card", lambda: ask(arm, seed))
        write_aside(path, lambda p: p.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n"))
        print(f"scorecard {name} {arm} seed {seed}: {minutes} minutes", flush=True)


CARD = "grass false glcnet ssccl simclr glcnet-unmatched ssccl-shuffled".split()


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
        help="dubai; scenes (scorecard); potsdam, vaihingen, loveda, deepglobe with --root; or a folder that data.datasets reads",
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


def main(argv=None):
    a = options().parse_args(argv)
    stage, clock, device = (
        "paper" if a.setting == "paper" else a.stage,
        Clock(a.budget),
        "cpu" if a.stage == "small" else pick_device(a.device),
    )
    if unknown := sorted(set(a.methods or ()) - set(ARMS)):
        raise SystemExit(f"method {unknown[0]!r} is not known: choose from {', '.join(ARMS)}")
    there = [m for m in a.methods or ARMS if m == "random" or key_of(m) or (m == "imagenet" and a.imagenet)]
    if gone := sorted(set(a.methods or ARMS) - set(there)):
        print(f"pending, for want of a registered method or a weights file: {', '.join(gone)}")
    a.results.mkdir(parents=True, exist_ok=True)
    if stage == "pack":
        return pack(a.work)
    if stage == "ledger":
        return print(ledger(a.results))
    if stage == "scorecard":
        return cards(
            a.data,
            a.work,
            a.results / "scorecard.json",
            a.seeds or SEEDS,
            [m for m in a.methods or CARD if m in there],
            clock,
        )

    def opened():
        with open(a.results / "test-openings.jsonl", "a") as f:
            f.write(
                json.dumps(
                    dict(
                        when=time.strftime("%Y-%m-%d %H:%M"), commit=code_version(), stage=stage, data=a.data
                    )
                )
                + "\n"
            )

    def sizes(arm):
        return sizes_of(stage, arm, epochs=a.epochs, steps=a.steps, px=a.px, width=a.width, batch=a.batch)

    data = (
        embedded()
        if stage == "small"
        else dubai(a.work, sizes("simclr").px, opened)
        if a.data == "dubai"
        else on_disk(a.data, a.root or Path(a.data), 256 if sizes("simclr").px > 128 else 128, opened)
    )
    book = Book(
        a.results
        / f"evidence-{stage}{'' if data.name in ('dubai', 'scenes') else '-' + Path(data.name).name}.json"
    )
    common = dict(
        protocol=PROTOCOL,
        small=stage == "small",
        device=torch.cuda.get_device_name() if str(device).startswith("cuda") else "cpu",
        commit=code_version(),
        data_hash=data.hash,
    )
    if stage == "floor":
        return floors(data, book, clock, common)
    weights = a.imagenet and (
        load_weights(a.imagenet)[0]
        if a.imagenet.suffix == ".safetensors"
        else torch.load(a.imagenet, weights_only=True)
    )
    jobs = jobs_of(stage, data, sizes, a.seeds or ((0,) if stage == "small" else SEEDS), there, a.bugs)
    left = run(
        jobs,
        data,
        sizes,
        book,
        clock,
        device,
        a.work / (f"small-{os.getpid()}" if stage == "small" else "encoders"),
        common,
        weights,
        a.twice,
    )
    print(
        f"stage {stage}: {len(book.rows)} rows in {book.path.name}, {left} of {len(jobs)} left"
        + (": call again" if left else "")
    )
    return left


if __name__ == "__main__":
    sys.exit(1 if main() and "small" in sys.argv else 0)
