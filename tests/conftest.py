"""Fixtures shared by the suite: where the real imagery is.

One thread here and in every process that a test starts: runs repeat to the bit, and workers side by side
do not wait for each other's cores.
"""

import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a background job ignores Ctrl-C; its children would too


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: drives a real browser")
    config.addinivalue_line("markers", "long: more than a few seconds; left out of `make quick`")
    config.addinivalue_line("markers", "gpu: needs a CUDA device")


@pytest.fixture(scope="session")
def imagery():
    "The folder of real imagery (RSSSL_DATA); tests that need it skip, and say so, when it is not there."
    folder = os.environ.get("RSSSL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RSSSL_DATA is not set to a folder of real imagery: this test ran on nothing")
    return Path(folder)


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    "A small scene as a GeoTIFF."
    from rsssl_nb.data.scenes import make_scene
    from rsssl_nb.data.write import write_scene

    return write_scene(make_scene(128, seed=1), tmp_path_factory.mktemp("scene"))[0]


@pytest.fixture
def mixed(tmp_path):
    "Forty tiles, one of them cut short and one of three bands."
    from odd_rasters import noise

    from rsssl_nb.data.write import write_raster

    for i in range(40):
        write_raster(tmp_path / f"{i:02}.tif", noise(2, 64, 64, seed=i), nodata=0)
    cut = tmp_path / "07.tif"
    cut.write_bytes(cut.read_bytes()[:2000])
    write_raster(tmp_path / "20.tif", noise(3, 64, 64))
    return tmp_path


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    "A folder with `seg`, a segmenter, and `pre`, a run of GraSS, of one step each, for three bands."
    from driver import make_runs

    return make_runs(tmp_path_factory.mktemp("runs"))
