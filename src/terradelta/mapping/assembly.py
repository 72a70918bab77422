"""From answered blocks to a prediction folder: maps, polygons, sums and provenance.

One pass over the blocks, row by row. The outputs of a job are the same bytes, whichever process
answered the blocks, and in any order.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import geopandas
import numpy as np
import pandas
from affine import Affine
from rasterio.features import geometry_mask
from rasterio.windows import Window
from shapely import Geometry
from tqdm import tqdm

from terradelta.classes import Colour
from terradelta.errors import OutputError, RasterError
from terradelta.fields import write_fields
from terradelta.geo.area import measure_pixels
from terradelta.geo.cog import MapFormat, find_map, write_cog
from terradelta.geo.finding import list_cautions
from terradelta.geo.grid import shift_window
from terradelta.geo.listing import name_source
from terradelta.geo.patches import Patch, PatchTracer
from terradelta.geo.style import write_layer_style, write_quantity_style, write_raster_style
from terradelta.geo.vector import PolygonWriter
from terradelta.inference.confidence import UnsureChange, doubt_confidence
from terradelta.inference.job import Job
from terradelta.inference.maps import MAP_LAYERS, describe_maps, find_band
from terradelta.inference.pace import describe_runs
from terradelta.inference.store import BlockLayers, BlockStore
from terradelta.inference.transitions import TransitionSums
from terradelta.mapping.pieces import Pieces, discard_unfinished
from terradelta.outputs import replace_folder
from terradelta.ownership import BLOCK_FILES, clear_folder
from terradelta.prediction.folder import PredictionFolder
from terradelta.prediction.records import JobRecord, Run, Summary
from terradelta.prediction.reopening import reopen_pair
from terradelta.redaction import redact_texts
from terradelta.stopwatch import Stopwatch

PARTS = {
    "start_up": "to start",
    "planning": "to look the pair over",
    "compiling": "to get the network ready",
    "reading": "waiting for pixels",
    "network": "in the network",
    "assembly": "for maps and polygons",
    "report": "for the report",
}
"""Meaning of the seconds of a run.json."""
MAX_PIECES_AT_ONCE = 8
"""Each takes some 25 MB beside GDAL's cache."""

MAX_NAMED = 10
"""Damaged blocks in an error."""

logger = logging.getLogger(__name__)


def assemble(job: Job, watch: Stopwatch) -> Summary:
    """Make the prediction folder of a job whose blocks are all answered.

    Args:
        job: The job; `finish` moves the prediction out of its folder.
        watch: Stopwatch of the run.

    Returns:
        The sums of the map.

    Raises:
        OutputError: If blocks are missing or an output cannot be written.
        RasterError: If a block is damaged, or no pixel is valid on both dates.
    """
    watch.begin("assembly")
    _require_complete(job)
    staged = job.folder / "assembled"
    discard_unfinished(staged)
    clear_folder(job.folder / "sieved", BLOCK_FILES)
    staged.mkdir(exist_ok=True)
    assembly = _Assembly(job, staged)
    files = PredictionFolder(staged)
    summary = redact_texts(assembly.run())
    files.write(summary)
    watch.begin("report")
    if job.record.parameters.picture:
        _draw_picture(job, staged, summary)
    # The report opens the rasters by their addresses, whose secrets must not go into an output.
    files.write(assembly.describe_run(summary, watch))
    _write_report(staged)
    # Once more, to include the time of the report.
    run = assembly.describe_run(summary, watch)
    files.write(redact_texts(run))
    _log_seconds(run)
    return summary


def finish(job: Job, discard_reviews: bool = False) -> Path | None:
    """Put an assembled prediction in its place and remove the job.

    Returns:
        The file with the reviews of the replaced prediction; None without reviews.

    Raises:
        OutputError: If they cannot be kept.
    """
    kept = replace_folder(job.output, job.folder / "assembled", discard_reviews=discard_reviews)
    job.discard()
    return kept


def _require_complete(job: Job):
    missing = job.missing(range(len(job.plan)))
    if missing:
        damaged = "".join(f"; {path} is damaged" for path in job.store.damaged[:MAX_NAMED])
        raise OutputError(
            f"{job.folder} lacks {len(missing)} of {len(job.plan)} blocks, the first being number "
            f"{missing[0] + 1}{damaged}",
            fix="run the shards that are not done, then merge again",
        )


class _Assembly:
    """The pass over the blocks of a job."""

    def __init__(self, job: Job, folder: Path):
        self._job = job
        self._folder = folder
        self._corner = int(job.plan.area.col_off), int(job.plan.area.row_off)
        self._grid = job.grid.crop(job.plan.area)
        self._has_area = job.grid.crs is not None
        self._parameters = job.record.parameters
        self._sieved = job.store.elsewhere(job.folder / "sieved")
        self._sums = TransitionSums(job.classes, has_area=self._has_area)
        self._unsure = UnsureChange(has_area=self._has_area)
        self._maps = describe_maps(job.classes)
        size_px = self._parameters.cog_size_px
        self._pieces = None if size_px is None else Pieces(folder, self._grid, size_px, self._maps)
        self._views: list[int] = []
        self._reading_seconds = self._network_seconds = self._earlier_seconds = 0.0

    def run(self) -> Summary:
        vector_path = self._folder / f"changes.{self._parameters.vector}"
        tracer = PatchTracer(
            self._grid,
            self._job.classes,
            nodata=self._job.store.change_nodata,
            min_area_m2=self._parameters.min_area_m2,
        )
        # Nothing else runs while pieces are written.
        at_once = 2 if self._pieces is None else min(os.cpu_count() or 1, MAX_PIECES_AT_ONCE)
        with (
            # GDAL's own threads take twice the processor time and are not faster.
            ThreadPoolExecutor(at_once, "maps") as maps,
            PolygonWriter(vector_path, self._grid.crs) as writer,
        ):
            # Unless small patches are removed, the blocks hold the final maps already; which
            # pieces hold data is known at the end.
            is_late = self._parameters.min_area_m2 > 0 or self._pieces is not None
            written = [] if is_late else self._write_maps(maps)
            for index in tqdm(
                range(len(self._job.plan)), desc="assembling", unit="block", disable=None
            ):
                self._add_block(index, tracer)
                writer.write(self._date(tracer.take_finished()))
            self._drop_spanning(tracer.dropped)
            writer.write(self._date(tracer.take_finished()))
            for path in written:
                path.result()
            if not self._sums.pixels.any():
                self._refuse_nothing()
            if is_late:
                for path in tqdm(self._write_maps(maps), desc="maps", unit="file", disable=None):
                    path.result()
        if self._pieces is not None:
            self._pieces.join(
                self._job.output.name,
                self._tags,
                self._period,
                {name: self._legend(name, form) for name, form in self._maps.items()},
            )
        self._style_maps()
        write_layer_style(vector_path, self._job.classes, self._occurring())
        self._sums.write_csv(self._folder / "transitions.csv")
        return self._summarize(writer.count)

    def _summarize(self, patches: int) -> Summary:
        sums = self._sums.summarize(self._unsure)
        record = self._job.record
        cautions = (*list_cautions(record.findings), *doubt_confidence(sums))
        return replace(sums, cautions=cautions, dates=record.dates, patches=patches)

    def _date(self, frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
        """Add the dates of the images to patches."""
        for name, date in zip(("before_date", "after_date"), self._job.dates, strict=True):
            text = None if date is None else date.text
            frame.insert(
                len(frame.columns) - 1, name, pandas.Series(text, frame.index, dtype=object)
            )
        return frame

    def _refuse_nothing(self):
        """Remove the job and raise: no pixel is valid, so a later run cannot use it."""
        record = self._job.record
        self._job.discard()
        aoi = self._parameters.aoi
        raise RasterError(
            f"no pixel of {name_source(record.before.path)} and "
            f"{name_source(record.after.path)} is valid on "
            "both dates" + (f" and has its centre inside of {aoi.path}" if aoi else ""),
            fix="look at their nodata with `terradelta check`; give images that share ground",
        )

    def _add_block(self, index: int, tracer: PatchTracer):
        block = self._job.plan[index]
        layers, facts = self._job.store.read(index)
        areas_HW = measure_pixels(self._job.grid, block.write) if self._has_area else None
        removed_HW = tracer.add(
            self._shift(block.write), layers.change_HW, layers.confidence_HW, areas_HW
        )
        if removed_HW.any():
            layers = _remove(layers, removed_HW)
            self._sieved.write(index, block.write, layers, facts)
        self._sums.add(layers.change_HW, layers.valid, areas_HW)
        changed_HW = layers.valid & (layers.change_HW != 0)
        self._unsure.add(changed_HW, layers.confidence_HW, areas_HW)
        if self._pieces is not None:
            self._pieces.mark(self._shift(block.write), layers.valid)
        self._views.append(facts.views)
        self._reading_seconds += facts.seconds - facts.network_seconds
        self._network_seconds += facts.network_seconds
        if index not in self._job.answered_now:
            self._earlier_seconds += facts.seconds

    def _drop_spanning(self, patches: Sequence[Patch]):
        """Remove patches over several blocks that are too small."""
        outlines: defaultdict[Window, list[Geometry]] = defaultdict(list)
        for patch in patches:
            self._sums.clear(patch.transition, patch.pixels, patch.area_m2)
            for window, outline in patch.pieces:
                outlines[window].append(outline)
        for block in self._job.plan:
            window = self._shift(block.write)
            if window not in outlines:
                continue
            removed_HW = geometry_mask(
                outlines[window],
                out_shape=(int(window.height), int(window.width)),
                transform=Affine.translation(window.col_off, window.row_off),
                invert=True,
            )
            layers, facts = self._store_of(block.index).read(block.index)
            areas_HW = measure_pixels(self._job.grid, block.write) if self._has_area else None
            self._unsure.add(removed_HW, layers.confidence_HW, areas_HW, sign=-1)
            self._sieved.write(block.index, block.write, _remove(layers, removed_HW), facts)

    def _write_maps(self, pool: ThreadPoolExecutor) -> list[Future[None]]:
        """Start writing the maps."""
        parts = list(self._parts())
        if self._pieces is not None:
            return self._pieces.write(pool, parts, self._tags)
        return [
            pool.submit(
                write_cog,
                self._folder / f"{name}.tif",
                self._grid,
                parts,
                find_band(name),
                map_format,
                self._tags,
            )
            for name, map_format in self._maps.items()
        ]

    def _style_maps(self):
        for name, map_format in self._maps.items():
            path = find_map(self._folder, name)
            legend = self._legend(name, map_format)
            if legend is None:
                write_quantity_style(path, 0, 100, "%")
            else:
                write_raster_style(path, legend)

    def _legend(self, name: str, map_format: MapFormat) -> dict[int, tuple[str, Colour]] | None:
        """Return name and colour of the values in a map of classes, None for other maps."""
        if map_format.palette is None:
            return None
        occurring = self._occurring()
        if name != "change":
            ids = zip(*map(self._job.classes.decode_transition, [0, *occurring]), strict=True)
            before, after = (sorted(set(dates)) for dates in ids)
            occurring = before if MAP_LAYERS[name] == "before" else after
        return {value: (map_format.names[value], map_format.palette[value]) for value in occurring}

    @property
    def _tags(self) -> dict[str, str]:
        dates = zip(("BEFORE", "AFTER"), self._job.dates, strict=True)
        return {
            **_describe_briefly(self._job.record),
            **{f"TERRADELTA_{name}_DATE": date.text for name, date in dates if date is not None},
        }

    @property
    def _period(self) -> list[datetime]:
        """Dates of the images, from first to last; empty if none is known."""
        dates = [date for date in self._job.dates if date is not None]
        if not dates:
            return []
        return [min(date.start for date in dates), max(date.end for date in dates)]

    def _parts(self) -> Iterator[tuple[Path, Window]]:
        for block in self._job.plan:
            yield self._store_of(block.index).path(block.index), self._shift(block.write)

    def _store_of(self, index: int) -> BlockStore:
        """Return the place of a block as it is shown."""
        return self._sieved if self._sieved.has(index) else self._job.store

    def _shift(self, window: Window) -> Window:
        """Return a window of the whole grid as one of the area's."""
        column, row = self._corner
        return shift_window(window, -column, -row)

    def _occurring(self) -> list[int]:
        return [int(transition) for transition in np.flatnonzero(self._sums.pixels)]

    def describe_run(self, summary: Summary, watch: Stopwatch) -> Run:
        """Return how the map was made."""
        parts = watch.read()
        total = sum(parts.values()) + self._earlier_seconds
        # Blocks are timed where they were answered, maybe on many machines at once.
        parts |= {"reading": self._reading_seconds, "network": self._network_seconds}
        seconds = {name: parts[name] for name in PARTS if name in parts}
        area_ha = summary.valid_ha
        return Run.of(
            self._job.record,
            cautions=summary.cautions,
            blocks=len(self._job.plan),
            views=describe_runs(self._views),
            seconds={
                "total": round(total, 3),
                **{name: round(part, 3) for name, part in seconds.items()},
                "of_earlier_runs": round(self._earlier_seconds, 3),
            },
            km2_per_minute=area_ha and area_ha / 100 / (total / 60),
        )


def _log_seconds(run: Run):
    """Log the time, the speed and the seconds of each part."""
    seconds, rate = run.seconds, run.km2_per_minute
    named = {name: seconds[name] for name in PARTS if name in seconds}
    shares = (f"{part / seconds['total']:.0%} {PARTS[name]}" for name, part in named.items())
    speed = "" if rate is None else f", {rate:.3g} km2 a minute"
    logger.info("%.1f s%s: %s", seconds["total"], speed, ", ".join(shares))


def _write_report(folder: Path):
    # Reports lie above predictions, and a shard needs no report.
    from terradelta.reports.prediction_page import write_prediction_page

    write_prediction_page(folder)


def _draw_picture(job: Job, folder: Path, summary: Summary):
    # matplotlib takes half a second to import.
    from terradelta.mapping.picture import draw_picture

    with reopen_pair(job.record) as pair:
        draw_picture(pair, folder, job.classes, summary)


def _remove(layers: BlockLayers, removed_HW: np.ndarray) -> BlockLayers:
    """Return a block's layers with some pixels turned to unchanged."""
    return layers._replace(
        before_HW=np.where(removed_HW, 0, layers.before_HW),
        after_HW=np.where(removed_HW, 0, layers.after_HW),
        change_HW=np.where(removed_HW, 0, layers.change_HW),
        confidence_HW=np.where(removed_HW, layers.unchanged_HW, layers.confidence_HW),
    )


def _describe_briefly(job: JobRecord) -> dict[str, str]:
    """Return the tags of a map's header that say how it was made."""
    parameters = write_fields(redact_texts(job.parameters))
    return {
        "TERRADELTA_VERSION": job.versions["terradelta"],
        "TERRADELTA_MODELS": " ".join(model.sha256 for model in job.models),
        "TERRADELTA_BEFORE": name_source(job.before.path),
        "TERRADELTA_AFTER": name_source(job.after.path),
        "TERRADELTA_PARAMETERS": json.dumps(parameters, sort_keys=True),
    }
