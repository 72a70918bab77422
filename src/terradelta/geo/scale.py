"""How large a grid's pixels are on the ground, and whether a model knows pixels of that size."""

from __future__ import annotations

import math

from terradelta.geo.area import measure_pixels
from terradelta.geo.grid import Grid, cut_window


def measure_pixel_size(grid: Grid) -> float | None:
    """Return about how long the side of the middle pixel is on the ground, in metres.

    None where the grid has no CRS.
    """
    if grid.crs is None:
        return None
    area_m2 = measure_pixels(grid, cut_window(grid.width // 2, grid.height // 2, 1, 1))
    return math.sqrt(abs(float(area_m2[0, 0])))


def advise_scale(grid: Grid, resolution_m: tuple[float, float] | None) -> tuple[str, str] | None:
    """Return what is wrong with a grid's pixel size and what mends it; None where nothing is.

    Args:
        grid: The grid a map will have.
        resolution_m: Least and largest pixel that the model learned from, in metres; None if it
            does not say.
    """
    if resolution_m is None:
        return None
    size_m = measure_pixel_size(grid)
    if size_m is None:
        return advise_unknown_scale(resolution_m)
    least_m, most_m = resolution_m
    if least_m <= size_m <= most_m:
        return None
    problem = f"pixels of {size_m:.3g} m, and the model learned from {least_m:g} to {most_m:g} m"
    if size_m > most_m:
        return problem, (
            "train on images of this resolution (`terradelta train --from default`): what is "
            "smaller than a few pixels cannot be found, and what is larger looks unlike"
        )
    # By what a unit of the CRS, metres or feet or degrees, is here on the ground.
    side = math.sqrt(abs(grid.transform.determinant))
    wanted = side * math.sqrt(least_m * most_m) / size_m
    return problem, f"--grid {wanted:.2g}, which maps coarser pixels"


def advise_unknown_scale(resolution_m: tuple[float, float]) -> tuple[str, str]:
    """Return what is doubtful where nothing says how large pixels are, and what helps."""
    least_m, most_m = resolution_m
    return (
        "the size of the pixels on the ground is unknown, and the model learned from "
        f"{least_m:g} to {most_m:g} m",
        "georeference both images, or make sure that their pixels are of that size",
    )
