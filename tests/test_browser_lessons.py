"""From the wheel to a marked answer: installed into a clean environment, served by `rsssl-nb lab`, run and
answered in a real browser.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request

import pytest
from test_lessons import wheel  # noqa: F401

from rsssl_nb import lessons

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here (apt-get install chromium): this test ran on nothing"
    ),
]

READY = """async () => { const panel = window.jupyterapp?.shell.currentWidget, s = panel?.sessionContext;
    if (!s) return false;
    await s.ready;
    const k = s.session?.kernel, commands = window.jupyterapp.commands;
    if (k?.connectionStatus !== 'connected' || !commands.hasCommand('notebook:run-all-cells')) return false;
    await k.requestKernelInfo();
    return true; }"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(w => ({
    type: w.model.type,
    source: w.model.sharedModel.getSource(),
    count: w.model.executionCount ?? null,
    outputs: w.model.type === 'code'
        ? w.model.sharedModel.outputs.map(o => [
            o.name ?? o.output_type, [o.text ?? o.data?.['text/plain'] ?? o.evalue ?? ''].flat().join('')])
        : []}))"""
RUN = """async ([i, source]) => { const app = window.jupyterapp, book = app.shell.currentWidget.content;
    if (source !== null) book.widgets[i].model.sharedModel.setSource(source);
    book.activeCellIndex = i;
    await app.commands.execute('notebook:run-cell'); }"""


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):  # noqa: F811
    "A fresh environment that holds the wheel, and borrows this one's other packages."
    home = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin/python"
    subprocess.run(
        [sys.executable, "-m", "pip", "-q", "--python", str(python), "install", "--no-deps", str(wheel[0])],
        check=True,
    )
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with open(f"{site}/borrowed.pth", "w") as f:
        f.write(sysconfig.get_path("purelib"))
    (home / "share").symlink_to(f"{sys.prefix}/share")
    return home


@pytest.fixture(scope="module")
def address(environment, tmp_path_factory):
    "What `rsssl-nb lab` prints: the tour's address, token included."
    home = tmp_path_factory.mktemp("home")
    (home / "config").mkdir()
    (home / "config/jupyter_lab_config.py").write_text("c.LabApp.expose_app_in_browser = True\n")
    env = {
        **os.environ,
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        **{f"JUPYTER_{n}_DIR": str(home / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")},
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "w"),
    }
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with open(home / "log", "wb") as log:
        server = subprocess.Popen(
            [environment / "bin/rsssl-nb", "lab", "lessons", "--no-browser", "--port", str(port)],
            env=env,
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for _ in range(300):
            if found := re.search(rf"http://127\.0\.0\.1:{port}/lab/tree/\S+", (home / "log").read_text()):
                break
            assert server.poll() is None, (home / "log").read_text()
            time.sleep(0.2)
        yield found.group(), home / "lessons"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def code_cells(page):
    return [c for c in page.evaluate(CELLS) if c["type"] == "code" and c["source"].strip()]


@pytest.mark.timeout(1200)
def test_the_tour_from_the_wheel_in_a_browser(address, environment):
    from playwright.sync_api import sync_playwright

    url, folder = address
    assert "00_tour.ipynb?token=" in url and {p.name for p in lessons.pages(folder)} == {
        p.name for p in lessons.pages()
    }
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.split("/lab")[0] + "/api/contents")
    with sync_playwright() as p:
        browser, away = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS), []
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.route(
            lambda u: not u.startswith(("http://127.0.0.1:", "data:", "blob:", "ws://127.0.0.1:")),
            lambda route: (away.append(route.request.url), route.abort()),
        )
        page.goto(url)
        while not page.evaluate(READY):
            time.sleep(0.3)
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        while not all(c["count"] for c in code_cells(page)):
            time.sleep(0.5)
        cells = page.evaluate(CELLS)
        assert not [o for c in cells for o in c["outputs"] if o[0] in ("error", "stderr")], cells
        ((check, (name, stub, solution)),) = lessons.exercises(
            lessons.cells(lessons.root() / "course/00_tour.ipynb")
        ).items()
        at = next(i for i, c in enumerate(cells) if c["source"] == stub)
        said = []
        for answer in (stub, solution, solution.replace("return ", "return 1 + ")):
            page.evaluate(RUN, [at, answer])
            page.evaluate(RUN, [check, None])
            said.append(page.evaluate(CELLS)[check]["outputs"][-1][1])
        browser.close()
    assert (
        said[0].startswith("…")
        and said[1].startswith("✓ agrees on 3 cases")
        and said[2].startswith("✗ for (0.48, 0.4, 0.4): got 0.92")
    ), said
    assert not away, away
