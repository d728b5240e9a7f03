"The judges' experiments: worlds, arms told by labels, a run that is stopped and goes on, rows, verdicts."

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
sys.path.append(str(EXPERIMENTS))
import budgets  # noqa: E402
import campaigns  # noqa: E402
import controls  # noqa: E402
import judges  # noqa: E402
import keeping  # noqa: E402
import trials  # noqa: E402
from controls import ARMS, GROUND, WORLDS, DosedSuspects, NearestSuspects, Stack, everywhere  # noqa: E402

from rsssl_nb.data.write import write_raster  # noqa: E402
from rsssl_nb.encoders import Encoder  # noqa: E402
from rsssl_nb.evaluation.verdicts import CONTROLS, read_judged  # noqa: E402
from rsssl_nb.methods.base import At  # noqa: E402
from rsssl_nb.methods.registry import METHODS  # noqa: E402
from rsssl_nb.objectives.similarity import negatives  # noqa: E402
from rsssl_nb.views.pairs import Pair  # noqa: E402
from rsssl_nb.weights import load_weights  # noqa: E402


def at(seed=0):
    return At(1.0, 1, torch.Generator().manual_seed(seed))


def never():
    return False


def arm(name, world):
    return next(a for a in ARMS if (a.name, a.world) == (name, world))


@pytest.fixture
def stack():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (128, 3, 24, 24), dtype=np.uint8)
    return Stack(images, everywhere(images, np.arange(128) % 7), siblings=4)


def test_an_epoch_is_a_permutation_that_keeps_siblings_together(stack):
    one, again, next_epoch = (stack.windows(128, 1, e) for e in (0, 0, 1))
    assert (one == again).all() and (one != next_epoch).any() and sorted(one) == list(range(128))
    families = one.reshape(-1, 4)
    assert (families == families[:, :1] // 4 * 4 + np.arange(4)).all()


def test_oracles_hear_the_labels_of_what_was_read(stack):
    for i in (5, 9, 100):
        stack.read(i)
    assert stack.told(2)[:, 0, 0].tolist() == [9 % 7, 100 % 7]


# mechanisms


def test_doses_of_suspects():
    classes = torch.arange(20).repeat(2) % 4
    sim = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).double()
    same = negatives(20) & (classes[:, None] == classes)
    chosen = {}
    for dose, precision in ((None, 1.0), (1, 1.0), (1, 0.5), (3, 0.0)):
        rule = DosedSuspects(gate=-1)
        rule.classes, rule.dose, rule.precision = classes, dose, precision
        chosen[dose, precision] = rule.choose(sim, 0.5, at())
    assert torch.equal(chosen[None, 1.0], same)
    assert (chosen[1, 1.0].sum(1) == 1).all() and not (chosen[1, 1.0] & ~same).any()
    assert (chosen[1, 0.5].sum(1) == 1).all() and 8 < (chosen[1, 0.5] & same).sum() < 32
    assert (chosen[3, 0.0].sum(1) == 3).all() and not (chosen[3, 0.0] & same).any()
    near = NearestSuspects(gate=-1).choose(sim, 0.5, at())
    assert (near.sum(1) == 12).all() and not (near & ~negatives(20)).any()


def test_told_boxes_lie_inside_the_object():
    mask = torch.zeros(3, 60, 80, dtype=torch.bool)
    y, x = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    mask[0] = ((y - 25) / 20) ** 2 + ((x - 40) / 30) ** 2 <= 1
    mask[1, :4, 70:] = True  # a corner of an object: the box grows, inside the view
    crop, there = controls.ToldCrop(), Pair(torch.zeros(3, 1, 60, 80), None, None, None, (60, 80))
    crop.labels = torch.where(mask, 4, GROUND)
    told = crop.place(torch.zeros(3, 4, dtype=torch.long), there, at())
    x0, y0, x1, y1 = told[0].tolist()
    assert mask[0, y0:y1, x0:x1].all() and (x1 - x0, y1 - y0) == (42, 28)
    assert told[1].tolist() == [56, 0, 80, 24] and told[2].tolist() == [0, 0, 80, 60]
    crop = controls.ElsewhereCrop()
    crop.labels = torch.where(mask, 4, GROUND).repeat(2, 1, 1)
    moved = crop.place(torch.zeros(6, 4, dtype=torch.long), there, at())
    assert torch.equal(moved[:, 2:] - moved[:, :2], (told[:, 2:] - told[:, :2]).repeat(2, 1))
    assert (moved[:, :2] >= 0).all() and (moved[:, 2:] <= torch.tensor([80, 60])).all()


def test_grounds_of_the_world_object_differ_in_their_light_alone(imagery, monkeypatch):
    monkeypatch.setenv("RSSSL_DATA", str(imagery))
    made = controls.object_mosaics("judge")
    ground = made.parcels[:, None] == 0
    corner = made.images[:, :, :16, :16].astype(float)[ground[:, 0, :16, :16].all((1, 2))]
    flat = corner.reshape(len(corner), -1)
    unlit = flat / flat.mean(1, keepdims=True)
    dark = flat.max(1) < 250  # no value is clipped
    assert np.corrcoef(unlit[dark].reshape(dark.sum(), 3, -1)[:20, 0])[0].min() > 0.7
    whole, cuts = controls.object_sets("judge")
    assert (whole.labels == cuts.labels).all() and cuts.images.shape[2:] == (96, 96)
    assert len(whole.classes) == 6 and (np.bincount(whole.labels) >= 60).all()


def test_labels_at_points():
    labels = torch.zeros(2, 30, 30, dtype=torch.long)
    labels[0, :, 15:] = 1
    points = torch.tensor([[[3.0, 3.0], [20.0, 5.0]], [[8.0, 8.0], [29.9, 9.0]]])
    assert controls.labels_at(labels, points).tolist() == [[0, 1], [0, 0]]


def test_vectors_are_regrouped_by_the_classes_that_both_views_show():
    kinds_a, kinds_b = torch.tensor([0, 0, 2, 5, 255]), torch.tensor([2, 2, 0, 4, 255])
    a, b = controls.by_class(kinds_a[:, None], kinds_b[:, None], kinds_a, kinds_b, at(), most=8)
    assert a.tolist() == b.tolist() == [[[0]] * 4, [[2]] * 4]  # a row a class: 5, 4 and 255 are left out
    own = torch.arange(64.0)[:, None]
    drawn, _ = controls.by_class(own, own, torch.zeros(64), torch.zeros(64), at(), most=1000)
    assert len(set(drawn.flatten().tolist())) > 60  # from all images of the batch


def test_ceilings_know_no_stranger_of_a_class():
    kinds = torch.arange(3).repeat_interleave(20)
    vectors = torch.nn.functional.one_hot(kinds, 8).float()
    a, b = controls.by_class(vectors, vectors, kinds, kinds, at())
    apart = controls.point_nce(a, b, 0.01)
    assert float(apart.max()) < 1e-6  # every point of a class is a match and none a stranger


@pytest.mark.parametrize("arm", [a for a in ARMS if a.make], ids=lambda a: f"{a.world}-{a.name}")
def test_every_arm_takes_a_step_and_its_measures_are_numbers(arm, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 3, 48, 48), dtype=np.uint8)
    labels = np.full((16, 48, 48), GROUND)
    labels[:, 10:30, 20:40] = 4
    pool = Stack(images, labels, siblings=4)
    world = replace(WORLDS[arm.world], pool=lambda: pool, px=48, steps=2)
    monkeypatch.setattr(trials, "BATCH", 16)
    monkeypatch.setattr(trials, "WIDTH", 8)
    if arm.name in ("grass-told", "grass-elsewhere"):
        monkeypatch.delattr("rsssl_nb.methods.grass.loss_maps")  # boxes that are told ask no gradient
    method, config, _, complete = trials.trained(world, arm, 0, tmp_path / "run", pool, "no", never, 1)
    assert complete and config.total == 1
    found = trials.measured(judges.CAMPAIGN, arm, method, config, pool, batches=1)
    assert set(found) == ({"suspects", "right"} if "suspects" in arm.measures else set()) | (
        {"box-share", "box-entropy"} if "boxes" in arm.measures else set()
    )
    assert all(np.isfinite(v) for v in found.values())
    if arm.name == "false-every":
        assert found["right"] == 1 and found["suspects"] > 10
    if arm.name == "grass-told":
        assert found["box-share"] > 0


def test_names_are_the_command_lines_where_it_has_them():
    known = {"false", "grass", "ssccl", "glcnet", "simclr", "false-random", "grass-random"}
    assert known | {"ssccl-shuffled", "glcnet-unmatched"} <= {a.name for a in ARMS} & set(METHODS)
    assert len({(a.world, a.name) for a in ARMS}) == len(ARMS)
    tables = [a.name for a in ARMS if WORLDS[a.world].file == "judges.json"]
    assert len(set(tables)) == len(tables), "one row a key of judge, method, labels, seed"


def test_the_protocol_lists_every_arm_and_the_steps():
    text = (EXPERIMENTS / "JUDGES.md").read_text()
    assert {f"version {judges.CAMPAIGN.version(name)}" in text for name in WORLDS} == {True}
    for a in ARMS:
        assert f"`{a.name}`" in text, a.name
    for name, world in WORLDS.items():
        assert (
            f"| `{name}` |" in text
            and f"{world.steps:,}".replace(",", " ") in text
            and f"{world.px} px" in text
        )
    known = {(a.world, a.name) for a in ARMS}
    for c in CONTROLS:
        assert {(c.world, m) for m in (c.method, c.ceiling, c.placebo, "simclr", "random")} <= known
        assert f"`{c.ceiling}`" in text and f"`{c.placebo}`" in text
        assert f"`{c.judge}`" in text and f"by {str(c.margin).lstrip('0')}" in text


# runs and rows


def test_a_stopped_run_goes_on_to_the_same_bytes(stack, tmp_path):
    simclr = arm("simclr", "rsscn7")
    world = replace(WORLDS["rsscn7"], pool=lambda: stack, px=24, steps=4)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert trials.trained(world, simclr, 3, whole, stack, "no", never)[3]
    complete = [trials.trained(world, simclr, 3, cut, stack, "no", lambda: True)[3] for _ in range(4)]
    assert complete == [False, False, False, True]
    assert (whole / "encoder.safetensors").read_bytes() == (cut / "encoder.safetensors").read_bytes()


def test_rows_are_merged_by_key_and_kept_sorted(tmp_path):
    path = tmp_path / "judges.json"
    rows = [dict(world="rsscn7", judge="scene", method="simclr", labels=5, seed=s, value=0.5) for s in (1, 0)]
    keeping.keep_rows(path, rows)
    keeping.keep_rows(path, [dict(rows[0], value=0.6)])
    keeping.keep_rows(tmp_path / "controls.json", [dict(rows[0], world="object")])
    assert [r["value"] for r in json.loads(path.read_text())] == [0.5, 0.6]
    assert len(keeping.read_rows(tmp_path, ["judges.json", "controls.json"])) == 3


def test_two_processes_lose_no_row_of_each_other(tmp_path):
    code = """
import sys; from pathlib import Path; import keeping
for k in range(20):
    keeping.keep_rows(Path(sys.argv[1]), [dict(world='rsscn7', method=sys.argv[2], seed=k, value=0.5)])
"""
    path, here = tmp_path / "judges.json", Path(keeping.__file__).parent
    both = [subprocess.Popen([sys.executable, "-c", code, path, m], cwd=here) for m in ("simclr", "false")]
    assert [p.wait(60) for p in both] == [0, 0]
    assert len(json.loads(path.read_text())) == 40


def test_show_prints_verdicts_beside_power(tmp_path, capsys):
    common = dict(world="rsscn7", judge="scene", labels=5, protocol=controls.PROTOCOL)
    values = {"random": 0.4, "simclr": 0.52, "false": 0.525, "false-every": 0.66}
    rows = [dict(common, method=m, seed=s, value=v + 0.002 * s) for m, v in values.items() for s in range(3)]
    keeping.keep_rows(tmp_path / "judges.json", rows)
    judges.show(tmp_path)
    told = capsys.readouterr().out
    assert "| rsscn7 | scene | 5 | false-every | +0.140 | 0.000 | 3 | 0.006 | ceiling passes 0.05 |" in told
    assert "| scene | 5 | 0.002 | 0.006 | +0.120 | yes |" in told and "nan" not in told and "inf" not in told
    assert (
        "## the world object\n\npending" in told
        and "grass (object, object-cut at 5 labels): pending." in told
    )


def test_a_seed_beyond_the_third_can_be_asked_for():
    asked = judges.asked(["--world", "rsscn7", "--arms", "false", "--seeds", "3", "4"])
    assert [seed for _, _, seed in campaigns.jobs_of(judges.CAMPAIGN, asked)] == [3, 4]


def test_floors_are_asked_on_their_own(tmp_path, capsys):
    class Floors:
        def floors(self):
            return {m: [dict(judge="scene", labels=5, value=0.25, classes={})] for m in ("bands", "colour")}

    campaign = replace(judges.CAMPAIGN, judges={"scene": lambda: [Floors()]})
    words = ["floors", "--world", "rsscn7", "--results", str(tmp_path), "--work", str(tmp_path / "work")]
    campaigns.carry_out(campaign, judges.asked(words), judges.show)
    rows = read_judged(tmp_path)
    assert [(r["method"], r["judge"], r["value"], r["protocol"]) for r in rows] == [
        ("bands", "scene", 0.25, controls.PROTOCOL),
        ("colour", "scene", 0.25, controls.PROTOCOL),
    ]
    with pytest.raises(SystemExit, match="run the arm `random`"):
        campaigns.keep_floors(replace(campaign, floors=""), judges.asked(words))


def test_steps_of_its_own_need_small(capsys):
    with pytest.raises(SystemExit, match="--steps 4 is not the protocol's: add --small"):
        judges.asked(["--steps", "4"])
    with pytest.raises(SystemExit, match="arm 'moco' is not known: choose random, random-fitted, simclr"):
        judges.asked(["--arms", "moco"])
    with pytest.raises(SystemExit, match="--precision no is not the protocol's: add --small"):
        judges.asked(["--precision", "no"])
    small = judges.asked(["--steps", "4", "--small"])
    assert "small" in small.work.parts and small.results.parent == small.work


def test_minutes_add_up_over_sittings():
    log = [dict(seconds=s) for s in (30, 60, 90, 30, 60)]  # stopped after the third step
    assert trials.minutes_of(log) == 2.5


@pytest.fixture
def small_dubai(tmp_path, monkeypatch):
    "A folder in the shape of Dubai's with one image of noise in two classes."
    rng, train = np.random.default_rng(0), tmp_path / "data/dubai/train"
    images, labels = (
        rng.integers(0, n, (4, *shape, 128, 128), np.uint8) for n, shape in ((256, (3,)), (2, ()))
    )
    for name, whole in (("images", images[0]), ("labels", labels[:1])):
        (train / name).mkdir(parents=True)
        write_raster(train / name / "a.png", np.tile(whole, (1, 2, 2)))
    classes = [dict(index=k, name=name, rgb=[k, k, k]) for k, name in enumerate(("field", "road"))]
    (train.parent / "classes.json").write_text(json.dumps(dict(ignore_index=255, classes=classes)))
    (train.parent / "subsets").mkdir()
    (train.parent / "subsets/train256_01pct_seed0.txt").write_text("a_y0000_x0000\n")
    monkeypatch.setenv("RSSSL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(judges, "dubai_tiles", lambda split: (images, labels, None))


def test_fine_tuning_that_is_stopped_goes_on_and_gives_the_same_number(small_dubai, tmp_path, monkeypatch):
    tune = judges.finetune
    monkeypatch.setattr(
        judges, "finetune", lambda *where, **how: tune(*where, **how | dict(batch=2, width=8))
    )
    fresh = replace(arm("random", "rsscn7"), judges=("finetune",))
    whole, cut = (argparse.Namespace(work=tmp_path / n, steps=2, precision="no") for n in ("whole", "cut"))
    (row,) = judges.tuned(fresh, 0, None, whole, never)
    assert judges.tuned(fresh, 0, None, cut, lambda: True) == []
    (rest,) = judges.tuned(fresh, 0, None, cut, never)
    assert rest["value"] == row["value"] and 0 < row["value"] < 1 and row["minutes"] >= 0
    assert (row["judge"], row["precision"], row["steps"]) == ("finetune", "no", 2)


def test_worlds_of_real_texture(imagery, monkeypatch):
    monkeypatch.setenv("RSSSL_DATA", str(imagery))
    images, labels, window = controls.dubai_tiles("val")
    assert images.shape[1:] == (3, 128, 128) and set(np.unique(labels)) <= {0, 1, 2, 3, 4, 255}
    assert len(window) == len(images) == len(labels) > 90
    assert Encoder(width=8)(torch.as_tensor(images[:1]).float()).dense.shape[-1] == 16


# the queue


def a_campaign(stack, judge, names=("simclr", "false"), broken=()):
    "A campaign of two steps on the stack, whose only judge is given."
    worlds = {"rsscn7": replace(WORLDS["rsscn7"], pool=lambda: stack, px=24, steps=2)}
    arms = [replace(arm(name, "rsscn7"), judges=("scene", "late"), measures=(), seeds=1) for name in names]

    def fails(encoder):
        raise OSError("the disk is full")

    arms += [replace(arms[0], name=name, make=fails) for name in broken]

    def late(one, seed, folder, asked, stop):
        assert (folder / "encoder.safetensors").exists()
        return [dict(judge="late", labels=1, method=one.name, seed=seed, value=0.25)]

    return campaigns.Campaign(7, worlds, arms, {"scene": lambda: [judge]}, {"late": late})


class OneNumber:
    "A judge that gives the sum of an encoder's first weights."

    def rows(self, encoder):
        return [dict(judge="scene", labels=5, value=float(next(encoder.parameters()).detach().sum()))]


def asked_for(campaign_, tmp_path, *given):
    parser = campaigns.add_options(argparse.ArgumentParser(), campaign_, tmp_path / "work")
    asked = campaigns.asked_of(parser, campaign_, [*given, "--results", str(tmp_path)])
    asked.precision = "no"
    asked.work.mkdir(exist_ok=True)
    return asked


def test_a_queue_does_each_job_once_names_what_fails_and_goes_on(stack, tmp_path, capsys):
    made = a_campaign(stack, OneNumber(), broken=("vicreg",))
    asked = asked_for(made, tmp_path)
    failed = campaigns.queue(made, asked)
    assert campaigns.count_left(made, asked) == 2 and failed[0] == "rsscn7-vicreg seed 0: the disk is full"
    assert failed[1:] == ["rsscn7-vicreg seed 0, late: the disk is full"]
    rows = keeping.read_rows(tmp_path, ["judges.json"])
    found = {(r["method"], r["judge"]) for r in rows}
    assert found == {(m, j) for m in ("simclr", "false") for j in ("scene", "late")}
    assert all(r["protocol"] == 7 and r["device"] and r["commit"] for r in rows)
    assert all(r["minutes"] >= 0 and len(r["log"]) == 16 for r in rows if r["judge"] == "scene")
    before = (tmp_path / "judges.json").read_bytes()
    assert campaigns.queue(made, asked) == failed and (tmp_path / "judges.json").read_bytes() == before
    capsys.readouterr()
    campaigns.status(made, asked)
    told = capsys.readouterr().out.splitlines()
    assert [line.split() for line in told[1:4]] == [
        ["rsscn7-simclr", "#"],
        ["rsscn7-false", "#"],
        ["rsscn7-vicreg", "."],
    ]


def test_rows_of_another_protocol_are_made_again_and_named(stack, tmp_path, capsys):
    made = a_campaign(stack, OneNumber(), ("simclr",))
    asked = asked_for(made, tmp_path)
    campaigns.queue(made, asked)
    campaigns.status(replace(made, protocol=8), asked)
    told = capsys.readouterr().out
    assert "2 rows of another protocol are left out" in told and "rsscn7-simclr" in told
    assert not keeping.done(
        replace(made, protocol=8), "run", made.arms[0], 0, keeping.read_rows(tmp_path, ["judges.json"])
    )


def test_a_pause_stops_with_a_checkpoint_and_the_queue_goes_on(stack, tmp_path):
    made = a_campaign(stack, OneNumber(), ("simclr",))
    asked = asked_for(made, tmp_path, "--budget", "3")
    campaigns.carry_out(made, asked_for(made, tmp_path, "pause"), None)
    campaigns.queue(made, asked)
    assert campaigns.count_left(made, asked) == 2 and not (tmp_path / "judges.json").exists()
    campaigns.carry_out(made, asked_for(made, tmp_path, "go"), None)
    campaigns.queue(made, asked_for(made, tmp_path))
    assert campaigns.count_left(made, asked) == 0


def test_a_run_made_again_has_the_same_values(stack, tmp_path, capsys):
    made = a_campaign(stack, OneNumber(), ("simclr",))
    asked = asked_for(made, tmp_path)
    campaigns.queue(made, asked)
    assert campaigns.again(made, asked) and "1 of 1 values are the same" in capsys.readouterr().out
    rows = json.loads((tmp_path / "judges.json").read_text())
    keeping.keep_rows(tmp_path / "judges.json", [dict(r, value=r["value"] + 1e-5) for r in rows])
    assert not campaigns.again(made, asked)
    keeping.keep_rows(tmp_path / "judges.json", [dict(r, device="another make") for r in rows])
    with pytest.raises(SystemExit, match="no run was made on"):
        campaigns.again(made, asked)
    keeping.keep_rows(tmp_path / "judges.json", [dict(r, precision="bf16 emulated") for r in rows])
    with pytest.raises(SystemExit, match=" in no: nothing to be run again"):
        campaigns.again(made, asked)


def test_a_late_job_finds_its_run_by_whichever_code_and_trains_it_where_it_is_gone(
    stack, tmp_path, monkeypatch
):
    made = a_campaign(stack, OneNumber(), ("simclr",))
    asked = asked_for(made, tmp_path)
    campaigns.queue(replace(made, late={}), asked)
    monkeypatch.setattr(campaigns, "code_version", lambda: "another")
    assert campaigns.queue(made, asked) == [] and campaigns.count_left(made, asked) == 0
    gone = replace(made, protocol=8, late={"late": made.late["late"]})
    rows = [
        dict(r, protocol=8) for r in keeping.read_rows(tmp_path, ["judges.json"]) if r["judge"] == "scene"
    ]
    (tmp_path / "judges.json").write_text(json.dumps(rows))
    asked.work = tmp_path / "elsewhere"
    assert campaigns.queue(gone, asked) == [] and campaigns.count_left(gone, asked) == 0
    late = [r for r in keeping.read_rows(tmp_path, ["judges.json"]) if r["judge"] == "late"]
    assert late[-1]["trained"] == "another" and len(list(asked.work.glob("rsscn7-simclr-0-another"))) == 1


# what goes wrong on the way


def test_another_machine_goes_on_from_the_rows_alone(stack, tmp_path):
    made = a_campaign(stack, OneNumber())
    first = asked_for(made, tmp_path)
    campaigns.queue(replace(made, arms=made.arms[:1]), first)
    there = (tmp_path / "judges.json").read_text()
    other = asked_for(made, tmp_path, "--work", str(tmp_path / "elsewhere"))
    assert campaigns.queue(made, other) == [] and there != (tmp_path / "judges.json").read_text()
    assert not list(other.work.glob("rsscn7-simclr-*")) and list(other.work.glob("rsscn7-false-*"))


def test_rows_brought_in_from_another_machine_leave_strangers_out(stack, tmp_path, capsys):
    made = a_campaign(stack, OneNumber(), ("simclr",))
    asked = asked_for(made, tmp_path)
    campaigns.queue(made, asked)
    kept = json.loads((tmp_path / "judges.json").read_text())
    theirs = [dict(kept[0], seed=1), dict(kept[0], seed=2, protocol=6), dict(kept[0], world="mars")]
    theirs += [dict(kept[0], seed=3, value=None), dict(kept[0], value=kept[0]["value"] + 1)]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/judges.json").write_text(json.dumps(theirs))
    words = ["merge", str(tmp_path / "theirs"), "--results", str(tmp_path), "--work", str(asked.work)]
    campaigns.carry_out(made, judges.asked(words), None)
    told = capsys.readouterr().out
    assert "1 rows of protocol 6, not 7" in told and "1 rows of the world 'mars'" in told
    assert "1 rows without a number" in told and "judges.json: 1 new rows, 1 were here and stay" in told
    now = json.loads((tmp_path / "judges.json").read_text())
    assert len(now) == len(kept) + 1 and all(row in now for row in kept)
    (tmp_path / "theirs/judges.json").write_text("no rows")
    campaigns.carry_out(made, judges.asked(words), None)
    assert "holds no rows" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="merge needs the results folder"):
        judges.asked(["merge"])


def test_a_run_broken_off_under_another_commit_is_kept_apart_and_named(stack, tmp_path, monkeypatch):
    made = replace(a_campaign(stack, OneNumber(), ("simclr",)), late={})
    asked = asked_for(made, tmp_path)
    world, stop = made.worlds["rsscn7"], [True]
    old = campaigns.folder_of(asked, made.arms[0], 0)
    trials.trained(world, made.arms[0], 0, old, stack, "no", stop.pop)
    monkeypatch.setattr(campaigns, "code_version", lambda: "another")
    assert campaigns.queue(made, asked) == [
        f"{old.name}, broken off under another commit: check that out to go on with it"
    ]
    assert not (old / "encoder.safetensors").exists()


def test_a_run_that_nobody_judged_is_named_and_one_of_another_protocol_refused(stack, tmp_path, monkeypatch):
    made = replace(a_campaign(stack, OneNumber(), ("simclr",)), late={})
    asked = asked_for(made, tmp_path)
    old = campaigns.folder_of(asked, made.arms[0], 0)
    campaigns.train(made, made.arms[0], 0, old, asked, lambda: False)
    said = f"{old.name}, trained and not judged under another commit: check that out to judge it"
    assert campaigns.left_alone(made, asked) == []
    assert "begun under protocol 7, this one is 8" in campaigns.queue(replace(made, protocol=8), asked)[0]
    monkeypatch.setattr(campaigns, "code_version", lambda: "another")
    assert campaigns.left_alone(made, asked) == [said]


def test_a_full_disk_leaves_the_rows_as_they_were_and_the_rest_goes_on(stack, tmp_path, monkeypatch):
    made = replace(a_campaign(stack, OneNumber()), late={})
    asked = asked_for(made, tmp_path)
    whole = keeping.write_aside

    def full(path, write):
        monkeypatch.setattr(keeping, "write_aside", whole)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "write_aside", full)
    assert campaigns.queue(made, asked) == ["rsscn7-simclr seed 0: [Errno 28] No space left on device"]
    assert campaigns.count_left(made, asked) == 1
    assert {r["method"] for r in json.loads((tmp_path / "judges.json").read_text())} == {"false"}
    assert campaigns.queue(made, asked) == []  # the run is there, so it is judged alone
    assert campaigns.count_left(made, asked) == 0


def test_a_run_that_diverges_is_named_and_the_rest_goes_on(stack, tmp_path):
    made = replace(a_campaign(stack, OneNumber(), broken=("vicreg",)), late={})

    def diverges(encoder):
        raise ValueError("the loss was not finite 10 times")

    arms = [replace(a, make=diverges) if a.name == "vicreg" else a for a in made.arms]
    made = replace(made, arms=arms)
    failed = campaigns.queue(made, asked_for(made, tmp_path))
    assert campaigns.count_left(made, asked_for(made, tmp_path)) == 1
    assert failed == ["rsscn7-vicreg seed 0: the loss was not finite 10 times"]


def test_a_killed_worker_frees_its_job_and_is_named(tmp_path, capsys, monkeypatch):
    asked = judges.asked(["--workers", "2", "--results", str(tmp_path), "--work", str(tmp_path / "work")])
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    started = campaigns.subprocess.Popen
    monkeypatch.setattr(campaigns.subprocess, "Popen", lambda _: started([sys.executable, "-c", code]))
    campaigns.carry_out(replace(judges.CAMPAIGN, arms=[]), asked, None, [])
    assert "left out: a worker was killed (signal 9)" in capsys.readouterr().out
    monkeypatch.setattr(campaigns.subprocess, "Popen", lambda _: started([sys.executable, "-c", "1 / 0"]))
    campaigns.carry_out(replace(judges.CAMPAIGN, arms=[]), asked, None, [])
    assert "left out: a worker ended with code 1" in capsys.readouterr().out
    holds = "import sys, os, signal; from rsssl_nb.training.folder import locked\nwith locked(sys.argv[1]): "
    job = str(tmp_path / "work/job-run-x-0")
    campaigns.subprocess.run([sys.executable, "-c", f"{holds}os.kill(os.getpid(), signal.SIGKILL)", job])
    with keeping.locked(job):  # no stale lock
        pass


def test_the_hours_end_at_the_ceiling_and_what_is_dropped_is_said(stack, tmp_path):
    made = replace(
        a_campaign(stack, OneNumber()),
        late={},
        parts={"first": lambda k, a, s: a.name == "false", "last": lambda k, a, s: True},
        ceiling=0.25,
    )
    asked = asked_for(made, tmp_path)
    jobs = campaigns.jobs_of(made, asked)
    assert [a.name for _, a, _ in jobs] == ["false", "simclr"]
    lines = budgets.budget_lines(made, jobs, [])
    assert lines[-1] == (
        "0.0 of 0.25 core-hours used, 0.2 left, 0.2 forecast; dropped from the end: 1 of last"
    )
    campaigns.queue(made, asked)
    rows = [dict(r, minutes=8) for r in json.loads((tmp_path / "judges.json").read_text())]
    rows = [r for r in rows if r["method"] == "false"]
    (tmp_path / "judges.json").write_text(json.dumps(rows))
    words = "it takes 0.17 core-hours, and 0.1 of 0.25 are used"
    assert campaigns.queue(made, asked) == [f"rsscn7-simclr seed 0: {words}"]
    assert campaigns.count_left(made, asked) == 1


def test_a_run_keeps_its_method_on_the_way(stack, tmp_path):
    world = replace(
        WORLDS["rsscn7"], pool=lambda: stack, px=24, steps=3, exact=True, snapshots=(1,), views=controls.VIEWS
    )
    simclr = arm("simclr", "rsscn7")
    method, config, _, complete = trials.trained(world, simclr, 0, tmp_path, stack, "no", never)
    assert complete and config.total == 3
    kept = [load_weights(trials.snapshot_path(tmp_path, step))[0] for step in (1, 3)]
    assert all(torch.equal(v, kept[1][k]) for k, v in method.state_dict().items())
    assert any(not torch.equal(v, kept[0][k]) for k, v in kept[1].items())
    begun = trials.start(world, simclr, config, stack)[1].encoder.state_dict()
    fresh = trials.untrained(world, replace(simclr, make=None), 0).state_dict()
    assert all(torch.equal(v, fresh[k]) for k, v in begun.items())  # a run's step 0 is the arm `random`


def test_an_untrained_network_that_is_fitted_normalises_the_views_of_its_pool():
    rng = np.random.default_rng(0)
    stack = controls.Stack(rng.integers(0, 256, (64, 3, 48, 48), dtype=np.uint8), np.zeros((64, 48, 48)))
    world = replace(controls.WORLDS["rsscn7"], pool=lambda: stack, px=32)
    arm = trials.Arm("random", "rsscn7", None)
    fresh = trials.untrained(world, arm, 0)
    made = trials.untrained(world, replace(arm, fitted=True), 0, stack)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), made.parameters(), strict=True))
    views, spread = next(iter(trials.first_views(world, stack, 0))), {}
    for name, encoder in (("fresh", fresh), ("fitted", made)):
        layers = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        seen = []
        layers[-1].register_forward_hook(lambda layer, args, out, seen=seen: seen.append(out.clone()))
        with torch.no_grad():
            encoder(views)
        spread[name] = float(seen[0].std())
    assert abs(spread["fitted"] - 1) < 0.1 < abs(spread["fresh"] - 1) and not made.training
