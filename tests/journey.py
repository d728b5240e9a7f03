"""The dashboard as a newcomer meets it: `python tests/journey.py --out DIR` (make journey).

Serves `rsssl-nb dashboard` on three rasters made from RSSSL_DATA (two of 3 bands, one uint16 of 4), opens
every tab in headless Chromium at 900, 1280 and 1920 pixels, light and dark, makes a gesture in each and
asserts that the pixels of the result changed. Prints the seconds from the command to the first picture and
of each tab. Screenshots land in DIR. `--list` names the cells of this grid, `--only valley-1920-dark` (as
often as wished) runs some of them, `--quick` sees each raster at one width only. With RSSSL_INSTALLED
set it serves the package that is installed beside the Python it is run by, a wheel say, not this checkout.
"""

import argparse
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from test_browser import CHROMIUM, FLAGS, PACKAGE, grab, labelled, until, watched

ROOT = Path(__file__).resolve().parents[1]
TABS = ("temperature", "pair", "regions", "negatives", "matches", "saliency", "labels")
RASTERS = ("town", "island", "valley")
SIZES = {900: 800, 1280: 800, 1920: 1080}
LOOKS = [(width, theme) for width in SIZES for theme in ("light", "dark")]
FIRST_TAB = 15.0  # seconds from the command to the first picture, on a machine that does nothing else


# --- rasters that no other test opens


def make_rasters(data, out):
    "Two rasters of 3 bands and one of 4 in uint16, {name: path}."
    import rasterio
    from PIL import Image

    from rsssl_nb.data.write import write_raster

    made = {name: out / f"{name}.tif" for name in RASTERS}
    parts = sorted((data / "dubai/train/images").glob("*.jpg"))
    town = np.concatenate([np.asarray(Image.open(part).convert("RGB"))[:500, :700] for part in parts[:2]], 1)
    write_raster(
        made["town"], town.transpose(2, 0, 1).copy(), "EPSG:32640", (0.5, 0, 325000, 0, -0.5, 2780000)
    )
    with rasterio.open(data / "geotiff/rgb/RGB.byte.tif") as file:
        island, transform = file.read()[:, :, ::-1].copy(), tuple(file.transform)[:6]
        write_raster(made["island"], island, "EPSG:32618", transform, 0)
    bands = []
    for band in (4, 3, 2, 5):
        with rasterio.open(data / f"geotiff/landsat8_elkton/L8-B{band}-Elkton-VA.tiff") as file:
            bands.append(file.read(1)[:700, :900])
            about = str(file.crs), tuple(file.transform)[:6]
    write_raster(made["valley"], np.stack(bands).astype(np.uint16), *about, 0)
    return made


# --- the server


class Served:
    "`rsssl-nb dashboard FILE`, and its address."

    def __init__(self, file, home):
        self.started = time.time()
        env = os.environ | dict(
            HOME=str(home), IPYTHONDIR=str(home / "ipython"), OMP_NUM_THREADS="1", **PACKAGE
        )
        env |= {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        self.log = open(home / "log", "w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rsssl_nb", "dashboard", str(file), "--no-browser"],
            cwd=home,
            env=env,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            start_new_session=True,
        )
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\w+", line)
        assert found, f"no address: {line}"
        self.url = found[0]

    def stop(self):
        "Stops it, and gives what it wrote to its log."
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.seek(0)
        return self.log.read()


# --- what is seen


def result(page, name):
    return page.locator(f".rsssl-{name} > img.widget-image").first


def pixels(element):
    "The pixels of an element on the screen."
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def settled(page, name):
    "The result's pixels once the explorer is not busy and nothing moves."
    box = page.locator(f".rsssl-{name}").first
    before = None
    end = time.time() + 90
    while time.time() < end:
        if box.get_by_text("looking ...").count() == 0 and result(page, name).is_visible():
            now = pixels(result(page, name))
            if before is not None and now.shape == before.shape and (now == before).all():
                return now
            before = now
        time.sleep(0.2)
    raise AssertionError(f"{name} does not come to rest: {box.inner_text()[-400:]}")


def changed(page, name, gesture, what):
    "Makes a gesture, and asserts that the result's pixels changed."
    before = settled(page, name)
    gesture()

    def other():
        now = settled(page, name)
        return now.shape != before.shape or bool((now != before).any())

    until(other, f"{name}: {what} changed no pixel", 60)


def slide(page, name, label):
    "Moves a slider to one end, then asserts that the other end shows something else."
    handle = (
        labelled(page.locator(f".rsssl-{name}").first, ".widget-slider", label).locator(".noUi-handle").first
    )
    handle.focus()
    handle.press("Home")
    changed(page, name, lambda: handle.press("End"), f"the slider {label}")


def canvas_of(page, name):
    return page.locator(f".rsssl-{name} .rsssl-boxes").last


def click_at(page, target, across, down):
    target.scroll_into_view_if_needed()
    r = target.bounding_box()
    page.mouse.click(r["x"] + across * r["width"], r["y"] + down * r["height"])


def gesture(page, name, turn):
    "The gestures of a tab; `turn` counts visits, so that none repeats the one before."
    box = page.locator(f".rsssl-{name}").first
    if name == "temperature":
        slide(page, name, "tau")
        slide(page, name, "anchor")
    elif name == "pair":
        grip = canvas_of(page, name).locator('[data-box="0"][data-corner="2"]')
        changed(page, name, lambda: grab(page, grip, (-18 if turn % 2 else 18, 12)), "a pulled corner")
        changed(page, name, lambda: box.get_by_role("button", name="Turn a").click(), "the button Turn a")
    elif name == "regions":
        window = page.locator(f".rsssl-{name} .rsssl-boxes").first.locator("[data-box]").first
        changed(page, name, lambda: grab(page, window, (-25 if turn % 2 else 25, 9)), "the dragged window")
        slide(page, name, "threshold")
    elif name == "negatives":
        at = 0.2 + 0.07 * (turn % 8)
        changed(page, name, lambda: click_at(page, canvas_of(page, name), 0.7, at), "a click into the table")
    elif name == "matches":
        at = 0.35 + 0.04 * (turn % 8)
        frame = canvas_of(page, name).locator(".common")
        changed(page, name, lambda: click_at(page, frame, at, 0.5), "a click on a place")
    elif name == "saliency":
        slide(page, name, "opacity")
    elif name == "labels":
        menu = labelled(box, ".widget-dropdown", "click").locator("select")
        for number in (0, 1):
            menu.select_option(index=number)
            time.sleep(0.5)
            at = (0.15 + 0.09 * (turn % 8), 0.25 + 0.5 * number)
            changed(page, name, lambda at=at: click_at(page, canvas_of(page, name), *at), "a clicked point")


def visit(page, raster, width, theme, turn, out, tell):
    "Opens every tab, gestures in it, and keeps a picture of each."
    for i, name in enumerate(TABS):
        started = time.time()
        page.locator(".lm-TabBar-tab, .p-TabBar-tab").nth(i).click()
        result(page, name).wait_for(state="visible", timeout=90000)
        took = time.time() - started
        gesture(page, name, turn)
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=out / f"{raster}-{width}-{theme}-{i}-{name}.png")
        r = result(page, name).bounding_box()
        bottom = r["y"] + r["height"]
        tell(f"{raster:7} {width:5} {theme:5} {name:11} after {took:4.1f} s, ends at {bottom:5.0f}")
        assert page.locator('[title="null"]:visible').count() == 0, f"{name}: a tooltip says null"
        beyond = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert beyond <= 0, f"{name}: the page is {beyond} pixels wider than the window"
        if width == 1280:
            assert r["y"] < 700, f"{name}: the result begins at {r['y']:.0f} of 800 pixels"


def come_back(page, name, tell):
    "Loads the page again, and asserts that tab and picture are as they were."
    before = settled(page, name)
    page.reload(timeout=120000)
    result(page, name).wait_for(state="visible", timeout=120000)
    now = settled(page, name)
    assert now.shape == before.shape and np.abs(now - before).mean() < 1, (
        "a page loaded again shows something else"
    )
    assert page.get_by_text("as it was left").count(), "the page does not say that it goes on"
    tell(f"loaded again: {name} as it was left")


def grid(only=(), quick=False):
    "The looks of each raster that are to be seen, {raster: [(width, theme)]}; all of them, or `only` some."
    looks = {
        name: LOOKS[2 * number : 2 * number + 2] if quick else LOOKS for number, name in enumerate(RASTERS)
    }
    names = {f"{name}-{width}-{theme}": (name, (width, theme)) for name in RASTERS for width, theme in LOOKS}
    if unknown := set(only) - set(names):
        sys.exit(f"{sorted(unknown)[0]} is no cell of the journey: --list names them")
    chosen = [names[one] for one in only]
    return {name: [look for of, look in chosen if of == name] for name in RASTERS} if only else looks


def journey(data, out, looks, tell=print):
    "Sees each raster in its `looks`, as of `grid`."
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="journey-"))
    rasters = make_rasters(data, home)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for raster, file in rasters.items():
            if not looks[raster]:
                continue
            server = Served(file, home)
            try:
                for turn, (width, theme) in enumerate(looks[raster]):
                    page = watched(browser)
                    page.set_viewport_size(dict(width=width, height=SIZES[width]))
                    started = time.time()
                    page.goto(f"{server.url}&theme={theme}", timeout=120000)
                    page.wait_for_selector(".rsssl-dashboard img.widget-image[src]:visible", timeout=120000)
                    took = time.time() - (started if turn else server.started)
                    said = "from another page load" if turn else "from the command"
                    tell(f"{raster:7} {width:5} {theme:5} first picture {took:.1f} s {said}")
                    visit(page, raster, width, theme, turn, out, tell)
                    if not turn:
                        come_back(page, TABS[-1], tell)
                    assert page.wrong == [], page.wrong
                    page.close()
            finally:
                log = server.stop()
            assert "Traceback" not in log, log[-3000:]
        browser.close()
    shutil.rmtree(home)


def main():
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    about.add_argument("--out", type=Path, default=ROOT / "runs/journey", help="folder of the screenshots")
    about.add_argument(
        "--data", type=Path, default=os.environ.get("RSSSL_DATA"), help="[default: RSSSL_DATA]"
    )
    about.add_argument("--quick", action="store_true", help="each raster at one width only")
    about.add_argument("--only", action="append", default=[], metavar="CELL", help="run this cell only")
    about.add_argument("--list", action="store_true", help="name the cells and run nothing")
    args = about.parse_args()
    looks = grid(args.only, args.quick)
    if args.list:
        print("\n".join(f"{name}-{width}-{theme}" for name in RASTERS for width, theme in looks[name]))
        return
    if CHROMIUM is None or args.data is None:
        sys.exit("the journey needs Chromium (apt-get install chromium) and RSSSL_DATA or --data")
    started = time.time()
    journey(args.data, args.out, looks)
    print(f"the whole journey in {time.time() - started:.0f} s; screenshots in {args.out}")


if __name__ == "__main__":
    main()
