"What all commands share: the group, its options, who speaks, and how an error is said."

import os
import re
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from rsssl_nb.errors import printable
from rsssl_nb.files import is_first_process

PATH = click.Path(path_type=Path)


device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")


force = click.option("--force", is_flag=True, help="Replace what stands under the name, whoever wrote it.")


class Count(click.ParamType):
    "A whole number, also as people write large ones: 1e6, 1_000."

    name = "integer"

    def __init__(self, low=None, high=None):
        self.low, self.high = low, high

    def convert(self, value, param, ctx):
        number = self.whole(value, param, ctx)
        if self.low is not None and not self.low <= number <= self.high:
            cure = f"use a whole number from {self.low} to {self.high}"
            self.fail(f"{param.name} {number} is out of bounds: {cure}", param, ctx)
        return number

    def whole(self, value, param, ctx):
        "A whole number, as it was written."
        with suppress(ValueError):
            return int(value)
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not number.is_integer():
            self.fail(f"{value!r} is no whole number: give one, as in {param.opts[0]} 1000", param, ctx)
        return int(number)


COUNT = Count()


seed = click.option(
    "--seed",
    type=Count(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Same seed, same machine: same bits.",
)


def assume_nodata(context, _, value):
    "Opens the images of a command with this nodata value until it ends."
    if value is not None:
        from rsssl_nb.data.nodata import assumed_nodata

        context.with_resource(assumed_nodata(value))


nodata = click.option(
    "--nodata",
    type=float,
    metavar="VALUE",
    callback=assume_nodata,
    expose_value=False,
    help="The images' value for no data, whatever they declare, as in -9999.",
)


tagged = click.option(
    "--alpha",
    type=click.Choice(["auto", "mask", "band"]),
    default="auto",
    show_default=True,
    help="A band tagged alpha: a mask, a data band, or decided by its values.",
)


def alpha(command):
    "The options that say how images are read: --alpha and --nodata."
    return tagged(nodata(command))


def say(text, err=False):
    "Prints a text; whatever a file or a name put into it, the terminal takes no order from it."
    click.echo(printable(text), err=err)


def say_written(out):
    "Says what was written, once of several processes."
    if is_first_process():
        say(f"wrote {out}")


def one_line(message):
    "A message without its line breaks and runs of spaces."
    return " ".join(str(message).split())


def warn_in_one_line(message, *_, **__):
    "A Python warning as one line on stderr."
    say(f"Note: {one_line(message)}", err=True)


ALLOW = "allow it (allow_remote=True)"  # as the library says it


def in_this_command(text):
    "A sentence of the library as the running command can follow it: with --allow-remote where it has that."
    context = click.get_current_context(silent=True)
    if context is None:
        return text
    command = main.commands.get(context.invoked_subcommand, context.command)
    has = any(option.name == "allow_remote" for option in command.params)
    return text.replace(f", or {ALLOW}", ", or allow it (--allow-remote)" if has else "")


def sentence(error):
    "An error as one line: what is wrong, where, and what to do."
    text = in_this_command(one_line(error)) or type(error).__name__
    if isinstance(error, UnicodeError):
        text = f"{text}: this shell cannot write such letters, so set PYTHONUTF8=1 or LANG=C.UTF-8"
    if isinstance(error, ImportError) and "MPLBACKEND" in os.environ:
        text = f"{text}: MPLBACKEND is {os.environ['MPLBACKEND']!r} and not installed here, so unset it"
    if isinstance(error, RuntimeError) and re.search("compiler|InvalidCxxCompiler", f"{type(error)} {text}"):
        text = f"{text[:120]}: --compile needs a C++ compiler, so install g++, or leave --compile out"
    if isinstance(error, RuntimeError) and (asked := re.search("can't allocate memory|out of memory", text)):
        text = f"{text[text.find(asked[0]) :][:90]}: use a smaller --width, --batch or --size"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror}: check the path, its permissions and the free space"
    if isinstance(error, KeyError):
        text = f"{text} is missing from the file: it was not written by rsssl-nb"
    return text


SHUT = dict(  # GDAL's ways to a server: no name is allowed to /vsicurl/ and its like, http goes nowhere
    CPL_VSIL_CURL_ALLOWED_FILENAME="none",
    GDAL_HTTP_PROXY="127.0.0.1:1",
    GDAL_HTTP_TIMEOUT="5",
    PROJ_NETWORK="OFF",
)


@contextmanager
def no_network():
    """A block in whose environment GDAL reaches no server, unless `allow_network` is called.

    Gives the variables as they were before.
    """
    before = {name: os.environ.get(name) for name in SHUT}
    os.environ.update(SHUT)
    try:
        yield before
    finally:
        restore(before)


def restore(before):
    "Puts environment variables back: {name: text, or None for a name that was not there}."
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def allow_network(context, _, allowed):
    "Opens GDAL's ways to servers for a command that was given --allow-remote."
    if allowed:
        restore(context.find_root().meta.get("environment", {}))
    return allowed


remote = click.option(
    "--allow-remote",
    is_flag=True,
    callback=allow_network,
    help="Images may be URLs or GDAL's /vsi paths, and may name overviews elsewhere.",
)


class Group(click.Group):
    "A click group that turns a mendable error of any command into one sentence and exit code 2."

    def invoke(self, ctx):
        import warnings

        from rsssl_nb.signals import AGAIN, sigterm_interrupts

        warnings.showwarning = warn_in_one_line
        try:
            with no_network() as ctx.meta["environment"], sigterm_interrupts():
                return super().invoke(ctx)
        except KeyboardInterrupt as stopped:  # Ctrl-C, or a signal that a job has obeyed
            say(str(stopped) or f"stopped by Ctrl-C {AGAIN}", err=True)
            exec("")  # noqa: S102 - forgets an interrupt that passed through exec: under -m Python dies of it
            ctx.exit(128 + getattr(stopped, "number", 2))
        except click.ClickException as error:  # click prints it, with the word that it did not know
            error.message = printable(error.message)
            raise
        except BrokenPipeError:  # who read us has seen enough, as `| head` does
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except (ImportError, RuntimeError) as error:
            if ctx.params.get("traceback") or sentence(error) == (one_line(error) or type(error).__name__):
                raise
            say(f"Error: {sentence(error)}", err=True)
            ctx.exit(2)
        except (ValueError, OSError, KeyError, MemoryError) as error:
            if ctx.params.get("traceback"):
                raise
            say(f"Error: {sentence(error)}", err=True)
            ctx.exit(2)


@click.group(cls=Group, context_settings=dict(help_option_names=["-h", "--help"], max_content_width=110))
@click.option("--traceback", is_flag=True, help="Show the full traceback of an error.")
@click.version_option(package_name="rsssl_nb")
def main(traceback):
    """Self-supervised pretraining, fine-tuning and mapping of remote-sensing images.

    \b
    A whole job in four lines:
      rsssl-nb pretrain tiles/ --out runs/pre
      rsssl-nb finetune runs/pre --images img/ --labels lab/ --out runs/seg
      rsssl-nb map runs/seg scene.tif map.tif
      rsssl-nb score map.tif labels.tif
    """
