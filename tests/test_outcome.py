"What a fine-tuning comes to: IoU of each class, a picture, and what of it lies in the run folder."

import json

import numpy as np
from PIL import Image

from rsssl_nb.data.labels import Classes
from rsssl_nb.data.scenes import make_scene
from rsssl_nb.training.finetune import finetune
from rsssl_nb.training.outcome import Outcome
from rsssl_nb.training.validation import window_confusion, window_miou

SMALL = dict(fraction=1.0, steps=2, batch=2, size=64, width=8, device="cpu", progress=False)


def tuned(out, size=128):
    scene = make_scene(size, seed=1)
    classes = Classes(scene.classes, scene.colors)
    model, _ = finetune("random", [scene], [scene.labels], out, classes=classes, **SMALL)
    return model, scene


def test_a_run_folder_holds_the_outcome(tmp_path):
    model, scene = tuned(tmp_path / "seg")
    told = json.loads((tmp_path / "seg/outcome.json").read_text())
    assert set(told["iou"]) == set(scene.classes) and "no test" in told["told"]
    assert np.array(told["confusion"]).sum() == (scene.labels != 255).sum()
    assert Image.open(tmp_path / "seg/outcome.png").width > 300
    assert "mean" in str(model.outcome) and all(name in str(model.outcome) for name in scene.classes)
    before = (tmp_path / "seg/outcome.json").read_bytes()
    scene = make_scene(128, seed=1)
    how = dict(classes=Classes(scene.classes, scene.colors), resume="auto", **SMALL)
    finetune("random", [scene], [scene.labels], tmp_path / "seg", **how)
    assert (tmp_path / "seg/outcome.json").read_bytes() == before


def test_held_out_windows_are_judged_where_there_are_some(tmp_path):
    model, _ = tuned(tmp_path / "seg", 320)
    told = json.loads((tmp_path / "seg/outcome.json").read_text())
    assert "held out and chose the step" in told["told"] and abs(told["miou"] - model.outcome.miou) < 1e-12


def test_no_folder_and_no_notebook_no_outcome():
    model, _ = tuned(None)
    assert not hasattr(model, "outcome")


def test_an_outcome_in_words():
    found = Outcome(["field", "<road>", "soil"], np.array([[50, 10, 0], [5, 35, 0], [0, 0, 0]]), "2 windows")
    lines = str(found).splitlines()
    assert lines[1].split() == ["field", "0.769", "60.0", "%"] and lines[3].split()[1] == "nan"
    assert lines[-1].split()[:2] == ["mean", "0.735"] and "&lt;road&gt;" in found._repr_html_()


def test_the_score_of_windows_is_their_matrix(tmp_path):
    from rsssl_nb.confusion import mean_iou
    from rsssl_nb.training.labelled import open_pairs

    model, scene = tuned(None)
    pairs, _ = open_pairs([scene], [scene.labels], Classes(scene.classes, scene.colors))
    windows = [(0, 0, 0), (0, 64, 64)]
    table = window_confusion(model, pairs, windows, 64)
    assert window_miou(model, pairs, windows, 64) == mean_iou(table.double())
