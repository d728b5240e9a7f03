"""One of two processes connected by gloo: loss, gradients and buffers of every method on half a batch,
compared with the whole batch in one process.
"""

import sys

import torch
import torch.distributed as dist

from rsssl_nb.data.scenes import make_tiles, standardise
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.byol import BYOL, SimSiam
from rsssl_nb.methods.combined import Combined
from rsssl_nb.methods.dense import DenseCL, PixPro
from rsssl_nb.methods.false import FALSE
from rsssl_nb.methods.glcnet import GLCNet
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.inpainting import Inpainting
from rsssl_nb.methods.lejepa import LeJEPA
from rsssl_nb.methods.moco import MoCo
from rsssl_nb.methods.placebos import FALSERandom, GLCNetUnmatched, GraSSRandom, SSCCLShuffled
from rsssl_nb.methods.redundancy import BarlowTwins, VICReg
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.methods.ssccl import SSCCL
from rsssl_nb.methods.swav import SwAV
from rsssl_nb.training.processes import gather_rows, share_batchnorm
from rsssl_nb.views.pairs import two_views

METHODS = {
    "simclr": SimCLR,
    "simclr-norm": lambda e: SimCLR(e, head_norm=True),
    "glcnet": GLCNet,
    "glcnet-official": GLCNet.official,
    "false": lambda e: FALSE(e, gate=0.5, gate_warmup=0.0),
    "false-fixed": lambda e: FALSE(e, gate=0.5, gate_warmup=0.0, select="official_fixed"),
    "grass": lambda e: GraSS(e, warmup=0.0),
    "ssccl": lambda e: SSCCL(e, objective="siamese", beta=0.5),
    "ssccl-infonce": lambda e: SSCCL(e, objective="infonce", beta=0.5),
    "mocov2": lambda e: MoCo(e, queue=40),
    "mocov2-official": lambda e: MoCo.official(e, queue=40),
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlowtwins": BarlowTwins,
    "vicreg": VICReg,
    "swav": SwAV,
    "lejepa": LeJEPA,
    "densecl": lambda e: DenseCL(e, queue=40),
    "pixpro": PixPro,
    "inpainting": Inpainting,
    "grass-random": lambda e: GraSSRandom(e, warmup=0.0),
    "false-random": lambda e: FALSERandom(e, gate=0.5, gate_warmup=0.0),
    "glcnet-unmatched": GLCNetUnmatched,
    "ssccl-shuffled": SSCCLShuffled,
    "combined": lambda e: Combined(e, gate=0.5, gate_warmup=0.0, warmup=0.0),
}


def run(make, pair, rank=0, size=1, meet=True):
    """(loss, gradients summed over processes, buffers) of one step, images and weights in float64 so that
    rounding flips no ReLU.
    """
    torch.manual_seed(0)
    method = make(Encoder(bands=4, width=8)).double()
    if size > 1 and meet:
        share_batchnorm(method)
    at = At(0.9, 9, torch.Generator().manual_seed(5), gather_rows if size > 1 and meet else None, rank, size)
    loss = method(pair, at).loss
    loss.backward()
    method.after_step(at)
    grads = torch.cat(
        [
            p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()).double()
            for p in method.parameters()
        ]
    )
    if size > 1:
        dist.all_reduce(grads)
    return (
        loss.item(),
        grads if meet else grads / size,
        torch.cat([b.flatten().double() for b in method.buffers()]),
    )


def main(rank, store, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    pair = two_views(standardise(make_tiles(16, 64, seed=1)[0]), 64, seed=0)
    pair.a, pair.b = pair.a.double(), pair.b.double()
    half, found = pair[rank * 8 : (rank + 1) * 8], {}
    for name, make in {**METHODS, "simclr-alone": SimCLR}.items():
        loss, grads, buffers = run(make, half, rank, 2, name != "simclr-alone")
        told, whole, kept = run(make, pair)
        found[name] = dict(
            loss=loss,
            whole_loss=told,
            gradient_gap=float((grads - whole).norm() / whole.norm()),
            buffer_gap=float((buffers - kept).abs().max()),
        )
    try:
        run(FALSE.official, half, rank, 2)
    except ValueError as e:
        found["false-official"] = str(e)
    if rank == 0:
        torch.save(found, out)
    dist.barrier()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
