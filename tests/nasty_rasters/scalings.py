"""Pairs whose stored numbers are not their values: scales, offsets, ranges that differ by date."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp

from .cases import Bench, Pair, Refusal, draw_rgb, home, mapped, refused
from .drawing import RGB, Raster, open_quietly
from .values import MOVED, PHASE, write_virtual

UNIT = 0.0016
"""Of reflectance, a grey level of the drawing: 16 stored numbers at a scale of 1e-4."""
RANGE = (0.0, 255 * UNIT)
"""Of reflectance, what the model knows."""
MIXED = MOVED.cut(0, 0, 60), MOVED.cut(60, 0, 52)
"""The two halves of a mosaic."""


@dataclass(frozen=True)
class Code:
    """How drawn numbers are stored and what their tags say."""

    gain: float = 16
    shift: float = 0
    scale: float | tuple[float, ...] = 1e-4
    offset: float | tuple[float, ...] = 0.0
    dtype: str = "uint16"

    def store(self, raster: Raster) -> Raster:
        return raster.recode(self.dtype, self.gain, self.shift)

    def read(self, raster: Raster) -> Raster:
        """Return what the raster shows by its tags."""
        stored_CHW = self.store(raster).image_CHW.astype(np.float64)
        scales, offsets = self.by_band(len(stored_CHW))
        values_CHW = stored_CHW * scales[:, None, None] + offsets[:, None, None]
        return replace(raster, image_CHW=values_CHW.astype(np.float32))

    def by_band(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full(count, self.scale), np.full(count, self.offset)

    def tag(self, path: Path):
        with open_quietly(path, "r+") as dataset:
            scales, offsets = self.by_band(dataset.count)
            dataset.scales, dataset.offsets = tuple(scales), tuple(offsets)


OLD = Code()
NEW = Code(shift=1000, offset=-0.1)
"""Sentinel-2 before and since processing baseline 04.00."""


def _dates(after=PHASE) -> tuple[Raster, Raster]:
    return draw_rgb(home(), "before"), draw_rgb(after, "after")


def _write(bench: Bench, name: str, raster: Raster, code: Code | None, **options) -> Path:
    path = bench.write(name, raster if code is None else code.store(raster), **options)
    if code is not None:
        code.tag(path)
    return path


def _pair(
    bench: Bench, dates: tuple[Raster, Raster], codes: tuple[Code, Code], *options: dict, **fields
) -> Pair:
    """Write each date in its own code, read by the range of reflectance."""
    parts = list(zip(("before.tif", "after.tif"), dates, codes, strict=True))
    paths = [
        _write(bench, *part, **option)
        for part, option in zip(parts, options or ({}, {}), strict=True)
    ]
    truth = codes[0].read(dates[0]), codes[1].read(dates[1])
    given = {"options": {"value_range": RANGE}, "grey_levels": 2 * UNIT} | fields
    return Pair(*paths, truth, **given)


@mapped
def scales_of_both_dates(bench: Bench) -> Pair:
    return _pair(bench, _dates(MOVED), (OLD, OLD))


@mapped
def offset_of_the_after_date(bench: Bench) -> Pair:
    return _pair(bench, _dates(MOVED), (OLD, NEW))


@mapped
def offset_of_the_before_date_resampled(bench: Bench) -> Pair:
    return _pair(bench, _dates(), (NEW, OLD))


@mapped
def scale_of_the_after_date_only(bench: Bench) -> Pair:
    dates = _dates()
    options = {"value_range": (0, 255), "after_value_range": RANGE}
    pair = _pair(bench, dates, (NEW, NEW), options=options)
    before = bench.write("before.tif", dates[0])
    return replace(pair, before=before, truth=(dates[0], pair.truth[1]))


@mapped
def scales_and_offsets_differ_between_bands(bench: Bench) -> Pair:
    code = Code(16, 1000, (1e-4, 2e-4, 5e-5), (-0.1, -0.2, 0.0))
    options = {"value_range": (0, 0.8)}
    return _pair(bench, _dates(), (code, code), options=options, grey_levels=0.008)


@mapped
def scale_of_8_bits(bench: Bench) -> Pair:
    code = Code(1, 0, UNIT, 0.0, "uint8")
    return _pair(bench, _dates(), (code, NEW))


@mapped
def scale_that_is_negative(bench: Bench) -> Pair:
    code = Code(-16, 5000, -1e-4, 0.5)
    return _pair(bench, _dates(), (code, OLD))


@mapped
def scale_of_negative_numbers(bench: Bench) -> Pair:
    code = Code(16, -3000, 1e-4, 0.3, "int16")
    return _pair(bench, _dates(), (OLD, code))


@mapped
def scale_of_floats(bench: Bench) -> Pair:
    code = Code(1, 0, UNIT, 0.0, "float64")
    return _pair(bench, _dates(), (code, code))


@mapped
def scale_of_32_bits(bench: Bench) -> Pair:
    """Numbers that float32 cannot tell apart."""
    code = Code(16, 2**31, 1e-4, -(2**31) * 1e-4, "uint32")
    return _pair(bench, _dates(), (code, code))


@mapped
def scale_with_nodata_in_stored_numbers(bench: Bench) -> Pair:
    """What is no data is 0 as it is stored, -0.1 as a value."""
    before, after = _dates()
    holes = {"nodata": 0, "fill": 0}
    return _pair(bench, (before.punch(), after.punch()), (NEW, NEW), holes, holes)


@mapped
def scale_with_nodata_that_overflows(bench: Bench) -> Pair:
    code = Code(0.01, 0, 0.16, 0.0, "float32")
    before, after = _dates()
    lowest = {"nodata": -3.4028234663852886e38, "fill": -3.4028234663852886e38}
    return _pair(bench, (before.punch(), after.punch()), (code, code), lowest, lowest)


@mapped
def scale_with_an_alpha_band(bench: Bench) -> Pair:
    before, after = (raster.punch() for raster in _dates())
    options = [
        {"extra_HW": raster.valid_HW * 65535, "colours": (*RGB, ColorInterp.alpha), "fill": 77}
        for raster in (before, after)
    ]
    return _pair(bench, (before, after), (NEW, OLD), *options)


@mapped
def scale_with_a_mask(bench: Bench) -> Pair:
    before, after = (raster.punch() for raster in _dates())
    bench.exits.enter_context(rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True))
    masked = {"mask": True, "fill": 77}
    return _pair(bench, (before, after), (OLD, NEW), masked, masked)


@mapped
def scale_of_a_virtual_raster(bench: Bench) -> Pair:
    """The tags of the virtual raster count, not those of what it is made of."""
    pair = _pair(bench, _dates(), (OLD, NEW))
    tags = dict.fromkeys((1, 2, 3), "<Offset>-0.1</Offset><Scale>0.0001</Scale>")
    Code(scale=7.0, offset=7.0).tag(Path(pair.after))
    virtual = write_virtual(Path(pair.after), tags, dict.fromkeys((1, 2, 3), "UInt16"))
    return replace(pair, after=virtual)


@mapped
def scale_in_a_file_beside(bench: Bench) -> Pair:
    dates = _dates(MOVED)
    pair = _pair(bench, dates, (OLD, NEW))
    plain = bench.write("plain.png", NEW.store(dates[1]), driver="PNG", colours=RGB)
    NEW.tag(plain)
    assert plain.with_suffix(".png.aux.xml").is_file()
    return replace(pair, after=plain)


@mapped
def scale_of_each_joined_file(bench: Bench) -> Pair:
    codes = OLD, NEW, Code(8, 0, 2e-4)
    return _join(bench, codes)


@mapped
def scale_of_one_joined_file_only(bench: Bench) -> Pair:
    """The others hold reflectance as it is."""
    plain = Code(UNIT, 0, 1.0, 0.0, "float32")
    codes = plain, Code(1, 0, UNIT, 0.0, "float32"), plain
    return _join(bench, codes)


def _join(bench: Bench, codes: Sequence[Code], tagged: bool = True) -> Pair:
    """Write a file for each band of the after date."""
    dates = _dates()
    pair = _pair(bench, dates, (NEW, NEW))
    bands, files = [], []
    for number, code in enumerate(codes):
        band = dates[1].arrange(number)
        bands.append(code.read(band).image_CHW)
        files.append(_write(bench, f"band{number}.tif", band, code))
        if not tagged:
            Code(scale=1.0).tag(files[-1])
    after = replace(dates[1], image_CHW=np.concatenate(bands))
    return replace(pair, after=" + ".join(map(str, files)), truth=(pair.truth[0], after))


@mapped
def mosaic_of_two_baselines(bench: Bench) -> Pair:
    return _mosaic(bench, (OLD, NEW))


@mapped
def mosaic_of_two_baselines_resampled(bench: Bench) -> Pair:
    return _mosaic(bench, (NEW, OLD), before=home().cut(0.3, 0.4))


@mapped
def mosaic_in_which_one_raster_has_no_tags(bench: Bench) -> Pair:
    plain = Code(UNIT, 0, 1.0, 0.0, "float32")
    return _mosaic(bench, (plain, Code(1, 0, UNIT, 0.0, "float32")))


@mapped
def mosaic_of_two_baselines_on_other_pixels_each(bench: Bench) -> Pair:
    halves = PHASE.cut(0, 0, 61), PHASE.cut(60.5, 0, 51)
    pair = _mosaic(bench, (NEW, OLD), halves)
    # Both sheets show the drawing, which is smooth, each by pixels of its own.
    whole = OLD.read(draw_rgb(PHASE, "after"))
    return replace(pair, truth=(pair.truth[0], whole), grey_levels=8 * UNIT, wrong_share=0.02)


def _mosaic(bench: Bench, codes: tuple[Code, Code], halves=MIXED, before=None) -> Pair:
    """Write the after date as two rasters side by side."""
    drawn = draw_rgb(before or home(), "before")
    parts = [draw_rgb(half, "after") for half in halves]
    files = [
        _write(bench, f"half{number}.tif", part, code)
        for number, (part, code) in enumerate(zip(parts, codes, strict=True))
    ]
    pair = _pair(bench, (drawn, parts[0]), (NEW, codes[0]))
    whole = draw_rgb(MOVED, "after")
    shown = [code.read(part).image_CHW for code, part in zip(codes, parts, strict=True)]
    whole = replace(whole, image_CHW=np.concatenate(shown, axis=2))
    return replace(pair, after=files, truth=(pair.truth[0], whole))


@mapped
def catalogue_says_the_scale(bench: Bench) -> Pair:
    """STAC 1.0, an entry a band."""
    said = {"raster:bands": [{"scale": 1e-4, "offset": -0.1}] * 3}
    return _catalogue(bench, [NEW], said)


@mapped
def catalogue_says_one_scale_for_all_bands(bench: Bench) -> Pair:
    said = {"raster:scale": 1e-4, "raster:offset": -0.1, "bands": [{"name": "red"}] * 3}
    return _catalogue(bench, [NEW], said)


@mapped
def catalogue_of_two_baselines(bench: Bench) -> Pair:
    said = [{"raster:bands": [{"scale": 1e-4, "offset": offset}]} for offset in (-0.1, 0)]
    return _catalogue(bench, [NEW, OLD], *said)


@mapped
def catalogue_says_an_offset_that_is_applied(bench: Bench) -> Pair:
    said = {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]}
    return _catalogue(bench, [OLD], said, **{"earthsearch:boa_offset_applied": True})


@mapped
def catalogue_says_what_the_file_says(bench: Bench) -> Pair:
    said = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}
    return _catalogue(bench, [NEW], said, tagged=True)


@mapped
def catalogue_says_the_scale_of_each_band(bench: Bench) -> Pair:
    """STAC 1.1, an asset a band, each of its own."""
    codes = OLD, NEW, Code(8, 0, 2e-4)
    pair = _join(bench, codes, tagged=False)
    assets = {
        f"band{number}": {
            "href": f"band{number}.tif",
            "bands": [{"raster:scale": code.scale, "raster:offset": code.offset}],
        }
        for number, code in enumerate(codes)
    }
    items = _write_items(bench, [assets])
    return replace(pair, after=f"{items}#{','.join(assets)}")


def _catalogue(
    bench: Bench, codes: Sequence[Code], *said: dict, tagged: bool = False, **properties
) -> Pair:
    """Write the after date as a raster or two, whose tags stand in STAC items."""
    if len(codes) == 2:
        pair = _mosaic(bench, (codes[0], codes[1]))
        files = list(pair.after)
    else:
        pair = _pair(bench, _dates(), (OLD, codes[0]))
        files = [pair.after]
    for file in files:
        if not tagged:
            Code(scale=1.0).tag(Path(file))
    assets = [
        {"visual": {"href": Path(file).name, **fields}}
        for file, fields in zip(files, said, strict=True)
    ]
    return replace(pair, after=_write_items(bench, assets, **properties))


def _write_items(bench: Bench, assets: Sequence[dict], **properties) -> Path:
    features = [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"item{number}",
            "geometry": None,
            "properties": {"datetime": "2022-06-01T00:00:00Z", **properties},
            "links": [],
            "assets": item,
        }
        for number, item in enumerate(assets)
    ]
    path = bench.folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@mapped
def ranges_by_date(bench: Bench) -> Pair:
    codes = Code(15, 0, 1.0), Code(15, 1000, 1.0)
    options = {"value_range": (0, 3825), "after_value_range": (1000, 4825)}
    dates = _dates()
    pair = _pair(bench, dates, codes, options=options, grey_levels=20)
    truth = codes[0].store(dates[0]), codes[1].store(dates[1])
    return replace(pair, truth=truth)


@mapped
def range_of_the_after_date_only(bench: Bench) -> Pair:
    dates = _dates(MOVED)
    code = Code(16, 1000, 1.0)
    pair = _pair(bench, dates, (code, code), options={"after_value_range": (1000, 5080)})
    truth = dates[0], code.store(dates[1])
    return replace(pair, before=bench.write("before.tif", dates[0]), truth=truth)


@mapped
def range_of_negative_values(bench: Bench) -> Pair:
    code = Code(16, 0, 1e-4, -0.2)
    options = {"value_range": (-0.2, RANGE[1] - 0.2)}
    return _pair(bench, _dates(), (code, code), options=options)


def _refuse(bench: Bench, code: Code, *problem: str, **options) -> Refusal:
    pair = _pair(bench, _dates(MOVED), (OLD, code))
    return Refusal(pair.before, pair.after, problem, {"value_range": RANGE, **options})


@refused
def scale_of_zero(bench: Bench) -> Refusal:
    code = Code(scale=(1e-4, 0.0, 1e-4))
    return _refuse(bench, code, r"after\.tif: band 2 has the scale 0")


@refused
def scale_that_is_no_number(bench: Bench) -> Refusal:
    return _refuse(bench, Code(scale=np.nan), r"after\.tif: band 1 has the scale nan")


@refused
def offset_that_is_infinite(bench: Bench) -> Refusal:
    return _refuse(bench, Code(offset=np.inf), r"after\.tif: band 1 .* the offset inf")


@refused
def scale_too_small_for_values(bench: Bench) -> Refusal:
    return _refuse(bench, Code(scale=1e-300), r"after\.tif: band 1 has the scale 1e-300")


@refused
def range_of_stored_numbers_where_there_are_tags(bench: Bench) -> Refusal:
    problem = r"before\.tif .* float32, values 0\.\d+ to 0\.\d+", "range 0 to 4080"
    return _refuse(bench, NEW, *problem, value_range=(0, 4080))


@refused
def range_in_which_no_value_lies(bench: Bench) -> Refusal:
    pair = bench.pair(home(), MOVED)
    problem = (r"before\.tif .* values \d+ to \d+; no value lies in the range 1000 to 3000",)
    return Refusal(pair.before, pair.after, problem, {"value_range": (1000, 3000)})


@refused
def range_in_which_no_value_of_after_lies(bench: Bench) -> Refusal:
    pair = bench.pair(home(), MOVED)
    ranges = {"value_range": (0, 255), "after_value_range": (256, 300)}
    return Refusal(
        pair.before, pair.after, (r"after\.tif: .*; after: .* range 256 to 300",), ranges
    )


@refused
def range_that_is_not_finite(bench: Bench) -> Refusal:
    return _refuse(bench, NEW, r"value_range\[1\] is inf", value_range=(0, np.inf))


@refused
def range_of_after_that_runs_backwards(bench: Bench) -> Refusal:
    return _refuse(bench, NEW, "runs from 3 to 1", after_value_range=(3, 1))


@refused
def scale_without_a_range(bench: Bench) -> Refusal:
    problem = r"before\.tif .* float32, values 0\.\d+ to 0\.\d+", "up to 255"
    return _refuse(bench, NEW, *problem, value_range=None)


@refused
def catalogue_against_the_file(bench: Bench) -> Refusal:
    said = {"raster:bands": [{"scale": 1e-4, "offset": 0.0}]}
    pair = _catalogue(bench, [NEW], said, tagged=True)
    problem = r"after\.tif: band 1 .* the offset -0\.1", "item says 0.0001 and 0"
    return Refusal(pair.before, pair.after, problem, pair.options)


@refused
def catalogue_with_a_scale_in_words(bench: Bench) -> Refusal:
    pair = _catalogue(bench, [NEW], {"raster:bands": [{"scale": "1/10000"}]})
    problem = r"items\.json: asset visual of item item0 has the scale '1/10000'"
    return Refusal(pair.before, pair.after, (problem,), pair.options)


@refused
def catalogue_of_fewer_bands(bench: Bench) -> Refusal:
    pair = _catalogue(bench, [NEW], {"raster:bands": [{"scale": 1e-4}] * 2})
    problem = r"after\.tif has 3 bands and its STAC item describes 2"
    return Refusal(pair.before, pair.after, (problem,), pair.options)
