"""How long a reader waits after a control of an explorer has moved: 256-pixel view, ResNet-18 of full width,
the embedded scene.

A control that changes neither image, layer nor method: the median of its redraws against 150 ms and the
worst against 400 ms, whichever is nearer to
its goal; boxes are dragged and points clicked too. A way of asking of the saliency explorer, for the
contrastive loss: from a move of the window to
the picture, 1 s, or 10 s for the slow two.
"""

import sys
import time
from importlib import import_module

from measure import Found, main, question, statistics

MEDIAN, WORST = 0.150, 0.400
MODULES = ("rsssl_nb.widgets.explorers", "rsssl_nb.widgets.features")


def stops(control):
    "Where a control can go: all of a menu's choices, a box's two states, five places of a slider."
    if hasattr(control, "options"):
        return [o[1] if isinstance(o, tuple) else o for o in control.options]
    if isinstance(control.value, bool):
        return [False, True]
    return [type(control.value)(control.min + k * (control.max - control.min) / 4) for k in (0, 3, 1, 4, 2)]


def drawn(box):
    """Where what is drawn on an explorer's canvas can go: boxes dragged, points clicked, in pixels of the
    raster.
    """
    x, y = box.canvas.extent[:2] if box.canvas else (0, 0)
    return dict(
        boxes=[[[b[0] + d, b[1] + d, b[2] + d, b[3] + d] for b in box.canvas.boxes] for d in (4, -4, 8, 0)],
        points=[
            [[x + 120 + 5 * i + k, y + 120 - 7 * i + k, i % 3] for i in range(5)][: max(1, box.canvas.most)]
            for k in range(4)
        ],
    )


def moves(box, places):
    """All quick moves of an explorer: a trait's owner, its name and where it goes, twice through so many
    stops.
    """
    quick = [(c, "value", 2 * stops(c)[:places]) for n, c in box.controls.items() if n not in box.slow]
    return [
        (owner, name, v)
        for owner, name, values in quick
        + [
            (box.canvas, t, drawn(box)[t])
            for t in ("boxes", "points")
            if t in box.shared and t not in box.slow
        ]
        for v in values
    ]


def redraws(box, places):
    "Seconds of every redraw."
    took = []
    for owner, name, value in moves(box, places):
        if getattr(owner, name) == value:
            continue
        started = time.perf_counter()
        setattr(owner, name, value)
        took.append(time.perf_counter() - started)
        assert not box.job.is_alive() and not box.busy.value, "a quick control looked again"
    return took


def redraw(explore):
    def ask(at):
        box, places = explore(), at.pick(5, 2)
        box.wait()
        redraws(box, places)
        took = redraws(box, places)
        middle, worst = statistics.median(took), max(took)
        seconds, goal = max((middle, MEDIAN), (worst, WORST), key=lambda m: m[0] / m[1])
        return Found(
            seconds,
            goal,
            seconds / goal,
            (min(took) / MEDIAN, worst / WORST),
            f"{len(took)} redraws, median {1000 * middle:.0f} ms, worst {1000 * worst:.0f} ms",
        )

    return ask


def answer(how, goal):
    "From moving the window to the picture: the new window is read and embedded, then asked."

    def ask(at):
        box, took = import_module(MODULES[1]).explore_saliency(), []
        box.controls["how"].value = how
        box.wait()
        for k in range(at.pick(4, 1)):
            started = time.perf_counter()
            box.overview.boxes = [[16 * k + 8, 24 * k, 16 * k + 264, 24 * k + 256]]
            assert "looking" in box.busy.value, "no busy sign"
            box.wait()
            took.append(time.perf_counter() - started)
        middle = statistics.median(took)
        return Found(
            middle,
            goal,
            middle / goal,
            (min(took) / goal, max(took) / goal),
            f"{len(took)} windows, worst {max(took):.2f} s",
        )

    return ask


for module in map(import_module, MODULES):
    for name in module.__all__:
        if name.startswith("explore_"):
            question(f"explorer redraw, {name}: median 150 ms, worst 400 ms", "<= 1", "cpu")(
                redraw(getattr(module, name))
            )

for how, goal in dict(
    saliency=1, gradcam=1, guided_backprop=1, integrated_gradients=10, occlusion=10
).items():
    question(f"explorer answer, {how}: {goal} s", "<= 1", "cpu")(answer(how, goal))


if __name__ == "__main__":
    sys.exit(main())
