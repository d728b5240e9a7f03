"The commands `map`, `embed` and `boxes`: a network over whole rasters."

from pathlib import Path

import click

from rsssl_nb.cli.shared import PATH, alpha, device, force, is_first, main, remote, say_written, seed

overlap = click.option(
    "--overlap", default=0.25, show_default=True, help="Share of a window that neighbours share, in [0, 1)."
)


batch = click.option(
    "--batch", type=int, help="Windows at once. [default: 16 on a GPU, 1 in each thread of a processor]"
)


resume = click.option(
    "--resume", is_flag=True, help="Continue a map that was stopped; keep its finished part if it fails."
)


def mapping(command):
    "The options of the commands that go over a raster window by window."
    for option in (
        alpha,
        device,
        force,
        click.option("--size", type=int, help="Window in pixels. [default: the one of the training]"),
        remote,
        click.argument("out", type=PATH),
        click.argument("image", metavar="IN"),
        click.argument("run", type=PATH),
    ):
        command = option(command)
    return command


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
@click.argument("images", metavar="IN...", nargs=-1, required=True)
@click.argument("out", type=PATH)
@remote
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
@force
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
    force,
    **kw,
):
    """Segment the rasters IN with MODEL into the label map OUT (a cloud-optimised GeoTIFF); of several IN,
    one map each into the folder OUT.

    OUT is always the last word; only a map that this program wrote is replaced, unless --force.

    MODEL is a fine-tuned run, or an ONNX file of any network. What such a file does not say of itself (mean,
    std, classes, window) stands in a JSON file of its name beside it, or in options.

    In several processes: torchrun --standalone --nproc_per_node 8 -m rsssl_nb map MODEL IN OUT
    """
    from rsssl_nb.data.labels import read_classes
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.mapping.models import open_model
    from rsssl_nb.mapping.polygons import check_polygons, write_polygons
    from rsssl_nb.mapping.segment import segment
    from rsssl_nb.mapping.store import check_output
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
        check_polygons(polygons, least_area, force)
    rasters = [open_raster(image, alpha, allow_remote) for image in images]
    outs = [out] if len(images) == 1 else maps_in_folder(images, out)
    if len(images) > 1 and (probabilities or polygons):
        raise click.UsageError("--probabilities and --polygons are of one IN: map the others by themselves")
    for raster in rasters:
        check_windows(raster, network.mean.numel(), size, kw["batch"])
        for path in filter(None, (*outs, probabilities)):
            check_output(raster, path, force=force)
    for raster, path in zip(rasters, outs):
        segment(
            network, raster, path, size=size, progress=True, probabilities=probabilities, force=force, **kw
        )
        say_written(path)
    if polygons and is_first():
        say_written(write_polygons(out, polygons, least_area, force))


def maps_in_folder(images, out):
    "The path of each image's map in the folder `out`: the image's name with .tif."
    if out.is_file() or out.suffix.lower() in (".tif", ".tiff"):
        raise ValueError(
            f"{out} is no folder, and {len(images)} images give as many maps: give a folder as OUT"
        )
    found = [out / f"{Path(image).stem}.tif" for image in images]  # text: a path would lose the // of a URL
    for i, path in enumerate(found):
        if path in found[:i]:
            raise ValueError(f"two images would be mapped to {path}: map them into two folders")
    return found


@main.command()
@mapping
@overlap
@batch
@resume
@click.option(
    "--basis", type=PATH, help="A file that keeps the colours' directions: read if it is there, else written."
)
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
