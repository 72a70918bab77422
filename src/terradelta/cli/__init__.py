"""The command line: one thin function per verb; heavy modules are imported inside."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import TextIOWrapper

from cyclopts import CycloptsError

from terradelta.cli import area_verbs as areas
from terradelta.cli import dataset_verbs as datasets
from terradelta.cli import learning_verbs as learning
from terradelta.cli import map_verbs as mapping
from terradelta.cli import model_verbs as models
from terradelta.cli import view_verbs as viewing
from terradelta.cli.application import app
from terradelta.errors import ArgumentError, TerradeltaError
from terradelta.redaction import redact
from terradelta.stopwatch import count_process
from terradelta.training.config import TrainConfig

__all__ = ["app", "areas", "datasets", "learning", "main", "mapping", "models", "viewing"]


class _Redacted(logging.Formatter):
    """Log lines without the secrets that addresses carry; GDAL's warnings contain some."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


@contextmanager
def _gdal_warnings_in_bytes() -> Iterator[None]:
    """Log GDAL's warnings that are not UTF-8: rasterio fails on them where nothing can catch it."""
    previous = sys.unraisablehook

    def report(unraisable):
        error = unraisable.exc_value
        if isinstance(error, UnicodeDecodeError):
            text = bytes(error.object).decode(errors="backslashreplace")
            logging.getLogger("rasterio").warning("GDAL: %s", text)
        else:
            previous(unraisable)

    sys.unraisablehook = report
    try:
        yield
    finally:
        sys.unraisablehook = previous


def _load_recipe(arguments: Sequence[str]):
    """Read the options that a `train` line leaves out from the YAML file that it names."""
    from cyclopts.config import Dict

    recipes = [argument for argument in arguments[1:] if learning.is_recipe(argument)]
    # Not that of an earlier call in this process.
    app["train"].config = ()
    if recipes:
        given = TrainConfig.read_yaml(recipes[0]).to_dict()
        given = {key: value for key, value in given.items() if value is not None}
        app["train"].config = (Dict(given, source=recipes[0], use_commands_as_keys=False),)


def main(arguments: Sequence[str] | None = None):
    """Run the command line; the exit code is 2 for errors that the user can fix."""
    # Called by a program, its line is one of many things that the process does.
    clock = count_process() if arguments is None else nullcontext()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        # Names of files may not be valid text.
        sys.stdout.reconfigure(errors="backslashreplace")
    log = logging.StreamHandler()
    log.setFormatter(_Redacted("%(message)s"))
    logging.basicConfig(handlers=[log])
    logging.getLogger("terradelta").setLevel(logging.INFO)
    try:
        if arguments[:1] == ["train"]:
            _load_recipe(arguments)
        with clock, _gdal_warnings_in_bytes():
            app(arguments, exit_on_error=False)
    except TerradeltaError as error:
        print(f"terradelta: {error.to_text()}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        problem = f"{error.filename} is too long for the name of a file"
        refusal = ArgumentError(problem, "give a shorter path")
        print(f"terradelta: {refusal.to_text()}", file=sys.stderr)
        sys.exit(2)
    except CycloptsError:
        # cyclopts has printed the error already.
        sys.exit(2)
