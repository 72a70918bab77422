"""Reads values of options from texts, as typed on the command line or written into YAML.

Each reader takes a text and returns the value of the option. Values that Python callers give in
their own type never pass through here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cyclopts import Parameter, Token

from terradelta.errors import ArgumentError

Value = TypeVar("Value")

M2_PER_UNIT = {"m2": 1.0, "ha": 10_000.0, "km2": 1_000_000.0}
BYTES_PER_UNIT = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def as_flag(read: Callable[[str], Any], **options: Any) -> Parameter:
    """Return the `Parameter` with which the command line reads an option from one text.

    Args:
        read: Function of the text.
        options: Of cyclopts' `Parameter`.
    """

    def convert(_: Any, tokens: Sequence[Token]) -> Any:
        return read(tokens[0].value)

    return Parameter(converter=convert, n_tokens=1, accepts_keys=False, negative=(), **options)


def write_flag(name: str, value: object) -> str:
    """Return the value of an option in a YAML file as the command line writes it: 1,2,3.

    Raises:
        ArgumentError: If it is neither a plain value nor a list of plain values.
    """
    parts = value if isinstance(value, list) else [value]
    # Lists within lists may repeat themselves beyond any memory.
    if not parts or any(isinstance(part, list | dict | set) for part in parts):
        raise ArgumentError(
            f"{name} is neither a value nor a list of values", fix="write it like on a line: 1,2,3"
        )
    return ",".join(str(part).lower() if isinstance(part, bool) else str(part) for part in parts)


def read_list(text: str) -> tuple[str, ...]:
    """Return the parts of "A,B,C"."""
    return tuple(part.strip() for part in text.split(","))


def read_range(text: str) -> tuple[float, float]:
    """Return the two numbers of "LOW,HIGH".

    Raises:
        ArgumentError: If they are not two numbers.
    """
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise ArgumentError(
            f"{text!r} is not a range of values", fix="give two numbers: 0,3000"
        ) from error
    return low, high


def read_nodata(text: str) -> float | tuple[float | None, float | None]:
    """Return the stored value of both dates, or of each: "0", "before=0,after=255".

    Raises:
        ArgumentError: Same as `read_both`.
    """
    return read_both(text, float)


def read_masks(text: str) -> str | tuple[str | None, str | None]:
    """Return the file of both dates, or of each: "clouds.tif", "before=a.tif,after=b.tif".

    Raises:
        ArgumentError: Same as `read_both`.
    """
    return read_both(text, str)


def read_both(text: str, read: Callable[[str], Value]) -> Value | tuple[Value | None, Value | None]:
    """Return an option that is one value for both dates, or "before=VALUE,after=VALUE".

    Raises:
        ArgumentError: If a value cannot be read, or no date gets one.
    """
    # A value may hold commas itself.
    parts = re.split(r",(?=(?:before|after)=)", text)
    named = dict(part.split("=", 1) for part in parts if re.match(r"(before|after)=", part))
    try:
        if not named:
            return read(text)
        if len(named) < len(parts):
            raise ValueError(f"{len(parts)} parts name {' and '.join(named)}")
        values = [read(named[date]) if date in named else None for date in ("before", "after")]
    except ValueError as error:
        raise ArgumentError(
            f"{text!r} is not a value for the dates: {error}",
            fix="give one value for both dates, or one for each: before=VALUE,after=VALUE",
        ) from error
    return values[0], values[1]


def read_area(text: str | float) -> float:
    """Return the square metres of an area such as "100m2", "0.5 ha" or a number of m2.

    Raises:
        ArgumentError: If it is not an area.
    """
    match = re.fullmatch(
        r"\s*([0-9]{1,18}(?:\.[0-9]+)?)\s*(m2|m²|ha|km2|km²)?\s*", str(text).lower()
    )
    if match is None:
        raise ArgumentError(f"{text!r} is not an area", fix="write it like 100m2, 0.5ha or 1km2")
    return float(match[1]) * M2_PER_UNIT[(match[2] or "m2").replace("²", "2")]


def read_memory(text: str | int) -> int:
    """Return the bytes of a budget such as "2GB", "500 MB" or a number of bytes; units are binary.

    Raises:
        ArgumentError: If it is not an amount of memory.
    """
    match = re.fullmatch(
        r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([kmgt]?)i?b?\s*", str(text).lower()
    )
    if match is None:
        raise ArgumentError(
            f"{text!r} is not an amount of memory",
            fix="write it like --memory 4GB or --memory 800MB",
        )
    return int(float(match[1]) * BYTES_PER_UNIT[match[2]])


def read_shard(text: str) -> tuple[int, int]:
    """Return the number of a part and the number of parts, (2, 4) of "2/4"; they count from 1.

    Raises:
        ArgumentError: If it is not a valid part.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise ArgumentError(
            f"{text!r} is not a valid shard",
            fix="write the number of the shard and the number of shards: --shard 2/4",
        )
    return number, count
