"""The command line `rsssl-nb`: the pages' own functions, for jobs that outgrow a page.

A failure that a user can mend ends in one sentence on stderr and exit code 2; `--traceback` shows its origin.
"""

import json
import math
import os
import sys
from pathlib import Path

import click

from rsssl_nb.training.config import Config, TuneConfig

PATH = click.Path(path_type=Path)
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
seed = click.option("--seed", default=0, show_default=True, help="Same seed, same machine: same bits.")
alpha = click.option(
    "--alpha",
    type=click.Choice(["auto", "mask", "band"]),
    default="auto",
    show_default=True,
    help="A band tagged alpha: a mask, a data band, or decided by its values.",
)


def declared(config, skip=()):
    "click's options for the settings of a run that its Config declares with a line of help."
    from dataclasses import fields

    shown = [f for f in fields(config) if f.metadata.get("help") and f.name not in skip]

    def add(command):
        for f in reversed(shown):
            kind = click.Choice(f.metadata["choices"]) if f.metadata["choices"] else type(f.default)
            flag = dict(is_flag=True) if kind is bool else dict(type=kind, show_default=True)
            name = f"--{f.name.replace('_', '-')}"
            command = click.option(name, default=f.default, help=f.metadata["help"], **flag)(command)
        return command

    return add


def training(command):
    "The options that pretraining and fine-tuning share beside their Config's."
    for option in (
        click.option(
            "--steps",
            type=int,
            metavar="N",
            help="Length of the run in steps; --epochs is another way to say it.",
        ),
        click.option("--epochs", type=int, metavar="N", help="Length of the run in passes over its windows."),
        click.option("--workers", default=0, show_default=True, help="Processes that read windows."),
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
            help="Memory layout. [default: last for wide networks in less than float32]",
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


HOUR = 3600  # seconds; a longer forecast on a processor comes with a smaller choice


def announce(config, seconds):
    "Steps, epochs and a forecast of minutes, before the first step; a Note where the length is unfit."
    if not is_first():
        return
    length = f"{config.total} steps, {config.total / config.steps:.3g} epochs"
    windows = f"of {config.samples} windows, {config.images} a step, precision {config.precision}"
    forecast = f"; about {config.total * seconds / 60:.3g} minutes here" if seconds else ""
    click.echo(f"{length} {windows}{forecast}")
    if isinstance(config, TuneConfig):
        click.echo(f"{config.windows} windows hold labels to learn from; kept: {config.validation}")
    for note in notes_on(config, seconds):
        click.echo(f"Note: {note}", err=True)


def notes_on(config, seconds):
    "What is wrong with the length of a run, each with its cure."
    tuning = isinstance(config, TuneConfig)
    few = 100 if tuning else 200
    if config.total < few:
        yield f"{config.total} updates are too few to learn from: use --steps {1500 if tuning else 2000}"
    if tuning and config.windows < 4:
        yield f"{config.windows} labelled windows show little of any class: choose a larger --fraction"
    if seconds and config.total * seconds > HOUR:
        steps = max(1, int(HOUR / seconds))
        smaller = (
            "" if config.width <= 16 else f", or --width 16 ({(config.width / 16) ** 2:.0f} times less work)"
        )
        yield f"that is more than an hour: --steps {steps} fits one{smaller}"


def one_line(message):
    "A message without its line breaks and runs of spaces."
    return " ".join(str(message).split())


def show_note(message, *_, **__):
    "A Python warning as one line on stderr."
    click.echo(f"Note: {one_line(message)}", err=True)


def sentence(error):
    "An error as one line: what is wrong, where, and what to do."
    text = one_line(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or ''}: {error.strerror}: check the path, its permissions and the free space"
    if isinstance(error, KeyError):
        text = f"{text} is missing from the file: it was not written by rsssl-nb"
    return text


class Group(click.Group):
    "A click group that turns a mendable error of any command into one sentence and exit code 2."

    def invoke(self, ctx):
        import warnings

        warnings.showwarning = show_note
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, KeyError, MemoryError) as error:
            if ctx.params.get("traceback"):
                raise
            click.echo(f"Error: {sentence(error)}", err=True)
            ctx.exit(2)


@click.group(cls=Group, context_settings=dict(help_option_names=["-h", "--help"], max_content_width=110))
@click.option("--traceback", is_flag=True, help="Show the full traceback of an error.")
@click.version_option(package_name="rsssl_nb")
def main(traceback):
    """Self-supervised pretraining, fine-tuning and mapping of remote-sensing images.

    \b
    A whole job in four lines:
      rsssl-nb pretrain tiles/ --method simclr --out runs/pre
      rsssl-nb finetune runs/pre --images img/ --labels lab/ --fraction 0.1 --out runs/seg
      rsssl-nb map runs/seg scene.tif map.tif
      rsssl-nb score map.tif labels.tif
    """


@main.command()
@click.argument("out", type=PATH)
@click.option("--size", default=1024, show_default=True, help="Height and width in pixels of 0.5 m.")
@seed
def scene(out, size, seed):
    "Write a synthetic scene to OUT: image.tif (R G B NIR) and labels.tif."
    from rsssl_nb.data.scenes import make_scene
    from rsssl_nb.data.write import write_scene

    for path in write_scene(make_scene(size, seed), out):
        click.echo(f"wrote {path}")


def is_first():
    "Whether this is the process that speaks: the only one, or rank 0 of several."
    return os.environ.get("RANK", "0") == "0"


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
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option(
    "--method",
    default="simclr",
    show_default=True,
    help="simclr, glcnet, false, grass or ssccl; baselines mocov2, byol, simsiam, barlowtwins, vicreg, swav, "
    "densecl, pixpro, inpainting; combined; a wrong name lists all.",
)
@click.option("--out", type=PATH, help="The run folder to make.")
@click.option("--samples", type=int, help="Windows an epoch. [default: valid pixels / size^2, at least 64]")
@click.option("--bands", type=int, help="How many bands the images must have. [default: what they have]")
@click.option("--encoder", help="resnet18, resnet34 or resnet50. [default: resnet18, or that of --init]")
@click.option(
    "--width",
    type=int,
    help="Channels of the first layer; 16 is a sixteenth of the work. [default: 64, or that of --init]",
)
@click.option("--stride", type=int, help="Pixels to one cell of the feature map: 8, 16 or 32. [default: 8]")
@click.option(
    "--init",
    metavar="FILE|RUN|shipped:NAME",
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
@click.option("--probe-labels", type=PATH, help="Their labels, paired by file stem.")
@training
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
    from rsssl_nb.training.pretrain import pretrain
    from rsssl_nb.training.processes import refuse_other_world

    resume, out = resume_mode(resume, out)
    if out is None:
        raise click.UsageError("Missing option '--out': the run folder to make")
    size = refuse_other_world(processes)
    note = make_method(method, Encoder(width=8), settings(options)).note(kw["epochs"] or Config.epochs)
    if is_first():
        click.echo(f"{size} process{'es' if size > 1 else ''}, {method}" + (f"; {note}" if note else ""))
    if is_first() and kw["batch"] == 1:
        click.echo(
            "Note: in a batch of one no image has another to differ from: contrastive losses stay 0; "
            "use a larger --batch",
            err=True,
        )
    if deterministic:
        be_deterministic()
    if init and is_first():
        from rsssl_nb.weights import load, weights_path

        click.echo(f"{init}: {load(weights_path(init))}")
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
        announce=announce,
        **kw,
    )
    if not is_first():
        return
    ending = "stopped when asked to; go on with --resume auto"
    if run.complete:
        ending = f"wrote {out / 'encoder.safetensors'}"
    click.echo(f"{len(run.log)} steps, loss {run.log[0]['loss']:.3f} -> {run.log[-1]['loss']:.3f}; {ending}")


def training_images(paths):
    "Files and folders as they are; of a dataset the rasters of its training scenes."
    from rsssl_nb.data.datasets import recognise

    found = []
    for path in paths:
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
    "--images", required=True, type=PATH, help="Folder of images, or a dataset (TOML or a known layout)."
)
@click.option(
    "--labels",
    type=PATH,
    help="Folder of label images, paired by file stem. [default: those of the dataset's training scenes]",
)
@click.option("--classes", type=PATH, help="classes.json. [default: looked for beside the labels and above]")
@click.option("--fraction", type=float, help="Share of the windows to learn from, in (0, 1].")
@click.option("--subset", type=PATH, help="A list of windows to learn from: STEM_yROW_xCOLUMN lines.")
@click.option(
    "--val-images",
    type=PATH,
    help="Other images, to choose the step that is kept. [default: a fifth of the ground]",
)
@click.option("--val-labels", type=PATH, help="Their labels, paired by file stem.")
@click.option("--out", type=PATH, help="The run folder to make.")
@declared(TuneConfig, skip=("seed", "precision", "channels_last"))
@training
@alpha
@seed
@device
def finetune(run, images, labels, out, subset, resume, deterministic, **kw):
    """Learn a segmenter from few labels, from RUN: a pretraining folder, a weights file, shipped:NAME or
    `random`.

    \b
    On several GPUs:
      torchrun --standalone --nproc_per_node 8 -m rsssl_nb finetune RUN ... --out SEG --processes 8
    """
    from rsssl_nb.training.finetune import finetune

    resume, out = resume_mode(resume, out)
    if out is None:
        raise click.UsageError("Missing option '--out': the run folder to make")
    if deterministic:
        be_deterministic()
    if labels is None:
        images, labels, kw["classes"] = training_labels(images)
    kw = dict(kw, subset=subset, resume=resume, announce=announce)
    _, log = finetune(run, images, labels, out, **kw)
    if not is_first():
        return
    written = out / "segmenter.safetensors"
    if not written.exists():
        click.echo(f"{len(log)} steps; stopped when asked to; go on with --resume auto")
        return
    scored = [row for row in log if "miou" in row]
    kept = "kept the last step"
    if scored:
        best = max(scored, key=lambda row: row["miou"])
        kept = f"kept step {best['step'] + 1} (mIoU {best['miou']:.3f} on the labels that choose)"
    click.echo(
        f"{len(log)} steps, loss {log[0]['loss']:.3f} -> {log[-1]['loss']:.3f}; {kept}; wrote {written}"
    )


def training_labels(path):
    "Rasters, labels and classes of a dataset's labelled training scenes."
    from rsssl_nb.data.datasets import open_dataset

    data = open_dataset(path)
    entries = [e for e in data.split("train") if e.labels]
    if not entries:
        raise ValueError(
            f"{path} has no labelled training scene: give --labels, or describe it in a dataset.toml"
        )
    return [data.raster(e) for e in entries], [data.labels(e) for e in entries], data.classes


@main.command()
@click.argument("folder", type=PATH)
def check(folder):
    """List what is wrong with a FOLDER of rasters or a dataset: corrupt, empty and mismatching files, labels,
    leaks. Exit code 2 when there is anything.
    """
    from rsssl_nb.data.check import check_rasters
    from rsssl_nb.data.datasets import recognise
    from rsssl_nb.data.splits import check_dataset

    data = recognise(folder)
    rows = check_dataset(data) if data else check_rasters(folder)
    if data:
        click.echo(data)
    for _, kind, sentence in rows:
        click.echo(f"{kind:9} {sentence}")
    faults = sum(kind != "missing" for _, kind, _ in rows)
    click.echo(f"{faults} fault{'s' * (faults != 1)}")
    if faults:
        raise SystemExit(2)


@main.command()
@click.argument("image", type=PATH)
@click.argument("out", type=PATH, required=False)
@click.option("--block", default="2km", show_default=True, help="Side of a block: 2km, 200m or 512px.")
@click.option(
    "--buffer", default="200m", show_default=True, help="Ground left out between blocks of different splits."
)
@click.option(
    "--shares",
    type=float,
    nargs=3,
    default=(0.7, 0.15, 0.15),
    show_default=True,
    help="Of train, val and test.",
)
@seed
def split(image, out, block, buffer, shares, seed):
    """Divide the mosaic IMAGE into blocks for train, val and test, written to OUT (GeoJSON) for a dataset's
    `split`.
    """
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.data.shapes import SPLITS, block_split, write_split

    raster = open_raster(image)
    boxes = block_split(raster, block, buffer, shares, seed)
    path = write_split(out or image.with_suffix(".split.geojson"), boxes, raster)
    for i, name in enumerate(SPLITS):
        areas = [(right - left) * (bottom - top) for left, top, right, bottom, part in boxes if part == i]
        share = sum(areas) / (raster.width * raster.height)
        click.echo(f"{name:6} {len(areas)} blocks, {100 * share:.1f} % of the image")
    click.echo(f"wrote {path}")


def mapping(command):
    "The options of the commands that go over a raster window by window."
    for option in (
        alpha,
        device,
        click.option("--size", type=int, help="Window in pixels. [default: the one of the training]"),
        click.option("--allow-remote", is_flag=True, help="IN may be a URL or one of GDAL's /vsi paths."),
        click.argument("out", type=PATH),
        click.argument("image", metavar="IN"),
        click.argument("run", type=PATH),
    ):
        command = option(command)
    return command


overlap = click.option(
    "--overlap", default=0.25, show_default=True, help="Share of a window that neighbours share, in [0, 1)."
)
batch = click.option(
    "--batch", type=int, help="Windows at once. [default: 16 on a GPU, 1 in each thread of a processor]"
)
resume = click.option(
    "--resume", is_flag=True, help="Continue a map that was stopped; keep its finished part if it fails."
)


def say_written(out):
    "Says what was written, once of several processes."
    if is_first():
        click.echo(f"wrote {out}")


def numbers(_, option, text):
    "`--mean 1,2,3` as floats; None where the option is not given."
    if text is None:
        return None
    try:
        return [float(value) for value in text.replace(",", " ").split()]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of numbers, as in --{option.name} 110,95,80") from None


@main.command(name="map")
@click.argument("model", type=PATH)
@click.argument("images", metavar="IN...", nargs=-1, required=True, type=PATH)
@click.argument("out", type=PATH)
@click.option("--allow-remote", is_flag=True, help="IN may be a URL or one of GDAL's /vsi paths.")
@click.option("--size", type=int, help="Window in pixels. [default: the one of the training]")
@alpha
@device
@overlap
@batch
@resume
@click.option(
    "--probabilities", type=PATH, help="A second GeoTIFF: each class's share and the entropy, in percent."
)
@click.option("--tta", is_flag=True, help="Mean over a window's eight orientations; eight times the work.")
@click.option("--polygons", type=PATH, help="A GeoPackage with the classes as polygons.")
@click.option(
    "--least-area",
    default=0.0,
    show_default=True,
    help="Smaller polygons are left out, in square units of the CRS.",
)
@click.option(
    "--passport", type=PATH, help="JSON about an ONNX file. [default: the one of its name beside it]"
)
@click.option(
    "--mean", callback=numbers, help="Of each band of an ONNX network's training images: 110,95,80."
)
@click.option("--std", callback=numbers, help="Their standard deviations.")
@click.option("--classes", type=PATH, help="classes.json of an ONNX network.")
def map_(
    model,
    images,
    out,
    allow_remote,
    size,
    alpha,
    probabilities,
    polygons,
    least_area,
    passport,
    mean,
    std,
    classes,
    **kw,
):
    """Segment the rasters IN with MODEL into the label map OUT (a cloud-optimised GeoTIFF); of several IN, one
    map each into the folder OUT.

    MODEL is a fine-tuned run, or an ONNX file of any network. What such a file does not say of itself (mean,
    std, classes, window) stands in a JSON file of its name beside it, or in options.

    In several processes: torchrun --standalone --nproc_per_node 8 -m rsssl_nb map MODEL IN OUT
    """
    from rsssl_nb.data.labels import read_classes
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.mapping.models import open_model
    from rsssl_nb.mapping.polygons import check_polygons, write_polygons
    from rsssl_nb.mapping.segment import segment
    from rsssl_nb.mapping.tiling import check_windows

    found = read_classes(classes) if classes else None
    network = open_model(
        model,
        passport,
        mean=mean,
        std=std,
        classes=found and found.names,
        colors=found and found.colors,
    )
    size = network.size if size is None else size
    if polygons:
        check_polygons(polygons, least_area)
    rasters = [open_raster(image, alpha, allow_remote) for image in images]
    outs = [out] if len(images) == 1 else maps_in_folder(images, out)
    if len(images) > 1 and (probabilities or polygons):
        raise click.UsageError("--probabilities and --polygons are of one IN: map the others by themselves")
    for raster in rasters:
        check_windows(raster, network.mean.numel(), size, kw["batch"])
    for raster, path in zip(rasters, outs):
        segment(network, raster, path, size=size, progress=True, probabilities=probabilities, **kw)
        say_written(path)
    if polygons and is_first():
        say_written(write_polygons(out, polygons, least_area))


def maps_in_folder(images, out):
    "The path of each image's map in the folder `out`: the image's name with .tif."
    if out.is_file() or out.suffix.lower() in (".tif", ".tiff"):
        raise ValueError(
            f"{out} is no folder, and {len(images)} images give as many maps: give a folder as OUT"
        )
    found = [out / f"{image.stem}.tif" for image in images]
    for i, path in enumerate(found):
        if path in found[:i]:
            raise ValueError(f"two images would be mapped to {path}: map them into two folders")
    return found


@main.command()
@mapping
@overlap
@batch
@resume
def embed(run, image, out, size, alpha, allow_remote, **kw):
    "Colour the raster IN by what the pretrained RUN sees in it (PCA of its features), into the GeoTIFF OUT."
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.mapping.embed import embed
    from rsssl_nb.training.pretrain import load_encoder

    encoder, meta = load_encoder(run)
    embed(
        encoder,
        open_raster(image, alpha, allow_remote),
        out,
        meta["mean"],
        meta["std"],
        size=meta["size"] if size is None else size,
        progress=True,
        **kw,
    )
    say_written(out)


@main.command()
@mapping
@click.option("--batch", default=16, show_default=True, help="Windows that are each other's negatives.")
@seed
def boxes(run, image, out, size, alpha, allow_remote, **kw):
    "Draw the boxes that the GraSS of RUN cuts in the raster IN, as GeoJSON in map coordinates."
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.mapping.boxes import draw_boxes, guided_method

    method, config = guided_method(run)
    draw_boxes(
        method,
        open_raster(image, alpha, allow_remote),
        out,
        config.mean,
        config.std,
        config.size if size is None else size,
        progress=True,
        **kw,
    )
    say_written(out)


@main.command()
@click.argument("encoders", nargs=-1, required=True, metavar="RUN|FILE|shipped:NAME...")
@click.option(
    "--scenes",
    type=PATH,
    help="Folder of class folders (or with train and test, or an index.csv). [default: painted textures]",
)
@click.option("--size", type=int, help="Pixels to which each image is reduced. [default: 128; painted 64]")
@click.option(
    "--labels",
    type=click.IntRange(1),
    multiple=True,
    help="Images a class to learn from. [default: 2 5 20 100]",
)
@click.option("--tiles", default=64, show_default=True, help="Labelled mosaics to learn pixels from.")
@click.option("--frame", default=32, show_default=True, help="Pixels of reflected ground around each mosaic.")
@click.option("--out", type=PATH, help="Also write the rows, with intervals and classes, as JSON.")
@seed
@device
def judge(encoders, scenes, size, labels, tiles, frame, out, seed, device):
    """Judge ENCODERS by frozen features: scene classes and pixels of mosaics, from few labels.

    Colour statistics and an untrained encoder of the same architecture stand beside them in each table.
    """
    from rsssl_nb.evaluation.judges import as_table, judge_encoders, open_encoder, standard_judges
    from rsssl_nb.training.engine import pick_device

    device = pick_device(device)
    opened = {source: open_encoder(source).to(device) for source in encoders}
    judges = standard_judges(scenes, size, labels or None, tiles, seed, frame)
    rows = judge_encoders(judges, opened, seed)
    click.echo(as_table(rows))
    if out:
        out.write_text(json.dumps(rows, indent=1))
        click.echo(f"wrote {out}")


def null_for_nan(value):
    "JSON has no NaN: undefined scores become null."
    if isinstance(value, dict):
        return {k: null_for_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [null_for_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@main.command()
@click.argument("predicted", type=PATH)
@click.argument("labels", type=PATH)
@click.option("--classes", type=PATH, help="classes.json. [default: the map's own, or beside the labels]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, undefined scores as null.")
def score(predicted, labels, classes, as_json):
    "Score the label map PREDICTED against LABELS on the same grid."
    from rsssl_nb.data.labels import read_classes
    from rsssl_nb.evaluation.scores import score_rasters

    found = score_rasters(predicted, labels, read_classes(classes) if classes else None)
    if not found["pixels"]:
        raise ValueError(
            f"{labels} has no labelled pixel where {predicted} has a class: there is nothing to score"
        )
    if as_json:
        click.echo(json.dumps(null_for_nan(found)))
        return
    scores = {"OA": "oa", "Kappa": "kappa", "mIoU": "miou", "F1": "f1"}
    line = "  ".join(f"{label} {found[name]:.3f}" for label, name in scores.items())
    click.echo(f"{line}  ({found['pixels']} pixels, {found['ignored']} ignored)")
    for name, iou in found["iou"].items():
        click.echo(f"  {name:24} IoU {iou:.3f}")


def weights_file(path):
    "The weights that a path means: a run folder's, or the file itself; None when there are none."
    if path.is_dir():
        names = (path / "encoder.safetensors", path / "segmenter.safetensors")
        return next((name for name in names if name.exists()), None)
    return path if path.suffix.lower() in (".safetensors", ".pth", ".pt", ".ckpt", ".torch") else None


def describe(path):
    "What a run folder, a weights file or a raster is, as rows (name, value)."
    weights = weights_file(path)
    if weights:
        from rsssl_nb.weights import load_weights

        state, meta = load_weights(weights)
        parameters = sum(v.numel() for v in state.values())
        return [("file", weights), ("parameters", f"{parameters:,}"), *meta.items()]
    if (path / "config.json").exists():
        from rsssl_nb.training.config import as_json
        from rsssl_nb.training.folder import read_config

        return [("unfinished run", path), *as_json(read_config(path)).items()]
    if path.suffix.lower() in (".json", ".jsonl", ".txt", ".csv"):
        raise ValueError(f"{path} is a text file: give a run folder, a weights file or a raster")
    if path.is_dir():
        raise ValueError(f"{path} is a folder without a run: give a run folder, a weights file or a raster")
    from rsssl_nb.data.raster import open_raster

    raster = open_raster(path)
    rows = [("file", path), ("size", f"{raster.width} x {raster.height}"), ("bands", raster.bands)]
    rows += [("type", raster.dtype), ("nodata", raster.nodata), ("crs", raster.crs)]
    return [*rows, ("transform", raster.transform)]


@main.command()
@click.argument("run", type=PATH)
@click.argument("out", type=PATH, required=False)
@click.option(
    "--to",
    type=click.Choice(["torchvision", "timm", "smp", "onnx"]),
    default="torchvision",
    show_default=True,
    help="The library whose names the weights shall bear, or onnx.",
)
@click.option("--resolution", type=float, help="Of onnx: centimetres a pixel, for QGIS.")
def export(run, out, to, resolution):
    """Write the encoder of RUN (folder or weights file) as a safetensors file for another library; or, to
    onnx, the fine-tuned segmenter of RUN with the metadata that the QGIS plug-in Deepness reads.
    """
    if to == "onnx":
        from rsssl_nb.mapping.onnx import export_onnx

        click.echo(f"wrote {export_onnx(run, out, resolution)}")
        return
    from rsssl_nb.weights import export

    click.echo(f"wrote {export(run, out, to=to)}")


@main.command()
@click.argument("path", type=PATH)
def info(path):
    "Say what a run folder, a weights file or a raster holds."
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a run folder, a weights file or a raster")
    for name, value in describe(path):
        click.echo(f"{name:16} {value}")


@main.command()
def lessons():
    "List the pages of the course: file, minutes to read, seconds to run on two cores, title."
    from rsssl_nb.lessons import describe, pages, root

    for path in pages():
        minutes, seconds, title, _ = describe(path)
        click.echo(f"{path.relative_to(root()).as_posix():36} {minutes:3} min {seconds:3} s  {title}")


@main.command()
@click.argument("dest", type=PATH, default="lessons")
@click.option("--force", is_flag=True, help="Also overwrite notebooks you have changed.")
def copy(dest, force):
    """Copy the lessons into the folder DEST. A notebook you have changed stays, and ours goes beside it as
    NAME.new.ipynb.
    """
    from rsssl_nb.lessons import copy

    written = copy(dest, force)
    for path in written:
        if ".new" in path.suffixes:
            click.echo(f"kept yours, ours is {path}")
    click.echo(
        f"{len(written)} files copied to {dest}" if written else f"nothing to copy: {dest} has all lessons"
    )


@main.command()
@click.argument("dest", type=PATH, default="lessons")
@click.option("--port", type=int, help="Where to listen. [default: the first free one from 8888]")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
def lab(dest, port, no_browser):
    """Copy the lessons that DEST lacks and open JupyterLab on the tour; for this machine only, with a token.
    Stop it with Ctrl-C.
    """
    from rsssl_nb.lessons import lab

    options = ["--no-browser"] if no_browser else []
    if port is not None:
        options.append(f"--ServerApp.port={port}")
    lab(dest, *options)


@main.command()
@click.argument("folder", type=PATH, metavar="DIR")
def grade(folder):
    """Mark the exercises in the notebooks under DIR: a CSV of file, page, exercise, verdict and sentence on
    stdout. It runs their code: use an account without anything to lose.
    """
    import csv

    from rsssl_nb.lessons import grade

    columns = ["file", "page", "exercise", "verdict", "sentence"]
    table = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    table.writeheader()
    for row in grade(folder):
        table.writerow(row)


@main.command()
def doctor():
    "Check the installation: each fault with its cure. Exit code 2 when there is one."
    from rsssl_nb.doctor import examine

    findings = list(examine())
    for finding in findings:
        click.echo(finding)
    if any(finding.state == "FAULT" for finding in findings):
        raise SystemExit(2)


if __name__ == "__main__":
    main()
