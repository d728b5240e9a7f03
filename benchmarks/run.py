"""All benchmarks, one script after another in a process of its own; rows in results/bench-<device>.json, the
newest only.

    python benchmarks/run.py [--device cuda] [--only views grass] [--tiny]

A script that fails, or a row that cannot be measured here, does not stop the others. Exit code 0: every
row measured; 3: some skipped or
pending, each with its reason; 1: a script failed, as when two sides do not compute the same thing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from campaign import campaign
from measure import HEAD, ROOT, line

SCRIPTS = (
    "views false_loss infonce grass glcnet ssccl step options windows maps explorers imports page_times"
).split()
THREADS = {"grass": 2}  # its goal is set on two cores; all others run on one


def device_name(device):
    "The device in a file's name: cpu, or the GPU's own, as nvidia-h100."
    return "cpu" if device == "cpu" else "-".join(torch.cuda.get_device_name().lower().split()[:2])


def run(script, device, tiny):
    "A script's rows, and whether it ended well."
    threads = str(THREADS.get(script, 1))
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        command = [
            sys.executable,
            ROOT / "benchmarks" / f"{script}.py",
            "--device",
            device,
            "--threads",
            threads,
            "--rows",
            rows,
            *(["--tiny"] if tiny else []),
        ]
        done = subprocess.run(
            command,
            env=os.environ | dict(OMP_NUM_THREADS=threads, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 3):
            print(
                f"{script} failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}",
                flush=True,
            )
        return json.loads(rows.read_text()) if rows.exists() else [], done.returncode in (0, 3)


def keep(rows, out, load):
    """Rows so far and the campaign they make, written aside and renamed. `load`: how busy the machine was
    when it began, processes that wanted a core.
    """
    kept = dict(
        device=out.stem.removeprefix("bench-"),
        cores=os.cpu_count(),
        load=round(load, 1),
        rows=rows,
        campaign=campaign(rows),
    )
    out.with_suffix(".part").write_text(json.dumps(kept, indent=1) + "\n")
    os.replace(out.with_suffix(".part"), out)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", default=SCRIPTS, choices=SCRIPTS)
    parser.add_argument(
        "--tiny", action="store_true", help="only prove that the scripts run; nothing is kept"
    )
    args = parser.parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"device {args.device} is not available here: use cpu")
    rows, well, load = [], True, os.getloadavg()[0]
    out = (
        None
        if args.tiny or args.only != SCRIPTS
        else ROOT / "results" / f"bench-{device_name(args.device)}.json"
    )
    if load > 1:
        print(
            f"the machine is busy (load {load:.1f}): ratios will spread, and rows on two threads suffer most"
        )
    print(HEAD, flush=True)
    for script in args.only:
        found, ended = run(script, args.device, args.tiny)
        for r in found:
            print(line(r), flush=True)
        rows, well = rows + found, well and ended
        if out:
            keep(rows, out, load)
    for r in rows:
        print(f"{r['question']}\n    {r['note']}")
    print("A campaign, from the rows above", *campaign(rows), sep="\n    ")
    left = [r for r in rows if r["met"] is None]
    print(
        f"{len(rows) - len(left)} rows measured, {sum(r['met'] is True for r in rows)} goals met, "
        f"{len(left)} skipped or pending; {f'kept in {out.relative_to(ROOT)}' if out else 'not kept'}"
    )
    return 1 if not well else 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
