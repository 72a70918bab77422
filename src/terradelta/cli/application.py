"""The application that verbs are added to, and the options that several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

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
