"""Shapes that a drawn place is made of, in pixels of the place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

WATER, GROUND, LOW_VEGETATION, TREE, BUILDING, PLAYGROUND = range(1, 7)

BEFORE, AFTER, BOTH = 1, 2, 3
"""Bits of the dates at which a shape exists."""

BASE, PLOT, RIVER, ROAD, PATH, MARKING, ROOF, ROOF_DETAIL, CROWN = range(9)
"""Drawing order, lowest first."""


@dataclass(slots=True)
class Shape:
    """One polygon with all data for rendering."""

    outline: np.ndarray
    """Vertices (N, 2), x and y in pixels."""
    layer: int
    class_id: int
    """Land cover, 1 to 6."""
    colours: np.ndarray
    """(2, 3) before and after, 0 to 255 under neutral light."""
    texture: tuple[float, float, float, float]
    """Relative amplitudes of the noise fields grain, mottle, patches and canopy."""
    dates: int = BOTH
    height_px: float = 0.0
    """Above ground; shapes above zero cast a shadow."""
    slope: tuple[float, float] = (0.0, 0.0)
    """Direction that the surface falls towards, with the steepness as length; (0, 0) for flat."""
    row_period_px: float = 0.0
    """Distance of crop rows; 0 for none."""
    row_angle: float = 0.0
    """Direction across the rows, radians."""


@dataclass(frozen=True)
class Frame:
    """Maps metres in a place to its pixels: a rotation, a scale and a shift."""

    gsd_m: float
    """Side of a pixel."""
    turn: float
    """Angle of the place's streets to the rows of pixels, radians."""
    centre_px: tuple[float, float]
    """Position of the place's origin, x and y."""

    def to_px(self, points_m: np.ndarray) -> np.ndarray:
        """Return pixel coordinates (N, 2) of points (N, 2) in metres."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return points_m @ np.array([[cos, sin], [-sin, cos]]) / self.gsd_m + self.centre_px


@dataclass(frozen=True)
class Rectangle:
    """A rectangle in metres; `top` is less than `bottom`, as rows count downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Extent along x."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Extent along y."""
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        """Midpoint, x and y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def inset(self, margin_m: float) -> Rectangle:
        """Return it shrunk on all sides, to a size of at least 0."""
        across, down = min(margin_m, 0.45 * self.width), min(margin_m, 0.45 * self.height)
        return Rectangle(
            self.left + across, self.top + down, self.right - across, self.bottom - down
        )

    def split(self, share: float, gap_m: float) -> tuple[Rectangle, Rectangle]:
        """Return the two parts on either side of a gap across the longer side."""
        if self.width >= self.height:
            cut = self.left + share * self.width
            return (
                Rectangle(self.left, self.top, cut - gap_m / 2, self.bottom),
                Rectangle(cut + gap_m / 2, self.top, self.right, self.bottom),
            )
        cut = self.top + share * self.height
        return (
            Rectangle(self.left, self.top, self.right, cut - gap_m / 2),
            Rectangle(self.left, cut + gap_m / 2, self.right, self.bottom),
        )

    def corners(self) -> np.ndarray:
        """Return the outline (4, 2)."""
        return np.array(
            [
                (self.left, self.top),
                (self.right, self.top),
                (self.right, self.bottom),
                (self.left, self.bottom),
            ]
        )


def draw_blob(
    centre: tuple[float, float], radius_m: float, rng: np.random.Generator, *, roughness: float
) -> np.ndarray:
    """Return an irregular round outline (24, 2) in metres."""
    angles = np.arange(24) / 24 * math.tau
    radii = np.ones(24)
    for waves in (2, 3, 5):
        radii += roughness / waves * np.cos(waves * angles + rng.uniform(0, math.tau))
    return np.array(centre) + radius_m * radii[:, None] * np.stack(
        [np.cos(angles), np.sin(angles)], 1
    )


def draw_ribbon(points: np.ndarray, width_m: float) -> np.ndarray:
    """Return the outline of a band of that width along a line (N, 2)."""
    along = np.gradient(points, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    normal *= width_m / 2 / np.linalg.norm(normal, axis=1, keepdims=True)
    return np.concatenate([points + normal, (points - normal)[::-1]])


def square_off(outline: np.ndarray, roundness: float) -> np.ndarray:
    """Return a round outline (N, 2) around the origin, stretched towards its corners.

    Points of the unit circle come to lie on a superellipse; 1 keeps it round, 0 makes a square.
    """
    return np.sign(outline) * np.abs(outline) ** roundness
