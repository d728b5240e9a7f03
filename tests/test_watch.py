"""Watching: health against closed forms, verdicts on real runs, a log that is being written, and the panel
driven without a browser.
"""

import gc
import json
import math
import os
import threading
import time

import pytest
import torch

from rsssl_nb.check import raises
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.figures import picture_type
from rsssl_nb.methods.base import At
from rsssl_nb.methods.registry import make_method
from rsssl_nb.objectives.similarity import cosine, negatives, positives, stack
from rsssl_nb.training.config import Config, as_json
from rsssl_nb.training.health import DEAD_RANK, DEAD_STD, TOO_EARLY, effective_rank, facts, health, verdict
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.training.record import save_trace
from rsssl_nb.training.schedule import lr_factor
from rsssl_nb.training.watch import Tail, ask_to_stop, read_log, show_run, show_trace, status, thin
from rsssl_nb.views.pairs import two_views
from rsssl_nb.weights import load_weights
from rsssl_nb.widgets.run import attach

NAMES = ["std", "pos", "neg", "alignment", "uniformity", "rank"]
SCENES = [make_scene(256, seed=s) for s in (1, 2)]


def random(n, d, seed=0):
    return torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed))


def close(a, b, tol=1e-5):
    assert abs(a - b) < tol, (a, b)


def train(method, lr, epochs=3, **more):
    return pretrain(
        SCENES,
        method,
        epochs=epochs,
        batch=32,
        samples=256,
        size=48,
        width=16,
        lr=lr,
        progress=False,
        device="cpu",
        **more,
    )


# ---- health


@pytest.mark.parametrize("n, d", [(2, 3), (5, 4), (16, 8)])
def test_health_is_what_its_names_say(n, d):
    za, zb = random(n, d, n)
    found, sim = health(za, zb), cosine(stack(za, zb))
    a, b = (torch.nn.functional.normalize(v, dim=1) for v in (za, zb))
    close(found["pos"], sim[positives(n)].mean().item())
    close(found["neg"], sim[negatives(n)].mean().item())
    close(found["alignment"], (a - b).norm(dim=1).pow(2).mean().item())
    close(
        found["uniformity"],
        sum(torch.pdist(v).pow(2).mul(-2).exp().mean().log().item() for v in (a, b)) / 2,
        1e-4,
    )
    close(found["std"], stack(a, b).std(0, unbiased=False).mean().item() * d**0.5)


@pytest.mark.parametrize("d", [32, 128, 512])
def test_random_directions_have_their_closed_forms(d):
    found = health(*random(600, d))
    close(found["uniformity"], -4 + 8 / d, 0.03 + 32 / d**2)
    close(found["std"], 1, 0.01)
    close(found["neg"], 0, 0.01)
    close(found["alignment"], 2, 0.05)


def test_orthogonal_and_opposite():
    found = health(torch.eye(8), torch.eye(8))
    for name, wanted in dict(pos=1, neg=0, alignment=0, uniformity=-4, rank=7).items():
        close(found[name], wanted, 1e-4)
    close(health(torch.eye(8), -torch.eye(8))["alignment"], 4)
    close(health(torch.eye(8), -torch.eye(8))["pos"], -1)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_rank_counts_directions(k):
    q = torch.linalg.qr(torch.randn(40, k, generator=torch.Generator().manual_seed(k)) - 0)[0]
    z = torch.cat([q, -q]) @ torch.eye(k, 10)
    close(effective_rank(z).item(), k, 1e-3)


@pytest.mark.parametrize("value", [1.0, -3.0, 1e-3, 1e4])
@pytest.mark.parametrize("n", [1, 2, 33])
def test_constant_embeddings_have_collapsed(value, n):
    found = health(torch.full((n, 16), value), torch.full((n, 16), value))
    for name, wanted in dict(std=0, pos=1, neg=float(n > 1), alignment=0, uniformity=0, rank=0).items():
        close(found[name], wanted, 1e-5)


def test_zero_embeddings_are_defined():
    found = health(torch.zeros(4, 8), torch.zeros(4, 8))
    assert list(found) == NAMES and all(v == 0 for v in found.values())


def test_one_image_is_defined():
    found = health(*random(1, 8))
    assert all(math.isfinite(v) for v in found.values()) and found["neg"] == found["uniformity"] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_not_hidden(bad):
    za, zb = random(4, 8)
    za[1, 2] = bad
    found = health(za, zb)
    assert list(found) == NAMES and all(math.isnan(v) for v in found.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_health_is_computed_in_float32(dtype):
    z = random(16, 8).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        under = health(*z)
    assert under == health(*z) == health(*z.float()) and all(isinstance(v, float) for v in under.values())


def test_health_leaves_no_graph_and_reads_the_host_once(monkeypatch):
    z, reads = random(8, 4).requires_grad_(), []
    plain = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: reads.append(t.requires_grad) or plain(t))
    for name in ("item", "__float__", "__bool__", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, lambda t: pytest.fail("a second copy to the host"))
    health(*z)
    assert reads == [False]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_health_agrees_on_a_gpu():
    z = random(64, 32)
    for name, value in health(*z.cuda()).items():
        close(value, health(*z)[name], 1e-3)


# ---- verdict


@pytest.fixture(scope="module")
def sane(tmp_path_factory):
    return train("simclr", 1e-3, out=tmp_path_factory.mktemp("watched") / "run")


def test_a_sane_run_is_never_bad(sane):
    assert {verdict(sane.log[:n], sane.config)[1] for n in range(len(sane.log) + 1)} == {"ok"}
    assert verdict(sane.log, sane.config)[0].startswith("learning") and verdict(sane.log[: TOO_EARLY - 1])[
        0
    ].startswith("too early")


@pytest.mark.parametrize(
    "method",
    # not SSCCL: BatchNorm in its heads keeps such a run alive, as the next test shows; nor FALSE, which
    # lives on one make of processors
    ["simclr", *(pytest.param(m, marks=pytest.mark.long) for m in ("glcnet", "grass"))],
)
def test_a_rate_times_1000_is_reported_within_20_steps(method):
    run = train(method, 1.0)
    assert verdict(run.log[:20], run.config)[1] == "bad" and verdict(run.log[:20])[1] == "bad"
    assert verdict(run.log, run.config)[1] == "bad"


@pytest.mark.long
@pytest.mark.parametrize("method", ["simclr", "ssccl"])
def test_it_is_batchnorm_in_the_head_that_keeps_a_rate_times_1000_alive(method):
    """Without it the head's embeddings fall on two directions; with it they keep more."""
    last = {}
    for head_norm in (False, True):
        run = train(method, 1.0, options=dict(head_norm=head_norm))
        last[head_norm] = [row["health"] for row in run.log if row.get("health")][-1]
        assert (verdict(run.log, run.config)[1] == "bad") is not head_norm
    assert last[False]["rank"] < DEAD_RANK < last[True]["rank"] < 12 and last[True]["std"] > 0.2


@pytest.mark.long
def test_a_sane_run_without_negatives_is_not_called_dead():
    run = train("ssccl", 1e-3, epochs=5, options=dict(objective="siamese", head_norm=False))
    assert (
        "bad" not in {verdict(run.log[:n], run.config)[1] for n in range(len(run.log) + 1)}
        and verdict(run.log, run.config)[1] == "ok"
    )
    assert run.log[-10]["health"]["neg"] > 0.95


def test_constant_embeddings_are_called_collapsed():
    dead = health(torch.ones(32, 8), torch.ones(32, 8))
    rows = [dict(step=i, epoch=0, loss=4.14, health=dead) for i in range(20)]
    assert verdict(rows)[1] == "bad" and verdict(rows)[0].startswith("collapsing")
    assert verdict(rows[:1])[1] == "ok", "a network may start that way"


def made(losses, **more):
    return [dict(step=i, epoch=0, loss=loss, **more) for i, loss in enumerate(losses)]


def well(**changed):
    return {**dict(std=0.9, pos=0.8, neg=0.1, alignment=0.4, uniformity=-2.0, rank=15.0), **changed}


@pytest.mark.parametrize(
    "rows, level, word",
    [
        ([], "ok", "too early"),
        (made([4.0 + i / 5 for i in range(20)]), "bad", "diverging"),
        (made([-1.0 + i / 10 for i in range(20)]), "bad", "diverging"),
        (made([4.14] * 70), "watch", "not learning"),
        (made([4.14] * 20), "ok", "not moving yet"),
        (made([4.0 - i / 50 for i in range(70)]), "ok", "learning"),
        (made([math.nan] * 3, skipped=3), "bad", "diverging"),
        (made([None] * 9), "bad", "diverging"),
        (made([4.0] * 30 + [math.inf]), "bad", "diverging"),
        (made([4.0] * 20, skipped=7), "ok", "not moving"),  # skips of long ago, before this window
        (made([4.0] * 9) + [dict(step=9, epoch=0, loss=4.0, skipped=3)], "bad", "diverging"),
        (made([4.0] * 9) + [dict(step=9, epoch=0, loss=4.0, skipped=1)], "watch", "skipped"),
        (made([4.0] * 9, health=well(rank=DEAD_RANK - 0.1)), "bad", "collapsing"),
        (made([4.0] * 9, health=well(std=DEAD_STD / 2)), "bad", "collapsing"),
        (made([4.0] * 9, health=well(neg=0.99, std=0.15)), "ok", "not moving"),
        (made([4.0] * 9, health=well(rank=math.nan)), "bad", "not finite"),
    ],
)
def test_each_rule_on_rows_made_for_it(rows, level, word):
    said = verdict(rows)
    assert said[1] == level and word in said[0], said


def test_a_small_batch_and_a_long_warm_up_are_judged_mildly(sane):
    from dataclasses import replace

    few = made([4.0 - i / 50 for i in range(20)], health=well(rank=1.5))
    assert verdict(few)[1] == "bad" and verdict(few, replace(sane.config, batch=4))[1] == "ok"
    still = made([4.14] * 70)
    assert (
        verdict(still, sane.config)[1] == "watch"
        and verdict(still, replace(sane.config, epochs=400))[1] == "ok"
    )
    assert "guessing among 63 costs 4.14" in verdict(still, sane.config)[0]


# ---- log, status, pictures


def test_the_warm_up_is_that_of_the_steps_that_are_run():
    config = Config(samples=640_000, batch=64, epochs=1, length=150)
    assert facts(config)["climb"] == 15 and lr_factor(14, config.total, config.warmup) == 1


def test_half_a_line_waits_and_rubbish_is_left_out(tmp_path):
    log, tail = tmp_path / "log.jsonl", Tail(tmp_path)
    assert tail.rows() == []
    log.write_bytes(b'{"step": 0, "loss": 4.0}\n{"step": 1, "loss": 3')
    assert [r["step"] for r in tail.rows()] == [0]
    with open(log, "ab") as f:
        f.write(b'.5}\n\xff\xfe\n[1]\n"x"\n{}\n{"step": 2, "loss": NaN}\n')
    rows = tail.rows()
    assert (
        [r["step"] for r in rows] == [0, 1, 2]
        and rows[1]["loss"] == 3.5
        and read_log(tmp_path)[:2] == rows[:2]
    )


def test_a_replaced_log_is_read_afresh(tmp_path):
    log, tail = tmp_path / "log.jsonl", Tail(tmp_path)
    log.write_text("".join(json.dumps(r) + "\n" for r in made([4.0] * 9)))
    assert len(tail.rows()) == 9
    (tmp_path / "new").write_text("".join(json.dumps(r) + "\n" for r in made([4.0] * 9, lr=2.0)))
    os.replace(tmp_path / "new", log)
    assert [r.get("lr") for r in tail.rows()] == [2.0] * 9
    log.write_text("")
    assert tail.rows() == []


def test_two_threads_read_each_row_once(tmp_path):
    tail, wrong = Tail(tmp_path), []

    def look():
        while not done.is_set():
            steps = [r["step"] for r in tail.rows()]
            if steps != list(range(len(steps))):
                wrong.append(steps)

    done, lookers = threading.Event(), [threading.Thread(target=look) for _ in range(4)]
    for t in lookers:
        t.start()
    with open(tmp_path / "log.jsonl", "a") as log:
        for r in made([4.0] * 400):
            log.write(json.dumps(r) + "\n")
            log.flush()
    done.set()
    for t in lookers:
        t.join()
    assert not wrong and len(tail.rows()) == 400


def test_status_says_where_a_run_stands(sane):
    now = status(sane.folder)
    assert (now["step"], now["total"], now["epoch"], now["epochs"], now["state"], now["level"]) == (
        24,
        24,
        3,
        3,
        "finished",
        "ok",
    )
    assert (
        now["speed"] > 0
        and "simclr: finished, step 24 of 24, epoch 3 of 3" in str(now)
        and "ok: learning" in str(now)
        and "left" not in str(now)
    )
    assert {k: v for k, v in status(sane).items()} == dict(now)


def test_speed_and_time_left_by_hand(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(as_json(Config(batch=32, samples=64, epochs=40))))
    before = [dict(step=i, epoch=0, loss=4.0, seconds=100.0 + i, images=32 * (i + 1)) for i in range(10)]
    after = [
        dict(step=i, epoch=i // 2, loss=4.0, seconds=0.1 * (i - 9), images=32 * (i + 1))
        for i in range(10, 30)
    ]
    (tmp_path / "log.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in before + after)
    )  # resumed at step 10
    now = status(tmp_path)
    close(now["speed"], 320, 1e-3)
    close(now["left"], 5.0, 1e-6)
    assert now["state"] == "running" and "320 images/s, 0:00:05 left" in str(now)
    os.utime(tmp_path / "log.jsonl", (time.time() - 4000,) * 2)
    assert status(tmp_path)["state"].startswith("silent for 1:06")


def test_old_logs_and_no_logs_are_shown(tmp_path):
    assert status(tmp_path)["state"] == "waiting for the first step" and "? steps to go" in str(
        status(tmp_path)
    )
    show_run(tmp_path)._repr_png_()
    (tmp_path / "log.jsonl").write_text(
        "".join(json.dumps(dict(step=i, epoch=0, loss=4.0)) + "\n" for i in range(9))
    )
    assert status(tmp_path)["speed"] is None and len(show_run(tmp_path).axes) == 1
    with raises(ValueError, "trace.safetensors"):
        show_trace(tmp_path)


def test_pictures_show_what_the_rows_hold(sane):
    titles = lambda rows: [a.get_title() for a in show_run(sane, rows).axes]
    assert titles(sane.log) == ["loss", "learning rate", "embeddings", "effective rank"]
    assert "kNN probe, mean IoU" in titles([*sane.log, {**sane.log[-1], "knn": 0.4}])
    long = [
        dict(step=i, epoch=0, loss=math.inf if i % 7 == 0 else 1.0, parts={"a": 1.0, "b": 0.5})
        for i in range(100_000)
    ]
    picture = show_run(sane, long)
    assert [len(line.get_xdata()) <= 400 for line in picture.axes[0].lines] == [True] * 3 and thin(long)[-1][
        "step"
    ] == 99_999
    assert picture._repr_png_()[:4] == b"\x89PNG"


TITLES = dict(
    simclr="cosines: rows view a, columns view b",
    false="cosines, and who is suspected to be family",
    glcnet="view a: matched windows",
    grass="view",
    ssccl="view a: cosine",
)


@pytest.mark.parametrize(
    "method, B",
    [
        ("simclr", 12),
        ("simclr", 3),
        ("false", 12),
        ("glcnet", 12),
        ("grass", 12),
        ("ssccl", 12),
        ("ssccl", 49),
    ],
)
def test_each_method_leaves_its_own_picture(method, B, tmp_path):
    options = dict(grass=dict(warmup=0.0), false=dict(gate=0.0)).get(method, {})
    learner = make_method(method, Encoder(bands=4, width=8), options).train()
    pair = two_views(
        torch.randn(B, 4, 48, 48, generator=torch.Generator().manual_seed(0)), 48, min_iou=learner.min_iou
    )
    step = learner(pair, At(progress=0.5))
    save_trace(tmp_path, pair, step.trace)
    kept, n = load_weights(tmp_path / "trace.safetensors")[0], min(8, B)
    assert (
        torch.equal(kept["seen_a"], pair.a[:n])
        and torch.equal(kept["seen_b"], pair.b[:n])
        and torch.equal(kept["za"], step.trace["za"][:n])
    )
    if method == "false":
        assert torch.equal(kept["sim"][n:, :n].double(), step.trace["sim"].float()[B : B + n, :n].double())
    if method == "ssccl":
        assert torch.equal(kept["similarity"], step.trace["similarity"][:n]), (
            "B may equal the number of points"
        )
    picture = show_trace(tmp_path)
    assert picture.axes[0].get_title().startswith(TITLES[method]) and picture._repr_png_()[:4] == b"\x89PNG"


def test_a_trace_that_happens_to_be_square_keeps_its_columns(tmp_path):
    B = 8
    pair = two_views(torch.randn(B, 4, 16, 16, generator=torch.Generator().manual_seed(0)), 16)
    keys, sim = torch.randn(2, 2 * B, 2 * B, generator=torch.Generator().manual_seed(1))
    save_trace(tmp_path, pair, dict(keys=keys, s_queue=keys, sim=sim), n=2)
    kept = load_weights(tmp_path / "trace.safetensors")[0]
    own = [0, 1, B, B + 1]
    assert torch.equal(kept["keys"], keys[own]) and torch.equal(kept["s_queue"], keys[own])
    assert torch.equal(kept["sim"], sim[own][:, own])


def test_only_a_folder_can_be_asked_to_stop(tmp_path):
    ask_to_stop(tmp_path)
    assert (tmp_path / "stop").read_bytes() == b"" and status(tmp_path)["state"] == "asked to stop"
    with raises(InputError, "not a folder"):
        ask_to_stop(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
    run = pretrain(SCENES[0], epochs=1, batch=8, samples=8, size=32, width=8, progress=False, device="cpu")
    with raises(InputError, "kept in memory"):
        ask_to_stop(run)


# ---- the panel


@pytest.fixture
def running(tmp_path):
    "A run folder that is not finished, with a function that adds rows to it."
    (tmp_path / "config.json").write_text(json.dumps(as_json(Config(batch=32, samples=64, epochs=200))))

    def write(*steps):
        with open(tmp_path / "log.jsonl", "a") as log:
            for s in steps:
                log.write(
                    json.dumps(
                        dict(
                            step=s,
                            epoch=s // 2,
                            loss=4.1 - s / 100,
                            lr=1e-3,
                            skipped=0,
                            seconds=s / 10,
                            images=32 * s,
                            health=well() if s % 10 == 0 else None,
                        )
                    )
                    + "\n"
                )

    write(*range(12))
    return tmp_path, write


@pytest.fixture
def panels():
    "attach, and every panel closed in the end."
    made = []
    yield lambda *a, **k: made.append(attach(*a, **k)) or made[-1]
    for box in made:
        box.close()


def test_refresh_picks_up_new_rows_and_draws_only_then(running, panels):
    folder, write = running
    box = panels(folder, every=3600)
    before, sent = bytes(box.view.value), []
    box.view.observe(sent.append, "value")
    box.view.send_state = lambda key=None: sent.append(key)
    box.again.click()
    assert box.look.count == 1 and sent == [] and "step 12 of 400" in box.words.value
    write(12, 13)
    box.again.click()
    assert (
        box.look.count == 2
        and box.view.value != before
        and "step 14 of 400" in box.words.value
        and box.trouble.value == ""
    )


def test_the_stop_button_writes_the_file(running, panels):
    folder, write = running
    box = panels(folder, every=3600)
    assert not box.stop.disabled
    box.stop.click()
    assert (folder / "stop").read_bytes() == b"" and box.stop.disabled and "asked to stop" in box.words.value
    (folder / "stop").unlink()
    box.refresh()
    assert "stopped when asked to" in box.words.value
    write(*range(12, 100))
    box.refresh()
    assert "running" in box.words.value and not box.stop.disabled, "somebody resumed it"


def test_the_thread_redraws_and_ends_with_the_run(running, panels):
    folder, write = running
    box = panels(folder, every=0.02)
    write(12)
    until(lambda: "step 13 of" in box.words.value)
    write(13)
    (folder / "encoder.safetensors").touch()
    box.thread.join(10)
    assert not box.thread.is_alive() and "finished, step 14 of" in box.words.value and box.stop.disabled


def test_closing_ends_the_thread_and_a_late_look_changes_nothing(running, panels):
    folder, write = running
    before = set(threading.enumerate())
    box = attach(folder, every=0.02)
    assert set(threading.enumerate()) - before == {box.thread} and box.thread.daemon
    box.close()
    box.thread.join(10)
    words = box.words.value
    write(12)
    box.refresh()
    assert (
        set(threading.enumerate()) <= before | {box.thread}
        and not box.thread.is_alive()
        and box.words.value == words
    )
    box.close()


def until(true, seconds=10):
    limit = time.time() + seconds
    while not true() and time.time() < limit:
        time.sleep(0.01)
    assert true()


def test_errors_are_shown_inside_and_go_away(running, panels):
    folder, write = running
    (folder / "trace.safetensors").write_bytes(b"rubbish")
    box = panels(folder, every=0.02)
    box.what.value = "last batch"
    assert "ValueError" in box.trouble.value and box.view.value == b"" and box.thread.is_alive()
    box.what.value = "curves"
    until(lambda: box.trouble.value == "" and box.view.value[:4] == b"\x89PNG")


def test_a_run_that_has_not_begun_is_waited_for(tmp_path, panels):
    box = panels(tmp_path / "later", every=0.02)
    assert "waiting for the first step" in box.words.value and box.trouble.value == ""
    box.stop.click()
    assert "InputError" in box.trouble.value and not (tmp_path / "later").exists()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "log.jsonl").write_text('{"step": 0, "epoch": 0, "loss": 4.0}\n')
    until(lambda: "step 1 of ?" in box.words.value)


def test_finished_and_remembered_runs_need_no_thread(sane, panels):
    from dataclasses import replace

    memory = replace(sane, folder=None)
    for run in (sane, sane.folder, str(sane.folder), memory):
        box = panels(run)
        assert (
            not box.thread.is_alive()
            and box.view.value[:4] == b"\x89PNG"
            and "finished, step 24 of 24" in box.words.value
            and box.trouble.value == ""
        )
    box.what.value = "last batch"
    assert box.trouble.value == "" and box.view.value[:4] == b"\x89PNG"
    with raises(ValueError, "not a time to wait"):
        attach(sane, every=0)


def test_without_a_front_end_it_is_text_and_picture(sane, panels):
    bundle = panels(sane)._repr_mimebundle_()
    assert (
        bundle["text/plain"].startswith("simclr: finished")
        and "application/vnd.jupyter.widget-view+json" in bundle
    )
    nbformat, nbconvert = pytest.importorskip("nbformat.v4"), pytest.importorskip("nbconvert")
    page = nbformat.new_notebook(
        cells=[nbformat.new_code_cell("attach(run)", outputs=[nbformat.new_output("display_data", bundle)])]
    )
    assert bundle["image/png"][:60] in nbconvert.HTMLExporter().from_notebook_node(page)[0]
    assert "output_0_0.png" in str(nbconvert.MarkdownExporter().from_notebook_node(page)[1]["outputs"].keys())


@pytest.mark.long
def test_fifty_refreshes_keep_no_figure_and_no_widget(running, panels):
    import ipywidgets as W

    folder, write = running
    box = panels(folder, every=3600)

    def alive(kind):
        gc.collect()
        return sum(type(o) is kind for o in gc.get_objects())

    figures, widgets = (
        alive(picture_type()),
        len(W.Widget._instances) if hasattr(W.Widget, "_instances") else 0,
    )
    look, drawn = box.look, box.look.count
    for s in range(12, 62):
        write(s)
        box.refresh()
    assert look.count == drawn + 50 and alive(picture_type()) == figures
    assert (len(W.Widget._instances) if hasattr(W.Widget, "_instances") else 0) == widgets
