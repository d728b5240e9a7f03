"""Kill a run of pretraining or fine-tuning, or a map, at random moments, resume it, and compare its last
weights (the map's bytes) with those of a run left alone.

    python tests/torture.py [--kills 100] [--methods simclr finetune ...] [--log results/torture.json]

Children are forked off one warm parent and killed with SIGKILL: every second one at a random moment of its
life, the others while a file is being written.
Exit code 1 when one weight of one run differs. Rows of other methods stay in the log.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_scene
from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.mapping.segment import segment
from rsssl_nb.methods.registry import METHODS
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.folder import code_version, finished
from rsssl_nb.training.pretrain import pretrain

TUNING = dict(fraction=1.0, steps=30, batch=4, size=32, width=4, device="cpu", progress=False, save_every=3)
SMALL = dict(epochs=5, batch=8, samples=32, size=32, width=8, device="cpu", progress=False, save_every=3)


def untrained():
    "A segmenter with the weights of its seed."
    torch.manual_seed(0)
    model = Segmenter(Encoder(bands=4, width=4), 3)
    model.mean.fill_(100)
    model.std.fill_(50)
    return model


def train(image, folder, method, **more):
    "A short run of a method's pretraining on an image, or of `finetune` on it and the labels beside it."
    if method == "map":
        segment(untrained(), image, folder and folder / "map.tif", size=16, device="cpu", resume=True)
    elif method == "finetune":
        finetune("random", image, image.with_name("labels.tif"), folder, **{**TUNING, **more})
    else:
        pretrain(image, method, folder, **{**SMALL, **more})


def weights(folder):
    "The bytes of the weights that a finished run leaves, or of its map."
    if (folder / "map.tif").exists():
        return (folder / "map.tif").read_bytes()
    kinds = ("encoder", "segmenter")
    return next(p for k in kinds if (p := folder / f"{k}.safetensors").exists()).read_bytes()


def child(image, folder, method):
    """The pid of a forked process that trains the run in `folder`, from its last checkpoint if there is one,
    and exits 0.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        train(image, folder, method, resume="auto")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid):
    "The exit code of a child that has ended, None while it runs."
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def wait_to_kill(pid, folder, moment, writing):
    """Kill the child at a moment (seconds), or from then on as soon as a file is being written.

    True when it was killed, False when it had finished.
    """
    started = time.time()
    while True:
        code = ended(pid)
        if code is not None:
            if code:
                raise SystemExit(f"a resumed run failed with exit code {code}")
            return False
        late = time.time() - started > moment
        if late and (not writing or any(path.is_file() for path in folder.rglob(".*.part*"))):
            break
        time.sleep(0.0002 if late else 0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def torture(method, image, folder, kills, rng):
    "One method killed `kills` times over as many runs as that takes: a row of counts."
    began = time.time()
    os.waitpid(child(image, folder / "whole", method), 0)
    lasts, whole = time.time() - began, weights(folder / "whole")
    killed = writing = runs = same = 0
    while killed < kills:
        run, runs = folder / f"run{runs}", runs + 1
        while not (finished(run) or (run / "map.tif").exists()):
            aim = rng.random() < 0.5
            if killed >= kills:
                os.waitpid(child(image, run, method), 0)
            elif wait_to_kill(child(image, run, method), run, rng.random() * lasts, aim):
                killed += 1
                writing += aim
        same += weights(run) == whole
    return dict(
        method=method,
        kills=killed,
        while_writing=writing,
        runs=runs,
        identical=same,
        seconds=round(time.time() - began),
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["simclr", "glcnet", "false", "grass", "ssccl", "mocov2", "finetune", "map"],
        choices=[*METHODS, "finetune", "map"],
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(1)
    commit = code_version()  # asked here, before the first fork: every child writes the same
    rows, rng = [], random.Random(a.seed)
    with tempfile.TemporaryDirectory() as tmp:
        image, _ = write_scene(make_scene(128, seed=1), Path(tmp, "scene"))
        for method in a.methods:
            short = {"finetune": dict(steps=3), "map": {}}.get(method, dict(epochs=1))
            train(
                image, None, method, save_every=None, **short
            )  # the parent warms up: children import nothing
        for method in a.methods:
            rows.append(
                {
                    **torture(method, image, Path(tmp, method), a.kills, rng),
                    "torch": torch.__version__,
                    "commit": commit,
                    "date": time.strftime("%Y-%m-%d"),
                }
            )
            print(
                "{method:8} {kills} kills ({while_writing} while a file was written) over {runs} runs: "
                "{identical} identical to the bit; {seconds} s".format(**rows[-1]),
                flush=True,
            )
            if a.log:
                a.log.parent.mkdir(exist_ok=True)
                known = json.loads(a.log.read_text()) if a.log.exists() else []
                others = [r for r in known if r["method"] not in {r["method"] for r in rows}]
                lines = ",\n".join(json.dumps(r) for r in others + rows)
                a.log.write_text(f"[\n{lines}\n]\n")
    return int(any(r["identical"] < r["runs"] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
