"""Options of `predict` and its relatives by their names alone, as the command line has them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import terradelta as td
from terradelta.inference.prediction_options import Cluster, MapOptions, RasterOptions, Runtime

VALUES = {"rasters": RasterOptions, "maps": MapOptions, "runtime": Runtime, "cluster": Cluster}


def predict_flat(*paths: Any, **options: Any):
    """Call `predict` with options by name."""
    return td.predict(*paths, **sort_options(options))


def sort_options(options: Mapping[str, Any] | None = None, /, **more: Any) -> dict[str, Any]:
    """Return arguments in which each option stands in the value that holds it.

    What no value holds is left as it is.
    """
    left = {**(options or {}), **more}
    arguments = {}
    for argument, kind in VALUES.items():
        own = {field.name: left.pop(field.name) for field in fields(kind) if field.name in left}
        if own:
            arguments[argument] = kind(**own)
    return arguments | left
