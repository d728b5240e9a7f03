"What a notebook's kernel shows: grey notes, short errors, bars that leave nothing, runs kept at a stop."

import os
import re
import signal
import threading
import time
import warnings

import nbformat
import pytest
from nbclient import NotebookClient

from rsssl_nb.errors import InputError
from rsssl_nb.notebook import Note, progress_bar

TILES = """
import numpy as np
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.labels import Classes
from rsssl_nb.training.pretrain import pretrain
from rsssl_nb.training.finetune import finetune
scene = make_scene(128, seed=1)
"""


def a_client(*cells):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    return NotebookClient(nb, timeout=120, kernel_name="python3", allow_errors=True)


def ran(*cells):
    "The outputs of each cell, run one after another in a kernel."
    client = a_client(*cells)
    client.execute(env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"})
    return [cell.outputs for cell in client.nb.cells]


def texts(outputs):
    return [o.get("data", {}).get("text/plain", o.get("text", "")) for o in outputs]


def test_notes_are_one_grey_line_and_other_warnings_stay_red():
    note, other = ran(
        "import warnings\nfrom rsssl_nb.notebook import Note\n"
        "warnings.warn('band 4 <alpha> is read as data', Note)",
        "warnings.warn('careful')",
    )
    assert [o.output_type for o in note] == ["display_data"]
    assert "color: #777" in note[0].data["text/html"] and "&lt;alpha&gt;" in note[0].data["text/html"]
    assert note[0].data["text/plain"] == "Note: band 4 <alpha> is read as data"
    assert other[0].name == "stderr" and "UserWarning: careful" in other[0].text


def test_a_note_is_a_warning_elsewhere():
    with pytest.warns(UserWarning, match="as data"):
        warnings.warn("read as data", Note, stacklevel=1)


def test_a_wrong_folder_or_method_is_a_sentence_and_the_cells_own_line():
    folder, method, steps, option = ran(
        "from rsssl_nb import pretrain\n\npretrain('no/such/folder')",
        "import numpy as np\npretrain(np.zeros((3, 64, 64)), 'simclear')",
        "pretrain(np.zeros((3, 64, 64)), steps=0)",
        "noise = np.random.default_rng(0).random((3, 64, 64))\n"
        "pretrain(noise, steps=1, size=32, width=8, batch=2, options=dict(tau=-1), device='cpu')",
    )
    for outputs, says, line in (
        (folder, "no/such/folder does not exist", 3),
        (method, "'simclear'", 2),
        (steps, "steps 0 is too small", 1),
        (option, "tau -1", 2),
    ):
        (error,) = [o for o in outputs if o.output_type == "error"]
        shown = "\n".join(error.traceback)
        assert shown.startswith("InputError: ") and says in shown.splitlines()[0]
        assert f"this cell, line {line}: pretrain(" in shown and len(shown.splitlines()) == 3, shown
    assert issubclass(InputError, ValueError)


def test_a_closed_bar_leaves_nothing_and_a_brief_one_is_not_shown():
    outputs, brief = ran(
        "from rsssl_nb.notebook import progress_bar\nimport time\n"
        "with progress_bar(3, phase='training') as bar:\n"
        "    for i in range(3):\n        time.sleep(0.4)\n        bar.update()\n",
        "with progress_bar(2) as bar:\n    bar.update(2)",
    )
    assert [dict(o.data) for o in outputs] == [{"text/plain": ""}] and brief == []


def test_a_bar_shows_phase_and_place_while_it_runs():
    (outputs,) = ran(
        "from rsssl_nb.notebook import progress_bar\nimport time\n"
        "bar = progress_bar(4, phase='statistics', unit='window')\n"
        "for i in range(2):\n    time.sleep(0.4)\n    bar.update()\n"
        "bar.set_postfix(loss='0.5')"
    )
    assert re.search(r"statistics: +50%.* 2/4 .*window/s, loss=0.5", texts(outputs)[0])
    assert not [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]


def test_no_bar_in_a_log_file(capsys):
    with progress_bar(2) as bar:
        bar.update()
    assert capsys.readouterr().err == ""


@pytest.mark.long
@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_an_interrupted_run_is_kept(task, tmp_path):
    begin = {
        "pretrain": (
            "run = pretrain(scene, steps=5000, batch=8, samples=64, size=32, width=8, device='cpu', "
            "tell=tell)"
        ),
        "finetune": (
            "model, log = finetune('random', [scene], [scene.labels], fraction=1.0, steps=5000, batch=2, "
            "size=32, width=8, device='cpu', tell=tell, classes=Classes(scene.classes, scene.colors))"
        ),
    }[task]
    after = "print(run, len(run.log))" if task == "pretrain" else "print(type(model).__name__, len(log))"
    begun = tmp_path / "begun"
    tell = (
        f"from pathlib import Path\ndef tell(row):\n    Path({str(begun)!r}).touch()\n"  # of the first step
    )
    client = a_client(f"import os\nprint(os.getpid())\n{tell}" + TILES, begin, after)

    def interrupt():
        while not begun.exists():
            time.sleep(0.1)
        time.sleep(1)
        os.kill(int(client.nb.cells[0].outputs[0].text), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    client.execute(env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"})
    _, outputs, told = [cell.outputs for cell in client.nb.cells]
    assert not [o for o in outputs if o.output_type == "error"], outputs
    assert any("the run so far is kept, in memory only" in text for text in texts(outputs)), outputs
    steps = int(told[0].text.split()[-1])
    assert 0 < steps < 5000
    assert ("stopped" if task == "pretrain" else "Segmenter") in told[0].text
