"""The small checkpoints that ship with the package: what a longer training makes of the pages' networks.

    python experiments/checkpoints.py [METHOD ...] [--epochs 20] [--tiles 1024] [--out rsssl_nb/checkpoints]

Each method as its page builds it (ResNet-18 of width 16, four bands), trained by `practice_steps` (page
`training/practice`) on scenes that the package makes. A file holds the whole method in float16, with what
made it in its header (read it with `rsssl_nb.weights.load_weights`); the log, a line an epoch, lies
beside it.
"""

import argparse
import platform
import time
from pathlib import Path

import torch

from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.files import write_json_lines
from rsssl_nb.methods.registry import DEFAULTS, method_class
from rsssl_nb.training.folder import code_version
from rsssl_nb.training.practice import practice_steps
from rsssl_nb.weights import save_weights

OPTIONS = dict(
    simclr=dict(dim=64),
    glcnet={},
    false=dict(dim=64),
    grass=dict(dim=64),
    ssccl=dict(dim=64, objective="infonce", head_norm=True),
)


def build(name: str) -> torch.nn.Module:
    "A method as its page builds it, with the weights of seed 0."
    torch.manual_seed(0)
    return method_class(name)(Encoder(bands=4, width=16), **OPTIONS[name])


def train(name, images, epochs, batch=64, size=64, lr=1e-3):
    "A trained method, and its log, a row an epoch: AdamW under one cosine, to a tenth of the rate."
    method, rows, started = build(name), [], time.time()
    optimiser, steps = torch.optim.AdamW(method.parameters(), lr), len(images) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps, lr / 10)
    taken = practice_steps(method, images, optimiser, epochs, batch, size)
    for t, (_, step, _) in enumerate(taken):
        schedule.step()
        if (t + 1) % steps == 0:
            told = {"loss": step.loss, **step.parts}
            row = {key: round(float(value.detach()), 4) for key, value in told.items()}
            rows.append({"epoch": (t + 1) // steps, **row, "minutes": round((time.time() - started) / 60, 2)})
            print(name, rows[-1], flush=True)
    return method, rows


def passport(raw) -> dict:
    "What a loader must know of the images: bands, their mean and deviation, metres a pixel."
    return dict(
        band_names=["red", "green", "blue", "nir"],
        mean=raw.mean((0, 2, 3)).round(3).tolist(),
        std=raw.std((0, 2, 3)).round(3).tolist(),
        pixel_size=0.5,
    )


def make(name: str, out: Path, epochs: int, tiles: int) -> None:
    "One method's files in `out`."
    raw, _ = make_tiles(tiles, 96, seed=3)
    method, rows = train(name, standardise(raw), epochs)
    meta = dict(
        method=name,
        options=OPTIONS[name],
        defaults=DEFAULTS,
        encoder="resnet18",
        width=16,
        stride=method.encoder.stride,
        bands=4,
        size=64,
        seed=0,
        **passport(raw),
        epoch=epochs,
        epochs=epochs,
        batch=64,
        lr=1e-3,
        images=f"make_tiles({tiles}, 96, seed=3), standardised",
        minutes=rows[-1]["minutes"],
        device=f"cpu ({platform.machine()}), {torch.get_num_threads()} thread(s)",
        torch=torch.__version__,
        commit=code_version(),
        command=f"python experiments/checkpoints.py {name} --epochs {epochs} --tiles {tiles}",
    )
    save_weights(
        out / f"{name}-{epochs}.safetensors",
        {k: v.half() if v.is_floating_point() else v for k, v in method.state_dict().items()},
        meta,
    )
    write_json_lines(out / f"{name}.jsonl", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "methods", nargs="*", default=list(OPTIONS), metavar="METHOD", help=f"of {', '.join(OPTIONS)} (all)"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tiles", type=int, default=1024)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parents[1] / "rsssl_nb/checkpoints"
    )
    args = parser.parse_args()
    if wrong := set(args.methods) - set(OPTIONS):
        parser.error(f"unknown method {', '.join(sorted(wrong))}: choose of {', '.join(OPTIONS)}")
    for name in args.methods:
        make(name, args.out, args.epochs, args.tiles)
