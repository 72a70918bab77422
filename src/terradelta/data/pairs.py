"""The files of a labelled pair and of a data set of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from terradelta import inputs
from terradelta.classes import ClassTable
from terradelta.errors import DataError

Split = Literal["all", "train", "val", "test"]
Problems = list[tuple[Path, DataError]]
"""Faulty files, and the error of each."""

MAX_LIST_BYTES = 2**29
"""Largest list or CSV of pairs: some millions of lines."""
UNLISTED = "unlisted"
"""The pairs without a split."""


@dataclass(frozen=True)
class PairFiles:
    """The files of one pair."""

    name: str
    """Name of the pair's results; unique in its data set."""
    before: Path
    after: Path
    before_label: Path | None
    """Mask of the before date, or None."""
    after_label: Path | None
    change_label: Path | None = None
    """Change mask beside the masks of the dates, or alone in a data set with land-cover classes."""

    @property
    def is_change_mask(self) -> bool:
        """Whether the label is one change mask for both dates, not a land-cover mask for each."""
        return self.before_label is not None and self.before_label == self.after_label

    @property
    def files(self) -> tuple[Path, ...]:
        """Images and labels."""
        labels = (self.before_label, self.after_label, self.change_label)
        return (self.before, self.after, *(label for label in labels if label is not None))

    @property
    def is_labelled(self) -> bool:
        """Whether there is any label at all."""
        return any((self.before_label, self.after_label, self.change_label))

    @property
    def is_partly_labelled(self) -> bool:
        """Whether the labels lack the classes of the change: they can be used only to train."""
        return self.is_labelled and None in (self.before_label, self.after_label)


@dataclass(frozen=True)
class PairFolder:
    """The pairs of a data set or of one of its splits, and their classes."""

    root: Path
    layout: str
    """`senseearth` (land-cover masks, or no labels), `binary` (change masks) or `csv`."""
    pairs: tuple[PairFiles, ...]
    classes: ClassTable


def report_problem(problems: Problems | None, path: Path, error: DataError):
    """Keep an error if problems are collected, raise it otherwise."""
    if problems is None:
        raise error
    problems.append((path, error))


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        DataError: If it cannot be read, is too large or has another encoding.
    """
    try:
        return inputs.read_text(path, MAX_LIST_BYTES)
    except inputs.ContentError as error:
        raise DataError(f"{path} cannot be read: {error}", fix="save it as UTF-8 text") from error
