"What SSCCL's consistency branch adds to a SimCLR step; the moving average's own forward pass is left out."

import sys

import torch
from grass import whole_step
from measure import Sides, growth, main, question

from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.methods.ssccl import SSCCL


def against_simclr(encoder, size, n, **options):
    def ask(at):
        kind, pixels, images = at.pick((encoder, size, n), (dict(width=8), 32, 4))
        plain = lambda cls, **o: whole_step(cls, at, kind, pixels, images, tau=0.5, **o)
        off, simclr = plain(SSCCL, lam=0.0, head_norm=False), plain(SimCLR)
        sides = plain(SSCCL, objective="infonce", **options), simclr
        torch.testing.assert_close(off(), simclr(), atol=1e-4, rtol=1e-3)
        assert sides[0]().isfinite()
        return Sides(*sides, f"{images} images of {pixels} px, {kind}, objective infonce (no moving average)")

    return ask


question("SSCCL step, ResNet-18, 96 px: our SimCLR step", "<= 1.25", "cpu")(
    against_simclr(dict(name="resnet18"), 96, 8)
)
question("SSCCL step, ResNet-50, 224 px, bf16, on cuda: our SimCLR step", "<= 1.25", "cuda")(
    against_simclr(dict(name="resnet50", stride=32), 224, 128)
)


@question("growth: SSCCL step, images", "<= 1.15")
def images(at):
    return growth(
        lambda n: whole_step(SSCCL, at, dict(width=16), at.pick(64, 32), n, objective="infonce"),
        at.pick([8, 16, 32, 64], [2, 4]),
        1,
        at,
    )


if __name__ == "__main__":
    sys.exit(main())
