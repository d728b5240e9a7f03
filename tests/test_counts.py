"""What a step costs in counts that do not depend on the machine: encoder passes, values read to the host,
operations, bytes.
"""

import sys
from pathlib import Path

import pytest
import torch

from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.base import At
from rsssl_nb.methods.false import FALSE
from rsssl_nb.methods.glcnet import GLCNet
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.methods.simclr import SimCLR
from rsssl_nb.methods.ssccl import SSCCL
from rsssl_nb.objectives.nce import nce, nce_in_blocks
from rsssl_nb.views.pairs import two_views

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
from measure import Watch  # noqa: E402

LATE = At(progress=0.9, epoch=9)
HOST = (
    "aten._local_scalar_dense",
    "aten.is_nonzero",
    "aten.equal",
    "aten.nonzero",
    "aten._unique",
    "aten.unique",
    "aten.masked_select",
    "aten.repeat_interleave.Tensor",
)
METHODS = {
    "SimCLR": (SimCLR, {}),
    "FALSE": (FALSE, {}),
    "GLCNet": (GLCNet, {}),
    "GraSS, warming up": (GraSS, dict(warmup=1.0)),
    "GraSS": (GraSS, dict(warmup=0.0)),
    "SSCCL, infonce": (SSCCL, dict(objective="infonce", head_norm=False)),
    "SSCCL": (SSCCL, dict(objective="siamese", head_norm=False)),
}


def made(name):
    "A method on a small encoder."
    torch.manual_seed(0)
    cls, options = METHODS[name]
    return cls(Encoder(bands=3, width=8), **options).train()


def pair_for(method, n):
    images = torch.nn.functional.interpolate(
        torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)), (64, 64), mode="bilinear"
    )
    return two_views(images, 64, *method.plans(), min_iou=method.min_iou)


def watched(name, n):
    """A forward and backward of a method on `n` pairs: (the Watch, encoder forwards, encoder backwards, the
    moving average's forwards).
    """
    method, seen = made(name), dict(forward=0, backward=0, average=0)

    def count(key):
        return lambda *_: seen.update({key: seen[key] + 1})

    method.encoder.register_forward_hook(count("forward"))
    method.encoder.conv1.register_full_backward_hook(count("backward"))
    if hasattr(method, "target"):
        method.target.encoder.register_forward_hook(count("average"))
    pair = pair_for(method, n)
    with Watch() as watch:
        method(pair, LATE).loss.backward()
    return watch, seen


def to_host(watch):
    return sum(n for op, n in watch.ops.items() if op.startswith(HOST))


@pytest.fixture(scope="module")
def counts():
    "Both batches of every method, watched once."
    return {name: {n: watched(name, n) for n in (8, 32)} for name in METHODS}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", METHODS)
def test_encoder_passes(counts, name):
    expected = dict(forward=2 if name == "GraSS" else 1, backward=1, average=1 if name == "SSCCL" else 0)
    assert counts[name][8][1] == counts[name][32][1] == expected


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_read_to_the_host_inside_a_step(counts, name):
    """GLCNet looks at its boxes on the CPU only.

    GraSS counts runs and asks after each round of its labelling whether it has settled.
    """
    allowed = {"GLCNet": 1, "GraSS": 8}.get(name, 0)
    for n in (8, 32):
        assert to_host(counts[name][n][0]) <= allowed


@pytest.mark.parametrize("name", METHODS)
def test_no_operation_is_done_sample_by_sample(counts, name):
    """SSCCL slices its cells when they are many; GraSS's rounds depend on the maps.

    A loop over samples would cost 24 operations more.
    """
    few, many = (sum(counts[name][n][0].ops.values()) for n in (8, 32))
    assert abs(many - few) <= {"GraSS": 12, "SSCCL, infonce": 4}.get(name, 0)


PEAK_MB = {
    "SimCLR": 33,
    "FALSE": 33,
    "GLCNet": 64,
    "GraSS, warming up": 33,
    "GraSS": 37,
    "SSCCL, infonce": 73,
    "SSCCL": 53,
}


@pytest.mark.parametrize("name", METHODS)
def test_bytes_at_the_peak(counts, name):
    """Of 32 pairs, 64 px, an encoder of width 8.

    And four times the batch takes little more than four times the bytes.
    """
    few, many = (counts[name][n][0].peak / 1e6 for n in (8, 32))
    assert many < PEAK_MB[name] and many < (5.1 if name == "SSCCL, infonce" else 4.2) * few


def test_views_are_made_without_a_loop_over_samples():
    seen = {}
    for n in (8, 32):
        images = torch.randn(n, 4, 64, 64, generator=torch.Generator().manual_seed(n))
        with Watch() as seen[n]:
            two_views(images, 64)
    few, many = (sum(seen[n].ops.values()) for n in (8, 32))
    assert many < 1.02 * few and many < 2400  # blocks of lines, whose number is the view's, not the batch's
    # which samples are blurred, and which lines a block takes: asked of the CPU's draws, by blocks
    assert to_host(seen[32]) <= 1.1 * to_host(seen[8]) < 30


def test_memory_of_blocks_grows_with_rows_and_the_whole_table_with_their_square():
    def peak(loss, n):
        a, b = (
            torch.randn(n, 16, generator=torch.Generator().manual_seed(k), requires_grad=True) for k in (0, 1)
        )
        with Watch() as watch:
            loss(a, b, 0.2).backward()
        return watch.peak

    blocks = lambda a, b, tau: nce_in_blocks(a, b, tau, rows=64)
    assert peak(blocks, 512) < 2.2 * peak(blocks, 256) and peak(nce, 512) > 3.5 * peak(nce, 256)
    assert peak(nce, 1024) < peak(nce, 512) * 2.5  # beyond 1024 rows it takes the blocks by itself
