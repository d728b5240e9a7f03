"All pages together, as the last full test run noted them in runs/pages.json."

import json
import sys

from measure import ROOT, Found, Skip, main, question

LIMIT = 600


@question("all pages, two at a time: 600 s", "<= 1", "cpu")
def pages(at):
    noted = ROOT / "runs" / "pages.json"
    if not noted.exists():
        raise Skip("no full test run is noted in runs/pages.json: make test writes it")
    run = json.loads(noted.read_text())
    table = ", ".join(
        f"{p['page'].split('/')[-1].removesuffix('.ipynb')} {p['seconds']:.0f}"
        for p in sorted(run["pages"], key=lambda p: -p["seconds"])
    )
    return Found(
        run["seconds"],
        LIMIT,
        run["seconds"] / LIMIT,
        note=f"{len(run['pages'])} pages, seconds each: {table}",
    )


if __name__ == "__main__":
    sys.exit(main())
