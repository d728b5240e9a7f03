"""Two hundred mutated TIFFs (`make fuzz` takes a thousand), and that the pool which judges them notices what
it must.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fuzz  # noqa: E402


def test_every_mutated_file_is_read_or_refused():
    counts, failures = fuzz.fuzz(200, seed=7)
    assert failures == [] and sum(counts.values()) == 200
    assert counts["read"] >= 20 and counts["refused: damaged"] >= 20, (
        counts
    )  # the changes are neither too mild nor too wild
    assert set(counts) <= {"read", *(f"refused: {k}" for k in fuzz.KINDS.values())}, counts


@pytest.mark.long
def test_every_mutated_label_polygon_and_segmenter_is_read_or_refused():
    counts, failures = fuzz.fuzz(200, seed=7, kind="labels")
    assert failures == [] and sum(counts.values()) == 200, failures


def test_mutations_repeat_and_half_hit_the_directories(tmp_path):
    data = fuzz.seeds(tmp_path)[0].read_bytes()
    spots = {i for a, b in fuzz.directories(data) for i in range(a, b)}
    changed = [fuzz.mutate(data, np.random.default_rng(i)) for i in range(200)]
    assert changed[5] == fuzz.mutate(data, np.random.default_rng(5)) != data
    inside = [
        len(c) == len(data)
        and all(
            i in spots or i - 3 in spots or i - 1 in spots or i - 2 in spots
            for i in range(len(data))
            if c[i] != data[i]
        )
        for c in changed
    ]
    assert 0.35 < np.mean(inside) < 0.75 and any(len(c) != len(data) for c in changed)


def broken(path):
    if path.name == "dies":
        os._exit(3)
    if path.name == "hangs":
        time.sleep(60)
    if path.name == "raises":
        raise KeyError("a bug")
    if path.name == "eats":
        return str(len(bytearray(2 * fuzz.SPACE)))
    return "read"


def broken_work(pipe):
    fuzz.use = broken
    fuzz.work(pipe)


@pytest.mark.parametrize(
    "name, says",
    [("dies", "process died"), ("hangs", "longer than 1 s"), ("raises", "KeyError"), ("eats", "MemoryError")],
)
def test_the_pool_notices(monkeypatch, name, says):
    monkeypatch.setattr(fuzz, "work", broken_work)
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    worker = fuzz.Worker()
    try:
        assert worker.run(Path("fine")) == "read"
        assert says in worker.run(Path(name))
        assert worker.run(Path("fine")) == "read"  # a dead one was replaced
    finally:
        worker.stop()
