"InfoNCE with many rows: the path in blocks against the whole table, time and peak memory."

import sys
from pathlib import Path

import torch
from false_loss import learn
from measure import Found, Sides, Skip, growth, main, peak_bytes, question, slope

from rsssl_nb.objectives.nce import nce_in_blocks, weighted_nce
from rsssl_nb.objectives.similarity import cosine, negatives, positives, stack

TAU = 0.2


def dense(a, b):
    return weighted_nce(cosine(stack(a, b)), positives(len(a), a.device), negatives(len(a), a.device), TAU)


def blocks(a, b):
    return nce_in_blocks(a, b, TAU)


def available():
    "Bytes of memory that this machine can still give."
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def room(rows, at):
    "Skip unless the whole table fits: about six tables at the peak."
    need = 6 * 4 * rows**2
    free = torch.cuda.mem_get_info()[0] if at.cuda else available()
    if need > 0.8 * free:
        raise Skip(
            f"the whole table of {rows} rows takes {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
        )


def against_dense(rows):
    def ask(at):
        n = at.pick(rows, 64) // 2
        room(2 * n, at)
        ours, whole = learn(blocks, n, at.device), learn(dense, n, at.device)
        for mine, theirs in zip(ours(), whole()):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-3)
        return Sides(ours, whole, "forward and backward, same value and gradient")

    return ask


for rows in (1024, 4096):
    question(f"InfoNCE in blocks, {rows} rows: the whole table", "<= 1.2")(against_dense(rows))
question("InfoNCE in blocks, 16384 rows, on cuda: the whole table", "<= 1.2", "cuda")(against_dense(16384))


@question("growth: InfoNCE in blocks, rows", "<= 1.15")
def time_over_rows(at):
    return growth(
        lambda n: learn(blocks, n // 2, at.device), at.pick([1024, 1536, 2048, 4096], [64, 128]), 2, at
    )


@question("growth: InfoNCE in blocks, peak memory over rows", "<= 1.05")
def memory(at):
    sizes = at.pick([1024, 4096, 8192, 16384], [64, 128])
    peaks = [peak_bytes(learn(blocks, n // 2, at.device), at) for n in sizes]
    told = ", ".join(f"{n}: {p / 1e6:.0f} MB" for n, p in zip(sizes, peaks))
    b = slope(sizes, peaks)
    return Found(
        b,
        1,
        b,
        note=f"exponents, fitted and expected; {told}; the whole table of {sizes[-1]} rows alone: "
        f"{4 * sizes[-1] ** 2 / 1e6:.0f} MB",
    )


@question("InfoNCE in blocks, 4096 rows: peak memory of the whole table", "<= 0.5")
def peak(at):
    n = at.pick(4096, 2048) // 2
    ours, whole = (peak_bytes(learn(loss, n, at.device), at) for loss in (blocks, dense))
    return Found(ours, whole, ours / whole, note="bytes of tensors at the peak of forward and backward")


if __name__ == "__main__":
    sys.exit(main())
