"""What an import costs: the package against 50 ms, a method's module against torch alone, each in a fresh
interpreter.
"""

import subprocess
import sys

from measure import ROOT, Found, main, question, statistics

METHODS = "simclr glcnet false grass ssccl".split()


def seconds(*names):
    "Seconds of imports one after another in a fresh interpreter."
    code = (
        "from time import perf_counter as t\nfrom importlib import import_module\n"
        f"for name in {names!r}: s = t(); import_module(name); print(t() - s)"
    )
    return [
        float(v)
        for v in subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
    ]


@question("import rsssl_nb: 50 ms", "<= 1", "cpu")
def package(at):
    took = [seconds("rsssl_nb")[0] for _ in range(at.pick(9, 1))]
    return Found(
        statistics.median(took), 0.05, statistics.median(took) / 0.05, (min(took) / 0.05, max(took) / 0.05)
    )


def method(name):
    def ask(at):
        seconds("torch", f"rsssl_nb.methods.{name}")  # the files are read once
        pairs = [
            (alone + more, alone)
            for alone, more in (seconds("torch", f"rsssl_nb.methods.{name}") for _ in range(at.pick(4, 1)))
        ]
        ratios = [a / b for a, b in pairs]
        return Found(
            *map(statistics.median, zip(*pairs)),
            statistics.median(ratios),
            (min(ratios), max(ratios)),
            "torch, then the module, in one interpreter",
        )

    return ask


for name in METHODS:
    question(f"import rsssl_nb.methods.{name}: import torch", "<= 1.1", "cpu")(method(name))


if __name__ == "__main__":
    sys.exit(main())
