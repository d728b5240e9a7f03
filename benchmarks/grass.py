"GraSS: heat maps to boxes, views cut again along them, and what guidance adds to a whole step."

import sys

import torch
import torch.nn.functional as F
from measure import Sides, growth, main, question

from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.views.geometry import view_affine
from rsssl_nb.views.pairs import two_views
from rsssl_nb.views.peaks import peak_boxes
from rsssl_nb.views.recut import recut


def heats(n, cells=7):
    "Loss maps (n, cells, cells)."
    return torch.randn(n, cells, cells, generator=torch.Generator().manual_seed(0))


def loop_boxes(heat, size):
    """The released procedure for one map after another: enlarge, threshold, label, the last component whose
    box holds the maximum.
    """
    from skimage.measure import label, regionprops

    boxes = []
    for up in F.interpolate(heat.cpu()[:, None], (size, size), mode="bilinear", align_corners=False)[
        :, 0
    ].numpy():
        low, high = up.min(), up.max()
        found, best = [0, 0, size, size], -float("inf")
        for r in regionprops(label(up > low + 0.5 * (high - low), connectivity=2)):
            y0, x0, y1, x1 = r.bbox
            if up[y0:y1, x0:x1].max() >= best:
                best, found = up[y0:y1, x0:x1].max(), [x0, y0, x1, y1]
        boxes.append(found)
    return torch.tensor(boxes)


def loop_cut(views, boxes):
    "Views sliced along whole-pixel boxes and resized, one after another."
    size = views.shape[-2:]
    return torch.cat(
        [
            F.interpolate(v[None, :, y0:y1, x0:x1], size, mode="bilinear", align_corners=False)
            for v, (x0, y0, x1, y1) in zip(views, boxes.tolist())
        ]
    )


def scene(at):
    "Maps, views and where they lie."
    n, size = at.pick((256, 224), (6, 32))
    views = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))
    return (
        heats(n).to(at.device),
        views.to(at.device),
        view_affine(torch.tensor([[0.0, 0, size, size]] * n), size).to(at.device),
        size,
    )


@question("GraSS heat maps to boxes, 256 x 224^2: loop with skimage", ">= 2", "cpu")
def boxes(at):
    heat, _, _, size = scene(at)
    ours, loop = lambda: peak_boxes(heat, 0.5, size, 0, "box"), lambda: loop_boxes(heat, size)
    assert torch.equal(ours(), loop())
    return Sides(ours, loop, f"torch with {torch.get_num_threads()} threads, the loop with one; equal boxes")


def same_cut(views, where, found, size):
    "Both ways of cutting agree, but for the rim, where slicing repeats its last pixel and sampling reads on."
    mine, theirs = recut(views, where, found)[0], loop_cut(views, found)
    wide = (found[:, 2:] - found[:, :2]).amin(1) > 8
    assert (mine - theirs)[wide][..., size // 4 : -size // 4, size // 4 : -size // 4].abs().max() < 1e-3


@question("GraSS cutting views again, 256 x 3 x 224^2: slicing and resizing", ">= 1", "cpu")
def cut(at):
    heat, views, where, size = scene(at)
    found = peak_boxes(heat, 0.5, size, at.pick(32, 10), "box")
    same_cut(views, where, found, size)
    return Sides(lambda: recut(views, where, found), lambda: loop_cut(views, found))


@question(
    "GraSS boxes and cut, 256 x 3 x 224^2, on cuda: loop on the processor, transfers counted", ">= 20", "cuda"
)
def boxes_and_cut(at):
    heat, views, where, size = scene(at)

    def ours():
        found = peak_boxes(heat, 0.5, size, 0, "box")
        return found, recut(views, where, found)[0]

    def loop():
        found = loop_boxes(heat, size)
        return found.to(at.device), loop_cut(views.cpu(), found).to(at.device)

    assert torch.equal(ours()[0], loop()[0])
    same_cut(views, where, ours()[0], size)
    return Sides(ours, loop)


def whole_step(cls, at, encoder, size, n, **options):
    "A callable: forward and backward of a guided method on ready views."
    torch.manual_seed(0)
    method = cls(Encoder(**encoder), **options).to(at.device).train()
    pair = two_views(
        torch.randn(n, encoder.get("bands", 3), size, size, generator=torch.Generator().manual_seed(2)).to(
            at.device
        ),
        size,
        *method.plans(),
        min_iou=method.min_iou,
    )

    def step():
        method.zero_grad(set_to_none=True)
        with torch.autocast(at.device, torch.bfloat16, enabled=at.cuda):
            loss = method(pair, At(0.9, 9)).loss
        loss.backward()
        return loss

    return step


@question("GraSS whole step, ResNet-50, 224 px, bf16, on cuda: our SimCLR step", "<= 1.4", "cuda")
def step(at):
    encoder, size, n = at.pick((dict(name="resnet50", stride=32), 224, 128), (dict(width=8), 32, 4))
    sides = [
        whole_step(cls, at, encoder, size, n, **options)
        for cls, options in ((GraSS, dict(warmup=0.0)), (SimCLR, {}))
    ]
    warm = whole_step(GraSS, at, encoder, size, n, warmup=1.0)
    torch.testing.assert_close(warm(), sides[1](), atol=1e-4, rtol=1e-3)
    return Sides(*sides, f"{n} images; in its warm-up GraSS costs and loses what SimCLR does")


@question("growth: GraSS boxes, maps", "<= 1.15")
def maps(at):
    return growth(
        lambda n: lambda heat=heats(n).to(at.device): peak_boxes(heat, 0.5, 224, 0),
        at.pick([32, 64, 128, 256], [2, 4]),
        1,
        at,
    )


@question("growth: GraSS boxes, pixels of a side", "<= 1.15")
def side(at):
    return growth(
        lambda s: lambda heat=heats(32).to(at.device): peak_boxes(heat, 0.5, s, 0),
        at.pick([112, 224, 448, 896], [28, 56]),
        2,
        at,
    )


if __name__ == "__main__":
    sys.exit(main())
