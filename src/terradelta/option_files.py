"""YAML files of options: a recipe of `train`, the options of `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from terradelta.errors import ArgumentError
from terradelta.fields import show
from terradelta.inputs import ContentError, read_text

MAX_YAML_BYTES = 2**20
"""Far more than any file of options has."""


def read_option_file(path: str | Path, known: Sequence[str]) -> dict[str, Any]:
    """Return the values of a YAML file by the names of their options.

    Args:
        path: The file, one `option: value` a line.
        known: Names of options that may stand in it.

    Raises:
        ArgumentError: If the file is not YAML, or has a key that is not an option.
    """
    try:
        content = yaml.safe_load(read_text(path, MAX_YAML_BYTES))
    except (ContentError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}", fix="give a YAML file") from error
    if not isinstance(content, dict):
        raise ArgumentError(
            f"{path} holds {type(content).__name__}, not options",
            fix="write one `option: value` a line",
        )
    unknown = [key for key in content if key not in known]
    if unknown:
        raise ArgumentError(
            f"{path} has options that do not exist: {', '.join(map(_name, unknown))}",
            fix=f"use {', '.join(known)}",
        )
    return content


def _name(key: object) -> str:
    return key if isinstance(key, str) and len(key) < 60 else show(key)
