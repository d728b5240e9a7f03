"""The command line `rsssl-nb`: the pages' own functions, for jobs that outgrow a page.

A failure that a user can mend ends in one sentence on stderr and exit code 2; `--traceback` shows its origin.
"""

# Each module adds its commands.
from rsssl_nb.cli import data, judging, lessons, mapping, training, weights  # noqa: F401
from rsssl_nb.cli.shared import main

__all__ = ["main"]
