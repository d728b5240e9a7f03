"""The evidence harness and its statistics: the same rows twice, resumed rows, rows left out by name, the
papers' setting on fakes.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments"))
import arms  # noqa: E402
import evidence as harness  # noqa: E402
import jobs as harness_jobs  # noqa: E402
import learning  # noqa: E402
import rows as harness_rows  # noqa: E402
import tiles as stacks  # noqa: E402

from rsssl_nb.confusion import mean_iou  # noqa: E402
from rsssl_nb.evaluation.evidence import (  # noqa: E402
    PROTOCOL,
    compare,
    countable_rows,
    difference_verdict,
    differences,
    ledger,
    scorecard_test,
)
from rsssl_nb.evaluation.mechanisms import (  # noqa: E402
    MEASURES,
    Audit,
    average_precision,
    purity_rank,
    similar_content,
)
from rsssl_nb.evaluation.probing import linear_probe  # noqa: E402
from rsssl_nb.evaluation.scores import scores  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FEW = ["--stage", "small", "--epochs", "1", "--steps", "2", "--methods", "random", "simclr"]


def small(folder, *more):
    "The rows of a small run of two arms, by method and fraction."
    harness.main([*FEW, "--results", str(folder), "--work", str(folder / "work"), *more])
    return {(r["method"], r["fraction"]): r for r in json.loads((folder / "evidence-small.json").read_text())}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return small(tmp_path_factory.mktemp("rows"))


def test_a_row_says_all_that_a_new_statistic_needs(rows):
    wanted = set(
        "dataset split setting pool method preset parent encoder stride px fraction label_subset mode "
        "transfer seed seed_finetune miou oa kappa f1 iou confusion_by_block "
        "views_seen encoder_passes minutes device commit data_hash std rank".split()
    )
    assert len(rows) == 4 and all(wanted <= set(r) and r["small"] for r in rows.values())
    r = rows["simclr", "all"]
    assert r["miou"] == round(float(scores(np.sum(list(r["confusion_by_block"].values()), 0))["miou"]), 5)
    assert r["views_seen"] == r["encoder_passes"] == 2 * 96 and rows["random", "all"]["views_seen"] == 0


def test_twice_the_same_bits(rows, tmp_path, capsys):
    again = small(tmp_path)
    timeless = lambda found: {
        k: {n: v for n, v in r.items() if not n.startswith("minutes")} for k, r in found.items()
    }
    assert timeless(again) == timeless(rows)
    harness.main([*FEW, "--results", str(tmp_path / "t"), "--work", str(tmp_path / "t"), "--twice"])
    assert "0.000 points apart; rows equal" in capsys.readouterr().out


def test_resumed_row_by_row(rows, tmp_path):
    left = harness.main([*FEW, "--results", str(tmp_path), "--work", str(tmp_path), "--budget", "0"])
    assert left == 4 and not (tmp_path / "evidence-small.json").exists()
    killed = [
        dict(rows["random", "all"], miou=0.123),
        dict(rows["simclr", "25pct"], status="started", miou=None),
    ]
    (tmp_path / "evidence-small.json").write_text(json.dumps(killed))
    found = small(tmp_path)
    assert found["random", "all"]["miou"] == 0.123, "a finished row was run again"
    assert found["simclr", "25pct"]["miou"] == rows["simclr", "25pct"]["miou"], "a killed row was not"


def test_a_diverged_run_is_a_row_without_a_score(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "finite_step", lambda *a: float("nan"))
    found = small(tmp_path)
    assert (
        found["simclr", "all"]["status"] == "diverged"
        and found["simclr", "all"]["miou"] is None
        and found["random", "all"]["status"] == "done"
    )
    kept, notes = countable_rows([{**found["simclr", "all"], "small": False}], seeds=(0,))
    assert not kept and "diverged" in notes[0] and "simclr" in notes[0]


def test_common_setting_is_common():
    for arm in ("simclr", "grass", "ssccl"):
        gen = learning.pretraining(
            arm,
            (torch.zeros(16, 4, 32, 32, dtype=torch.uint8) + torch.arange(32, dtype=torch.uint8), None),
            arms.SMALL,
            0,
            "common",
            "cpu",
        )
        method = next(gen)[1]
        assert method.plans() == (arms.COMMON, arms.COMMON) and method.min_iou == 0.1
        assert any(isinstance(m, torch.nn.BatchNorm1d) for m in method.head), "the head is not the common one"


def test_every_arm_is_a_method_or_a_floor():
    parents = {p for _, p, _ in arms.ARMS.values()} - {None}
    assert parents <= set(arms.ARMS)
    there = [a for a in arms.ARMS if arms.key_of(a) or a == "random"]
    for arm in there:
        arms.options_of(arm, "common"), arms.options_of(arm, "paper")
    jobs = harness_jobs.jobs_of(
        "A",
        type("D", (), dict(pools={"dubai": 0}, name="dubai")),
        lambda arm: arms.sizes_of("A", arm),
        (0, 1, 2),
        there,
        [],
    )
    assert len(jobs) == 3 * len(there) * 4 * 2 and len({harness_jobs.identity(j) for j in jobs}) == len(jobs)


def row(method, seed, table, **more):
    return dict(
        dataset="d",
        setting="common",
        pool="dubai",
        method=method,
        preset="default",
        encoder="e",
        px=1,
        fraction="01pct",
        mode="full",
        transfer="backbone",
        label_subset=0,
        status="done",
        protocol=PROTOCOL,
        small=False,
        seed=seed,
        miou=0.5,
        confusion_by_block={"a": table, "b": table},
        **more,
    )


def test_left_out_by_name():
    good = [row("simclr", s, [[3, 1], [1, 3]]) for s in range(3)]
    odd = [
        {**row("byol", 0, [[1, 0], [0, 1]]), "protocol": 0},
        {**row("swav", 0, [[1, 0], [0, 1]]), "status": "started"},
        row("moco", 0, [[1, 0], [0, 1]]),
        {**row("grass", 0, [[1, 0], [0, 1]]), "small": True},
    ]
    kept, notes = countable_rows(good + odd)
    assert {r["method"] for r in kept} == {"simclr"} and [n.split()[0] for n in notes] == [
        "byol",
        "swav",
        "moco",
    ]
    assert compare(kept, "simclr", "byol") is None
    better = [row("glcnet", s, [[4, 0], [0, 4]]) for s in range(3)]
    assert (
        compare(good + better, "glcnet", "simclr")["verdict"] == "better"
        and compare(good, "simclr", "simclr")["verdict"] == "no difference"
    )


def test_differences_pair_and_refuse():
    a = np.random.default_rng(0).integers(1, 50, (3, 2, 4, 3, 3))
    assert (differences(a, a, 50) == 0).all() and difference_verdict(differences(a, a, 50)) == "no difference"
    assert np.allclose(differences(a, a[:, :, ::-1], 50, 1), -differences(a[:, :, ::-1], a, 50, 1))
    assert np.isclose(mean_iou(a[0, 0, 0]), scores(a[0, 0, 0])["miou"])
    with pytest.raises(ValueError, match="same seeds"):
        differences(a, a[:2])


def test_claims_are_quoted_as_printed(imagery):
    claims, flat = json.loads((ROOT / "results/claims.json").read_text()), lambda t: " ".join(t.split())
    papers = imagery.parent / "papers"
    if not papers.is_dir():
        pytest.skip("the abstracts are not beside the imagery: this test ran on nothing")
    for c in claims:
        assert flat(c["quote"]) in flat((papers / f"{c['paper'].lower()}.txt").read_text()), c["quote"]


def test_the_ledger_has_no_number_of_its_own(tmp_path):
    claims = json.loads((ROOT / "results/claims.json").read_text())
    (tmp_path / "claims.json").write_text(json.dumps(claims))
    lines = ledger(tmp_path).splitlines()[2:]
    assert len(lines) == len(claims) and all(
        ("| pending | pending |" in line) == bool(c["test"]) for line, c in zip(lines, claims)
    )
    assert {c["paper"] for c in claims} == {"GraSS", "FALSE", "GLCNet", "SSCCL"}
    used = {t["arm"]["measure"] for c in claims if (t := c["test"]) and "arm" in t}
    assert used <= set(MEASURES) and all(
        m in arms.ARMS for c in claims if (t := c["test"]) and "vs" in t for m in (t["method"], t["vs"])
    )


def test_the_papers_setting_on_a_fake(tmp_path):
    from rsssl_nb.data.write import write_raster

    rng = np.random.default_rng(0)
    for split, n in (("train", 2), ("val", 1)):
        for k in range(n):
            labels = (np.indices((96, 96)).sum(0) // 48 % 2).astype(np.uint8)
            write_raster(
                tmp_path / "set" / split / "images" / f"{split}{k}.png",
                (labels * 90 + rng.integers(0, 60, (3, 96, 96))).astype(np.uint8),
                None,
                None,
                None,
            )
            write_raster(
                tmp_path / "set" / split / "labels" / f"{split}{k}.png", labels[None], None, None, None
            )
    (tmp_path / "set/classes.json").write_text(
        json.dumps(
            dict(
                classes=[
                    dict(index=0, name="land", rgb=[0, 0, 0]),
                    dict(index=1, name="water", rgb=[0, 0, 255]),
                ]
            )
        )
    )
    for bugs in ([], ["--bugs", "per_image", "void_as_class", "select_on_test"]):
        harness.main(
            [
                "--data",
                str(tmp_path / "set"),
                "--setting",
                "paper",
                "--methods",
                "random",
                "--seeds",
                "0",
                "--epochs",
                "1",
                "--steps",
                "2",
                "--px",
                "32",
                "--width",
                "8",
                "--device",
                "cpu",
                "--results",
                str(tmp_path),
                "--work",
                str(tmp_path),
                *bugs,
            ]
        )
    found = json.loads((tmp_path / "evidence-paper-set.json").read_text())
    assert [(r["setting"], r["encoder"], r["mode"], r["bugs"]) for r in found] == [
        ("paper", "resnet50", "frozen", b) for b in ("", "per_image+void_as_class+select_on_test")
    ]
    assert (
        all(r["status"] == "done" for r in found)
        and len((tmp_path / "test-openings.jsonl").read_text().splitlines()) == 2
    )


def test_one_percent_of_potsdam_is_the_papers_138():
    assert len(stacks.random_subsets(13824)("01pct", 0)) == 138 and set(
        stacks.random_subsets(100)("10pct", 0).tolist()
    ) < set(stacks.random_subsets(100)("all", 0).tolist())


@pytest.mark.long
def test_pack_is_small_and_whole(imagery, tmp_path, monkeypatch):
    monkeypatch.setenv("RSSSL_DATA", str(imagery))
    opened = []
    data = stacks.dubai(tmp_path, 128, lambda: opened.append(1))
    assert sum(p.stat().st_size for p in tmp_path.glob("*.npz")) <= 40e6
    assert (
        len(data.train) == 4608
        and len(data.subset("01pct", 0)) == 44
        and len(data.pools["both"][0]) == 4608 + 2520
        and not opened
    )
    test = data.test()
    assert (
        opened == [1]
        and set(test.scene) == {"1", "3"}
        and (test.labels != 255).sum() > 8.4e6
        and data.classes[4] == "water"
    )
    assert set(data.train.window[data.subset("01pct", 0)]) <= set(data.train.window[data.subset("05pct", 0)])
    whole = stacks.dubai(tmp_path, 224, lambda: None).train
    assert (
        whole.images.shape[1:] == (3, 256, 256)
        and {"test"} & set(vars(data))
        and len(whole) < len(data.train) / 3
    )


def test_measures_on_cases_known_by_head():
    assert average_precision(torch.tensor([3.0, 2, 1]), torch.tensor([False, True, False])) == 0.5
    labels = torch.tensor([[[0, 0, 1]]])
    assert (
        purity_rank(labels, torch.tensor([[0, 0, 2, 1]])).item() == 0.25
        and purity_rank(labels, torch.tensor([[1, 0, 3, 1]])).item() == 0.75
    )
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    W, b = linear_probe(x * torch.tensor([1.0, 1e3, 1]), (x[:, 1] > 0).long(), 2)
    assert (((x * torch.tensor([1.0, 1e3, 1])) @ W.T + b).argmax(1) == (x[:, 1] > 0)).float().mean() > 0.95


def test_floors_need_no_network(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(harness_rows, "SUBSETS", [("25pct", 0)])
    data = stacks.embedded()
    test = replace(data.test(), images=data.test().images[:, :3])
    data = replace(
        data,
        train=replace(data.train, images=data.train.images[:, :3]),
        test=lambda: test,
        overlaps=[dict(mean_iou=0.5, iou={"road": 0.5})],
    )
    book = harness_jobs.ResultsFile(tmp_path / "evidence-floor.json")
    harness_rows.run_floors(data, book, harness_jobs.Budget(600), dict(protocol=PROTOCOL, small=False))
    found = {(r["method"], r["fraction"]): r for r in book.rows.values()}
    assert set(found) == {
        ("annotators", "none"),
        *((m, f) for m in ("majority", "boosting") for f in ("25pct", "all")),
    }
    assert (
        found["boosting", "all"]["miou"] > 1.5 * found["majority", "all"]["miou"]
        and len(countable_rows(list(found.values()))[0]) == 5
    )


def test_two_calls_on_one_file_lose_no_row_of_each_other(tmp_path):
    one, other = (harness_jobs.ResultsFile(tmp_path / "evidence-a.json") for _ in range(2))
    one.keep(dict(method="simclr", seed=0, miou=0.5))
    other.keep(dict(method="simclr", seed=1, miou=0.6))
    one.keep(dict(method="simclr", seed=0, miou=0.7))
    there = harness_jobs.ResultsFile(tmp_path / "evidence-a.json").rows.values()
    assert sorted((r["seed"], r["miou"]) for r in there) == [(0, 0.7), (1, 0.6)]


def test_views_without_a_label_are_like_nobody():
    labels = torch.full((4, 8, 8), 255)
    labels[0], labels[1] = 2, 2
    seen = similar_content(Audit(None, labels, torch.zeros(4, 4), torch.zeros(4)))
    for alike in seen.values():
        assert alike[0, 1] and not alike[2:].any() and not alike[:, 2:].any()


def test_a_claim_is_tested_on_the_seeds_that_both_arms_have():
    test = dict(arm=dict(arm="ours"), against=dict(arm="other"), better=1)
    card = [
        dict(data="scenes", arm=a, seed=s, step=70, value=v + 0.001 * s)
        for a, seeds, v in (("ours", 4, 0.5), ("other", 3, 0.3))
        for s in range(seeds)
    ]
    number, verdict = scorecard_test(test, card)
    assert number.startswith("+0.200") and "3 seeds" in number and verdict == "yes (scenes)"
    assert scorecard_test(test, card[:2] + card[4:]) is None
