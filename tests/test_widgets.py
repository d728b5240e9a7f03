"Panels, driven as a reader would: every control to both ends and the middle, in all combinations."

import gc
import itertools
import sys

import ipywidgets as W
import numpy as np
import pytest

from rsssl_nb.figures import show_bars, show_curves, show_heat
from rsssl_nb.widgets.panel import control, panel, png, slider


def stops(widget):
    "Where a test puts a control: both ends and the middle of a slider, all choices of a menu or tick box."
    if isinstance(widget, W.Checkbox):
        return [False, True]
    if hasattr(widget, "options"):
        return [o[1] if isinstance(o, tuple) else o for o in widget.options]
    step = widget.step
    return [widget.min, widget.min + step * round((widget.max - widget.min) / 2 / step), widget.max]


def drive(box):
    "Moves a panel through all combinations of stops; gives the picture's bytes by setting."
    seen = {}
    for setting in itertools.product(*map(stops, box.controls.values())):
        for widget, value in zip(box.controls.values(), setting):
            widget.value = value
        assert (
            box.view.value[:8] == b"\x89PNG\r\n\x1a\n"
            and box.trouble.value == ""
            and box.view.layout.display is None
        ), setting
        seen[setting] = bytes(box.view.value)
    return seen


def wave(n, phase, shape, both):
    t = np.linspace(0, 6, n)
    curves = {"a": getattr(np, shape)(t + phase)}
    return show_curves({**curves, "b": t} if both else curves, title=f"{n} {phase:.2f}")


def open_figures():
    pyplot = sys.modules.get("matplotlib.pyplot")
    return pyplot.get_fignums() if pyplot else []


def test_every_control_to_both_ends_and_the_middle_in_all_combinations():
    box = panel(wave, n=(2, 9), phase=(0.0, 3.0), shape=["sin", "cos"], both=False)
    seen = drive(box)
    assert len(seen) == 3 * 3 * 2 * 2 and len(set(seen.values())) == len(seen), (
        "two settings show the same picture"
    )
    assert open_figures() == []


def test_the_same_setting_shows_the_same_picture_again():
    box = panel(wave, n=(2, 9), phase=(0.0, 3.0), shape=["sin"], both=True)
    first = drive(box)
    assert drive(box) == first


def test_drawing_receives_values_by_name_once_per_move():
    calls = []

    def draw(**values):
        calls.append(values)
        return show_bars({"a": values["x"]})

    box = panel(draw, x=(0, 10), kind=["p", "q"])
    assert calls == [dict(x=5, kind="p")]
    box.controls["x"].value = 7
    box.controls["x"].value = 7  # not a move
    box.controls["kind"].value = "q"
    assert calls[1:] == [dict(x=7, kind="p"), dict(x=7, kind="q")]


def failing(x):
    if x == 0:
        raise ValueError("x is <0>; give more.")
    return show_bars({"x": x})


def test_an_error_is_shown_and_raised_and_no_old_picture_stays():
    box = panel(failing, x=(0, 2))
    with pytest.raises(ValueError, match="give more"):
        box.controls["x"].value = 0
    assert (
        "ValueError" in box.trouble.value and "&lt;0&gt;" in box.trouble.value
    )  # shown as text, not as markup
    assert box.view.value == b"" and box.view.layout.display == "none"
    box.controls["x"].value = 2
    assert box.trouble.value == "" and box.view.value[:4] == b"\x89PNG" and box.view.layout.display is None


def test_an_error_in_the_first_drawing_is_raised():
    with pytest.raises(ZeroDivisionError):
        panel(lambda x: 1 / 0, x=(0, 1))
    with pytest.raises(TypeError):
        panel(lambda y: None, x=(0, 1))


def test_what_is_no_figure_is_an_error():
    with pytest.raises(AttributeError):
        panel(lambda x: "a picture", x=(0, 1))


@pytest.mark.parametrize(
    "value, kind, start",
    [
        ((0, 10), W.IntSlider, 5),
        ((0, 1.0), W.FloatSlider, 0.5),
        ((0.0, 1.0, 0.1), W.FloatSlider, 0.5),
        ((1, 9, 4), W.IntSlider, 5),
        (["a", "b"], W.Dropdown, "a"),
        ([("first", 1), ("second", 2)], W.Dropdown, 1),
        (True, W.Checkbox, True),
        (False, W.Checkbox, False),
    ],
)
def test_plain_values_become_controls(value, kind, start):
    made = control("name", value)
    assert type(made) is kind and made.value == pytest.approx(start) and made.description == "name"


def test_widgets_are_kept_and_named_once():
    own, named = W.IntSlider(value=3), W.IntSlider(description="mine")
    assert control("x", own) is own and own.description == "x" and own.value == 3
    assert control("x", named).description == "mine"


@pytest.mark.parametrize("value", [3, "abc", None, (1,), (1, 2, 3, 4), ("a", "b"), [], {}])
def test_other_values_say_what_to_give(value):
    with pytest.raises(ValueError, match="control 'x' is .*; give"):
        control("x", value)


@pytest.mark.parametrize("low, high", [(1, 1), (2, 1), (1.0, 0.0), (0.0, float("nan"))])
def test_a_slider_needs_room(low, high):
    with pytest.raises(ValueError, match="low below high"):
        slider(low, high)


@pytest.mark.parametrize(
    "low, high, step",
    [
        (0, 1, None),
        (0, 3, None),
        (-5, 5, None),
        (0.02, 2.0, None),
        (0, 10, 4),
        (-1.0, 1.0, 0.3),
        (1e-4, 1e-3, None),
    ],
)
def test_sliders_start_inside_and_wait_for_release(low, high, step):
    made = slider(low, high, step)
    assert (
        low <= made.value <= high and (made.min, made.max) == (low, high) and made.continuous_update is False
    )
    assert abs(made.value - (low + high) / 2) <= made.step


def test_png_is_small_tight_and_repeats():
    import io

    from PIL import Image

    def draw():
        return show_heat(np.arange(-8.0, 8).reshape(4, 4))

    data = png(draw())
    assert data == png(draw()) and max(Image.open(io.BytesIO(data)).size) < 80 * 6
    from matplotlib.figure import Figure

    plain = Figure(figsize=(2, 2), dpi=300)
    plain.add_subplot().plot([0, 1])
    assert max(Image.open(io.BytesIO(png(plain))).size) < 80 * 2.5


def test_pictures_are_let_go():
    from matplotlib.figure import Figure

    box = panel(wave, n=(2, 40), phase=(0.0, 1.0), shape=["sin"], both=False)

    def alive():
        gc.collect()
        return sum(issubclass(type(o), Figure) for o in gc.get_objects())

    before = alive()
    for n in range(2, 20):
        box.controls["n"].value = n
    assert alive() <= before


def test_panels_do_not_share_controls():
    a, b = panel(failing, x=(1, 9)), panel(failing, x=(1, 9))
    before = b.view.value
    a.controls["x"].value = 9
    assert b.controls["x"].value == 5 and b.view.value == before and a.view.value != before


def test_boxes_share_plain_values_and_a_picture():
    from rsssl_nb.widgets.boxes import Boxes, boxes, image_png

    made = boxes(np.arange(2 * 6 * 9).reshape(2, 6, 9), [(1, 1, 4, 5)], label="two bands")
    assert (
        isinstance(made, Boxes)
        and made.extent == [0, 0, 9, 6]
        and made.boxes == [[1, 1, 4, 5]]
        and made.turns == [0]
    )
    import io

    from PIL import Image

    assert Image.open(io.BytesIO(made.image)).size == (9, 6)
    assert image_png(np.zeros((6, 9, 3))) == image_png(np.zeros((6, 9, 3)))
    moves = []
    made.observe(lambda change: moves.append(change.name), ["boxes", "extent", "image"])
    made.show(np.zeros((1, 4, 4)), (100, 200, 104, 204))
    assert sorted(moves) == ["extent", "image"] and made.boxes == [[1, 1, 4, 5]]


def test_the_script_asks_nobody_and_writes_no_markup():
    from rsssl_nb.widgets.boxes import SCRIPT, STYLE

    text = (SCRIPT.read_text(encoding="utf-8") + STYLE.read_text(encoding="utf-8")).replace(
        "http://www.w3.org/2000/svg", ""
    )
    assert len(text) > 5000
    for word in (
        "http",
        "//",
        "import ",
        "fetch(",
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
    ):
        assert word not in text.replace("// ", ""), word


@pytest.mark.parametrize(
    "transform", [(0.5, 0, 391000, 0, -0.5, 5820000), (0.3, 0.4, 10, 0.4, -0.3, -7), (1, 0, 0, 0, 1, 0)]
)
def test_boxes_on_the_map_against_rasterio(transform):
    from rasterio import Affine

    from rsssl_nb.mapping.boxes import to_map_coordinates
    from rsssl_nb.widgets.boxes import as_geojson

    points = np.random.default_rng(0).uniform(0, 500, (7, 2))
    assert np.allclose(to_map_coordinates(transform, points), [Affine(*transform) @ p for p in points])
    ring = as_geojson([[3, 4, 10, 20]], ["<a>"], transform, "EPSG:32633", [2])["features"][0]
    assert np.allclose(
        ring["geometry"]["coordinates"][0],
        [Affine(*transform) @ p for p in ((3, 4), (10, 4), (10, 20), (3, 20), (3, 4))],
    ) and ring["properties"] == {"name": "<a>", "pixels": [3, 4, 10, 20], "turns": 2}
    assert as_geojson([[3, 4, 10, 20]], ["a"], transform, None)["features"][0]["geometry"]["coordinates"][0][
        0
    ] == [3, 4]  # no system: pixels


def test_script_and_style_are_files_that_ship_with_the_package():
    from pathlib import Path

    import rsssl_nb
    from rsssl_nb.widgets.boxes import SCRIPT, STYLE, Boxes, boxes

    here = Path(rsssl_nb.__file__).parent / "widgets"
    assert (Path(SCRIPT), Path(STYLE)) == (here / "boxes.js", here / "boxes.css")
    made = boxes(np.zeros((1, 4, 4)))
    assert made._esm == SCRIPT.read_text(encoding="utf-8") and made._css == STYLE.read_text(encoding="utf-8")
    assert isinstance(made, Boxes)
    setup = Path(rsssl_nb.__file__).parents[1] / "setup.py"
    if setup.exists():
        assert '"widgets/*.js", "widgets/*.css"' in setup.read_text(encoding="utf-8")


def test_old_spellings_say_where_the_name_lives_now():
    from rsssl_nb.moved import moved_names
    from rsssl_nb.widgets import boxes, frame
    from rsssl_nb.widgets.explorer import Explorer

    with pytest.warns(DeprecationWarning, match="frame.redraw lives in rsssl_nb.widgets.explorer now"):
        assert frame.redraw is Explorer.redraw
    with pytest.warns(DeprecationWarning, match="import Explorer"):
        assert frame.explorer is Explorer
    for name in moved_names("widgets.frame"):
        with pytest.warns(DeprecationWarning, match=f"frame.{name} lives in"):
            assert getattr(frame, name) is not None
    with pytest.warns(DeprecationWarning, match="import checked_boxes"):
        assert boxes.checked is boxes.checked_boxes
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        frame.nothing  # noqa: B018
