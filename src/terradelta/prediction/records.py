"""run.json, summary.json and job.json, as dataclasses with the fields in the files' order.

Unknown keys are kept, so that a later version may add some; keys that an earlier
version did not write have a default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from terradelta.cautions import Caution
from terradelta.classes import ClassTable
from terradelta.fields import (
    POSITIVE_COUNT,
    UNKNOWN_KEYS,
    UNLESS_NONE,
    FieldError,
    Within,
    keyed,
)
from terradelta.geo.dates import Dates, ImageDate
from terradelta.geo.finding import Finding
from terradelta.geo.grid import Grid
from terradelta.geo.normalization import LightMatch
from terradelta.geo.raster_record import Count, OriginRecord, RasterRecord, Side

LARGEST_AREA_HA = 1e12
"""Many times the Earth's surface: zones and maps may overlap themselves."""
LARGEST_SHIFT_PX = 1e6
MOST_TILES_A_SIDE, MOST_TILES = 2_000_000, 100_000_000
"""More than any job has; only a damaged number is larger."""

Area = Annotated[float, Within(least=0, most=LARGEST_AREA_HA)]
Percent = Annotated[float, Within(least=0, most=100.001)]
"""A sum of shares may be off by some roundings."""
Number = int | float
"""A number from a caller, written as given."""
Shift = Annotated[float, Within(least=-LARGEST_SHIFT_PX, most=LARGEST_SHIFT_PX)]


@dataclass(frozen=True, kw_only=True)
class TransitionRow:
    """The amount of one transition."""

    from_class: str = keyed("from")
    to_class: str = keyed("to")
    pixels: Annotated[int, POSITIVE_COUNT]
    area_ha: Area | None = None
    """None without a CRS."""
    share_percent: Percent


@dataclass(frozen=True, kw_only=True)
class DateRecord:
    """The date of an image.

    Raises:
        FieldError: If it is not a date.
    """

    text: str
    start: str = ""
    """Its first moment, as in its text."""
    end: str = ""
    origin: str

    def __post_init__(self):
        try:
            self.build()
        except ValueError as error:
            raise FieldError("dates", self.text, "a date as ISO 8601 has it") from error

    def build(self) -> ImageDate:
        """Return the date."""
        return ImageDate.parse(self.text, self.origin)


@dataclass(frozen=True)
class DatesRecord:
    """Dates of both images; None if unknown."""

    before: DateRecord | None = None
    after: DateRecord | None = None

    @classmethod
    def of(cls, dates: Dates) -> DatesRecord:
        """Return a record of the dates of both images."""
        return cls(*(None if date is None else DateRecord(**date.to_dict()) for date in dates))

    def build(self) -> Dates:
        """Return the dates of both images."""
        before, after = (date and date.build() for date in (self.before, self.after))
        return before, after


@dataclass(frozen=True)
class OriginsRecord:
    """The files of both dates."""

    before: tuple[OriginRecord, ...] = ()
    after: tuple[OriginRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The sums of a map.

    Raises:
        FieldError: If the numbers contradict each other.
    """

    cautions: tuple[Caution, ...] = ()
    """Reasons to doubt the map: read them before the numbers."""
    dates: DatesRecord | None = None
    valid_pixels: Count
    changed_pixels: Count
    nodata_pixels: Count = 0
    nodata_ha: Area | None = None
    """None without a CRS, like the other areas."""
    valid_ha: Area | None = None
    changed_ha: Area | None = None
    changed_percent: Percent
    transitions: tuple[TransitionRow, ...]
    """The largest first."""
    unsure_pixels: Count | None = None
    """Changed pixels that are more likely wrong than right; None from an earlier version."""
    unsure_ha: Area | None = None
    unsure_percent: Percent | None = None
    """Mean over all change."""
    patches: Count | None = field(default=None, metadata=UNLESS_NONE)
    """None for a folder of images, which has no polygons."""
    pairs: Count | None = field(default=None, metadata=UNLESS_NONE)
    """Number of pairs in a folder of images; None for rasters."""
    others: dict[str, Any] = field(default_factory=dict, metadata=UNKNOWN_KEYS)
    """Keys of a later version."""

    def __post_init__(self):
        has_area = self.changed_ha is not None
        if has_area != (self.valid_ha is not None):
            raise FieldError("valid_ha", self.valid_ha, "a number where changed_ha is one")
        if self.changed_pixels > self.valid_pixels:
            raise FieldError(
                "changed_pixels", self.changed_pixels, f"at most valid_pixels, {self.valid_pixels}"
            )
        if self.valid_pixels + self.nodata_pixels == 0:
            raise FieldError("valid_pixels", 0, "more than 0 where nodata_pixels is 0")
        for index, row in enumerate(self.transitions):
            if has_area != (row.area_ha is not None):
                place = f"transitions[{index}].area_ha"
                raise FieldError(place, row.area_ha, "a number where changed_ha is one")
        amounts = [row.area_ha if has_area else row.pixels for row in self.transitions]
        if amounts and not sum(amount or 0 for amount in amounts) > 0:
            raise FieldError("transitions", amounts, "some that cover more than 0")
        if amounts and has_area and not self.changed_ha:
            raise FieldError(
                "changed_ha", self.changed_ha, "more than 0 where there are transitions"
            )

    def require_classes(self, classes: ClassTable):
        """Raise if a transition is between classes that the map does not have.

        Raises:
            FieldError: Naming it.
        """
        known = f"a class of the map: {', '.join(classes.names)}"
        for index, row in enumerate(self.transitions):
            for key, name in (("from", row.from_class), ("to", row.to_class)):
                if name not in classes.names:
                    raise FieldError(f"transitions[{index}].{key}", name, known)


@dataclass(frozen=True)
class ModelRecord:
    """One of the models that voted."""

    folder: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class GridRecord:
    """The pixels of a pair.

    Raises:
        FieldError: If they are not valid.
    """

    crs: str | None = None
    """Well-known text."""
    transform: tuple[float, float, float, float, float, float]
    width: Side
    height: Side

    def __post_init__(self):
        a, b, _, d, e, _ = self.transform
        if not 0 < abs(a * e - b * d) < math.inf:
            raise FieldError("grid.transform", self.transform, "a transform with an inverse")
        self.build()

    @classmethod
    def of(cls, grid: Grid) -> GridRecord:
        """Return a record of a grid."""
        return cls(
            crs=None if grid.crs is None else grid.crs.to_wkt(),
            transform=grid.transform[:6],
            width=grid.width,
            height=grid.height,
        )

    def build(self) -> Grid:
        """Return the grid.

        Raises:
            FieldError: If the CRS is not valid.
        """
        try:
            crs = None if self.crs is None else CRS.from_wkt(self.crs)
        except CRSError as error:
            raise FieldError("grid.crs", self.crs, "the well-known text of a CRS") from error
        return Grid(crs, Affine(*self.transform), self.width, self.height)


@dataclass(frozen=True)
class AreaRecord:
    """The file that limited the work."""

    path: str
    sha256: str = ""


@dataclass(frozen=True)
class Parameters:
    """The request."""

    tta: str | None = None
    bands: tuple[int | str, ...] | None = None
    grid: str | float = "before"
    nodata: tuple[Number | None, Number | None] | None = None
    mask: tuple[str | None, str | None] | None = None
    mask_values: str | None = None
    value_range: tuple[Number, Number] | None = None
    after_value_range: tuple[Number, Number] | None = None
    match_light: str = "none"
    aoi: AreaRecord | None = None
    register: bool = False
    change_threshold: Number | None = None
    reduction: Side = 1
    """Pixels per side of the squares whose means the networks saw."""
    enlargement: Side = 1
    """Pixels per side that the networks saw, interpolated, in place of one."""
    decided_by: str = "change"
    sensitivity: str = "balanced"
    device: str | None = None
    backend: str | None = None
    precision: str | None = None
    min_area_m2: Number = 0.0
    vector: str = "gpkg"
    time_budget_seconds: Number | None = None
    picture: bool = False
    cog_size_px: Side | None = None


@dataclass(frozen=True)
class FolderParameters:
    """The request for two folders of images."""

    tta: str | None = None
    value_range: tuple[Number, Number] | None = None
    after_value_range: tuple[Number, Number] | None = None
    time_budget_seconds: Number | None = None
    device: str | None = None
    backend: str | None = None
    precision: str | None = None
    change_threshold: Number | None = None
    decided_by: str = "change"
    sensitivity: str = "balanced"


@dataclass(frozen=True)
class ViewsRecord:
    """Number of test-time views of some blocks, or of pairs of a folder."""

    views: Count
    first: Count = 0
    """The first of them, counted from 1."""
    last: Count = 0


@dataclass(frozen=True)
class SourceRecord:
    """Where a raster or mosaic lay, and the hash of its header."""

    path: str | tuple[str, ...]
    header_sha256: str = ""


@dataclass(frozen=True)
class PairRun:
    """The values needed to open the two rasters of a map again."""

    before: SourceRecord
    after: SourceRecord
    band_names: tuple[str, ...]
    parameters: Parameters
    dates: DatesRecord | None = None
    shift_px: tuple[Shift, Shift] = (0.0, 0.0)


@dataclass(frozen=True)
class FolderRun:
    """How the maps of two folders of images were made: the content of their run.json."""

    cautions: tuple[Caution, ...]
    findings: tuple[Finding, ...]
    dates: DatesRecord
    before: str
    after: str
    models: tuple[ModelRecord, ...]
    parameters: FolderParameters
    versions: dict[str, str]
    views_of_pairs: tuple[ViewsRecord, ...]
    seconds: dict[str, float]
    """Seconds of the whole, and of its parts."""
    others: dict[str, Any] = field(default_factory=dict, metadata=UNKNOWN_KEYS)


@dataclass(frozen=True)
class TilingRecord:
    """How a map is cut into blocks."""

    tile_size_px: Side
    margin_px: Count
    stride_px: Side
    area: tuple[Count, Count, Side, Side]
    """Column, row, width and height of the wanted part of the grid."""
    tiles_per_side: Side

    def __post_init__(self):
        if self.step_px < self.stride_px:
            raise FieldError(
                "plan.margin_px", self.margin_px, f"less than half of {self.tile_size_px}"
            )

    @property
    def step_px(self) -> int:
        """Distance from tile to tile."""
        return (self.tile_size_px - 2 * self.margin_px) // self.stride_px * self.stride_px


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """The request of an unfinished prediction: the content of job.json."""

    format: Count = 0
    versions: dict[str, str]
    before: RasterRecord
    after: RasterRecord
    masks: tuple[RasterRecord | None, RasterRecord | None] = (None, None)
    origins: OriginsRecord = field(default_factory=OriginsRecord)
    parameters: Parameters
    band_names: tuple[str, ...]
    classes: ClassTable
    dates: DatesRecord | None = None
    grid: GridRecord
    plan: TilingRecord
    findings: tuple[Finding, ...] = ()
    models: tuple[ModelRecord, ...]
    shift_px: tuple[Shift, Shift] = (0.0, 0.0)
    light: LightMatch | None = None
    others: dict[str, Any] = field(default_factory=dict, metadata=UNKNOWN_KEYS)

    def __post_init__(self):
        column, row, width, height = self.plan.area
        if column + width > self.grid.width or row + height > self.grid.height:
            size = f"{self.grid.width} x {self.grid.height}"
            raise FieldError("plan.area", self.plan.area, f"inside of the grid of {size} px")
        columns, rows = (-(-side // self.plan.step_px) for side in (width, height))
        if max(columns, rows) > MOST_TILES_A_SIDE or columns * rows > MOST_TILES:
            raise FieldError(
                "plan.tile_size_px", self.plan.tile_size_px, "enough for a map of this size"
            )


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a map of two rasters was made: the content of run.json."""

    cautions: tuple[Caution, ...] = ()
    format: Count = 0
    versions: dict[str, str]
    before: RasterRecord
    after: RasterRecord
    masks: tuple[RasterRecord | None, RasterRecord | None] = (None, None)
    parameters: Parameters
    band_names: tuple[str, ...]
    classes: ClassTable | None = None
    dates: DatesRecord | None = None
    grid: GridRecord
    plan: TilingRecord | None = None
    findings: tuple[Finding, ...] | None = None
    """None from an earlier version, which did not record them."""
    models: tuple[ModelRecord, ...]
    shift_px: tuple[Shift, Shift] = (0.0, 0.0)
    light: LightMatch | None = None
    blocks: Count | None = None
    views_of_blocks: tuple[ViewsRecord, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of the whole, and of its parts."""
    km2_per_minute: float | None = None
    """None without a CRS."""
    others: dict[str, Any] = field(default_factory=dict, metadata=UNKNOWN_KEYS)
    """Keys of a later version."""

    @classmethod
    def of(
        cls,
        job: JobRecord,
        *,
        cautions: tuple[Caution, ...],
        views: tuple[ViewsRecord, ...],
        blocks: int,
        seconds: dict[str, float],
        km2_per_minute: float | None,
    ) -> Run:
        """Return how the map of a job was made.

        Args:
            job: The request.
            cautions: Cautions of the map.
            views: Views of its blocks.
            blocks: Number of its blocks.
            seconds: Seconds of the whole, and of its parts.
            km2_per_minute: Ground per time; None without a CRS.
        """
        shared = {one.name: getattr(job, one.name) for one in fields(job) if one.name != "origins"}
        return cls(
            **shared,
            cautions=cautions,
            blocks=blocks,
            views_of_blocks=views,
            seconds=seconds,
            km2_per_minute=km2_per_minute,
        )


RecordedPair = PairRun | Run | JobRecord
"""A record of how a pair was read."""
