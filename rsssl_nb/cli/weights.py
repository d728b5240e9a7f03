"The commands `export` and `info`: what a file holds, and its weights for another library."

from pathlib import Path

import click

from rsssl_nb.cli.shared import PATH, force, main, nodata, say


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
    return [*rows, ("transform", raster.transform), ("resolution", resolution(raster)), *values(raster)]


def resolution(raster):
    "What a pixel is on the ground, in words."
    from rsssl_nb.data.raster import pixel_metres
    from rsssl_nb.errors import InputError

    try:
        across, down = pixel_metres(raster)
    except InputError:
        return f"unknown, for {'its CRS places nothing on the ground' if raster.crs else 'it has no CRS'}"

    def length(metres):
        large, small = f"{metres / 1000:.3g} km", f"{100 * metres:.3g} cm"
        return large if metres >= 1000 else f"{metres:.3g} m" if metres >= 1 else small

    pixel = length(across) if abs(across / down - 1) < 0.02 else f"{length(across)} x {length(down)}"
    return f"{pixel} a pixel, {length(across * raster.width)} x {length(down * raster.height)} in all"


def values(raster):
    "The range of each band and the share of valid pixels, of windows spread over a raster, as rows."
    import numpy as np

    from rsssl_nb.data.raster import spread_windows

    places = spread_windows(raster.width, raster.height)
    seen = [raster.read(*place).reshape(raster.bands, -1) for place in places]
    looked = np.concatenate(seen, 1)
    whole = looked.shape[1] == raster.width * raster.height
    where = "" if whole else f" (of {len(places)} windows)"
    valid = np.isfinite(looked)
    yield "valid", f"{100 * valid.any(0).mean():.3g} % of the pixels{where}"
    for name, band, there in zip(raster.band_names, looked, valid):
        if there.any():
            band = band[there]
            yield name, f"{band.min():g} to {band.max():g}, mean {band.mean():.4g}{where}"
        else:
            yield name, f"no valid pixel{where}"


@main.command()
@click.argument("run", metavar="RUN|FILE|shipped:NAME")
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
    from rsssl_nb.weights import SHIPPED, weights_path

    run = weights_path(run) if run.startswith(SHIPPED) else Path(run)
    if to == "onnx":
        from rsssl_nb.mapping.onnx import export_onnx
        from rsssl_nb.notebook import progress_bar

        with progress_bar(1, unit="file", phase="onnx", at_once=True):
            written = export_onnx(run, out, resolution, force=force)
        say(f"wrote {written}")
        return
    from rsssl_nb.weights import export

    say(f"wrote {export(run, out, to=to, force=force)}")


def shipped_rows():
    "The checkpoints that come with the package: (name to give, what made it)."
    from rsssl_nb.weights import shipped, training_told

    for name, meta in shipped().items():
        yield f"shipped:{name}", training_told(meta)


@main.command()
@click.argument("path", required=False, metavar="[FILE|RUN|shipped:NAME]")
@nodata
def info(path):
    """Say what a run folder, a weights file or a raster holds.

    Without one, list the weights that come with the package.
    """
    if path is None:
        for name, made in shipped_rows():
            say(f"{name:24} {made}")
        return
    if path.startswith("shipped:"):
        from rsssl_nb.weights import weights_path

        path = weights_path(path)
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a run folder, a weights file or a raster")
    for name, value in describe(path):
        say(f"{name:16} {value}")
