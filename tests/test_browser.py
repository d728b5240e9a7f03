"""Every explorer in a real browser: JupyterLab and Voila on loopback, headless Chromium, no other address.

Keys and pointer move things in the page; a file that the kernel writes at each redraw says what Python has
of it. Screenshots land in runs/browser/.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "runs" / "browser"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
# what is served: this checkout, or with RSSSL_INSTALLED what is installed beside the Python that runs this
PACKAGE = {} if os.environ.get("RSSSL_INSTALLED") else {"PYTHONPATH": str(ROOT)}
pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium: apt-get install chromium, and these tests drive it"
    ),
]

IMPORTS = """
import hashlib, json, os
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.encoders import Encoder
from rsssl_nb.methods.grass import GraSS
from rsssl_nb.widgets.explorers import explore_negatives, explore_pair, explore_regions, explore_temperature
from rsssl_nb.widgets.features import explore_labels, explore_matches, explore_saliency
"""
MAKE = """
scene, net = make_scene(160, seed=1), GraSS(Encoder("resnet18", 4, 8, 8))
net.title = "<b>bold</b>"
made = dict(
    temperature=explore_temperature(scene, [net], n=4, size=32), pair=explore_pair(scene, 48, 96),
    regions=explore_regions(scene, [net], 64, n=2), negatives=explore_negatives(scene, [net], n=4, size=32),
    matches=explore_matches(scene, [net], 96), saliency=explore_saliency(scene, [net], 96),
    labels=explore_labels(scene, [net], window=96))
made["saliency"].wait()
"""
HELD = """
import time
import rsssl_nb.widgets.features as features
free = features.attribute
def attribute(*args, stop, **options):
    while os.path.exists("hold") and not stop(): time.sleep(.02)
    return free(*args, stop=stop, **options)
features.attribute = attribute
"""
REPORT = """
import threading
writing = threading.RLock()  # looks draw in threads: whoever reports last has also looked last
def report(_=None):
  with writing:
    state = {n: dict(b.settings(), picture=hashlib.md5(bytes(b.view.value)).hexdigest(),
                     trouble=b.trouble.value, busy=b.busy.value, note=b.note.value,
                     ends={c: (w.min, w.max) for c, w in b.controls.items() if hasattr(w, "min")})
             for n, b in made.items()}
    with open("state.part", "w") as f: json.dump(state, f)
    os.replace("state.part", "state.json")
for b in made.values():
    for w in (b.view, b.trouble, b.busy, b.note, *b.controls.values()): w.observe(report, "value")
    for t in b.shared: b.canvas.observe(report, t)
report()
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(truth, what, seconds=90):
    "Waits until `truth()` is true, and gives it; fails with `what` after so many seconds."
    end = time.time() + seconds
    while not (found := truth()):
        assert time.time() < end, f"after {seconds} s: {what}"
        time.sleep(0.05)
    return found


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


class Served:
    """A server in its own process group, on loopback, with Jupyter folders of its own.

    Its log is read at the end.
    """

    def __init__(self, home, *command):
        self.port, self.log = free_port(), home / f"{command[0]}.log"
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "IPYTHONDIR": str(home / "ipython"),
            **PACKAGE,
            "JUPYTER_PATH": str(ROOT / "nbs/explore"),
            **{f"JUPYTER_{n}_DIR": str(home / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")},
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "work"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "lab"),
        }
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [c.format(port=self.port) for c in command],
                cwd=home,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self):
        if self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def settings_of_lab(home):
    "No news popup, and all cells drawn at once."
    for name, text in (
        ("apputils-extension/notification", '{"fetchNews": "false", "checkForUpdates": false}'),
        ("notebook-extension/tracker", '{"windowingMode": "none"}'),
    ):
        path = home / "lab" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def notebook(cells):
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(c.strip()) for c in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}},
    )


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def watched(browser, **options):
    """A page, with playwright's options, that may ask 127.0.0.1 alone.

    What it asks elsewhere, its errors and its console's are in `.wrong`.
    """
    page = browser.new_page(viewport={"width": 1280, "height": 1500}, **options)
    page.wrong = []

    def route(r):
        if re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|(data|blob):", r.request.url):
            return r.continue_()
        page.wrong.append(f"asked {r.request.url}")
        r.abort()

    page.route("**/*", route)
    page.on("pageerror", lambda e: page.wrong.append(f"page error {e}"))
    page.on(
        "console",
        lambda m: page.wrong.append(f"console {m.text} {m.location}") if m.type == "error" else None,
    )
    return page


def served_lab(home):
    "A JupyterLab on the folder `home`, once it answers."
    server = Served(
        home,
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port={port}",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={home}",
    )
    until(lambda: answers(f"http://127.0.0.1:{server.port}/api"), "JupyterLab does not answer", 60)
    return server


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """A JupyterLab page on which all explorers stand and have been run, and `state()`: what Python has of
    them.
    """
    home = tmp_path_factory.mktemp("lab")
    settings_of_lab(home)
    nbformat.write(
        notebook([IMPORTS, MAKE, HELD, REPORT, *(f'made["{n}"]' for n in NAMES)]), home / "page.ipynb"
    )
    server = served_lab(home)
    page = watched(browser)
    page.goto(f"http://127.0.0.1:{server.port}/lab/tree/page.ipynb")
    page.wait_for_function(
        "window.jupyterapp && jupyterapp.shell.currentWidget && "
        "jupyterapp.shell.currentWidget.sessionContext",
        timeout=60000,
    )
    page.evaluate("""async () => { const c = jupyterapp.shell.currentWidget.sessionContext; await c.ready;
        while (c.session.kernel.connectionStatus != "connected") await new Promise(r => setTimeout(r, 100));
        await c.session.kernel.requestKernelInfo(); }""")
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    until(
        lambda: (home / "state.json").exists() and page.locator(".rsssl-labels .widget-image").count(),
        "the page does not end",
        240,
    )
    page.home, page.state = home, lambda name: json.loads((home / "state.json").read_text())[name]
    yield page
    log = server.log.read_text()  # before it is stopped: how it comes down is not ours to judge
    page.close()
    server.stop()
    assert "Traceback" not in log, log[-3000:]


NAMES = ["temperature", "pair", "regions", "negatives", "matches", "saliency", "labels"]
SLIDERS = {
    "temperature": ["tau", "anchor", "batch"],
    "pair": ["points"],
    "regions": ["threshold"],
    "negatives": ["anchor", "alpha", "threshold", "batch"],
    "matches": ["view"],
    "saliency": ["opacity"],
    "labels": ["lam"],
}
MENUS = {
    "temperature": ["network"],
    "pair": [],
    "regions": ["sign", "network"],
    "negatives": ["rule", "network"],
    "matches": ["around", "network"],
    "saliency": ["layer", "about", "network", "how", "bands"],
    "labels": ["click"],
}


def explorer(page, name):
    box = page.locator(f".rsssl-{name}").first
    box.scroll_into_view_if_needed()
    return box


def labelled(box, kind, name):
    "The one control whose label reads `name`."
    return (
        box.locator(kind)
        .filter(has=box.page.locator("label, .widget-label").filter(has_text=re.compile(f"^{name}$")))
        .first
    )


def still(page, name):
    "The explorer's state once it is not busy and nothing has changed for a moment."

    def same():
        one = page.state(name)
        time.sleep(0.15)
        return one["busy"] == "" and one == page.state(name) and one

    return until(same, f"{name} stays busy")


def image_of(box):
    return box.locator("img.widget-image").first.get_attribute("src")


def shoot(page, box, name):
    box.scroll_into_view_if_needed()
    box.screenshot(path=SHOTS / f"{name}.png")


@pytest.mark.parametrize("name", NAMES)
def test_every_control_to_both_ends(lab, name):
    box = explorer(lab, name)
    for label in SLIDERS[name]:
        handle, pictures = labelled(box, ".widget-slider", label).locator(".noUi-handle").first, []
        for key, end in zip(
            ("Home", "End"), lab.state(name)["ends"][label]
        ):  # by keys, as somebody without a mouse would
            was = image_of(box)
            handle.focus()
            handle.press(key)
            until(
                lambda: still(lab, name)["controls"][label] == end, f"{name}: {label} is not {end} in Python"
            )
            pictures.append(still(lab, name)["picture"])
        if label in ("lam", "batch"):
            continue
        assert pictures[0] != pictures[1], f"{name}: moving {label} did not change the picture"
        until(lambda: image_of(box) != was, f"{name}: moving {label} did not change the page")
    for label in MENUS[name]:
        menu = labelled(box, ".widget-dropdown", label).locator("select")
        options = [o.replace("\xa0", " ") for o in menu.locator("option").all_text_contents()]
        for option in (options[-1], options[0]):
            menu.select_option(index=options.index(option))
            until(
                lambda: still(lab, name)["controls"][label] == option,
                f"{name}: {label} did not become {option}",
                60,
            )
            if option == "<b>bold</b>":
                assert menu.locator("b").count() == 0
    assert still(lab, name)["trouble"] == ""
    if name == "saliency":  # about the loss the class does nothing: greyed, with a word
        assert box.get_by_text("class (a class only)").count() == 1
    until(
        lambda: box.locator("img.widget-image").first.evaluate("i => i.naturalWidth") > 100,
        f"{name} shows no picture",
    )
    shoot(lab, box, name)
    assert lab.wrong == []


def grab(page, target, to, steps=6):
    "Drags the middle of a target by (dx, dy) pixels of the screen."
    target.scroll_into_view_if_needed()
    r = target.bounding_box()
    x, y = r["x"] + r["width"] / 2, r["y"] + r["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for i in range(1, steps + 1):
        page.mouse.move(x + to[0] * i / steps, y + to[1] * i / steps)
    page.mouse.up()


def test_boxes_are_dragged_pulled_and_turned(lab):
    box = explorer(lab, "pair")
    canvas = box.locator(".rsssl-boxes").last
    before = still(lab, "pair")
    for i, to in ((0, (-30, -30)), (1, (30, 25))):  # pull one corner of each
        still(lab, "pair")
        grab(lab, canvas.locator(f'[data-box="{i}"][data-corner="{2 * i}"]'), to)
        until(
            lambda: still(lab, "pair")["canvas"]["boxes"][i] != before["canvas"]["boxes"][i],
            f"box {i} was not pulled",
        )
    pulled = still(lab, "pair")
    assert (
        pulled["canvas"]["boxes"][0][0] < before["canvas"]["boxes"][0][0]
        and pulled["canvas"]["boxes"][0][2:] == before["canvas"]["boxes"][0][2:]
    )
    shape = lambda b: [round(b[2] - b[0], 1), round(b[3] - b[1], 1)]
    for i, keys in ((0, ["ArrowRight", "ArrowDown", "t"]), (1, ["ArrowLeft", "Shift+ArrowLeft", "T"])):
        was = still(lab, "pair")["canvas"]
        canvas.locator("g[tabindex]").nth(i).focus()
        for key in keys:
            canvas.locator("g[tabindex]").nth(i).press(key)
        until(lambda: still(lab, "pair")["canvas"]["turns"][i] == 1, f"box {i} was not turned")
        now = still(lab, "pair")["canvas"]
        assert now["boxes"][i] != was["boxes"][i] and (shape(now["boxes"][i]) == shape(was["boxes"][i])) == (
            i == 0
        )
    r = canvas.bounding_box()
    (x0, y0, *_), (left, top, size) = still(lab, "pair")["canvas"]["boxes"][0], (*before["place"], 96)
    at = lambda x, y: (r["x"] + (x - left) / size * r["width"], r["y"] + (y - top) / size * r["height"])
    was = still(lab, "pair")
    lab.mouse.move(*at(x0 + 4, y0 + 14))
    lab.mouse.down()
    lab.mouse.move(*at(x0 + 8, y0 + 22), steps=4)
    lab.mouse.up()
    until(
        lambda: still(lab, "pair")["canvas"]["boxes"][0] != was["canvas"]["boxes"][0], "box a was not dragged"
    )
    now = still(lab, "pair")
    assert (
        shape(now["canvas"]["boxes"][0]) == shape(was["canvas"]["boxes"][0])
        and now["picture"] != was["picture"]
        and now["trouble"] == ""
    )
    shoot(lab, box, "pair-dragged")
    assert lab.wrong == []


def test_a_flat_box_is_named_and_home_mends_it(lab):
    box = explorer(lab, "pair")
    canvas = box.locator(".rsssl-boxes").last
    grab(lab, canvas.locator('[data-box="1"][data-corner="0"]'), (500, 500))
    until(lambda: "box b is empty" in lab.state("pair")["trouble"], "a flat box is not named")
    shoot(lab, box, "pair-flat")
    canvas.locator("g[tabindex]").nth(1).focus()
    canvas.locator("g[tabindex]").nth(1).press("Home")
    until(lambda: lab.state("pair")["trouble"] == "", "Home did not mend it")
    box.locator("img.widget-image").first.wait_for(state="visible")
    assert lab.wrong == []


def test_points_by_click_and_by_keys(lab):
    box = explorer(lab, "matches")
    canvas, before = box.locator(".rsssl-boxes").last, still(lab, "matches")
    frame, r = canvas.locator(".common").bounding_box(), canvas.bounding_box()
    lab.mouse.click(frame["x"] + frame["width"] * 0.3, frame["y"] + frame["height"] * 0.3)
    until(lambda: still(lab, "matches")["canvas"]["points"], "the click did not arrive")
    clicked = still(lab, "matches")
    assert (
        clicked["picture"] != before["picture"]
        and len(clicked["canvas"]["points"]) == 1
        and clicked["trouble"] == ""
    )
    x, y, _ = clicked["canvas"]["points"][0]
    assert (
        abs((x - before["place"][0]) / 96 - (frame["x"] + frame["width"] * 0.3 - r["x"]) / r["width"]) < 0.02
    )
    shoot(lab, box, "matches-clicked")
    box = explorer(lab, "labels")
    cross = box.locator(".rsssl-boxes > svg").last
    for kind, keys in (("field", ["Enter"]), ("roof", ["ArrowRight"] * 12 + ["ArrowDown"] * 9 + ["Enter"])):
        labelled(box, ".widget-dropdown", "click").locator("select").select_option(label=kind)
        until(lambda: f"next: {kind}" in cross.get_attribute("aria-label"), "the class was not chosen")
        cross.focus()
        for key in keys:
            cross.press(key)
        until(
            lambda: (
                [p[2] for p in still(lab, "labels")["canvas"]["points"]][-1:]
                == [["field", "road", "roof"].index(kind)]
            ),
            f"no point of {kind}",
        )
    two = still(lab, "labels")
    assert len({tuple(p[:2]) for p in two["canvas"]["points"]}) == 2 and two["trouble"] == ""
    shoot(lab, box, "labels-clicked")
    cross.focus()
    cross.press("Backspace")
    until(lambda: len(still(lab, "labels")["canvas"]["points"]) == 1, "Backspace took nothing away")
    assert lab.wrong == []


def test_suggest_and_find_alike_by_their_buttons(lab):
    box, name = explorer(lab, "matches"), "matches"
    cross = box.locator(".rsssl-boxes > svg").last
    cross.focus()
    cross.press("Enter")
    until(lambda: still(lab, name)["canvas"]["points"], "Enter set no point")
    was, seen = still(lab, name), image_of(box)
    box.get_by_role("button", name="Find alike in all images").click()
    until(lambda: "places alike in 1 of 1 images" in lab.state(name)["note"], "nothing was searched", 120)
    now = still(lab, name)
    assert now["picture"] != was["picture"] and now["trouble"] == ""
    until(lambda: image_of(box) != seen, "the page does not show what was found")
    box.get_by_text("places alike in 1 of 1 images").wait_for()
    shoot(lab, box, "matches-alike")

    box, name = explorer(lab, "labels"), "labels"
    cross = box.locator(".rsssl-boxes > svg").last
    cross.focus()
    until(
        lambda: cross.press("Backspace") or not still(lab, name)["canvas"]["points"],
        "Backspace does not take all points away",
    )
    keys = ["ArrowLeft", "ArrowUp"] * 28  # to a corner that only one of the four windows holds
    for kind, moves in (("field", keys), ("roof", ["ArrowRight"] * 3)):
        labelled(box, ".widget-dropdown", "click").locator("select").select_option(label=kind)
        until(lambda: f"next: {kind}" in cross.get_attribute("aria-label"), "the class was not chosen")
        cross.focus()
        for key in (*moves, "Enter"):
            cross.press(key)
    until(lambda: len(still(lab, name)["canvas"]["points"]) == 2, "Enter set no points")
    places = [still(lab, name)["place"]]
    for i, (button, ranking) in enumerate(
        (("Suggest: least sure", "entropy"), ("Suggest: least like", "coverage")), 1
    ):
        was, seen = still(lab, name), image_of(box)
        box.get_by_role("button", name=button).click()
        until(lambda: f"window {i} by {ranking}" in lab.state(name)["note"], f"{button} said nothing", 120)
        now = until(
            lambda: (s := still(lab, name))["picture"] != was["picture"] and s, f"{button} drew nothing"
        )
        assert now["place"] not in places and now["trouble"] == ""
        places.append(now["place"])
        until(lambda: image_of(box) != seen, f"{button}: the page shows the old window")
        shoot(lab, box, f"labels-suggested-{ranking}")
    assert lab.wrong == []


def test_the_window_is_moved_on_the_overview(lab):
    box = explorer(lab, "regions")
    overview, was = box.locator(".rsssl-boxes").first, still(lab, "regions")
    group = overview.locator("g[tabindex]").first
    group.focus()
    for _ in range(4):
        group.press("ArrowRight")
    until(lambda: still(lab, "regions")["place"][0] > was["place"][0], "the window did not move")
    now = still(lab, "regions")
    assert (
        now["picture"] != was["picture"]
        and now["place"][1] == was["place"][1]
        and "degrees" in group.get_attribute("aria-label")
    )
    assert lab.wrong == []


def test_bad_source_save_and_restore(lab):
    box, name = explorer(lab, "temperature"), "temperature"
    source = box.locator("input[placeholder]").first
    was = still(lab, name)
    box.get_by_role("button", name="Save").click()
    until(lambda: "saved" in lab.state(name)["note"], "Save did not say so")
    saved = {p.suffix for p in (lab.home / "runs/explore").glob("temperature.*")}
    assert saved == {".png", ".json", ".geojson"}
    source.fill("no/<i>such</i>/folder")
    source.press("Enter")
    until(lambda: "does not exist" in lab.state(name)["trouble"], "a missing folder is not named")
    until(lambda: "no/<i>such</i>/folder" in box.inner_text(), "the explorer does not show it, as text")
    assert box.locator("i").count() == 0  # not as markup
    shoot(lab, box, "bad-source")
    source.fill("")
    source.press("Enter")
    until(lambda: lab.state(name)["trouble"] == "", "the explorer did not recover")
    handle = labelled(box, ".widget-slider", "anchor").locator(".noUi-handle").first
    handle.focus()
    handle.press("Home")
    moved = until(lambda: (s := still(lab, name))["controls"]["anchor"] == 0 and s, "the anchor did not move")
    box.get_by_role("button", name="Restore").click()
    until(lambda: still(lab, name)["picture"] == was["picture"], "Restore did not bring the picture back")
    assert moved["picture"] != was["picture"] and still(lab, name)["controls"] == was["controls"]
    assert [w for w in lab.wrong] == []


def test_cancel(lab):
    box, name, hold = explorer(lab, "saliency"), "saliency", lab.home / "hold"
    menu, button = (
        labelled(box, ".widget-dropdown", "how").locator("select"),
        box.get_by_role("button", name="Cancel"),
    )
    menu.select_option(label="gradcam")
    was = until(
        lambda: (s := still(lab, name))["controls"]["how"] == "gradcam" and s, "Grad-CAM was not chosen"
    )
    hold.touch()  # the attribution now waits until it is cancelled, however fast or slow the machine is
    menu.select_option(label="occlusion")
    box.get_by_text("looking ...").wait_for()
    assert lab.state(name)["controls"]["how"] == "occlusion" and lab.state(name)["picture"] == was["picture"]
    button.click()  # waits until it can be pressed
    until(lambda: lab.state(name)["busy"] == "cancelled", "it was not cancelled")
    end = until(
        lambda: (s := lab.state(name))["controls"]["how"] == "gradcam" and s, "the menu was not put back"
    )
    until(
        lambda: menu.evaluate("m => m.selectedOptions[0].text") == "gradcam" and button.is_disabled(),
        "the page does not follow",
    )
    assert end["trouble"] == "" and end["picture"] == was["picture"]
    hold.unlink()
    menu.select_option(label="saliency")  # and it goes on being of use
    until(
        lambda: (s := still(lab, name))["controls"]["how"] == "saliency" and s["picture"] != was["picture"],
        "the next look was not drawn",
    )
    shoot(lab, box, "saliency-after-cancel")
    assert lab.wrong == []


def test_the_dashboard_in_voila(browser, tmp_path):
    nb = nbformat.read(ROOT / "nbs/explore/dashboard.ipynb", 4)
    nbformat.write(nb, tmp_path / "dashboard.ipynb")
    server = Served(
        tmp_path,
        "voila",
        "dashboard.ipynb",
        "--no-browser",
        "--port={port}",
        "--template=offline",
        "--Voila.ip=127.0.0.1",
    )
    try:
        until(
            lambda: (
                server.process.poll() is None and socket.socket().connect_ex(("127.0.0.1", server.port)) == 0
            ),
            "Voila does not answer",
            60,
        )
        page = watched(browser)
        page.goto(f"http://127.0.0.1:{server.port}/", timeout=120000)
        page.wait_for_selector(".rsssl-temperature img.widget-image", timeout=120000)
        names = page.locator(".lm-TabBar-tabLabel, .p-TabBar-tabLabel").all_text_contents()
        assert names[:7] == NAMES
        for i, name in enumerate(NAMES):
            page.locator(".lm-TabBar-tab, .p-TabBar-tab").nth(i).click()
            box = page.locator(f".rsssl-{name}").first
            box.locator("img.widget-image").first.wait_for(state="visible", timeout=90000)
            before = image_of(box)
            label = SLIDERS[name][0] if name != "saliency" else "opacity"
            handle = labelled(box, ".widget-slider", label).locator(".noUi-handle").first
            handle.focus()
            handle.press("Home")
            if name != "labels":
                until(lambda: image_of(box) != before, f"{name}: the picture did not change")
            page.screenshot(path=SHOTS / f"voila-{name}.png")
        assert page.wrong == []
        page.close()
        for theme, color in (("", "#212121"), ("?theme=light", "white")):  # on a dark system
            page = watched(browser, color_scheme="dark")
            page.goto(f"http://127.0.0.1:{server.port}/{theme}", timeout=120000)
            page.wait_for_selector(".rsssl-temperature img.widget-image", timeout=120000)
            ground = "getComputedStyle(document.body).getPropertyValue('--jp-layout-color1')"
            assert page.evaluate(ground) == color and page.wrong == []
            if not theme:
                page.close()
        log = server.log.read_text()
        assert "Traceback" not in log, log[-3000:]
        gone = page.locator("#server-gone")
        page.wait_for_timeout(6000)
        assert not gone.is_visible()
        server.stop()
        gone.wait_for(state="visible", timeout=30000)
        page.screenshot(path=SHOTS / "voila-server-gone.png")
        page.close()
    finally:
        server.stop()
