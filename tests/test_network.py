"No image sends a command to another file or server: a server on this machine must hear nothing."

import os
import subprocess
import sys
import warnings

import pytest
import rasterio
from odd_rasters import says
from test_cli import good, refused, run

from rsssl_nb.cli.shared import SHUT, main
from rsssl_nb.data.gdal import explained
from rsssl_nb.data.labels import read_classes
from rsssl_nb.data.raster import open_raster
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_scene
from rsssl_nb.mapping.polygons import write_polygons
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.widgets.explorers import explore_temperature
from rsssl_nb.widgets.ground import open_ground

SCENE = make_scene(128, seed=1)
SERVER = """
import http.server, sys
class Told(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open(sys.argv[1], "a").write(self.path + "\\n")
        self.send_error(404)
    do_HEAD = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Told)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    "(address, heard): a server in a process of its own, and what it was asked for so far."
    log = tmp_path_factory.mktemp("server") / "log"
    log.touch()
    process = subprocess.Popen([sys.executable, "-c", SERVER, log], stdout=subprocess.PIPE, text=True)
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}", lambda: log.read_text().split()
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A folder with a pretrained GraSS, `pre`, and a segmenter, `seg`."
    home = tmp_path_factory.mktemp("runs")
    small = dict(batch=4, size=32, width=8, device="cpu", progress=False)
    pretrain(SCENE, "grass", home / "pre", steps=2, samples=8, **small)
    finetune("random", SCENE, SCENE.labels, home / "seg", steps=2, fraction=1.0, **small)
    return home


def plant(path, address, where):
    "Makes a TIFF, its .aux.xml or its reduced copy name overviews at an address; the path."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if where == "aux":
            tag = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{address}</MDI></Metadata>'
            path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{tag}</PAMDataset>")
            return path
        target = path
        if where in (".ovr", ".msk"):
            target = path.with_name(path.name + where)
            target.unlink(missing_ok=True)  # else GDAL follows the tag of the file that it replaces
            shape = dict(width=64, height=64, count=1, dtype="uint8")
            rasterio.open(target, "w", driver="GTiff", **shape).close()
        with rasterio.open(target, "r+") as file:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=address)
    return path


def spellings(server):
    return [
        f"/vsicurl/{server}/a.tif",
        f"{server}/b.tif",
        f"WMS:{server}/c?",
        f"/vsicurl_streaming/{server}/d",
    ]


SMALL = "--steps 2 --size 32 --width 8 --batch 4 --device cpu --out {out}"
COMMANDS = {
    "info": "info {image}",
    "check": "check {folder}",
    "map": "map {runs}/seg {image} {out}.tif --device cpu",
    "embed": "embed {runs}/pre {image} {out}.tif --device cpu",
    "boxes": "boxes {runs}/pre {image} {out}.geojson --device cpu",
    "score": "score {image} {labels}",
    "split": "split {image} {out}.geojson",
    "pretrain": "pretrain {image} --samples 8 {small}",
    "finetune": "finetune random --images {image} --labels {labels} --classes {labels} --fraction 1 {small}",
}


def command_line(command, image, labels, runs, out):
    "The words of a command on an image."
    places = dict(image=image, folder=image.parent, labels=labels, runs=runs, out=out)
    return COMMANDS[command].format(**places, small=SMALL.format(out=out)).split()


@pytest.mark.parametrize("where", ["tag", "aux", ".ovr", ".msk"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_image_that_names_a_server_is_refused(server, runs, tmp_path, command, where):
    address, heard = server
    image, labels = write_scene(SCENE, tmp_path / "in")
    labels = labels.rename(tmp_path / "labels.tif")
    for spelling in spellings(address) if where == "tag" else spellings(address)[:2]:
        plant(image, spelling, where)
        line = command_line(command, image, labels, runs, tmp_path / "out")
        if command == "check":
            told = run(*line)
            assert told.exit_code == 2 and "OVERVIEW_FILE" in told.output
        else:
            told = refused(*line, says="OVERVIEW_FILE")
        takes = any(option.name == "allow_remote" for option in main.commands[command].params)
        assert ("--allow-remote" in told.output) == takes and "allow_remote=" not in told.output
    assert heard() == [] and not list(tmp_path.glob("out*"))


def test_labels_that_name_a_server_are_refused(server, runs, tmp_path):
    address, heard = server
    image, labels = write_scene(SCENE, tmp_path / "in")
    plant(labels, spellings(address)[1], "tag")
    refused(*command_line("finetune", image, labels, runs, tmp_path / "out"), says="OVERVIEW_FILE")
    refused("score", labels, labels, says="OVERVIEW_FILE")
    for door in (read_classes, lambda path: write_polygons(path, tmp_path / "p.gpkg")):
        with says("OVERVIEW_FILE", labels.name):
            door(labels)
    assert heard() == []


@pytest.mark.parametrize("where", ["tag", "aux", ".ovr", ".msk"])
def test_an_explorer_and_python_refuse_it_too(server, tmp_path, where):
    address, heard = server
    image = plant(write_scene(SCENE, tmp_path)[0], spellings(address)[0], where)
    for door in (open_ground, open_raster, lambda path: pretrain(path, steps=1, device="cpu")):
        with says("OVERVIEW_FILE", image.name):
            door(image)
    explore_temperature(image)  # says so in its own place
    assert heard() == []


@pytest.mark.parametrize("spelling", range(4))
def test_gdal_itself_reaches_no_server_from_a_command(server, tmp_path, spelling):
    address, heard = server
    image = plant(write_scene(SCENE, tmp_path)[0], spellings(address)[spelling], "tag")
    program = f"import rasterio; f = rasterio.open({str(image)!r}); f.overviews(1)"
    before = len(heard())
    for shut in (SHUT, {}):
        subprocess.run([sys.executable, "-c", program], env={**os.environ, **shut}, timeout=60, check=False)
        assert (len(heard()) > before) == (shut == {})


def test_who_allows_it_may_follow(server, runs, tmp_path):
    address, heard = server
    image, _ = write_scene(SCENE, tmp_path / "in")
    plant(image, spellings(address)[1], "tag")
    before = len(heard())
    good("map", runs / "seg", image, tmp_path / "map.tif", "--device", "cpu", "--allow-remote")
    assert len(heard()) > before
    assert not set(SHUT) & set(os.environ)
    virtual = f"/vsisubfile/0_{image.stat().st_size},{image}"
    shape = ("--steps", 2, "--samples", 8, "--size", 32, "--width", 8, "--batch", 4, "--device", "cpu")
    refused("pretrain", virtual, "--out", tmp_path / "a", *shape, says="remote or virtual")
    good("pretrain", virtual, "--out", tmp_path / "a", *shape, "--allow-remote")


def test_overviews_of_ones_own_are_read(tmp_path):
    image, _ = write_scene(SCENE, tmp_path)
    with explained(image, "written") as io, io.Env(TIFF_USE_OVR=True), io.open(image, "r+") as file:
        file.build_overviews([2], io.enums.Resampling.nearest)
    assert image.with_name("image.tif.ovr").exists()
    assert open_raster(image).overviews == (2,)
