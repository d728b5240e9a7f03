"""A whole pretraining step as commit 6b65888 took it, in float32: for `step.py`, by the older package.

    PYTHONPATH=FOLDER python benchmarks/step_before.py WIDTH SIZE BATCH

Takes a step for each line on standard input and answers with its loss.
"""

import sys

import torch

from rsssl_nb.data.rasters import Pool
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.methods.base import At
from rsssl_nb.training.folder import Config
from rsssl_nb.training.pretrain import batches, begin, finite_step, train_step


def main():
    width, size, batch = map(int, sys.argv[1:4])
    torch.set_num_threads(1)
    pool = Pool([make_scene(1024, seed=0)], size)
    mean, std = (tuple(map(float, v)) for v in pool.statistics())
    config = Config("simclr", {}, "resnet18", width, 8, pool.bands, size, 10**6, batch, 64 * batch, 1e-3)
    config = type(config)(**{**vars(config), "mean": mean, "std": std, "precision": "no"})
    engine, learner, optimiser = begin(config, "cpu")
    model, wrapped = engine.prepare(learner, optimiser)
    stream = enumerate(batches(pool, config, workers=0))
    for _ in sys.stdin:
        step, (images, index) = next(stream)
        with engine.accumulate(model):
            out = train_step(model, wrapped, images, index, config, step, engine)[0]
            print(finite_step(model, wrapped, out, At(), engine), flush=True)


if __name__ == "__main__":
    main()
