"""The application that verbs are added to, and the options that several of them share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cyclopts import App, Parameter

from terradelta.errors import ArgumentError

Value = TypeVar("Value")

app = App(
    name="terradelta",
    help="What changed between two images of a place: from what, to what, where and how much.",
    help_format="plaintext",
)

Models = Annotated[
    str | None,
    Parameter(name=["--model", "-m"]),
]
Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Overwrite = Annotated[bool, Parameter(negative=())]
Json = Annotated[bool, Parameter(name="--json", negative=())]
Protocol = Literal["second", "from-to", "ual"]
Runtime = Literal["auto", "torch", "torch-compile", "openvino", "onnx"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Split = Literal["train", "val", "test", "all"]


def split_list(text: str | None) -> list[str] | None:
    """Return the parts of a comma-separated option."""
    return None if text is None else [part.strip() for part in text.split(",")]


def split_dates(
    text: str | None, read: Callable[[str], Value]
) -> Value | tuple[Value | None, Value | None] | None:
    """Return an option that is one value for both dates, or "before=VALUE,after=VALUE".

    Raises:
        ArgumentError: If a value cannot be read, or is given for neither date.
    """
    if text is None:
        return None
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
