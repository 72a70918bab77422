"""Names files and pairs as a report shows them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path

from terradelta.data.layouts import PairFiles


def name_pairs(
    data: Path, parts: Mapping[str, Sequence[PairFiles]]
) -> dict[str, tuple[str, PairFiles]]:
    """Return split and files of each pair by its name in a report.

    The name is its before image; more is added if several pairs have the same.
    """
    named: dict[str, tuple[str, PairFiles]] = {}
    for split, pairs in parts.items():
        for files in pairs:
            first = name_file(data, files.before)
            wordings = [first, f"{first} + {name_file(data, files.after)}"]
            numbered = (f"{first} ({split}, {number})" for number in count(1))
            free = (name for name in chain(wordings, numbered) if name not in named)
            named[next(free)] = split, files
    return named


def name_file(data: Path, path: Path) -> str:
    """Return the path relative to the data set."""
    root = data if data.is_dir() else data.parent
    return Path(os.path.relpath(path, root)).as_posix()
