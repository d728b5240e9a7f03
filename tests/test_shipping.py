"The checkpoints that are to ship: from a short run, with what made them, small, and what lacks is named."

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import proof  # noqa: E402
import shipping  # noqa: E402
import trials  # noqa: E402
from controls import Stack  # noqa: E402

from rsssl_nb.encoders import Encoder  # noqa: E402
from rsssl_nb.errors import InputError  # noqa: E402
from rsssl_nb.methods.registry import recorded_method  # noqa: E402
from rsssl_nb.training.folder import read_config  # noqa: E402
from rsssl_nb.training.pretrain import load_encoder  # noqa: E402
from rsssl_nb.weights import load, load_into, load_weights, shipped  # noqa: E402


@pytest.fixture
def work(tmp_path):
    "Runs of two steps of SimCLR and FALSE in the world `cpu`, seed 0, kept after the first step too."
    rng = np.random.default_rng(0)
    stack = Stack(rng.integers(0, 256, (64, 3, 24, 24), dtype=np.uint8), np.zeros((64, 24, 24)))
    world = replace(proof.WORLDS["cpu"], pool=lambda: stack, px=24, steps=2, snapshots=(1,))
    for arm in [a for a in proof.ARMS if a.world == "cpu" and a.name in ("simclr", "false")]:
        folder = tmp_path / f"work/{arm.label}-0-abc"
        assert trials.trained(world, arm, 0, folder, stack, "no", lambda: False)[3]
    return tmp_path / "work"


def test_what_was_trained_ships_and_the_rest_is_named(work, tmp_path, monkeypatch):
    out = tmp_path / "out"
    written, left = shipping.ship(work, out, {200: 1, 1000: 2})
    assert written == [f"{n}.safetensors" for n in ("simclr-0", "simclr-200", "simclr-1000", "false-1000")]
    assert len(left) == len(shipping.SHIPPED) - 4 and "simclr-4000: no finished run" in left[0]
    encoder, meta = load_encoder(out / "simclr-1000.safetensors")
    assert (meta["licence"], meta["step"], meta["steps"], meta["bands"]) == ("CC0 1.0", 2, 2, 3)
    assert {"mean", "std", "band_names", "minutes", "commit", "device", "command"} <= meta.keys()
    begun = trials.untrained(proof.WORLDS["cpu"], proof.ARMS[0], 0).state_dict()
    first = load_weights(out / "simclr-0.safetensors")[0]
    assert all(
        torch.equal(v, begun[k].half() if v.is_floating_point() else begun[k]) for k, v in first.items()
    )
    assert not load(out / "false-1000.safetensors").match.missing
    state, meta = load_weights(out / "false-1000.safetensors")
    rebuilt = recorded_method(meta["method"], Encoder(width=meta["width"]), meta["options"], meta["defaults"])
    load_into(rebuilt, state)
    assert any(k.startswith("head") for k in load_weights(out / "false-1000.safetensors")[0])
    assert shipping.packed(out) < sum(path.stat().st_size for path in out.iterdir())
    assert shipping.packed(shipped("simclr-0").parent) < shipping.MOST
    monkeypatch.setattr(shipping, "MOST", 1e6)
    with pytest.raises(InputError, match="may hold 1: ship fewer"):
        shipping.ship(work, out, {200: 1, 1000: 2})


def test_a_file_names_the_processor_that_made_its_losses(work, tmp_path, monkeypatch):
    folder = shipping.ended(work, "simclr", "cpu")
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    own = trials.facts_of(read_config(folder), log)["log"]
    rows = [dict(method="simclr", log=n, device=n, precision="bf16") for n in ("another", own)]
    monkeypatch.setattr(shipping, "read_rows", lambda *_: rows)
    shipping.ship(work, tmp_path / "out", {200: 1, 1000: 2})
    found = {n: load_weights(tmp_path / f"out/{n}-1000.safetensors")[1] for n in ("simclr", "false")}
    assert (found["simclr"]["device"], found["simclr"]["precision"]) == (own, "bf16")
    assert (found["false"]["device"], found["false"]["precision"]) == (trials.machine(), "no")
