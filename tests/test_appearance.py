"""Appearance: any number of bands, a change of its own for every sample, and nothing that leaks between
samples.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rsssl_nb.data.pool import Pool
from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.data.statistics import normalise
from rsssl_nb.views.appearance import (
    N_DRAWS,
    Colour,
    band_change,
    blur,
    brightness,
    colour_retrieval,
    contrast,
    drop_band,
    gaussian,
    grey,
    jitter,
    recolour,
    saturation,
    soften_,
    tint,
)
from rsssl_nb.views.geometry import draws
from rsssl_nb.views.pairs import two_views

BANDS = [1, 2, 3, 4, 13]
SHAPES = [(20, 20), (9, 31), (31, 9), (1, 1), (1, 17), (2, 2)]


def images(bands=4, shape=(20, 26), n=6, seed=0):
    return torch.randn(n, bands, *shape, generator=torch.Generator().manual_seed(seed))


def uniforms(n=6, seed=9):
    return draws(range(n), N_DRAWS, seed=seed)


def recolour_slow(images, uniform, colour):
    """One sample (C, H, W) after another, each change in its own step, blur with the full two-dimensional
    kernel.
    """
    out = []
    for sample, u in zip(images, uniform.tolist()):
        x = band_change_slow(sample, u[9], colour) if u[0] < colour.p else sample
        b, c, s = ((2 * v - 1) * (u[0] < colour.p) for v in u[1:4])
        mean = x.mean((1, 2), keepdim=True)
        x = mean + (1 + colour.contrast * c) * (x - mean)
        g = x.mean(0, keepdim=True)
        x = g + (1 + colour.saturation * s) * (x - g) + colour.brightness * b
        if u[4] < colour.grey:
            lone = x[int(u[8] * len(x))][None]
            x = (lone if colour.grey_by == "band" else x.mean(0, keepdim=True)).expand_as(x)
        if u[5] < colour.blur:
            x = blur_slow(
                x,
                colour.sigma[0] + u[6] * (colour.sigma[1] - colour.sigma[0]),
                int(3 * colour.sigma[1] + 0.5),
            )
        if u[7] < colour.drop and len(x) > 1:
            x = torch.stack([torch.zeros_like(v) if k == int(u[8] * len(x)) else v for k, v in enumerate(x)])
        out.append(x)
    return torch.stack(out)


def band_change_slow(x, u, colour):
    "One band after another: gains first, then offsets, drawn from the sample's tenth number."
    drawn = draws([int(u * 2**24)], 2 * len(x))[0].tolist()
    bands = []
    for k, band in enumerate(x):
        gain = 1 + colour.gain * (2 * drawn[k] - 1)
        offset = colour.offset * (2 * drawn[len(x) + k] - 1)
        bands.append(gain * band + offset)
    return torch.stack(bands)


def blur_slow(x, sigma, radius):
    radius = min(radius, x.shape[-2] - 1, x.shape[-1] - 1)
    d = torch.arange(-radius, radius + 1.0)
    kernel = torch.exp(-(d[:, None] ** 2 + d[None] ** 2) / (2 * max(sigma, 1e-3) ** 2))
    padded = F.pad(x[None], (radius,) * 4, mode="replicate")[0]
    return F.conv2d(padded[:, None], (kernel / kernel.sum())[None, None])[:, 0]


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_batch_equals_one_slow_step_after_another(bands, shape):
    x, u, colour = images(bands, shape, n=12), uniforms(12), Colour(drop=0.5)
    torch.testing.assert_close(recolour(x, u, colour), recolour_slow(x, u, colour), atol=2e-5, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 13),
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["mean", "band"]),
)
def test_any_strength_and_probability(bands, seed, strength, p, p_grey, p_blur, p_drop, grey_by):
    x, u = images(bands, (7, 11), n=4), uniforms(4, seed)
    own = dict(gain=strength / 3, offset=strength / 2, grey_by=grey_by)
    colour = Colour(strength, strength, strength, p, p_grey, p_blur, drop=p_drop, **own)
    torch.testing.assert_close(recolour(x, u, colour), recolour_slow(x, u, colour), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("bands", BANDS)
def test_a_sample_does_not_depend_on_its_company(bands):
    x, u, colour = images(bands), uniforms(), Colour(drop=0.5)
    whole, order = recolour(x, u, colour), torch.tensor([4, 0, 5])
    torch.testing.assert_close(recolour(x[order], u[order], colour), whole[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(recolour(x[3:4], u[3:4], colour), whole[3:4], atol=1e-5, rtol=0)


def test_large_images_are_blurred_a_few_at_a_time_and_come_out_the_same():
    x, u, colour = images(3, (257, 256), n=12), uniforms(12), Colour(blur=1.0)
    whole = recolour(x, u, colour)
    for i in (0, 4, 5, 11):
        torch.testing.assert_close(
            recolour(x[i : i + 1], u[i : i + 1], colour), whole[i : i + 1], atol=1e-5, rtol=0
        )


def test_softening_is_in_place_and_tinting_is_not():
    x, u = images(), uniforms()
    tinted = tint(x, u)
    assert (
        tinted is not x
        and torch.equal(x, images())
        and torch.equal(recolour(x, u), soften_(tinted.clone(), u))
    )
    assert soften_(tinted, u) is tinted and torch.equal(tinted, recolour(x, u))


def test_switched_off_it_is_exactly_nothing():
    assert torch.equal(recolour(images(), uniforms(), Colour(p=0, grey=0, blur=0)), images())
    assert torch.equal(
        recolour(images(), uniforms(), Colour(0, 0, 0, grey=0, blur=0, gain=0, offset=0)), images()
    )


def test_inputs_and_the_global_stream_are_left_alone():
    x, u, state = images(), uniforms(), torch.get_rng_state()
    before = x.clone(), u.clone()
    recolour(x, u, Colour(drop=1.0, blur=1.0))
    assert (
        torch.equal(x, before[0]) and torch.equal(u, before[1]) and torch.equal(state, torch.get_rng_state())
    )


def test_only_the_samples_drawn_for_blur_are_blurred():
    x, u = images(n=40), uniforms(40)
    out = recolour(x, u, Colour(p=0, grey=0, blur=0.5, sigma=(1.0, 2.0)))
    same = torch.tensor([torch.equal(a, b) for a, b in zip(out, x)])
    assert torch.equal(same, u[:, 5] >= 0.5) and 5 < same.sum() < 35


def test_probabilities_are_kept():
    x, u = images(2, (3, 3), n=1).expand(20_000, -1, -1, -1), uniforms(20_000)
    share = lambda moved: float(moved.float().mean())
    grey_only = recolour(x, u, Colour(p=0, blur=0))
    assert abs(share((grey_only[:, 0] - grey_only[:, 1]).abs().amax((1, 2)) < 1e-6) - 0.2) < 0.02
    assert abs(share((recolour(x, u, Colour(grey=0, blur=0)) != x).any(3).any(2).any(1)) - 0.8) < 0.02
    assert (
        abs(share((recolour(x, u, Colour(p=0, grey=0, blur=0, drop=0.3)) == 0).all(3).all(2).any(1)) - 0.3)
        < 0.02
    )


@pytest.mark.parametrize("bands", BANDS)
def test_jitter_is_the_three_changes_in_turn(bands):
    x, (b, c, s) = images(bands), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        jitter(x, b, c, s), brightness(saturation(contrast(x, c), s), b), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("bands", BANDS)
def test_jitter_with_bands_of_their_own_is_the_four_changes_in_turn(bands):
    x, drawn = images(bands), torch.Generator().manual_seed(1)
    b, c, s = torch.randn(3, 6, generator=drawn)
    gain, shift = torch.randn(2, 6, bands, generator=drawn)
    slow = brightness(saturation(contrast(band_change(x, gain, shift), c), s), b)
    torch.testing.assert_close(jitter(x, b, c, s, gain, shift), slow, atol=2e-5, rtol=1e-5)


def test_what_each_change_keeps():
    x, f = images(), torch.linspace(0.2, 1.8, 6)
    torch.testing.assert_close(contrast(x, f).mean((2, 3)), x.mean((2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(contrast(x, f).std((2, 3)), x.std((2, 3)) * f[:, None], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(saturation(x, f).mean(1), x.mean(1), atol=1e-5, rtol=0)
    chosen = torch.arange(6) % 2 == 0
    dull = grey(x, chosen)
    assert torch.allclose(dull[chosen].std(1), torch.zeros(()), atol=1e-5)
    torch.testing.assert_close(dull[~chosen], x[~chosen], atol=1e-6, rtol=0)
    torch.testing.assert_close(saturation(x[:, :1], f), x[:, :1], atol=1e-6, rtol=0)


def test_blur_keeps_constants_and_sharp_images_and_its_input():
    flat = torch.full((2, 3, 9, 5), 2.0)
    torch.testing.assert_close(blur(flat, torch.tensor([0.5, 9.0])), flat)
    x = images()
    before = x.clone()
    torch.testing.assert_close(blur(x, torch.full((6,), 1e-4)), x)
    assert torch.equal(blur(x, torch.full((6,), 2.0), radius=0), x) and torch.equal(x, before)


def test_blur_weights_are_a_gaussian():
    k = gaussian(torch.tensor([0.7, 2.0, 0.0]), 12)
    torch.testing.assert_close(k.sum(1), torch.ones(3))
    d = torch.arange(-12, 13.0)
    torch.testing.assert_close((k * d**2).sum(1).sqrt(), torch.tensor([0.7, 2.0, 0.0]), atol=1e-2, rtol=0)
    assert torch.equal(k, k.flip(1)) and k[2, 12] == 1


def test_an_impulse_spreads_by_its_own_sigma():
    x = torch.zeros(2, 1, 41, 41)
    x[:, :, 20, 20] = 1
    soft = blur(x, torch.tensor([1.0, 3.0]))
    d = (torch.arange(41) - 20.0) ** 2
    torch.testing.assert_close(
        (soft.sum(2)[:, 0] * d).sum(1).sqrt(), torch.tensor([1.0, 3.0]), atol=0.06, rtol=0
    )
    torch.testing.assert_close(soft, soft.transpose(2, 3), atol=1e-7, rtol=0)


def test_a_lost_band_is_one_band_and_never_the_only_one():
    x, chosen = images(), torch.tensor([True, True, False, True, True, True])
    lost = drop_band(x, chosen, torch.tensor([0, 3, 1, 4, 5, 2.9]))
    gone = (lost == 0).all(3).all(2)
    assert gone.sum(1).tolist() == [1, 1, 0, 1, 1, 1] and gone.nonzero()[:, 1].tolist() == [0, 3, 0, 1, 2]
    assert torch.equal(lost[~gone], x[~gone])
    assert torch.equal(drop_band(x[:, :1], chosen, torch.zeros(6)), x[:, :1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_is_kept(dtype):
    out = recolour(images().to(dtype), uniforms(), Colour(drop=0.5))
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.float(),
        recolour(images(), uniforms(), Colour(drop=0.5)),
        atol=1e-4 if dtype == torch.float64 else 0.1,
        rtol=0.05,
    )


def test_flat_images_stay_finite():
    assert recolour(torch.zeros(6, 4, 8, 8), uniforms(), Colour(drop=0.5)).isfinite().all()


@pytest.mark.parametrize("shape", [(6, N_DRAWS - 1), (5, N_DRAWS), (1, N_DRAWS)])
def test_uniforms_must_fit(shape):
    with pytest.raises(ValueError, match=rf"\(6, {N_DRAWS}\)"):
        recolour(images(), torch.rand(shape))


def test_a_grey_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="grey_by 'luma' is not known: choose mean or band"):
        tint(images(), uniforms(), Colour(grey_by="luma"))


@pytest.fixture(scope="module")
def windows(imagery):
    "Windows (512, 3, 128, 128) of Dubai's training scenes, standardised, drawn uniformly."
    pool = Pool([imagery / "dubai/train/images"], 128)
    drawn = torch.stack([torch.as_tensor(pool.read(w)) for w in pool.windows(512, seed=1)])
    return normalise(drawn, *pool.statistics())


def test_colour_alone_finds_few_partners_on_four_band_scenes():
    scenes = standardise(make_tiles(512, 128, seed=11)[0])
    pair = two_views(scenes, 96, seed=3)
    assert colour_retrieval(pair.a, pair.b) <= 0.16


def test_colour_alone_finds_few_partners_on_dubai(windows):
    pair = two_views(windows, 96, seed=3)
    assert colour_retrieval(pair.a, pair.b) <= 0.16


def test_retrieval_is_one_for_twins_chance_for_strangers_and_needs_enough():
    x = images(3, (5, 6), n=640)
    assert colour_retrieval(x, x + 1e-4 * torch.randn(x.shape)) == 1.0
    assert colour_retrieval(x, images(3, (5, 6), n=640, seed=1)) < 0.05
    with pytest.raises(ValueError, match="fewer than the 64"):
        colour_retrieval(x[:9], x[:9])
