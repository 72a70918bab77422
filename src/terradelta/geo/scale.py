"""Compares a grid's pixels on the ground with those of a model's training images."""

from __future__ import annotations

import math

import numpy as np

from terradelta.cautions import Caution
from terradelta.geo.area import measure_sides
from terradelta.geo.grid import Grid

MOST_REDUCTION = 6
"""A tile of the default model is then 7,680 px wide, and its block takes 2 GB."""


def measure_pixel_size(grid: Grid) -> float | None:
    """Return about how long the side of a pixel in the middle is on the ground, in metres.

    None if the grid has no CRS, or no ground around its middle.
    """
    sides_m = measure_sides(grid)
    return None if sides_m is None else math.sqrt(abs(float(np.linalg.det(sides_m))))


def find_reduction(grid: Grid, resolution_m: tuple[float, float] | None) -> int:
    """Return how many pixels of a grid a model should see as one, per side.

    1, unless its pixels are finer than any that the model learned from: then so many that their
    means are about as large as the middle of those. 1 too where these would be more than
    `MOST_REDUCTION`; `advise_scale` then names a coarser grid.

    Args:
        grid: The grid a map will have.
        resolution_m: See `advise_scale`.
    """
    size_m = None if resolution_m is None else measure_pixel_size(grid)
    if resolution_m is None or size_m is None or size_m >= resolution_m[0]:
        return 1
    # A tenth of a pixel less, as lengths on the ground differ a little over a map.
    factor = math.ceil(math.sqrt(resolution_m[0] * resolution_m[1]) / size_m - 0.1)
    return factor if factor <= MOST_REDUCTION else 1


def find_scale_caution(grid: Grid, resolution_m: tuple[float, float] | None) -> Caution | None:
    """Return a caution if a model was not trained on a grid's pixel size, or None.

    Args:
        grid: The grid a map will have.
        resolution_m: See `advise_scale`.
    """
    if resolution_m is None:
        return None
    if measure_pixel_size(grid) is None:
        return doubt_unknown_size(resolution_m)
    advice = advise_scale(grid, resolution_m)
    return None if advice is None else Caution("scale", *advice)


def doubt_unknown_size(resolution_m: tuple[float, float]) -> Caution:
    """Return the caution for images with pixels of unknown size.

    Args:
        resolution_m: Least and largest pixel of the model's training images, in metres.
    """
    least_m, most_m = resolution_m
    return Caution(
        "scale",
        f"the size of the pixels on the ground is unknown, and the model learned from {least_m:g} "
        f"to {most_m:g} m",
        "georeference the images, or make sure that their pixels have such a size",
    )


def advise_scale(grid: Grid, resolution_m: tuple[float, float] | None) -> tuple[str, str] | None:
    """Return the problem of a grid's pixel size and its fix, or None.

    Somewhat finer pixels than the model's are averaged, and no problem; see `find_reduction`.

    Args:
        grid: The grid a map will have.
        resolution_m: Least and largest pixel of the model's training images, in metres; None if its
            card does not give it.
    """
    if resolution_m is None:
        return None
    size_m = measure_pixel_size(grid)
    if size_m is None:
        return advise_unknown_scale(resolution_m)
    least_m, most_m = resolution_m
    if least_m <= size_m <= most_m or find_reduction(grid, resolution_m) > 1:
        return None
    problem = f"pixels of {size_m:.3g} m, and the model learned from {least_m:g} to {most_m:g} m"
    if size_m < least_m:
        # Converted with the length on the ground of a unit of the CRS: metres, feet or degrees.
        side = math.sqrt(abs(grid.transform.determinant))
        wanted = side * math.sqrt(least_m * most_m) / size_m
        return problem, f"--grid {wanted:.2g}, which maps coarser pixels"
    return (
        problem,
        "train on images of this resolution (`terradelta train --from default`): objects "
        "smaller than a few pixels cannot be found, and larger ones look different",
    )


def advise_unknown_scale(resolution_m: tuple[float, float]) -> tuple[str, str]:
    """Return the problem of an unknown pixel size, and its fix."""
    least_m, most_m = resolution_m
    return (
        "the size of the pixels on the ground is unknown, and the model learned from "
        f"{least_m:g} to {most_m:g} m",
        "georeference both images, or make sure that their pixels have that size",
    )
