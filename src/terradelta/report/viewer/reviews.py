"""What people say of patches, kept in a table of the GeoPackage beside the untouched patches."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from terradelta.errors import OutputError
from terradelta.geo.vector import FIXED_DATE
from terradelta.review_copies import REVIEWS_TABLE

STATUSES = ("unreviewed", "accepted", "rejected", "relabelled")
"""What a patch can be; "unreviewed" with a note is a patch somebody was not sure about."""
TABLE = REVIEWS_TABLE
BUSY_SECONDS = 5.0
"""How long to wait for another program that is writing."""

_CREATE = f"""
CREATE TABLE {TABLE} (
    fid INTEGER PRIMARY KEY NOT NULL,
    status TEXT NOT NULL,
    reviewed_from TEXT,
    reviewed_to TEXT,
    note TEXT NOT NULL,
    reviewed_at DATETIME NOT NULL
)
"""


class Review(NamedTuple):
    """What a person says of a patch."""

    status: str
    """One of `STATUSES`."""
    reviewed_from: str | None
    """Class before; None where rejected or unreviewed."""
    reviewed_to: str | None
    """Class after."""
    note: str
    """What else there is to say."""
    reviewed_at: str
    """When, UTC, ISO 8601."""


class ReviewStore:
    """The table `reviews` of a GeoPackage: a row for each patch that was looked at.

    `fid` is that of the patch in the layer `changes`. Each review is a transaction: what was
    saved survives a killed process. The table is made with the first one, so that looking changes
    nothing.

    Args:
        path: The GeoPackage.
    """

    def __init__(self, path: Path):
        self._path = path

    def read(self) -> dict[int, Review]:
        """Return the reviews by fid.

        Raises:
            OutputError: If the GeoPackage cannot be read.
        """
        with self._connect() as connection:
            if not _exists(connection):
                return {}
            rows = connection.execute(
                f"SELECT fid, status, reviewed_from, reviewed_to, note, reviewed_at FROM {TABLE}"
            )
            return {fid: Review(*fields) for fid, *fields in rows}

    def write(self, fid: int, review: Review):
        """Save a review in place of an earlier one.

        Raises:
            OutputError: If the GeoPackage cannot be written.
        """
        with self._connect() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            if not _exists(connection):
                connection.execute(_CREATE)
                connection.execute(
                    "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, "
                    f"last_change) VALUES ('{TABLE}', 'attributes', '{TABLE}', "
                    "'what people said of the patches', ?)",
                    (FIXED_DATE,),
                )
            connection.execute(
                f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?, ?, ?, ?)", (fid, *review)
            )

    def delete(self, fid: int):
        """Take a review back.

        Raises:
            OutputError: If the GeoPackage cannot be written.
        """
        with self._connect() as connection, connection:
            if _exists(connection):
                connection.execute(f"DELETE FROM {TABLE} WHERE fid = ?", (fid,))

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise OutputError(
                f"reviews cannot be kept in {self._path}: {error}",
                fix="allow writing there, close other programs that are editing it, and save again",
            ) from error


def _exists(connection: sqlite3.Connection) -> bool:
    found = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (TABLE,)
    )
    return found.fetchone() is not None
