"""Reads whole files of limited size; checks JSON and YAML against the expected content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from terradelta.errors import TerradeltaError
from terradelta.fields import FieldError, read_fields

MAX_BYTES = 64 * 2**20
"""Largest file that this package writes."""
MAX_DEPTH = 64
"""Largest nesting of objects and lists."""

Record = TypeVar("Record")


class ContentError(ValueError):
    """A file with unexpected content."""


def read_text(path: str | Path, most_bytes: int = MAX_BYTES) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark.

    Raises:
        ContentError: If it cannot be read, is too large, or is not such text.
    """
    try:
        # The size of a pipe or a device is unknown.
        with Path(path).open("rb") as file:
            content = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        raise ContentError(str(error)) from error
    if len(content) > most_bytes:
        raise ContentError(f"it holds more than {most_bytes:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ContentError(f"it is not UTF-8 text: {error}") from error


def parse_json(text: str | bytes, *, strict: bool = False) -> Any:
    """Return the content of JSON.

    Args:
        text: The JSON.
        strict: Whether to refuse what RFC 8259 forbids or leaves open: NaN, infinity, and
            objects that name a key twice.

    Raises:
        ContentError: If it is not JSON, is too deep, or holds half a surrogate pair.
    """
    options: dict[str, Any] = {}
    if strict:
        options = {"parse_constant": _refuse_constant, "object_pairs_hook": _refuse_twins}
    try:
        content = json.loads(text, **options)
    except (ValueError, RecursionError) as error:
        raise ContentError(f"it is not JSON: {error}") from error
    _require_plain(content)
    return content


def read_json(path: str | Path, most_bytes: int = MAX_BYTES) -> Any:
    """Return the content of a JSON file.

    Raises:
        ContentError: If it cannot be read, is too large or is not JSON.
    """
    return parse_json(read_text(path, most_bytes))


def read_object(path: str | Path, error: type[TerradeltaError], fix: str) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        path: The file.
        error: Type of the error to raise.
        fix: What the reader can do about it.

    Raises:
        TerradeltaError: If it cannot be read or holds something else.
    """
    try:
        content = read_json(path)
    except ContentError as problem:
        raise error(f"{path} cannot be read: {problem}", fix) from problem
    if not isinstance(content, dict):
        raise error(f"{path} holds a {type(content).__name__}, not an object", fix)
    return content


def read_record(
    path: str | Path, cls: type[Record], error: type[TerradeltaError], fix: str
) -> Record:
    """Return a dataclass made of the object that a JSON file holds; see `read_fields`.

    Raises:
        TerradeltaError: Of the type `error`; it names file, key and value.
    """
    content = read_object(path, error, fix)
    try:
        return read_fields(cls, content)
    except FieldError as problem:
        raise error(f"{path}: {problem}", fix) from problem


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object names a key twice")
    return content


def _require_plain(content: Any):
    """Raise if later steps could not walk through the content or write it."""
    waiting = [(content, 0)]
    while waiting:
        part, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ContentError(f"it has more than {MAX_DEPTH} lists and objects within each other")
        if isinstance(part, dict):
            waiting += [(one, depth + 1) for pair in part.items() for one in pair]
        elif isinstance(part, list):
            waiting += [(one, depth + 1) for one in part]
        elif isinstance(part, str):
            try:
                part.encode()
            except UnicodeEncodeError as error:
                raise ContentError(f"it holds half a surrogate pair: {error.reason}") from error
