"""Two views of a batch: crop, mirror, quarter turn, colour, grey, blur, from decoded uint8 tiles in memory to
normalised views.
"""

import sys

import torch
from measure import Sides, growth, main, question

from rsssl_nb.training.device import freed_memory_kept
from rsssl_nb.views.appearance import blur
from rsssl_nb.views.geometry import coordinate_ramp, crop_boxes
from rsssl_nb.views.pairs import Plan, two_views

SIGMA, TAPS = (0.1, 2.0), 13


def tiles(n, bands, side):
    "Decoded tiles (n, bands, side, side) uint8."
    return torch.randint(
        0, 256, (n, bands, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def ours(raw, size, plan=Plan()):
    "Our two views, normalised in memory that is kept from call to call."
    images = torch.empty(raw.shape, device=raw.device)
    return lambda: two_views(images.copy_(raw).mul_(1 / 127.5).sub_(1), size, plan)


def sizes(at, bands):
    n, side, size = at.pick((32, 256, 224), (4, 40, 32), (256, 256, 224))
    return tiles(n, bands, side).to(at.device), size


def same_shape(pair, views, n, size):
    "Two views for every image, finite, of the asked size."
    for v in (pair.a, pair.b, *views):
        assert v.shape[-2:] == (size, size) and torch.isfinite(v).all()
    assert sum(len(v) if v.ndim == 4 else 1 for v in views) == 2 * n


def same_still(peer, bands, device):
    """With every change switched off, a peer's views are ours: a ramp of 256 pixels, resized and normalised,
    to a pixel of it and but for the rim.
    """
    ramp = coordinate_ramp(2, 256, 256)[:, [0, 1] * 2][:, :bands].to(torch.uint8).to(device)
    still = ours(ramp, 224, Plan((1.0, 1.0), (1.0, 1.0), 0.0, False, None))()
    for v in peer(ramp, 224, 0)():
        assert (v.to(device) - still.a[0])[..., 4:-4, 4:-4].abs().max() < 1.5 / 127.5


def check_crop(crop, size):
    """A peer's crop of a box, against ours, but for the rim: where it repeats its last pixel, ours reads on
    in the image.
    """
    image, inner = torch.rand(1, 3, 40, 40), (..., slice(8, -8), slice(8, -8))
    torch.testing.assert_close(
        crop_boxes(image, torch.tensor([[4.0, 8, 34, 38]]), size)[inner],
        crop(image, 8, 4, 30, 30)[inner],
        atol=1e-4,
        rtol=0,
    )


def check_blur(peer):
    "A peer's blur, against ours, away from the edge."
    image = torch.rand(1, 3, 40, 40)
    inner = (..., slice(6, -6), slice(6, -6))
    torch.testing.assert_close(
        blur(image, torch.tensor([1.5]), TAPS // 2)[inner], peer(image)[inner], atol=1e-4, rtol=0
    )


def lightly_side(raw, size, on=1):
    from lightly.transforms import SimCLRTransform
    from torchvision.transforms.functional import to_pil_image

    half = dict(mean=[0.5] * 3, std=[0.5] * 3)
    change = SimCLRTransform(
        size,
        cj_prob=0.8 * on,
        cj_strength=0.5,
        cj_bright=0.8,
        cj_contrast=0.8,
        cj_sat=0.8,
        cj_hue=0.0,
        min_scale=1 - 0.8 * on,
        random_gray_scale=0.2 * on,
        gaussian_blur=0.5 * on,
        sigmas=SIGMA,
        hf_prob=0.5 * on,
        rr_prob=0.5 * on,
        normalize=half,
    )
    pictures = [to_pil_image(t) for t in raw.cpu()]
    return lambda: [v for p in pictures for v in change(p)]


def torchvision_side(raw, size, on=1):
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as tv

    check_crop(lambda i, y, x, h, w: tv.resized_crop(i, y, x, h, w, [size, size], antialias=False), size)
    check_blur(lambda i: tv.gaussian_blur(i, [TAPS, TAPS], [1.5, 1.5]))
    colour = v2.Compose(
        [v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4)], 0.8 * on), v2.RandomGrayscale(0.2 * on)]
    )
    change = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomResizedCrop(size, (1 - 0.8 * on, 1.0), antialias=False),
            v2.RandomHorizontalFlip(0.5 * on),
            v2.Lambda(lambda i: torch.rot90(i, on * int(torch.randint(4, ())), (1, 2))),
            v2.Lambda(lambda i: torch.cat([colour(i[:3]), i[3:]])),
            v2.RandomApply([v2.GaussianBlur(TAPS, SIGMA)], 0.5 * on),
            v2.Normalize([0.5] * raw.shape[1], [0.5] * raw.shape[1]),
        ]
    )
    return lambda: [change(image) for image in raw for _ in range(2)]


def kornia_side(raw, size, on=1):
    import kornia.augmentation as K
    from kornia.filters import gaussian_blur2d

    check_blur(lambda i: gaussian_blur2d(i, (TAPS, TAPS), (1.5, 1.5)))
    place = torch.nn.Sequential(
        K.RandomResizedCrop((size, size), scale=(1 - 0.8 * on, 1.0), p=1.0),
        K.RandomHorizontalFlip(p=0.5 * on),
        K.RandomRotation90((0, 3), p=1.0 * on),
    )
    colour = torch.nn.Sequential(K.ColorJitter(0.4, 0.4, 0.4, 0.0, p=0.8 * on), K.RandomGrayscale(p=0.2 * on))
    half = torch.full((raw.shape[1],), 0.5)
    finish = torch.nn.Sequential(
        K.RandomGaussianBlur((TAPS, TAPS), SIGMA, p=0.5 * on), K.Normalize(half, half)
    )

    def view():
        images = place(raw.float() / 255)
        return finish(torch.cat([colour(images[:, :3]), images[:, 3:]], 1))

    return lambda: [view(), view()]


def against(peer, bands, note=""):
    "The question's answer for a peer."

    def ask(at):
        raw, size = sizes(at, bands)
        mine, other = ours(raw, size), peer(raw, size)
        same_shape(mine(), other(), len(raw), size)
        same_still(peer, bands, at.device)
        return Sides(mine, other, f"{len(raw)} images of {raw.shape[2]} px{note}")

    return ask


question("two views, 224 px, 3 bands: lightly SimCLRTransform", ">= 3")(
    against(lightly_side, 3, ", lightly from PIL images, without hue")
)
question("two views, 224 px, 3 bands: torchvision v2 per sample", ">= 4")(against(torchvision_side, 3))
question("two views, 224 px, 4 bands: torchvision v2 per sample", ">= 4")(
    against(torchvision_side, 4, ", torchvision jitters three of them, since it refuses 4")
)
question("two views, 224 px, 3 bands: kornia batch", ">= 4")(against(kornia_side, 3))
question("two views, 224 px, 4 bands: kornia batch", ">= 4")(
    against(kornia_side, 4, ", kornia jitters three of them, since it refuses 4")
)


@question("growth: two views of a batch, images", "<= 1.15")
def batch(at):
    return growth(lambda n: ours(tiles(n, 4, 96).to(at.device), 64), at.pick([8, 16, 32, 64], [2, 4]), 1, at)


@question("growth: two views of a batch, pixels of a side", "<= 1.15")
def side(at):
    return growth(
        lambda n: ours(tiles(8, 4, n).to(at.device), n), at.pick([64, 128, 256, 512], [32, 64]), 2, at
    )


if __name__ == "__main__":
    with freed_memory_kept("cpu"):  # as in a run; both sides have it
        sys.exit(main())
