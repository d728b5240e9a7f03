"Figures: arrays of every kind in, a small picture with nothing cut off out, and pyplot never involved."

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rsssl_nb.colours import CLASS_COLOURS, OKABE_ITO, as_array, as_rgb, palette, stretch
from rsssl_nb.figures import (
    Picture,
    as_polygons,
    label_colours,
    new_axes,
    outline_cells,
    shade_range,
    show_bars,
    show_boxes,
    show_confusion,
    show_curves,
    show_grid,
    show_heat,
    show_image,
    show_images,
    show_labels,
    show_matrix,
)
from rsssl_nb.notebook import smaller

rng = np.random.default_rng(0)
image = rng.random((4, 20, 30)).astype("float32")
labels = np.arange(600).reshape(20, 30) % 3
labels[0] = 255
CLASSES = ("water", "a class with a rather long name", "town")


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture._repr_png_())).convert("RGB")).astype(int)


def cut_off(picture):
    "Whether anything but white touches the picture's rim."
    p = pixels(picture)
    return bool((np.concatenate([p[0], p[-1], p[:, 0], p[:, -1]]) < 250).any())


PICTURES = {
    "image": lambda: show_image(image, title="a title that is a good deal longer than the picture below it"),
    "grey": lambda: show_image(image[:1]),
    "matrix as image": lambda: show_image(image[0]),
    "colours": lambda: show_image(image[:3].transpose(1, 2, 0)),
    "wide": lambda: show_image(image[:, :2]),
    "one pixel": lambda: show_image(np.ones((3, 1, 1))),
    "masked": lambda: show_image(image, mask=labels == 255),
    "large": lambda: show_image(rng.random((3, 600, 400))),
    "images": lambda: show_images([image, image[:1], image[:3].transpose(1, 2, 0)], ["a", "b"], cols=2),
    "bands": lambda: show_images([image], bands=(3, 0, 1)),
    "labels": lambda: show_labels(labels, CLASSES),
    "labels and image": lambda: show_labels(labels, CLASSES, image=image),
    "own colours": lambda: show_labels(labels, CLASSES, ["#123456", "red", (0, 0.5, 1)]),
    "matrix": lambda: show_matrix(
        rng.random((6, 6)), np.eye(6) > 0, "a matrix", [f"a long name {i}" for i in range(6)]
    ),
    "named marks": lambda: show_matrix(
        rng.random((40, 40)),
        {"own": np.eye(40) > 0, "others": np.eye(40, k=3) > 0, "none": np.zeros((40, 40))},
        center=0,
    ),
    "whole numbers": lambda: show_matrix(np.eye(3)),
    "flat matrix": lambda: show_matrix(np.ones((2, 5)), center=1),
    "NaN matrix": lambda: show_matrix(np.full((3, 3), np.nan)),
    "boxes": lambda: show_boxes(image, [[0, 0, 30, 20], [0, 0, 10, 10]], ["all of it, and a long name", "b"]),
    "no boxes": lambda: show_boxes(image, np.zeros((0, 4))),
    "outside": lambda: show_boxes(image, [[-5, -5, 35, 30]], ["beyond"]),
    "polygons": lambda: show_boxes(image, rng.random((3, 4, 2)) * 20, "abc"),
    "heat": lambda: show_heat(rng.normal(size=(8, 8)), title="heat"),
    "heat on image": lambda: show_heat(rng.normal(size=(4, 6)), image, box=[2, 2, 20, 10], contour=0.3),
    "mask edge": lambda: show_heat(rng.normal(size=(8, 8)), image, contour=np.eye(4) > 0),
    "zero heat": lambda: show_heat(np.zeros((5, 5)), image[:3]),
    "heat with NaN": lambda: show_heat(np.where(labels == 255, np.nan, labels - 1.0), image),
    "curves": lambda: show_curves(
        {"a": [1, 0.5, 0.2], "runs": rng.random((4, 3)), "pair": ([0, 2], [0.1, 0.3])},
        xlabel="epoch",
        ylabel="a long name for a loss",
        title="t",
        logy=True,
    ),
    "one point": lambda: show_curves({"a": [1.0]}),
    "no curves": lambda: show_curves({}),
    "nineteen": lambda: show_curves({f"curve number {i}": [i, i + 1] for i in range(19)}),
    "bars": lambda: show_bars(
        {"one with a long name": [0.1, 0.2], "two": 0.5, "below": -0.3}, xlabel="mIoU", title="t"
    ),
    "confusion": lambda: show_confusion(np.array([[5, 1, 0], [0, 0, 0], [1, 1, 9]]), CLASSES),
    "grid": lambda: show_grid(
        [
            lambda ax: show_image(image, ax=ax),
            lambda ax: show_heat(image[0] - 0.5, ax=ax),
            lambda ax: show_labels(labels, CLASSES, ax=ax),
        ],
        2,
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_shows_itself_whole_and_small(name):
    picture = PICTURES[name]()
    data = picture._repr_png_()
    shown = Image.open(io.BytesIO(data))
    assert isinstance(picture, Picture) and data[:4] == b"\x89PNG" and len(data) < 150_000
    assert max(shown.size) <= 1000 and len(np.unique(pixels(picture))) > 5
    assert not cut_off(picture)
    assert pixels(picture).tolist() == pixels(picture).tolist()  # showing twice shows the same


def test_pictures_leave_pyplot_alone_and_matplotlib_unloaded_until_drawn():
    code = """import sys
import numpy as np
from rsssl_nb.colours import palette, stretch
from rsssl_nb.figures import show_image
stretch(np.ones((3, 4, 4)))
palette(3)
before = 'matplotlib' in sys.modules
show_image(np.ones((3, 4, 4)))._repr_png_()
print(before, 'matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False", "False"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64])
def test_tensors_of_any_kind_are_seen_as_arrays(dtype):
    x = (torch.arange(48).reshape(3, 4, 4)).to(dtype)
    assert np.allclose(stretch(x), stretch(x.float().numpy()), atol=1e-6)
    assert as_array(x).shape == (3, 4, 4) and as_array(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


def test_drawing_changes_no_input():
    x, y = torch.rand(3, 8, 8), rng.normal(size=(8, 8))
    x[0, 0, 0] = float("nan")
    kept = x.clone(), y.copy()
    show_heat(y, x, contour=0.0)
    show_image(x, mask=y > 0)
    show_matrix(y, y > 0)
    assert torch.equal(x.nan_to_num(), kept[0].nan_to_num()) and (y == kept[1]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_stretch_always_gives_colours(c, h, w, seed):
    g = np.random.default_rng(seed)
    x = np.where(g.random((c, h, w)) < 0.2, np.nan, g.normal(size=(c, h, w)) * 10.0 ** g.integers(-6, 6))
    mask = g.random((h, w)) < 0.3
    rgb = stretch(x, mask=mask)
    used = x[[0, 1, 2]] if c > 2 else x[:1]
    hole = mask | np.isnan(used).any(0)
    assert rgb.shape == (h, w, 3) and rgb.min() >= 0 and rgb.max() <= 1
    assert (rgb[hole] == 0.85).all()


def test_stretch_puts_black_and_white_at_the_percentiles():
    ramp = np.arange(101.0).reshape(1, 1, 101)
    shade = stretch(ramp)[0, :, 0]
    assert shade[2] == 0 and shade[98] == 1 and 0 < shade[3] < shade[97] < 1 and np.isclose(shade[50], 0.5)
    assert (stretch(ramp, low=0, high=100)[0, :, 0] == ramp[0, 0] / 100).all()


def test_what_is_hidden_does_not_move_the_stretch():
    x = rng.random((3, 10, 10))
    glare = x.copy()
    glare[:, 0] = 1e6
    mask = np.zeros((10, 10), bool)
    mask[0] = True
    assert np.array_equal(stretch(glare, mask=mask)[1:], stretch(np.where(mask, np.nan, x))[1:])


def test_bands_are_the_colours_asked_for():
    assert np.array_equal(stretch(image, bands=(3, 0, 1)), stretch(image[[3, 0, 1]]))
    grey = stretch(image, bands=2)
    assert np.array_equal(grey, stretch(image[2:3])) and (grey[..., 0] == grey[..., 2]).all()
    assert np.array_equal(
        as_rgb(np.full((5, 5, 3), 2.0)), np.ones((5, 5, 3))
    )  # (H,W,3) is clipped, not stretched


@pytest.mark.parametrize(
    "draw, says",
    [
        (lambda: stretch(image[0]), "give (C,H,W)"),
        (lambda: stretch(image, bands=(0, 1, 9)), "name bands from 0 to 3"),
        (lambda: show_labels(labels, CLASSES[:2]), "label 2 but 2 classes"),
        (lambda: show_labels(labels - 300, CLASSES), "labels are 0 to 2, or 255"),
        (lambda: show_heat(image), "one map"),
        (lambda: show_boxes(image, [1, 2, 3, 4]), "x0 y0 x1 y1"),
        (lambda: show_grid([]), "0 drawings"),
        (lambda: show_confusion(np.eye(3), "ab"), "(3, 3) for 2 classes"),
        (lambda: show_curves({"a": [1, 2]}, x=[1]), "2 values at 1 places"),
    ],
)
def test_errors_name_the_value_and_the_cure(draw, says):
    with pytest.raises(ValueError) as error:
        draw()
    assert says in str(error.value)


def test_palette_is_distinct_and_survives_colour_blindness():
    assert palette(16) == CLASS_COLOURS and len(set(palette(16))) == 16
    assert palette(17)[16] == palette(1)[0] and palette(0) == [] and palette(8) == OKABE_ITO
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in OKABE_ITO])
    deuteranopia = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    protanopia = np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    )
    for seen in (rgb, rgb @ deuteranopia.T, rgb @ protanopia.T):
        assert (np.linalg.norm(seen[:, None] - seen, axis=-1) + 9 * np.eye(8)).min() > 0.15


def test_labels_are_drawn_in_their_colours_and_ignored_pixels_hatched():
    rgb = label_colours(labels, palette(3))
    assert (rgb[labels == 255] == 1).all() and np.allclose(rgb[labels == 1][0] * 255, [0xE6, 0x9F, 0x00])

    def texts(shown):
        return [t.get_text() for t in show_labels(shown, CLASSES).axes[0].get_legend().get_texts()]

    assert texts(labels) == [*CLASSES, "no label"] and texts(np.where(labels == 255, 0, labels)) == list(
        CLASSES
    )
    flat = np.zeros((20, 20), int)
    plain, hatched = (
        pixels(show_labels(flat, "a", ["white"])),
        pixels(show_labels(flat + 255, "a", ["white"])),
    )
    assert (hatched[:200, :200] < 200).sum() > (plain[:200, :200] < 200).sum() + 500


def test_white_is_the_centre():
    assert shade_range(np.array([3.0, 4.0]), 0) == dict(cmap="RdBu_r", vmin=-4.0, vmax=4.0)
    assert (
        shade_range(np.array([3.0, 4.0]), 3.5)["vmin"] == 3.0
        and shade_range(np.array([2.0]), None)["vmax"] == 3.0
    )
    assert shade_range(np.full(3, np.nan), 0) == dict(cmap="RdBu_r", vmin=-1.0, vmax=1.0)
    shown = show_heat(np.array([[-1.0, 0.0], [0.5, 2.0]])).axes[0].images[0]
    low, zero, high = (np.array(shown.to_rgba(v)[:3]) for v in (-1, 0, 2))
    assert zero.min() > 0.95 and low[2] > low[0] and high[0] > high[2]


def test_heat_fades_to_the_image_at_zero():
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    over = show_heat(heat, image).axes[0].images[1]
    assert (
        over.get_alpha()[0, 0] == 0.85 and over.get_alpha()[3, 3] == 0 and over.get_extent() == [0, 30, 20, 0]
    )


def test_marked_cells_are_outlined_where_they_are():
    ax = new_axes()
    outline_cells(ax, np.eye(3, k=1) > 0, "#111111", 0.1)
    centres = [tuple(np.round(p.vertices[:4].mean(0), 6)) for p in ax.collections[0].get_paths()]
    assert centres == [(1, 0), (2, 1)]  # x is the column, y the row
    legend = show_matrix(np.eye(4), {"on": np.eye(4), "off": np.eye(4) < 1}).axes[0].get_legend()
    assert [t.get_text() for t in legend.get_texts()] == ["on (4)", "off (12)"]


def test_numbers_are_printed_in_small_matrices_and_readable():
    ax = show_matrix(np.array([[0.0, 1.0], [0.5, 0.25]])).axes[0]
    assert [t.get_text() for t in ax.texts] == ["0.00", "1.00", "0.50", "0.25"]
    assert [t.get_color() for t in ax.texts][:2] == ["0.1", "white"] and len(
        show_matrix(np.ones((9, 9))).axes[0].texts
    ) == 0


def test_boxes_lie_on_pixel_corners_and_first_corners_have_dots():
    assert as_polygons(torch.tensor([[1, 2, 5, 7]])).tolist() == [[[1, 2], [5, 2], [5, 7], [1, 7]]]
    ax = show_boxes(image, [[1, 2, 5, 7]], ["a"]).axes[0]
    assert (
        ax.lines[1].get_xydata().tolist() == [[1, 2], [5, 2], [5, 7], [1, 7], [1, 2]] and len(ax.lines) == 2
    )
    assert ax.images[0].get_extent() == [0, 30, 20, 0] and ax.get_ylim() == (20, 0)
    turned = show_boxes(image, [[[9, 1], [9, 5], [3, 5], [3, 1]]]).axes[0]
    assert turned.lines[-1].get_marker() == "o" and turned.lines[-1].get_xydata().tolist() == [[9, 1]]


def test_curves_show_mean_and_range_of_runs():
    ax = show_curves({"runs": [[1.0, 2.0], [3.0, 6.0]], "pair": ([4, 5, 6], [1, 1, 1])}, x=[10, 20]).axes[0]
    assert ax.lines[0].get_xydata().tolist() == [[10, 2], [20, 4]] and ax.lines[1].get_xydata()[
        :, 0
    ].tolist() == [4, 5, 6]
    band = ax.collections[0].get_paths()[0].vertices
    assert {(10.0, 1.0), (10.0, 3.0), (20.0, 2.0), (20.0, 6.0)} <= set(map(tuple, band))
    assert (
        ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
        and show_curves({"a": [1]}, logy=True).axes[0].get_yscale() == "log"
    )


def test_confusion_is_in_percent_of_the_true_class():
    ax = show_confusion(np.array([[3, 1], [0, 0]]), "ab").axes[0]
    assert [t.get_text() for t in ax.texts] == ["75", "25", "–", "–"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("true", "predicted")


def test_large_pictures_are_reduced_and_stay_close():
    def encode(a):
        out = io.BytesIO()
        Image.fromarray(a).save(out, "png")
        return out.getvalue()

    noisy = encode(np.clip(rng.normal(128, 12, (300, 300, 3)), 0, 255).astype("uint8"))
    small = smaller(noisy)
    a, b = (np.asarray(Image.open(io.BytesIO(d)).convert("RGB")).astype(int) for d in (noisy, small))
    assert len(small) < len(noisy) / 2 and np.abs(a - b).mean() < 6
    assert smaller(encode(np.zeros((20, 20, 3), "uint8"))) == encode(np.zeros((20, 20, 3), "uint8"))


def test_a_small_flat_patch_keeps_its_colour_in_256_colours():
    picture = np.clip(rng.normal(128, 40, (300, 300, 3)), 0, 255).astype("uint8")
    picture[:150, :150], picture[200:206, 200:206] = (226, 169, 41), (230, 175, 60)
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "png")
    kept = np.asarray(Image.open(io.BytesIO(smaller(out.getvalue()))).convert("RGB"))
    assert kept[203, 203].tolist() == [230, 175, 60] and kept[9, 9].tolist() == [226, 169, 41]


def test_colours_that_moved_are_still_found():
    from rsssl_nb import colours, figures

    with pytest.warns(DeprecationWarning, match="figures.stretch lives in rsssl_nb.colours now"):
        assert figures.stretch is colours.stretch
    assert figures.as_rgb is colours.as_rgb and figures.palette is colours.palette
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        figures.nothing  # noqa: B018
