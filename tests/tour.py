"""The tour without a browser: `python tests/tour.py OUT` leaves tour.html, the label map as GeoTIFF and the
figures in OUT.
"""

import base64
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from rsssl_nb.notebook import progress_bar

ROOT = Path(__file__).resolve().parents[1]


def main(out):
    started, out = time.time(), Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    nb = nbformat.read(ROOT / "nbs/course/00_tour.ipynb", 4)
    env = {**os.environ, "RSSSL_OUT": str(out), "MPLBACKEND": "agg"}
    cells = sum(cell.cell_type == "code" for cell in nb.cells)
    with progress_bar(cells, unit="cell", phase="the tour", at_once=True) as bar:
        NotebookClient(
            nb,
            timeout=None,  # on a busy machine a cell that trains takes many minutes
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(out)}},
            on_cell_executed=lambda **_: bar.update(),
        ).execute(env=env)
    (out / "tour.html").write_text(HTMLExporter().from_notebook_node(nb)[0], encoding="utf-8")
    figures = [
        o["data"]["image/png"]
        for c in nb.cells
        if c.cell_type == "code"
        for o in c.outputs
        if "image/png" in o.get("data", {})
    ]
    for i, figure in enumerate(figures):
        (out / f"figure{i:02}.png").write_bytes(base64.b64decode(figure))
    assert (out / "map.tif").exists(), "the tour wrote no map.tif"
    print(
        f"{out / 'tour.html'}, {out / 'map.tif'} and {len(figures)} figures in {time.time() - started:.0f} s"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/tour")
