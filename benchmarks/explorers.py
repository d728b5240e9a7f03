"How long a reader waits after a control of an explorer has moved: the median over all controls and their stops, against 150 ms."
import sys, time
from importlib.util import find_spec

from measure import Found, Skip, main, question, statistics

LIMIT = 0.150
THERE = find_spec("rsssl_nb.widgets.explorers") is not None


def stops(control):
    "Where a control can go: all of a menu's choices, a box's two states, five places of a slider."
    if hasattr(control, "options"): return [o[1] if isinstance(o, tuple) else o for o in control.options]
    if isinstance(control.value, bool): return [False, True]
    return [type(control.value)(control.min + k * (control.max - control.min) / 4) for k in (0, 3, 1, 4, 2)]


def redraws(box, places):
    "Seconds of every redraw, each control through so many of its stops, twice."
    took = []
    for control in box.controls.values():
        for value in 2 * stops(control)[:places]:
            if value == control.value: continue
            started = time.perf_counter()
            control.value = value
            took.append(time.perf_counter() - started)
    return took


def wait(name):
    def ask(at):
        from rsssl_nb.widgets import explorers
        box = getattr(explorers, name)()
        if not getattr(box, "controls", None): raise Skip(f"{name} has no controls to move")
        places = at.pick(5, 1)
        redraws(box, places)
        took = redraws(box, places)
        if not took: raise Skip(f"{name} has no control that moves")
        middle = statistics.median(took)
        return Found(middle, LIMIT, middle / LIMIT, (min(took) / LIMIT, max(took) / LIMIT), f"{len(took)} redraws")
    return ask


def names():
    "The explorers there are."
    if not THERE: return []
    from rsssl_nb.widgets import explorers
    return [n for n in explorers.__all__ if n.startswith("explore_")]


for name in names(): question(f"explorer redraw, {name}: 150 ms", "<= 1", "cpu")(wait(name))


if not THERE:
    @question("explorer redraw: 150 ms", "<= 1", "cpu")
    def absent(at): raise Skip("the explorers are not there yet")


if __name__ == "__main__": sys.exit(main())
