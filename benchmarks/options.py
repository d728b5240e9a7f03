"""What the two speed options of `pretrain` gain: a SimCLR step with channels_last, and with a compiled
encoder, beside the plain one.
"""

import sys

import torch
from measure import Sides, Skip, main, question

from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.views.pairs import two_views


def step(at, images, channels_last=False, compiled=False):
    "One forward and backward of SimCLR on ready views, as a callable."
    torch.manual_seed(0)
    method = SimCLR(Encoder(*at.pick(("resnet18", 3), ("resnet18", 3, 8), ("resnet50", 3)))).to(at.device)
    if channels_last:
        method = method.to(memory_format=torch.channels_last)
    if compiled:
        method.encoder.compile()
    pair = two_views(
        images, images.shape[-1], *method.plans(), seed=0, epoch=0, index=torch.arange(len(images))
    )

    def go():
        with torch.autocast(at.device, torch.bfloat16, enabled=at.cuda):
            loss = method(pair, At(0.5)).loss
        loss.backward()
        method.zero_grad(set_to_none=True)
        return loss.item()

    return go


def gain(**option):
    def ask(at):
        n, size = at.pick((16, 96), (4, 32), (128, 224))
        images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)).to(at.device)
        plain, ours = step(at, images), step(at, images, **option)
        try:
            assert abs(plain() - ours()) < (0.1 if at.cuda else 1e-3)
        except torch._dynamo.exc.BackendCompilerFailed as e:
            raise Skip(
                f"the encoder could not be compiled here ({str(e).splitlines()[0][:80]}): install a C++ "
                "compiler"
            ) from e
        return Sides(
            ours,
            plain,
            f"SimCLR, {n} images of {size} px, {'ResNet-50, bf16' if at.cuda else 'ResNet-18, float32'}",
            ""
            if at.cuda
            else "convolutions take nine tenths of the step on a processor, and come from the same library "
            "either way",
        )

    return ask


question("a step with --channels-last: without", ">= 1")(gain(channels_last=True))
question("a step with --compile (compiled before): without", ">= 1")(gain(compiled=True))


if __name__ == "__main__":
    sys.exit(main())
