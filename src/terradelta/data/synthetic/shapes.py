"""Shapes of a drawn place and the frame that puts metres on the ground into pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

WATER, GROUND, LOW_VEGETATION, TREE, BUILDING, PLAYGROUND = range(1, 7)

BEFORE, AFTER, BOTH = 1, 2, 3
"""Bits that say at which date a shape is there."""

# Drawing order, lowest first. A plot laid over another one adds OVERLAY to its first two layers.
BASE, PLOT, DETAIL, OVERLAY, RIVER, ROAD, MARKING, CAR, ROOF, ROOF_DETAIL, CROWN = (
    *(0, 10, 11, 2, 19, 20, 22, 23, 24, 25, 26),
)

FLAT, GABLE, HIP, DOME = range(4)
"""How a shape's surface turns to the sun."""

Rectangle = tuple[float, float, float, float]
"""West, north, east, south in metres; north is less than south, as rows run."""


@dataclass(slots=True)
class Shape:
    """One polygon with everything that rendering it needs. Lengths are in pixels."""

    outline: np.ndarray
    """Vertices (N, 2), x and y, whole pixels of the place."""
    layer: int
    class_id: int
    dates: int
    """Bits BEFORE and AFTER."""
    colours: np.ndarray
    """(2, 3): before and after."""
    texture: tuple[float, float, float, float]
    centre: tuple[float, float] = (0.0, 0.0)
    axis: tuple[float, float] = (1.0, 0.0)
    """Unit vector along the shape's length: of a ridge, of crop rows."""
    row_period: float = 0.0
    row_strength: tuple[float, float] = (0.0, 0.0)
    """Relative amplitude of rows across the axis, before and after."""
    relief: int = FLAT
    half_size: tuple[float, float] = (1.0, 1.0)
    """Half the extent along and across the axis."""
    height: float = 0.0
    """Above ground; what is higher than zero casts a shadow."""


@dataclass(frozen=True)
class Frame:
    """From metres in a place to its pixels: a gentle bend, a turn, a scale and a shift."""

    gsd_m: float
    """Side of a pixel."""
    turn: float
    """Angle of the place's streets to the rows of pixels, radians."""
    bend_m: tuple[float, float]
    """Amplitudes of the bend across x and across y."""
    bend_length_m: tuple[float, float]
    bend_phase: tuple[float, float]
    origin_px: tuple[float, float]

    def to_px(self, points_m: np.ndarray) -> np.ndarray:
        """Return pixel coordinates (N, 2) of points (N, 2) in metres."""
        x_m, y_m = points_m[:, 0], points_m[:, 1]
        (bend_x, bend_y), (length_x, length_y) = self.bend_m, self.bend_length_m
        bent_x = x_m + bend_x * np.sin(math.tau / length_x * y_m + self.bend_phase[0])
        bent_y = y_m + bend_y * np.sin(math.tau / length_y * x_m + self.bend_phase[1])
        cos, sin = math.cos(self.turn) / self.gsd_m, math.sin(self.turn) / self.gsd_m
        points_px = np.empty_like(points_m)
        points_px[:, 0] = cos * bent_x - sin * bent_y + self.origin_px[0]
        points_px[:, 1] = sin * bent_x + cos * bent_y + self.origin_px[1]
        return points_px

    def heading(self, x_m: float, y_m: float) -> float:
        """Return the angle in pixels, in radians, of the direction +x at a point."""
        length = self.bend_length_m[1]
        slope = math.cos(math.tau / length * x_m + self.bend_phase[1])
        return self.turn + math.atan(self.bend_m[1] * math.tau / length * slope)

    def unbend_m(self, points_px: np.ndarray) -> np.ndarray:
        """Return metres (N, 2) of pixels, up to the amplitudes of the bend."""
        x, y = (points_px - np.array(self.origin_px)).T * self.gsd_m
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return np.stack([cos * x + sin * y, cos * y - sin * x], axis=1)

    def bounds_px(self, rectangle: Rectangle) -> tuple[float, float, float, float]:
        """Return the least and greatest x and y in pixels that a rectangle in metres reaches."""
        points_px = self.to_px(edge_points(rectangle, steps=4))
        (left, top), (right, bottom) = points_px.min(0), points_px.max(0)
        return left, top, right, bottom


def edge_points(rectangle: Rectangle, steps: int) -> np.ndarray:
    """Return points (4 * steps, 2) along a rectangle's outline, so that it can bend."""
    west, north, east, south = rectangle
    t = np.arange(steps) / steps
    east_edge = np.stack([np.full(steps, east), north + (south - north) * t], 1)
    west_edge = np.stack([np.full(steps, west), south + (north - south) * t], 1)
    north_edge = np.stack([west + (east - west) * t, np.full(steps, north)], 1)
    south_edge = np.stack([east + (west - east) * t, np.full(steps, south)], 1)
    return np.concatenate([north_edge, east_edge, south_edge, west_edge])


def inset(rectangle: Rectangle, margin_m: float) -> Rectangle:
    """Return a rectangle moved in on all sides, never turned inside out."""
    west, north, east, south = rectangle
    across, down = min(margin_m, 0.45 * (east - west)), min(margin_m, 0.45 * (south - north))
    return west + across, north + down, east - across, south - down
