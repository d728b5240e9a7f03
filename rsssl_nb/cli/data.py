"The commands `scene`, `check` and `split`: scenes, and the state of one's own data."

import click

from rsssl_nb.cli.shared import COUNT, PATH, force, in_this_command, main, nodata, say, seed


@main.command()
@click.argument("out", type=PATH)
@click.option(
    "--size", type=COUNT, default=1024, show_default=True, help="Height and width in pixels of 0.5 m."
)
@force
@seed
def scene(out, size, force, seed):
    "Write a synthetic scene to OUT: image.tif (R G B NIR) and labels.tif."
    from rsssl_nb.data.scenes import make_scene
    from rsssl_nb.data.write import write_scene

    for path in write_scene(make_scene(size, seed), out, force):
        say(f"wrote {path}")


@main.command()
@click.argument("folder", type=PATH)
@nodata
def check(folder):
    """List what is wrong with a FOLDER of rasters or a dataset: corrupt, empty and mismatching files, labels,
    leaks. Exit code 2 when there is anything.
    """
    from rsssl_nb.data.check import check_rasters
    from rsssl_nb.data.datasets import recognise
    from rsssl_nb.data.splits import check_dataset

    data = recognise(folder)
    rows = check_dataset(data, progress=True) if data else check_rasters(folder, progress=True)
    if data:
        say(data)
    for _, kind, sentence in rows:
        say(f"{kind:9} {in_this_command(sentence)}")
    faults = sum(kind != "missing" for _, kind, _ in rows)
    say(f"{faults} fault{'s' * (faults != 1)}")
    if faults:
        raise SystemExit(2)


@main.command()
@click.argument("image", type=PATH)
@click.argument("out", type=PATH, required=False)
@click.option("--block", help="Side of a block: 2km, 200m or 512px. [default: 2km, or what fits 24 times]")
@click.option(
    "--buffer",
    help="Ground left out between blocks of different splits. [default: a tenth of the block]",
)
@click.option(
    "--shares",
    type=float,
    nargs=3,
    default=(0.7, 0.15, 0.15),
    show_default=True,
    help="Of train, val and test.",
)
@force
@nodata
@seed
def split(image, out, block, buffer, shares, force, seed):
    """Divide the mosaic IMAGE into blocks for train, val and test, written to OUT (GeoJSON; by default IMAGE
    with the ending .split.geojson).

    A dataset file own.toml takes them: images = "own.tif", labels = "own_labels.tif", split =
    "own.split.geojson", a line each. Then `finetune RUN --images own.toml` learns from its train blocks
    and keeps the step that does best on its val blocks, and `score MAP LABELS --split own.split.geojson`
    judges on its test blocks.
    """
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.data.shapes import SPLITS, block_split, fitting_block, tenth_of, write_split
    from rsssl_nb.files import refuse_to_replace

    raster = open_raster(image)
    out = out or image.with_suffix(".split.geojson")
    if out.suffix.lower() not in (".geojson", ".json"):
        raise ValueError(f"{out} does not end in .geojson, and what is written is GeoJSON: call it so")
    refuse_to_replace(out, "split", force)
    if block is None:
        block, fitting = fitting_block(raster)
        buffer = buffer or fitting
        say(f"blocks of {block} with {buffer} between splits (--block and --buffer choose others)")
    buffer = buffer or tenth_of(block)
    boxes = block_split(raster, block, buffer, shares, seed)
    path = write_split(out, boxes, raster, force)
    for i, name in enumerate(SPLITS):
        areas = [(right - left) * (bottom - top) for left, top, right, bottom, part in boxes if part == i]
        share = sum(areas) / (raster.width * raster.height)
        say(f"{name:6} {len(areas)} blocks, {100 * share:.1f} % of the image")
    say(f"wrote {path}")
