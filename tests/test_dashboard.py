"The dashboard: tabs made when opened, one path for all, networks and classes of one's own, and its server."

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from rsssl_nb.data.scenes import make_scene
from rsssl_nb.data.write import write_raster
from rsssl_nb.errors import InputError
from rsssl_nb.weights import shipped_for
from rsssl_nb.widgets.dashboard import SHIPPED_FIRST, TABS, Dashboard, dashboard
from rsssl_nb.widgets.ground import find_sources
from rsssl_nb.widgets.networks import NetworkMenu, find_runs, open_network

pytest.importorskip("voila")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "Two images of a scene, the labels of both with classes of their own, and a folder of runs."
    home = tmp_path_factory.mktemp("own")
    for kind in ("img", "lab", "runs/empty"):
        (home / kind).mkdir(parents=True)
    for seed in (1, 2):
        scene = make_scene(300, seed=seed)
        write_raster(home / f"img/s{seed}.tif", scene.image[:3], scene.crs, scene.transform, scene.nodata)
        write_raster(home / f"lab/s{seed}.tif", scene.labels, scene.crs, scene.transform, 255)
    kinds = [dict(index=i, name=f"mine {i}", hex=color) for i, color in enumerate(scene.colors)]
    (home / "lab/classes.json").write_text(json.dumps(dict(ignore_index=255, classes=kinds)))
    return home


def open_tab(shown, name):
    shown.tabs.selected_index = TABS.index(name)
    shown.made[name].wait()
    return shown.made[name]


def test_a_tab_is_made_when_it_is_opened_and_follows_the_path(files):
    shown = dashboard(files / "img/s1.tif", ["shipped:grass-20", "random"])
    assert list(shown.made) == ["temperature"] and shown.made["temperature"].view.value
    pair = open_tab(shown, "pair")
    assert list(shown.made) == ["temperature", "pair"] and pair.source.value == str(files / "img/s1.tif")
    shown.path.value = str(files / "img")
    assert list(pair.image.options) == ["s1.tif", "s2.tif"] and not pair.trouble.value
    assert shown.made["temperature"].source.value == str(files / "img/s1.tif")  # until it is opened
    assert list(open_tab(shown, "temperature").image.options) == ["s1.tif", "s2.tif"]
    shown.path.value = "no/such/folder"
    assert "does not exist" in shown.made["temperature"].trouble.value
    shown.path.value = str(files / "img/s2.tif")
    assert not shown.made["temperature"].trouble.value and shown.made["temperature"].view.value
    shown.close()


def test_own_labels_name_the_classes(files):
    shown = Dashboard(files / "img", ["random"], files / "lab")
    tab = open_tab(shown, "labels")
    assert [name for name, _ in tab.controls["click"].options][:2] == ["mine 0", "mine 1"]
    assert tab.ground.names[:2] == ("mine 0", "mine 1")
    regions = open_tab(shown, "regions")
    assert regions.seen["labels"] is not None
    shown.close()


def test_a_shipped_network_is_first_and_fits_three_bands(files):
    menu = NetworkMenu(SHIPPED_FIRST)
    for bands in (3, 4):
        menu.fit(bands)
        names = [name for name, _ in menu.options]
        wanted = [f"shipped:{shipped_for(bands, m)}" for m in ("grass", "simclr", "false", "glcnet")]
        assert names == [wanted[0], "random", *wanted[1:]] and menu.value == wanted[0]
    shown = dashboard(files / "img/s1.tif")  # of three bands
    assert open_tab(shown, "temperature").controls["network"].label == f"shipped:{shipped_for(3)}"
    shown.close()
    alone, mean, std = open_network("shipped:simclr-1000", 3)
    assert mean.shape == (3, 1, 1) and alone.bands == 3 and "encoder alone" in alone.title
    assert open_network("shipped:simclr-1000", 4)[0].bands == 4
    network, mean, std = open_network("shipped:grass-20", 3)
    assert mean is None and std is None and hasattr(network, "project")
    own, mean, _ = open_network("shipped:grass-20", 4)
    assert mean.shape == (4, 1, 1) and own.encoder.bands == 4
    with pytest.raises(ValueError, match="no checkpoint 'nothing'"):
        open_network("shipped:nothing", 4)


def test_runs_are_found_newest_first(files):
    runs = files / "runs"
    assert find_runs(runs) == []
    for age, name in ((100, "old"), (50, "deep/new"), (10, "unfinished")):
        (runs / name).mkdir(parents=True)
        (runs / name / "config.json").write_text("{}")
        os.utime(runs / name / "config.json", (10**9 - age,) * 2)
        if name != "unfinished":
            (runs / name / "encoder.safetensors").touch()
    assert find_runs(runs) == [runs / "deep/new", runs / "old"]
    with pytest.raises(InputError, match="is not a folder"):
        find_runs(runs / "none")


def test_a_list_of_files_is_one_source(files):
    found = find_sources([files / "img/s1.tif", files / "img"])
    assert len(found) == 2
    shown = Dashboard([files / "img/s1.tif", files / "img/s2.tif"], ["random"])
    assert len(shown.made["temperature"].image.options) == 2 and shown.path.value == ""
    shown.close()


def command(*args):
    call = [sys.executable, "-m", "rsssl_nb", "dashboard", *map(str, args), "--no-browser"]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def asked(url, host=None):
    "Status and text of a page."
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.geturl(), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, url, ""


def test_what_cannot_be_shown_is_a_sentence_before_anything_starts(files, tmp_path):
    for args, says in (
        ([tmp_path / "none.tif"], "none.tif"),
        (["--runs", tmp_path / "none"], "is not a folder"),
        (["--labels", files / "img/s1.tif"], "classes"),
    ):
        process = command(*args)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 2 and says in said and "Traceback" not in said, said


def test_the_server_asks_for_its_token_and_answers_to_its_own_names_only(files):
    server = command(files / "img/s1.tif", "--runs", files / "runs")
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+/\?token=\w{48}", server.stdout.readline())[0]
        base, port = url.split("?")[0], url.split(":")[2].split("/")[0]
        for _ in range(100):
            try:
                asked(base)
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        assert asked(url, f"evil.example:{port}")[0] == 403
        assert asked(base, f"evil.example:{port}")[0] == 403
        status, where, text = asked(base)
        assert "/login" in where and "kernelId" not in text
        status, where, text = asked(f"{base}?token=wrong")
        assert "/login" in where and "kernelId" not in text
        assert asked(f"{base}voila/files/rsssl_nb.ipynb")[0] in (403, 404)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    assert np.isin(server.returncode, (0, -signal.SIGINT, 130))
    assert Path(files).exists()


def test_a_page_that_is_loaded_again_goes_on_where_it_was(files, tmp_path):
    keep = tmp_path / "shown.json"
    shown = Dashboard(files / "img/s1.tif", ["random"], keep=keep)
    tab = open_tab(shown, "pair")
    tab.controls["points"].value = 7
    shown.path.value = str(files / "img/s2.tif")
    was = tab.settings()
    again = Dashboard(files / "img/s1.tif", ["random"], keep=keep)
    assert list(again.made) == ["pair"] and again.path.value == str(files / "img/s2.tif")
    assert again.made["pair"].settings() == was and "as it was left" in again.note.value
    keep.write_text("{broken")
    fresh = Dashboard(files / "img/s1.tif", ["random"], keep=keep)
    assert list(fresh.made) == ["temperature"] and fresh.note.value == ""
    for one in (shown, again, fresh):
        one.close()


def test_a_folder_without_a_run_is_said(files, tmp_path):
    shown = dashboard(files / "img/s1.tif", ["random"], runs=tmp_path)
    assert "holds no run yet" in shown.note.value and shown.made["temperature"].view.value
    shown.close()
