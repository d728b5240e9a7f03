"Files made to do harm: no order reaches a terminal, no traceback, nothing outside is touched, nothing hangs."

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_cases import a_map, classes_file, land, paint, put

from rsssl_nb.cli import main
from rsssl_nb.errors import InputError, printable

NAMES = ("\x1b]0;owned\x07water", "\x9b31mgrass", "roof\u202efoor")
ORDER = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


# --- the terminal


def spoken(*args, alone=False):
    "All that a command prints, here or `alone` in a process of its own: (exit code, output)."
    if not alone:
        found = CliRunner().invoke(main, list(map(str, args)))
        return found.exit_code, found.output
    found = subprocess.run(
        [sys.executable, "-m", "rsssl_nb", *map(str, args)], capture_output=True, text=True, timeout=120
    )
    return found.returncode, found.stdout + found.stderr


@pytest.fixture
def theirs(tmp_path):
    "A place whose file names and class names hold orders to a terminal; with its map."
    classes_file(tmp_path / "classes.json", names=NAMES)
    image = put(tmp_path / "images" / "\x1b[2Ja.tif", paint(land()))
    put(tmp_path / "labels" / "\x1b[2Ja.tif", land())
    return image, a_map(tmp_path / "\x1b[31mmap.tif", land(1), names=NAMES)


def test_no_order_reaches_the_terminal(theirs, tmp_path):
    image, mapped = theirs
    labels = tmp_path / "labels" / image.name
    cut = image.with_name("\x1b[1mcut.tif")
    cut.write_bytes(image.read_bytes()[:900])
    for code, command in (
        (0, ("score", mapped, labels)),
        (0, ("info", image)),
        (0, ("split", image, tmp_path / "\x07s.geojson", "--block", "32px", "--buffer", "2px")),
        (2, ("check", image.parent)),
        (2, ("map", tmp_path / "\x1b[1mno", cut, tmp_path / "out.tif")),
        (2, ("info", cut)),
        (2, ("score", mapped, labels, "--\x1b[1mno")),
        (2, ("score", mapped, cut)),
        (2, ("\x1b[1mno",)),
        (2, ("judge", "\x1b[1mno.pt")),
    ):
        got, said = spoken(*command, alone=cut in command)
        assert got == code, (command, said)
        assert not ORDER.search(said), (command, said)
        assert r"\x" in said or r"\u" in said, (command, said)
        assert "Traceback" not in said, said


def test_what_is_printed_is_cleaned_in_one_place():
    import rsssl_nb.cli

    for path in Path(rsssl_nb.cli.__file__).parent.glob("*.py"):
        lines = [
            line for line in path.read_text().splitlines() if re.search(r"click\.s?echo\(|\bprint\(", line)
        ]
        own = [line for line in lines if r"\033" not in line]  # doctor's line of progress, of our own words
        assert len(own) == (path.stem == "shared"), (path, own)


def test_a_notebook_shows_no_order():
    error = InputError("\x1b[31ma.tif")
    assert error._render_traceback_()[0] == r"InputError: \x1b[31ma.tif"
    assert printable("a\tb\nß\ud83d") == "a\tb\nß\\ud83d"
