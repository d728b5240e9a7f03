"""Run All Cells on every page of the course and of the explorers, in JupyterLab in a real browser, without a
GPU: no cell may fail, and nothing may be red.

A page that does not end is named with the cell that holds it up: after `LIMIT` seconds, or once its kernel
has done nothing for `STILL` seconds. So a slow machine fails no page, and a page that hangs holds nobody up.
"""

import shutil
import time

import psutil
import pytest
from test_browser import CHROMIUM, served_lab, settings_of_lab, watched
from test_browser import browser as browser

from rsssl_nb import lessons

PAGES = sorted(path for room in ("course", "explore") for path in (lessons.root() / room).glob("*.ipynb"))
LIMIT, STILL = 600, 45
pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.timeout(LIMIT + 120),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium: apt-get install chromium, and these tests drive it"
    ),
]

# No script waits for a promise: what never comes would hold up the test for ever.
LOOK = """() => {
    const panel = window.jupyterapp?.shell.currentWidget, session = panel?.sessionContext;
    const dialog = document.querySelector('.jp-Dialog')?.innerText;
    if (!session || !panel.content?.widgets) return {dialog, kernel: 'no notebook yet', cells: []};
    const kernel = session.session?.kernel;
    const ready = session.isReady && kernel?.connectionStatus === 'connected'
        && window.jupyterapp.commands.hasCommand('notebook:run-all-cells');
    return {
        dialog, ready, kernel: `${kernel?.status}, ${kernel?.connectionStatus}`, path: session.path,
        asks: !!panel.node.querySelector('.jp-Stdin-input'),
        cells: panel.content.widgets.map((w, number) => ({
            number, source: w.model.sharedModel.getSource(), ran: w.model.executionCount ?? null,
            outputs: w.model.type === 'code' ? w.model.sharedModel.outputs.map(o => [
                o.name ?? o.output_type, [o.text ?? o.evalue ?? ''].flat().join('')]) : null}))
            .filter(cell => cell.outputs && cell.source.trim())};
}"""
RUN_ALL = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
SHUT_DOWN = "() => { window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab on copies of the pages: the server, with its `.address`."
    home = tmp_path_factory.mktemp("pages")
    settings_of_lab(home)
    for path in PAGES:
        shutil.copy(path, home / path.name)
    server = served_lab(home)
    server.address = f"http://127.0.0.1:{server.port}/lab/workspaces"
    yield server
    server.stop()


def seconds_of_kernels(server):
    "Processor seconds that the kernels of a server and their children have used."
    used = 0.0
    for process in psutil.Process(server.process.pid).children(recursive=True):
        try:
            used += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return used


def held_up(seen):
    "What a page waits for: its first cell without a number, and what its kernel and Lab say."
    waiting = [cell for cell in seen["cells"] if not cell["ran"]]
    cell = f"cell {waiting[0]['number']} ({waiting[0]['source'].strip()[:120]!r})" if waiting else "no cell"
    asks = ", a cell asks for input" if seen.get("asks") else ""
    dialog = f", a dialog is open: {seen['dialog']!r}" if seen.get("dialog") else ""
    return f"{cell} of {len(waiting)} did not end; kernel: {seen['kernel']}{asks}{dialog}"


def follow(page, server, name, done):
    "Looks at a page until `done(seen)`; fails, with what holds it up, when it stands still or is too slow."
    began = moved = time.time()
    last = None
    while not done(seen := page.evaluate(LOOK)):
        now = time.time()
        ended = [cell["ran"] for cell in seen["cells"]], seen["kernel"]
        used = seconds_of_kernels(server)
        if last is None or ended != last[0] or used > last[1] + 0.5:
            last, moved = (ended, used), now
        assert not seen.get("asks") and not seen.get("dialog"), f"{name}: {held_up(seen)}"
        assert now - moved < STILL, f"{name} stands still since {now - moved:.0f} s: {held_up(seen)}"
        assert now - began < LIMIT, f"{name} takes more than {LIMIT} s: {held_up(seen)}"
        time.sleep(0.3)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_run_all_cells(browser, lab, path):  # noqa: F811
    page = watched(browser)
    # a workspace of its own: in one for all Lab would open the pages before this one again, start their
    # kernels and bring one of them to the front, where nothing ever runs
    page.goto(f"{lab.address}/{path.stem}/tree/{path.name}", timeout=120_000)
    follow(page, lab, path.name, lambda seen: seen.get("ready") and seen["path"] == path.name)
    page.evaluate(RUN_ALL)

    def ran(seen):
        for cell in seen["cells"]:
            red = [o for o in cell["outputs"] if o[0] in ("error", "stderr")]
            assert not red, f"{path.name}, cell {cell['number']} ({cell['source'][:120]!r}): {red}"
        assert seen["path"] == path.name, f"{path.name}: {seen['path']} has come to the front"
        return seen["cells"] and all(cell["ran"] for cell in seen["cells"])

    try:
        follow(page, lab, path.name, ran)
    finally:
        page.evaluate(SHUT_DOWN)  # one kernel at a time
    assert page.wrong == []
    page.close()
