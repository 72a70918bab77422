"""Checks a pair of rasters and names the flag of `predict` that fixes each problem.

Reads a fixed number of windows spread over the pair, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from rasterio.enums import ColorInterp

from terradelta.errors import TerradeltaError
from terradelta.geo.bands import describe_bands, is_guess, name_joined_files, select_bands
from terradelta.geo.collars import find_collars
from terradelta.geo.dates import check_dates, find_dates
from terradelta.geo.finding import Finding, Report
from terradelta.geo.listing import RasterPaths, list_rasters
from terradelta.geo.mosaic import Mosaic, open_images
from terradelta.geo.pair import Images, RasterPair
from terradelta.geo.pair_options import ModelNeeds, PairOptions
from terradelta.geo.placement import place_raster
from terradelta.geo.registration import measure_shift
from terradelta.geo.samples import PixelSamples
from terradelta.geo.scale import advise_scale, find_seen_pixels, measure_pixel_size
from terradelta.geo.source import has_false_alpha, open_raster
from terradelta.geo.virtual import name_raster
from terradelta.redaction import redact

WARN_RESOLUTION_RATIO = 2.0
WARN_OVERLAP_SHARE = 0.5
WARN_SHIFT_PX = 0.5
MIN_PATCHES = 3
"""Patches with detail on both dates from which disagreeing shifts are meaningful."""
LARGE_PIXELS = 10_000**2
"""Size from which the layout of a file matters."""


def examine_pair(
    before: RasterPaths,
    after: RasterPaths,
    options: PairOptions,
    needs: ModelNeeds,
    dates: tuple[str | None, str | None] = (None, None),
) -> Report:
    """Check a pair before it is mapped.

    Args:
        before: The earlier raster: a path or anything GDAL opens; or a mosaic, see `list_rasters`.
        after: The later one.
        options: How the pair is read.
        needs: The inputs that the model needs.
        dates: Dates of the images, as given by the user.

    Returns:
        Findings of all checks that can be made, whatever fails.

    Raises:
        ArgumentError: If a date is not valid.
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
        faults = list(_check_selection(datasets, options, needs))
        if faults:
            options = replace(options, bands=_take_first_bands(datasets, needs))
        pair, fault = _open_pair(before, after, options, needs, files)
        findings += faults if fault is None else [*faults, fault]
        if pair is None:
            return Report(tuple(findings))
        findings += [_check_overlap(pair), _check_resolution(pair), _check_grid(pair)]
        findings += [Finding(one.name, "WARN", one.message, one.fix) for one in pair.cautions]
        findings += _check_scale(pair, needs.resolution_m)
        if not faults:
            findings.append(_check_bands(pair, options))
        findings += find_collars(pair)
        findings += _check_pixels(pair, options, needs)
    return Report(tuple(findings))


def _check_selection(
    datasets: Sequence[Images], options: PairOptions, needs: ModelNeeds
) -> Iterator[Finding]:
    """Yield the reasons why the model's bands are not found."""
    problems = {}
    for dataset in datasets:
        try:
            select_bands(dataset, needs.band_names, options.bands)
        except TerradeltaError as error:
            # An error of the option itself occurs at both dates.
            problems[error.problem] = Finding("bands", "FAIL", error.problem, error.fix)
    yield from problems.values()


def _take_first_bands(datasets: Sequence[Images], needs: ModelNeeds) -> list[int | str]:
    """Return bands to examine if those of the model are not found."""
    fewest = min(dataset.count for dataset in datasets)
    return [min(number, fewest) for number in range(1, len(needs.band_names) + 1)]


def _open_pair(
    before: RasterPaths,
    after: RasterPaths,
    options: PairOptions,
    needs: ModelNeeds,
    files: ExitStack,
) -> tuple[RasterPair | None, Finding | None]:
    """Return the pair as it will be read, or nearly so, with the errors of the options.

    A wrong area of interest or grid does not prevent the other checks.
    """
    fault = None
    without_area = replace(options, aoi=None)
    for attempt in (options, without_area, replace(without_area, grid="before")):
        try:
            return files.enter_context(RasterPair(before, after, needs.band_names, attempt)), fault
        except TerradeltaError as error:
            fault = fault or Finding("pair", "FAIL", error.problem, error.fix)
    return None, fault


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
        # For a mosaic only the first raster is checked.
        path = (list_rasters(source) or [source])[0]
        assert isinstance(path, str | Path)
        # Read from the file itself, as opening for reading drops a false alpha.
        with open_raster(path) as dataset:
            if ColorInterp.alpha in dataset.colorinterp and has_false_alpha(dataset):
                number = dataset.colorinterp.index(ColorInterp.alpha) + 1
                yield Finding(
                    "alpha",
                    "OK",
                    f"{date}: band {number} is declared alpha and holds measurements (near "
                    "infrared?); it is not used as a mask",
                )


def _check_overlap(pair: RasterPair) -> Finding:
    """Compare the pair's ground with each raster's, by their bounds on the pair's grid."""
    left, bottom, right, top = pair.grid.bounds
    shares = []
    for dataset in pair.datasets:
        bounds = pair.grid.find_bounds(place_raster(dataset).grid)
        area = abs((bounds[2] - bounds[0]) * (bounds[3] - bounds[1]))
        # A raster of a planet may lie outside of the domain of its CRS.
        shares.append(min(1.0, abs((right - left) * (top - bottom)) / area) if area > 0 else 0.0)
    message = f"{shares[0]:.1%} of before and {shares[1]:.1%} of after"
    values = {"before_share": shares[0], "after_share": shares[1]}
    if min(shares) >= WARN_OVERLAP_SHARE:
        return Finding("overlap", "OK", message, values=values)
    fix = "nothing, if only the common ground is needed: the map covers it"
    return Finding("overlap", "WARN", message, fix, values, is_doubt=False)


def _check_resolution(pair: RasterPair) -> Finding:
    sizes_m = [measure_pixel_size(place_raster(dataset).grid) or 1.0 for dataset in pair.datasets]
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
    how = f"{' and '.join(resampled)} resampled to it" if resampled else "on the same pixels"
    notice = f"; {pair.notice}" if pair.notice else ""
    return Finding("grid", "OK", f"the map has {size}, {how}{notice}", values=values)


def _check_scale(pair: RasterPair, resolution_m: tuple[float, float] | None) -> Iterator[Finding]:
    advice = advise_scale(pair.grid, resolution_m)
    seen = find_seen_pixels(pair.grid, resolution_m)
    size_m = measure_pixel_size(pair.grid)
    if advice is not None:
        yield Finding("scale", "WARN", *advice, {"resolution_m": resolution_m, **asdict(seen)})
    elif seen.reduction > 1 and size_m is not None:
        message = (
            f"pixels of {size_m:.3g} m are finer than those that the model learned from, so it "
            f"sees {seen} ({seen.reduction * size_m:.2g} m)"
        )
        values = {"resolution_m": resolution_m, **asdict(seen)}
        yield Finding("scale", "OK", message, values=values)


def _check_bands(pair: RasterPair, options: PairOptions) -> Finding:
    listings, guessed, doubts = [], [], []
    for date, dataset, numbers in zip(("before", "after"), pair.datasets, pair.bands, strict=True):
        known = describe_bands(dataset)
        listings.append(", ".join(f"{n} {known[n]}".strip() for n in numbers))
        if is_guess(dataset, pair.band_names, options.bands):
            guessed.append(date)
        shown = name_joined_files(name_raster(dataset), numbers)
        if shown and shown != list(pair.band_names):
            doubts.append(f"by their names the files of {date} show {', '.join(shown)}")
    message = listings[0] if listings[0] == listings[1] else f"{listings[0]}; after {listings[1]}"
    message = f"read as {', '.join(pair.band_names)}: {message}"
    values = {"before": pair.bands[0], "after": pair.bands[1]}
    if doubts:
        fix = f"join the files in the order {', '.join(pair.band_names)}, or choose with --bands"
        return Finding("bands", "WARN", f"{'; '.join(doubts)}; {message}", fix, values)
    if not guessed:
        return Finding("bands", "OK", message, values=values)
    return Finding(
        "bands",
        "WARN",
        f"the four bands have no names in {' and '.join(guessed)}; {message}",
        "--bands 1,2,3 if that is right, --bands 3,2,1 if the first band is blue",
        values,
    )


def _check_pixels(pair: RasterPair, options: PairOptions, needs: ModelNeeds) -> Iterator[Finding]:
    """Check samples of the pixels and the shift."""
    try:
        samples = PixelSamples.read(pair)
        yield samples.check_nodata(options.aoi)
        if samples.is_empty:
            return
        ranges = options.before.value_range, options.after.value_range
        if options.match_light != "none":
            # With matched light, the after image has the values of the before image.
            samples, ranges = samples.match_light(options.match_light), (ranges[0], ranges[0])
        yield from samples.check_values(ranges, needs.value_range)
        yield _check_shift(pair)
        yield samples.check_drift(ranges, needs.value_range)
    except TerradeltaError as error:
        yield Finding("pixels", "FAIL", error.problem, error.fix)


def _check_shift(pair: RasterPair) -> Finding:
    shift = measure_shift(pair)
    if not shift.reliable:
        return Finding(
            "shift",
            "WARN",
            f"cannot be measured: {shift.patches} of {shift.of_patches} patches with detail agree",
            "look at both images in a GIS; there may be too much change or too little detail",
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
    # A warning at any size, as the estimate may be wrong.
    return Finding("shift", "WARN", message, "--register", values)
