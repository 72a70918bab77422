"""Tables that are read from files, each column checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from terradelta.fields import LARGEST_COUNT, show


@dataclass(frozen=True)
class Numbers:
    """The values allowed in a column of numbers; never NaN or infinity."""

    least: float = 0
    most: float = LARGEST_COUNT
    is_whole: bool = False
    may_be_empty: bool = False
    """Whether cells without a value are allowed."""


TEXTS = "texts"
"""A column of texts, none of them empty."""


class TableError(ValueError):
    """A missing column, or a cell with a value that is not allowed."""


def check_table(table: pandas.DataFrame, columns: Mapping[str, Numbers | str]):
    """Raise if a column is missing or has a value that is not allowed; set its data type.

    Args:
        table: The table as read; its columns become int64 or float64, or stay texts.
        columns: The values that each of them allows.

    Raises:
        TableError: Naming the column, the row and the value.
    """
    for name, kind in columns.items():
        if name not in table.columns:
            raise TableError(f"there is no column {name!r}")
        if isinstance(kind, Numbers):
            table[name] = _check_numbers(table, name, kind)
        else:
            _check_texts(table, name)


def _check_numbers(table: pandas.DataFrame, name: str, kind: Numbers) -> np.ndarray:
    cells = table[name]
    values = np.asarray(pandas.to_numeric(cells, errors="coerce"), dtype=np.float64)
    is_right = (values >= kind.least) & (values <= kind.most)
    if kind.is_whole:
        is_right &= values == np.floor(values)
    if kind.may_be_empty:
        is_right |= np.asarray(cells.isna())
    expected = "a whole number" if kind.is_whole else "a number"
    bounds = f" from {kind.least:g}" + (f" to {kind.most:g}" if math.isfinite(kind.most) else "")
    _require(table, name, is_right, expected + bounds)
    return values.astype(np.int64 if kind.is_whole and not kind.may_be_empty else np.float64)


def _check_texts(table: pandas.DataFrame, name: str):
    is_right = np.array([isinstance(cell, str) and bool(cell) for cell in table[name]], dtype=bool)
    _require(table, name, is_right, "a text")


def _require(table: pandas.DataFrame, name: str, is_right: np.ndarray, expected: str):
    if not is_right.all():
        row = int(np.argmin(is_right))
        cell: Any = table[name].iloc[row]
        raise TableError(
            f"{name} of row {table.index[row]} is {show(cell)}, and it must be {expected}"
        )
