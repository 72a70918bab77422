"""The class table of a data set: `classes.json`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from terradelta.classes import ClassTable
from terradelta.errors import ArgumentError, DataError
from terradelta.inputs import read_json
from terradelta.outputs import write_json

CLASSES_FILE = "classes.json"
"""`ClassTable.to_dict`, in a data set's root or in the folders of its splits."""


def write_classes(folder: Path, classes: ClassTable):
    """Write the class table of a data set."""
    write_json(folder / CLASSES_FILE, classes.to_dict())


def read_classes(folders: Iterable[Path]) -> ClassTable | None:
    """Return the class table in any of the folders, or None.

    Raises:
        DataError: If a file holds no class table, or two differ.
    """
    paths = [folder / CLASSES_FILE for folder in folders]
    tables = {path: read_class_file(path) for path in paths if path.is_file()}
    if len(set(tables.values())) > 1:
        raise DataError(
            f"the class tables {', '.join(map(str, tables))} differ",
            fix="make all splits of a data set with one class table",
        )
    return next(iter(tables.values()), None)


def read_class_file(path: Path) -> ClassTable:
    """Read one class table.

    Raises:
        DataError: If the file is missing or holds no class table.
    """
    try:
        return ClassTable.from_dict(read_json(path))
    except (ValueError, ArgumentError) as error:
        raise DataError(
            f"{path} holds no class table: {getattr(error, 'problem', error)}",
            fix='write {"names": [...], "colours": [[r, g, b], ...]}, id 0 first',
        ) from error
