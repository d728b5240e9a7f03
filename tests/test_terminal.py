"What a person sees on a terminal while a command works: which phase it is in, and at its end a clean line."

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading

import pytest

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_scene


def typed(*words):
    "Exit code and stdout of a command, and what it wrote on a terminal of 100 columns."
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    call = [sys.executable, "-m", "rsssl_nb", *map(str, words)]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    seen = []

    def look():
        while True:
            try:
                part = os.read(mine, 4096)
            except OSError:  # nobody writes any more
                part = b""
            if not part:
                return
            seen.append(part)

    eyes = threading.Thread(target=look)
    eyes.start()
    out = process.communicate(timeout=300)[0]
    eyes.join(10)
    os.close(mine)
    return process.returncode, out, b"".join(seen).decode(errors="replace")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(make_scene(256, seed=1), tmp_path_factory.mktemp("scene"))


def ends_clean(seen):
    "Whether nothing is left on the line that the bars stood on."
    return seen.endswith(("\r\x1b[K", " \r"))


@pytest.mark.long
def test_the_doctor_names_each_check_while_it_runs():
    code, out, seen = typed("doctor")
    names = [line[7:21].strip() for line in out.splitlines() if line[:6].strip() in ("ok", "note", "FAULT")]
    assert code == 0 and len(names) > 10
    assert all(f"looking at: {name} ..." in seen for name in names), seen
    assert ends_clean(seen)


@pytest.mark.long
def test_pretraining_names_its_phase(scene, tmp_path):
    small = "--steps 40 --batch 8 --samples 16 --size 32 --width 8 --device cpu".split()
    code, out, seen = typed("pretrain", scene[0], "--out", tmp_path / "run", *small)
    assert code == 0 and "training:" in seen and "loss=" in seen, seen
    assert ends_clean(seen)


def test_work_of_few_slow_parts_shows_a_bar_before_the_first_is_done(scene):
    for words, phase in (
        (("check", scene[0].parent), "checking:   0%"),
        (("score", *scene[1:] * 2), "scoring:   0%"),
    ):
        _, out, seen = typed(*words)
        assert phase in seen and ends_clean(seen), (words, seen)
