"""Errors a user can act on: each says what is wrong, with both values, and what fixes it."""

from __future__ import annotations

import re

from terradelta.redaction import redact


class TerradeltaError(Exception):
    """Base of every error that the input causes, not the program; the CLI exits with 2.

    Secrets in addresses are removed. Its text also names the Python arguments of the flags
    that it mentions.

    Args:
        problem: What is wrong, naming the file and both values that disagree.
        fix: What the reader can do about it.
    """

    def __init__(self, problem: str, fix: str):
        problem, fix = redact(problem), redact(fix)
        # Both in args, so that the error survives pickling between processes.
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        text = self.to_text()
        flags = dict.fromkeys(re.findall(r"(?<![\w-])--([a-z][a-z-]*[a-z])", text))
        if not flags:
            return text
        return f"{text}\n  in Python: {', '.join(map(_name_argument, flags))}"

    def to_text(self) -> str:
        """Return the problem and its fix as the command line prints them."""
        return f"{self.problem}\n  fix: {self.fix}"


def _name_argument(flag: str) -> str:
    return f"{_RENAMED.get(flag, flag.replace('-', '_'))} for --{flag}"


_RENAMED = {"from": "start_from", "json": "as_json", "price-per-hour": "prices"}
"""Arguments that are not called like their flags."""


class ArgumentError(TerradeltaError):
    """An argument or option that cannot be used as given."""


class DataError(TerradeltaError):
    """A data set, image or label file that cannot be used as it is."""


class RasterError(TerradeltaError):
    """A georeferenced raster, or a pair of them, that cannot be used as it is."""


class ModelError(TerradeltaError):
    """A model folder, weight file or architecture that cannot be used as it is."""


class OutputExistsError(TerradeltaError):
    """An output that exists already and would be lost."""


class OutputError(TerradeltaError):
    """An output that cannot be written."""


class ClusterError(TerradeltaError):
    """Machines of a cluster that are missing or cannot do the work."""


class CautionError(TerradeltaError):
    """A map that would carry a caution, while `strict` is on."""
