"""What is wrong with a pair of rasters, and which flag of `predict` fixes it.

Reads a fixed number of windows spread over the pair, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from rasterio.enums import ColorInterp

from terradelta.errors import TerradeltaError
from terradelta.geo.dates import check_dates, find_dates
from terradelta.geo.finding import Finding, Report
from terradelta.geo.grid import Grid
from terradelta.geo.listing import RasterPaths, list_rasters
from terradelta.geo.mosaic import Mosaic, open_images
from terradelta.geo.options import ModelNeeds, PairOptions
from terradelta.geo.pair import Images, RasterPair
from terradelta.geo.registration import measure_shift
from terradelta.geo.samples import PixelSamples
from terradelta.geo.scale import advise_scale, measure_pixel_size
from terradelta.geo.source import describe_bands, has_false_alpha, open_raster
from terradelta.geo.virtual import name_raster
from terradelta.redaction import redact

WARN_RESOLUTION_RATIO = 2.0
WARN_OVERLAP_SHARE = 0.5
WARN_SHIFT_PX = 0.5
MIN_PATCHES = 3
"""With detail on both dates, from which on it means something that their shifts do not agree."""
LARGE_PIXELS = 10_000**2
"""From here on it matters how a file is laid out."""


def examine_pair(
    before: RasterPaths,
    after: RasterPaths,
    options: PairOptions,
    needs: ModelNeeds,
    dates: tuple[str | None, str | None] = (None, None),
) -> Report:
    """Look a pair over before it is predicted.

    Args:
        before: The earlier raster: a path or anything GDAL opens; or a mosaic, see `list_rasters`.
        after: The later one.
        options: How the pair is to be read.
        needs: What the model must be given.
        dates: When the images were taken, as the user says.

    Returns:
        Findings; where one fails, what cannot be found without it is left out.

    Raises:
        ArgumentError: If a date is none.
    """
    findings: list[Finding] = []
    with ExitStack() as files:
        datasets = []
        for date, path in (("before", before), ("after", after)):
            try:
                datasets.append(files.enter_context(open_images(path, options.bands)))
            except TerradeltaError as error:
                findings.append(Finding(date, "FAIL", error.problem, error.fix))
            else:
                findings.append(_describe(date, datasets[-1]))
        if len(datasets) < 2:
            return Report(tuple(findings))
        first, second = datasets
        findings += [_check_crs(first, second), *_check_layout(first, second)]
        findings += _check_alpha(before, after)
        findings += check_dates(*find_dates(before, after, dates))
        try:
            pair = files.enter_context(RasterPair(before, after, needs.band_names, options))
        except TerradeltaError as error:
            findings.append(Finding("pair", "FAIL", error.problem, error.fix))
            return Report(tuple(findings))
        findings += [_check_overlap(pair), _check_resolution(pair), _check_grid(pair)]
        findings += _check_scale(pair, needs.resolution_m)
        findings.append(_check_bands(pair))
        findings += _check_pixels(pair, options, needs)
    return Report(tuple(findings))


def _describe(date: str, dataset: Images) -> Finding:
    kinds = "/".join(sorted(set(dataset.dtypes)))
    bands = ", ".join(name or "?" for name in describe_bands(dataset).values())
    return Finding(
        date,
        "OK",
        f"{_describe_sources(dataset)}{dataset.width} x {dataset.height} px, "
        f"{dataset.count} bands ({bands}), {kinds}, nodata {_describe_nodata(dataset)}",
        values={
            "width": dataset.width,
            "height": dataset.height,
            "bands": dataset.count,
            "dtypes": list(dataset.dtypes),
            **({"sources": len(dataset)} if isinstance(dataset, Mosaic) else {}),
        },
    )


def _describe_sources(dataset: Images) -> str:
    if not isinstance(dataset, Mosaic):
        return ""
    kinds = len(dataset.sheets)
    differing = f" on {kinds} kinds of pixels" if kinds > 1 else ""
    return f"{len(dataset):,} rasters{differing}, together "


def _describe_nodata(dataset: Images) -> str:
    values = dataset.nodata_values if isinstance(dataset, Mosaic) else {dataset.nodata}
    texts = {"none" if value is None else format(value, "g") for value in values}
    return " or ".join(sorted(texts))


def _check_crs(before: Images, after: Images) -> Finding:
    names = [dataset.crs.to_string() if dataset.crs else None for dataset in (before, after)]
    values = {"before": names[0], "after": names[1]}
    if names == [None, None]:
        return Finding(
            "crs",
            "WARN",
            "neither raster has one: the map will have pixels but no hectares",
            "assign one, for example: gdal_edit.py -a_srs EPSG:CODE FILE",
            values,
            is_doubt=False,
        )
    if None in names:
        without = redact(name_raster((before, after)[names.index(None)]))
        return Finding(
            "crs",
            "FAIL",
            f"{without} has none, the other has {next(filter(None, names))}",
            f"assign one, for example: gdal_edit.py -a_srs EPSG:CODE {without}",
            values,
        )
    if before.crs == after.crs:
        return Finding("crs", "OK", f"both {_shorten(names[0])}", values=values)
    message = f"{_shorten(names[0])} and {_shorten(names[1])}; the after image is reprojected"
    return Finding("crs", "OK", message, values=values)


def _shorten(crs: str | None) -> str:
    text = str(crs)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _check_layout(*datasets: Images) -> Iterator[Finding]:
    for date, dataset in zip(("before", "after"), datasets, strict=True):
        if isinstance(dataset, Mosaic):
            continue
        rows, columns = dataset.block_shapes[0]
        is_striped = columns == dataset.width and dataset.width > 4 * rows
        if dataset.width * dataset.height >= LARGE_PIXELS and is_striped:
            yield Finding(
                "layout",
                "WARN",
                f"{date} is a large file in strips of {columns} x {rows} px, slow to read in parts",
                f"gdal_translate -of COG {redact(name_raster(dataset))} tiled.tif",
                is_doubt=False,
            )


def _check_alpha(*sources: RasterPaths) -> Iterator[Finding]:
    for date, source in zip(("before", "after"), sources, strict=True):
        # Of a mosaic the first raster speaks for all.
        path = (list_rasters(source) or [source])[0]
        assert isinstance(path, str | Path)
        # Asked of the file itself: what is opened for reading has its false alpha dropped.
        with open_raster(path) as dataset:
            if ColorInterp.alpha in dataset.colorinterp and has_false_alpha(dataset):
                number = dataset.colorinterp.index(ColorInterp.alpha) + 1
                yield Finding(
                    "alpha",
                    "OK",
                    f"{date}: band {number} is declared alpha and holds measurements (near "
                    "infrared?); it is not taken for a mask",
                )


def _check_overlap(pair: RasterPair) -> Finding:
    """Compare the pair's ground with each raster's, by their bounds on the pair's grid."""
    left, bottom, right, top = pair.grid.bounds
    shares = []
    for dataset in pair.datasets:
        bounds = pair.grid.find_bounds(Grid.of(dataset))
        area = abs((bounds[2] - bounds[0]) * (bounds[3] - bounds[1]))
        shares.append(min(1.0, abs((right - left) * (top - bottom)) / area))
    message = f"{shares[0]:.1%} of before and {shares[1]:.1%} of after"
    values = {"before_share": shares[0], "after_share": shares[1]}
    if min(shares) >= WARN_OVERLAP_SHARE:
        return Finding("overlap", "OK", message, values=values)
    fix = "nothing, if only the common ground is wanted: the map covers that"
    return Finding("overlap", "WARN", message, fix, values, is_doubt=False)


def _check_resolution(pair: RasterPair) -> Finding:
    sizes_m = [measure_pixel_size(Grid.of(dataset)) or 1.0 for dataset in pair.datasets]
    unit = "m" if pair.grid.crs else "px"
    ratio = max(sizes_m) / min(sizes_m)
    message = f"pixels of {sizes_m[0]:.3g} {unit} and {sizes_m[1]:.3g} {unit}"
    values = {"before_m": sizes_m[0], "after_m": sizes_m[1], "ratio": ratio}
    if ratio < WARN_RESOLUTION_RATIO:
        return Finding("resolution", "OK", message, values=values)
    coarser = "before" if sizes_m[0] > sizes_m[1] else "after"
    fix = f"--grid {coarser}, so that detail of one date alone does not look like change"
    return Finding("resolution", "WARN", f"{message}: a ratio of {ratio:.1f}", fix, values)


def _check_grid(pair: RasterPair) -> Finding:
    resampled = [
        date for date, is_so in zip(("before", "after"), pair.is_resampled, strict=True) if is_so
    ]
    size = f"{pair.grid.width} x {pair.grid.height} px"
    values = {"width": pair.grid.width, "height": pair.grid.height, "resampled": resampled}
    how = f"{' and '.join(resampled)} resampled onto it" if resampled else "on the same pixels"
    return Finding("grid", "OK", f"the map has {size}, {how}", values=values)


def _check_scale(pair: RasterPair, resolution_m: tuple[float, float] | None) -> Iterator[Finding]:
    advice = advise_scale(pair.grid, resolution_m)
    if advice is not None:
        yield Finding("scale", "WARN", *advice, {"resolution_m": resolution_m})


def _check_bands(pair: RasterPair) -> Finding:
    listings = []
    for dataset, numbers in zip(pair.datasets, pair.bands, strict=True):
        known = describe_bands(dataset)
        listings.append(", ".join(f"{n} {known[n]}".strip() for n in numbers))
    message = listings[0] if listings[0] == listings[1] else f"{listings[0]}; after {listings[1]}"
    return Finding(
        "bands",
        "OK",
        f"read as {', '.join(pair.band_names)}: {message}",
        values={"before": pair.bands[0], "after": pair.bands[1]},
    )


def _check_pixels(pair: RasterPair, options: PairOptions, needs: ModelNeeds) -> Iterator[Finding]:
    """Look at samples of the pixels and at the shift."""
    try:
        samples = PixelSamples.read(pair)
        yield samples.check_nodata(options.aoi)
        if samples.is_empty:
            return
        yield from samples.check_values(options.before.value_range or needs.value_range)
        yield _check_shift(pair)
        yield samples.check_drift()
    except TerradeltaError as error:
        yield Finding("pixels", "FAIL", error.problem, error.fix)


def _check_shift(pair: RasterPair) -> Finding:
    shift = measure_shift(pair)
    if not shift.reliable:
        return Finding(
            "shift",
            "WARN",
            f"cannot be told: {shift.patches} of {shift.of_patches} patches agree",
            "look at both images in a GIS; too much may have changed, or too little be there",
            {"patches": shift.patches, "of_patches": shift.of_patches},
            is_doubt=shift.of_patches >= MIN_PATCHES,
        )
    metres = ""
    values = {
        "columns_px": shift.columns_px,
        "rows_px": shift.rows_px,
        "spread_px": shift.spread_px,
        "patches": shift.patches,
    }
    pixel_m = measure_pixel_size(pair.grid)
    if pixel_m is not None:
        values["shift_m"] = shift.length_px * pixel_m
        metres = f", {values['shift_m']:.2f} m"
    message = (
        f"after lies {shift.columns_px:+.2f} columns and {shift.rows_px:+.2f} rows off{metres} "
        f"(spread {shift.spread_px:.2f} px over {shift.patches} patches)"
    )
    if shift.length_px < WARN_SHIFT_PX:
        return Finding("shift", "OK", message, values=values)
    # However large it is: the estimate may be wrong.
    return Finding("shift", "WARN", message, "--register", values)
