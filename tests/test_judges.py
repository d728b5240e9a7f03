"The judges: exact on features made by hand, deterministic, floors and power beside, never NaN, bad input."

import numpy as np
import pytest
import torch

from rsssl_nb.data.folders import RSSCN7_FOLDERS, open_folders
from rsssl_nb.data.mosaics import make_mosaics, painted_textures
from rsssl_nb.data.scenes import standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.errors import InputError
from rsssl_nb.evaluation.judged import (
    as_table,
    checked_rows,
    judge_power,
    show_judged,
    smallest_difference,
)
from rsssl_nb.evaluation.judges import (
    PixelJudge,
    SceneJudge,
    colour_maps,
    few_of_each,
    judge_encoders,
    random_like,
    stage_maps,
    standard_judges,
)
from rsssl_nb.evaluation.probing import feature_maps
from rsssl_nb.objectives.regions import sample_points


@pytest.fixture(scope="module")
def textures():
    return painted_textures("train", 8, 48), painted_textures("judge", 6, 48)


@pytest.fixture(scope="module")
def encoder():
    return random_like(Encoder(bands=4, width=8), 1)


@pytest.fixture(scope="module")
def scene(textures):
    return SceneJudge(*textures, labels=(2, 5), draws=3)


@pytest.fixture(scope="module")
def pixels(textures):
    made = [make_mosaics(part, 20, 48, seed=k) for k, part in enumerate(textures)]
    return PixelJudge(*made, textures[0].classes, labels=(8, 16), draws=2, points=24, frame=8)


# maps


@pytest.mark.parametrize("ask", [feature_maps, stage_maps])
def test_a_call_that_fails_gives_every_module_its_mode_back(ask):
    encoder = Encoder(bands=4, width=8).train()
    encoder.layer2.eval()
    before = [module.training for module in encoder.modules()]
    with pytest.raises(ValueError, match="takes 4 bands"):
        ask(encoder, torch.zeros(1, 3, 48, 48))
    assert [module.training for module in encoder.modules()] == before


def test_without_a_frame_the_maps_are_the_encoders_own(encoder):
    x = torch.randn(3, 4, 48, 48)
    maps = stage_maps(encoder.train(), x, batch=2)
    assert encoder.training and not encoder.eval().training
    features = encoder(x)
    assert torch.allclose(maps[3], features.dense, atol=1e-5) and torch.allclose(
        maps[0], features.low, atol=1e-5
    )


def test_a_frame_is_cut_off_in_whole_cells(encoder):
    x = torch.randn(2, 4, 48, 48)
    for plain, framed in zip(stage_maps(encoder, x), stage_maps(encoder, x, 16)):
        assert plain.shape == framed.shape
    wide = torch.nn.functional.pad(x, (16,) * 4, mode="reflect")
    assert torch.equal(stage_maps(encoder, x, 16)[2], stage_maps(encoder, wide)[2][..., 2:-2, 2:-2])


@pytest.mark.parametrize(
    "frame, words",
    [
        (48, "wider than a tile of 48: use at most 40"),
        (12, "use 8 or 16"),
        (47, "use 32 or 40"),
        (-8, "use 0 or more"),
    ],
)
def test_frames_that_cannot_be(encoder, frame, words):
    with pytest.raises(InputError, match=words):
        stage_maps(encoder, torch.zeros(1, 4, 48, 48), frame)


# scene classes


def test_labels_are_nested_and_drawn_by_seed():
    labels = np.repeat([0, 1, 2], 10)
    two, five = (few_of_each(labels, n, 0, 3) for n in (2, 5))
    assert set(two) < set(five) and (np.bincount(labels[five]) == 5).all()
    assert set(five) != set(few_of_each(labels, 5, 0, 4))
    with pytest.raises(InputError, match="class number 0 has 10 images and 11 labels"):
        few_of_each(labels, 11, 0, 0)


def test_separable_features_score_one_and_noise_scores_chance(scene):
    known, asked = (
        torch.eye(6, dtype=torch.float64)[torch.as_tensor(v.labels)] for v in (scene.train, scene.judged)
    )
    assert all(r["value"] == r["low"] == 1 for r in scene.score(known, asked))
    torch.manual_seed(0)
    noise = scene.score(torch.randn(48, 5).double(), torch.randn(36, 5).double())
    assert all(r["value"] < 0.35 and r["low"] <= r["value"] <= r["high"] for r in noise)


def test_value_is_the_mean_over_classes_of_equal_size(scene, encoder):
    for row in scene.rows(encoder):
        assert row["value"] == pytest.approx(np.mean(list(row["classes"].values())))


def test_constant_features_give_numbers(scene, pixels):
    rows = scene.score(torch.zeros(48, 3).double(), torch.zeros(36, 3).double())
    rows += pixels.score([torch.zeros(20, 2, 6, 6)], [torch.zeros(20, 2, 6, 6)])
    assert np.isfinite([r[k] for r in rows for k in ("value", "low", "high")]).all()


def test_features_that_are_no_numbers_are_an_error_and_not_chance(scene, pixels, textures):
    lost = Encoder(bands=4, width=8)
    with torch.no_grad():
        next(lost.parameters())[0] = float("inf")
    for judge in (scene, pixels):
        with pytest.raises(InputError, match="the features are not finite"):
            judge.rows(lost)
    for known, asked in ((torch.nan, 0.0), (0.0, torch.nan)):
        with pytest.raises(InputError, match="judge a checkpoint from before"):
            scene.score(torch.full((48, 3), known).double(), torch.full((36, 3), asked).double())
    holes = textures[0].images.astype(float)
    holes[0, 0, :5] = np.nan
    with_nodata = SceneJudge(textures[0]._replace(images=holes), textures[1], labels=(2,), draws=2)
    rows = with_nodata.rows(Encoder(bands=4, width=8)) + sum(with_nodata.floors().values(), [])
    assert np.isfinite([r["value"] for r in rows]).all()


def test_tiles_without_a_known_point_are_told(textures):
    a, b = (make_mosaics(part, 12, 48, seed=k) for k, part in enumerate(textures))
    hidden = np.full_like(a.labels, 255)
    hidden[0] = a.labels[0]
    judge = PixelJudge((a.images, hidden), b, a.classes, subsets={2: [[3, 4]]}, frame=8)
    with pytest.raises(InputError, match="no point of the 2 labelled tiles has a known class"):
        judge.floors()


def test_a_bad_set_of_images_is_told_in_a_sentence(textures):
    train, judged = textures
    for words, call in {
        "class field has 8 images and 20 of each class": lambda: SceneJudge(train, judged, (20,)),
        "image 0 to train by: keep one of the two": lambda: SceneJudge(train, train, (2,)),
        "and those to judge by road, field": lambda: SceneJudge(
            train, judged._replace(classes=("road", "field", *judged.classes[2:])), (2,)
        ),
        "0,. labels, 10 draws": lambda: SceneJudge(train, judged, (0,)),
        "0 neighbours cannot vote": lambda: SceneJudge(train, judged, (2,), neighbours=0),
        "the images are of 1 class": lambda: SceneJudge(
            train._replace(labels=train.labels * 0), judged, (2,)
        ),
        "have 4 bands and those to judge by 3": lambda: SceneJudge(
            train, judged._replace(images=judged.images[:, :3]), (2,)
        ),
    }.items():
        with pytest.raises(InputError, match=words):
            call()


def test_an_encoder_of_other_bands_is_refused(scene):
    with pytest.raises(ValueError, match="takes 3 bands and the images have 4"):
        scene.rows(Encoder(bands=3, width=8))


# pixels


def test_pixels_alone_are_asked_about_whole_images_too(scene):
    found = scene.floors()
    assert list(found) == ["bands", "colour"] and all(len(rows) == 4 for rows in found.values())


def test_the_truth_as_a_map_scores_one(pixels):
    K = len(pixels.classes)
    asked = torch.nn.functional.one_hot(pixels.truth, K).permute(0, 3, 1, 2).float()
    tables = pixels.tables([asked], torch.eye(K, dtype=torch.float64), torch.zeros(K, dtype=torch.float64))
    assert tables.sum() == pixels.truth.numel() and (tables.sum(0) == np.diag(np.diag(tables.sum(0)))).all()
    row = pixels.row("", 8, tables[None])
    assert row["value"] == row["low"] == 1 and set(row["classes"]) == set(pixels.classes)


def test_scores_of_joined_maps_are_the_scores_of_the_hypercolumn(pixels):
    torch.manual_seed(0)
    maps = [torch.randn(20, 3, 12, 12), torch.randn(20, 5, 6, 6)]
    weight, offset = torch.randn(6, 8).double(), torch.randn(6).double()
    tables = pixels.tables(maps, weight, offset)
    at = (
        torch.stack(torch.meshgrid(torch.arange(48), torch.arange(48), indexing="xy"), -1).view(1, -1, 2)
        + 0.5
    )
    column = torch.cat([sample_points(m, at.expand(20, -1, 2), (48, 48)) for m in maps], -1).double()
    drawn, truth = (column @ weight.T + offset).argmax(-1), pixels.truth.flatten(1)
    right = [int(((drawn[i] == truth[i]) & (truth[i] != 255)).sum()) for i in range(20)]
    assert np.abs(tables.diagonal(0, 1, 2).sum(1) - right).max() <= 2  # float32 ties


def test_pixels_without_a_label_count_nowhere(textures):
    a, b = (make_mosaics(part, 12, 48, seed=k) for k, part in enumerate(textures))
    hidden = b.labels.copy()
    hidden[:, :20] = 255
    judge = PixelJudge(a, (b.images, hidden), a.classes, labels=(6,), draws=1)
    assert (
        judge.tables([judge.judged], torch.randn(6, 4).double(), torch.zeros(6).double()).sum()
        == (hidden != 255).sum()
    )


def test_rows_repeat_to_the_bit(pixels, scene, encoder):
    for judge in (pixels, scene):
        assert judge.rows(encoder) == judge.rows(encoder)
    names = {"mosaic", "mosaic-but-last", "mosaic-stage3", "mosaic-last"}
    assert {r["judge"] for r in pixels.rows(encoder)} == names


def test_published_subsets_take_the_place_of_draws(textures):
    a, b = (make_mosaics(part, 12, 48, seed=k) for k, part in enumerate(textures))
    subsets = {3: [[0, 1, 2], [3, 4, 5]]}
    judge = PixelJudge(a, b, a.classes, subsets=subsets, frame=0, name="hypercolumn")
    assert [(r["judge"], r["labels"]) for r in judge.floors()["bands"]] == [("hypercolumn", 3)]


def test_tiles_that_cannot_be(textures):
    a, b = (make_mosaics(part, 8, 48, seed=k) for k, part in enumerate(textures))
    for words, call in {
        "9 labelled tiles are asked for and there are 8": lambda: PixelJudge(a, b, a.classes, labels=(9,)),
        "a frame of 48 pixels is wider than a tile": lambda: PixelJudge(
            a, b, a.classes, labels=(4,), frame=48
        ),
        "the tiles to judge by show 1 class": lambda: PixelJudge(
            a, (b.images, b.labels * 0), a.classes, (4,)
        ),
        "have 4 bands and those to judge by 3": lambda: PixelJudge(
            a, (b.images[:, :3], b.labels), a.classes, (4,)
        ),
        "their labels .24, 48.: give labels of the same size": lambda: PixelJudge(
            a, (b.images, b.labels[:, :24]), a.classes, (4,)
        ),
        "the label 5 and there are 2 classes": lambda: PixelJudge(a, b, a.classes[:2], (4,)),
        "-2,. labels": lambda: PixelJudge(a, b, a.classes, (-2,)),
        "a decay of nan": lambda: PixelJudge(a, b, a.classes, (4,), decay=float("nan")),
    }.items():
        with pytest.raises(InputError, match=words):
            call()


def test_an_encoder_may_not_take_a_floors_name(scene, encoder):
    with pytest.raises(InputError, match="an encoder is called colour"):
        judge_encoders([scene], {"colour": encoder})


def test_a_frame_that_an_encoder_cannot_have_is_told_before_any_work(pixels, encoder, monkeypatch):
    monkeypatch.setattr(PixelJudge, "rows", lambda *_: pytest.fail("it was asked"))
    monkeypatch.setattr(pixels, "frame", 12)
    with pytest.raises(InputError, match="use 8 or 16"):
        judge_encoders([pixels], {"mine": encoder}, progress=False)


def test_colour_maps_are_bands_and_statistics_around():
    x = torch.randn(2, 3, 20, 20)
    maps = colour_maps(x, 5)
    assert torch.equal(maps[:, :3], x)
    window = x[1, 2, 8:13, 4:9]
    assert maps[1, 5, 10, 6] == pytest.approx(float(window.mean()), abs=1e-5)
    assert maps[1, 8, 10, 6] == pytest.approx(float(window.std(correction=0)), abs=1e-4)


# all together


def test_one_call_asks_every_judge_and_shows_the_floors(scene, pixels, encoder):
    state = torch.get_rng_state()
    rows = judge_encoders([scene, pixels], {"simclr": encoder}, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert {r["method"] for r in rows} == {"colour", "bands", "random", "simclr"} and {
        r["seed"] for r in rows
    } == {3}
    assert len({(r["judge"], r["method"], r["labels"]) for r in rows}) == len(rows)
    table = as_table(rows)
    assert "nan" not in table and "| judge" not in table and "| scene | 2 | 5 |" in table
    assert "Picture" in repr(show_judged(rows))


def test_no_number_is_an_error_and_never_a_cell():
    row = dict(judge="scene", method="simclr", labels=2, seed=0, value=float("nan"))
    for call in (checked_rows, as_table, judge_power, show_judged):
        with pytest.raises(ValueError, match="judge scene gave simclr no number"):
            call([row])


def test_power_pools_the_spread_of_methods():
    rows = [
        dict(judge="scene", method=m, labels=5, seed=s, value=v)
        for m, values in (("random", (0.40, 0.42, 0.41)), ("simclr", (0.52, 0.53, 0.54)), ("colour", (0.45,)))
        for s, v in enumerate(values)
    ]
    (found,) = judge_power(rows)
    assert found["spread"] == pytest.approx(0.01) and found["gain"] == pytest.approx(0.12) and found["sees"]
    assert found["smallest"] == pytest.approx(smallest_difference(0.01)) == pytest.approx(0.0304, abs=1e-4)
    assert "| *three seeds show* | 0.030 |" in as_table(rows, judge_power(rows))
    assert judge_power(rows[:1]) == []
    assert judge_power([r for r in rows if r["method"] != "random"])[0]["sees"] is None


def painted_folders(home, names, count, size):
    "Folders of classes `names` under `home`, each with `count` painted textures of `size` pixels."
    from PIL import Image

    images = painted_textures("train", count, size).images[:, :3].transpose(0, 2, 3, 1)
    for k, name in enumerate(names):
        (home / name).mkdir()
        for i in range(count):
            Image.fromarray(images[count * k + i]).save(home / name / f"{i}.png")


def test_standard_judges_of_a_folder(tmp_path):
    painted_folders(tmp_path, "abc", 20, 64)
    scene, pixels = standard_judges(tmp_path, size=64, tiles=8)
    assert scene.labels == (2, 5) and scene.train.images.shape == (42, 3, 64, 64)
    assert pixels.train.shape == (256, 3, 48, 48) and pixels.frame == 32


def test_training_shows(textures):
    "Twelve epochs on images of one part lift the probe on the other part."
    from rsssl_nb.methods.simclr import SimCLR
    from rsssl_nb.training.practice import practice

    judge = SceneJudge(*textures, labels=(5,), draws=5)
    torch.manual_seed(0)
    method = SimCLR(Encoder(bands=4, width=8))
    before = judge.rows(method.encoder)[0]["value"]
    practice(method, standardise(textures[0].images), epochs=12, batch=24, size=48)
    assert judge.rows(method.encoder)[0]["value"] > before + 0.03


# the command


def run_cli(*words):
    from click.testing import CliRunner

    from rsssl_nb.cli import main

    return CliRunner().invoke(main, ["judge", *map(str, words)])


def test_the_command_prints_the_table_with_its_floors(tmp_path):
    import json

    done = run_cli(
        "shipped:simclr-20",
        "--size",
        32,
        "--tiles",
        8,
        "--frame",
        8,
        "--labels",
        2,
        "--out",
        tmp_path / "rows.json",
    )
    assert done.exit_code == 0, done.output
    for method in ("random", "bands", "colour", "shipped:simclr-20"):
        assert f"| {method} |" in done.output
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {r["judge"] for r in rows} >= {"scene", "scene-knn", "mosaic", "mosaic-stage3", "mosaic-last"}


def test_an_encoder_of_other_bands_is_adapted_when_asked(tmp_path):
    painted_folders(tmp_path, "ab", 10, 32)
    words = ("shipped:simclr-20", "--scenes", tmp_path, "--size", 32, "--tiles", 8, "--frame", 8)
    refused = run_cli(*words)
    assert refused.exit_code == 2 and "give images of 4 bands, or --adapt-bands" in refused.output
    done = run_cli(*words, "--adapt-bands")
    assert done.exit_code == 0, done.output
    assert "first convolution of 4 bands is adapted to 3" in done.output and "nan" not in done.output


@pytest.mark.parametrize(
    "words, told",
    [
        (("shipped:nothing",), "no checkpoint 'nothing' comes with this package"),
        (("nowhere.safetensors",), "nowhere.safetensors does not exist"),
        (("shipped:simclr-20", "--scenes", "nowhere"), "nowhere is no folder"),
        (
            ("shipped:simclr-20", "--size", 32, "--frame", 24),
            "a frame of 24 pixels is wider than a tile of 24",
        ),
        (("shipped:simclr-20", "--size", 32, "--labels", 50), "50 of each class are asked for"),
    ],
)
def test_the_command_ends_in_one_sentence(words, told):
    done = run_cli(*words)
    assert done.exit_code == 2 and told in done.output and done.output.count("\n") == 1


@pytest.mark.parametrize(
    "option, value, told",
    [
        ("--size", 16, "16 is not in the range 32<=x<=4096"),
        ("--tiles", 0, "0 is not in the range 1<=x<=256"),
        ("--seed", -1, "seed -1 is out of bounds: use a whole number from 0"),
    ],
)
def test_a_number_that_cannot_be_is_told_before_any_work(option, value, told):
    done = run_cli("shipped:simclr-20", option, value)
    assert done.exit_code == 2 and told in done.output


def class_folder(root, images):
    "Class folders of images {folder: [(number, side, bands)]}."
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, made in images.items():
        (root / name).mkdir()
        for number, side, bands in made:
            pixels = rng.integers(0, 256, (side, side, bands), dtype=np.uint8)
            Image.fromarray(pixels.squeeze()).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    "images, told",
    [
        ({"a": [(i, 32, 3) for i in range(9)]}, "holds 1 folder"),
        (
            {"a": [(i, 32, 3) for i in range(9)], "b": [(0, 32, 3)]},
            "class b has 1 image to train by",
        ),
        (
            {k: [(i, 32, 3) for i in range(7)] for k in "ab"},
            "class a has 1 image to judge by",
        ),
        ({k: [(i, 32, 3 if i else 1) for i in range(9)] for k in "ab"}, "give images of one band count"),
        ({k: [(i, 32 + 8 * i, 3) for i in range(9)] for k in "ab"}, "give images of 4 bands"),
    ],
    ids=["one class", "too few", "seven", "mixed bands", "mixed sizes are reduced"],
)
def test_folders_that_cannot_be_judged_end_in_one_sentence(tmp_path, images, told):
    done = run_cli(
        "shipped:simclr-20", "--scenes", class_folder(tmp_path, images), "--size", 32, "--frame", 8
    )
    assert done.exit_code == 2 and told in done.output and done.output.count("\n") == 1


def test_what_a_folder_of_images_holds_is_told_with_its_file(tmp_path):
    from PIL import Image

    root = class_folder(tmp_path, {k: [(i, 32, 3) for i in range(9)] for k in "ab"})
    (root / "b/8.png").write_bytes((root / "a/0.png").read_bytes())
    done = run_cli("shipped:simclr-20", "--scenes", root, "--size", 32, "--frame", 8)
    assert done.exit_code == 2 and "8.png to judge by is, byte for byte, " in done.output
    Image.fromarray(np.zeros((32, 32, 4), np.uint8)).save(root / "b/8.png")
    done = run_cli("shipped:simclr-20", "--scenes", root, "--size", 32, "--frame", 8)
    assert done.exit_code == 2 and "8.png holds nothing but nodata or transparent pixels" in done.output


def test_a_list_of_images_that_cannot_be_read_is_told(tmp_path):
    for text, words in (
        (b"file,scene_class\na.png,\n", "index.csv line 2 lacks its file or its scene_class"),
        ("file,scene_class\na.png,wüste\n".encode("latin-1"), "index.csv is not UTF-8"),
    ):
        (tmp_path / "index.csv").write_bytes(text)
        with pytest.raises(InputError, match=words):
            open_folders(tmp_path)


def test_rsscn7s_folders_with_other_files_are_divided_like_any(tmp_path):
    for name in RSSCN7_FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.png").touch()
    assert len(open_folders(tmp_path).paths) == 7
