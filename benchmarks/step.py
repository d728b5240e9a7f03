"""A whole pretraining step, data pipeline and optimiser included: against the bare forward and backward on
ready views, against the same step of an older commit in float32, and against lightly's SimCLR.
"""

import atexit
import io
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch
from measure import ROOT, Sides, Skip, main, question

from rsssl_nb.data.pool import Pool
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.methods.base import At
from rsssl_nb.training.config import Config
from rsssl_nb.training.device import freed_memory_kept, settle_precision
from rsssl_nb.training.engine import batchnorm_state, finite_step, train_step
from rsssl_nb.training.pretrain import Pretraining, begin
from rsssl_nb.training.windows import batches
from rsssl_nb.views.pairs import two_views

STEPS = 10  # steps a round
BEFORE = "6b65888"  # the commit before one engine, bfloat16 and channels last
OPEN = ExitStack()  # what lasts as long as the script: memory kept, the older package, its process
atexit.register(OPEN.close)


def config_for(method, pool, at):
    mean, std = pool.statistics()
    encoder, width, batch = at.pick(("resnet50", 64, 128), ("resnet18", 8, 4))
    return Config(
        method,
        {},
        encoder,
        width,
        32,
        pool.bands,
        pool.size,
        10**6,
        batch,
        64 * batch,
        1e-3,
        "adamw",
        1e-4,
        0.1,
        0,
        tuple(map(float, mean)),
        tuple(map(float, std)),
        "bf16" if at.cuda else "no",
        1,
        at.cuda,
        False,
    )


def whole(method):
    def ask(at):
        pool = Pool([make_scene(at.pick(2048, 256), seed=0)], at.pick(224, 32))
        config = config_for(method, pool, at)
        engine, learner, optimiser = begin(config, at.device)
        model, wrapped = engine.prepare(learner, optimiser)
        task = Pretraining(config, pool)
        stream = enumerate(batches(pool, config, workers=at.pick(12, 0)))

        def ours():
            for _ in range(at.pick(STEPS, 1)):
                step, (images, index) = next(stream)
                with engine.accumulate(model):
                    before = [v.clone() for v in batchnorm_state(learner)]
                    out = train_step(task, model, wrapped, (images, index), step, engine)[0]
                    loss = finite_step(task, model, wrapped, out, At(), engine, before)
            return loss

        images = torch.randn(
            config.batch, pool.bands, pool.size, pool.size, generator=torch.Generator().manual_seed(0)
        ).to(engine.device)
        pair = two_views(images, config.size, *learner.plans(), min_iou=learner.min_iou)

        def bare():
            for _ in range(at.pick(STEPS, 1)):
                with engine.autocast():
                    loss = learner(pair, At(0.5)).loss
                loss.backward()
                learner.zero_grad(set_to_none=True)
            return loss.item()

        assert abs(ours() - bare()) < 5
        return Sides(
            ours,
            bare,
            f"{config.encoder}, {config.batch} images of {config.size} px, {config.precision}, "
            f"{at.pick(STEPS, 1)} steps a round",
        )

    return ask


question("whole step, SimCLR, ResNet-50, bf16, on cuda: bare forward and backward", ">= 0.9", "cuda")(
    whole("simclr")
)
question("whole step, FALSE, ResNet-50, bf16, on cuda: bare forward and backward", ">= 0.9", "cuda")(
    whole("false")
)


def on_a_processor(at, width, size, batch, bands=4):
    """What `pretrain` does by default on a processor: (a step, the bare forward and backward, pool, config).

    In the precision and layout that the defaults resolve to, memory kept between steps.
    """
    OPEN.enter_context(freed_memory_kept(at.device))
    scene = make_scene(at.pick(1024, 128), seed=0)
    pool = Pool([scene.image[:bands]], size)
    mean, std = (tuple(map(float, v)) for v in pool.statistics())
    precision, channels_last = settle_precision(None, "auto", None, at.device, width)
    shape = dict(width=width, bands=bands, size=size, batch=batch, samples=64 * batch, epochs=10**6)
    config = Config(**shape, mean=mean, std=std, precision=precision, channels_last=channels_last)
    engine, learner, optimiser = begin(config, at.device)
    model, wrapped = engine.prepare(learner, optimiser)
    task = Pretraining(config, pool)
    stream = enumerate(batches(pool, config, workers=0))

    def step():
        number, batch = next(stream)
        with engine.accumulate(model):
            before = [v.clone() for v in batchnorm_state(learner)]
            out = train_step(task, model, wrapped, batch, number, engine)[0]
            return finite_step(task, model, wrapped, out, At(), engine, before)

    images = torch.randn(batch, bands, size, size, generator=torch.Generator().manual_seed(0))
    pair = two_views(images.to(engine.device), size, *learner.plans(), min_iou=learner.min_iou)

    def bare():
        with engine.autocast():
            loss = learner(pair, At(0.5)).loss
        loss.backward()
        learner.zero_grad(set_to_none=True)
        return loss.item()

    return step, bare, pool, config


def told(config):
    layout = "channels last" if config.channels_last else "channels first"
    return (
        f"ResNet-18 of width {config.width}, {config.batch} images of {config.size} px, "
        f"{config.precision}, {layout}"
    )


def older_package():
    "The folder that holds the package as it was at the older commit, taken away at the end."
    folder = Path(OPEN.enter_context(tempfile.TemporaryDirectory()))
    git = ["git", "-C", str(ROOT), "archive", "--format=tar", BEFORE, "rsssl_nb"]
    done = subprocess.run(git, capture_output=True)
    if done.returncode:
        raise Skip(f"commit {BEFORE} is not in this repository's history")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tree:
        tree.extractall(folder, filter="data")
    return folder


def against_before(width, size, batch):
    def ask(at):
        shape = at.pick((width, size, batch), (8, 32, 4))
        step, _, _, config = on_a_processor(at, *shape)
        tree = older_package()
        worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "step_before.py"), *map(str, shape)],
            env={"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        OPEN.callback(worker.kill)

        def before():
            worker.stdin.write("step\n")
            worker.stdin.flush()
            return float(worker.stdout.readline())

        assert abs(step() - before()) < 1
        return Sides(step, before, f"{told(config)}; commit {BEFORE} in float32")

    return ask


def against_bare(width, size, batch):
    def ask(at):
        step, bare, _, config = on_a_processor(at, *at.pick((width, size, batch), (8, 32, 4)))
        assert abs(step() - bare()) < 5
        return Sides(step, bare, told(config))

    return ask


def lightly_step(pool, config):
    "A step of lightly's SimCLR, its transform, loss and torch's loader, on the same windows and network."
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from torchvision.transforms.functional import to_pil_image

    from rsssl_nb.encoders import Encoder
    from rsssl_nb.methods.simclr import SimCLR

    windows = pool.windows(4 * config.batch, seed=0)
    pictures = [to_pil_image(torch.as_tensor(pool.read(w)).to(torch.uint8)) for w in windows]
    spread = [s / 255 for s in config.std]
    change = SimCLRTransform(
        config.size, cj_strength=0.5, normalize=dict(mean=[m / 255 for m in config.mean], std=spread)
    )

    class Views(torch.utils.data.Dataset):
        def __len__(self):
            return len(pictures)

        def __getitem__(self, i):
            return change(pictures[i])

    torch.manual_seed(0)
    network = SimCLR(Encoder("resnet18", 3, config.width, config.stride)).train()
    loss_of = NTXentLoss(temperature=0.5)
    optimiser = torch.optim.AdamW(network.parameters(), config.lr)
    loader = torch.utils.data.DataLoader(Views(), config.batch, shuffle=True, drop_last=True)

    def forever():
        while True:
            yield from loader

    stream = forever()

    def step():
        a, b = next(stream)
        z = network.project(torch.cat([a, b]))[0]
        loss = loss_of(*z.chunk(2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def against_lightly(width, size, batch):
    def ask(at):
        step, _, pool, config = on_a_processor(at, *at.pick((width, size, batch), (8, 32, 4)), bands=3)
        other = lightly_step(pool, config)
        assert abs(step() - other()) < 1
        return Sides(step, other, f"{told(config)}; lightly in float32, its own views, loss and loader")

    return ask


for shape in ((64, 224, 8), (16, 96, 64)):
    named = f"whole step on a processor, width {shape[0]} at {shape[1]} px"
    question(f"{named}: float32 before", ">= 1.8", "cpu")(against_before(*shape))
    question(f"{named}: lightly's SimCLR", ">= 2", "cpu")(against_lightly(*shape))
    question(f"{named}: bare forward and backward", ">= 0.9", "cpu")(against_bare(*shape))


if __name__ == "__main__":
    sys.exit(main())
