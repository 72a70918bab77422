"""The 4-connected areas of one value in an array, and their outlines as polygons of whole pixels.

GDAL can also polygonize; this gives the same polygons several times faster if there are many
small ones, and also the number of each pixel's area.

Legend of the array names: H rows, W columns, R runs, N corners, P areas.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely


class Areas(NamedTuple):
    """The areas of an array, in the order of their first pixels."""

    owner_HW: np.ndarray
    """Number of the area that each pixel belongs to, from 1; 0 = none; int32."""
    values_P: np.ndarray
    """Value of each area."""
    outlines_P: np.ndarray
    """Polygon of each area, in (column, row) of the pixels' corners, exteriors counter-clockwise
    and holes clockwise where rows point south."""


def find_areas(values_HW: np.ndarray) -> Areas:
    """Return the areas of pixels that share edges and a value other than 0.

    Args:
        values_HW: (H, W) unsigned integers.
    """
    owner_HW, values_P = _label(values_HW)
    return Areas(owner_HW, values_P, _outline(owner_HW, len(values_P)))


def _label(values_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's number and each number's value, by joining runs of adjacent rows."""
    is_start_HW = values_HW != 0
    is_start_HW[:, 1:] &= values_HW[:, 1:] != values_HW[:, :-1]
    run_HW = np.cumsum(is_start_HW, dtype=np.int32).reshape(values_HW.shape)
    meets_HW = (values_HW[1:] == values_HW[:-1]) & (values_HW[1:] != 0)
    # Two runs meet along several pixels, of which the first is enough.
    goes_on_HW = meets_HW[:, 1:] & meets_HW[:, :-1]
    goes_on_HW &= ~(is_start_HW[1:, 1:] | is_start_HW[:-1, 1:])
    meets_HW[:, 1:] &= ~goes_on_HW
    starts_R = values_HW[is_start_HW]
    root_R = _join(len(starts_R), run_HW[:-1][meets_HW] - 1, run_HW[1:][meets_HW] - 1)
    is_root_R = root_R == np.arange(len(root_R))
    number_R = np.cumsum(is_root_R, dtype=np.int32)[root_R]
    owner_HW = np.concatenate([[0], number_R]).astype(np.int32)[run_HW]
    owner_HW[values_HW == 0] = 0
    return owner_HW, starts_R[is_root_R]


def _join(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the least member of the set of each of `count` things, given the joined pairs."""
    root = np.arange(count)
    while True:
        one, other = root[first], root[second]
        apart = one != other
        if not apart.any():
            return root
        first, second, one, other = (pairs[apart] for pairs in (first, second, one, other))
        root[np.maximum(one, other)] = np.minimum(one, other)
        while (root[root] != root).any():
            root = root[root]


def _outline(owner_HW: np.ndarray, count: int) -> np.ndarray:
    """Return the polygon of each number.

    An area's corners on one row of the lattice are, from left to right, the ends of its horizontal
    edges two by two, and those on one column the ends of its vertical edges; following the two in
    turn goes around a ring.
    """
    if count == 0:
        return np.empty(0, dtype=object)
    owner_N, x_N, y_N, goes_right_N, goes_down_N = _find_corners(owner_HW)
    height, width = owner_HW.shape
    by_row_N = np.argsort(((owner_N * (height + 1) + y_N) * (width + 1) + x_N) * 2 + goes_right_N)
    owner_N, x_N, y_N, goes_down_N = (a[by_row_N] for a in (owner_N, x_N, y_N, goes_down_N))
    by_column_N = np.argsort(((owner_N * (width + 1) + x_N) * (height + 1) + y_N) * 2 + goes_down_N)
    vertical_N = np.empty_like(by_column_N)
    vertical_N[by_column_N[0::2]] = by_column_N[1::2]
    vertical_N[by_column_N[1::2]] = by_column_N[0::2]

    path_N, lengths = _follow(owner_N, vertical_N)
    points_N2 = np.stack([x_N, y_N], axis=1)[path_N].astype(np.float64)
    ring_N = np.repeat(np.arange(len(lengths)), lengths)
    rings = np.asarray(shapely.linearrings(points_N2, indices=ring_N))
    first_of_ring = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
    outlines_P = np.empty(count, dtype=object)
    shapely.polygons(rings, indices=owner_N[path_N][first_of_ring] - 1, out=outlines_P)
    return outlines_P


def _find_corners(owner_HW: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the corners of all areas.

    Of the four pixels around a point, each may make a corner there: of its own area, if none of
    the others is in it, or of an area that both its neighbours are in and it is not. So if two
    pixels of an area touch at a point only, its outline separates them: rings touch at
    points, and never themselves.

    Returns:
        Area, column, row, and whether the horizontal edge goes right and the vertical one down.
    """
    padded = np.pad(owner_HW, 1)
    corners = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    upper_left, upper_right, lower_left, lower_right = corners
    is_bend = (upper_left != upper_right) | (lower_left != lower_right)
    is_bend &= (upper_left != lower_left) | (upper_right != lower_right)
    rows, columns = np.nonzero(is_bend)
    around = np.stack([pixels[is_bend] for pixels in corners]).astype(np.int64)
    found = []
    for place in range(4):
        right, down = place % 2, place // 2
        own, beside, above, across = (around[place ^ step] for step in (0, 1, 2, 3))
        convex = (own != 0) & (own != beside) & (own != above) & (own != across)
        concave = (beside != 0) & (beside == above) & (beside != own)
        for is_corner, owner in ((convex, own), (concave, beside)):
            here = np.flatnonzero(is_corner)
            ways = np.full(len(here), right), np.full(len(here), down)
            found.append((owner[here], columns[here], rows[here], *ways))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _follow(owner_N: np.ndarray, vertical_N: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the corners ring by ring, an area's exterior before its holes, and the rings' sizes.

    Args:
        owner_N: Areas of the corners, which are sorted by area and row; corners 2i and 2i + 1 are
            the ends of a horizontal edge.
        vertical_N: The corner at the other end of each one's vertical edge.
    """
    vertical = vertical_N.tolist()
    is_first = np.diff(owner_N[::2], prepend=0).astype(bool).tolist()
    seen = bytearray(len(is_first))
    path: list[int] = []
    lengths: list[int] = []
    for edge, starts_area in enumerate(is_first):
        if seen[edge]:
            continue
        begun = len(path)
        # The highest edge of an exterior has its area below it, that of a hole above it.
        corner = 2 * edge + starts_area
        while not seen[corner >> 1]:
            seen[corner >> 1] = True
            path += (corner, corner ^ 1)
            corner = vertical[corner ^ 1]
        lengths.append(len(path) - begun)
    return np.array(path, dtype=np.int64), lengths
