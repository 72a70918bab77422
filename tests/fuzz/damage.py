"""Damage to bytes, JSON, tables and text, drawn at random.

Every function takes the generator first and returns something damaged; none knows what reads it.
"""

from __future__ import annotations

import copy
import json
import math
import re
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

HOSTILE_INTEGERS = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1)
HOSTILE_REALS = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e-12, 1e12, 1e300, math.inf, -math.inf, math.nan)
HOSTILE_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 255, 10**6, 2**31, 2**63, 10**30, 0.5, 1e308, -1e308),
    *(
        math.nan,
        math.inf,
        -math.inf,
        "",
        " ",
        "x",
        "0",
        "nan",
        "a" * 1000,
        "日本",
        "\ud800",
        "\x00",
    ),
    *("..", "/", "missing.tif", "<script>alert(1)</script>", "2019-13-45", "EPSG:99999"),
    *([], [[]], [None], {}, {"a": 1}, [0] * 100, [[0, 0, 0]], {"": None}),
)
"""What may stand in place of any value of a JSON or YAML file."""


def mutate_bytes(random: Random, content: bytes) -> bytes:
    """Return bytes with one to three places damaged, half of them near the beginning."""
    damaged = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        size = len(damaged)
        if not size:
            return b""
        start = _draw_place(random, size)
        stop = min(size, start + random.choice((1, 2, 4, 8, 16, 64, 512, 4096)))
        match random.randrange(10):
            case 0 | 1:
                damaged[start] ^= 1 << random.randrange(8)
            case 2:
                damaged[start:stop] = random.randbytes(stop - start)
            case 3:
                damaged[start:stop] = bytes(stop - start)
            case 4:
                damaged[start:stop] = b"\xff" * (stop - start)
            case 5:
                del damaged[start:]
            case 6:
                del damaged[start:stop]
            case 7:
                damaged[start:start] = damaged[start:stop]
            case 8:
                order = random.choice("<>")
                number = struct.pack(f"{order}I", random.choice(HOSTILE_INTEGERS))
                damaged[start : start + 4] = number
            case 9:
                order = random.choice("<>")
                damaged[start : start + 8] = struct.pack(f"{order}d", random.choice(HOSTILE_REALS))
    if random.random() < 0.02:
        damaged += random.randbytes(100)
    return bytes(damaged)


def _draw_place(random: Random, size: int) -> int:
    if random.random() < 0.5:
        return random.randrange(size)
    return min(size - 1, int(math.exp(random.uniform(0, math.log(max(2, min(size, 4096)))))) - 1)


def mutate_tags(random: Random, content: bytes) -> bytes:
    """Return a GeoTIFF with tags changed: type, count, value, or the numbers they point to."""
    damaged = bytearray(content)
    try:
        entries, order, is_big = _list_tags(content)
    except (struct.error, IndexError):
        return mutate_bytes(random, content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.choice(entries)
        word, value_at = ("Q", at + 12) if is_big else ("I", at + 8)
        match random.randrange(6):
            case 0:
                struct.pack_into(
                    f"{order}H", damaged, at, random.choice((254, 256, 258, 338, 33550))
                )
            case 1:
                struct.pack_into(f"{order}H", damaged, at + 2, random.randrange(20))
            case 2:
                struct.pack_into(f"{order}{word}", damaged, at + 4, random.choice(HOSTILE_INTEGERS))
            case 3:
                number = random.choice(HOSTILE_INTEGERS)
                struct.pack_into(f"{order}{word}", damaged, value_at, number)
            case 4:
                struct.pack_into(
                    f"{order}H", damaged, value_at, random.choice((0, 1, 2, 4, 8, 65535))
                )
            case 5:
                kind = struct.unpack_from(f"{order}H", content, at + 2)[0]
                (pointed,) = struct.unpack_from(f"{order}{word}", content, value_at)
                _damage_pointed(random, damaged, pointed, kind, order)
    return bytes(damaged)


def _damage_pointed(random: Random, damaged: bytearray, pointed: int, kind: int, order: str):
    if pointed + 64 > len(damaged):
        return
    if kind == 12:
        at = pointed + 8 * random.randrange(6)
        struct.pack_into(f"{order}d", damaged, at, random.choice(HOSTILE_REALS))
    else:
        at = pointed + 2 * random.randrange(16)
        struct.pack_into(f"{order}H", damaged, at, random.choice((0, 1, 2, 3, 4326, 32767, 65535)))


def _list_tags(content: bytes) -> tuple[list[int], str, bool]:
    """Return where the entries of the first directory are, the byte order and if it is BigTIFF."""
    order = "<" if content[:2] == b"II" else ">"
    is_big = struct.unpack_from(f"{order}H", content, 2)[0] == 43
    if is_big:
        (start,) = struct.unpack_from(f"{order}Q", content, 8)
        (count,) = struct.unpack_from(f"{order}Q", content, start)
        entries = [start + 8 + 20 * i for i in range(count)]
    else:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        entries = [start + 2 + 12 * i for i in range(count)]
    return [at for at in entries if at + 20 <= len(content)], order, is_big


def mutate_png(random: Random, content: bytes) -> bytes:
    """Return a PNG whose header or chunks are damaged, their checksums made right again."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        chunks.append([content[at + 4 : at + 8], bytearray(content[at + 8 : at + 8 + size])])
        at += 12 + size
    kind, body = random.choice(chunks[:1] * 2 + chunks)
    match random.randrange(4):
        case 0 if kind == b"IHDR":
            struct.pack_into(">I", body, random.choice((0, 4)), random.choice(HOSTILE_INTEGERS))
        case 1 if kind == b"IHDR":
            body[random.randrange(8, 13)] = random.randrange(18)
        case 2:
            chunks.remove(next(chunk for chunk in chunks if chunk[1] is body))
        case _:
            body[:] = mutate_bytes(random, bytes(body))
    return content[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def mutate_value(random: Random, value: Any) -> Any:
    """Return a nested value with one to three of its parts changed, dropped or added."""
    holder = [copy.deepcopy(value)]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        parent, key = random.choice(list(_list_places(holder)))
        hostile = copy.deepcopy(random.choice(HOSTILE_VALUES))
        here = parent[key]
        match random.randrange(8):
            case 0 if parent is not holder:
                del parent[key]
            case 1 if isinstance(here, dict):
                here[random.choice(("", "x", "0", "é"))] = hostile
            case 2 if isinstance(here, list):
                here.insert(random.randrange(len(here) + 1), hostile)
            case 3 if isinstance(here, int | float) and not isinstance(here, bool):
                parent[key] = random.choice((-here, here * 1e6, here + 1, str(here), float(here)))
            case 4 if isinstance(here, str):
                parent[key] = random.choice(
                    (here.upper(), here[:-1], here * 50, [here], here + "\n")
                )
            case 5 if isinstance(here, list):
                parent[key] = random.choice(
                    (here[:-1], here * 2, here[::-1], dict(enumerate(here)))
                )
            case _:
                parent[key] = hostile
    return holder[0]


def _list_places(value: Any):
    """Yield every part of a nested value as its parent and its key there."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _list_places(value[key])


def mutate_json(random: Random, content: bytes) -> bytes:
    """Return JSON with parts changed, or that is none any more."""
    draw = random.random()
    if draw < 0.75:
        value = mutate_value(random, json.loads(content))
        return json.dumps(value, indent=2, default=str).encode("utf-8", "surrogatepass")
    if draw < 0.85:
        return mutate_text(random, content)
    return mutate_bytes(random, content)


TEXT_DAMAGE = (
    lambda text: b"",
    lambda text: b"\xef\xbb\xbf" + text,
    lambda text: text.decode().encode("utf-16"),
    lambda text: text.decode().encode("latin-1", "replace") + b"\xe9\xff",
    lambda text: text + text,
    lambda text: b"[" * 100_000,
    lambda text: b'{"a":' * 20_000,
    lambda text: b"null",
    lambda text: b"[]",
    lambda text: b"{}",
    lambda text: b"0",
    lambda text: b'"x"',
    lambda text: re.sub(rb"\d+", b"9" * 5000, text, count=1),
    lambda text: text.replace(b"\n", b"\r"),
    lambda text: text.replace(b"\n", b"\x00", 2),
    lambda text: text.replace(b",", b";"),
    lambda text: text.replace(b",", b"\t"),
    lambda text: text.replace(b":", b" "),
    lambda text: text.replace(b'"', b"'"),
    lambda text: text[: len(text) // 2],
    lambda text: b"\x89PNG\r\n\x1a\n" + text,
    lambda text: b"x" * 200_000 + b"\n" + text,
)
"""Ways in which a file of text goes wrong as a whole."""


def mutate_text(random: Random, content: bytes) -> bytes:
    """Return text that is damaged as a whole, or in one line."""
    if random.random() < 0.6:
        return random.choice(TEXT_DAMAGE)(content)
    lines = content.split(b"\n")
    index = random.randrange(len(lines))
    match random.randrange(4):
        case 0:
            del lines[index]
        case 1:
            lines.insert(index, lines[index])
        case 2:
            lines[index] = mutate_bytes(random, lines[index])
        case 3:
            lines[index] = random.choice(
                (b"", b"#", b"../..", b"\xff\xfe", b",,,,,,,,", b'"', b".")
            )
    return b"\n".join(lines)


def mutate_table(random: Random, content: bytes) -> bytes:
    """Return a CSV with cells, columns or lines changed."""
    if random.random() < 0.3:
        return mutate_text(random, content)
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(random.choice((1, 1, 2, 3))):
        row = random.choice(rows)
        column = random.randrange(len(row)) if row else 0
        match random.randrange(5):
            case 0 if row:
                del row[column]
            case 1:
                row.append("x")
            case 2 if row:
                row[column] = random.choice(rows)[0]
            case _ if row:
                hostile = str(random.choice(HOSTILE_VALUES))
                row[column] = random.choice((hostile, f'"{hostile}"', '"', "../../x", " ", "-1"))
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def mutate_database(random: Random, path: Path):
    """Change a GeoPackage: values, columns, tables, geometries, or bytes."""
    if random.random() < 0.35:
        path.write_bytes(mutate_bytes(random, path.read_bytes()))
        return
    with closing(sqlite3.connect(path)) as connection:
        # Triggers ask for functions of GDAL.
        for (name,) in _ask(connection, "SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            _ask(connection, f'DROP TRIGGER "{name}"')
        for _ in range(random.choice((1, 1, 2))):
            _change_database(random, connection)
        connection.commit()


def _ask(connection: sqlite3.Connection, statement: str, values: tuple = ()) -> list[tuple]:
    """Run a statement; what the damage before has made impossible is left undone."""
    try:
        return connection.execute(statement, values).fetchall()
    except (sqlite3.Error, UnicodeEncodeError, OverflowError):
        return []


def _change_database(random: Random, connection: sqlite3.Connection):
    tables = _ask(connection, "SELECT name FROM sqlite_master WHERE type = 'table'")
    names = sorted(name for (name,) in tables if not name.startswith(("sqlite_", "rtree_")))
    table = random.choice(names)
    columns = [row[1] for row in _ask(connection, f'PRAGMA table_info("{table}")')]
    column = random.choice(columns or ["fid"])
    hostile = random.choice([v for v in HOSTILE_VALUES if not isinstance(v, list | dict)])
    where = random.choice(("", " WHERE rowid = 1", " WHERE rowid % 2"))
    match random.randrange(9):
        case 0:
            _ask(connection, f'DROP TABLE "{table}"')
        case 1:
            _ask(connection, f'DELETE FROM "{table}"{where}')
        case 2:
            _ask(connection, f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "other"')
        case 3:
            _ask(connection, f'ALTER TABLE "{table}" DROP COLUMN "{column}"')
        case 4:
            _ask(connection, f'ALTER TABLE "{table}" RENAME TO "other"')
        case 5:
            _damage_shapes(random, connection, where)
        case 6:
            identifier = random.choice((-1, 0, 4326, 3857, 99999, 32632))
            _ask(connection, "UPDATE gpkg_geometry_columns SET srs_id = ?", (identifier,))
            _ask(connection, "UPDATE gpkg_contents SET srs_id = ?", (identifier,))
        case _:
            _ask(connection, f'UPDATE "{table}" SET "{column}" = ?{where}', (hostile,))


def _damage_shapes(random: Random, connection: sqlite3.Connection, where: str):
    for table, column in _ask(
        connection, "SELECT table_name, column_name FROM gpkg_geometry_columns"
    ):
        select = f'SELECT rowid, "{column}" FROM "{table}"{where}'
        for row, shape in _ask(connection, select)[:5]:
            damaged = None
            if isinstance(shape, bytes) and random.random() < 0.8:
                damaged = _damage_shape(random, shape)
            _ask(connection, f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (damaged, row))


def _damage_shape(random: Random, shape: bytes) -> bytes:
    match random.randrange(4):
        case 0:
            return mutate_bytes(random, shape)
        case 1:
            # The header says that it is empty.
            return shape[:3] + bytes([shape[3] | 0x10]) + shape[4:]
        case 2:
            return shape[: random.randrange(len(shape))]
        case _:
            at = len(shape) - 8 * random.randrange(1, 5)
            return shape[:at] + struct.pack("<d", random.choice(HOSTILE_REALS)) + shape[at + 8 :]
