"""Damaged copies of files, from fixed seeds: JSON, tables of SQLite files, and any bytes."""

from __future__ import annotations

import copy
import json
import math
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    "text",
    "",
    "\ud800",
    "a\0b",
    True,
    0,
    -1,
    3,
    0.5,
    1e308,
    -1e308,
    10**30,
    10**400,
    math.nan,
    math.inf,
    [],
    [[]],
    {},
    {"a": 1},
    [1, 2],
    ["x"] * 3,
)
CELLS: tuple[Any, ...] = (None, "text", "", -1, 0, 0.5, 1e308, 2**62, b"\xff\x00", math.inf)


def list_places(content: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the keys that lead to each value of JSON content, of lists the first and last."""
    if place:
        yield place
    items: list[tuple[str | int, Any]] = []
    if isinstance(content, dict):
        items = list(content.items())
    elif isinstance(content, list):
        items = [(index, content[index]) for index in sorted({0, len(content) - 1}) if content]
    for key, part in items:
        yield from list_places(part, (*place, key))


def mutate_json(content: Any) -> Iterator[tuple[str, str]]:
    """Yield what was done, and the JSON text, for every place and every kind of damage."""
    for place in list_places(content):
        name = ".".join(map(str, place))
        damaged, inner = _descend(content, place)
        del inner[place[-1]]
        yield f"without {name}", json.dumps(damaged)
        for value in VALUES:
            damaged, inner = _descend(content, place)
            inner[place[-1]] = copy.deepcopy(value)
            yield f"{name} = {str(value)[:20]}", json.dumps(damaged)
    text = json.dumps(content)
    for value in VALUES:
        yield f"all = {str(value)[:20]}", json.dumps(value)
    for share in (0, 0.3, 0.9):
        yield f"cut at {share}", text[: int(share * len(text))]
    yield "deep", "[" * 100_000


def _descend(content: Any, place: tuple[str | int, ...]) -> tuple[Any, Any]:
    damaged = inner = copy.deepcopy(content)
    for key in place[:-1]:
        inner = inner[key]
    return damaged, inner


def mutate_bytes(content: bytes, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield what was done, and bytes that are cut, overwritten or something else."""
    yield "empty", b""
    yield "binary", bytes(range(256)) * 4
    yield "half", content[: len(content) // 2]
    for number in range(count):
        generator = random.Random(seed * 1000 + number)
        damaged = bytearray(content)
        for _ in range(generator.choice((1, 8, 64))):
            place = generator.randrange(len(damaged))
            damaged[place : place + 8] = generator.randbytes(8)
        yield f"bytes {number}", bytes(damaged)


def mutate_tables(path: Path, tables: tuple[str, ...]) -> Iterator[str]:
    """Damage a copy of a SQLite file again and again; yield what was done to it each time.

    Every column of the tables loses its values, its name or itself; tables lose rows or are gone.
    """
    content = path.read_bytes()
    for table in tables:
        with closing(sqlite3.connect(path)) as connection:
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        statements = [
            (f'UPDATE "{table}" SET "{column}" = ?', (cell,))
            for column in columns
            for cell in CELLS
        ]
        statements += [
            (f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = 2', (cell,))
            for column in columns
            for cell in CELLS
        ]
        statements += [(f'ALTER TABLE "{table}" DROP COLUMN "{column}"', ()) for column in columns]
        statements += [(f'DROP TABLE "{table}"', ()), (f'DELETE FROM "{table}"', ())]
        for statement, values in statements:
            path.write_bytes(content)
            try:
                with closing(sqlite3.connect(path)) as connection, connection:
                    _drop_triggers(connection)
                    connection.execute(statement, values)
            except (sqlite3.Error, OverflowError):
                continue  # what SQLite itself refuses no file holds
            yield f"{statement} {values}"
    path.write_bytes(content)


def _drop_triggers(connection: sqlite3.Connection):
    """They call functions that only GDAL has."""
    for (name,) in connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    ).fetchall():
        connection.execute(f'DROP TRIGGER "{name}"')
