"""Patches of change, traced block by block and joined across the blocks' borders.

Memory does not grow with the map: only patches that can still grow are in memory, and the values
along the border of the traced part.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import geopandas
import numpy as np
import shapely
from rasterio.windows import Window

from terradelta.classes import ClassTable
from terradelta.geo.grid import Grid
from terradelta.geo.outlines import find_areas


@dataclass
class Patch:
    """A 4-connected area of one transition, or its known part."""

    transition: int
    """Value in the map."""
    pixels: int
    """Size in pixels."""
    area_m2: float
    """Ground area; 0 where unknown."""
    confidence_sum: int
    """Sum of the pixels' confidence, in percent."""
    pieces: list[tuple[Window, shapely.Geometry]]
    """Its part in each block, in pixels of the map, with the block."""
    open_borders: int = 0
    """Borders of blocks that it touches and beyond which no block is traced yet."""
    joined_to: Patch | None = field(default=None, repr=False)
    """The patch that this one is part of."""

    def resolve(self) -> Patch:
        """Return the patch that this one is part of now."""
        patch = self
        while patch.joined_to is not None:
            patch = patch.joined_to
        # Later calls take one step.
        while self.joined_to is not None:
            self.joined_to, self = patch, self.joined_to
        return patch

    def absorb(self, other: Patch):
        """Make another patch part of this one."""
        self.pixels += other.pixels
        self.area_m2 += other.area_m2
        self.confidence_sum += other.confidence_sum
        self.pieces += other.pieces
        self.open_borders += other.open_borders
        other.joined_to = self
        other.pieces = []


@dataclass(frozen=True)
class Border:
    """The pixels along one side of a block, beyond which no block is traced yet."""

    values: np.ndarray
    """Transition of each."""
    owners: np.ndarray
    """Number of the patch of each, from 1; 0 where unchanged or nodata."""
    patches: dict[int, Patch]
    """The patches by number."""

    @classmethod
    def open(cls, values: np.ndarray, owners: np.ndarray, patches: list[Patch]) -> Border:
        """Record the patches of a block that may continue beyond this border."""
        touching = {int(n): patches[n - 1] for n in np.unique(owners[owners > 0])}
        for patch in touching.values():
            patch.resolve().open_borders += 1
        return cls(values.copy(), owners.copy(), touching)

    def join(self, values: np.ndarray, owners: np.ndarray, patches: list[Patch]) -> set[int]:
        """Join the patches of the block beyond this border with those that reach it.

        Returns:
            The numbers, from 1, of the patches of that block that were joined.
        """
        meet = (self.values == values) & (self.owners > 0) & (owners > 0)
        pairs = np.unique(np.stack([self.owners[meet], owners[meet]], axis=1), axis=0)
        for theirs, mine in pairs:
            patch, more = self.patches[int(theirs)].resolve(), patches[mine - 1].resolve()
            if patch is not more:
                patch.absorb(more)
        return set(pairs[:, 1].tolist())

    def close(self) -> list[Patch]:
        """Return the patches whose last open border this was."""
        closed = []
        for patch in self.patches.values():
            whole = patch.resolve()
            whole.open_borders -= 1
            if whole.open_borders == 0:
                closed.append(whole)
        return closed


class PatchTracer:
    """Traces the patches of a map that comes block by block.

    Args:
        grid: The pixels of the map.
        classes: The classes of its values.
        nodata: Value of invalid pixels.
        min_area_m2: Smaller patches are counted but not traced.
    """

    def __init__(self, grid: Grid, classes: ClassTable, *, nodata: int, min_area_m2: float = 0.0):
        self._grid = grid
        self._classes = classes
        self._nodata = nodata
        self._min_area_m2 = min_area_m2
        self._right: Border | None = None
        self._below: dict[int, Border] = {}
        self._finished: list[Patch] = []
        self.dropped: list[Patch] = []
        """Patches over several blocks that are too small."""

    def add(
        self,
        window: Window,
        change_HW: np.ndarray,
        confidence_HW: np.ndarray,
        pixel_area_m2_HW: np.ndarray | None,
    ) -> np.ndarray:
        """Trace the next block; blocks come row by row and form a lattice.

        Args:
            window: The block's place on the grid.
            change_HW: Its from-to map, 0 = unchanged.
            confidence_HW: Its confidence in percent.
            pixel_area_m2_HW: Ground area of its pixels, None where unknown.

        Returns:
            (H, W) bool, the patches that are too small and end within this block. Those that
            span blocks are in `dropped` once the last block has been added.
        """
        owner_HW, transitions, outlines = find_areas(
            np.where(change_HW == self._nodata, 0, change_HW)
        )
        corner = np.array([window.col_off, window.row_off])
        outlines = shapely.transform(outlines, lambda pixels_N2: pixels_N2 + corner)
        sums = _sum_by_owner(owner_HW, len(outlines), confidence_HW, pixel_area_m2_HW)
        patches = [
            Patch(transition, pixels, area_m2, confidence_sum, [(window, outline)])
            for transition, outline, pixels, area_m2, confidence_sum in zip(
                transitions.tolist(), outlines, *sums, strict=True
            )
        ]
        spanning = self._cross_borders(window, change_HW, owner_HW, patches)
        too_small = np.zeros(len(patches) + 1, dtype=bool)
        for number, patch in enumerate(patches, start=1):
            if number not in spanning:
                too_small[number] = self._is_too_small(patch)
                if not too_small[number]:
                    self._finished.append(patch)
        return too_small[owner_HW]

    def take_finished(self) -> geopandas.GeoDataFrame:
        """Return the patches that were finished since the last call.

        Returns:
            Columns `from`, `to` (class names), `transition` (value in the map), `pixels`, `area_m2`
            (missing without a CRS), `confidence` (mean, 0 to 1) and the geometry in the map's CRS.
        """
        patches, self._finished = self._finished, []
        transitions = np.array([patch.transition for patch in patches], dtype=np.int64)
        from_ids, to_ids = self._classes.decode_transition(transitions)
        names = np.array(self._classes.names, dtype=object)
        pixels = np.array([patch.pixels for patch in patches], dtype=np.int64)
        has_area = self._grid.crs is not None
        confidence_sums = np.array([patch.confidence_sum for patch in patches], dtype=np.float64)
        table = {
            "from": names[from_ids],
            "to": names[to_ids],
            "transition": transitions,
            "pixels": pixels,
            "area_m2": [patch.area_m2 if has_area else np.nan for patch in patches],
            "confidence": confidence_sums / np.maximum(pixels, 1) / 100,
        }
        outlines = np.array([_outline(patch) for patch in patches], dtype=object)
        geometry = shapely.transform(outlines, self._place)
        return geopandas.GeoDataFrame(table, geometry=geometry, crs=self._grid.crs)

    def _place(self, pixels_N2: np.ndarray) -> np.ndarray:
        x, y = self._grid.transform @ (pixels_N2[:, 0], pixels_N2[:, 1])  # pyright: ignore[reportOperatorIssue]
        return np.stack([x, y], axis=1)

    def _cross_borders(
        self, window: Window, change_HW: np.ndarray, owner_HW: np.ndarray, patches: list[Patch]
    ) -> set[int]:
        """Join a block's patches with those traced before, and record which may still grow.

        Returns:
            The numbers of the patches that are not only in this block.
        """
        left, top = int(window.col_off), int(window.row_off)
        closing: list[Border] = []
        spanning: set[int] = set()
        if left > 0 and self._right is not None:
            closing.append(self._right)
            spanning |= self._right.join(change_HW[:, 0], owner_HW[:, 0], patches)
        if top > 0:
            above = self._below.pop(left)
            closing.append(above)
            spanning |= above.join(change_HW[0], owner_HW[0], patches)
        # New borders are opened before old ones are closed, or a patch might end too early.
        self._right = None
        if left + window.width < self._grid.width:
            self._right = Border.open(change_HW[:, -1], owner_HW[:, -1], patches)
            spanning |= self._right.patches.keys()
        if top + window.height < self._grid.height:
            self._below[left] = Border.open(change_HW[-1], owner_HW[-1], patches)
            spanning |= self._below[left].patches.keys()
        for border in closing:
            for patch in border.close():
                (self.dropped if self._is_too_small(patch) else self._finished).append(patch)
        return spanning

    def _is_too_small(self, patch: Patch) -> bool:
        return patch.area_m2 < self._min_area_m2


def _sum_by_owner(
    owner_HW: np.ndarray,
    count: int,
    confidence_HW: np.ndarray,
    pixel_area_m2_HW: np.ndarray | None,
) -> tuple[list[int], list[float], list[int]]:
    """Return pixels, area in m2 and summed confidence of each patch of a block."""
    inside_HW = owner_HW > 0
    owners = owner_HW[inside_HW] - 1
    pixels = np.bincount(owners, minlength=count)
    confidence = np.bincount(owners, weights=confidence_HW[inside_HW], minlength=count)
    area_m2 = np.zeros(count)
    if pixel_area_m2_HW is not None:
        area_m2 = np.bincount(owners, weights=pixel_area_m2_HW[inside_HW], minlength=count)
    return pixels.tolist(), area_m2.tolist(), confidence.astype(np.int64).tolist()


def _outline(patch: Patch) -> shapely.Geometry:
    """Return a patch's polygon in pixels of the map, without the corners of blocks."""
    if len(patch.pieces) == 1:
        return patch.pieces[0][1]
    union = shapely.union_all([outline for _, outline in patch.pieces])
    assert isinstance(union, shapely.Polygon)
    rings = [union.exterior, *union.interiors]
    exterior, *interiors = (_drop_straight_points(ring) for ring in rings)
    return shapely.Polygon(exterior, interiors)


def _drop_straight_points(ring: shapely.LinearRing) -> np.ndarray:
    """Return a ring's points, without those in the middle of a straight line."""
    points_N2 = shapely.get_coordinates(ring)[:-1]
    before_N2, after_N2 = np.roll(points_N2, 1, axis=0), np.roll(points_N2, -1, axis=0)
    straight_N2 = (points_N2 == before_N2) & (points_N2 == after_N2)
    return points_N2[~straight_N2.any(axis=1)]
