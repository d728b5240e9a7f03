"The commands `lessons`, `copy`, `lab`, `dashboard`, `grade` and `doctor`."

import sys

import click

from rsssl_nb.cli.shared import PATH, main, say
from rsssl_nb.errors import printable


@main.command()
def lessons():
    "List the pages of the course: file, minutes to read, seconds to run on two cores, title."
    from rsssl_nb.lessons import describe, pages, root

    for path in pages():
        minutes, seconds, title, _ = describe(path)
        say(f"{path.relative_to(root()).as_posix():36} {minutes:3} min {seconds:3} s  {title}")


@main.command()
@click.argument("dest", type=PATH, default="lessons")
@click.option("--force", is_flag=True, help="Also overwrite notebooks you have changed.")
def copy(dest, force):
    """Copy the lessons into the folder DEST. A notebook you have changed stays, and ours goes beside it as
    NAME.new.ipynb.
    """
    from rsssl_nb.lessons import copy

    written = copy(dest, force)
    for path in written:
        if ".new" in path.suffixes:
            say(f"kept yours, ours is {path}")
    say(f"{len(written)} files copied to {dest}" if written else f"nothing to copy: {dest} has all lessons")


@main.command()
@click.argument("dest", type=PATH, default="lessons")
@click.option("--port", type=int, help="Where to listen. [default: the first free one from 8888]")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
def lab(dest, port, no_browser):
    """Copy the lessons that DEST lacks and open JupyterLab on the tour; for this machine only, with a token.
    Stop it with Ctrl-C.
    """
    from rsssl_nb.lessons import lab

    options = ["--no-browser"] if no_browser else []
    if port is not None:
        options.append(f"--ServerApp.port={port}")
    lab(dest, *options)


@main.command()
@click.argument("files", nargs=-1, type=PATH, metavar="[FILES]...")
@click.option("--runs", type=PATH, metavar="DIR", help="Folder of runs, whose networks stand in the menus.")
@click.option("--labels", type=PATH, metavar="DIR", help="Labels of the images, a file or a folder.")
@click.option("--port", type=int, help="Where to listen. [default: the first free one from 8866]")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
def dashboard(files, runs, labels, port, no_browser):
    """Open the explorers in a browser, on FILES (images or folders; none: the embedded scene); for this
    machine only, with a token. Stop it with Ctrl-C.
    """
    from rsssl_nb.data.joined import list_images
    from rsssl_nb.data.legend import classes_of
    from rsssl_nb.data.raster import open_raster
    from rsssl_nb.lessons import check_kernel, root
    from rsssl_nb.widgets.serving import serve_dashboard

    for image in list_images([path.expanduser() for path in files])[:8]:
        open_raster(image)
    if runs and not runs.expanduser().is_dir():
        raise ValueError(f"{runs} is not a folder: give one that holds run folders, as in --runs runs/")
    if labels:
        classes_of(labels.expanduser())
    check_kernel()
    serve_dashboard(files, runs, labels, root() / "explore", port, not no_browser, say)


@main.command()
@click.argument("folder", type=PATH, metavar="DIR")
def grade(folder):
    """Mark the exercises in the notebooks under DIR: a CSV of file, page, exercise, verdict and sentence on
    stdout. It runs their code: use an account without anything to lose.
    """
    import csv

    from rsssl_nb.lessons import grade

    columns = ["file", "page", "exercise", "verdict", "sentence"]
    table = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    table.writeheader()
    for row in grade(folder):
        table.writerow({name: printable(value) for name, value in row.items()})


@main.command()
def doctor():
    "Check the installation: each fault with its cure, as it is found. Exit code 2 when there is one."
    from rsssl_nb.doctor import examine

    def tell(what):
        "Names the check that runs, on a terminal, until its finding takes the line."
        if sys.stderr.isatty():
            click.echo(f"\r\033[Klooking at: {what} ...", nl=False, err=True)

    faults = 0
    for finding in examine(tell):
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)
        say(finding)
        sys.stdout.flush()
        faults += finding.state == "FAULT"
    if faults:
        raise SystemExit(2)
