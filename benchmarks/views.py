"""Two views of a batch: crop, mirror, quarter turn, colour, grey, blur, from decoded uint8 tiles in memory to normalised views."""
import sys

import torch

from measure import Sides, growth, main, question
from rsssl_nb.views.appearance import blur
from rsssl_nb.views.geometry import crop_boxes
from rsssl_nb.views.pairs import two_views

SIGMA, TAPS = (0.1, 2.0), 13


def tiles(n, bands, side):
    "Decoded tiles (n, bands, side, side) uint8."
    return torch.randint(0, 256, (n, bands, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def ours(raw, size):
    "Our two views, normalisation included."
    return lambda: two_views(raw.float().mul_(1 / 127.5).sub_(1), size)


def sizes(at, bands):
    n, side, size = at.pick((32, 256, 224), (4, 40, 32), (256, 256, 224))
    return tiles(n, bands, side).to(at.device), size


def same_shape(pair, views, n, size):
    "Two views for every image, finite, of the asked size."
    for v in (pair.a, pair.b, *views): assert v.shape[-2:] == (size, size) and torch.isfinite(v).all()
    assert sum(len(v) if v.ndim == 4 else 1 for v in views) == 2 * n


def check_crop(crop, size):
    "A peer's crop of a box, against ours, but for the rim: where it repeats its last pixel, ours reads on in the image."
    image, inner = torch.rand(1, 3, 40, 40), (..., slice(8, -8), slice(8, -8))
    torch.testing.assert_close(crop_boxes(image, torch.tensor([[4., 8, 34, 38]]), size)[inner], crop(image, 8, 4, 30, 30)[inner], atol=1e-4, rtol=0)


def check_blur(peer):
    "A peer's blur, against ours, away from the edge."
    image = torch.rand(1, 3, 40, 40)
    inner = (..., slice(6, -6), slice(6, -6))
    torch.testing.assert_close(blur(image, torch.tensor([1.5]), TAPS // 2)[inner], peer(image)[inner], atol=1e-4, rtol=0)


def lightly_side(raw, size):
    from lightly.transforms import SimCLRTransform
    from torchvision.transforms.functional import to_pil_image
    half = dict(mean=[0.5] * 3, std=[0.5] * 3)
    change = SimCLRTransform(size, cj_prob=0.8, cj_strength=0.5, cj_bright=0.8, cj_contrast=0.8, cj_sat=0.8, cj_hue=0.0, min_scale=0.2, random_gray_scale=0.2,
                             gaussian_blur=0.5, sigmas=SIGMA, hf_prob=0.5, rr_prob=0.5, normalize=half)
    pictures = [to_pil_image(t) for t in raw.cpu()]
    return lambda: [v for p in pictures for v in change(p)]


def torchvision_side(raw, size):
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as tv
    check_crop(lambda i, y, x, h, w: tv.resized_crop(i, y, x, h, w, [size, size], antialias=False), size)
    check_blur(lambda i: tv.gaussian_blur(i, [TAPS, TAPS], [1.5, 1.5]))
    colour = v2.Compose([v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4)], 0.8), v2.RandomGrayscale(0.2)])
    change = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.RandomResizedCrop(size, (0.2, 1.0), antialias=False), v2.RandomHorizontalFlip(0.5),
                         v2.Lambda(lambda i: torch.rot90(i, int(torch.randint(4, ())), (1, 2))), v2.Lambda(lambda i: torch.cat([colour(i[:3]), i[3:]])),
                         v2.RandomApply([v2.GaussianBlur(TAPS, SIGMA)], 0.5), v2.Normalize([0.5] * raw.shape[1], [0.5] * raw.shape[1])])
    return lambda: [change(image) for image in raw for _ in range(2)]


def kornia_side(raw, size):
    import kornia.augmentation as K
    from kornia.filters import gaussian_blur2d
    check_blur(lambda i: gaussian_blur2d(i, (TAPS, TAPS), (1.5, 1.5)))
    place = torch.nn.Sequential(K.RandomResizedCrop((size, size), scale=(0.2, 1.0), p=1.0), K.RandomHorizontalFlip(p=0.5), K.RandomRotation90((0, 3), p=1.0))
    colour = torch.nn.Sequential(K.ColorJitter(0.4, 0.4, 0.4, 0.0, p=0.8), K.RandomGrayscale(p=0.2))
    half = torch.full((raw.shape[1],), 0.5)
    finish = torch.nn.Sequential(K.RandomGaussianBlur((TAPS, TAPS), SIGMA, p=0.5), K.Normalize(half, half))
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
        return Sides(mine, other, f"{len(raw)} images of {raw.shape[2]} px{note}")
    return ask


question("two views, 224 px, 3 bands: lightly SimCLRTransform", ">= 3")(against(lightly_side, 3, ", lightly from PIL images, without hue"))
question("two views, 224 px, 3 bands: torchvision v2 per sample", ">= 4")(against(torchvision_side, 3))
question("two views, 224 px, 4 bands: torchvision v2 per sample", ">= 4")(against(torchvision_side, 4, ", torchvision jitters three of them, since it refuses 4"))
question("two views, 224 px, 3 bands: kornia batch", ">= 4")(against(kornia_side, 3))
question("two views, 224 px, 4 bands: kornia batch", ">= 4")(against(kornia_side, 4, ", kornia jitters three of them, since it refuses 4"))


@question("growth: two views of a batch, images", "<= 1.15")
def batch(at): return growth(lambda n: ours(tiles(n, 4, 96).to(at.device), 64), at.pick([8, 16, 32, 64], [2, 4]), 1, at)


@question("growth: two views of a batch, pixels of a side", "<= 1.15")
def side(at): return growth(lambda n: ours(tiles(8, 4, n).to(at.device), n), at.pick([64, 128, 256, 512], [32, 64]), 2, at)


if __name__ == "__main__": sys.exit(main())
