"""Rasters, images and masks that are whole and odd."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

CRS_TEXTS = (
    *("EPSG:32632", "EPSG:32632", "EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:3035"),
    *("EPSG:4978", "EPSG:5703", "EPSG:2056", "EPSG:3995", "EPSG:32761", "EPSG:2193", "EPSG:27700"),
    *("ESRI:54009", "ESRI:53009", "IAU_2015:30100", "IAU_2015:49900", "IAU_2015:50210"),
    'LOCAL_CS["site grid",UNIT["metre",1]]',
    'ENGCRS["pit",EDATUM["pit"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
    "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39 +lon_0=18 +to_meter=0.0174532925199433",
    "+proj=geos +h=35785831 +lon_0=-75 +sweep=x +units=m",
    "+proj=tmerc +lat_0=0 +lon_0=9 +k=1 +x_0=0 +y_0=0 +R=1737400 +units=m",
    "+proj=longlat +R=1560800 +no_defs",
    "+proj=laea +lat_0=90 +units=us-ft",
    "+proj=igh",
)
SIZES = ((96, 128), (96, 128), (1, 1), (1, 128), (96, 1), (7, 5), (300, 40))
TYPES = ("uint8", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
NODATA = (None, None, 0, 255, -9999, math.nan, math.inf, 1e300, 7)
PLAIN = Affine(0.5, 0, 500_000, 0, -0.5, 5_250_000)
COLOURS = (
    *(ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha, ColorInterp.gray),
    *(ColorInterp.undefined, ColorInterp.palette),
)


ASPECTS = ("size", "count", "type", "values", "storage", "colours", "nodata", "mask", "tags")
Place = dict[str, Any]


def draw_place(random: Random) -> Place:
    """Return a transform and a CRS that are odd, or one of them."""
    odd = random.choice(("crs", "transform", "transform", "both"))
    place: Place = {"transform": PLAIN, "crs": CRS.from_epsg(32632)}
    if odd != "crs":
        place["transform"] = _draw_transform(random)
    if odd != "transform":
        place["crs"] = _draw_crs(random)
    return place


def write_odd_raster(random: Random, path: Path, place: Place | None = None):
    """Write a raster that is odd in some ways.

    Args:
        random: What draws them.
        path: Where to write it.
        place: Where it lies; on plain ground by default.
    """
    odd = set(random.sample(ASPECTS, random.choice((0, 1, 1, 2, 3) if place else (1, 1, 2, 3))))
    height, width = random.choice(SIZES) if "size" in odd else (96, 128)
    count = random.choice((1, 2, 4, 5, 13)) if "count" in odd else 3
    dtype = random.choice(TYPES) if "type" in odd else "uint8"
    drawing = np.random.default_rng(random.randrange(2**32))
    values_CHW = _draw_values(random, drawing, (count, height, width), dtype, "values" in odd)
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": dtype}
    profile |= place or {"transform": PLAIN, "crs": CRS.from_epsg(32632)}
    profile |= _draw_storage(random) if "storage" in odd else {}
    nodata = random.choice(NODATA) if "nodata" in odd else None
    try:
        _write(random, path, values_CHW, {**profile, "nodata": nodata}, odd)
    except (RasterioError, ValueError, OverflowError):
        # Not even GDAL takes this nodata value, type or CRS.
        plain = {key: profile[key] for key in ("driver", "count", "height", "width")}
        _write(random, path, values_CHW.astype("float32"), {**plain, "dtype": "float32"}, odd)


def _write(random: Random, path: Path, values_CHW: np.ndarray, profile: Place, odd: set[str]):
    count = profile["count"]
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=random.random() < 0.5),
        rasterio.open(path, "w", **profile) as target,
    ):
        if "colours" in odd:
            target.colorinterp = [random.choice(COLOURS) for _ in range(count)]
            target.descriptions = ("B02", "B03", "red", "", "nir08", *"xxxxxxxxx")[:count]
        else:
            target.colorinterp = (*COLOURS[:4], *COLOURS[5:6] * 9)[:count]
        if "values" not in odd or random.random() < 0.9:
            target.write(values_CHW)
        if "mask" in odd:
            target.write_mask(np.random.default_rng(0).random(values_CHW.shape[1:]) < 0.5)
        if "tags" in odd:
            factor = random.choice((0.0, -1.0, 1e-4, math.nan, math.inf))
            target.scales = (factor,) * count
            target.offsets = (random.choice((0.0, -0.1, math.nan, 1e300)),) * count
            target.update_tags(TIFFTAG_DATETIME=random.choice(("", "0000:00:00 00:00:00", "x")))


def _draw_values(
    random: Random,
    drawing: np.random.Generator,
    shape: tuple[int, ...],
    dtype: str,
    is_odd: bool,
) -> np.ndarray:
    kind = np.dtype(dtype)
    largest = np.iinfo(kind).max if kind.kind in "iu" else 1e30
    high = largest if is_odd and random.random() < 0.5 else min(255, largest)
    values_CHW = (drawing.random(shape) * high).astype(kind)
    if not is_odd:
        return values_CHW
    match random.randrange(6):
        case 0:
            values_CHW[:] = random.choice((0, 1))
        case 1:
            values_CHW[..., : shape[-1] // 2] = 0
        case 2 if kind.kind == "f":
            values_CHW[drawing.random(shape) < 0.3] = random.choice(
                (math.nan, math.inf, -math.inf, -3.4e38)
            )
    return values_CHW


def _draw_transform(random: Random) -> Affine:
    odd = (
        Affine.identity(),
        Affine(0.5, 0, 500_000, 0, 0.5, 5_250_000),
        Affine(-0.5, 0, 500_064, 0, -0.5, 5_250_000),
        PLAIN @ Affine.rotation(30),
        PLAIN @ Affine.shear(20),
        Affine(0.000005, 0, 9, 0, -0.0000045, 47.4),
        Affine(0.5, 0, 9, 0, -0.5, 47.4),
        Affine(0.5, 0, 179.9, 0, -0.5, 89.9),
        Affine(10, 0, 1e9, 0, -10, 1e9),
        Affine(1e-12, 0, 500_000, 0, -1e-12, 5_250_000),
        Affine(1e12, 0, 500_000, 0, -1e12, 5_250_000),
        Affine(0, 0, 500_000, 0, 0, 5_250_000),
        Affine(0.5, 0.5, 500_000, 0.5, 0.5, 5_250_000),
        Affine(math.nan, 0, 500_000, 0, -0.5, 5_250_000),
        Affine(0.5, 0, math.inf, 0, -0.5, 5_250_000),
        Affine(0.5, 0, 500_000.25, 0, -0.7, 5_250_000.1),
    )
    return random.choice(odd)


def _draw_storage(random: Random) -> dict:
    return random.choice(
        (
            *({}, {}, {"compress": "deflate"}, {"compress": "lzw", "interleave": "band"}),
            *({"tiled": True, "blockxsize": 16, "blockysize": 16}, {"sparse_ok": True}),
            *({"bigtiff": "yes"}, {"nbits": 1}, {"photometric": "rgb"}, {"photometric": "cmyk"}),
        )
    )


def _draw_crs(random: Random) -> CRS | None:
    text = random.choice(CRS_TEXTS)
    try:
        return CRS.from_string(text) if ":" in text else CRS.from_user_input(text)
    except RasterioError:
        return None


def write_odd_image(random: Random, path: Path):
    """Write an image or a mask of another size, mode or content than its neighbours."""
    drawing = np.random.default_rng(random.randrange(2**32))
    size = random.choice(((64, 64), (64, 64), (64, 64), (1, 1), (63, 64), (0, 0), (400, 3)))
    mode = random.choice(("L", "RGB", "RGBA", "P", "1", "LA", "I;16", "I", "F", "CMYK"))
    ids_HW = drawing.integers(0, random.choice((2, 7, 8, 256)), size, np.uint8)
    if random.random() < 0.3:
        ids_HW[:] = random.choice((0, 1, 6, 7, 255))
    if 0 in size:
        path.write_bytes(b"")
        return
    image = Image.fromarray(ids_HW)
    image = image if mode == "L" else _convert(image, mode)
    kind = random.choice(("PNG", "PNG", "PNG", "TIFF", "JPEG", "BMP", "GIF"))
    try:
        image.save(path, kind)
    except (OSError, ValueError, KeyError):
        # This format has no such mode.
        image.convert("L").save(path, "PNG")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    if mode == "LA":
        return Image.merge("LA", (image, image))
    if mode == "P":
        paletted = image.copy()
        paletted.putpalette([value % 256 for value in range(768)])
        return paletted
    return image.convert(mode)
