"""Data sets that are a CSV file of paths."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from terradelta.data.pairs import UNLISTED, PairFiles, Problems, read_text, report_problem
from terradelta.data.spellings import SPLIT_NAMES
from terradelta.errors import DataError
from terradelta.fields import show

MAX_NAME_BYTES = 200
"""File systems allow 255, and results need an ending."""


def read_csv(path: Path, problems: Problems | None) -> dict[str, list[PairFiles]]:
    """Return the pairs of a CSV by split, in the order of its lines.

    Args:
        path: The file.
        problems: Collects lines that cannot be used, instead of raising.

    Raises:
        DataError: If it is not such a CSV.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        columns = [column.strip().lower() for column in reader.fieldnames or []]
    except csv.Error as error:
        raise _refuse(path, 1, error) from error
    reader.fieldnames = columns
    if not {"before", "after"} <= set(columns):
        raise DataError(
            f"{path}, line 1: the columns are {', '.join(columns) or '(none)'}",
            fix="name the columns before, after, and if available before_label, after_label and"
            " label; split and name are optional",
        )
    parts: dict[str, list[PairFiles]] = {}
    # Without land cover, change masks make a data set of one class.
    are_classes = bool({"before_label", "after_label"} & set(columns))
    for row in _read_rows(path, reader):
        try:
            split, pair = _read_row(path, reader.line_num, row, are_classes)
        except DataError as error:
            report_problem(problems, path, error)
        else:
            parts.setdefault(split, []).append(pair)
    if not parts:
        raise DataError(f"{path} has no lines below its header", fix="add one line for each pair")
    return parts


def _read_rows(path: Path, reader: csv.DictReader) -> Iterator[dict]:
    try:
        yield from reader
    except csv.Error as error:
        raise _refuse(path, reader.line_num, error) from error


def _refuse(path: Path, line: int, error: csv.Error) -> DataError:
    return DataError(
        f"{path}, line {line}: {error}", fix="save it as a CSV file of plain text, quotes closed"
    )


def _read_row(path: Path, line: int, row: dict, are_classes: bool) -> tuple[str, PairFiles]:
    """Return the split and the files of one line; a line may lack labels."""
    where = f"{path}, line {line}"
    if None in row:
        raise DataError(f"{where}: more values than columns", fix="quote values that hold a comma")
    cells = {column: (value or "").strip() for column, value in row.items()}

    def find(column: str) -> Path | None:
        if not cells.get(column):
            return None
        file = path.parent / cells[column]
        if not _is_file(file):
            raise DataError(
                f"{where}: the {column} file {file} does not exist",
                fix=f"paths are relative to the CSV's folder, {path.parent}",
            )
        return file

    def require(column: str) -> Path:
        file = find(column)
        if file is None:
            raise DataError(
                f"{where}: no value for {column}",
                fix="a line needs before and after",
            )
        return file

    before, after = require("before"), require("after")
    before_label, after_label, change = map(find, ("before_label", "after_label", "label"))
    if not are_classes:
        before_label, after_label, change = change, change, None
    split = cells.get("split") or UNLISTED
    if split not in (*SPLIT_NAMES, UNLISTED):
        raise DataError(f"{where}: unknown split {split!r}", fix="use train, val or test")
    name = cells.get("name") or before.stem
    if "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        raise DataError(
            f"{where}: the name {name!r} holds a slash", fix="results are named by it: leave it out"
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise DataError(
            f"{where}: the name {show(name)} has {len(name.encode())} bytes",
            fix=f"results are named by it: use at most {MAX_NAME_BYTES}",
        )
    return split, PairFiles(name, before, after, before_label, after_label, change)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a cell that is too long for a path
        return False
