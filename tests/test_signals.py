"Ctrl-C and SIGTERM end a job after a checkpoint or a finished band, with the word how to go on."

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from test_attack import SCENE, TUNE

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_scene
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.folder import checkpoints

pytestmark = pytest.mark.long
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SHAPE = "--batch 2 --size 32 --width 8 --device cpu"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A scene as files, a larger one, and a segmenter of the small one."
    home = tmp_path_factory.mktemp("signals")
    image, labels = write_scene(SCENE, home / "in")
    labels.rename(home / "labels.tif")
    write_scene(make_scene(512, seed=2), home / "large")
    finetune("random", SCENE, SCENE.labels, home / "seg", **TUNE)
    return home


def begun(command, ready, number, again=False):
    """(exit code, stderr) of a command in a process of its own, signalled once `ready()`; `again`: twice."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "rsssl_nb", *command.split()]
    process = subprocess.Popen(line, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    started = time.time()
    while not ready():
        assert process.poll() is None and time.time() - started < 120, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    if again:
        time.sleep(0.05)
        process.send_signal(number)
    _, told = process.communicate(timeout=120)
    return process.returncode, told


def commands(place, out):
    return {
        "pretrain": f"pretrain {place}/in/image.tif --steps 20000 --samples 64 {SHAPE} --out {out}",
        "pretrain with readers": (
            f"pretrain {place}/in/image.tif --steps 20000 --samples 64 --workers 1 {SHAPE} --out {out}"
        ),
        "finetune": (
            f"finetune random --images {place}/in/image.tif --labels {place}/labels.tif "
            f"--classes {place}/labels.tif --fraction 1 --steps 20000 {SHAPE} --out {out}"
        ),
    }


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("name", ["pretrain", "pretrain with readers", "finetune"])
def test_a_signal_ends_a_run_after_a_checkpoint(place, tmp_path, name, number):
    out = tmp_path / "run"
    command = commands(place, out)[name]
    log = out / "log.jsonl"
    code, told = begun(command, lambda: log.exists() and log.read_text().count("\n") > 3, number)
    assert code == CODES[number] and "Traceback" not in told, told
    assert f"stopped by {signal.Signals(number).name} after step" in told and "--resume auto" in told
    done = log.read_text().count("\n")
    assert [int(path.stem[5:]) for path in checkpoints(out)] == [done] and done < 20000
    more = f"--steps {20000}"
    code, told = begun(
        f"{command.replace(more, more)} --resume auto", lambda: log.read_text().count("\n") > done, number
    )
    assert code == CODES[number] and log.read_text().count("\n") > done


def test_a_second_signal_ends_it_at_once(place, tmp_path):
    out = tmp_path / "run"
    log = out / "log.jsonl"
    slow = (
        commands(place, out)["pretrain"].replace("--batch 2", "--batch 64").replace("--width 8", "--width 32")
    )
    code, told = begun(slow, lambda: log.exists() and log.read_text(), signal.SIGINT, again=True)
    assert code == 130 and "Traceback" not in told, told


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_a_map_after_a_band(place, tmp_path, number):
    image = place / "large/image.tif"
    command = f"map {place}/seg {image} {tmp_path}/{{}}.tif --size 32 --device cpu"
    parts = tmp_path / ".a.tif.parts"
    code, told = begun(command.format("a"), lambda: any(parts.glob("*.band")), number)
    assert code == CODES[number] and "Traceback" not in told, told
    assert f"stopped by {signal.Signals(number).name} with" in told and "--resume" in told
    assert any(parts.glob("*.band")) and not list(parts.glob(".*part*")) and not (tmp_path / "a.tif").exists()
    for line in (command.format("a") + " --resume", command.format("b")):
        assert subprocess.run([sys.executable, "-m", "rsssl_nb", *line.split()], check=False).returncode == 0
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert np.array_equal(a.read(), b.read())
    assert not parts.exists()


def test_an_interrupt_while_a_module_is_imported_ends_with_its_code(tmp_path):
    "Modules run text that they made (dataclasses do); Python keeps in mind an interrupt that passed there."
    (tmp_path / "job.py").write_text(
        "from rsssl_nb.cli.shared import Group\n"
        "main = Group('job')\n"
        "main.command('go')(lambda: exec('raise KeyboardInterrupt'))\n"
        "main()\n"
    )
    where = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    line = [sys.executable, "-m", "job", "go"]
    ended = subprocess.run(line, env=where, capture_output=True, text=True, check=False)
    assert ended.returncode == 130 and "stopped by Ctrl-C" in ended.stderr, ended.stderr


def others(place, out):
    "Commands that keep nothing to go on from, and what each leaves when it is whole."
    image = place / "large/image.tif"
    shape = "--size 32 --device cpu"
    return {
        "boxes": f"boxes {place}/pre {image} {out}/a.geojson {shape} --batch 2",
        "embed --vectors": f"embed {place}/pre {image} {out}/a.npy --vectors {shape} --overlap 0.9",
        "embed --vectors to a raster": f"embed {place}/pre {image} {out}/a.tif --vectors {shape}",
    }


@pytest.fixture(scope="module")
def pretrained(place):
    "A run of GraSS beside the scenes."
    from test_attack import SMALL

    from rsssl_nb.training.pretrain import pretrain

    pretrain(SCENE, "grass", place / "pre", **SMALL)


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("name", ["boxes", "embed --vectors", "embed --vectors to a raster"])
def test_a_signal_leaves_nothing_half_written(place, pretrained, tmp_path, name, number):
    out = tmp_path / "out"
    out.mkdir()
    before = time.time()
    command = others(place, out)[name]
    code, told = begun(command, lambda: any(out.iterdir()) or time.time() - before > 8, number)
    assert code == CODES[number] and "Traceback" not in told, told
    assert "--resume" in told or "nothing half-written: give the same command again" in told, told
    assert not [p for p in out.iterdir() if not p.name.endswith(".tif.parts")], list(out.iterdir())


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_coloured_features_after_a_band(place, pretrained, tmp_path, number):
    command = (
        f"embed {place}/pre {place}/large/image.tif {tmp_path}/a.tif --size 32 --device cpu --overlap 0.8"
    )
    parts = tmp_path / ".a.tif.parts"
    code, told = begun(command, lambda: any(parts.glob("*.band")), number)
    assert code == CODES[number] and "go on with --resume" in told and "Traceback" not in told, told
    line = [sys.executable, "-m", "rsssl_nb", *command.split(), "--resume"]
    assert subprocess.run(line, check=False).returncode == 0
    assert (tmp_path / "a.tif").exists() and not parts.exists()
