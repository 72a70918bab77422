"""run.json and summary.json of a prediction folder, as dataclasses.

Keys that are not listed are left aside, so that a later version may add some; keys that an earlier
version did not write have a default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from terradelta.classes import ClassTable
from terradelta.fields import COUNT, POSITIVE_COUNT, FieldError, Within, keyed
from terradelta.geo.dates import ImageDate
from terradelta.geo.grid import Grid

LARGEST_AREA_HA = 1e12
"""Many times the Earth's surface: zones and maps may overlap themselves."""
LARGEST_SIDE_PX = 2**31 - 1
LARGEST_SHIFT_PX = 1e6
MOST_TILES_A_SIDE, MOST_TILES = 2_000_000, 100_000_000
"""No job is as large; a damaged number would be."""

Area = Annotated[float, Within(least=0, most=LARGEST_AREA_HA)]
Percent = Annotated[float, Within(least=0, most=100.001)]
"""A sum of shares may be off by some roundings."""
Count = Annotated[int, COUNT]
Side = Annotated[int, Within(least=1, most=LARGEST_SIDE_PX)]
Shift = Annotated[float, Within(least=-LARGEST_SHIFT_PX, most=LARGEST_SHIFT_PX)]


@dataclass(frozen=True)
class TransitionRow:
    """What went from one class to another."""

    pixels: Annotated[int, POSITIVE_COUNT]
    share_percent: Percent
    from_class: str = keyed("from")
    to_class: str = keyed("to")
    area_ha: Area | None = None
    """None without a CRS."""


@dataclass(frozen=True)
class CautionRecord:
    """What makes a map doubtful."""

    name: str
    message: str
    fix: str


@dataclass(frozen=True)
class FindingRecord:
    """What was found about the pair before it was mapped."""

    name: str
    level: Literal["OK", "WARN", "FAIL"]
    message: str
    values: dict[str, Any]
    fix: str | None = None
    is_doubt: bool = True


@dataclass(frozen=True)
class DateRecord:
    """When an image was taken.

    Raises:
        FieldError: If it is not a date.
    """

    text: str
    origin: str

    def __post_init__(self):
        try:
            ImageDate.parse(self.text, self.origin)
        except ValueError as error:
            raise FieldError("dates", self.text, "a date as ISO 8601 has it") from error


@dataclass(frozen=True)
class DatesRecord:
    """When both images were taken; None where nothing says so."""

    before: DateRecord | None = None
    after: DateRecord | None = None


@dataclass(frozen=True)
class OriginRecord:
    """A file that a raster was read from."""

    path: str
    size_bytes: Count
    sha256: str


@dataclass(frozen=True)
class OriginsRecord:
    """The files of both dates."""

    before: tuple[OriginRecord, ...] = ()
    after: tuple[OriginRecord, ...] = ()


@dataclass(frozen=True)
class Summary:
    """The sums of a map.

    Raises:
        FieldError: If the numbers contradict each other.
    """

    valid_pixels: Count
    changed_pixels: Count
    changed_percent: Percent
    transitions: tuple[TransitionRow, ...]
    """The largest first."""
    nodata_pixels: Count = 0
    valid_ha: Area | None = None
    """None without a CRS, as the other areas."""
    changed_ha: Area | None = None
    nodata_ha: Area | None = None
    patches: Count | None = None
    """None of a folder of images, which has no polygons."""
    cautions: tuple[CautionRecord, ...] = ()
    dates: DatesRecord | None = None

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
class ShardSummary:
    """What a shard that is under way says of itself."""

    blocks: Count
    blocks_done: Count


@dataclass(frozen=True)
class RasterRecord:
    """One of the two rasters or mosaics that were mapped."""

    path: str | tuple[str, ...]
    width: Side
    height: Side
    bands: Count
    dtypes: tuple[str, ...]
    header_sha256: str
    crs: str | None = None
    size_bytes: Count | None = None
    dates: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ModelRecord:
    """One of the models that voted."""

    folder: str
    sha256: str


@dataclass(frozen=True)
class GridRecord:
    """The pixels of a pair.

    Raises:
        FieldError: If they are no pixels.
    """

    transform: tuple[float, float, float, float, float, float]
    width: Side
    height: Side
    crs: str | None = None
    """Well-known text."""

    def __post_init__(self):
        a, b, _, d, e, _ = self.transform
        if not 0 < abs(a * e - b * d) < math.inf:
            raise FieldError("grid.transform", self.transform, "a transform with an inverse")
        self.build()

    def build(self) -> Grid:
        """Return the grid.

        Raises:
            FieldError: If the CRS is none.
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


@dataclass(frozen=True)
class Parameters:
    """What was asked for."""

    bands: tuple[int | str, ...] | None = None
    grid: str | float = "before"
    aoi: AreaRecord | None = None
    register: bool = False
    value_range: tuple[float, float] | None = None
    after_value_range: tuple[float, float] | None = None
    nodata: tuple[float | None, float | None] | None = None
    mask: tuple[str | None, str | None] | None = None
    mask_values: str | None = None
    match_light: str = "none"
    tta: str | None = None
    change_threshold: float | None = None
    min_area_m2: float = 0.0
    backend: str | None = None
    precision: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class ViewsRecord:
    """How many test-time views some blocks had."""

    views: Count


@dataclass(frozen=True)
class SourceRecord:
    """Where a raster or mosaic lay, and the hash of its header."""

    path: str | tuple[str, ...]
    header_sha256: str = ""


@dataclass(frozen=True)
class PairRun:
    """What it takes to open the two rasters of a map again."""

    before: SourceRecord
    after: SourceRecord
    band_names: tuple[str, ...]
    parameters: Parameters
    shift_px: tuple[Shift, Shift] = (0.0, 0.0)
    grid: GridRecord | None = None


@dataclass(frozen=True)
class Run:
    """How a map of two rasters came about."""

    before: RasterRecord
    after: RasterRecord
    grid: GridRecord
    models: tuple[ModelRecord, ...]
    band_names: tuple[str, ...]
    parameters: Parameters
    versions: dict[str, str]
    shift_px: tuple[Shift, Shift] = (0.0, 0.0)
    views_of_blocks: tuple[ViewsRecord, ...] = ()
    cautions: tuple[CautionRecord, ...] = ()
    findings: tuple[FindingRecord, ...] | None = None
    """None of an earlier version, which did not keep them."""
    dates: DatesRecord | None = None


@dataclass(frozen=True)
class TilingRecord:
    """How a map is cut into blocks."""

    tile_size_px: Side
    margin_px: Count
    stride_px: Side
    area: tuple[Count, Count, Side, Side]
    """Column, row, width and height of what is wanted of the grid."""
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


@dataclass(frozen=True)
class JobParameters(Parameters):
    """What was asked for, as far as the maps are made of it."""

    vector: str = "gpkg"
    picture: bool = False
    cog_size_px: Side | None = None


@dataclass(frozen=True)
class JobRecord:
    """What a prediction under way was asked for: the content of job.json."""

    before: RasterRecord
    after: RasterRecord
    grid: GridRecord
    models: tuple[ModelRecord, ...]
    band_names: tuple[str, ...]
    parameters: JobParameters
    versions: dict[str, str]
    classes: ClassTable
    plan: TilingRecord
    shift_px: tuple[Shift, Shift] = (0.0, 0.0)
    findings: tuple[FindingRecord, ...] = ()
    dates: DatesRecord | None = None
    origins: OriginsRecord = field(default_factory=OriginsRecord)

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
