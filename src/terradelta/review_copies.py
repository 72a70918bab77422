"""Reviews that people made of a prediction, kept when the prediction is replaced."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from terradelta.errors import OutputError
from terradelta.ownership import name_unfinished

GEOPACKAGE = "changes.gpkg"
"""The patches of a prediction, with their reviews."""
REVIEWS_TABLE = "reviews"
COPY_ENDING = ".reviews-{}.gpkg"
_OWN_TABLES = ("changes", REVIEWS_TABLE, "layer_styles")


def holds_reviews(path: Path) -> bool:
    """Return whether a GeoPackage of patches holds reviews, or layers that people added.

    Raises:
        OutputError: If the file is there and cannot be read.
    """
    if not path.is_file():
        return False
    try:
        with closing(_open(path)) as connection:
            tables = {
                name for (name,) in connection.execute("SELECT table_name FROM gpkg_contents")
            }
            if tables - set(_OWN_TABLES):
                return True
            if REVIEWS_TABLE not in tables:
                return False
            return connection.execute(f"SELECT 1 FROM {REVIEWS_TABLE}").fetchone() is not None
    except sqlite3.Error as error:
        raise OutputError(
            f"{path} cannot be read, so that reviews in it would be lost: {error}",
            fix="move it away, or drop it with --discard-reviews",
        ) from error


def keep_reviews(folder: Path) -> Path | None:
    """Copy the patches and reviews of a prediction to a new file beside its folder.

    Returns:
        The copy, `FOLDER.reviews-N.gpkg`; None without reviews.

    Raises:
        OutputError: If they cannot be read or copied.
    """
    source = folder / GEOPACKAGE
    if not holds_reviews(source):
        return None
    staged = name_unfinished(folder.parent, ".gpkg")
    try:
        # Through SQLite, which also reads what another program has not yet written to the file
        # itself.
        with closing(_open(source)) as old, closing(sqlite3.connect(staged)) as new:
            old.backup(new)
        number = 1
        while True:
            path = folder.with_name(folder.name + COPY_ENDING.format(number))
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                number += 1
                continue
            return staged.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise OutputError(
            f"the reviews in {source} cannot be kept: {error}",
            fix="make room or allow writing beside the folder, or drop them with --discard-reviews",
        ) from error
    finally:
        staged.unlink(missing_ok=True)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
