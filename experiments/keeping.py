"""The rows of a campaign on disk: read, merged by what tells them apart, brought in from another machine."""

import json
import time
from collections import Counter
from contextlib import ExitStack, contextmanager

import numpy as np

from rsssl_nb.errors import InputError
from rsssl_nb.files import write_aside
from rsssl_nb.training.folder import locked

KEY = ("world", "judge", "method", "labels", "seed", "steps", "dial", "dial_value", "arm", "init")


def read_rows(results, files):
    "All rows of these files of a results folder."
    paths = [results / name for name in dict.fromkeys(files)]
    return [row for path in paths if path.exists() for row in json.loads(path.read_text())]


def key_of(row):
    "What tells a row apart."
    return tuple(row.get(k) for k in KEY)


def keep_rows(path, new):
    """Adds rows to a file, one a line, in place of those of the same key; processes wait for its folder.

    OSError when the disk is full: the file is as it was before.
    """
    with waited_for(path.parent):
        old = json.loads(path.read_text()) if path.exists() else []
        rows = {key_of(r): r for r in [*old, *new]}
        lines = ",\n".join(json.dumps(rows[k]) for k in sorted(rows, key=str))
        write_aside(path, lambda p: p.write_text(f"[\n{lines}\n]\n"))


@contextmanager
def waited_for(folder):
    "A lock that is waited for: InputError of another process is not told, all others are."
    while True:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder))
            except InputError as error:
                if "another process" not in str(error):
                    raise
                time.sleep(0.2)
                continue
            yield
            return


def merge(campaign, asked):
    """Brings in rows that are not here from another results folder, as of another machine, and says how many.

    A row that is here stays, though the other folder has it, too. Rows of another protocol, of unknown
    worlds and without a number stay out, and each kind is named.
    """
    for name in campaign.files():
        path = asked.source / name
        if not path.exists():
            print(f"{path} is not there")
            continue
        try:
            found = json.loads(path.read_text())
            rows = [row for row in found if why_left_out(campaign, row) is None]
        except (ValueError, TypeError, AttributeError) as error:
            print(f"left out: {path} holds no rows ({error})")
            continue
        for why, count in Counter(filter(None, (why_left_out(campaign, row) for row in found))).items():
            print(f"left out of {path}: {count} rows {why}")
        ours = [row for row in read_rows(asked.results, [name]) if why_left_out(campaign, row) is None]
        here = {key_of(row) for row in ours}
        new = [row for row in rows if key_of(row) not in here]
        if new:
            keep_rows(asked.results / name, new)
        print(f"{name}: {len(new)} new rows, {len(rows) - len(new)} were here and stay")


def why_left_out(campaign, row):
    "Why a row is none of this campaign's, in words; None where it is one."
    if row.get("world") not in campaign.worlds:
        return f"of the world {row.get('world')!r}, which this campaign does not have"
    if row.get("protocol") != campaign.version(row["world"]):
        return f"of protocol {row.get('protocol')}, not {campaign.version(row['world'])}"
    if not isinstance(row.get("value"), (int, float)) or not np.isfinite(row["value"]):
        return "without a number"
    return None


def done(campaign, kind, arm, seed, rows):
    "Whether the rows of a job are there, under its world's protocol."
    return bool(rows_of_job(campaign, kind, arm, seed, rows))


def rows_of_job(campaign, kind, arm, seed, rows):
    "The rows of a job among rows, under its world's protocol."
    wanted = (arm.world, arm.name, seed, campaign.version(arm.world))
    return [
        r
        for r in rows
        if (r["world"], r["method"], r["seed"], r["protocol"]) == wanted
        and all(r.get(k) == v for k, v in arm.also)
        and (r["judge"] in campaign.late) == (kind != "run")
        and (kind == "run" or r["judge"] == kind)
    ]
