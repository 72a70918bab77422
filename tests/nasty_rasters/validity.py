"""Pairs whose holes are said in several ways at once: mask x nodata x alpha x type x grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp

from .cases import MAPPED, Bench, Pair, draw_rgb, home, mapped
from .drawing import RGB, Frame, Raster, draw
from .oracle import find_frame
from .values import MOVED, PHASE, RGBA

DEGREES = Frame.around("EPSG:4326", 11.98, 48.1, (0.00013, 0.00009))


@dataclass(frozen=True)
class Holes:
    """How one date says where it holds no data."""

    nodata: str = ""
    """"all", "one" or "nan" of the bands, "given" by the user."""
    mask: str = ""
    """"internal" or "beside"."""
    alpha: str = ""
    """"true", "255" in 16 bits, "fraction" in floats, "false"."""
    dtype: str = "uint8"
    source: str = "file"
    """"file", "joined", "virtual" or "mosaic"."""
    frame: Frame = MOVED


PLAIN = Holes(frame=home())
CASES = {
    "nodata_and_mask": (PLAIN, Holes("all", "internal")),
    "nodata_and_mask_before": (Holes("all", "internal", frame=home()), Holes(frame=PHASE)),
    "nodata_and_mask_resampled": (PLAIN, Holes("all", "internal", frame=PHASE)),
    "nodata_and_mask_beside": (PLAIN, Holes("all", "beside")),
    "nodata_and_mask_beside_resampled": (PLAIN, Holes("all", "beside", frame=PHASE)),
    "nodata_and_mask_in_another_crs": (PLAIN, Holes("all", "internal", frame=DEGREES)),
    "nodata_mask_and_alpha": (PLAIN, Holes("all", "internal", "true")),
    "nodata_mask_and_alpha_resampled": (PLAIN, Holes("all", "internal", "true", frame=PHASE)),
    "nodata_and_alpha_in_another_crs": (PLAIN, Holes("all", "", "true", frame=DEGREES)),
    "mask_beside_alpha": (PLAIN, Holes("", "internal", "true", frame=PHASE)),
    "mask_beside_false_alpha": (PLAIN, Holes("", "internal", "false")),
    "mask_beside_false_alpha_resampled": (PLAIN, Holes("", "beside", "false", frame=PHASE)),
    "nodata_mask_and_false_alpha": (
        Holes("all", "internal", "false", frame=home()),
        Holes("all", "beside", "false", frame=PHASE),
    ),
    "alpha_of_16_bits_and_8_bit_values": (PLAIN, Holes("", "", "255", "uint16")),
    "alpha_of_16_bits_and_8_bit_values_resampled": (
        Holes("", "", "255", "uint16", frame=home()),
        Holes("one", "internal", "255", "uint16", frame=PHASE),
    ),
    "alpha_of_float_fractions_and_mask": (
        PLAIN,
        Holes("nan", "internal", "fraction", "float32", frame=PHASE),
    ),
    "nodata_in_one_band_of_floats": (PLAIN, Holes("one", "", "", "float32")),
    "nodata_in_one_band_of_floats_resampled": (
        Holes("one", "internal", "", "float32", frame=home()),
        Holes("one", "", "", "float32", frame=PHASE),
    ),
    "nodata_in_one_band_of_16_bits": (PLAIN, Holes("one", "beside", "", "int16", frame=DEGREES)),
    "nodata_of_one_of_joined_files": (PLAIN, Holes("one", "", "", "uint8", "joined")),
    "nodata_of_one_of_joined_files_resampled": (
        PLAIN,
        Holes("one", "internal", "", "uint8", "joined", PHASE),
    ),
    "masks_of_joined_files_with_alpha": (
        PLAIN,
        Holes("all", "internal", "true", "uint16", "joined", PHASE),
    ),
    "nodata_and_mask_of_a_virtual_raster": (
        PLAIN,
        Holes("all", "internal", "", "uint8", "virtual", PHASE),
    ),
    "nodata_mask_and_alpha_of_a_mosaic": (
        PLAIN,
        Holes("all", "internal", "true", "uint8", "mosaic"),
    ),
    "nodata_in_one_band_of_a_mosaic_resampled": (
        PLAIN,
        Holes("one", "beside", "", "float32", "mosaic", PHASE),
    ),
    "nodata_that_is_given": (PLAIN, Holes("given")),
    "nodata_that_is_given_beside_a_mask": (PLAIN, Holes("given", "internal", frame=PHASE)),
    "nodata_that_is_given_of_a_mosaic": (
        PLAIN,
        Holes("given", "", "true", "uint16", "mosaic", PHASE),
    ),
}


def _build(bench: Bench, before: Holes, after: Holes) -> Pair:
    dates = {"before": before, "after": after}
    rasters, sources = [], []
    for date, holes in dates.items():
        raster, source = _write(bench, date, holes)
        rasters.append(raster)
        sources.append(source)
    given = tuple(0 if holes.nodata == "given" else None for holes in dates.values())
    options: dict = {"nodata": given} if any(value is not None for value in given) else {}
    return Pair(*sources, (rasters[0], rasters[1]), options=options)


def _write(bench: Bench, date: str, holes: Holes) -> tuple[Raster, str | Path | list[Path]]:
    """Write a date, and return what it shows and what is given to the library."""
    four = draw(holes.frame, date).recode(holes.dtype)
    image_CHW, valid_HW = four.image_CHW.copy(), four.valid_HW
    rows, columns = np.mgrid[: four.frame.height, : four.frame.width]
    in_value = np.hypot(rows - 40, columns - 40) < 15
    in_mask = (rows > 50) & (rows < 70) & (columns > 20)
    in_alpha = (columns > 80) & (columns < 92) & (rows < 60)
    value = {"nan": np.nan, "one": -9999}.get(holes.nodata, 0)
    value = 0 if holes.dtype in ("uint8", "uint16") else value
    if holes.nodata:
        image_CHW[1 if holes.nodata == "one" else slice(None), in_value] = value
        valid_HW = valid_HW & ~in_value
    options: dict = {"colours": RGB}
    if holes.nodata not in ("", "given"):
        options["nodata"] = value
    if holes.alpha:
        opaque = {"255": 255, "fraction": 1}.get(holes.alpha, 0)
        if holes.alpha == "true":
            opaque = np.iinfo(holes.dtype).max
        alpha_HW = np.where(in_alpha, 0, opaque) if opaque else four.image_CHW[3]
        valid_HW = valid_HW & ~(in_alpha & (opaque > 0))
        options |= {"colours": RGBA, "extra_HW": alpha_HW}
    # Written where the mask alone is not valid: what is said otherwise lies in the pixels.
    stored = replace(four.arrange(0, 1, 2), image_CHW=image_CHW[:3])
    if holes.mask:
        options["mask"] = True
        valid_HW = valid_HW & ~in_mask
        stored = replace(stored, valid_HW=~in_mask)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=holes.mask == "internal"):
        source = _store(bench, date, stored, holes.source, options)
    shown = replace(four.arrange(0, 1, 2), valid_HW=valid_HW)
    return shown, source


def _store(bench: Bench, date: str, raster: Raster, source: str, options: dict):
    """Write a raster as a file, one for each band, a virtual raster or a mosaic."""
    fill = {"fill": 77}
    if source == "joined":
        colours = {"colours": (ColorInterp.gray,)}
        if "extra_HW" in options:
            colours = {"colours": (ColorInterp.gray, ColorInterp.alpha)}
        paths = [
            bench.write(f"{date}{band}.tif", raster.arrange(band), **options | colours | fill)
            for band in range(3)
        ]
        return " + ".join(map(str, paths))
    if source == "mosaic":
        paths = []
        for number, part in enumerate((slice(0, 47), slice(47, raster.frame.width))):
            frame = raster.frame.cut(part.start, 0, part.stop - part.start)
            piece = Raster(frame, raster.image_CHW[..., part], raster.valid_HW[:, part])
            own = {name: option for name, option in options.items() if name != "extra_HW"}
            if "extra_HW" in options:
                own["extra_HW"] = options["extra_HW"][:, part]
            paths.append(bench.write(f"{date}{number}.tif", piece, **own | fill))
        return paths
    path = bench.write(f"{date}.tif", raster, **options | fill)
    if source == "virtual":
        rasterio.shutil.copy(path, path.with_suffix(".vrt"), driver="VRT")
        return path.with_suffix(".vrt")
    return path


MAPPED.update({name: partial(_build, before=a, after=b) for name, (a, b) in CASES.items()})


def _mask(bench: Bench, name: str, frame: Frame, values_HW: np.ndarray, **options) -> Path:
    valid_HW = np.ones(values_HW.shape, bool)
    return bench.write(name, Raster(frame, values_HW[None], valid_HW), **options)


@mapped
def clouds_of_one_date_are_left_out(bench: Bench) -> Pair:
    pair = bench.pair(home(), PHASE)
    frame = find_frame(home(), PHASE)
    clouds_HW = np.zeros((frame.height, frame.width), np.uint8)
    clouds_HW[20:40, 30:70] = 255
    mask = _mask(bench, "clouds.tif", frame, clouds_HW, nodata=0)
    return replace(pair, options={"mask": (None, mask)}, left_out_HW=clouds_HW > 0)


@mapped
def scene_classes_of_coarser_pixels_are_left_out(bench: Bench) -> Pair:
    pair = bench.pair(home(), MOVED)
    frame = find_frame(home(), MOVED)
    coarse = frame.cut(-1.3, -2.7).zoom(2, 40, 60)
    classes_HW = np.random.default_rng(0).integers(2, 12, (60, 40)).astype(np.uint8)
    rows, columns = np.mgrid[: frame.height, : frame.width]
    row, column = ((rows + 0.5 + 2.7) // 2).astype(int), ((columns + 0.5 + 1.3) // 2).astype(int)
    inside_HW = (row < 60) & (column < 40)
    nearest_HW = classes_HW[np.minimum(row, 59), np.minimum(column, 39)]
    mask = _mask(bench, "classes.tif", coarse, classes_HW)
    return replace(
        pair,
        options={"mask": mask, "mask_values": "scl"},
        left_out_HW=inside_HW & np.isin(nearest_HW, (3, 8, 9, 10)),
    )


@mapped
def quality_bits_of_each_date_are_left_out(bench: Bench) -> Pair:
    frame = home()
    pair = bench.pair(frame, frame)
    bits_HW = np.full((frame.height, frame.width), 1 << 6, np.uint16)
    before_HW, after_HW = bits_HW.copy(), bits_HW.copy()
    before_HW[:30, :50] |= 1 << 3
    after_HW[60:, 60:] |= 1 << 4
    after_HW[:20] |= 1 << 7
    masks = _mask(bench, "qa1.tif", frame, before_HW), _mask(bench, "qa2.tif", frame, after_HW)
    left_out_HW = ((before_HW | after_HW) & 0b11000) > 0
    options = {"mask": masks, "mask_values": "bits:3,4"}
    return replace(pair, options=options, left_out_HW=left_out_HW)


@mapped
def impossible_floats_that_nothing_declares(bench: Bench) -> Pair:
    before, after = draw_rgb(home(), "before"), draw_rgb(PHASE, "after")
    after = after.recode("float32").punch()
    lowest = {"fill": np.finfo("float32").min}
    paths = bench.write("before.tif", before), bench.write("after.tif", after, **lowest)
    return Pair(*paths, (before, after))
