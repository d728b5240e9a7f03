"The tour's table: a row an arm, light and seed, made once; the same lights for every arm."

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import lights  # noqa: E402

from rsssl_nb.data.examples import LAND_COLORS, LAND_COVER  # noqa: E402
from rsssl_nb.data.scenes import Scene  # noqa: E402


@pytest.fixture
def bands():
    "Four scenes of five broad bands of colour, the classes."
    rng, found = np.random.default_rng(0), []
    labels = np.repeat(np.arange(768) // 32 % 5, 768).reshape(768, 768).astype(np.uint8)
    for _ in range(4):
        image = 40 + 40 * labels[None] + rng.integers(-9, 10, (3, 768, 768))
        found.append(Scene(image.astype(np.uint8), labels, "", (1, 0, 0, 0, 1, 0), LAND_COVER, LAND_COLORS))
    return found


def test_rows_are_made_once(bands, tmp_path, monkeypatch, capsys):
    for name, value in dict(OUT=tmp_path / "lights.json", STEPS=2, LIGHTS=(0.0, 0.2), DRAWS=1).items():
        monkeypatch.setattr(lights, name, value)
    monkeypatch.setattr(lights, "example_scenes", lambda yes: bands)
    monkeypatch.setattr(sys, "argv", ["lights.py", "--seeds", "3", "--arms", "boosting", "fresh-strong"])
    lights.main()
    rows = json.loads((tmp_path / "lights.json").read_text())
    assert [(r["arm"], r["light"], r["seed"]) for r in rows] == [
        (arm, light, 3) for arm in ("boosting", "fresh-strong") for light in (0.0, 0.2)
    ]
    assert rows[0]["value"] > 0.95 > rows[1]["value"], "colours tell the classes, in their own light alone"
    assert all(np.isclose(np.mean(list(r["classes"].values())), r["value"], atol=1e-3) for r in rows[:1])
    capsys.readouterr()
    lights.main()
    assert capsys.readouterr().out == ""


def test_the_light_is_the_same_for_all_arms(bands):
    one, again = (lights.days(bands[2], 0, 0.2) for _ in range(2))
    assert len(one) == lights.DRAWS and all(np.array_equal(a, b) for a, b in zip(one, again))
    assert not np.array_equal(one[0], one[1]) and len(lights.days(bands[2], 0, 0.0)) == 1
    assert not np.array_equal(one[0], lights.days(bands[2], 1, 0.2)[0])


def test_the_rows_of_the_repository_are_complete():
    rows = json.loads(lights.OUT.read_text())
    assert {(r["arm"], r["light"], r["seed"]) for r in rows} == {
        (arm, light, seed) for arm in lights.ARMS for light in lights.LIGHTS for seed in range(3)
    }
