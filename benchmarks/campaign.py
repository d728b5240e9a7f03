"What measured rows say about a campaign: arithmetic on them, shown, and nothing else."

import json

from measure import ROOT

SCENES, SIDE, BANDS = 10_000, 10_000, 4
TILES, TILE, EPOCHS = 10_000_000, 224, 100


def seconds(rows, start):
    "What our side of the first measured row whose question starts so took; None where there is none."
    return next((r["ours"] for r in rows if r["question"].startswith(start) and r["ours"]), None)


def gpu_rows():
    "The rows of every GPU that has been measured, by device."
    files = [json.loads(p.read_text()) for p in sorted((ROOT / "results").glob("bench-nvidia*.json"))]
    return {f["device"]: f["rows"] for f in files}


def training(device, rate, read):
    """Hours of a pretraining on 8 and 64 GPUs that take `rate` images a second each, and the cores that must
    read for one of them.
    """
    hours = {g: TILES * EPOCHS / (rate * g) / 3600 for g in (8, 64)}
    told = ", ".join(
        f"{g} GPUs: {TILES:,} x {EPOCHS} / ({g} x {rate:.0f}/s) = {h:.0f} h" for g, h in hours.items()
    )
    return (
        f"pretraining, {device}: {told}; each GPU needs {rate:.0f}/s / {read:.0f}/s = {rate / read:.1f} "
        "cores that read"
        if read
        else f"pretraining, {device}: {told}"
    )


def campaign(rows):
    "Lines about 10 000 scenes and 10 million tiles, 100 passes: storage, hours, what saturates first."
    read, views, mapped = (
        seconds(rows, s)
        for s in ("window sampling from a GeoTIFF: bare", "two views, 224 px, 4 bands", "map of a raster")
    )
    lines = [
        f"storage, uncompressed uint8: {SCENES:,} scenes x {SIDE:,}^2 px x {BANDS} bands = "
        f"{SCENES * SIDE**2 * BANDS / 1e12:.0f} TB; {TILES:,} tiles x {TILE}^2 x {BANDS} = "
        f"{TILES * TILE**2 * BANDS / 1e12:.1f} TB"
    ]
    reads, makes = (200 / read if read else None), (32 / views if views else None)
    if reads:
        lines.append(
            f"reading: 200 windows in {read:.3g} s = {reads:.0f}/s a core; "
            f"{TILES:,} x {EPOCHS} / {reads:.0f}/s = {TILES * EPOCHS / reads / 3600:,.0f} core hours"
        )
    if makes:
        lines.append(
            f"two views: 32 images in {views:.3g} s = {makes:.0f}/s a core; "
            f"a GPU that took them from cores would need one for every {makes:.0f} images/s, so views are "
            "made on the GPU"
        )
    if mapped:
        lines.append(
            f"maps: 2 000^2 px in {mapped:.3g} s a core; {SCENES:,} scenes x ({SIDE:,} / 2 000)^2 x "
            f"{mapped:.3g} s = {SCENES * (SIDE / 2000) ** 2 * mapped / 3600:,.0f} core hours"
        )
    steps = {
        device: 10 * 128 / s
        for device, found in gpu_rows().items()
        if (s := seconds(found, "whole step, SimCLR"))
    }
    lines += [training(device, rate, reads) for device, rate in steps.items()]
    if not steps:
        lines.append("pretraining hours on 8 and 64 GPUs: pending, no GPU's whole step has been measured")
    if reads:
        lines.append(
            f"what saturates first: with c reading cores a GPU, reading, from c x {reads:.0f} images/s a GPU "
            f"on (8 cores: {8 * reads:.0f}/s, 16 cores: {16 * reads:.0f}/s); below that, the GPU"
        )
    return lines
