"""Whole rasters: windows must not change what a context-free model says, files open in a GIS, and nothing is
ever half-written.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import rasterio
import torch

from rsssl_nb.data.labels import raster_classes
from rsssl_nb.data.raster import Raster, open_raster
from rsssl_nb.data.scenes import CLASSES, COLORS, make_scene
from rsssl_nb.data.write import write_raster
from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.errors import InputError
from rsssl_nb.evaluation.scores import confusion, per_image_miou, score_rasters, scores
from rsssl_nb.mapping import tiling
from rsssl_nb.mapping.basis import principal_axes
from rsssl_nb.mapping.boxes import draw_boxes, guided_method, to_map_coordinates
from rsssl_nb.mapping.embed import embed
from rsssl_nb.mapping.segment import model_on_device, segment
from rsssl_nb.mapping.stitch import BandSums, encode_shares, map_bands, predictor
from rsssl_nb.mapping.store import band_folder
from rsssl_nb.mapping.tiling import (
    band_layout,
    bands_of_process,
    blend_weights,
    plan_windows,
    window_starts,
    written_blocks,
)
from rsssl_nb.training.pretrain import pretrain


class Pixels(torch.nn.Module):
    "A classifier of single pixels, in a segmenter's clothes; counts its calls."

    def __init__(self, bands=4, kernel=1):
        super().__init__()
        torch.manual_seed(0)
        self.f, self.calls = torch.nn.Conv2d(bands, 6, kernel, padding=kernel // 2), 0
        self.register_buffer("mean", torch.full((bands,), 100.0))
        self.register_buffer("std", torch.full((bands,), 50.0))
        self.classes, self.colors = list(CLASSES), list(COLORS)

    def forward(self, x):
        self.calls += len(x)
        return self.f(x)


def whole(model, scene):
    with torch.no_grad():
        p = model.f((torch.as_tensor(scene.image).float()[None] - 100) / 50).argmax(1)[0].numpy()
    return np.where(scene.valid, p, 255)


@pytest.mark.parametrize(
    "size, overlap, batch", [(64, 0.25, 8), (50, 0.5, 3), (32, 0.0, 1), (200, 0.25, 4), (300, 0.25, 8)]
)
def test_windows_do_not_change_a_pixel_model(size, overlap, batch):
    scene = make_scene(200, seed=3)
    assert (
        segment(Pixels(), scene, size=size, overlap=overlap, batch=batch, device="cpu")
        == whole(Pixels(), scene)
    ).all()


def test_cover_is_complete():
    for length in (1, 63, 64, 65, 100, 1000):
        for overlap in (0.0, 0.25, 0.9):
            seen = np.zeros(max(length, 64), int)
            for s in window_starts(length, 64, overlap):
                seen[s : s + 64] += 1
            assert (seen[:length] > 0).all() and window_starts(length, 64, overlap)[-1] == max(0, length - 64)
    assert (blend_weights(64) > 0).all()


def test_small_context_agrees_away_from_the_rim():
    scene, model = make_scene(160, seed=2), Pixels(kernel=3)
    gap = segment(model, scene, size=64, overlap=0.5, device="cpu") != whole(model, scene)
    assert gap[8:-8, 8:-8].mean() < 0.02


def test_windows_without_data_are_not_run():
    image = np.zeros((4, 256, 256), np.uint8)
    image[:, :30, :30] = 90
    model, scene = Pixels(), make_scene(256)
    scene.image = image
    found = segment(model, scene, size=64, overlap=0.0, device="cpu")
    assert model.calls == 1 and (found[30:] == 255).all() and (found[:30, :30] < 6).all()


def test_files_keep_place_palette_and_names(tmp_path):
    scene = make_scene(120, seed=1)
    write_raster(tmp_path / "i.tif", scene.image, scene.crs, scene.transform, 0)
    segment(Pixels(), tmp_path / "i.tif", tmp_path / "m.tif", size=64, device="cpu")
    with rasterio.open(tmp_path / "m.tif") as f:
        assert (f.crs.to_string(), tuple(f.transform)[:6], f.nodata, f.dtypes[0]) == (
            scene.crs,
            tuple(scene.transform),
            255,
            "uint8",
        )
        assert (
            f.colormap(1)[0][:3] == tuple(bytes.fromhex(COLORS[0][1:]))
            and "field" in f.tags()["CLASSES"]
            and f.profile["tiled"]
        )
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["i.tif", "m.tif", "m.tif.aux.xml"]


def test_a_picture_gets_no_invented_place(tmp_path):
    from PIL import Image

    Image.fromarray(make_scene(64).image[:3].transpose(1, 2, 0)).save(tmp_path / "p.png")
    segment(Pixels(3), tmp_path / "p.png", tmp_path / "m.tif", size=32, device="cpu")
    assert open_raster(tmp_path / "m.tif").crs is None


def test_a_failing_model_leaves_nothing(tmp_path):
    class Broken(Pixels):
        def forward(self, x):
            if self.calls > 3:
                raise RuntimeError("no")
            return super().forward(x)

    with pytest.raises(RuntimeError):
        segment(Broken(), make_scene(200), tmp_path / "m.tif", size=32, batch=1, device="cpu")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="3 bands and the model reads 4"):
        segment(Pixels(), make_scene(64).image[:3], tmp_path / "m.tif")
    assert not list(tmp_path.iterdir())


def test_mode_and_device_are_put_back():
    model = Segmenter(Encoder(bands=4, width=8), 6).train()
    segment(model, make_scene(64), size=32, device="cpu")
    assert model.training


# ---------------------------------------------------------------- windows follow the data


def sparse(path, side, places, block=256, bands=4, nodata=0, dtype="uint8", height=None):
    "A GeoTIFF of which only the blocks at `places` (column, row) are written."
    profile = dict(
        driver="GTiff",
        count=bands,
        dtype=dtype,
        nodata=nodata,
        tiled=True,
        blockxsize=block,
        blockysize=block,
        compress="deflate",
        sparse_ok=True,
        photometric="MINISBLACK",
        alpha="NO",
    )
    with rasterio.open(
        path,
        "w",
        height=height or side,
        width=side,
        crs="EPSG:32633",
        transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6),
        **profile,
    ) as file:
        for x, y in places:
            file.write(
                np.random.default_rng(x + y).integers(1, 255, (bands, block, block)).astype(dtype),
                window=rasterio.windows.Window(x * block, y * block, block, block),
            )
    return path


def test_blocks_never_written_cost_no_read(tmp_path, monkeypatch):
    places = [(1, 1), (6, 3), (7, 4), (0, 7)]
    raster = open_raster(sparse(tmp_path / "s.tif", 2048, places))
    assert sorted(map(tuple, np.argwhere(written_blocks(raster))[:, ::-1].tolist())) == sorted(places)
    asked, read = [], Raster.read
    monkeypatch.setattr(Raster, "read", lambda self, *box: asked.append(box) or read(self, *box))
    found = segment(Pixels(), raster, device="cpu")
    valid = np.zeros((2048, 2048), bool)
    for x, y in places:
        valid[y * 256 : y * 256 + 256, x * 256 : x * 256 + 256] = True
    assert ((found < 6) == valid).all() and len(asked) == len(plan_windows(raster, 256)) == 9
    assert (256, 256, 256, 256) in asked and (
        0,
        1792,
        256,
        256,
    ) in asked  # a lone block: one window, laid upon it


@pytest.mark.parametrize("nodata, dtype", [(None, "uint8"), (float("nan"), "float32"), (-1, "int16")])
def test_a_missing_block_is_nodata_only_where_that_is_declared(tmp_path, nodata, dtype):
    raster = open_raster(sparse(tmp_path / "s.tif", 512, [(0, 1)], nodata=nodata, dtype=dtype))
    assert written_blocks(raster).sum() == (4 if nodata is None else 1)
    assert (segment(Pixels(), raster, device="cpu") < 6).sum() == 512**2 // (1 if nodata is None else 4)


def test_every_written_pixel_is_covered():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cells, block, size = rng.random((7, 9)) < 0.2, int(rng.integers(8, 80)), int(rng.integers(8, 200))
        raster = open_raster(np.ones((1, 7 * block - 3, 9 * block - 5), np.uint8))
        object.__setattr__(raster, "block", (block, block))
        seen = np.zeros((7 * block + size, 9 * block + size), bool)
        with pytest.MonkeyPatch.context() as m:
            m.setattr(tiling, "written_blocks", lambda r: cells)
            windows = plan_windows(raster, size, 0.25)
        for x, y in windows:
            seen[y : y + size, x : x + size] = True
            assert 0 <= x <= max(0, raster.width - size) and 0 <= y <= max(0, raster.height - size)
        assert seen[: raster.height, : raster.width][
            np.kron(cells, np.ones((block, block), bool))[: raster.height, : raster.width]
        ].all()
        assert (np.diff(windows[:, 1]) >= 0).all() and len(np.unique(windows, axis=0)) == len(windows)


def test_memory_follows_the_data_in_a_strip(tmp_path, monkeypatch):
    most, add = [0], BandSums.add

    def watched(self, *args):
        add(self, *args)
        most[0] = max(most[0], len(self.tiles))

    monkeypatch.setattr(BandSums, "add", watched)

    def peak(width, height, places):
        most[0] = 0
        for _ in map_bands(
            predictor(Pixels().eval()),
            open_raster(sparse(tmp_path / f"{width}.{height}.tif", width, places, height=height)),
            size=256,
        ):
            pass
        return most[0]

    small = peak(512, 512, [(0, 0), (1, 1)])
    assert peak(512, 4096, [(k % 2, k) for k in range(16)]) <= 2 * small  # eight times as high
    assert peak(8192, 512, [(0, 0), (31, 1)]) <= small  # sixteen times as wide, and as empty


# ---------------------------------------------------------------- the same bytes, whoever does the work


def wide_model():
    torch.manual_seed(1)
    model = Segmenter(Encoder(bands=4, width=8), 6).eval()
    model.mean.fill_(100), model.std.fill_(50)
    model.classes, model.colors = list(CLASSES), list(COLORS)
    return model


def test_threads_do_not_change_a_byte():
    model, scene = wide_model(), make_scene(200, seed=3)

    def shares(threads):
        return np.concatenate(
            [
                p
                for _, p in map_bands(
                    predictor(model), open_raster(scene), encode_shares, 8, 64, 0.25, threads=threads
                )
            ],
            1,
        )

    torch.set_num_threads(2)
    try:
        assert (shares(1) == shares(3)).all() and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_bands_are_dealt_out_once_each():
    for raster in (
        open_raster(make_scene(300)),
        open_raster(np.zeros((1, 1, 1), np.float32)),
        open_raster(np.ones((1, 5000, 8), np.uint8)),
    ):
        for processes in (1, 2, 3, 7):
            assert [
                i for rank in range(processes) for i in bands_of_process(raster, 64, 0.25, rank, processes)
            ] == list(range(band_layout(raster, 64)[1]))


JOB = """
import sys, torch
from rsssl_nb.mapping.segment import segment
sys.path.insert(0, sys.argv[1])
from test_maps import wide_model
segment(wide_model(), sys.argv[2], sys.argv[3], size=64, overlap=.5, device="cpu", probabilities=sys.argv[4],
        resume="resume" in sys.argv)
"""


@pytest.mark.long
def test_processes_and_a_killed_run_give_the_same_bytes(tmp_path):
    scene = make_scene(330, seed=4)
    write_raster(tmp_path / "i.tif", scene.image, scene.crs, scene.transform, 0)
    (tmp_path / "job.py").write_text(JOB)

    def start(name, *more, by=()):
        return subprocess.Popen(
            [
                sys.executable,
                *by,
                tmp_path / "job.py",
                os.path.dirname(__file__),
                tmp_path / "i.tif",
                tmp_path / f"{name}.tif",
                tmp_path / f"{name}_p.tif",
                *more,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    kept = lambda: sorted(p.name for p in tmp_path.glob(".killed.tif.parts/*.band"))
    killed = start("killed")
    while len(kept()) < 2:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL), killed.wait()
    assert (
        not (tmp_path / "killed.tif").exists()
        and not (tmp_path / "killed_p.tif").exists()
        and 2 <= len(kept()) < 6
    )
    two = start("two", by=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"))
    segment(
        wide_model(),
        tmp_path / "i.tif",
        tmp_path / "one.tif",
        size=64,
        overlap=0.5,
        device="cpu",
        probabilities=tmp_path / "one_p.tif",
    )
    assert two.wait(300) == 0 and start("killed", "resume").wait(300) == 0
    for end in (".tif", "_p.tif"):
        assert len({(tmp_path / (name + end)).read_bytes() for name in ("one", "two", "killed")}) == 1
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


class Stopped(Pixels):
    "A model whose user loses patience."

    def forward(self, x):
        if self.calls >= 20:
            raise KeyboardInterrupt
        return super().forward(x)


def test_resume_does_only_what_is_missing(tmp_path):
    scene, out = make_scene(300, seed=1), tmp_path / "m.tif"
    with pytest.raises(KeyboardInterrupt):
        segment(Stopped(), scene, out, size=64, device="cpu")
    assert not out.exists() and len(list(tmp_path.glob(".m.tif.parts/*.band"))) >= 1
    other = Pixels()
    torch.nn.init.ones_(other.f.weight)
    with pytest.raises(InputError, match="another weights.*without --resume"):
        segment(other, scene, out, size=64, device="cpu", resume=True)
    with pytest.raises(InputError, match="another size .64, not 32"):
        segment(Pixels(), scene, out, size=32, device="cpu", resume=True)
    rest, whole_run = Pixels(), Pixels()
    segment(rest, scene, out, size=64, device="cpu", resume=True)
    segment(whole_run, scene, tmp_path / "w.tif", size=64, device="cpu")
    assert (
        rest.calls < whole_run.calls
        and out.read_bytes() == (tmp_path / "w.tif").read_bytes()
        and len(list(tmp_path.iterdir())) == 4  # two maps, and the names of their classes beside them
    )


def test_without_resume_a_stopped_map_begins_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        segment(Stopped(), make_scene(300, seed=1), tmp_path / "m.tif", size=64, device="cpu")
    assert list(tmp_path.glob(".m.tif.parts/*.band"))
    segment(Pixels(), make_scene(300, seed=2), tmp_path / "m.tif", size=64, device="cpu")
    found = np.nan_to_num(open_raster(tmp_path / "m.tif").read(0, 0, 300, 300)[0], nan=255)
    assert (
        sorted(p.name for p in tmp_path.iterdir()) == ["m.tif", "m.tif.aux.xml"]
        and (found == whole(Pixels(), make_scene(300, seed=2))).all()
    )


# ---------------------------------------------------------------- files


def cog(path):
    "That a file is a valid cloud-optimised GeoTIFF, by rio-cogeo."
    valid, errors, said = pytest.importorskip("rio_cogeo").cog_validate(path)
    assert valid and not errors and not said, (errors, said)


def test_a_map_is_a_cog_and_says_what_it_was_told(tmp_path):
    scene = make_scene(1100, seed=1)
    write_raster(tmp_path / "i.tif", scene.image, scene.crs, scene.transform, 0)
    segment(Pixels(), tmp_path / "i.tif", tmp_path / "m.tif", device="cpu", probabilities=tmp_path / "p.tif")
    cog(tmp_path / "m.tif"), cog(tmp_path / "p.tif")
    with (
        rasterio.open(tmp_path / "m.tif") as f,
        rasterio.open(tmp_path / "i.tif") as i,
        rasterio.open(tmp_path / "p.tif") as p,
    ):
        assert (f.crs, f.transform, f.nodata, f.shape, f.count) == (
            i.crs,
            i.transform,
            255,
            i.shape,
            1,
        ) and f.overviews(1) == [2, 4] == p.overviews(1)
        assert [f.colormap(1)[k] for k in range(6)] == [
            (*bytes.fromhex(c[1:]), 255) for c in COLORS
        ] and f.colormap(1)[255] == (0, 0, 0, 0)
        assert (
            json.loads(f.tags()["CLASSES"]) == list(CLASSES)
            and raster_classes(tmp_path / "m.tif").names == CLASSES
        )
        labels, shares = f.read(1), p.read()
        assert (p.crs, p.transform, p.nodata, p.descriptions) == (
            i.crs,
            i.transform,
            255,
            (*CLASSES, "entropy"),
        )
    assert (
        (shares[:6].argmax(0) == labels)
        | ~scene.valid
        | (np.sort(shares[:6], 0)[-1] == np.sort(shares[:6], 0)[-2])
    ).all()
    assert (
        (abs(shares[:6].astype(int).sum(0)[scene.valid] - 100) <= 3).all()
        and shares[6][scene.valid].max() <= 100
        and (shares[:, ~scene.valid] == 255).all()
    )
    share = shares[:6, scene.valid] / 100
    assert (
        abs(
            shares[6, scene.valid] - 100 * -(share * np.log(np.maximum(share, 1e-9))).sum(0) / np.log(6)
        ).max()
        < 5
    )
    with rasterio.open(tmp_path / "m.tif", overview_level=0) as small:
        assert set(np.unique(small.read(1))) <= set(np.unique(labels))


PLACE = ("EPSG:32633", (0.5, 0.0, 400000.0, 0.0, -0.5, 5800000.0))
PLACES = {
    "south-up": (0.5, 0, 5e5, 0, 0.5, 5e6),
    "rotated": (0.4, 0.3, 5e5, 0.3, -0.4, 5e6),
    "sheared": (0.5, 0.1, 10, 0, -0.5, 20),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_odd_places_are_kept(tmp_path, name, crs):
    write_raster(tmp_path / "i.tif", make_scene(600).image, crs, PLACES[name], 0)
    segment(Pixels(), tmp_path / "i.tif", tmp_path / "m.tif", device="cpu")
    cog(tmp_path / "m.tif")
    made = open_raster(tmp_path / "m.tif")
    assert made.crs == crs and np.allclose(made.transform, PLACES[name], rtol=1e-12)


@pytest.mark.parametrize("bands", range(1, 14))
def test_one_to_thirteen_bands_any_size(tmp_path, bands):
    image = np.random.default_rng(bands).integers(1, 999, (bands, 3 * bands - 2, 50)).astype(np.uint16)
    write_raster(tmp_path / "a b \u00fc\u6771.tif", image, "EPSG:3857", (1, 0, 0, 0, -1, 0), 0)
    out = segment(
        Pixels(bands), tmp_path / "a b \u00fc\u6771.tif", tmp_path / "out \u00e9.tif", size=32, device="cpu"
    )
    cog(out)
    found = open_raster(out).read(0, 0, 50, len(image[0]))[0]
    with torch.no_grad():
        assert (
            found
            == Pixels(bands)
            .f((torch.as_tensor(image.astype(np.float32)) - 100)[None] / 50)
            .argmax(1)[0]
            .numpy()
        ).all()


def test_a_window_larger_than_the_raster(tmp_path):
    write_raster(tmp_path / "i.tif", np.full((4, 1, 1), 7, np.uint8), "EPSG:3857", (1, 0, 0, 0, -1, 0))
    assert segment(Pixels(), tmp_path / "i.tif", size=300, device="cpu").shape == (1, 1)
    cog(segment(Pixels(), tmp_path / "i.tif", tmp_path / "m.tif", size=300, device="cpu"))


def test_a_raster_of_nothing_is_named(tmp_path):
    write_raster(
        tmp_path / "nothing.tif", np.zeros((4, 70, 70), np.uint8), "EPSG:3857", (1, 0, 0, 0, -1, 0), 0
    )
    for out in (None, tmp_path / "m.tif"):
        with pytest.warns(UserWarning, match="nothing.tif holds no pixel of data"):
            segment(Pixels(), tmp_path / "nothing.tif", out, size=64, device="cpu")
    cog(tmp_path / "m.tif")
    with pytest.raises(InputError, match="nothing.tif holds no pixel of data"):
        embed(Encoder(bands=4, width=8), tmp_path / "nothing.tif", size=64, device="cpu")


@pytest.mark.parametrize("limit", [300, 20_000])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, limit):
    "Files of this process may not grow beyond a limit: hit by the bands, or only by the map put together."
    write_raster(tmp_path / "i.tif", make_scene(300).image, nodata=0)
    code = f"""
import resource, signal, sys, torch
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_maps import Pixels, InputError, segment
class Noise(Pixels):
    def forward(self, x): return torch.rand(len(x), 6, *x.shape[2:])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try: segment(Noise(), {str(tmp_path / "i.tif")!r}, {str(tmp_path / "m.tif")!r}, size=64, device="cpu")
except InputError as e: print("said:", e)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "said:" in out.stdout and "m.tif" in out.stdout and "free space" in out.stdout, out
    assert os.listdir(tmp_path) == ["i.tif"]


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="m.tif cannot be written"):
        segment(Pixels(), make_scene(64), tmp_path / "file/m.tif", size=32, device="cpu")
    with pytest.raises(InputError, match="needs a map under another name"):
        segment(Pixels(), make_scene(64), tmp_path / "m.tif", probabilities=tmp_path / "m.tif")
    assert os.listdir(tmp_path) == ["file"]


def test_two_jobs_do_not_write_one_map(tmp_path):
    with band_folder(tmp_path / "m.tif", {}):
        code = (
            "from rsssl_nb.mapping.segment import *\n"
            f"try: segment(torch.load({str(tmp_path / 'x.pt')!r}, weights_only=False), np.ones((4, 64, 64), "
            f"np.uint8), {str(tmp_path / 'm.tif')!r}, size=32, device='cpu')\n"
            "except InputError as e: print(e)"
        )
        torch.save(Segmenter(Encoder(bands=4, width=8), 6), tmp_path / "x.pt")
        assert (
            "being written by another process"
            in subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "import torch, numpy as np\n" + code.replace("import *", "import segment, InputError"),
                ],
                capture_output=True,
                text=True,
            ).stdout
        )


def test_every_raster_of_the_collection_is_mapped(imagery, tmp_path):
    rows = list(csv.DictReader((imagery / "geotiff/manifest.csv").read_text().splitlines()))
    done = 0
    for row in rows:
        if row["full_read_ok"] != "True" or row["dtype"].startswith("complex"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raster = open_raster(imagery / "geotiff" / row["file"])
            if raster.width * raster.height > 4e6:
                continue
            segment(Pixels(raster.bands), raster, tmp_path / "m.tif", device="cpu")
        cog(tmp_path / "m.tif")
        with rasterio.open(tmp_path / "m.tif") as f, rasterio.open(imagery / "geotiff" / row["file"]) as i:
            assert (f.shape, f.crs) == (i.shape, i.crs) and f.transform.almost_equals(i.transform), row[
                "file"
            ]
        done += 1
    assert done > 20


# ---------------------------------------------------------------- the same road for features and boxes


def test_main_axes_are_those_of_the_svd():
    points = np.random.default_rng(0).normal(size=(400, 20)) @ np.random.default_rng(1).normal(size=(20, 20))
    axes, low, high = principal_axes(torch.as_tensor(points, dtype=torch.float32))
    truth = np.linalg.svd(points, full_matrices=False)[2][:3].T
    assert (
        np.allclose(abs((axes.numpy() * truth).sum(0)), 1, atol=1e-4)
        and (axes.gather(0, axes.abs().argmax(0)[None]) > 0).all()
    )
    assert np.allclose(
        np.percentile(points @ axes.numpy(), (2, 98), axis=0), np.stack([low, high]), atol=1e-3
    )


def test_features_become_a_picture(tmp_path):
    scene, encoder = make_scene(700, seed=2), Encoder(bands=4, width=8).train()
    write_raster(tmp_path / "i.tif", scene.image, scene.crs, scene.transform, 0)
    out = embed(encoder, tmp_path / "i.tif", tmp_path / "e.tif", 100.0, 50.0, device="cpu")
    cog(out)
    made = open_raster(out)
    found = made.read(0, 0, 700, 700)
    assert (made.crs, made.transform, made.nodata, made.bands) == (
        scene.crs,
        tuple(scene.transform),
        255,
        3,
    ) and encoder.training
    assert (np.isnan(found).all(0) == ~scene.valid).all() and all(
        np.unique(b[scene.valid]).size > 100 for b in found
    )
    assert embed(encoder, scene.image[:, :40, :40], size=64, device="cpu").shape == (3, 40, 40)
    with pytest.raises(InputError, match="3 bands and the model reads 4"):
        embed(encoder, scene.image[:3], out)


@pytest.fixture(scope="module")
def grass(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for method in ("grass", "simclr"):
        pretrain(
            [make_scene(200, seed=2)],
            method,
            folder / method,
            epochs=2,
            batch=8,
            size=48,
            samples=16,
            width=8,
            device="cpu",
            progress=False,
        )
    return folder


@pytest.mark.parametrize("transform", [(0.5, 0, 5e5, 0, -0.5, 5e6), *PLACES.values()])
def test_boxes_lie_in_their_windows_on_earth(grass, tmp_path, transform):
    method, config = guided_method(grass / "grass")
    write_raster(tmp_path / "i.tif", make_scene(200, seed=2).image, "EPSG:32633", transform, 0)
    out = draw_boxes(
        method, tmp_path / "i.tif", tmp_path / "b.geojson", config.mean, config.std, size=48, device="cpu"
    )
    made = json.loads(out.read_text())
    assert made["crs"]["properties"]["name"] == "EPSG:32633" and len(made["features"]) == 2 * len(
        plan_windows(open_raster(tmp_path / "i.tif"), 48, 0)
    )
    back = tuple(~rasterio.Affine(*transform))[:6]
    for f in made["features"]:
        ring, (x, y) = (
            to_map_coordinates(back, f["geometry"]["coordinates"][0]),
            (f["properties"]["x"], f["properties"]["y"]),
        )
        assert (
            np.allclose(ring[0], ring[-1])
            and (ring >= (x - 0.01, y - 0.01)).all()
            and (ring <= (x + 48.01, y + 48.01)).all()
            and np.ptp(ring, 0).min() > 1
        )
    again = draw_boxes(method, tmp_path / "i.tif", None, config.mean, config.std, size=48, device="cpu")
    assert again == made["features"]
    scores = sorted((f["properties"]["score"] for f in again), reverse=True)
    best = draw_boxes(method, tmp_path / "i.tif", None, config.mean, config.std, size=48, device="cpu", top=3)
    assert [f["properties"]["score"] for f in best] == scores[:3] and scores[0] > scores[-1]


def test_boxes_stay_in_their_raster_and_nodata_has_none(grass, tmp_path):
    method, config = guided_method(grass / "grass")
    how = dict(mean=config.mean, std=config.std, size=48, device="cpu", progress=False)
    for side in (1, 30):
        write_raster(tmp_path / "i.tif", make_scene(64, seed=2).image[:, :side, :side], *PLACE, None)
        back = tuple(~rasterio.Affine(*PLACE[1]))[:6]
        for f in draw_boxes(method, tmp_path / "i.tif", **how):
            ring = to_map_coordinates(back, f["geometry"]["coordinates"][0])
            assert (ring > -0.01).all() and (ring < side + 0.01).all() and np.ptp(ring, 0).min() > 0
    write_raster(tmp_path / "n.tif", np.zeros((4, 64, 64), np.uint8), *PLACE, 0)
    with pytest.warns(UserWarning, match="n.tif shows nothing but nodata: .* holds no box"):
        out = draw_boxes(method, tmp_path / "n.tif", tmp_path / "n.geojson", **how)
    assert json.loads(out.read_text())["features"] == []


def test_a_model_that_was_on_a_device_has_every_mode_back():
    model = Segmenter(Encoder(bands=4, width=8), 6)
    model.encoder.layer2.eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), model_on_device(model, "cpu"):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before


def test_boxes_need_a_grass(grass, tmp_path):
    with pytest.raises(InputError, match="a run of simclr, which chooses no boxes"):
        guided_method(grass / "simclr")
    method, config = guided_method(grass / "grass")
    with pytest.raises(InputError, match="does not end in .geojson"):
        draw_boxes(method, make_scene(64), tmp_path / "b.tif", size=48)
    assert "crs" not in json.loads(
        draw_boxes(
            method,
            make_scene(100).image,
            tmp_path / "b.geojson",
            config.mean,
            config.std,
            size=48,
            device="cpu",
        ).read_text()
    )


def test_the_commands(grass, tmp_path):
    from click.testing import CliRunner

    from rsssl_nb.cli import main

    scene = make_scene(200, seed=2)
    write_raster(tmp_path / "i.tif", scene.image, scene.crs, scene.transform, 0)
    for command, run, out in (("embed", "grass", "e.tif"), ("boxes", "grass", "b.geojson")):
        result = CliRunner().invoke(
            main, [command, str(grass / run), str(tmp_path / "i.tif"), str(tmp_path / out), "--device", "cpu"]
        )
        assert (
            result.exit_code == 0 and f"wrote {tmp_path / out}" in result.output and (tmp_path / out).exists()
        ), result.output
    result = CliRunner().invoke(
        main, ["boxes", str(grass / "simclr"), str(tmp_path / "i.tif"), str(tmp_path / "c.geojson")]
    )
    assert result.exit_code == 2 and "give a run of grass" in result.output


# ---------------------------------------------------------------- scores


def test_scores_of_the_oracle():
    s = scores([[50, 10], [5, 35]])
    assert np.allclose([s["oa"], s["kappa"], s["miou"]], [0.85, 0.6938776, 0.7346154]) and np.allclose(
        s["iou"], [0.7692308, 0.7]
    )
    assert np.isnan(scores([[9, 0], [0, 0]])["kappa"]) and np.isnan(scores(np.zeros((2, 2)))["oa"])
    three = scores([[50, 10, 0], [5, 35, 0], [0, 0, 0]])
    assert np.isclose(three["miou"], s["miou"]) and np.isnan(three["iou"][2])
    with pytest.raises(ValueError, match="square"):
        scores(np.zeros((2, 3)))


def test_confusion_and_files(tmp_path):
    t, p = np.array([[0, 1, 255], [1, 1, 0]]), np.array([[0, 0, 1], [1, 255, 1]])
    assert confusion(t, p, 2).tolist() == [[1, 1], [1, 1]]
    for bad in (7, -1):
        with pytest.raises(ValueError, match=str(bad)):
            confusion(t, np.where(p == 1, bad, p), 2)
    scene = make_scene(64, seed=2)
    for name in "ab":
        write_raster(
            tmp_path / f"{name}.tif",
            scene.labels,
            scene.crs,
            scene.transform,
            255,
            scene.colors,
            scene.classes,
        )
    found = score_rasters(tmp_path / "a.tif", tmp_path / "b.tif")
    assert (
        found["oa"] == 1
        and found["pixels"] == scene.valid.sum()
        and found["pixels"] + found["ignored"] == 64 * 64
    )
    assert per_image_miou([np.eye(2)]) == 1


GROWTH = """
import sys
import numpy as np, torch
from rsssl_nb.data.write import write_raster
from rsssl_nb.encoders import Encoder, Segmenter
from rsssl_nb.mapping.segment import segment

def resident(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))

folder, width, size, side = sys.argv[1], *map(int, sys.argv[2:])
torch.manual_seed(0)
model = Segmenter(Encoder(bands=4, width=width), 6).eval()
model.classes = [str(k) for k in range(6)]
how = dict(device="cpu", progress=False, force=True)
for name, n in (("warm", 40), ("image", side)):
    pixels = np.random.default_rng(0).integers(1, 200, (4, n, n)).astype(np.uint8)
    write_raster(f"{folder}/{name}.tif", pixels)
segment(model, f"{folder}/warm.tif", f"{folder}/map.tif", size=16, **how)
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
said = []
tell = lambda windows, needed: said.append(needed)
segment(model, f"{folder}/image.tif", f"{folder}/map.tif", size=size, announce=tell, **how)
print(said[0], resident("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak of memory to reset here")
@pytest.mark.parametrize("width, size, side", [(16, 256, 600), (32, 256, 600), (64, 128, 300)])
def test_a_map_takes_the_memory_that_was_forecast(tmp_path, width, size, side):
    "Within a quarter. Less than 40 MB cannot be told from what libraries take."
    command = [sys.executable, "-c", GROWTH, *map(str, (tmp_path, width, size, side))]
    one = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(command, capture_output=True, text=True, env=one)
    assert done.returncode == 0, done.stderr
    said, grown = map(int, done.stdout.split()[-2:])
    assert said > 40e6 and abs(grown - said) < 0.25 * said, (said, grown)
