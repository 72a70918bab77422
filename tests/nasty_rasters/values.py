"""Pairs whose pixels are odd: holes, masks, data types, bands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp

from .cases import Bench, Pair, draw_rgb, home, mapped
from .drawing import RGB, Frame, Raster, draw

RGBA = (*RGB, ColorInterp.alpha)
MOVED = home().cut(6, -4)
"""Other extent, same pixels: no resampling."""
PHASE = home().cut(6.4, -4.3)
"""Other pixels: after is resampled."""


def _pair(bench: Bench, truth: tuple[Raster, Raster], *options: dict, **fields) -> Pair:
    """Write each date with its own options."""
    paths = (
        bench.write(f"{date}.tif", raster, **option)
        for date, raster, option in zip(("before", "after"), truth, options, strict=True)
    )
    return Pair(*paths, truth, **fields)


def _dates(after: Frame = PHASE) -> tuple[Raster, Raster]:
    return draw_rgb(home(), "before"), draw_rgb(after, "after")


def _holed(after: Frame = PHASE) -> tuple[Raster, Raster]:
    before, moved = _dates(after)
    return before.punch(), moved.punch()


def _scaled(truth: tuple[Raster, Raster], dtype: str, gain: float = 1, offset: float = 0):
    before, after = (raster.recode(dtype, gain, offset) for raster in truth)
    return before, after


@mapped
def nodata_before_only(bench: Bench) -> Pair:
    before, after = _dates(MOVED)
    return _pair(bench, (before.punch(), after), {"nodata": 0}, {})


@mapped
def nodata_after_only_resampled(bench: Bench) -> Pair:
    before, after = _dates()
    return _pair(bench, (before, after.punch()), {}, {"nodata": 0})


@mapped
def nodata_differs_between_dates(bench: Bench) -> Pair:
    return _pair(bench, _holed(), {"nodata": 0}, {"nodata": 255, "fill": 255})


@mapped
def nodata_differs_between_bands(bench: Bench) -> Pair:
    before, after = _dates(MOVED)
    pair = _pair(bench, (before, after.punch()), {}, {})
    return replace(pair, after=write_nodata_by_band(bench, pair.truth[1]))


@mapped
def four_bands_without_names(bench: Bench) -> Pair:
    before, after = _dates()
    pair = _pair(bench, (before, after), {}, {})
    four = bench.write("after.tif", draw(after.frame, "after"), photometric="MINISBLACK")
    return replace(pair, after=four)


@mapped
def bands_named_as_sentinel_2_has_them(bench: Bench) -> Pair:
    before, after = _dates()
    pair = _pair(bench, (before, after), {}, {})
    turned = draw(after.frame, "after").arrange(2, 1, 0, 3)
    path = bench.write("after.tif", turned, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("B02", "B03", "B04", "B08")
    return replace(pair, after=path)


@mapped
def nodata_differs_between_bands_resampled(bench: Bench) -> Pair:
    before, after = _dates()
    pair = _pair(bench, (before, after.punch()), {}, {})
    return replace(pair, after=write_nodata_by_band(bench, pair.truth[1]))


@mapped
def nodata_value_in_one_band_is_a_colour(bench: Bench) -> Pair:
    before, after = (raster.punch() for raster in _dates(MOVED))
    for raster in (before, after):
        raster.image_CHW[0, 20:30, 40:60] = 0
    # Where no band but one is nodata, the pixel is a colour without red.
    return replace(_pair(bench, (before, after), {"nodata": 0}, {"nodata": 0}), likeness=None)


@mapped
def nodata_out_of_range_of_the_data_type(bench: Bench) -> Pair:
    before, after = _dates()
    pair = _pair(bench, (before, after), {"nodata": 123}, {"nodata": 123})
    for path in (pair.before, pair.after):
        content = path.read_bytes()
        assert content.count(b"123\0") == 1
        path.write_bytes(content.replace(b"123\0", b"-99\0"))
    return pair


@mapped
def nodata_declared_and_absent(bench: Bench) -> Pair:
    return _pair(bench, _dates(), {"nodata": 0}, {"nodata": 255})


@mapped
def nan_is_nodata(bench: Bench) -> Pair:
    nan = {"nodata": np.nan, "fill": np.nan}
    return _pair(bench, _scaled(_holed(), "float32"), nan, nan)


@mapped
def nan_without_nodata(bench: Bench) -> Pair:
    return _pair(bench, _scaled(_holed(), "float32"), {"fill": np.nan}, {"fill": np.nan})


@mapped
def infinity_without_nodata(bench: Bench) -> Pair:
    truth = _scaled(_holed(MOVED), "float32")
    return _pair(bench, truth, {"fill": np.inf}, {"fill": -np.inf})


@mapped
def nan_in_one_band_only(bench: Bench) -> Pair:
    truth = _scaled(_holed(), "float32")
    pair = _pair(bench, truth, {}, {})
    for raster, path in zip(truth, (pair.before, pair.after), strict=True):
        image_CHW = raster.image_CHW.copy()
        image_CHW[1][~raster.valid_HW] = np.nan
        bench.write(path.name, _whole(raster, image_CHW))
    return pair


@mapped
def float_nodata_of_lowest_float(bench: Bench) -> Pair:
    lowest = {"nodata": -3.4028234663852886e38, "fill": -3.4028234663852886e38}
    return _pair(bench, _scaled(_holed(), "float32"), lowest, lowest)


def _alpha(raster: Raster, opaque: int = 255) -> dict:
    return {"extra_HW": raster.valid_HW * opaque, "colours": RGBA, "fill": 77}


@mapped
def alpha_band_before(bench: Bench) -> Pair:
    before, after = _dates(MOVED)
    before = before.punch()
    return _pair(bench, (before, after), _alpha(before), {})


@mapped
def alpha_bands_resampled(bench: Bench) -> Pair:
    before, after = _holed()
    return _pair(bench, (before, after), _alpha(before), _alpha(after))


@mapped
def alpha_band_of_16_bits(bench: Bench) -> Pair:
    before, after = _scaled(_holed(), "uint16")
    return _pair(bench, (before, after), _alpha(before, 65535), _alpha(after, 65535))


@mapped
def mask_inside_the_file(bench: Bench) -> Pair:
    before, after = _holed()
    bench.exits.enter_context(rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True))
    return _pair(bench, (before, after), {"mask": True, "fill": 77}, {"mask": True, "fill": 77})


@mapped
def mask_in_a_file_beside(bench: Bench) -> Pair:
    before, after = _holed(MOVED)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        pair = _pair(bench, (before, after), {"mask": True}, {"mask": True, "fill": 200})
    assert (bench.folder / "after.tif.msk").is_file()
    return pair


@mapped
def alpha_that_is_really_near_infrared(bench: Bench) -> Pair:
    four = draw(home(), "before"), draw(PHASE, "after")
    pair = _pair(bench, four, {"colours": RGBA}, {"colours": RGBA})
    return replace(pair, truth=(four[0].arrange(0, 1, 2), four[1].arrange(0, 1, 2)))


@mapped
def near_infrared_called_alpha_in_false_colours(bench: Bench) -> Pair:
    four = draw(home(), "before"), draw(PHASE, "after")
    options = {"bands": (4, 1, 2)}
    pair = _pair(bench, four, {"colours": RGBA}, {"colours": RGBA}, options=options)
    return replace(pair, truth=tuple(r.arrange(3, 0, 1) for r in four), bands=(3, 0, 1))


@mapped
def near_infrared_called_alpha_with_nodata(bench: Bench) -> Pair:
    four = draw(home(), "before").punch(), draw(PHASE, "after").punch()
    option = {"colours": RGBA, "nodata": 0}
    pair = _pair(bench, four, option, option)
    return replace(pair, truth=(four[0].arrange(0, 1, 2), four[1].arrange(0, 1, 2)))


@mapped
def alpha_band_of_floats(bench: Bench) -> Pair:
    before, after = _scaled(_holed(), "float32")
    return _pair(bench, (before, after), _alpha(before, 1), _alpha(after, 255))


@mapped
def alpha_after_near_infrared(bench: Bench) -> Pair:
    before, after = draw(home(), "before").punch(), draw(PHASE, "after").punch()
    colours = (*RGB, ColorInterp.undefined, ColorInterp.alpha)
    options = [_alpha(raster) | {"colours": colours} for raster in (before, after)]
    pair = _pair(bench, (before, after), *options)
    return replace(pair, truth=(before.arrange(0, 1, 2), after.arrange(0, 1, 2)))


@mapped
def thirteen_bands_with_nodata(bench: Bench) -> Pair:
    order = (3, 2, 1, 0) * 3 + (3,)
    many = [
        r.recode("uint16").arrange(*order) for r in (draw(home(), "before"), draw(PHASE, "after"))
    ]
    many = [raster.punch() for raster in many]
    option = {"nodata": 0, "photometric": "MINISBLACK"}
    pair = _pair(bench, (many[0], many[1]), option, option, options={"bands": (4, 3, 2)})
    return replace(pair, truth=(many[0].arrange(3, 2, 1), many[1].arrange(3, 2, 1)))


@mapped
def floats_end_within_the_map(bench: Bench) -> Pair:
    truth = _scaled(_dates(home(size=(60, 50), turn=20)), "float32")
    return _pair(bench, truth, {}, {})


@mapped
def sixteen_bits_end_within_the_map(bench: Bench) -> Pair:
    truth = draw(home(), "before"), draw(home(size=(60, 50), turn=20), "after")
    truth = _scaled(truth, "int16")
    grey = {"photometric": "MINISBLACK"}
    pair = _pair(bench, truth, grey, grey, options={"bands": (1, 2, 3)})
    return replace(pair, truth=(truth[0].arrange(0, 1, 2), truth[1].arrange(0, 1, 2)))


@mapped
def palette_before(bench: Bench) -> Pair:
    before, after = _dates(MOVED)
    return _with_palette(bench, before, after, 0)


@mapped
def palette_after_resampled(bench: Bench) -> Pair:
    before, after = _dates()
    return _with_palette(bench, before, after, 1)


@mapped
def palette_with_nodata(bench: Bench) -> Pair:
    before, after = _holed()
    return _with_palette(bench, before, after, 1, nodata=200)


def _with_palette(bench: Bench, before: Raster, after: Raster, date: int, **options) -> Pair:
    """Write one date as indices into a table of 6 x 6 x 6 colours."""
    raster = (before, after)[date]
    steps_CHW = np.round(raster.image_CHW / 51).astype(int)
    index_HW = (steps_CHW * np.array([36, 6, 1])[:, None, None]).sum(axis=0).astype(np.uint8)
    # A place in the table that no colour takes.
    index_HW = np.where(index_HW == 200, 220, index_HW).astype(np.uint8)
    table = {i: (i // 36 * 51, i // 6 % 6 * 51, i % 6 * 51) for i in range(216)}
    table |= {220: table[200], 200: (255, 0, 255)}
    truth = [before, after]
    truth[date] = replace(raster, image_CHW=(steps_CHW * 51).astype(np.uint8))
    pair = _pair(bench, tuple(truth), {}, {})
    path = (pair.before, pair.after)[date]
    indices = replace(raster, image_CHW=index_HW[None])
    bench.write(path.name, indices, fill=200, **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, table)
    if date == 1 and "nodata" in options:
        bench.write("before.tif", before, nodata=0)
    # 51 grey levels between neighbouring colours: rounding of weights counts for more.
    return replace(pair, likeness=0.9)


@mapped
def uint16_in_the_range_of_uint8(bench: Bench) -> Pair:
    return _pair(bench, _scaled(_dates(), "uint16"), {}, {})


@mapped
def uint16_of_12_bits(bench: Bench) -> Pair:
    options = {"value_range": (100, 3925)}
    truth = _scaled(_dates(), "uint16", 15, 100)
    return _pair(bench, truth, {"nbits": 12}, {}, options=options, grey_levels=20)


@mapped
def int16_with_negative_values(bench: Bench) -> Pair:
    options = {"value_range": (-2000, 1825)}
    truth = _scaled(_holed(), "int16", 15, -2000)
    nodata = {"nodata": -32768, "fill": -32768}
    return _pair(bench, truth, nodata, nodata, options=options, grey_levels=20)


@mapped
def float32_fractions(bench: Bench) -> Pair:
    options = {"value_range": (0, 1)}
    truth = _scaled(_dates(), "float32", 1 / 255)
    return _pair(bench, truth, {}, {}, options=options, grey_levels=0.01)


@mapped
def float64(bench: Bench) -> Pair:
    return _pair(bench, _scaled(_dates(), "float64"), {}, {})


@mapped
def uint32(bench: Bench) -> Pair:
    return _pair(bench, _scaled(_dates(), "uint32"), {}, {})


@mapped
def data_type_differs_between_dates(bench: Bench) -> Pair:
    before, after = _dates()
    return _pair(bench, (before.recode("uint16"), after.recode("float32")), {}, {})


@mapped
def three_and_four_bands(bench: Bench) -> Pair:
    before, four = draw_rgb(home(), "before"), draw(PHASE, "after")
    undefined = (*RGB, ColorInterp.undefined)
    pair = _pair(bench, (before, four), {}, {"colours": undefined})
    return replace(pair, truth=(before, four.arrange(0, 1, 2)))


@mapped
def blue_first_by_colour_interpretation(bench: Bench) -> Pair:
    before, after = _dates()
    reversed_before = before.arrange(2, 1, 0)
    pair = _pair(bench, (reversed_before, after), {"colours": RGB[::-1]}, {})
    return replace(pair, truth=(before, after))


@mapped
def bands_named_in_another_order_on_each_date(bench: Bench) -> Pair:
    before, after = draw(home(), "before"), draw(PHASE, "after")
    names = ("Red", "Green", "Blue", "NIR")
    grey = {"photometric": "MINISBLACK"}
    pair = _pair(
        bench,
        (before.arrange(3, 2, 1, 0), after.arrange(1, 3, 0, 2)),
        {"names": names[::-1], **grey},
        {"names": ("Green", "NIR", "Red", "Blue"), **grey},
    )
    return replace(pair, truth=(before.arrange(0, 1, 2), after.arrange(0, 1, 2)))


@mapped
def bands_chosen_by_name(bench: Bench) -> Pair:
    before, after = draw(home(), "before"), draw(PHASE, "after")
    grey = {"photometric": "MINISBLACK"}
    pair = _pair(
        bench,
        (before, after.arrange(3, 0, 2, 1)),
        {"names": ("B04", "B03", "B02", "B08"), **grey},
        {"names": ("B08", "B04", "B02", "B03"), **grey},
        options={"bands": ("B08", "B04", "b03")},
    )
    return replace(pair, truth=tuple(r.arrange(3, 0, 1) for r in (before, after)), bands=(3, 0, 1))


@mapped
def bands_chosen_by_number(bench: Bench) -> Pair:
    four = draw(home(), "before"), draw(PHASE, "after")
    grey = {"photometric": "MINISBLACK"}
    pair = _pair(bench, four, grey, grey, options={"bands": ("4", 3, "2")})
    return replace(pair, truth=tuple(r.arrange(3, 2, 1) for r in four), bands=(3, 2, 1))


@mapped
def one_band_read_three_times(bench: Bench) -> Pair:
    grey = draw(home(), "before").arrange(0), draw(PHASE, "after").arrange(0)
    pair = _pair(bench, grey, {}, {}, options={"bands": (1, 1, 1)})
    truth = grey[0].arrange(0, 0, 0), grey[1].arrange(0, 0, 0)
    return replace(pair, truth=truth, bands=(0, 0, 0), wrong_share=0.01)


def write_nodata_by_band(bench: Bench, raster: Raster) -> Path:
    """Write a virtual raster whose three bands differ in their nodata value."""
    values = (0, 255, 3)
    pairs = zip(raster.image_CHW, values, strict=True)
    image_CHW = np.stack([np.where(raster.valid_HW, band_HW, value) for band_HW, value in pairs])
    path = bench.write("after.tif", _whole(raster, image_CHW.astype(np.uint8)))
    extra = {band: f"<NoDataValue>{value}</NoDataValue>" for band, value in enumerate(values, 1)}
    return write_virtual(path, extra)


def _whole(raster: Raster, image_CHW: np.ndarray) -> Raster:
    """Return a raster without holes."""
    return replace(raster, image_CHW=image_CHW, valid_HW=np.ones_like(raster.valid_HW))


def write_virtual(path: Path, extra: dict[int, str], kinds: dict[int, str] | None = None) -> Path:
    """Write a virtual raster over a file; `extra` is XML put into each band."""
    with rasterio.open(path) as dataset:
        transform = ", ".join(map(repr, dataset.transform.to_gdal()))
        head = f'rasterXSize="{dataset.width}" rasterYSize="{dataset.height}"'
        crs = dataset.crs.to_wkt()
    bands = "".join(
        f'<VRTRasterBand dataType="{(kinds or {}).get(number, "Byte")}" band="{number}">'
        f"<ColorInterp>{colour}</ColorInterp>{xml}"
        f'<SimpleSource><SourceFilename relativeToVRT="1">{path.name}</SourceFilename>'
        f"<SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
        for (number, xml), colour in zip(
            sorted(extra.items()), ("Red", "Green", "Blue"), strict=True
        )
    )
    virtual = path.with_suffix(".vrt")
    virtual.write_text(
        f"<VRTDataset {head}><SRS>{crs.replace('&', '&amp;')}</SRS>"
        f"<GeoTransform>{transform}</GeoTransform>{bands}</VRTDataset>"
    )
    return virtual
