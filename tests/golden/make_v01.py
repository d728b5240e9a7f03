"""Writes the folder v01: files as version 0.1 left them, which every later version must open.

Run once, with the code of version 0.1; kept to show how the files came about.
tests/test_old_files.py opens them.
"""

import json
import os
import shutil
from pathlib import Path

import torch

from rsssl_nb.data.rasters import write_scene
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.encoders import Encoder
from rsssl_nb.evaluation.maps import draw_boxes, embed, guided_method, segment
from rsssl_nb.explain.neighbours import points_to_geojson
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.training.finetune import finetune, load_segmenter
from rsssl_nb.training.folder import checkpoints
from rsssl_nb.training.pretrain import load_encoder, pretrain
from rsssl_nb.weights import save_weights
from rsssl_nb.widgets.explorers import explore_negatives, explore_pair, explore_regions, explore_temperature
from rsssl_nb.widgets.features import explore_labels, explore_matches, explore_saliency

V01 = Path(__file__).parent / "v01"
RUN = dict(epochs=2, batch=8, samples=16, size=32, width=2, save_every=1, progress=False, device="cpu")
UNFINISHED = ("simclr", "grass", "glcnet", "ssccl", "mocov2")
OPTIONS = {"mocov2": dict(queue=16), "grass": dict(warmup=0.5)}
SMALLER = dict(width=1, optimizer="sgd")  # for the methods with larger checkpoints
KEPT = ("conv1.weight", "layer1.0.conv1.weight", "layer4.1.conv2.weight", "layer4.1.bn2.running_var")


def stopped(method):
    """A run folder that was asked to stop after its second step, with its last checkpoint."""
    folder = Path("unfinished") / method

    def tell(row):
        if row["step"] == 1:
            (folder / "stop").touch()

    options = dict(dim=8, hidden=8, **OPTIONS.get(method, {}))
    how = {**RUN, **(SMALLER if method in ("glcnet", "ssccl", "mocov2", "grass") else {})}
    pretrain("image.tif", method, out=folder, tell=tell, options=options, **how)
    (folder / "trace.safetensors").unlink()
    for old in checkpoints(folder)[:-1]:
        old.unlink()
    ended = Path("resumed")
    shutil.copytree(folder, ended)
    run = pretrain("image.tif", method, out=ended, resume="must", options=options, **how)
    shutil.rmtree(ended)
    return run


def explorers(net):
    """Every explorer's settings, on a file named as seen from its folder, each with one control moved."""
    made = dict(
        temperature=(explore_temperature("image.tif", [net], n=4, size=32), "tau", 0.3),
        pair=(explore_pair("image.tif", 32, 64), "points", 3),
        regions=(explore_regions("image.tif", [net], 64, n=2), "threshold", 0.7),
        negatives=(explore_negatives("image.tif", [net], n=4, size=32), "alpha", 0.25),
        matches=(explore_matches("image.tif", [net], 64), "view", 3),
        saliency=(explore_saliency("image.tif", [net], 64), "opacity", 0.5),
        labels=(explore_labels("image.tif", [net], window=64), "lam", -1.0),
    )
    for name, (box, control, value) in made.items():
        box.wait()
        if box.window:
            box.overview.boxes = [[10, 20, 74, 84]]
        if name == "pair":
            box.canvas.turns = [1, 3]
        if name == "labels":
            left, top, _, _ = box.canvas.extent
            box.canvas.points = [[left + 10.0, top + 10.0, 0], [left + 50.0, top + 40.0, 2]]
        box.controls[control].value = value
        box.wait()
        for path in box.save(Path("explorers") / name):
            if path.suffix == ".png":
                path.unlink()
        box.close()


def main():
    shutil.rmtree(V01, ignore_errors=True)
    V01.mkdir()
    os.chdir(V01)
    torch.set_num_threads(1)
    scene = make_scene(96, seed=1)
    image, labels = write_scene(scene, ".")
    ended = {}
    for method in UNFINISHED:
        run = stopped(method)
        ended |= {f"{method}/{k}": v for k, v in run.encoder.state_dict().items() if k in KEPT}
        ended[f"{method}/loss"] = torch.tensor([r["loss"] for r in run.log])
    save_weights("resumed.safetensors", ended, {})
    options = dict(dim=8, hidden=8, warmup=0.0)
    few = {**RUN, "batch": 2, "samples": 4}
    pretrain(image, "grass", out="complete", options=options, optimizer="sgd", **few)
    for old in checkpoints("complete")[:-1]:
        old.unlink()
    finetune(
        "complete",
        image,
        labels,
        out="finetuned",
        fraction=1.0,
        epochs=2,
        batch=4,
        size=32,
        progress=False,
        device="cpu",
    )
    segment(
        load_segmenter("finetuned")[0], image, "map.tif", size=64, device="cpu", probabilities="shares.tif"
    )
    encoder, meta = load_encoder("complete")
    embed(encoder, image, "embedded.tif", meta["mean"], meta["std"], size=64, device="cpu")
    method, config = guided_method("complete")
    draw_boxes(method, image, "boxes.geojson", config.mean, config.std, 32, 4, device="cpu")
    points = points_to_geojson(
        [[3.5, 4.5], [40.0, 20.5]], [1, 0], ("field", "road"), scene.transform, scene.crs
    )
    Path("points.geojson").write_text(json.dumps(points))
    torch.manual_seed(0)
    net = GraSS(Encoder("resnet18", 4, 2, 8))
    net.title = "small"
    explorers(net)
    for left in Path(".").rglob(".*"):
        if left.is_file():
            left.unlink()
    size = sum(p.stat().st_size for p in Path(".").rglob("*") if p.is_file())
    print(f"{size / 1e6:.2f} MB in {V01}")


if __name__ == "__main__":
    main()
