"""Compares a grid's pixels on the ground with those of a model's training images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from terradelta.cautions import Caution
from terradelta.geo.area import measure_sides
from terradelta.geo.grid import Grid

MOST_REDUCTION = 6
"""A tile of the default model is then 7,680 px wide, and its block takes 2 GB."""
SIZE_TOLERANCE = 0.02
"""Projections such as UTM change lengths by 0.04 % and more."""
MOST_ENLARGEMENT = 6
"""Pixels of 3 m for the default model, which finds a fifth of the changes there
(benchmarks/real/results.md)."""


@dataclass(frozen=True)
class SeenPixels:
    """How a model sees the pixels of a grid, so that they have a size that it learned from."""

    reduction: int = 1
    """Pixels per side of the squares whose means it sees as one."""
    enlargement: int = 1
    """Pixels per side that it sees, interpolated, in place of one."""

    def __str__(self):
        if self.reduction > 1:
            return f"means of {self.reduction} x {self.reduction} of them"
        return f"{self.enlargement} x {self.enlargement} interpolated pixels for each of them"


def measure_pixel_size(grid: Grid) -> float | None:
    """Return about how long the side of a pixel in the middle is on the ground, in metres.

    None if the grid has no CRS, or no ground around its middle.
    """
    sides_m = measure_sides(grid)
    return None if sides_m is None else math.sqrt(abs(float(np.linalg.det(sides_m))))


def find_seen_pixels(grid: Grid, resolution_m: tuple[float, float] | None) -> SeenPixels:
    """Return how a model should see the pixels of a grid.

    As they are, unless all pixels that it learned from are larger or all are smaller: then about
    as large as the middle of those. As they are too where this would take more than
    `MOST_REDUCTION` or `MOST_ENLARGEMENT`; see `advise_scale`.

    Args:
        grid: The grid a map will have.
        resolution_m: See `advise_scale`.
    """
    size_m = None if resolution_m is None else measure_pixel_size(grid)
    if resolution_m is None or size_m is None:
        return SeenPixels()
    least_m, most_m = resolution_m
    middle_m = math.sqrt(least_m * most_m)
    if size_m < least_m:
        # A tenth of a pixel less, as lengths on the ground differ a little over a map.
        reduction = math.ceil(middle_m / size_m - 0.1)
        return SeenPixels(reduction=reduction if reduction <= MOST_REDUCTION else 1)
    enlargement = round(size_m / middle_m) if size_m > most_m * (1 + SIZE_TOLERANCE) else 1
    return SeenPixels(enlargement=enlargement if enlargement <= MOST_ENLARGEMENT else 1)


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

    Somewhat finer pixels than the model's are averaged, and no problem. Somewhat coarser ones are
    enlarged, and small objects are missed; see `find_seen_pixels`.

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
    seen = find_seen_pixels(grid, resolution_m)
    if least_m <= size_m <= most_m * (1 + SIZE_TOLERANCE) or seen.reduction > 1:
        return None
    problem = f"pixels of {size_m:.3g} m, and the model learned from {least_m:g} to {most_m:g} m"
    if size_m < least_m:
        # Converted with the length on the ground of a unit of the CRS: metres, feet or degrees.
        side = math.sqrt(abs(grid.transform.determinant))
        wanted = side * math.sqrt(least_m * most_m) / size_m
        return problem, f"--grid {wanted:.2g}, which maps coarser pixels"
    if seen.enlargement > 1:
        return (
            f"{problem}, so it sees {seen} and misses small objects",
            "check the map with `terradelta sample` and `terradelta assess`, or use finer images",
        )
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
