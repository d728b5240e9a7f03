"README's first screen runs, and its numbers are those of the files in results/."

import json
import re
from pathlib import Path

from rsssl_nb.evaluation.evidence import ledger

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
ROWS = {
    "SimCLR": "simclr",
    "GLCNet (encoder only)": "glcnet",
    "FALSE-per-anchor (ours)": "false",
    "GraSS (warm-up ours)": "grass",
    "SSCCL (our reading)": "ssccl",
    "random start, same steps": "random",
    "random start, given the pretraining's minutes too": "random-equal-time",
    "per-pixel boosting": "boosting",
    "majority class": "majority",
}


def test_the_eight_lines_run(capsys):
    exec(re.search(r"```python\n(.+?)```", README, re.S)[1], {})
    assert "(256, 256)" in capsys.readouterr().out


def test_the_table_is_the_file():
    rows = json.loads((ROOT / "results/dubai-val.json").read_text())
    miou = lambda method, subset, seeds: " ".join(
        f"{r['miou']:.3f}"
        for seed in seeds
        for r in rows
        if (r["method"], r["subset"], r["seed"]) == (method, subset, seed)
    )
    for label, method in ROWS.items():
        three = miou(method, "10pct", range(3))
        assert (
            f"| {label} | {miou(method, '01pct', [0])} | {miou(method, '10pct', [0])} | {three if ' ' in three else ''} |".replace(
                "|  |", "| |"
            )
            in README
        ), label


def test_the_ledger_is_the_files():
    assert ledger(ROOT / "results") in README, (
        "run python benchmarks/evidence.py --stage ledger and put it into README"
    )
