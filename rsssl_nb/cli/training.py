"The commands `pretrain` and `finetune`; options of a run come from its Config."

import json
import math
import os
import sys
from functools import partial
from pathlib import Path

import click

from rsssl_nb.cli.shared import COUNT, PATH, alpha, device, main, remote, say, seed
from rsssl_nb.files import is_first_process
from rsssl_nb.training.config import Config, TuneConfig

HOUR = 3600  # seconds; a longer forecast on a processor comes with a smaller choice


def declared(config, skip=()):
    "click's options for the settings of a run that its Config declares with a line of help."
    from dataclasses import fields

    shown = [f for f in fields(config) if f.metadata.get("help") and f.name not in skip]

    def add(command):
        for f in reversed(shown):
            kind = click.Choice(f.metadata["choices"]) if f.metadata["choices"] else type(f.default)
            kind = COUNT if kind is int else kind
            flag = dict(is_flag=True) if kind is bool else dict(type=kind, show_default=True)
            name = f"--{f.name.replace('_', '-')}"
            command = click.option(name, default=f.default, help=f.metadata["help"], **flag)(command)
        return command

    return add


def count_or_auto(_, option, text):
    "`auto`, or a whole number."
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number of processes: use auto, 0, 1, 2, ...") from None


def training(command):
    "The options that pretraining and fine-tuning share beside their Config's."
    for option in (
        click.option(
            "--steps",
            type=COUNT,
            metavar="N",
            help="Length of the run in steps; --epochs is another way to say it. [default: fine-tuning 1500; "
            "pretraining by its images, said before the first step]",
        ),
        click.option(
            "--epochs", type=COUNT, metavar="N", help="Length of the run in passes over its windows."
        ),
        click.option(
            "--workers",
            default="auto",
            show_default=True,
            metavar="auto|N",
            callback=count_or_auto,
            help="Processes that read windows. auto: none, but beside a GPU the cores less one.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["auto", "no", "bf16", "fp16"]),
            default="auto",
            show_default=True,
            help="auto: bfloat16 where the device computes it itself, fp16 on older GPUs, else float32.",
        ),
        click.option(
            "--channels-last/--channels-first",
            default=None,
            help="Memory layout. [default: last on a processor from width 8 on, unless --precision no; "
            "on a GPU from width 32 on, in less than float32]",
        ),
        click.option(
            "--resume",
            metavar="auto|RUN",
            help="auto: continue the run in --out, start it, or leave a finished one. RUN: continue it.",
        ),
        click.option(
            "--save-every",
            type=click.IntRange(1),
            metavar="STEPS",
            help="Steps from one checkpoint to the next. [default: an epoch, or a hundredth of the run]",
        ),
        click.option("--deterministic", is_flag=True, help="On a GPU, the same bits every time; slower."),
        click.option(
            "--tensorboard", is_flag=True, help="Also write TensorBoard event files into the run folder."
        ),
        click.option(
            "--processes",
            type=click.IntRange(1),
            help="How many processes this job must have, as torchrun started it; another number is refused.",
        ),
    )[::-1]:
        command = option(command)
    return command


def network(command):
    "The options that choose a network, of pretraining and of fine-tuning; open where weights decide."
    for option in (
        click.option(
            "--encoder",
            metavar="NAME",
            help="resnet18, resnet34, resnet50, or timm:NAME, as in timm:convnext_atto. [default: resnet18, "
            "or that of the weights]",
        ),
        click.option(
            "--width",
            type=COUNT,
            help="Channels of a ResNet's first layer, and so of its decoder; 16 is a sixteenth of the work. "
            "Of timm's networks only the decoder follows. [default: 64, or that of the weights]",
        ),
        click.option(
            "--stride",
            type=COUNT,
            help="Pixels to one cell of the feature map: 8, 16 or 32. [default: 8; of timm its own]",
        ),
    )[::-1]:
        command = option(command)
    return command


def most_memory(device):
    "Gigabytes that this process held at most so far, on its GPU or in memory; None where unknown."
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def announce(config, seconds, device="cpu", start=None, everything=False):
    """Steps, epochs and a forecast of minutes and memory, before the first step; Notes where it is unfit.

    `start`: the weights that the run starts from, whose match is told. `everything`: no share of the labels
    was asked for, so it learns from all.
    """
    if not is_first_process():
        return
    if start is not None:
        from rsssl_nb.training.start import open_start
        from rsssl_nb.weights import weights_path

        found = open_start(start, config.bands, config.encoder)
        say(f"starts from {weights_path(start)}: {found}")
    length = f"{config.total} steps, {config.total / config.steps:.3g} epochs"
    windows = f"of {config.samples} windows, {config.images} a step, precision {config.precision}"
    minutes = config.total * (seconds or 0) / 60
    told = f"about {minutes:.0f} minutes here" if minutes >= 1.5 else "a minute or less here"
    forecast = f"; {told}" if seconds else ""
    if seconds and (memory := most_memory(device)):
        forecast += f", in {memory:.2g} GB of memory"
    say(f"{length} {windows}{forecast}")
    if isinstance(config, Config) and (note := method_note(config)):
        say(note)
    if isinstance(config, TuneConfig):
        share = " (--fraction 1: all but what is held out)" if everything else ""
        say(f"{config.windows} windows hold labels to learn from{share}")
        best = "" if config.validation.startswith("the last step") else "the step that does best on "
        say(f"kept is {best}{config.validation}")
    for note in notes_on(config, seconds, device):
        say(f"Note: {note}", err=True)


def method_note(config):
    "What the method of a pretraining has to say before a run of this length."
    from rsssl_nb.encoders import Encoder
    from rsssl_nb.methods.registry import make_method

    epochs = float(f"{config.total / config.steps:.3g}")
    method = make_method(config.method, Encoder(width=8), config.options)
    return method.note(int(epochs) if epochs.is_integer() else epochs)


UNUSUAL = 4.5  # a learning rate this many times the usual one, or less than its part, is worth a Note


def usual_rate(config):
    """The rate that usually goes with a batch: AdamW 1e-3 at 64 images, SGD 0.05 at 256.

    AdamW's grows with the root of the images of an update, SGD's with their number.
    """
    update = config.images * config.accumulate
    return 1e-3 * (update / 64) ** 0.5 if config.optimizer == "adamw" else 0.05 * update / 256


def notes_on(config, seconds, device="cpu"):
    "What is wrong with the length of a run, each with its cure."
    tuning = isinstance(config, TuneConfig)
    few = 100 if tuning else 200
    if config.total < few:
        yield f"{config.total} updates are too few to learn from: use --steps {1500 if tuning else 2000}"
    if not tuning and config.images == 1:
        yield (
            "in a batch of one no image has another to differ from: contrastive losses stay 0; "
            "use a larger --batch, and more --samples"
        )
    if tuning and config.windows < 4:
        yield f"{config.windows} labelled windows show little of any class: learn from more, or label more"
    if not tuning and not (usual := usual_rate(config)) / UNUSUAL <= config.lr <= usual * UNUSUAL:
        update = config.images * config.accumulate
        yield (
            f"a learning rate of {config.lr:g} is far from what {update} images an update usually have with "
            f"{config.optimizer}: try --lr {usual:.2g}, or another --batch"
        )
    if seconds and device == "cpu" and config.total * seconds > HOUR:
        steps = max(1, int(HOUR / seconds))
        narrower = (config.width / 16) ** 2 if config.encoder.startswith("resnet") else 1
        smaller = f", or --width 16 ({narrower:.0f} times less work)" if narrower > 1 else ""
        yield f"that is more than an hour: --steps {steps} fits one{smaller}"


def settings(pairs):
    "`--set NAME=VALUE` as a dict; values are read as JSON where they are JSON (0.2, true, null), else text."
    found = {}
    for pair in pairs:
        name, sep, value = pair.partition("=")
        if not sep or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE, as in --set tau=0.2")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def resume_mode(resume, out):
    "`--resume auto` or `--resume RUN`: (mode, folder to train in)."
    if resume is None:
        return None, out
    if resume == "auto":
        return "auto", out
    if out and Path(out).resolve() != Path(resume).resolve():
        raise click.BadParameter(f"--resume {resume} and --out {out} are two folders: give one of them")
    return "must", Path(resume)


@main.command()
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--method",
    default="simclr",
    show_default=True,
    help="simclr, glcnet, false, grass or ssccl; baselines mocov2, byol, simsiam, barlowtwins, vicreg, swav, "
    "densecl, pixpro, inpainting; combined; a wrong name lists all.",
)
@click.option("--out", type=PATH, help="The run folder to make.")
@click.option("--samples", type=COUNT, help="Windows an epoch. [default: valid pixels / size^2, at least 64]")
@click.option("--bands", type=COUNT, help="How many bands the images must have. [default: what they have]")
@network
@click.option(
    "--init",
    metavar="FILE|RUN|imagenet|shipped:NAME",
    help="Weights to start from, of any known layout; the trunk must match in full. [default: random]",
)
@declared(Config, skip=("encoder", "width", "stride", "epochs", "seed", "precision", "channels_last"))
@click.option(
    "--max-nodata", default=0.5, show_default=True, help="Windows with a larger missing share are dropped."
)
@click.option(
    "--set",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the method, as in tau=0.2; a wrong name lists the known ones.",
)
@click.option(
    "--probe-images",
    type=PATH,
    help="Labelled images to watch by: a kNN vote after each epoch, as `knn` in the log.",
)
@click.option("--probe-labels", type=PATH, help="Their labels, paired as --labels are.")
@training
@remote
@alpha
@seed
@device
def pretrain(
    images, method, out, options, resume, processes, deterministic, probe_images, probe_labels, init, **kw
):
    """Pretrain an encoder on unlabelled IMAGES: files, folders, or datasets (TOML or a known layout; of these
    the training scenes).

    \b
    On several GPUs:
      torchrun --standalone --nproc_per_node 8 -m rsssl_nb pretrain IMAGES --out RUN --processes 8
    """
    from rsssl_nb.encoders import Encoder
    from rsssl_nb.methods.registry import make_method
    from rsssl_nb.training.device import pick_device
    from rsssl_nb.training.pretrain import pretrain
    from rsssl_nb.training.processes import refuse_other_world

    resume, out = resume_mode(resume, out)
    if out is None:
        raise click.UsageError("Missing option '--out': the run folder to make")
    size = refuse_other_world(processes)
    make_method(method, Encoder(width=8), settings(options))  # a wrong option is told before an image is read
    if is_first_process():
        say(f"{size} process{'es' if size > 1 else ''}, {method}")
    if deterministic:
        be_deterministic()
    probe = watch_by(probe_images, probe_labels, kw)
    run = pretrain(
        training_images(images),
        method,
        out,
        options=settings(options),
        resume=resume,
        processes=processes,
        probe=probe,
        init=init,
        announce=partial(announce, device=pick_device(kw["device"]), start=init),
        **kw,
    )
    if not is_first_process():
        return
    ending = "stopped when asked to; go on with --resume auto"
    if run.complete:
        ending = f"wrote {out / 'encoder.safetensors'}"
    say(f"{course(run.log)}; {ending}")


def course(log):
    "How long a run was and where its loss went, as far as its log tells."
    losses = [row["loss"] for row in log if row.get("loss") is not None]
    if not losses:
        return "its log.jsonl is damaged and tells no loss"
    return f"{len(log)} steps, loss {losses[0]:.3f} -> {losses[-1]:.3f}"


def training_images(paths):
    "Files, folders and URLs as they are; of a dataset the rasters of its training scenes."
    from rsssl_nb.data.datasets import recognise
    from rsssl_nb.data.gdal import is_remote

    found = []
    for path in paths:
        if is_remote(path):
            found.append(path)  # a Path would lose the // of a URL
            continue
        path = Path(path)
        data = recognise(path) if path.exists() else None
        found += [data.raster(entry) for entry in data.split("train")] if data else [path]
    return found


def watch_by(images, labels, kw):
    "The kNN probe of --probe-images and --probe-labels, or None."
    if (images is None) != (labels is None):
        raise click.UsageError("--probe-images and --probe-labels come together: give both, or neither")
    if images is None:
        return None
    from rsssl_nb.training.validation import knn_probe

    return knn_probe(images, labels, size=kw["size"], alpha=kw["alpha"])


def be_deterministic():
    "Torch's deterministic algorithms, for GPUs whose sums would else depend on the moment."
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


@main.command()
@click.argument("run")
@click.option(
    "--images",
    required=True,
    type=PATH,
    help="An image, a folder of images, or a dataset (TOML or a known layout).",
)
@click.option(
    "--labels",
    type=PATH,
    help="Its label image, whatever it is called, or a folder of them with the images' file stems. [default: "
    "those of the dataset's training scenes]",
)
@click.option(
    "--classes",
    type=PATH,
    help="classes.json. [default: looked for beside the labels and above, else the values or colours in use]",
)
@click.option("--fraction", type=float, help="Share of the windows to learn from, in (0, 1]. [default: 1]")
@click.option("--subset", type=PATH, help="A list of windows to learn from: STEM_yROW_xCOLUMN lines.")
@click.option(
    "--val-images",
    type=PATH,
    help="Other images, to choose the step that is kept. [default: a dataset's val scenes; else a fifth of "
    "the windows is held out where there are twenty or more; of fewer nothing, so try a smaller --size]",
)
@click.option("--val-labels", type=PATH, help="Their labels, paired by file stem.")
@click.option("--out", type=PATH, help="The run folder to make.")
@network
@declared(TuneConfig, skip=("encoder", "width", "stride", "seed", "precision", "channels_last"))
@training
@alpha
@seed
@device
def finetune(run, images, labels, out, subset, resume, deterministic, **kw):
    """Learn a segmenter from few labels, from RUN: a pretraining folder, a weights file, imagenet,
    shipped:NAME or `random`.

    \b
    On several GPUs:
      torchrun --standalone --nproc_per_node 8 -m rsssl_nb finetune RUN ... --out SEG --processes 8
    """
    from rsssl_nb.training.device import pick_device
    from rsssl_nb.training.finetune import finetune

    resume, out = resume_mode(resume, out)
    if out is None:
        raise click.UsageError("Missing option '--out': the run folder to make")
    if deterministic:
        be_deterministic()
    if labels is None:
        images, labels, kw["classes"], spare = training_labels(images)
        if spare and kw["val_images"] is None:
            kw["val_images"], kw["val_labels"] = spare
    told = partial(
        announce,
        device=pick_device(kw["device"]),
        start=None if run == "random" else run,
        everything=kw["fraction"] is None and subset is None,
    )
    kw = dict(kw, subset=subset, resume=resume, announce=told)
    model, log = finetune(run, images, labels, out, **kw)
    if not is_first_process():
        return
    written = out / "segmenter.safetensors"
    if not written.exists():
        say(f"{len(log)} steps; stopped when asked to; go on with --resume auto")
        return
    say(f"{course(log)}; {kept_step(log)}; wrote {written}")
    if hasattr(model, "outcome"):
        say(f"{model.outcome}\nwrote {out / 'outcome.png'} and outcome.json")


def kept_step(log):
    "Which step of a fine-tuning was kept, as its log tells."
    scored = [row for row in log if row.get("miou") is not None and math.isfinite(row["miou"])]
    if not scored:
        return "kept the last step"
    kept = [row for row in scored if row.get("kept")]
    if not kept:  # a log of a version that did not say so
        return "kept the step that its labels chose"
    return f"kept step {kept[-1]['step'] + 1} (mIoU {kept[-1]['miou']:.3f} on the labels that choose)"


def training_labels(path):
    """Rasters, labels and classes of a dataset's labelled training scenes, and (rasters, labels) of those for
    validation, or None."""
    from rsssl_nb.data.datasets import open_dataset

    data = open_dataset(path)
    taught, spare = (
        [entry for entry in data.scenes if entry.labels and entry.split == part] for part in ("train", "val")
    )
    if not taught:
        raise ValueError(
            f"{path} has no labelled training scene: give --labels, or describe it in a dataset.toml"
        )
    return *labelled(data, taught), data.classes, labelled(data, spare) if spare else None


def labelled(data, entries):
    "(rasters, labels) of a dataset's entries; labels by window, of polygons whole."
    from rsssl_nb.data.shapes import VECTORS
    from rsssl_nb.training.labelled import LabelRaster

    rasters = [data.raster(entry) for entry in entries]
    labels = [
        data.labels(entry)
        if Path(entry.labels).suffix.lower() in VECTORS
        else LabelRaster(entry.labels, data.coding, raster, data.tolerate)
        for entry, raster in zip(entries, rasters)
    ]
    return rasters, labels
