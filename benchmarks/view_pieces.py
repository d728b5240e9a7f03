"""Where the time of two views goes on a processor: the pieces of one run, beside what memory traffic takes.

    python benchmarks/view_pieces.py [--bands 4] [--out results/view_pieces.json]

32 images of 256 pixels to two views of 224, as in the rows of `views.py`; memory kept, as in a run. Times are
the processor's own, so that other work on the machine counts less. A piece is the median of calls in which
its functions were timed from inside. `floor_ms` is the time in which
one core copies the bytes that the piece must read and write, were they all in main memory; that of the whole
call counts its images and views only. `gflops` is what the weighed sums reach, of two operations a weight.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch
from measure import commit
from views import tiles

from rsssl_nb.training.device import freed_memory_kept
from rsssl_nb.views import appearance, geometry, pairs

N, SIDE, SIZE, CALLS = 32, 256, 224, 25
SPENT: dict = defaultdict(float)  # seconds of the call at hand, by piece
OPEN: list = []  # pieces that are running, the innermost last
COUNT: dict = defaultdict(float)  # multiplications and additions of the call at hand


def timed(piece, function):
    "The function, whose own time, less that of timed ones that it calls, goes to a piece."

    def call(*args, **more):
        began = time.thread_time()
        OPEN.append(0.0)
        try:
            return function(*args, **more)
        finally:
            took = time.thread_time() - began
            SPENT[piece] += took - OPEN.pop()
            if OPEN:
                OPEN[-1] += took

    return call


def counted(weigh):
    "geometry.weigh, whose arithmetic and bytes are counted."

    def call(images, stencils):
        COUNT["flops"] += 2 * stencils.rows.numel() * images.shape[3]
        COUNT["bytes"] += 4 * images.shape[3] * (images[..., 0].numel() + stencils.starts.numel())
        return weigh(images, stencils)

    return call


def counted_copy(lay):
    "geometry.lay, whose bytes are counted."

    def call(images, *more, **named):
        COUNT["turned"] += 8 * images.numel()
        return lay(images, *more, **named)

    return call


def copy_rate():
    "Bytes a second of one core that copies 64 MB, read and written."
    a, b = torch.ones(2**24), torch.empty(2**24)
    took = []
    for _ in range(15):
        began = time.thread_time()
        b.copy_(a)
        took.append(time.thread_time() - began)
    return 2 * 4 * 2**24 / statistics.median(took)


def watch():
    "The functions of the views, timed from here on."
    pairs.draws = timed("draws and boxes", pairs.draws)
    pairs.random_boxes = timed("draws and boxes", pairs.random_boxes)
    pairs.stencils = timed("stencils: which lines, which weights", pairs.stencils)
    pairs.tint_ = timed("colours", pairs.tint_)
    pairs.jitters = timed("draws and boxes", pairs.jitters)
    pairs.resample = timed("crops, and means for contrast", pairs.resample)
    geometry.lay = timed("turns between rows and columns", counted_copy(geometry.lay))
    geometry.weigh = timed("weighed sums", counted(geometry.weigh))
    assert appearance.torch is torch


def measure(bands):
    "Rows {piece, ms, share, floor_ms} of two views, and what is said of the machine."
    raw = tiles(N, bands, SIDE)
    images = torch.empty(raw.shape)
    normalised = timed("bytes to normalised floats", lambda: images.copy_(raw).mul_(1 / 127.5).sub_(1))
    two = timed(
        "the rest: Python between the pieces", lambda: pairs.two_views(normalised(), SIZE, pairs.Plan())
    )
    for _ in range(3):
        two()
    bare = []  # without a clock inside
    for _ in range(CALLS):
        began = time.thread_time()
        two()
        bare.append(time.thread_time() - began)
    watch()
    calls = []
    for _ in range(CALLS):
        SPENT.clear()
        COUNT.clear()
        two()
        calls.append(dict(SPENT))
    rate = copy_rate()
    middle = {piece: statistics.median(call[piece] for call in calls) for piece in calls[0]}
    total = sum(middle.values())
    pixels, views = 4 * raw.numel(), 4 * 2 * N * bands * SIZE**2
    floors = {"bytes to normalised floats": raw.numel() + pixels, "colours": 2 * views}
    floors |= {"weighed sums": COUNT["bytes"], "turns between rows and columns": COUNT["turned"]}
    floors |= {"crops, and means for contrast": 4 * pixels}
    rows = [
        dict(
            piece=piece,
            ms=round(1e3 * took, 1),
            share=round(took / total, 2),
            floor_ms=round(1e3 * floors[piece] / rate, 1) if piece in floors else None,
        )
        for piece, took in sorted(middle.items(), key=lambda one: -one[1])
    ]
    must = raw.numel() + pixels + 2 * pixels + views  # read bytes, write floats, read them twice, write views
    return dict(
        commit=commit(),
        bands=bands,
        two_views_ms=round(1e3 * statistics.median(bare), 1),
        pieces_ms=round(1e3 * total, 1),
        floor_ms=round(1e3 * must / rate, 1),
        copy_gb_s=round(rate / 1e9, 1),
        gflops=round(COUNT["flops"] / middle["weighed sums"] / 1e9, 1),
        sums_gflop=round(COUNT["flops"] / 1e9, 2),
        rows=rows,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bands", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with freed_memory_kept("cpu"):
        found = measure(asked.bands)
    print(json.dumps(found, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
