"Labelled images and mosaics: exact labels, dials, repeated streams, nothing shared between parts, bad input."

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rsssl_nb.data.folders import ImageSet, open_folders, parts_of
from rsssl_nb.data.mosaics import (
    SHAPES,
    MosaicPlan,
    make_mosaics,
    painted_textures,
    share_no_image,
)
from rsssl_nb.errors import InputError


def picture(path, shade=100, size=(32, 32), bands=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(shade).integers(0, 50, (*size, bands), dtype=np.uint8)
    Image.fromarray((noise + shade % 200).squeeze()).save(path)


@pytest.fixture
def folder(tmp_path):
    for c, kind in enumerate(("bog", "heath", "scree")):
        for i in range(1, 13):
            picture(tmp_path / kind / f"{kind}_{i}.png", 12 * c + i)
    return tmp_path


@pytest.fixture(scope="module")
def numbered():
    "Three classes whose pixels say image, row and column, so that a mosaic tells where each pixel came from."
    n, size = 12, 40
    y, x = np.mgrid[:size, :size].astype(np.float32)
    images = np.stack([np.stack([np.full_like(x, i), y, x]) for i in range(n)])
    return ImageSet(images, np.arange(n) % 3, ("a", "b", "c"))


# folders


def test_rsscn7_is_divided_by_blocks_of_numbers(imagery):
    found = open_folders(imagery / "rsscn7")
    assert len(found.classes) == 7 and len(found.paths) == 2520
    for part, each, first, last in (("train", 280, 1, 70), ("judge", 72, 73, 90)):
        chosen = found.part(part)
        assert (np.bincount(chosen.labels) == each).all()
        numbers = {(int(p.stem[1:]) - 1) % 100 + 1 for p in chosen.paths}
        assert numbers == set(range(first, last + 1))


def test_rsscn7_as_it_is_downloaded(tmp_path):
    for kind in ("aGrass", "bField", "cIndustry", "dRiverLake", "eForest", "fResident", "gParking"):
        for i in (1, 70, 71, 72, 73, 90, 91, 100, 101, 170, 173):
            picture(tmp_path / kind / f"{kind[0]}{i:03d}.jpg", i)
    found = open_folders(tmp_path)
    for part, numbers in (("train", {1, 70, 101, 170}), ("judge", {73, 90, 173})):
        assert {int(p.stem[1:]) for p in found.part(part).paths} == numbers


def test_parts_of_small_classes():
    assert "".join((p or "-")[0] for p in parts_of(np.arange(12), 12)) == "tttttttttjjj"


def test_files_go_by_number_and_not_by_letter(folder):
    train = [p.stem for p in open_folders(folder).part("train").paths][:9]
    assert train == [f"bog_{i}" for i in range(1, 10)]


def test_train_and_test_folders(tmp_path):
    for i in range(2):
        for part in ("train", "test"):
            for kind in ("bog", "heath"):
                picture(tmp_path / part / kind / f"{i}.png", i + 5 * len(part))
    found = open_folders(tmp_path)
    assert [(found.part(p).parts == p).sum() for p in ("train", "judge")] == [4, 4]
    picture(tmp_path / "test" / "scree" / "1.png")
    with pytest.raises(InputError, match="class scree in one of its two parts only"):
        open_folders(tmp_path)


def test_sizes_and_bands(folder):
    found = open_folders(folder)
    whole, half = found.read("train"), found.read("train", 16)
    assert whole.images.dtype == np.uint8 and half.images.shape == (27, 3, 16, 16)
    mean = whole.images.astype(float).reshape(27, 3, 16, 2, 16, 2).mean((3, 5))
    assert np.abs(half.images - mean).max() <= 0.5
    picture(folder / "bog" / "bog_2.png", size=(32, 48))
    with pytest.raises(InputError, match="bog_2.png is 48 x 32 pixels and .*bog_1.png 32 x 32: give a size"):
        open_folders(folder).read("train")
    assert open_folders(folder).read("train", 32).images.shape[2:] == (32, 32)
    picture(folder / "bog" / "bog_2.png", bands=1)
    with pytest.raises(
        InputError, match="bog_2.png has 1 bands and .*bog_1.png 3: give images of one band count"
    ):
        open_folders(folder).read("train", 32)


def test_folders_that_cannot_judge(folder, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        open_folders(folder / "none")
    with pytest.raises(InputError, match="holds 0 folders of images"):
        open_folders(folder / "bog")
    train = open_folders(folder).read("train")
    with pytest.raises(InputError, match="class bog has 9 images and 20 of each class are asked for"):
        train.check(20)
    with pytest.raises(InputError, match="the images are of 1 class"):
        train._replace(labels=train.labels * 0).check()
    (folder / "index.csv").write_text("name,kind\na,b\n")
    with pytest.raises(InputError, match="lacks the columns file and scene_class"):
        open_folders(folder)


# mosaics


@pytest.mark.parametrize("shape", SHAPES)
def test_each_pixel_is_its_source_moved_by_one_offset_a_parcel(numbered, shape):
    plan = MosaicPlan(parcels=4, shape=shape, object=(10, 20))
    made = make_mosaics(numbered, 5, 40 if shape != "blocks" else 36, plan, seed=3)
    source = made.images[:, 0].astype(int)
    assert (numbered.labels[source] == made.labels).all()
    for i, (image, parcels) in enumerate(zip(made.images, made.parcels)):
        y, x = np.nonzero(np.ones_like(parcels))
        for p in np.unique(parcels):
            here = (parcels == p).ravel()
            assert set(image[0].ravel()[here]) == {made.sources[i, p]}
            assert len(set((image[1].ravel() - y)[here])) == 1
            assert len(set((image[2].ravel() - x)[here])) == 1


def test_the_same_arguments_give_the_same_bytes(numbered):
    a, b, other = (make_mosaics(numbered, 4, 32, seed=s) for s in (1, 1, 2))
    assert all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(a, b))
    assert (a.labels != other.labels).any()


def test_siblings_hold_the_same_pixels_elsewhere(numbered):
    made = make_mosaics(numbered, 6, 40, MosaicPlan(4, "blocks", siblings=3), seed=0)
    content = np.sort(made.images.reshape(6, 3, -1))
    assert (content[0] == content[:3]).all() and (content[3] == content[3:]).all()
    assert (content[0] != content[3]).any()
    assert any((made.images[0] != image).any() for image in made.images[1:3])


def test_the_object_lies_whole_on_the_common_ground(numbered):
    made = make_mosaics(numbered, 40, 40, MosaicPlan(shape="object", ground=2, object=(10, 20)), seed=1)
    assert (made.labels[made.parcels == 0] == 2).all() and (made.labels[made.parcels == 1] != 2).all()
    for parcels in made.parcels:
        rows, cols = parcels.any(1).sum(), parcels.any(0).sum()
        assert 9 <= rows <= 20 and 9 <= cols <= 20


def test_light_is_shared_by_the_parcels_of_a_mosaic(numbered):
    flat = numbered._replace(images=np.full((12, 3, 40, 40), 100, np.uint8))
    dark = make_mosaics(flat, 8, 40, MosaicPlan(light=0.0), seed=1)
    lit = make_mosaics(flat, 8, 40, MosaicPlan(light=0.2), seed=1)
    assert (dark.images == 100).all() and (dark.labels == lit.labels).all()
    steps = np.abs(np.diff(lit.images.astype(int), axis=-1))
    assert steps.max() <= 3, "a slope of brightness, and no edge between parcels"
    assert lit.images.mean((2, 3)).std() > 5


def test_textures_of_the_two_parts_share_nothing():
    train, judged = painted_textures("train", 4, 32), painted_textures("judge", 4, 32)
    share_no_image(train, judged)
    with pytest.raises(InputError, match="image 3 to judge by is, byte for byte, image 0 to train by"):
        mixed = judged.images.copy()
        mixed[3] = train.images[0]
        share_no_image(train, judged._replace(images=mixed))
    assert (np.bincount(train.labels) == 4).all() and (
        painted_textures("train", 4, 32).images == train.images
    ).all()


@pytest.mark.parametrize(
    "plan, words",
    [
        (
            dict(parcels=30),
            "30 parcels of shape voronoi in 40 pixels are 7.3 wide and a cell of the feature map 8",
        ),
        (dict(parcels=7, shape="strips"), "are 5.71 wide"),
        (dict(parcels=49, shape="blocks"), "are 5 wide"),
        (dict(shape="object", object=(4, 10)), "are 4 wide"),
        (dict(shape="object", object=(10, 50)), "an object of 50 pixels leaves a mosaic of 40"),
        (dict(shape="hexagons"), "shape 'hexagons' is not known: choose voronoi"),
        (dict(classes=1), "show one class only: play with two or more"),
        (dict(classes=(0, 5)), "class number 5 is not known: the images have classes 0 to 2"),
        (dict(siblings=2), "siblings exchange equal parcels and voronoi has none"),
        (dict(imbalance=0.5), "imbalance 0.5"),
        (dict(parcels=0), "0 parcels cannot be told apart"),
    ],
)
def test_plans_that_cannot_be(numbered, plan, words):
    with pytest.raises(InputError, match=words):
        make_mosaics(numbered, 1, 40, replace(MosaicPlan(), **plan))


def test_textures_that_cannot_fill(numbered):
    with pytest.raises(InputError, match="class c has 1 images and mosaics need 2"):
        make_mosaics(
            ImageSet(*(v[:9] for v in numbered[:2]), numbered.classes)._replace(
                labels=np.array([0, 1, 0, 1, 0, 1, 0, 1, 2])
            ),
            1,
            40,
        )
    with pytest.raises(InputError, match="images of 40 x 40 pixels cannot fill parcels of 64"):
        make_mosaics(numbered, 1, 64)
