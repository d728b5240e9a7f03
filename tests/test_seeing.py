"What a network sees without classes: RELAX, factors, places alike; and which window to label next."

import numpy as np
import pytest
import torch
from torch import nn

from rsssl_nb.data.mosaics import make_mosaics, painted_textures
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.encoders import Encoder, Features
from rsssl_nb.errors import InputError
from rsssl_nb.evaluation.active import (
    RANKINGS,
    budget_curve,
    compare_rankings,
    farthest_first,
    labels_saved,
    next_windows,
    saved_interval,
    window_entropy,
)
from rsssl_nb.explain.attribution import agreement, attribute, erasure
from rsssl_nb.explain.factors import factorise, feature_of_pixel, places_alike
from rsssl_nb.explain.relax import likeness_to_itself, random_masks, relax, relax_maps
from rsssl_nb.mapping.embed import embed


class Corner(nn.Module):
    "An encoder that sees the upper left quarter only, and in it the direction of the colour."

    bands = 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        h, w = images.shape[2] // 2, images.shape[3] // 2
        seen = torch.cat([images[:, :, :h, :w], 0.3 + 0 * images[:, :1, :h, :w]], 1) * self.weight
        return Features(seen, seen.mean((2, 3)))


def test_masks_are_smooth_shares_and_a_function_of_their_seed():
    masks = random_masks(400, (50, 70), seed=3)
    assert masks.shape == (400, 50, 70) and masks.min() >= 0 and masks.max() <= 1
    assert torch.equal(masks, random_masks(400, (50, 70), seed=3))
    assert not torch.equal(masks, random_masks(400, (50, 70), seed=4))
    assert (masks.mean(0) - 0.5).abs().max() < 0.12  # everywhere shown half the time
    assert masks.diff(dim=1).abs().max() < 0.2


def test_relax_finds_the_part_that_is_looked_at():
    images = torch.ones(2, 3, 32, 32)
    images[1] *= torch.tensor([2.0, -1, 1]).view(3, 1, 1)
    scalar = likeness_to_itself(Corner(), images)
    torch.testing.assert_close(scalar(images), torch.ones(2))
    found = relax(scalar, images, random_masks(600, (32, 32), cells=4))
    quarter = torch.zeros(32, 32, dtype=torch.bool)
    quarter[:16, :16] = True
    for importance in found.importance:
        assert importance[4:12, 4:12].mean() > importance[20:, 20:].mean() + 0.02
        assert importance[quarter].mean() > importance[~quarter].mean()
    assert (found.uncertainty >= 0).all()
    batches = [relax(scalar, images, random_masks(60, (32, 32)), batch=b).importance for b in (1, 7, 500)]
    torch.testing.assert_close(batches[0], batches[1])
    torch.testing.assert_close(batches[0], batches[2])


def test_relax_is_the_loop_over_its_formula():
    torch.manual_seed(0)
    encoder = Encoder(bands=3, width=8)
    images = torch.randn(2, 3, 32, 32)
    images[0, :, :5] = float("nan")
    masks = random_masks(12, (32, 32))
    scalar = likeness_to_itself(encoder, images)
    encoder.train()
    found = relax(scalar, images, masks)
    assert encoder.training
    encoder.eval()
    with torch.no_grad():
        s = [scalar(images.nan_to_num(0) * m).double() for m in masks]
    for b in range(2):
        total = sum(m.double() for m in masks)
        R = sum(s[n][b] * masks[n].double() for n in range(12)) / total
        U = sum((s[n][b] - R) ** 2 * masks[n].double() for n in range(12)) / total
        known = (total > 1e-3) & images[b].isfinite().all(0)
        torch.testing.assert_close(found.importance[b][known].double(), R[known], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.uncertainty[b][known].double(), U[known], atol=1e-6, rtol=1e-2)
    assert (found.importance[0, :5] == 0).all() and (found.uncertainty[0, :5] == 0).all()


def test_relax_is_a_way_of_asking_and_beats_random_where_there_is_something_to_find():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32) + torch.rand(4, 3, 1, 1)
    scalar = likeness_to_itself(Corner(), images)
    maps = attribute(scalar, images, relax_maps)[:, 0]
    control = random_masks(4, (32, 32), seed=9)
    areas = [erasure(scalar, images, m, steps=8).mean(1) for m in (maps, control)]
    assert (areas[0] < areas[1]).float().mean() >= 0.75
    with pytest.raises(ValueError, match="is not known"):
        attribute(scalar, images, "relax")


def test_a_stopped_relax_ends():
    from rsssl_nb.explain.attribution import Stopped

    images = torch.ones(1, 3, 32, 32)
    with pytest.raises(Stopped):
        relax(likeness_to_itself(Corner(), images), images, random_masks(9, (32, 32)), stop=lambda: True)


# ---------------------------------------------------------------- factors


@pytest.mark.parametrize("seed", range(4))
def test_factors_find_the_parts_that_features_were_made_of(seed):
    g = torch.Generator().manual_seed(seed)
    parts = torch.zeros(2, 3, 6, 6)
    parts[:, 0, :3], parts[:, 1, 3:, :3], parts[0, 2, 3:, 3:] = 2, 1, 1
    directions = torch.rand(3, 15, generator=g)
    found = factorise(torch.einsum("nkhw,kd->ndhw", parts, directions), 3, steps=400, seed=seed)
    assert found.explained > 0.999 and (found.parts >= 0).all() and (found.directions >= 0).all()
    torch.testing.assert_close(found.directions.norm(dim=1), torch.ones(3))
    weight = found.parts.sum((0, 2, 3))
    assert (weight.diff() <= 1e-4).all()
    again = torch.einsum("nkhw,kd->ndhw", found.parts, found.directions)
    torch.testing.assert_close(again, torch.einsum("nkhw,kd->ndhw", parts, directions), atol=0.05, rtol=0.05)


def test_more_parts_explain_more_and_bad_input_is_named():
    features = torch.rand(1, 12, 5, 5)
    shares = [factorise(features, k).explained for k in (1, 3, 8)]
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] <= 1
    with pytest.raises(ValueError, match="below 0"):
        factorise(-features)
    with pytest.raises(ValueError, match="13 parts of 12 features"):
        factorise(features, 13)
    nothing = factorise(torch.zeros(1, 4, 3, 3), 2)
    assert nothing.parts.abs().sum() == 0 and nothing.directions.isfinite().all()


# ---------------------------------------------------------------- places


def test_a_pixel_finds_itself_first_and_its_like_in_another_file():
    encoder = Encoder(bands=4, width=8).eval()
    scene, other = make_scene(160, seed=1), make_scene(160, seed=2)
    y, x = np.argwhere(scene.valid)[4000]
    key = feature_of_pixel(encoder, scene, (x, y), 110.0, 45.0, 64)
    places = places_alike(encoder, key, [other, scene], 110.0, 45.0, 64, k=9)
    assert [p.cosine for p in places] == sorted((p.cosine for p in places), reverse=True)
    assert len(places) == 9 and all(0 <= p.x < 160 and 0 <= p.y < 160 for p in places)
    with pytest.raises(InputError, match="lies off"):
        feature_of_pixel(encoder, scene, (160, 0))
    hole = np.argwhere(~scene.valid)
    if len(hole):
        with pytest.raises(InputError, match="no data"):
            feature_of_pixel(encoder, scene, hole[0][::-1], 110.0, 45.0, 64)
    with pytest.raises(InputError, match="3 bands and the model reads 4"):
        places_alike(encoder, key, [scene.image[:3]])


def test_places_without_data_are_not_found():
    class Colour(nn.Module):
        bands = 1

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images):
            dense = torch.nn.functional.avg_pool2d(torch.cat([images, 0 * images + 1], 1) * self.weight, 8)
            return Features(dense, dense.mean((2, 3)))

    image = np.full((1, 64, 64), np.nan, np.float32)
    image[0, 32:, 32:] = 1
    image[0, 40:48, 48:56] = 5
    (best,) = places_alike(Colour(), torch.tensor([5.0, 1]), [image], size=64)
    assert (best.x, best.y) == (52, 44) and best.cosine > 0.999
    (nearest,) = places_alike(Colour(), torch.tensor([0.0, 1]), [image], size=64)  # as nodata would be read
    assert nearest.x >= 32 and nearest.y >= 32


# ---------------------------------------------------------------- one basis for many rasters


def test_a_stored_basis_gives_the_same_ground_the_same_colours(tmp_path):
    torch.manual_seed(0)
    encoder, options = Encoder(bands=4, width=8).eval(), dict(mean=110.0, std=45.0, size=64, device="cpu")
    scene, other = make_scene(160, seed=1), make_scene(160, seed=2)
    file = tmp_path / "colours.safetensors"
    first = embed(encoder, scene, **options, basis=file)
    kept = file.read_bytes()
    assert (embed(encoder, scene, **options) == first).all()
    assert (embed(encoder, scene, **options, basis=file) == first).all()
    on_other = embed(encoder, other, **options, basis=file)
    assert file.read_bytes() == kept and (on_other != embed(encoder, other, **options)).any()
    both = np.concatenate([scene.image, other.image], 2)  # the first half is the scene again
    again = embed(encoder, both, **options, overlap=0, basis=file)
    alone = embed(encoder, scene, **options, overlap=0, basis=file)
    valid = scene.valid[:64, :64]
    assert (again[:, :64, :64] == alone[:, :64, :64])[:, valid].all()


def test_a_basis_of_something_else_is_refused(tmp_path):
    torch.manual_seed(0)
    encoder, scene = Encoder(bands=4, width=8).eval(), make_scene(96, seed=1)
    file = tmp_path / "colours.safetensors"
    embed(encoder, scene, size=64, device="cpu", basis=file)
    for other, options, says in [
        (Encoder(bands=4, width=8).eval(), dict(size=64), "another weights"),
        (encoder, dict(size=32), "another size .64, not 32"),
        (encoder, dict(size=64, mean=1.0), "another mean"),
    ]:
        with pytest.raises(InputError, match=says):
            embed(other, scene, device="cpu", basis=file, **options)
    for text in (b"", b"no basis", b"[]" * 99):
        file.write_bytes(text)
        with pytest.raises(InputError, match="is no basis of colours"):
            embed(encoder, scene, size=64, device="cpu", basis=file)
    with pytest.raises(InputError, match="is no basis of colours"):
        embed(encoder, scene, size=64, device="cpu", basis=tmp_path)


# ---------------------------------------------------------------- the next window


def test_rankings_choose_what_they_say():
    scores = torch.zeros(4, 3, 2, 2)
    for i, sure in enumerate((9, 0, 3, 1)):
        scores[i, 0] = sure
    assert window_entropy(scores).argsort(descending=True).tolist() == [1, 3, 2, 0]
    pooled = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [1, 1]])
    assert next_windows("entropy", 2, [1], pooled, scores) == [3, 2]
    assert next_windows("coverage", 2, [0], pooled) == [2, 3]
    for ranking in RANKINGS:
        rest = next_windows(ranking, 9, [0, 2], pooled, scores)
        assert sorted(rest) == [1, 3]
    assert next_windows("random", 3, [], pooled, seed=1) == next_windows("random", 3, [], pooled, seed=1)
    with pytest.raises(ValueError, match="ranking 'best'"):
        next_windows("best", 1, [], pooled)


def test_farthest_first_halves_the_radius_of_what_is_left():
    g = torch.Generator().manual_seed(0)
    points = torch.rand(200, 2, generator=g)
    order = farthest_first(points, [], 200)
    assert sorted(order) == list(range(200))
    radii = [float(torch.cdist(points, points[order[:k]]).min(1).values.max()) for k in (1, 5, 20, 80)]
    assert radii == sorted(radii, reverse=True) and radii[2] < 0.25


def features_of(n, seed):
    "Features that are their colours, of small mosaics, and the labels."
    made = make_mosaics(painted_textures("train", each=4, size=32), n, 32, seed=seed)
    images = torch.as_tensor(made.images).float() / 255
    return torch.nn.functional.avg_pool2d(images, 4), torch.as_tensor(made.labels)


@pytest.fixture(scope="module")
def curves():
    pool, test = features_of(16, 0), features_of(6, 1)
    budgets = (2, 4, 8)
    found = {
        name: np.stack([budget_curve(name, *pool, *test, 6, budgets, seed) for seed in range(3)])
        for name in RANKINGS
    }
    return budgets, found


def test_curves_begin_alike_and_count_every_test_pixel(curves):
    budgets, found = curves
    for tables in found.values():
        assert tables.shape == (3, 3, 6, 6, 6) and (tables.sum((2, 3, 4)) == 6 * 32 * 32).all()
        assert (tables[:, 0] == found["random"][:, 0]).all()
    rows = compare_rankings(found["coverage"], found["random"])
    assert len(rows) == 3 and rows[0]["difference"] == rows[0]["low"] == rows[0]["high"] == 0
    assert all(
        row["low"] <= row["difference"] + 1e-9 and row["difference"] - 1e-9 <= row["high"] for row in rows
    )


def test_labels_saved_is_read_off_the_curves():
    def curve(mious):
        "Tables of two classes whose mean IoU is as given."
        rows = []
        for miou in mious:
            right = round(1e6 * 2 * miou / (1 + miou) / 2)
            rows.append([[right, 10**6 - right], [10**6 - right, right]])
        return np.array(rows)[None, :, None]

    random = curve([0.2, 0.4, 0.6])
    better = curve([0.2, 0.6, 0.8])
    assert labels_saved(better, random, (10, 20, 40)) == pytest.approx(0.5, abs=0.01)
    assert labels_saved(random, random, (10, 20, 40)) == pytest.approx(0, abs=0.01)
    assert np.isnan(labels_saved(curve([0.1, 0.2, 0.3]), random, (10, 20, 40)))


def test_the_interval_of_labels_saved_holds_the_share(curves):
    budgets, found = curves
    for name in ("entropy", "coverage"):
        low, high = saved_interval(found[name], found["random"], budgets, draws=200)
        saved = labels_saved(found[name], found["random"], budgets)
        assert low <= high <= 1 and (np.isnan(saved) or low <= saved <= high)
        assert (low, high) == saved_interval(found[name], found["random"], budgets, draws=200)
    low, high = saved_interval(found["random"], found["random"], budgets, draws=200)
    assert low <= 0 <= high


def test_budgets_that_cannot_be_are_named():
    pool = features_of(6, 0)
    for budgets in ((), (0, 2), (4, 2), (2, 2), (2, 7)):
        with pytest.raises(ValueError, match="must rise"):
            budget_curve("random", *pool, *pool, 6, budgets)


def test_windows_without_a_label_teach_nothing_and_are_named():
    maps, labels = features_of(6, 0)
    with pytest.raises(InputError, match="no point of the 2 labelled windows has a known class"):
        budget_curve("random", maps, torch.full_like(labels, 255), maps, labels, 6, (2, 4))


def test_agreement_of_relax_with_itself():
    images = torch.rand(2, 3, 32, 32) + torch.rand(2, 3, 1, 1)
    scalar = likeness_to_itself(Corner(), images)
    a, b = (relax_maps(scalar, images, n=800, seed=s)[:, 0] for s in (0, 1))
    assert (agreement(a, b) > 0.5).all()
