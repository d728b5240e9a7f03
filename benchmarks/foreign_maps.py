"""Memory and time of maps by three networks that others built, on a sparse raster of 20 480 x 20 480 pixels.

    python benchmarks/foreign_maps.py --out results/foreign_maps.json   all three, one process each
    python benchmarks/foreign_maps.py --network timm --side 5120        one network, another side

A sixteenth of the raster is written, in sixteen squares; the rest is nodata. Weights are random.
"Beside the network" is the highest resident memory of the process, less what it held after the network had
seen one window.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDE, BLOCK, WINDOW = 20_480, 256, 256


def sparse_raster(path, side=SIDE, bands=3):
    "A GeoTIFF of `side` pixels whose sixteen written squares hold noise; a sixteenth of it is valid."
    import numpy as np
    import rasterio

    profile = dict(
        driver="GTiff",
        width=side,
        height=side,
        count=bands,
        dtype="uint8",
        nodata=0,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="deflate",
        sparse_ok=True,
        crs="EPSG:32633",
        transform=rasterio.Affine(0.5, 0, 412_000, 0, -0.5, 5_650_000),
    )
    rng = np.random.default_rng(0)
    square = side // 16 // BLOCK * BLOCK
    noise = rng.integers(1, 255, (bands, square, square), np.uint8)
    with rasterio.open(path, "w", **profile) as file:
        for row in range(4):
            for column in range(4):
                corner = (column * side // 4 // BLOCK * BLOCK, row * side // 4 // BLOCK * BLOCK)
                file.write(noise, window=rasterio.windows.Window(*corner, square, square))
    return path


def torchvision_deeplab():
    "DeepLabV3 on MobileNetV3, as torchvision builds it."
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    return deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=6)


def smp_unet():
    "U-Net on ResNet-18, as segmentation-models-pytorch builds it."
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=6)


def timm_linear():
    "A timm encoder with one convolution of 1 x 1 on its map of stride 16."
    import timm
    from torch import nn

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = timm.create_model("mobilenetv3_small_100", features_only=True, out_indices=(3,))
            self.head = nn.Conv2d(self.encoder.feature_info.channels()[-1], 6, 1)

        def forward(self, images):
            return self.head(self.encoder(images)[-1])

    return Linear()


NETWORKS = dict(torchvision=torchvision_deeplab, smp=smp_unet, timm=timm_linear)


def resident(field="VmRSS"):
    "Resident memory of this process in MB, now or (VmHWM) at its highest."
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name, side=SIDE):
    "Maps the raster with one network: {network, side, valid, windows, seconds, beside_mb, network_mb}."
    import torch

    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.mapping.models import ForeignModel, Passport
    from rsssl_nb.mapping.segment import segment
    from rsssl_nb.mapping.tiling import plan_windows

    torch.manual_seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = sparse_raster(Path(folder) / "image.tif", side)
        passport = Passport((128,) * 3, (74,) * 3, [f"class {k}" for k in range(6)], window=WINDOW)
        model = ForeignModel(NETWORKS[name](), passport, name)
        model.check_window(WINDOW)
        windows = len(plan_windows(open_raster(path), WINDOW, 0.25))
        before = resident()
        start = time.perf_counter()
        segment(model, path, Path(folder) / "map.tif", size=WINDOW, device="cpu")
        seconds = time.perf_counter() - start
    square = side // 16 // BLOCK * BLOCK
    return dict(
        network=name,
        side=side,
        valid=round(16 * square**2 / side**2, 4),
        windows=windows,
        seconds=round(seconds, 1),
        beside_mb=round(resident("VmHWM") - before),
        network_mb=round(before),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", choices=list(NETWORKS), help="measure this one only, here")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    asked = parser.parse_args()
    if asked.network:
        print(json.dumps(measure(asked.network, asked.side)), flush=True)
        return
    rows = []
    for network in NETWORKS:
        command = [sys.executable, __file__, "--network", network, "--side", str(asked.side)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    if asked.out:
        asked.out.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
