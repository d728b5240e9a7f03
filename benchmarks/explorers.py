"How long a reader waits after a control of an explorer has moved that changes neither image, layer nor method: the median over their stops, against 150 ms."
import sys, time
from importlib import import_module

from measure import Found, Skip, main, question, statistics

LIMIT = 0.150
MODULES = ("rsssl_nb.widgets.explorers", "rsssl_nb.widgets.features")


def stops(control):
    "Where a control can go: all of a menu's choices, a box's two states, five places of a slider."
    if hasattr(control, "options"): return [o[1] if isinstance(o, tuple) else o for o in control.options]
    if isinstance(control.value, bool): return [False, True]
    return [type(control.value)(control.min + k * (control.max - control.min) / 4) for k in (0, 3, 1, 4, 2)]


def redraws(box, places):
    "Seconds of every redraw, each control through so many of its stops, twice."
    took = []
    for control in (c for n, c in box.controls.items() if n not in box.slow):
        for value in 2 * stops(control)[:places]:
            if value == control.value: continue
            started = time.perf_counter()
            control.value = value
            took.append(time.perf_counter() - started)
    return took


def wait(explore):
    def ask(at):
        box, places = explore(), at.pick(5, 1)
        redraws(box, places)
        took = redraws(box, places)
        if not took: raise Skip(f"{explore.__name__} has no quick control that moves")
        middle = statistics.median(took)
        return Found(middle, LIMIT, middle / LIMIT, (min(took) / LIMIT, max(took) / LIMIT), f"{len(took)} redraws, worst {max(took):.2f} s")
    return ask


for module in map(import_module, MODULES):
    for name in module.__all__:
        if name.startswith("explore_"): question(f"explorer redraw, {name}: 150 ms", "<= 1", "cpu")(wait(getattr(module, name)))


if __name__ == "__main__": sys.exit(main())
