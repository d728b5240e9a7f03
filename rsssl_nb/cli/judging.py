"The commands `judge` and `score`: encoders by frozen features, maps by labels."

import json

import click

from rsssl_nb.cli.shared import PATH, device, force, main, say, seed
from rsssl_nb.errors import InputError


@main.command()
@click.argument("encoders", nargs=-1, required=True, metavar="RUN|FILE|shipped:NAME...")
@click.option(
    "--scenes",
    type=PATH,
    help="Folder of class folders (or with train and test, or an index.csv). [default: painted textures]",
)
@click.option(
    "--size",
    type=click.IntRange(32, 4096),
    help="Pixels to which each image is reduced. [default: 128; painted 64]",
)
@click.option(
    "--labels",
    type=click.IntRange(1),
    multiple=True,
    help="Images a class to learn from. [default: 2 5 20 100]",
)
@click.option(
    "--tiles",
    type=click.IntRange(1, 256),
    default=64,
    show_default=True,
    help="Labelled mosaics to learn pixels from, of 256 (painted: of 96).",
)
@click.option(
    "--frame",
    type=click.IntRange(0),
    default=32,
    show_default=True,
    help="Pixels of reflected ground around each mosaic.",
)
@click.option(
    "--adapt-bands",
    is_flag=True,
    help="Adapt the first convolution of an encoder of other bands to the images'.",
)
@click.option("--out", type=PATH, help="Also write the rows, with intervals and classes, as JSON.")
@force
@seed
@device
def judge(encoders, scenes, size, labels, tiles, frame, adapt_bands, out, force, seed, device):
    """Judge ENCODERS by frozen features: scene classes and pixels of mosaics, from few labels.

    Pixels alone (bands, colour statistics) and an untrained encoder of the same architecture stand beside
    them in each table.
    """
    from rsssl_nb.evaluation.judged import as_table
    from rsssl_nb.evaluation.judges import judge_encoders, open_encoder, standard_judges
    from rsssl_nb.files import refuse_no_space, write_aside
    from rsssl_nb.training.device import pick_device
    from rsssl_nb.training.record import null_for_nan

    if out:
        refuse_taken_file(out, "--out", force)
        refuse_no_space(out, 2**20)
    device = pick_device(device)
    opened = {source: open_encoder(source) for source in encoders}
    judges = standard_judges(scenes, size, labels or None, tiles, seed, frame)
    bands = judges[0].train.images.shape[1]
    for source, encoder in opened.items():
        if encoder.bands != bands and not adapt_bands:
            raise InputError(
                f"{source} takes {encoder.bands} bands and the images have {bands}: give images of "
                f"{encoder.bands} bands, or --adapt-bands"
            )
        if encoder.bands != bands:
            say(f"{source}: its first convolution of {encoder.bands} bands is adapted to {bands}")
            opened[source] = open_encoder(source, bands)
    rows = judge_encoders(judges, {source: e.to(device) for source, e in opened.items()}, seed)
    say(as_table(rows))
    if out:
        text = json.dumps(null_for_nan(rows), indent=1)
        write_aside(out, lambda aside: aside.write_text(text, encoding="utf-8"))
        say(f"wrote {out}")


def refuse_taken_file(path, option, force):
    "InputError when the file that an option names is a folder, or is there already, unless `force`."
    from rsssl_nb.files import refuse_unwritable

    refuse_unwritable(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give {option} a file name in it")
    if path.exists() and not force:
        raise InputError(f"{path} exists: choose another name for {option}, or replace it with --force")


@main.command()
@click.argument("predicted", metavar="MAP...", nargs=-1, required=True, type=PATH)
@click.argument("labels", type=PATH)
@click.option("--classes", type=PATH, help="classes.json. [default: the map's own, or beside the labels]")
@click.option(
    "--sample",
    is_flag=True,
    help="The labelled pixels were drawn at random in each class of the map: adds accuracy and class areas "
    "weighted by the map, with 95 % intervals.",
)
@click.option("--split", type=PATH, help="A file that `split` wrote: only the ground of one part is judged.")
@click.option(
    "--part",
    type=click.Choice(["train", "val", "test"]),
    default="test",
    show_default=True,
    help="Of --split.",
)
@click.option("--csv", "as_csv", type=PATH, help="Also write the confusion matrix as CSV.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, undefined scores as null.")
@click.option(
    "--nodata", type=float, metavar="VALUE", help="The labels' value for no label, whatever they declare."
)
@force
def score(predicted, labels, classes, sample, split, part, as_csv, as_json, nodata, force):
    """Score the label map MAP against LABELS on the same grid; or several maps, or a folder of them, against
    the folder LABELS with files of the same names, all in one confusion matrix.

    Ground that the network learnt from flatters it: give labels of other ground, or the test blocks of a
    --split, or trust the held-out figure that `finetune` printed.
    """
    from rsssl_nb.data.labels import read_classes
    from rsssl_nb.evaluation.scores import confusion_rows, score_rasters
    from rsssl_nb.files import write_aside

    if as_csv:
        refuse_taken_file(as_csv, "--csv", force)
    maps = predicted[0] if len(predicted) == 1 else list(predicted)
    known = read_classes(classes) if classes else None
    found = score_rasters(maps, labels, known, sample, not as_json, nodata, split, part)
    if not found["pixels"]:
        raise ValueError(
            f"{labels} has no labelled pixel where {' '.join(map(str, predicted))} has a class: there is "
            "nothing to score"
        )
    rows = confusion_rows(found["confusion"], list(found["iou"]))
    if as_csv:
        write_aside(as_csv, lambda aside: write_csv(aside, rows))
    if as_json:
        from rsssl_nb.training.record import null_for_nan

        say(json.dumps(null_for_nan(found)))
        return
    for name, one in found.get("files", {}).items():
        say(f"{name}: OA {told(one['oa'])}  mIoU {told(one['miou'])}")
    scores = {"OA": "oa", "Kappa": "kappa", "mIoU": "miou", "F1": "f1"}
    line = "  ".join(f"{label} {told(found[name])}" for label, name in scores.items())
    say(f"{line}  ({found['pixels']} pixels, {found['ignored']} ignored)")
    say(f"  {'class':24} {'IoU':>9} {'F1':>9} {'producer':>9} {'user':>9}")
    for name, iou in found["iou"].items():
        others = (found[kind][name] for kind in ("class_f1", "producer", "user"))
        say(f"  {name:24} " + " ".join(f"{told(value):>9}" for value in (iou, *others)))
    say("")
    say(as_columns(rows))
    if "adjusted" in found:
        say("")
        say(adjusted_text(found["adjusted"]))
    if as_csv:
        say(f"wrote {as_csv}")


def told(value):
    "A score with three digits; - where it is undefined."
    return f"{value:.3f}" if value == value else "-"


def as_columns(rows):
    "Rows of cells as lines of aligned columns; accuracies with three digits."
    shown = [[told(cell) if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    lines = [[row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))] for row in shown]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def write_csv(path, rows):
    "Rows of cells as a CSV file; undefined accuracies are empty."
    import csv

    with open(path, "w", newline="", encoding="utf-8") as file:
        for row in rows:
            csv.writer(file).writerow("" if cell != cell else cell for cell in row)


def adjusted_text(found):
    "The estimates of a stratified sample as lines: each value with the half width of its 95 % interval."
    value, half = found["overall"]
    unit = found["unit"]
    lines = [
        "Weighted by the map's class areas (Olofsson et al. 2014), with 95 % intervals:",
        f"  overall accuracy {told(value)} ± {told(half)}",
    ]
    for name, (area, half) in found["areas"].items():
        accuracies = (f"{kind} {' ± '.join(map(told, found[kind][name]))}" for kind in ("producer", "user"))
        mapped = found["mapped"][name]
        area_text = f"{area:,.6g} ± {half:,.3g} {unit} (mapped {mapped:,.6g})"
        lines.append(f"  {name:24} {'  '.join(accuracies)}  area {area_text}")
    return "\n".join(lines)
