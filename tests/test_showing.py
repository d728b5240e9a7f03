"What the shipped networks show: who is asked, and what the kept rows hold."

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import showing  # noqa: E402

from rsssl_nb.evaluation.doses import PLACEBO  # noqa: E402
from rsssl_nb.evaluation.mechanisms import audit  # noqa: E402
from rsssl_nb.evaluation.verdicts import LEARNT, show_learnt  # noqa: E402
from rsssl_nb.views.pairs import two_views  # noqa: E402
from rsssl_nb.weights import load_weights, save_weights, shipped  # noqa: E402


def saved(work, name, weights):
    "A finished run of a folder's name whose method has these weights."
    folder = work / name
    save_weights(folder / "method-001000.safetensors", weights, {})
    for file in ("config.json", "encoder.safetensors"):
        (folder / file).touch()


def test_what_lacks_is_said_with_the_command_that_makes_it(tmp_path):
    state, meta = load_weights(shipped("glcnet-1000"))
    saved(tmp_path, "cpu-glcnet-2-abc", state)
    assert {s: c for s, (c, _) in showing.files_of("glcnet", True, tmp_path).items()} == {
        0: meta["commit"],
        2: "abc",
    }
    assert set(showing.files_of("simclr", False, tmp_path)) == {0}
    assert not showing.files_of("simclr", True, tmp_path)
    with pytest.raises(SystemExit, match="--arms simclr --seeds 0 1 2 --work"):
        showing.asked_files(tmp_path)
    with pytest.raises(SystemExit, match="--world long --arms simclr --seeds 0 --work"):
        showing.asked_files(tmp_path, 4000)


@pytest.mark.parametrize("method", showing.FOUR)
def test_untrained_ones_simclr_the_placebo_and_the_method_are_asked(method, tmp_path):
    placebo, (state, _) = PLACEBO[method], load_weights(shipped(f"{method}-1000"))
    other = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
    saved(tmp_path, "one", other)
    files = {
        (method, "simclr"): [(1, "a", tmp_path / "one" / "method-001000.safetensors")],
        (method, placebo): [(0, "b", shipped(f"{method}-1000"))],
        ("another", method): [],
    }
    asked = list(showing.networks(method, files, []))
    assert [(n, s, c) for n, s, c, _ in asked] == [
        *(("random-fitted", s, "") for s in range(3)),
        ("simclr", 1, "a"),
        (placebo, 0, "b"),
    ]
    simclr, theirs = (made.state_dict() for *_, made in asked[3:])
    for k, v in load_weights(shipped(f"{method}-1000"))[0].items():
        assert torch.equal(theirs[k], v.to(theirs[k].dtype))
        whole = method in ("false", "grass") or k.startswith("encoder.")
        if k.endswith("weight"):  # of SimCLR two take the encoder alone
            assert torch.allclose(simclr[k], v.float() + 1, atol=2e-3) == whole
    assert not any(made.training for *_, made in asked)


def test_an_encoder_that_ships_alone_fills_the_encoder():
    made = showing.filled(
        showing.built(load_weights(shipped("glcnet-1000"))[1]), shipped("simclr-1000"), True
    )
    for k, v in load_weights(shipped("simclr-1000"))[0].items():
        assert torch.equal(made.encoder.state_dict()[k], v.to(made.encoder.state_dict()[k].dtype))


def test_suspects_are_counted_in_the_surest_rows_by_hand():
    labels = torch.arange(8)[:, None, None].expand(8, 32, 32) % 2
    views = audit(torch.randn(8, 3, 32, 32), labels, torch.zeros(8, 2), torch.arange(8), 32)
    kin = (torch.arange(16)[:, None] % 2) == (torch.arange(16) % 2)
    sim = torch.where(kin, 0.9, 0.1)

    class Made(torch.nn.Module):
        tau = 0.5

        def step(self, pair, at):
            return type("Step", (), dict(trace=dict(sim=sim, s_pos=torch.arange(16.0), open=4)))

    found = showing.suspects_right(Made(), views)
    assert (
        found["suspects right"] == 1
        and found["gate open"] == 0.25
        and abs(found["any negative right"] - 6 / 14) < 1e-6
    )


def test_boxes_are_ranked_in_mixed_views_that_both_maps_cut(monkeypatch):
    labels = torch.zeros(3, 8, 8, dtype=torch.long)
    labels[:2, :, 4:] = 1  # the third shows one class
    pure, mixed, whole = [0, 0, 4, 8], [2, 0, 6, 8], [0, 0, 8, 8]
    arms = dict(gradient=[pure, mixed, pure], shuffled=[mixed, whole, pure])
    monkeypatch.setattr(showing, "box_arms", lambda *_: {k: torch.tensor(v) for k, v in arms.items()})
    views = type("Views", (), dict(labels=labels, pair=None))
    found = showing.boxes_ranked(None, views)
    assert found["views ranked"] == 1 and found["box rank"] < found["box rank, map shuffled"]


def test_an_untrained_network_that_was_fitted_normalises_what_it_sees_and_keeps_its_weights():
    meta = load_weights(shipped("glcnet-1000"))[1]
    images = 3 * torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)) + 1
    pairs = [two_views(images, 64, showing.DUBAI_VIEWS, seed=k, min_iou=0.1) for k in range(2)]
    fresh, made = showing.built(meta), showing.fitted(showing.built(meta), pairs)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), made.parameters(), strict=True))
    bn = next(m for m in made.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    bn.register_forward_hook(lambda layer, args, out: seen.append(out.clone()))
    with torch.no_grad():
        made.encoder(torch.cat([v for p in pairs for v in (p.a, p.b)]))
    assert seen[0].mean().abs() < 0.05 and (seen[0].std() - 1).abs() < 0.05


def test_the_encoder_alone_finds_the_windows_of_a_pair_of_equal_views():
    meta = load_weights(shipped("glcnet-1000"))[1]
    seen = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    labels, origin = torch.zeros(4, 96, 96, dtype=torch.long), torch.zeros(4, 2)
    views = audit(seen, labels, origin, torch.arange(4), 96)
    views.pair.b, views.pair.where_b = views.pair.a, views.pair.where_a
    assert showing.windows_found(showing.built(meta), views)["windows found, encoder"] > 0.9


def test_the_kept_rows_hold_each_network_and_draw_once():
    rows = json.loads(showing.OUT.read_text())
    keys = [tuple(r[k] for k in ("method", "network", "seed", "measure", "draw")) for r in rows]
    assert len(set(keys)) == len(keys)
    for measure, asked in LEARNT.items():
        method, less = asked.method, asked.less
        networks = {"random-fitted", PLACEBO[method], method} | (
            {"simclr"} if measure != "windows found" else set()
        )
        for name in (measure, *less):
            mine = [r for r in rows if (r["method"], r["measure"]) == (method, name)]
            assert {r["network"] for r in mine} == networks
            assert all(0 <= r["value"] for r in mine)
            for network in networks:
                own = [r for r in mine if r["network"] == network]
                assert len(own) == showing.DRAWS * 3
                assert len({(r["seed"], r["trained"]) for r in own}) == 3


def test_the_long_runs_beat_untrained_ones_where_the_pages_say_so():
    rows = json.loads(showing.OUT.with_stem("showing-long").read_text())
    told = {m: [r for r in rows if r["measure"] == m] for m in LEARNT}
    for measure, mine in told.items():
        asked = LEARNT[measure].method
        networks = {"random-fitted", asked} | ({"simclr"} if measure != "windows found" else set())
        assert {(r["network"], r["draw"]) for r in mine} == {(n, d) for n in networks for d in range(3)}
        assert {r["seed"] for r in mine} == {0}
    means = {
        (m, n): sum(r["value"] for r in told[m] if r["network"] == n)
        for m in ("suspects right", "points found", "windows found", "windows found, encoder")
        for n in ("random-fitted", LEARNT[m].method)
    }
    assert all(
        means[m, LEARNT[m].method] > means[m, "random-fitted"] for m in told if (m, "random-fitted") in means
    )


def test_a_network_is_a_bar_a_seed_a_dot_what_knows_less_a_tick_and_nothing_is_pending():
    rows = [
        dict(method="grass", network=n, measure=m, seed=s, value=v + add)
        for n, s, v in (
            ("random-fitted", 0, 0.5),
            ("grass-random", 0, 0.4),
            ("grass", 0, 0.3),
            ("grass", 0, 0.1),
            ("grass", 1, 0.6),
        )
        for m, add in (("box rank", 0), ("box rank, map shuffled", 0.25))
    ]
    ax = show_learnt(rows, "box rank").axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["untrained", "its placebo", "GraSS"]
    assert [round(p.get_width(), 3) for p in ax.patches] == [0.5, 0.4, 0.4]
    ticks = [round(float(s[0, 0]), 3) for s in ax.collections[0].get_segments()]  # each of its own network
    assert ticks == [0.75, 0.65, 0.65]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["its map shuffled", "chance"]
    assert "pending" in [t.get_text() for t in show_learnt([], "windows found").axes[0].texts]
