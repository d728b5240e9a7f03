"""A whole pretraining step, data pipeline and optimiser included, against the bare forward and backward on
ready views.
"""

import sys

import torch
from measure import Sides, main, question

from rsssl_nb.data.pool import Pool
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.methods.base import At
from rsssl_nb.training.config import Config
from rsssl_nb.training.engine import finite_step, train_step
from rsssl_nb.training.pretrain import Pretraining, begin
from rsssl_nb.training.windows import batches
from rsssl_nb.views.pairs import two_views

STEPS = 10  # steps a round


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
                    out = train_step(task, model, wrapped, (images, index), step, engine)[0]
                    loss = finite_step(task, model, wrapped, out, At(), engine)
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


if __name__ == "__main__":
    sys.exit(main())
