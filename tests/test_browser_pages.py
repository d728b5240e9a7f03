"""Run All Cells on every page of the course and of the explorers, in JupyterLab in a real browser, without a
GPU: no cell may fail, and nothing may be red.
"""

import shutil

import pytest
from test_browser import CHROMIUM, served_lab, settings_of_lab, until, watched
from test_browser import browser as browser
from test_browser_lessons import CELLS, READY

from rsssl_nb import lessons

PAGES = sorted(path for room in ("course", "explore") for path in (lessons.root() / room).glob("*.ipynb"))
pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium: apt-get install chromium, and these tests drive it"
    ),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab on copies of the pages: its address."
    home = tmp_path_factory.mktemp("pages")
    settings_of_lab(home)
    for path in PAGES:
        shutil.copy(path, home / path.name)
    server = served_lab(home)
    yield f"http://127.0.0.1:{server.port}/lab/tree"
    server.stop()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_run_all_cells(browser, lab, path):  # noqa: F811
    page = watched(browser)
    page.set_default_timeout(600_000)
    page.goto(f"{lab}/{path.name}")
    until(lambda: page.evaluate(READY), "the kernel is not ready", 90)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def ran():
        cells = page.evaluate(CELLS)
        failed = [o for c in cells for o in c["outputs"] if o[0] in ("error", "stderr")]
        assert not failed, failed
        return all(c["count"] for c in cells if c["type"] == "code" and c["source"].strip())

    until(ran, f"{path.name} does not end", 600)
    page.evaluate(
        "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }"
    )  # one kernel at a time
    assert page.wrong == []
    page.close()
