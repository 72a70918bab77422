"""One piece of ground at two dates, drawn on any grid: what all the pairs show.

Colours are a function of the place on Earth, so rasters of any CRS and resolution agree.

Legend of the array names: C bands, H rows, W columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio.io
from affine import Affine
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
PLANE_PIXEL_M = 10.0
"""Where there is no CRS, coordinates are taken to be pixels of this size on a plane."""
WAVES = 7
NUM_BANDS = 4


@dataclass(frozen=True)
class Frame:
    """A grid as a case describes it; deliberately not the library's `Grid`."""

    crs: str | None
    """What PROJ understands; None without georeference."""
    transform: Affine
    width: int
    height: int

    @classmethod
    def around(
        cls,
        crs: str,
        longitude: float,
        latitude: float,
        pixel: float | tuple[float, float],
        size: tuple[int, int] = (112, 96),
        *,
        turn: float = 0.0,
        shear: float = 0.0,
    ) -> Frame:
        """Return a frame of (columns, rows) about a place; its origin is a multiple of pixels."""
        across, down = (pixel, pixel) if isinstance(pixel, int | float) else pixel
        x, y = longitude, latitude
        if not CRS(crs).is_geographic:
            x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(x, y)
        x, y = round(x / across) * across, round(y / down) * down
        transform = (
            Affine.translation(x, y)
            @ Affine.rotation(turn)
            @ Affine.shear(shear)
            @ Affine.scale(across, -down)
            @ Affine.translation(-(size[0] // 2), -(size[1] // 2))
        )
        return cls(crs, transform, *size)

    def cut(
        self, column: float, row: float, width: int | None = None, height: int | None = None
    ) -> Frame:
        """Return a frame of the same pixels that begins elsewhere."""
        moved = self.transform @ Affine.translation(column, row)
        return Frame(self.crs, moved, width or self.width, height or self.height)

    def zoom(self, pixels: float, width: int, height: int) -> Frame:
        """Return a frame with the same corner, whose pixels are so many of this one's wide."""
        return Frame(self.crs, self.transform @ Affine.scale(pixels), width, height)

    def flip(self) -> Frame:
        """Return the frame of the same pixels, bottom row first."""
        flipped = self.transform @ Affine.translation(0, self.height) @ Affine.scale(1, -1)
        return replace(self, transform=flipped)

    @property
    def runs_against_the_map(self) -> tuple[bool, bool]:
        """Whether rows run to the north, and columns to the west, of a frame that is not turned."""
        t = self.transform
        if self.crs is None or max(abs(t.b), abs(t.d)) > 1e-9 * min(abs(t.a), abs(t.e)):
            return False, False
        return t.e > 0, t.a < 0

    def turn_north_up(self) -> Frame:
        """Return the frame of the same pixels, the northern row and the western column first."""
        is_south_up, is_mirrored = self.runs_against_the_map
        turned = self.flip() if is_south_up else self
        if not is_mirrored:
            return turned
        mirror = Affine.translation(self.width, 0) @ Affine.scale(-1, 1)
        return replace(turned, transform=turned.transform @ mirror)

    def locate(self, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return CRS coordinates of positions in pixels."""
        t = self.transform
        return t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the CRS coordinates of the pixels' centres, each (H, W)."""
        columns, rows = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        return self.locate(columns, rows)


@dataclass(frozen=True)
class Raster:
    """What a raster shows, before it is written in some odd way."""

    frame: Frame
    image_CHW: np.ndarray
    """Stored values of the bands, in their data type."""
    valid_HW: np.ndarray

    def store(self, fill: float) -> np.ndarray:
        """Return the image with a value where nothing is valid."""
        filled = np.where(self.valid_HW, self.image_CHW, np.asarray(fill).astype(self.dtype))
        return filled.astype(self.dtype)

    @property
    def dtype(self) -> np.dtype:
        return self.image_CHW.dtype

    def punch(self) -> Raster:
        """Return it with holes: a disc and a corner."""
        rows, columns = np.mgrid[: self.frame.height, : self.frame.width]
        size = min(self.frame.width, self.frame.height)
        disc = np.hypot(columns - 0.4 * self.frame.width, rows - 0.4 * self.frame.height)
        corner = columns + rows > self.frame.width + self.frame.height - 0.5 * size
        return replace(self, valid_HW=self.valid_HW & (disc > 0.16 * size) & ~corner)

    def turn_north_up(self) -> Raster:
        """Return the raster as a file has it that is written north-up."""
        rows, columns = (
            slice(None, None, -1 if turn else 1) for turn in self.frame.runs_against_the_map
        )
        return replace(
            self,
            frame=self.frame.turn_north_up(),
            image_CHW=self.image_CHW[:, rows, columns],
            valid_HW=self.valid_HW[rows, columns],
        )

    def recode(self, dtype: str, gain: float = 1.0, offset: float = 0.0) -> Raster:
        """Return it with other stored values."""
        recoded_CHW = self.image_CHW.astype(np.float64) * gain + offset
        return replace(self, image_CHW=recoded_CHW.astype(dtype))

    def arrange(self, *bands: int) -> Raster:
        """Return it with these of its bands, counted from 0."""
        return replace(self, image_CHW=self.image_CHW[list(bands)])


def draw(frame: Frame, date: str, pixel_m: float = 10.0) -> Raster:
    """Draw red, green, blue and near infrared of a date, uint8 from 8 to 247.

    Args:
        frame: Where.
        date: "before" or "after".
        pixel_m: Ground size of the coarsest pixels in play; all detail is 12 times that or more.
    """
    place = _place_on_earth(frame)
    is_ground = np.isfinite(place).all(axis=0)
    place = np.where(is_ground, place, 0)
    bands = [
        _sum_waves(place, pixel_m, seed=band) * 0.5
        + _sum_waves(place, pixel_m, seed=band + (10 if date == "before" else 20)) * 0.5
        for band in range(NUM_BANDS)
    ]
    image_CHW = np.clip(np.round(127.5 + 119.5 * np.stack(bands)), 8, 247).astype(np.uint8)
    return Raster(frame, image_CHW, is_ground)


def _place_on_earth(frame: Frame) -> np.ndarray:
    """Return Cartesian coordinates of the pixels' centres in metres, (3, H, W)."""
    x, y = frame.centres()
    if frame.crs is None:
        return np.stack([x * PLANE_PIXEL_M, y * PLANE_PIXEL_M, np.zeros_like(x)])
    longitude, latitude = Transformer.from_crs(frame.crs, 4326, always_xy=True).transform(x, y)
    return np.stack(
        Transformer.from_crs(4326, 4978, always_xy=True).transform(
            longitude, latitude, np.zeros_like(longitude)
        )
    )


def _sum_waves(place: np.ndarray, pixel_m: float, seed: int) -> np.ndarray:
    """Return a sum of plane waves, from -1 to 1 nearly always."""
    random = np.random.default_rng(seed)
    total = np.zeros(place.shape[1:])
    for wavelength_px in np.geomspace(12, 90, WAVES):
        direction = random.normal(size=3)
        direction /= np.linalg.norm(direction)
        phase = np.tensordot(direction, place, axes=1) / (wavelength_px * pixel_m)
        total += np.cos(2 * np.pi * (phase + random.random()))
    return total / np.sqrt(WAVES * 1.5)


def write(
    path: Path,
    raster: Raster,
    *,
    fill: float = 0,
    colours: tuple[ColorInterp, ...] | None = None,
    names: tuple[str, ...] | None = None,
    mask: bool = False,
    extra_HW: np.ndarray | None = None,
    **profile,
) -> Path:
    """Write a raster as a GeoTIFF or whatever `profile` says.

    Args:
        path: Where to.
        raster: What is written.
        fill: What is stored where nothing is valid.
        colours: Colour interpretation of the bands.
        names: Descriptions of the bands.
        mask: Whether to write the validity as the data set's mask.
        extra_HW: One more band after the others, such as alpha.
        profile: Further options of the driver.
    """
    frame = raster.frame
    image_CHW = raster.store(fill)
    if extra_HW is not None:
        image_CHW = np.concatenate([image_CHW, extra_HW[None].astype(raster.dtype)])
    options = {
        "driver": "GTiff",
        "width": frame.width,
        "height": frame.height,
        "count": len(image_CHW),
        "dtype": image_CHW.dtype,
        "crs": frame.crs,
        "transform": None if frame.transform.is_identity else frame.transform,
        **profile,
    }
    options = {name: value for name, value in options.items() if value is not None}
    with open_quietly(path, "w", **options) as dataset:
        if colours is not None:
            dataset.colorinterp = colours
        if names is not None:
            dataset.descriptions = names
        dataset.write(image_CHW)
        if mask:
            dataset.write_mask(raster.valid_HW)
    return path


@contextmanager
def open_quietly(path: Path, mode: str = "r", **options) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a file that may be without a place on the ground."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, mode, **options) as dataset:
            yield dataset
