"""What is right for a pair, from whole arrays: pyproj, numpy, GDAL's whole-image warp, plain torch.

Nothing of the library is used but the network itself.

Legend of the array names: B batch, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
import torch
from affine import Affine
from pyproj import CRS, Geod, Transformer
from rasterio import features
from rasterio.warp import Resampling, reproject

from .cases import Pair
from .drawing import Frame, Raster

OUTLINE_POINTS = 4000
"""Per side of an outline."""
EDGES = 20_000
"""Of a polygon whose area is measured, at least."""
ROUNDING_PX = 1e-3
SAME_PIXELS_PX = 1e-6
ANY_PLANE = "EPSG:3857"
"""Of rasters without a place, as GDAL warps nothing without a CRS."""
MAX_SIDES_RATIO = 1.2
"""Of pixels that count as square on the ground."""
UNDECIDED = 1e-4
"""Probabilities this close to a tie may go either way by rounding."""


@dataclass(frozen=True)
class Aligned:
    """A raster on the map's grid."""

    image_CHW: np.ndarray
    valid_HW: np.ndarray
    certain_HW: np.ndarray
    """Where no border of the valid pixels is near: there the values must agree."""
    exact: bool
    """Whether no resampling was needed."""


class Oracle:
    """All that is right for a pair."""

    def __init__(self, pair: Pair):
        self.pair = pair

    @cached_property
    def frame(self) -> Frame:
        """The map's grid without an area of interest."""
        return self.pair.frame or find_frame(
            self.pair.truth[0].frame, self.pair.truth[1].frame, self.pair.options.get("grid")
        )

    @cached_property
    def area(self) -> tuple[slice, slice]:
        """Rows and columns of the grid that the prediction covers."""
        if self.pair.aoi is None:
            return slice(0, self.frame.height), slice(0, self.frame.width)
        polygons, crs = self.pair.aoi

        def place(points: np.ndarray) -> np.ndarray:
            return np.stack(_to_pixels(*_project(*points.T, crs, self.frame.crs), self.frame), 1)

        dense = shapely.segmentize(polygons, polygons.length / OUTLINE_POINTS)
        shown = shapely.box(0, 0, self.frame.width, self.frame.height) & shapely.transform(
            dense, place
        )
        columns, rows = shapely.get_coordinates(shown).T
        return _span(rows, self.frame.height), _span(columns, self.frame.width)

    @cached_property
    def inside_HW(self) -> np.ndarray:
        """Where pixels' centres lie in the area of interest and under no mask."""
        if self.pair.left_out_HW is not None:
            return ~self.pair.left_out_HW
        if self.pair.aoi is None:
            return np.ones((self.frame.height, self.frame.width), dtype=bool)
        polygons, crs = self.pair.aoi
        return shapely.contains_xy(polygons, *_project(*self.frame.centres(), self.frame.crs, crs))

    @cached_property
    def dates(self) -> tuple[Aligned, Aligned]:
        """Before and after on the map's grid."""
        before, after = (align(raster, self.frame) for raster in self.pair.truth)
        return before, after

    @cached_property
    def valid_HW(self) -> np.ndarray:
        """Where both dates hold data."""
        return self.dates[0].valid_HW & self.dates[1].valid_HW

    @cached_property
    def certain_HW(self) -> np.ndarray:
        return self.dates[0].certain_HW & self.dates[1].certain_HW

    @property
    def exact(self) -> bool:
        """Whether neither date was resampled."""
        return all(date.exact for date in self.dates)


def find_frame(before: Frame, after: Frame, choice: Any = None) -> Frame:
    """Return the pixels of one grid that the other covers at least in part.

    With a number, pixels of that size in units of the before raster's CRS, edges at multiples.
    """
    base, other = (after, before) if choice == "after" else (before, after)
    if choice in (None, "before", "after"):
        base = _make_square(base.turn_north_up())
    columns, rows = _outline_of_shared(base, other)
    if choice in (None, "before", "after"):
        across, down = _span(columns, base.width), _span(rows, base.height)
        size = across.stop - across.start, down.stop - down.start
        return base.cut(across.start, down.start, *size)
    pixel = float(choice)
    x, y = base.locate(columns, rows)
    left, right = (
        math.floor(x.min() / pixel + ROUNDING_PX),
        math.ceil(x.max() / pixel - ROUNDING_PX),
    )
    bottom, top = (
        math.floor(y.min() / pixel + ROUNDING_PX),
        math.ceil(y.max() / pixel - ROUNDING_PX),
    )
    transform = Affine.translation(left * pixel, top * pixel) @ Affine.scale(pixel, -pixel)
    return Frame(base.crs, transform, right - left, top - bottom)


def _make_square(frame: Frame) -> Frame:
    """Return as many pixels, about, that are square on the ground in the middle."""
    if frame.crs is None:
        return frame
    column, row = frame.width // 2 + 0.5, frame.height // 2 + 0.5
    ends = np.array([column, row])[:, None] + np.array([(-0.5, 0.5, 0, 0), (0, 0, -0.5, 0.5)])
    to_globe = Transformer.from_crs(frame.crs, 4326, always_xy=True)
    longitude, latitude = to_globe.transform(*frame.locate(*ends))
    globe = Geod(ellps="WGS84")
    across_m, down_m = globe.inv(longitude[::2], latitude[::2], longitude[1::2], latitude[1::2])[2]
    if max(across_m, down_m) <= MAX_SIDES_RATIO * min(across_m, down_m):
        return frame
    side_m = math.sqrt(across_m * down_m)
    width = max(1, round(frame.width * across_m / side_m))
    height = max(1, round(frame.height * down_m / side_m))
    scale = Affine.scale(frame.width / width, frame.height / height)
    return Frame(frame.crs, frame.transform @ scale, width, height)


def _outline_of_shared(base: Frame, other: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return points that bound what two frames share, in pixels of the first.

    The outline of what is shared is made of parts of the two outlines.
    """
    found = []
    for mine, theirs in ((base, other), (other, base)):
        outline = _walk_outline(mine)
        for columns, rows in _turned_pixels(*outline, mine, theirs):
            inside = _is_inside(columns, rows, theirs)
            kept = outline if mine is base else (columns, rows)
            found.append(np.stack(kept)[:, inside])
    columns, rows = np.concatenate(found, axis=1)
    return columns, rows


def _walk_outline(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    across = np.linspace(0, frame.width, OUTLINE_POINTS + 1)
    down = np.linspace(0, frame.height, OUTLINE_POINTS + 1)
    columns = np.concatenate([across, across, 0 * down, 0 * down + frame.width])
    rows = np.concatenate([0 * across, 0 * across + frame.height, down, down])
    return columns, rows


def _is_inside(columns: np.ndarray, rows: np.ndarray, frame: Frame) -> np.ndarray:
    slack = SAME_PIXELS_PX
    across = (columns >= -slack) & (columns <= frame.width + slack)
    return across & (rows >= -slack) & (rows <= frame.height + slack)


def _turned_pixels(columns: np.ndarray, rows: np.ndarray, source: Frame, target: Frame):
    """Yield positions of one frame in pixels of another, once per turn of the globe."""
    x, y = _project(*source.locate(columns, rows), source.crs, target.crs)
    is_globe = target.crs is not None and CRS(target.crs).is_geographic
    for turn in (-360, 0, 360) if is_globe else (0,):
        yield _to_pixels(x + turn, y, target)


def _to_pixels(x: np.ndarray, y: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    # What a projection cannot show is outside of every frame.
    x, y = (np.where(np.isfinite(x) & np.isfinite(y), part, 1e30) for part in (x, y))
    t = ~frame.transform
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _project(x: np.ndarray, y: np.ndarray, source: str | None, target: str | None):
    if source == target:
        return x, y
    return Transformer.from_crs(source, target, always_xy=True).transform(x, y)


def _span(positions: np.ndarray, size: int) -> slice:
    start = max(0, math.floor(positions.min() + ROUNDING_PX))
    return slice(start, min(size, math.ceil(positions.max() - ROUNDING_PX)))


def align(raster: Raster, frame: Frame) -> Aligned:
    """Return a raster on a grid: its own pixels where they lie on it, else warped as a whole."""
    raster = raster.turn_north_up()
    own = raster.frame
    columns, rows = _to_pixels(
        *frame.locate(np.array([0, frame.width, 0]), np.array([0, 0, frame.height])), own
    )
    column, row = round(columns[0]), round(rows[0])
    is_shared = (
        own.crs == frame.crs
        and np.allclose(columns, [column, column + frame.width, column], atol=ROUNDING_PX)
        and np.allclose(rows, [row, row, row + frame.height], atol=ROUNDING_PX)
        and min(row, column) >= 0
        and row + frame.height <= own.height
        and column + frame.width <= own.width
    )
    if is_shared:
        part = slice(row, row + frame.height), slice(column, column + frame.width)
        valid_HW = raster.valid_HW[part]
        image_CHW = np.where(valid_HW, raster.image_CHW[:, *part], 0)
        return Aligned(image_CHW, valid_HW, np.ones_like(valid_HW), exact=True)
    return _warp(raster, frame)


def _warp(raster: Raster, frame: Frame) -> Aligned:
    """Warp image and validity apart, bilinearly; a pixel is valid if the nearest one is."""
    place = {
        "src_transform": _face(raster.frame, frame),
        "src_crs": raster.frame.crs or ANY_PLANE,
        "dst_transform": frame.transform,
        "dst_crs": frame.crs or ANY_PLANE,
        "tolerance": 0,
    }
    shape = frame.height, frame.width
    bilinear = place | {"resampling": Resampling.bilinear}
    image_CHW = np.where(raster.valid_HW, raster.image_CHW, 0).astype(np.float64)
    weighted_CHW = np.zeros((len(image_CHW), *shape))
    weight_HW, valid_HW = np.zeros(shape), np.zeros(shape, np.uint8)
    reproject(image_CHW, weighted_CHW, **bilinear)
    reproject(raster.valid_HW.astype(np.float64), weight_HW, **bilinear)
    reproject(raster.valid_HW.astype(np.uint8), valid_HW, **place, resampling=Resampling.nearest)
    is_border = (weight_HW > 1e-3) & (weight_HW < 1 - 1e-3)
    is_border |= _dilate(weight_HW > 0.5) != ~_dilate(weight_HW <= 0.5)
    warped_CHW = weighted_CHW / np.maximum(weight_HW, 1e-3)
    return Aligned(
        np.floor(warped_CHW + 0.5) if raster.dtype.kind in "ui" else warped_CHW,
        valid_HW > 0,
        ~_dilate(is_border),
        exact=False,
    )


def _face(own: Frame, frame: Frame) -> Affine:
    """Return a frame's transform on the turn of the globe where the other frame lies."""
    if own.crs is None or not CRS(own.crs).is_geographic or not CRS(frame.crs).is_geographic:
        return own.transform
    middles = [
        part.locate(np.array(part.width / 2), np.array(part.height / 2))[0] for part in (own, frame)
    ]
    return Affine.translation(360 * round((middles[1] - middles[0]) / 360), 0) @ own.transform


def _dilate(mask_HW: np.ndarray) -> np.ndarray:
    """Return the mask grown by one pixel to all eight sides."""
    padded = np.pad(mask_HW, 1, mode="edge")
    height, width = mask_HW.shape
    grown_HW = np.zeros_like(mask_HW)
    for row in range(3):
        for column in range(3):
            grown_HW |= padded[row : row + height, column : column + width]
    return grown_HW


@torch.inference_mode()
def map_changes(
    model, dates_CHW, valid_HW: np.ndarray, ranges: Sequence[tuple[float, float] | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Run the network once on the whole pair, each date in its own range of values.

    Returns:
        The from-to map without nodata, and where it is decided by more than rounding.
    """
    scaling = model.card.scaling
    mean, std = (np.array(part)[:, None, None] for part in (scaling.mean, scaling.std))
    inputs = []
    for image_CHW, value_range in zip(dates_CHW, ranges, strict=True):
        values = image_CHW.astype(np.float64)
        if value_range is not None:
            low, high = value_range
            values = np.clip((values - low) / (high - low), 0, 1) * scaling.divisor
        scaled = np.where(valid_HW, (values / scaling.divisor - mean) / std, 0)
        inputs.append(torch.from_numpy(scaled[None].astype(np.float32)))
    output = model.network(*inputs)
    change = torch.sigmoid(output.change_logits)[0].numpy()
    threshold = model.card.change_threshold
    decided = np.abs(change - threshold) > UNDECIDED
    label = []
    for logits in (output.before_logits, output.after_logits):
        probability_KHW = torch.softmax(logits, dim=1)[0].numpy()
        ranked = np.sort(probability_KHW, axis=0)
        decided &= (change < threshold) | (ranked[-1] - ranked[-2] > UNDECIDED)
        label.append(probability_KHW.argmax(axis=0) + 1)
    transition = label[0] * (model.card.classes.num_classes + 1) + label[1]
    return np.where(change >= threshold, transition, 0), decided


def measure_area_m2(valid_HW: np.ndarray, frame: Frame) -> float:
    """Return the ground area of pixels by the polygons around them, with geodesic edges."""
    to_globe = Transformer.from_crs(frame.crs, 4326, always_xy=True)
    globe = Geod(ellps="WGS84")
    total_m2 = 0.0
    for shape, _ in features.shapes(valid_HW.astype(np.uint8), mask=valid_HW):
        rings = [shapely.LinearRing(ring) for ring in shape["coordinates"]]
        # Short edges, as parallels and edges of pixels are no geodesics.
        longest_px = min(0.25, sum(ring.length for ring in rings) / EDGES)
        for number, ring in enumerate(rings):
            columns, rows = shapely.get_coordinates(shapely.segmentize(ring, longest_px)).T
            positions = to_globe.transform(*frame.locate(columns, rows))
            area_m2, _ = globe.polygon_area_perimeter(*positions)
            total_m2 += -abs(area_m2) if number else abs(area_m2)
    return total_m2
