"A label map of a whole raster against the bare forward passes over the same windows, ready in memory."

import sys

import numpy as np
import torch
from measure import Sides, growth, main, question

from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.mapping.segment import segment
from rsssl_nb.mapping.tiling import window_starts


def model_for(at, width=None):
    torch.manual_seed(0)
    name, width = at.pick(("resnet18", width or 32), ("resnet18", 8), ("resnet50", 64))
    return Segmenter(Encoder(name, 4, width, 16), 6).to(at.device).eval()


def image_of(side):
    return np.random.default_rng(0).integers(0, 256, (4, side, side), dtype=np.uint8)


def forward(model, image, size, batch, device):
    "The model's forward passes over all windows of a map, normalised and on the device beforehand."
    ys = window_starts(image.shape[1], size)
    windows = torch.stack(
        [torch.as_tensor(image[:, y : y + size, x : x + size]) for y in ys for x in ys]
    ).float()
    ready = [w.to(device) for w in windows.split(batch)]

    @torch.no_grad()
    def run():
        for w in ready:
            logits = model(w)
        return logits

    return run


@question("map of a raster (2 000^2, on cuda 10 000^2): bare model forward", ">= 0.85")
def whole(at):
    side, size, batch = at.pick((2000, 256, 8), (96, 64, 2), (10000, 256, 64))
    model, image = model_for(at), image_of(side)
    ours, bare = (
        lambda: segment(model, image, size=size, batch=batch, device=at.device),
        forward(model, image, size, batch, at.device),
    )
    alone = forward(model, image[:, :size, :size], size, batch, at.device)()[0].argmax(0).cpu().numpy()
    assert (segment(model, image[:, :size, :size], size=size, device=at.device) == alone).all()
    return Sides(
        ours,
        bare,
        f"{side} px square, windows of {size} px that share a quarter, {model.encoder.name} of width "
        f"{model.encoder.width}, stride 16",
    )


@question("growth: map of a raster, pixels of a side", "<= 1.15")
def side(at):
    model = model_for(at, 8)
    return growth(
        lambda n: lambda image=image_of(n): segment(model, image, size=at.pick(128, 32), device=at.device),
        at.pick([256, 512, 1024, 1536], [64, 128]),
        2,
        at,
    )


if __name__ == "__main__":
    sys.exit(main())
