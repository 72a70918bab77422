"""The patches of a prediction, as in the checked map: filters, sums, order and outlines.

Requests about all patches (sums, filters, the next one) are answered from columns in
memory, 60 bytes per patch; outlines stay in the GeoPackage until they are drawn.

Legend of the array names: N patches.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from pyogrio.raw import read as read_features
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from shapely.errors import ShapelyError

from terradelta.errors import DataError
from terradelta.geo.grid import make_transformer
from terradelta.geo.vector import LAYER
from terradelta.prediction.changes import read_bounds, read_patch_table, require_polygons
from terradelta.viewer.result import Result
from terradelta.viewer.reviews import STATUSES, Review, ReviewStore, require_labels

WGS84 = CRS.from_epsg(4326)
DEGREE_DIGITS = 7
"""A centimetre on the ground."""
VIEW_PX = 2000
"""Smallest width of a view in pixels; outlines are simplified to half of such a pixel or less."""
REJECTED = STATUSES.index("rejected")


@dataclass(frozen=True)
class PatchFilter:
    """A filter of patches; classes are those of the checked map."""

    from_ids: Sequence[int] | None = None
    """Class ids before, all by default."""
    to_ids: Sequence[int] | None = None
    """Class ids after."""
    min_area_m2: float = 0.0
    """Smallest area."""
    min_confidence: float = 0.0
    """Lowest mean confidence, 0 to 1."""
    max_confidence: float = 1.0
    """Highest mean confidence, 0 to 1."""
    statuses: Sequence[str] | None = None
    """States of review."""


class PatchTable:
    """All patches of a prediction and their reviews; thread-safe.

    Args:
        result: The prediction.

    Raises:
        DataError: If a saved review is not valid.
        OutputError: If the patches or the reviews cannot be read.
    """

    def __init__(self, result: Result):
        assert result.grid.crs is not None
        self._path, self._classes, self._crs = result.polygons, result.classes, result.grid.crs
        self._store = ReviewStore(result.polygons)
        self._lock = threading.Lock()
        frame = read_patch_table(self._path, self._classes, has_area=True)
        self._fids = frame.index.to_numpy()
        self._row_of = {fid: row for row, fid in enumerate(self._fids.tolist())}
        self._pixels = frame["pixels"].to_numpy()
        self._area_m2 = frame["area_m2"].to_numpy(dtype=np.float64)
        self._confidence = frame["confidence"].to_numpy(dtype=np.float64)
        predicted = self._classes.decode_transition(frame["transition"].to_numpy())
        self._predicted_from, self._predicted_to = predicted
        self._from, self._to = (ids.copy() for ids in predicted)
        self._status = np.zeros(len(frame), dtype=np.int8)
        self._bounds_4N = read_bounds(self._path, self._fids)
        # West, south, east, north of the map: other views may not exist in its CRS.
        self._extent = transform_bounds(self._crs, WGS84, *result.grid.bounds)
        # Largest first; the first among equals.
        self._order = np.argsort(-self._area_m2, kind="stable")
        self._rank = np.empty(len(frame), dtype=np.int64)
        self._rank[self._order] = np.arange(len(frame))
        self._reviews = self._store.read()
        for fid, review in self._reviews.items():
            if fid in self._row_of:
                self._apply(self._row_of[fid], review)

    def __contains__(self, fid: int) -> bool:
        return fid in self._row_of

    def __len__(self) -> int:
        return len(self._fids)

    def sum(self, wanted: PatchFilter) -> dict[str, Any]:
        """Return counts and areas over all selected patches.

        Rejected patches are only in the sums of rejected patches.

        Returns:
            `count`, `area_m2`, `rejected_count`, `rejected_m2`; `transitions`, a dict each of
            `from_id`, `to_id`, `count`, `area_m2`, largest first; `statuses`, the same by state.
        """
        chosen_N = self._choose(wanted)
        kept_N = chosen_N & (self._status != REJECTED)
        transition_N = self._classes.encode_transition(self._from, self._to)[kept_N]
        area_m2_N = self._area_m2[kept_N]
        counts = np.bincount(transition_N, minlength=self._classes.num_transitions)
        areas = np.bincount(transition_N, area_m2_N, minlength=self._classes.num_transitions)
        occurring = [int(t) for t in np.argsort(-areas, kind="stable") if counts[t]]
        statuses = self._status[chosen_N]
        status_counts = np.bincount(statuses, minlength=len(STATUSES)).tolist()
        status_areas = np.bincount(statuses, self._area_m2[chosen_N], len(STATUSES)).tolist()
        return {
            "count": int(counts.sum()),
            "area_m2": float(areas.sum()),
            "transitions": [
                {
                    "from_id": int(self._classes.decode_transition(t)[0]),
                    "to_id": int(self._classes.decode_transition(t)[1]),
                    "count": int(counts[t]),
                    "area_m2": float(areas[t]),
                }
                for t in occurring
            ],
            "statuses": {
                name: {"count": count, "area_m2": area_m2}
                for name, count, area_m2 in zip(STATUSES, status_counts, status_areas, strict=True)
            },
        }

    def find_next(self, wanted: PatchFilter, fid: int | None, step: int) -> int | None:
        """Return the next smaller (`step` 1) or larger (-1) selected patch, if there is one.

        Without `fid`, the largest or the smallest.
        """
        ranks = np.flatnonzero(self._choose(wanted)[self._order])
        if not len(ranks):
            return None
        if fid is None or fid not in self._row_of:
            return int(self._fids[self._order[ranks[0 if step > 0 else -1]]])
        rank = self._rank[self._row_of[fid]]
        side = "right" if step > 0 else "left"
        position = int(np.searchsorted(ranks, rank, side)) - (0 if step > 0 else 1)
        if not 0 <= position < len(ranks):
            return None
        return int(self._fids[self._order[ranks[position]]])

    def describe(self, fid: int) -> dict[str, Any]:
        """Return the facts of an existing patch, its outline as GeoJSON, and its review."""
        row = self._row_of[fid]
        review = self._reviews.get(fid)
        (outline,) = self._read_outlines(np.array([row]))
        west, south, east, north = shapely.bounds(outline).tolist()
        return {
            "fid": fid,
            "rank": int(self._rank[row]) + 1,
            "from_id": int(self._from[row]),
            "to_id": int(self._to[row]),
            "predicted_from_id": int(self._predicted_from[row]),
            "predicted_to_id": int(self._predicted_to[row]),
            "pixels": int(self._pixels[row]),
            "area_m2": float(self._area_m2[row]),
            "confidence": float(self._confidence[row]),
            "bounds": [west, south, east, north],
            "status": STATUSES[self._status[row]],
            "note": review.note if review else "",
            "reviewed_at": review.reviewed_at if review else None,
            "geometry": json.loads(shapely.to_geojson(outline)),
        }

    def draw(
        self, wanted: PatchFilter, bounds: tuple[float, float, float, float], limit: int
    ) -> str:
        """Return the largest of the selected patches that touch a view, as GeoJSON.

        Args:
            wanted: The filter.
            bounds: The view: west, south, east, north in degrees.
            limit: Largest number to return.

        Returns:
            A feature collection whose member `omitted` counts those beyond the limit. A feature's
            id is the patch's fid, its properties are `transition` and `status` of the checked map.
        """
        extent = self._extent
        lows = max(bounds[0], extent[0]), max(bounds[1], extent[1])
        highs = min(bounds[2], extent[2]), min(bounds[3], extent[3])
        if lows[0] >= highs[0] or lows[1] >= highs[1]:
            return '{"type":"FeatureCollection","omitted":0,"features":[]}'
        left, bottom, right, top = transform_bounds(WGS84, self._crs, *lows, *highs)
        units_per_degree = (right - left) / (highs[0] - lows[0])
        min_x, min_y, max_x, max_y = self._bounds_4N
        seen_N = self._choose(wanted)
        seen_N &= (min_x <= right) & (max_x >= left) & (min_y <= top) & (max_y >= bottom)
        rows = np.flatnonzero(seen_N)
        omitted = max(0, len(rows) - limit)
        if omitted:
            rows = rows[np.argpartition(self._rank[rows], limit)[:limit]]
        rows = np.sort(rows)
        transitions = self._classes.encode_transition(self._from[rows], self._to[rows])
        outlines = self._read_outlines(rows, units_per_degree * (bounds[2] - bounds[0]) / VIEW_PX)
        features = (
            f'{{"type":"Feature","id":{fid},"properties":{{"transition":{transition},'
            f'"status":"{STATUSES[status]}"}},"geometry":{geometry}}}'
            for fid, transition, status, geometry, is_gone in zip(
                self._fids[rows].tolist(),
                transitions.tolist(),
                self._status[rows].tolist(),
                shapely.to_geojson(outlines),
                shapely.is_empty(outlines),
                strict=True,
            )
            if not is_gone
        )
        return (
            f'{{"type":"FeatureCollection","omitted":{omitted},"features":[{",".join(features)}]}}'
        )

    def review(
        self,
        fid: int,
        status: str,
        from_id: int | None = None,
        to_id: int | None = None,
        note: str = "",
    ):
        """Save a review of a patch; it is in the GeoPackage when this returns.

        Args:
            fid: The patch, which must exist.
            status: One of `STATUSES`; "unreviewed" without a note removes a review.
            from_id: Class before, for "relabelled".
            to_id: Class after, for "relabelled".
            note: Comment.

        Raises:
            OutputError: If the GeoPackage cannot be written.
        """
        row = self._row_of[fid]
        names = self._classes.names
        if status == "relabelled" and from_id is not None and to_id is not None:
            labels = names[from_id], names[to_id]
        elif status == "accepted":
            labels = names[self._predicted_from[row]], names[self._predicted_to[row]]
        else:
            labels = None, None
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        review = Review(status, *labels, note, moment)
        with self._lock:
            if status == "unreviewed" and not note:
                self._store.delete(fid)
                self._reviews.pop(fid, None)
            else:
                self._store.write(fid, review)
                self._reviews[fid] = review
            self._apply(row, review)

    def _apply(self, row: int, review: Review):
        names = self._classes.names
        self._from[row], self._to[row] = self._predicted_from[row], self._predicted_to[row]
        self._status[row] = STATUSES.index(review.status)
        if review.status == "relabelled":
            require_labels(self._path, int(self._fids[row]), review, self._classes)
            self._from[row] = names.index(review.reviewed_from or "")
            self._to[row] = names.index(review.reviewed_to or "")

    def _choose(self, wanted: PatchFilter) -> np.ndarray:
        """Return the selected patches, (N,) bool."""
        chosen_N = self._area_m2 >= wanted.min_area_m2
        if wanted.min_confidence > 0:
            chosen_N &= self._confidence >= wanted.min_confidence
        if wanted.max_confidence < 1:
            chosen_N &= self._confidence <= wanted.max_confidence
        for ids, column_N in ((wanted.from_ids, self._from), (wanted.to_ids, self._to)):
            if ids is not None:
                chosen_N &= np.isin(column_N, ids)
        if wanted.statuses is not None:
            chosen_N &= np.isin(self._status, [STATUSES.index(name) for name in wanted.statuses])
        return chosen_N

    def _read_outlines(self, rows: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
        """Return some outlines in degrees, simplified by a tolerance in CRS units."""
        if not len(rows):
            return np.array([], dtype=object)
        try:
            # GDAL cannot open the file while a review is written.
            with self._lock:
                _, fids, wkb, _ = read_features(
                    self._path, layer=LAYER, columns=[], fids=self._fids[rows], return_fids=True
                )
            outlines_N = shapely.from_wkb(wkb)
        except (DataSourceError, DataLayerError, FeatureError, ShapelyError) as error:
            raise DataError(
                f"the outlines of patches in {self._path} cannot be read: {error}",
                fix="close other programs that are editing it, and try again",
            ) from error
        require_polygons(self._path, fids.tolist(), outlines_N)
        to_degrees = make_transformer(self._crs.to_wkt(), "EPSG:4326")

        def place(points_N2: np.ndarray) -> np.ndarray:
            degrees = to_degrees.transform(points_N2[:, 0], points_N2[:, 1])
            return np.stack(degrees, axis=1).round(DEGREE_DIGITS)

        # Topology may break invisibly: only parts below a screen pixel vanish.
        outlines = shapely.simplify(outlines_N, tolerance, preserve_topology=False)
        return shapely.transform(outlines, place)
