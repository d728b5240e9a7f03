"Every explorer without a browser: all pairs of control stops, bad input, settings, threads, memory."

import gc
import html
import itertools
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_widgets import open_figures, stops

from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster, write_scene
from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.explain.readout import (
    features_at,
    label_maps,
    linear_read_out,
    right_share,
)
from rsssl_nb.figures import picture_type
from rsssl_nb.methods.glcnet import GLCNet
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.training.knn import cell_labels
from rsssl_nb.views.geometry import view_affine
from rsssl_nb.views.pairs import overlap_iou
from rsssl_nb.widgets import explorer
from rsssl_nb.widgets.explorer import Explorer
from rsssl_nb.widgets.explorers import (
    boxed_pair,
    class_entropy,
    explore_negatives,
    explore_pair,
    explore_regions,
    explore_temperature,
    guided_region,
    perplexity,
    random_entropy,
    row_weights,
    same_class,
    suspect_scores,
)
from rsssl_nb.widgets.features import (
    explore_labels,
    explore_matches,
    explore_saliency,
    match_quality,
    see_dense,
    true_match,
)
from rsssl_nb.widgets.ground import (
    SMALL,
    Ground,
    band_levels,
    find_sources,
    open_ground,
    sampled_picture,
    whole_picture,
    window_corners,
)
from rsssl_nb.widgets.networks import embedded_rows, network_menu, open_network
from rsssl_nb.widgets.pictures import collected_at_once, fast_png, show_over, show_row

SCENE = make_scene(160, seed=1)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    made = GraSS(Encoder("resnet18", 4, 8, 8))
    made.title = "<b>own</b>"
    return made


MAKE = dict(
    temperature=lambda s, n: explore_temperature(s, n, n=4, size=32),
    pair=lambda s, n: explore_pair(s, 32, 64),
    regions=lambda s, n: explore_regions(s, n, 64, n=2),
    negatives=lambda s, n: explore_negatives(s, n, n=4, size=32),
    matches=lambda s, n: explore_matches(s, n, 64),
    saliency=lambda s, n: explore_saliency(s, n, 64),
    labels=lambda s, n: explore_labels(s, n, window=64),
)
each = pytest.mark.parametrize("name", MAKE)


def make(name, source=SCENE, nets=()):
    box = MAKE[name](source, nets)
    if name == "labels" and box.seen:
        box.canvas.points = [
            [box.canvas.extent[0] + 10.0, box.canvas.extent[1] + 10.0, 0],
            [box.canvas.extent[0] + 50.0, box.canvas.extent[1] + 40.0, 2],
        ]
    return box


def good(box):
    box.wait()
    return (
        box.trouble.value == ""
        and bytes(box.view.value[:4]) == b"\x89PNG"
        and box.view.layout.display is None
        and box.busy.value == ""
    )


def all_pairs(choices):
    "Rows of values, one for each of `choices`: every two values of different columns meet at least once."
    left = {
        ((i, a), (j, b))
        for i, j in itertools.combinations(range(len(choices)), 2)
        for a in range(len(choices[i]))
        for b in range(len(choices[j]))
    }
    while left:
        row = dict(min(left))
        for i in set(range(len(choices))) - set(row):
            row[i] = max(
                range(len(choices[i])),
                key=lambda a: sum((tuple(sorted([(i, a), cell]))) in left for cell in row.items()),
            )
        left -= {pair for pair in itertools.combinations(sorted(row.items()), 2)}
        yield [choices[i][a] for i, a in sorted(row.items())]


def test_all_pairs_meets_every_pair_in_few_rows():
    choices = [[0, 1, 2]] * 4 + [["a", "b"]]
    rows = list(all_pairs(choices))
    met = {(i, r[i], j, r[j]) for r in rows for i, j in itertools.combinations(range(5), 2)}
    assert len(met) == 6 * 9 + 4 * 6 and len(rows) < 20


@each
def test_every_control_to_both_ends_and_the_middle_pairwise(name, net):
    box = make(name, nets=[net])
    assert good(box)
    choices = [[0, 3, 5] if n == "klass" else stops(c) for n, c in box.controls.items()]
    choices = [
        v if len(v) < 4 or n == "how" else [v[0], v[len(v) // 2], v[-1]]
        for n, v in zip(box.controls, choices)
    ]
    seen = set()
    for row in all_pairs(choices) if len(choices) > 1 else [[v] for v in choices[0]]:
        with box.silent():
            for control, value in zip(box.controls.values(), row):
                control.value = value
        box.redraw()
        assert good(box), (row, box.trouble.value)
        seen.add(bytes(box.view.value))
    assert len(seen) > 2 and open_figures() == []
    box.close()


FAST = dict(
    temperature=["tau", "anchor"],
    pair=["points"],
    regions=["threshold", "sign"],
    negatives=["anchor", "alpha", "threshold", "rule"],
    matches=["around"],
    saliency=["opacity", "bands"],
    labels=["lam"],
)


@each
def test_quick_controls_do_not_look_again(name, net):
    box = make(name, nets=[net])
    assert good(box)
    seen, pictures = box.seen, set()
    for n in FAST[name]:
        for value in stops(box.controls[n])[::-1]:
            box.controls[n].value = value
            pictures.add(bytes(box.view.value))
    assert box.seen is seen and len(pictures) > len(FAST[name]) - (name == "labels")
    assert set(FAST[name]) | set(box.slow) | {"click"} >= set(box.controls)


@each
def test_settings_and_picture_come_back(name, net, tmp_path):
    box = make(name, nets=[net])
    n = FAST[name][0]
    box.controls[n].value = stops(box.controls[n])[0]
    if "boxes" in box.shared:
        box.canvas.boxes = [[v + 3 for v in b] for b in box.canvas.boxes]
    if box.window:
        box.overview.boxes = [[20, 30, 84, 94]]
    if name == "pair":
        box.canvas.turns = [1, 3]
    assert good(box)
    files, was, picture = box.save(tmp_path / "kept"), box.settings(), bytes(box.view.value)
    other = make(name, nets=[net])
    other.controls[n].value = stops(other.controls[n])[-1]
    assert good(other) and other.settings() != was
    other.restore(files[1])
    assert (
        good(other)
        and other.settings() == was
        and bytes(other.view.value) == picture == files[0].read_bytes()
    )
    assert [f.suffix for f in files] == [".png", ".json", ".geojson"]


def test_boxes_and_points_lie_on_the_ground_where_rasterio_says(tmp_path):
    from rasterio import Affine

    image, _ = write_scene(SCENE, tmp_path)
    file = Affine(*SCENE.transform)
    box = make("pair", str(image))
    box.overview.boxes = [[32, 16, 96, 80]]
    features = json.loads(box.save(tmp_path / "p")[2].read_text())["features"]
    (x0, y0, x1, y1), ring = box.canvas.boxes[1], features[2]["geometry"]["coordinates"][0]
    assert (
        np.allclose(ring, [file @ p for p in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))])
        and 32 <= x0 < x1 <= 96
    )
    assert features[0]["properties"] == {"name": "window", "pixels": [32, 16, 96, 80], "turns": 0}
    box = make("labels", str(image))
    saved = json.loads(box.save(tmp_path / "l")[2].read_text())
    assert np.allclose(
        [f["geometry"]["coordinates"] for f in saved["features"]], [file @ p[:2] for p in box.canvas.points]
    )
    assert saved["crs"]["properties"]["name"] == "EPSG:32633" and [
        f["properties"]["class"] for f in saved["features"]
    ] == ["field", "roof"]


SAVED_BY_0_1_0 = """{
 "rsssl_nb": "explorer",
 "version": 1,
 "explorer": "pair",
 "source": null,
 "image": "from Python",
 "place": [
  8,
  12
 ],
 "controls": {
  "points": 5
 },
 "canvas": {
  "boxes": [
   [
    17.6,
    26.4,
    65.6,
    74.4
   ],
   [
    41.599999999999994,
    40.8,
    94.4,
    93.6
   ]
  ],
  "turns": [
   0,
   0
  ]
 }
}"""


def test_settings_saved_before_the_class_explorer_load_and_are_written_alike(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(SAVED_BY_0_1_0)
    box = explore_pair(SCENE, 48, 96)
    box.restore(path)
    assert good(box) and box.place() == (8, 12, 96) and box.canvas.boxes[0] == [17.6, 26.4, 65.6, 74.4]
    assert box.save(tmp_path / "new")[1].read_text() == SAVED_BY_0_1_0


BROKEN = {
    "newer": (dict(version=99), "newer version"),
    "no version": (dict(version=None), "newer version"),
    "another explorer": (dict(explorer="regions"), "saved by the explorer"),
    "not ours": (dict(rsssl_nb="run"), "holds no settings"),
    "extra": (dict(strange=1), "lacks or adds 'strange'"),
    "value": (dict(controls={"points": 99}), "points is 99"),
    "type": (dict(controls={"points": "4"}), "points is '4'"),
    "true": (dict(controls={"points": True}), "points is True"),
    "missing control": (dict(controls={}), "controls are not points"),
    "unknown control": (dict(controls={"points": 4, "x": 1}), "controls are not points"),
    "controls no dict": (dict(controls=[4]), "controls are not points"),
    "one box": (dict(canvas={"boxes": [[0, 0, 9, 9]], "turns": [0, 0]}), "boxes is no list"),
    "short box": (dict(canvas={"boxes": [[0, 0, 9]] * 2, "turns": [0, 0]}), "boxes is no list"),
    "text box": (dict(canvas={"boxes": [["a", 0, 9, 9]] * 2, "turns": [0, 0]}), "boxes is no list"),
    "turns": (dict(canvas={"boxes": [[0, 0, 9, 9]] * 2, "turns": ["x", 0]}), "turns is no list"),
    "source": (dict(source="no/such.tif"), "does not exist"),
    "source type": (dict(source=3), "source or place"),
    "image": (dict(image="gone"), "no image 'gone'"),
    "place": (dict(place="here"), "source or place"),
    "half a place": (dict(place=[3]), "source or place"),
    "flat box": (dict(canvas={"boxes": [[60, 60, 60, 90]] * 2, "turns": [0, 0]}), "is empty"),
}


@pytest.mark.parametrize("changed, why", BROKEN.values(), ids=BROKEN)
def test_strange_settings_are_refused_whole(changed, why, tmp_path):
    box = make("pair")
    path = box.save(tmp_path / "p")[1]
    was, picture = box.settings(), bytes(box.view.value)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(ValueError, match=why):
        box.restore(path)
    assert (
        why in html.unescape(box.trouble.value) and box.settings() == was and bytes(box.view.value) == picture
    )
    box.controls["points"].value = 9
    assert good(box)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0\0", '{"rsssl_nb": "explorer"}'])
def test_what_is_no_settings_is_refused(text, tmp_path):
    path = tmp_path / "s.json"
    path.write_text(text)
    box = make("temperature")
    with pytest.raises(InputError):
        box.restore(path)
    with pytest.raises(InputError, match="cannot be read as settings"):
        box.restore(tmp_path / "none.json")
    assert box.trouble.value and len(box.view.value)


@each
def test_bad_sources_are_said_in_place_and_a_good_one_mends_them(name, net, tmp_path):
    empty, gone = (
        tmp_path / "<i>empty",
        write_raster(tmp_path / "<b>gone.tif", np.zeros((4, 96, 96), np.uint8), nodata=0),
    )
    empty.mkdir()
    box = make(name, str(empty), [net])  # said, not raised: another can be typed in
    assert "holds no raster" in box.trouble.value and "<i>" not in box.trouble.value and not box.view.value
    for source, why in (
        (gone, "nothing but nodata"),
        (tmp_path / "no.tif", "does not exist"),
        (Path(__file__), "no TIFF, PNG or JPEG|is not|begins with"),
    ):
        with pytest.raises(InputError, match=why):
            box.source.value = str(source)
        assert (
            "InputError" in box.trouble.value
            and "<b>gone" not in box.trouble.value.replace('<b role="alert">', "")
            and not box.view.value
        )
    box.source.value = str(write_scene(SCENE, tmp_path / "good")[0])
    assert good(box) and box.image.value == "image.tif"


@each
def test_one_band_without_crs_works_and_says_that_places_are_pixels(name, tmp_path):
    grey = write_raster(tmp_path / "grey.tif", SCENE.image[:1])
    box = make(name, str(grey))
    if name == "saliency":
        box.wait()
    assert good(box) and "no CRS" in box.note.value
    if box.window:
        assert "pixels" in box.save(tmp_path / "g")[2].read_text() or name == "labels"


def test_a_busy_sign_stands_while_an_image_is_opened(tmp_path, monkeypatch):
    box, opened, said = make("pair"), explorer.open_ground, []
    monkeypatch.setattr(explorer, "open_ground", lambda *given: said.append(box.busy.value) or opened(*given))
    box.source.value = str(write_scene(SCENE, tmp_path)[0])
    assert said == [explorer.LOOKING_SIGN] and good(box)


def test_hiding_the_menu_of_one_image_hides_nothing_else():
    box = make("pair")
    assert box.image.layout.display == "none"
    assert box.source.layout.display is None and box.path.layout.display is None


def test_a_folder_lists_its_images(tmp_path):
    for k in (1, 2):
        write_raster(
            tmp_path / f"part<{k}>.tif",
            SCENE.image[:, :100, 50 * k : 50 * k + 100],
            SCENE.crs,
            SCENE.transform,
            0,
        )
    box = make("pair", str(tmp_path))
    assert list(box.image.options) == ["part<1>.tif", "part<2>.tif"] and box.image.layout.display is None
    was = bytes(box.view.value)
    box.image.value = "part<2>.tif"
    assert good(box) and bytes(box.view.value) != was


@pytest.mark.parametrize(
    "drawn, why",
    [
        ([[70, 60, 70, 90], [60, 60, 90, 90]], "box a is empty"),
        ([[60, 60, 90, 90], [60, 90, 90, 60]], "box b is empty"),
        ([[0, 0, 30, 30], [60, 60, 90, 90]], "box a leaves"),
        ([[60, 60, 90, 90], [60, 60, 9000, 90]], "box b leaves"),
        ([[float("nan"), 60, 90, 90], [60, 60, 90, 90]], "box a is empty"),
    ],
)
def test_boxes_that_cannot_be_cut(drawn, why):
    box = make("pair")
    was = box.canvas.boxes
    with pytest.raises(ValueError, match=why):
        box.canvas.boxes = drawn
    assert why in box.trouble.value and not box.view.value
    box.canvas.boxes = was
    assert good(box)


def test_disjoint_boxes_share_nothing_and_are_no_error():
    box = make("pair")
    box.canvas.boxes = [[50, 50, 70, 70], [80, 80, 110, 110]]
    assert good(box) and box.canvas.marks == [] and box.canvas.common == [0, 0, 0, 0]
    box.canvas.boxes = [[50, 50, 100, 100], [60, 60, 110, 110]]
    assert (
        box.canvas.common == [60, 60, 100, 100] and len(box.canvas.marks) == box.controls["points"].value ** 2
    )


def test_a_point_outside_the_overlap(net):
    box = make("matches", nets=[net])
    x0, y0, x1, y1 = box.canvas.common
    with pytest.raises(ValueError, match="outside the overlap"):
        box.canvas.points = [[x0 - 2, y0 - 2, 0] if min(x0, y0) > 4 else [x1 + 2, y1 + 2, 0]]
    assert "outside the overlap" in box.trouble.value
    box.canvas.points = [[(x0 + x1) / 2, (y0 + y1) / 2, 0]]
    assert good(box)


def test_networks_that_do_not_fit_are_named(tmp_path, net):
    glc = GLCNet(Encoder("resnet18", 4, 8, 8))
    box = make(
        "regions",
        nets=[
            "random",
            glc,
            SimCLR(Encoder("resnet18", 4, 8, 8)),
            Encoder("resnet18", 3, 8, 8),
            tmp_path / "none.safetensors",
        ],
    )
    for label, why in (
        ("GLCNet", "no head of SimCLR's kind"),
        ("Encoder", "takes 3 bands and the image has 4"),
        ("none.safetensors", "does not exist"),
    ):
        with pytest.raises(ValueError, match=why):
            box.controls["network"].label = label
        assert why in html.unescape(box.trouble.value)
    box.controls["network"].label = "SimCLR"
    assert good(box)
    assert good(make("temperature", nets=[glc])) and good(
        make("matches", nets=[Encoder("resnet18", 4, 8, 8)])
    )


def test_an_explorer_opens_with_the_network_it_is_given_and_saves_what_was_applied(tmp_path, net):
    box = make("regions", SCENE, [net])
    assert box.controls["network"].label != "random"
    settings = box.settings()
    settings["controls"]["network"] = "random"
    before = bytes(box.view.value)
    box.apply(settings)
    assert box.controls["network"].label == "random" and bytes(box.view.value) != before
    saved = {path.suffix: path for path in box.save(tmp_path / "seen")}
    assert saved[".png"].read_bytes() == bytes(box.view.value)
    assert json.loads(saved[".geojson"].read_text())["features"][1]["properties"]["network"] == "random"


@pytest.mark.long
def test_runs_checkpoints_and_segmenters_are_opened(image, tmp_path):
    from rsssl_nb.training.finetune import finetune
    from rsssl_nb.training.pretrain import pretrain

    options = dict(epochs=2, batch=8, samples=16, size=32, width=8, device="cpu", progress=False)
    run = pretrain(image, "false", tmp_path / "run", **options)
    pretrain(image, "glcnet", tmp_path / "other", **options)
    menu = network_menu([tmp_path / "run", tmp_path / "run" / "encoder.safetensors", run])
    assert menu[-1] == ("random", "random") and menu[0][0].startswith("run, step-") and menu[-2][0] == "Run"
    embedded = [
        embedded_rows(open_network(what, 4)[0], torch.ones(2, 4, 32, 32)) for _, what in menu[:-3]
    ] + [embedded_rows(run.method, torch.ones(2, 4, 32, 32))]
    assert torch.equal(embedded[-2], embedded[-1]) and open_network(menu[-3][1], 4)[
        1
    ].flatten().tolist() == pytest.approx(list(run.config.mean))
    box = make("regions", str(image), ["random", tmp_path / "other"])
    with pytest.raises(InputError, match="GLCNet has no head"):
        box.controls["network"].label = network_menu(tmp_path / "other")[-2][0]
    finetune(
        run,
        [open_raster(image)],
        [np.zeros((128, 128), np.uint8)],
        tmp_path / "seg",
        classes=__import__("rsssl_nb.data.labels", fromlist=["Classes"]).Classes(("a<b", "c"), ()),
        fraction=1.0,
        epochs=1,
        size=32,
        progress=False,
    )
    box = explore_saliency(str(image), [tmp_path / "seg"], 64)
    box.controls["network"].label, box.controls["klass"].value = "seg", 1
    box.controls["about"].value = "class"
    assert good(box) and box.seen["title"].endswith(": c")
    step = sorted((tmp_path / "seg").glob("checkpoint/step-*.pt"))[-1]
    with pytest.raises(InputError, match="is a checkpoint of a fine-tuning"):
        open_network(step, 4)


def test_an_error_in_a_thread_is_shown_and_raised_by_wait(net):
    box = make("saliency", nets=[net])
    box.wait()
    box.controls["klass"].value = 19
    box.wait()
    box.controls["about"].value = "class"
    with pytest.raises(InputError, match="class 19 is not one of 6"):
        box.wait()
    assert "class 19" in box.trouble.value and not box.view.value and box.busy.value == ""
    box.controls["klass"].value = 2
    assert good(box)


def patient(ground, place, seconds, stop):
    end = time.time() + seconds
    while time.time() < end and not stop():
        time.sleep(0.005)
    if stop():
        raise RuntimeError("stopped on the way")
    return dict(seconds=seconds)


def test_cancelled_and_overtaken_looks_leave_nothing_behind():
    drawn = []

    def draw(seen, shade):
        drawn.append(seen["seconds"])
        return show_row([lambda ax: ax.set_title(f"{seen['seconds']} {shade}")])

    box = Explorer(
        "patience",
        patient,
        draw,
        dict(seconds=[0.0, 30.0, 0.01], shade=(0, 4)),
        ("seconds",),
        SCENE,
        window=64,
        cancelled=True,
    )
    box.wait()
    was = bytes(box.view.value)
    box.controls["seconds"].value = 30.0
    assert "looking" in box.busy.value and not box.undo.disabled
    first = box.job
    box.controls["shade"].value = 4  # a quick control does not wait for it, and does not start it again
    assert box.job is first and box.job.is_alive()
    box.cancel()
    first.join(3)
    assert (
        box.busy.value == "cancelled"
        and box.controls["seconds"].value == 0.0
        and box.controls["shade"].value == 2
        and bytes(box.view.value) == was
        and box.undo.disabled
    )
    box.controls["seconds"].value = 30.0
    second = box.job
    box.controls["seconds"].value = 0.01
    box.wait()
    second.join(3)
    assert good(box) and drawn[-1] == 0.01 and 30.0 not in drawn and not second.is_alive()
    box.controls["seconds"].value = 30.0
    box.close()
    box.job.join(3)
    assert not box.job.is_alive()


def alive():
    gc.collect()
    return sum(issubclass(type(o), picture_type()) for o in gc.get_objects())


def memory():
    return (
        int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6 if sys.platform == "linux" else 0.0
    )


@pytest.mark.long
def test_a_thousand_moves_leave_memory_and_figures_flat(net):
    box = explore_labels(SCENE, [net], window=32)

    def move(n):
        for k in range(n):
            box.controls["lam"].value, box.controls["click"].value = k % 6 - 4, k % 5

    move(50)
    figures, before = alive(), memory()
    move(450)  # two controls each: a thousand moves in all
    assert alive() <= figures and open_figures() == [] and memory() - before < 25, memory() - before


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    "Two files of 20 000 x 20 000 pixels, without and with overviews."
    import rasterio
    from rasterio.windows import Window

    home, tile = tmp_path_factory.mktemp("large"), np.tile(SCENE.image[:1, :128, :128], (1, 8, 8))

    def write(path):
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=20000,
            height=20000,
            count=1,
            dtype="uint8",
            tiled=True,
            blockxsize=1024,
            blockysize=1024,
            compress="deflate",
            zlevel=1,
            crs="EPSG:32633",
            transform=rasterio.Affine(0.5, 0, 391000, 0, -0.5, 5820000),
        ) as f:
            for y, x in itertools.product(range(0, 20000, 1024), repeat=2):
                f.write(
                    tile[:, : min(1024, 20000 - y), : min(1024, 20000 - x)],
                    window=Window(x, y, min(1024, 20000 - x), min(1024, 20000 - y)),
                )
        return path

    bare, full = write(home / "bare.tif"), write(home / "full.tif")
    with rasterio.open(full, "r+") as f:
        f.build_overviews([8, 64], rasterio.enums.Resampling.nearest)
    yield bare, full
    bare.unlink(), full.unlink()


@pytest.mark.long
@pytest.mark.parametrize(
    "which, said", [(0, "no overviews: its picture is made of 256 sampled windows"), (1, "")]
)
def test_twenty_thousand_pixels_a_side_open_in_two_seconds(large, which, said):
    make("pair")  # imports, fonts
    start = time.process_time()
    box = explore_pair(str(large[which]))
    seconds = time.process_time() - start
    assert (
        good(box) and said in box.note.value and ("sampled" in box.note.value) == bool(said) and seconds < 2
    ), seconds
    assert box.overview.extent == [0, 0, 20000, 20000] and box.canvas.extent[2] - box.canvas.extent[0] == 256


def test_the_ground():
    flat = open_raster(
        np.stack([np.full((200, 300), 7, np.float32), np.tile(np.float32([1, 3]), (200, 150))])
    )
    mean, std = band_levels(flat)
    assert mean.flatten().tolist() == [7, 2] and std.flatten().tolist() == [
        1,
        1,
    ]  # a flat band is divided by 1
    ground = open_ground(SCENE)
    assert ground.truth(150, 150, 20).shape == (20, 20) and (ground.truth(150, 150, 20)[10:] == 255).all()
    ready = ground.ready(ground.pixels(-4, -4, 8)[None])
    assert ready[0, :, :4].abs().max() == 0 and ready.isfinite().all()
    assert Ground(flat, mean=mean, std=std).truth(0, 0, 4) is None
    with pytest.raises(InputError, match="smaller than a window of 400"):
        window_corners(ground, 2, 400)
    thin = np.zeros((1, 64, 64), np.uint8)
    thin[:, 0] = 5
    with pytest.raises(InputError, match="only 0 are half measured"):
        window_corners(
            open_ground(
                __import__("types").SimpleNamespace(
                    image=thin,
                    nodata=0,
                    crs=None,
                    transform=(1, 0, 0, 0, 1, 0),
                    labels=None,
                    classes=(),
                    colors=(),
                )
            ),
            2,
            32,
        )


def test_labels_come_along_with_a_file(tmp_path):
    image, labels = write_scene(SCENE, tmp_path)
    ground = open_ground(image, labels)
    assert np.array_equal(ground.labels, SCENE.labels) and ground.names == tuple(SCENE.classes)
    box = explore_negatives(str(image), n=4, size=32, labels=str(labels))
    assert (box.seen["kinds"] >= 0).all()


def test_sources():
    assert list(find_sources(None))[0] == list(find_sources("  "))[0] == "embedded scene" and list(
        find_sources(np.zeros((1, 4, 4)))
    ) == ["from Python"]


@pytest.mark.parametrize("height, width", [(600, 900), (3000, 100)])
def test_a_mosaic_keeps_places(height, width):
    ramp = np.stack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    small = sampled_picture(open_raster(ramp), 256)
    h, w = small.shape[1:]
    for got, side, n in ((small[0, h // 2], width, w), (small[1, :, w // 2], height, h)):
        assert np.abs(got - (np.arange(n) + 0.5) * side / n).max() <= side / 16 + 1
    assert whole_picture(open_raster(ramp))[1] == "" and SMALL > 2**20


def test_drawings_leave_nothing_behind_and_no_long_search():
    def kept():
        return sum(issubclass(type(o), picture_type()) for o in gc.get_objects())

    def drawn():
        with collected_at_once():
            return fast_png(show_row([lambda ax: ax.plot([0, 1])] * 2, (1, 2)))

    before, old = alive(), gc.get_stats()[2]["collections"]
    for _ in range(40):
        assert drawn()[:4] == b"\x89PNG" and gc.isenabled()
    assert gc.get_stats()[2]["collections"] == old
    gc.disable()
    try:
        assert (
            drawn() and kept() <= before and not gc.isenabled()
        )  # nobody else collects now, and what was off stays off
    finally:
        gc.enable()


def test_a_map_lies_over_its_image_with_a_key():
    heat, image = (
        np.array([[1.0, -2.0], [0.0, np.nan]]),
        np.random.default_rng(0).random((3, 64, 64)).astype(np.float32),
    )
    picture = show_row(
        [
            lambda ax: show_over(heat, image, "t", ("less", "more"), level=0.5, ax=ax),
            lambda ax: show_over(np.zeros((2, 2)), ax=ax),
        ]
    )
    under, over = picture.axes[0].images[:2]
    assert (
        over.norm.vmax == 2
        and over.get_alpha()[1, 0] == 0
        and over.get_alpha()[0, 1] == 0.85
        and under.get_array()[..., 0].min() >= 0.4
    )
    assert (
        {"less", "more"} <= {t.get_text() for t in picture.axes[0].texts}
        and len(picture.axes[0].collections) == 1
        and fast_png(picture)
    )


def test_row_weights_by_a_slow_loop():
    sim = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    for tau in (0.05, 1.0):
        e = [np.exp(float(v) / tau) if j != 2 else 0 for j, v in enumerate(sim[2])]
        assert row_weights(sim, 2, tau).numpy() == pytest.approx(np.array(e) / sum(e), abs=1e-6)
    assert perplexity(row_weights(sim, 2, 1e6)) == pytest.approx(5, abs=1e-6) and perplexity(
        row_weights(sim, 2, 1e-4)
    ) == pytest.approx(1, abs=1e-3)


def test_a_boxed_pair_is_the_geometry_of_page_20():
    image = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    pair = boxed_pair(image, [[0, 0, 32, 32], [16, 0, 48, 32]], [0, 2], 32)
    assert torch.equal(pair.a[0], torch.as_tensor(image[:, :32, :32])) and torch.allclose(
        pair.b[0], torch.as_tensor(image[:, :32, 16:48]).flip(1, 2), atol=1e-5
    )
    assert float(overlap_iou(pair)[0]) == pytest.approx(1 / 3) and torch.equal(
        pair.where_a, view_affine(torch.tensor([[0.0, 0, 32, 32]]), 32)
    )


def test_regions_against_scipy():
    from scipy import ndimage

    heat = torch.rand(9, 9, generator=torch.Generator().manual_seed(3))
    for sign, threshold in itertools.product((1, -1), (0.3, 0.6, 0.9)):
        up = torch.nn.functional.interpolate(
            (heat * sign)[None, None], (72, 72), mode="bilinear", align_corners=False
        )[0, 0].numpy()
        mask = up > up.min() + np.float32(threshold) * (up.max() - up.min())
        r = guided_region(heat, threshold, sign, 72)
        assert r["count"] == ndimage.label(mask, np.ones((3, 3)))[1] and r["share"] == pytest.approx(
            mask.mean(), abs=1e-3
        )


def test_entropy():
    assert (
        class_entropy(np.uint8([0, 1, 2, 3])) == 2
        and np.isnan(class_entropy(np.uint8([255])))
        and class_entropy(np.uint8([0, 255, 1])) == 1
    )
    assert np.isnan(random_entropy(np.full((8, 8), 255, np.uint8), (0, 0, 2, 2)))


def test_audit_by_a_slow_loop():
    rng = np.random.default_rng(0)
    kinds, chosen = rng.integers(-1, 3, 7), rng.random((14, 14)) < 0.4
    hit = made = there = 0
    for i, j in itertools.product(range(14), repeat=2):
        if i % 7 == j % 7 or kinds[i % 7] < 0 or kinds[j % 7] < 0:
            continue
        same = kinds[i % 7] == kinds[j % 7]
        made, there, hit = made + chosen[i, j], there + same, hit + (same and chosen[i, j])
    assert suspect_scores(chosen, kinds) == (hit / made, hit / there)
    assert (
        same_class(kinds).sum() == there
        and not same_class(kinds).diagonal().any()
        and not same_class(np.array([-1, -1])).any()
    )


def test_matches_are_marked_on_the_ground(net):
    box = make("matches", nets=[net])
    pair = box.seen["pair"]
    common = np.array(box.canvas.common) - np.tile(box.seen["corner"], 2)
    x, y = true_match(pair, ((common[0] + common[2]) / 2, (common[1] + common[3]) / 2))
    likeness = torch.zeros(8, 8)
    likeness[int(y / 8), int(x / 8)] = 1.0
    found = match_quality(likeness, (x, y), pair, 0.5)
    cell = float(torch.linalg.vector_norm(pair.where_b[0, :, :2] @ torch.tensor([4.0, 4.0]))) * 0.5
    assert found["rank"] == 1 and found["error"] <= cell + 1e-4  # within the cell it lies in
    likeness[0, 0] = 2.0
    assert match_quality(likeness, (x, y), pair)["rank"] == 2


def test_cell_labels_and_read_out(net):
    labels = np.repeat(np.repeat(np.uint8([[0, 1], [255, 2]]), 16, 0), 16, 1)
    assert cell_labels(labels, 2, 2).tolist() == [[0, 1], [255, 2]]
    dense = torch.randn(64, 4, 4, generator=torch.Generator().manual_seed(0))
    model = linear_read_out(net, dense, labels, 3)
    at = cell_labels(labels, 4, 4)
    assert (
        torch.equal(model.decoder(dense[None])[0].argmax(0)[at != 255], at[at != 255])
        and linear_read_out(model, None, None, 0) is model
    )
    with pytest.raises(InputError, match="knows no classes"):
        linear_read_out(net, dense, None, 3)


def test_labels_and_their_points_stay_on_the_ground(net):
    ground, nets = open_ground(SCENE), ["random", net]
    points, bank = [[50.0, 60.0, 0], [90.0, 70.0, 1]], {}
    here = see_dense(ground, (48, 48, 64), nets)
    maps = label_maps(here, points, 2, bank=bank)
    assert len(maps) == 2 and maps[0].shape == (64, 64) and set(np.unique(maps[1])) == {0, 1}
    there = see_dense(ground, (0, 0, 32), nets)
    assert all(
        torch.equal(a, b) for a, b in zip(features_at(here, points, {}), features_at(there, points, bank))
    )  # clicked there, kept as clicked
    assert all(f.isfinite().all() for f in features_at(there, points, {}))  # or looked up at their place
    assert right_share(maps[0], None) != right_share(maps[0], None)


def test_a_click_redraws_the_map_and_a_point_of_no_class_is_refused(net):
    box = make("labels", nets=[net])
    was = bytes(box.view.value)
    box.canvas.points = [*box.canvas.points, [box.canvas.extent[0] + 30.0, box.canvas.extent[1] + 5.0, 4]]
    assert good(box) and bytes(box.view.value) != was
    with pytest.raises(InputError, match="a point has class 9 and there are 6"):
        box.canvas.points = [[90.0, 90.0, 9]]
    box.canvas.points = []
    assert good(box)


# ---------------------------------------------------------------- where to look next


def test_suggestions_move_the_window_and_never_twice(net):
    box = make("labels", nets=[net])
    held, places = list(box.canvas.points), [box.place()]
    assert list(box.actions) == ["Suggest: least sure", "Suggest: least like", "Suggest: at random"]
    for button in [*box.actions.values()] * 2:
        button.click()
        assert good(box) and box.note.value.startswith(f"window {len(places)} by")
        places.append(box.place())
    assert len(set(places[1:])) == 6 and box.canvas.points == held
    for x, y, size in places[1:]:
        assert not any(x <= px < x + size and y <= py < y + size for px, py, _ in held)
        assert SCENE.valid[y : y + size, x : x + size].mean() >= 0.5
    for _ in range(9):
        box.actions["Suggest: at random"].click()
    assert "have been suggested" in box.trouble.value and box.busy.value == ""


def test_the_least_sure_window_is_that_of_the_model_of_the_clicks(net):
    from rsssl_nb.explain.neighbours import dense_features, fit_points
    from rsssl_nb.widgets.places import candidate_windows

    box = make("labels", nets=[net])
    points, ground = box.canvas.points, box.ground
    model = fit_points(features_at(box.seen, points, {})[0], [k for *_, k in points], 6, 10.0**-4)
    corners = candidate_windows(ground.raster, 64)
    assert len(corners) > 4

    def entropy(x, y):
        dense = dense_features(net, ground.ready(ground.pixels(x, y, 64)[None]))
        shares = (torch.einsum("bdhw,kd->bkhw", dense, model.weight) + model.bias[:, None, None]).softmax(1)
        return float(torch.special.entr(shares).sum(1).mean())

    free = [c for c in corners if not any(0 <= p[0] - c[0] < 64 and 0 <= p[1] - c[1] < 64 for p in points)]
    box.actions["Suggest: least sure"].click()
    assert box.place()[:2] == max(free, key=lambda c: entropy(*c))


def test_places_alike_are_found_in_all_images_of_a_folder(net, tmp_path):
    for seed in (1, 2):
        image, _ = write_scene(make_scene(96, seed=seed), tmp_path / f"{seed}")
        shutil.copy(image, tmp_path / f"scene{seed}.tif")
        shutil.rmtree(tmp_path / f"{seed}")
    box = make("matches", str(tmp_path), [net])
    search = box.actions["Find alike in all images"]
    search.click()
    assert "no place is clicked" in box.trouble.value
    x, y = box.canvas.extent[:2]
    box.canvas.points = [[x + 30.0, y + 30.0, 0]]
    was = bytes(box.view.value)
    search.click()
    assert good(box) and "in 2 of 2 images" in box.note.value and bytes(box.view.value) != was
    point, found = box.seen["alike"]
    assert point == (x + 30.0, y + 30.0) and found[0][1].shape == (4, 48, 48)
    cosines = [place.cosine for place, _ in found]
    assert cosines == sorted(cosines, reverse=True) and {Path(p.raster).name for p, _ in found} == {
        "scene1.tif",
        "scene2.tif",
    }
    box.canvas.points = [[x + 31.0, y + 30.0, 0]]
    moved = bytes(box.view.value)
    box.canvas.points = [[x + 30.0, y + 30.0, 0]]
    assert bytes(box.view.value) not in (was, moved)  # the tiles come back with their point
