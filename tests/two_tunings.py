"""One of two processes connected by gloo: loss, gradients and buffers of a step of fine-tuning on half a
batch, compared with the whole batch in one process.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn

from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.methods.base import At
from rsssl_nb.training.config import TuneConfig
from rsssl_nb.training.finetune import Finetuning, ReadyWindows
from rsssl_nb.training.processes import gather_rows, share_batchnorm
from rsssl_nb.training.validation import Validation

CASES = {
    "plain": {},
    "weighted": dict(class_weight=True),
    "smooth-dice": dict(smoothing=0.1, dice=1.0),
    "frozen": dict(mode="frozen"),
    "keep": dict(batchnorm="keep"),
}


class Doubled(nn.Module):
    "A segmenter in float64, so that rounding flips no ReLU."

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x, draw=None):
        return self.module(x.double(), draw)


def run(case, images, labels, rank=0, size=1):
    "(loss, gradients summed over processes, buffers) of one step on this process's share of the batch."
    torch.manual_seed(0)
    config = TuneConfig(
        length=4, batch=len(images) * size, windows=len(images) * size, size=64, seed=3, **case
    )
    frozen, keep = config.mode == "frozen", config.batchnorm == "keep"
    model = Segmenter(Encoder(bands=4, width=8), 6, frozen=frozen, keep_batchnorm=keep).double().train()
    if size > 1:
        share_batchnorm(model)
    weights = torch.arange(1.0, 7.0) if config.class_weight else None
    task = Finetuning(config, ReadyWindows(images, labels, 3), Validation([], []), weights)
    at = At(0.0, 0, torch.Generator().manual_seed(5), gather_rows if size > 1 else None, rank, size)
    batch = (images, labels, 1, rank * len(images))
    step, _ = task.loss(Doubled(model), batch, at, torch.device("cpu"))
    step.loss.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    grads = torch.cat(grads)
    if size > 1:
        dist.all_reduce(grads)
    return step.loss.item(), grads, torch.cat([b.flatten().double() for b in model.buffers()])


def main(rank, store, out):
    torch.set_num_threads(1)
    images, labels = make_tiles(8, 64, seed=1)
    images, labels = standardise(images), torch.as_tensor(labels).to(torch.uint8).clone()
    labels[:3, 10:50] = 255  # the halves hold unequal numbers of labelled pixels
    alone = {name: run(case, images, labels) for name, case in CASES.items()}  # before the two meet
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mine, found = slice(rank * 4, rank * 4 + 4), {}
    for name, case in CASES.items():
        loss, grads, buffers = run(case, images[mine], labels[mine], rank, 2)
        told, whole, kept = alone[name]
        found[name] = dict(
            loss=loss,
            whole_loss=told,
            gradient_gap=float((grads - whole).norm() / whole.norm()),
            buffer_gap=float((buffers - kept).abs().max()),
        )
    if rank == 0:
        torch.save(found, out)
    dist.barrier()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
