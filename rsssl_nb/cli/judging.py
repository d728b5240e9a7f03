"The commands `judge` and `score`: encoders by frozen features, maps by labels."

import json
import math

import click

from rsssl_nb.cli.shared import PATH, device, main, seed


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
