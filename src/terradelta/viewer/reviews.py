"""Reviews of patches, stored in a table of the GeoPackage beside the unchanged patches."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from terradelta.classes import ClassTable
from terradelta.errors import DataError, OutputError
from terradelta.fields import show
from terradelta.geo.vector import FIXED_DATE
from terradelta.review_copies import REVIEWS_TABLE

STATUSES = ("unreviewed", "accepted", "rejected", "relabelled")
"""States of a patch; "unreviewed" with a note is a patch that somebody was unsure about."""
TABLE = REVIEWS_TABLE
BUSY_SECONDS = 5.0
"""Time to wait for another program that is writing."""

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
    """A person's review of a patch."""

    status: str
    """One of `STATUSES`."""
    reviewed_from: str | None
    """Class before; None if rejected or unreviewed."""
    reviewed_to: str | None
    """Class after."""
    note: str
    """Comment."""
    reviewed_at: str
    """When, UTC, ISO 8601."""


class ReviewStore:
    """The table `reviews` of a GeoPackage: a row for each reviewed patch.

    `fid` is that of the patch in the layer `changes`. Each review is a transaction: a saved
    review survives a killed process. The table is made with the first one, so that viewing changes
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
            DataError: If a review holds values other than texts, or an unknown state.
        """
        with self._connect() as connection:
            if not _exists(connection):
                return {}
            rows = connection.execute(
                f"SELECT fid, status, reviewed_from, reviewed_to, note, reviewed_at FROM {TABLE}"
            )
            return {fid: _check(self._path, fid, Review(*fields)) for fid, *fields in rows}

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
                    "'reviews of the patches', ?)",
                    (FIXED_DATE,),
                )
            connection.execute(
                f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?, ?, ?, ?)", (fid, *review)
            )

    def delete(self, fid: int):
        """Remove a review.

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
        # Damaged names are not valid text even in sqlite3's errors.
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise OutputError(
                f"reviews cannot be stored in {self._path}: {error}",
                fix="allow writing there, close other programs that are editing it, and save again",
            ) from error


def require_labels(path: Path, fid: int, review: Review, classes: ClassTable):
    """Raise if a relabelled patch has no classes of the map.

    Raises:
        DataError: Naming file, patch and classes.
    """
    if not {review.reviewed_from, review.reviewed_to} <= set(classes.names):
        raise _refuse(path, fid, review, f"the classes {', '.join(classes.names[1:])}")


def _check(path: Path, fid: int, review: Review) -> Review:
    texts = review.status, review.note, review.reviewed_at
    labels = review.reviewed_from, review.reviewed_to
    if not all(isinstance(text, str) for text in texts) or not all(
        label is None or isinstance(label, str) for label in labels
    ):
        raise _refuse(path, fid, review, "texts")
    if review.status not in STATUSES:
        raise _refuse(path, fid, review, ", ".join(STATUSES))
    return review


def _refuse(path: Path, fid: int, review: Review, known: str) -> DataError:
    return DataError(
        f"{path}: the review of patch {fid} says {show(review.status)}, "
        f"{show(review.reviewed_from)} → {show(review.reviewed_to)}; known are {known}",
        fix=f"correct that row of its table `{TABLE}`",
    )


def _exists(connection: sqlite3.Connection) -> bool:
    found = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (TABLE,)
    )
    return found.fetchone() is not None
