"The commands `map`, `embed` and `boxes`: a network over whole rasters."

from functools import partial
from pathlib import Path

import click

from rsssl_nb.cli.shared import (
    COUNT,
    PATH,
    alpha,
    device,
    force,
    main,
    remote,
    say,
    say_written,
    seed,
)
from rsssl_nb.files import is_first_process

overlap = click.option(
    "--overlap", default=0.25, show_default=True, help="Share of a window that neighbours share, in [0, 1)."
)


batch = click.option(
    "--batch", type=COUNT, help="Windows at once. [default: 16 on a GPU, 1 in each thread of a processor]"
)


resume = click.option(
    "--resume", is_flag=True, help="Continue a map that was stopped; keep its finished part if it fails."
)


own_numbers = click.option(
    "--own-numbers",
    is_flag=True,
    help="Standardise each image by its own means and deviations, not by those of the training.",
)


def mapping(command):
    "The options of the commands that go over a raster window by window."
    for option in (
        alpha,
        device,
        force,
        own_numbers,
        click.option("--size", type=COUNT, help="Window in pixels. [default: the one of the training]"),
        remote,
        click.argument("out", type=PATH),
        click.argument("images", metavar="IN...", nargs=-1, required=True),
        click.argument("run", metavar="RUN|FILE|shipped:NAME"),
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
@click.argument("model", metavar="MODEL")
@click.argument("images", metavar="IN...", nargs=-1, required=True)
@click.argument("out", type=PATH)
@remote
@click.option("--size", type=COUNT, help="Window in pixels. [default: the one of the training]")
@alpha
@device
@own_numbers
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
    own_numbers,
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
    """Segment the rasters IN (files or folders) with MODEL into the label map OUT (a cloud-optimised
    GeoTIFF); of several IN, one map each into the folder OUT, or, where OUT ends in .tif, one map of all as
    tiles of one grid.

    OUT is always the last word; only a map that this program wrote is replaced, unless --force.

    MODEL is a fine-tuned run, or an ONNX file of any network. What such a file does not say of itself (mean,
    std, classes, window) stands in a JSON file of its name beside it, or in options.

    In several processes: torchrun --standalone --nproc_per_node 8 -m rsssl_nb map MODEL IN OUT
    """
    from rsssl_nb.data.joined import of_bands
    from rsssl_nb.data.labels import read_classes
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
    rasters = of_bands(opened(images, alpha, allow_remote), network.mean.numel())
    rasters, outs = with_outputs(images, rasters, out, ".tif")
    rasters = at_own_levels(rasters, own_numbers, network.mean, network.std)
    if len(rasters) > 1 and (probabilities or polygons):
        raise click.UsageError("--probabilities and --polygons are of one IN: map the others by themselves")
    for raster in rasters:
        check_windows(raster, network.mean.numel(), size, kw["batch"])
        for path in filter(None, (*outs, probabilities)):
            check_output(raster, path, force=force)
    for raster, path in in_turn(rasters, outs):
        one = len(rasters) == 1
        segment(
            network,
            raster,
            path,
            size=size,
            progress=one,
            probabilities=probabilities,
            force=force,
            announce=partial(say_forecast, raster) if one else None,
            **kw,
        )
        say_written(path)
    if polygons and is_first_process():
        say_written(write_polygons(out, polygons, least_area, force))


def say_forecast(raster, windows, needed):
    "How large a map will be, before its first window: its pixels, windows and memory."
    if is_first_process():
        memory = f"{needed / 1e9:.2g} GB" if needed >= 1e8 else f"{needed / 1e6:.0f} MB"
        say(f"{raster.width} x {raster.height} pixels in {windows} windows, in about {memory} of memory")


def opened(images, alpha, allow_remote):
    "The rasters of files, folders and, where allowed, remote paths."
    from rsssl_nb.data.joined import list_images
    from rsssl_nb.data.raster import open_raster

    return [open_raster(image, alpha, allow_remote) for image in list_images(images)]


def at_own_levels(rasters, own_numbers, mean, std):
    "The rasters; with `--own-numbers` each at the levels of the training, so standardised by its own."
    from rsssl_nb.data.passport import at_levels_of

    return [at_levels_of(raster, mean, std) for raster in rasters] if own_numbers else rasters


def with_outputs(images, rasters, out, ending):
    """The rasters, and the path of what is made of each: OUT of a single file, else files in the folder OUT.

    `images` are the words that the rasters were opened from. Several with an OUT that ends in .tif, where
    `ending` says so, are one raster, the tiles of a grid.
    """
    from rsssl_nb.data.joined import join_tiles

    out = Path(out)
    is_file = out.suffix.lower() in (ending, ".tif", ".tiff")
    one_file = len(images) == 1 and not Path(images[0]).is_dir()
    if len(rasters) == 1 and (is_file or one_file and not out.is_dir()):
        return rasters, [out]
    if is_file and ending == ".tif":
        if any(raster.path and out.resolve() == Path(raster.path).resolve() for raster in rasters):
            raise ValueError(f"{out} is one of the images: write the map under another name")
        return [join_tiles(rasters)], [out]
    if out.is_file() or is_file:
        raise ValueError(f"{out} is no folder, and {len(rasters)} images give as many files: give a folder")
    # text: a path would lose the // of a URL
    found = [out / f"{Path(str(raster.path)).stem}{ending}" for raster in rasters]
    for i, path in enumerate(found):
        if path in found[:i]:
            raise ValueError(f"two images would be written to {path}: write them into two folders")
    return rasters, found


def in_turn(rasters, outs):
    "Rasters with their outputs, one after another, under one bar where there are several."
    from rsssl_nb.notebook import progress_bar

    with progress_bar(len(rasters), 0, len(rasters) > 1 and is_first_process(), "image") as bar:
        for pair in zip(rasters, outs):
            yield pair
            bar.update()


def is_given(option):
    "Whether an option of the present command was given, not left to its default."
    source = click.get_current_context().get_parameter_source(option)
    return source is not click.core.ParameterSource.DEFAULT


def open_encoder_file(run):
    "The encoder of a pretraining run, a weights file or a shipped checkpoint, and its meta record."
    from rsssl_nb.training.pretrain import load_encoder
    from rsssl_nb.weights import SHIPPED, load, weights_path

    if not run.startswith(SHIPPED):
        return load_encoder(Path(run))
    loaded = load(weights_path(run))
    loaded.encoder.meta = {key: loaded.meta[key] for key in ("band_names",) if key in loaded.meta}
    return loaded.encoder.eval(), loaded.meta


@main.command()
@mapping
@overlap
@batch
@resume
@click.option(
    "--basis",
    type=PATH,
    help="A file that keeps the colours' directions: read if it is there, else fitted on all IN and written.",
)
@click.option(
    "--vectors", is_flag=True, help="Write the features themselves: OUT ends in .npy, .parquet or .tif."
)
def embed(run, images, out, size, alpha, allow_remote, own_numbers, basis, vectors, device, force, **kw):
    """Colour the rasters IN (files or folders) by what the pretrained RUN sees in them (PCA of its features),
    into the GeoTIFF OUT; of several IN into the folder OUT, or, where OUT ends in .tif, as tiles of one grid.
    All IN share one basis.

    With --vectors: the features as numbers, a row a window (.npy, .parquet), or a float GeoTIFF of one pixel
    a cell (.tif), for which there is no --overlap.
    """
    from rsssl_nb.data.joined import of_bands
    from rsssl_nb.mapping.embed import embed, shared_basis
    from rsssl_nb.mapping.store import check_output
    from rsssl_nb.mapping.vectors import write_vectors

    encoder, meta = open_encoder_file(run)
    rasters = of_bands(opened(images, alpha, allow_remote), encoder.bands)
    levels = own_numbers, meta["mean"], meta["std"]
    how = dict(mean=meta["mean"], std=meta["std"], size=meta["size"] if size is None else size, device=device)
    if vectors:
        if basis:
            raise click.UsageError("--basis makes colours and --vectors numbers: give one of them")
        if kw["batch"] or kw["resume"]:
            raise click.UsageError("--batch and --resume are of colours, not of --vectors: leave them out")
        ending = ".npy" if out.is_dir() or not out.suffix else out.suffix
        rasters, outs = with_outputs(images, rasters, out, ending)
        rasters = at_own_levels(rasters, *levels)
        if not is_given("overlap") and outs[0].suffix in (".tif", ".tiff"):
            kw["overlap"] = None
        how |= dict(overlap=kw["overlap"], progress=len(rasters) == 1, force=force)
        for raster, path in in_turn(rasters, outs):
            write_vectors(encoder, raster, path, **how)
            say_written(path)
        return
    rasters, outs = with_outputs(images, rasters, out, ".tif")
    rasters = at_own_levels(rasters, *levels)
    for raster, path in zip(rasters, outs):
        check_output(raster, path, force=force)
    if len(rasters) > 1 or basis:
        basis = shared_basis(encoder, rasters, **how, path=basis)
    for raster, path in in_turn(rasters, outs):
        embed(encoder, raster, path, **how, basis=basis, progress=len(rasters) == 1, force=force, **kw)
        say_written(path)


@main.command()
@mapping
@click.option(
    "--batch",
    type=COUNT,
    default=16,
    show_default=True,
    help="Windows that are each other's negatives: so many or more, below twice as many.",
)
@click.option("--top", type=COUNT, help="Keep so many boxes, those of the highest score. [default: all]")
@seed
def boxes(run, images, out, size, alpha, allow_remote, own_numbers, **kw):
    """GraSS's regions as GeoJSON, for a GIS: the rectangles that RUN would train on in the rasters IN.

    RUN is a run of GraSS, shipped:grass, or one by name as shipped:grass-1000. Each window of --size pixels
    is cropped twice at random (`view` a and b), and in each crop the gradient of the loss chooses a
    rectangle; `score` is how far the gradient's map rises in it, to compare within one network. Written in
    map coordinates, of several IN one file each into the folder OUT.
    """
    from rsssl_nb.data.joined import of_bands
    from rsssl_nb.mapping.boxes import draw_boxes, guided_method
    from rsssl_nb.weights import for_bands

    rasters = opened(images, alpha, allow_remote)
    method, config = guided_method(for_bands(run, rasters[0].bands))
    rasters = of_bands(rasters, method.encoder.bands)
    rasters, outs = with_outputs(images, rasters, out, ".geojson")
    rasters = at_own_levels(rasters, own_numbers, config.mean, config.std)
    size = config.size if size is None else size
    for raster, path in in_turn(rasters, outs):
        draw_boxes(method, raster, path, config.mean, config.std, size, progress=len(rasters) == 1, **kw)
        say_written(path)
