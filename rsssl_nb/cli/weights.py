"The commands `export` and `info`: what a file holds, and its weights for another library."

from pathlib import Path

import click

from rsssl_nb.cli.shared import PATH, force, main, nodata


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
@force
def export(run, out, to, resolution, force):
    """Write the encoder of RUN (folder or weights file) as a safetensors file for another library; or, to
    onnx, the fine-tuned segmenter of RUN with the metadata that the QGIS plug-in Deepness reads.
    """
    if to == "onnx":
        from rsssl_nb.mapping.onnx import export_onnx

        click.echo(f"wrote {export_onnx(run, out, resolution, force=force)}")
        return
    from rsssl_nb.weights import export

    click.echo(f"wrote {export(run, out, to=to, force=force)}")


def shipped_rows():
    "The checkpoints that come with the package: (name to give, what made it)."
    from rsssl_nb.weights import shipped

    for name, meta in shipped().items():
        made = ", ".join(f"{k} {meta[k]}" for k in ("method", "encoder", "width", "bands") if k in meta)
        yield f"shipped:{name}", made


@main.command()
@click.argument("path", required=False, metavar="[FILE|RUN|shipped:NAME]")
@nodata
def info(path):
    """Say what a run folder, a weights file or a raster holds.

    Without one, list the weights that come with the package.
    """
    if path is None:
        for name, made in shipped_rows():
            click.echo(f"{name:24} {made}")
        return
    if path.startswith("shipped:"):
        from rsssl_nb.weights import weights_path

        path = weights_path(path)
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a run folder, a weights file or a raster")
    for name, value in describe(path):
        click.echo(f"{name:16} {value}")
