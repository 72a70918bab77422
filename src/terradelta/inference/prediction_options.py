"""Options of a map: each dataclass is the API, the command line and the YAML file.

They import neither torch nor GDAL, as the help of the command line is built from them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from terradelta.errors import ArgumentError
from terradelta.fields import POSITIVE_COUNT, Within, check_fields
from terradelta.flags import (
    as_flag,
    read_area,
    read_list,
    read_masks,
    read_memory,
    read_nodata,
    read_range,
    read_shard,
)
from terradelta.geo.pair_options import (
    Bands,
    Both,
    DateOptions,
    LightMatching,
    PairOptions,
    Range,
    require_range,
    split_both,
)
from terradelta.models.decision import Sensitivity

DEFAULT_MEMORY = "4GB"
SMALLEST_PIECE_PX = 512
"""Side of a COG's blocks: pixels of overviews meet at the edges of pieces of whole blocks."""
TILE_SIZE = Within(least=1, most=65_536)
ABOVE_ZERO = Within(above=0)
SWITCH = Parameter(negative=())

Views = Literal["none", "flips", "d4", "seed6"]
BackendName = Literal["auto", "torch", "torch-compile", "openvino", "onnx"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True, kw_only=True)
class RasterOptions:
    """How two rasters are read onto one grid.

    Raises:
        ArgumentError: If an option is of another type or out of its range, or two options
            contradict each other.
    """

    bands: Annotated[Bands | None, as_flag(read_list, metavar="BANDS")] = None
    """Bands that the model reads, in its order, by number from 1 or by name: 1,2,3."""
    value_range: Annotated[
        Range | None, as_flag(read_range, metavar="LOW,HIGH", allow_leading_hyphen=True)
    ] = None
    """Values, scale and offset applied, that become the darkest and the brightest of the model;
    needed for images of another depth than its training images: 0,3000."""
    after_value_range: Annotated[
        Range | None, as_flag(read_range, metavar="LOW,HIGH", allow_leading_hyphen=True)
    ] = None
    """The same for the after image, if it differs: 1000,4000."""
    match_light: LightMatching = "none"
    """Match the light of the after image to the before image, fitted on pixels that look unchanged;
    use histogram if the contrast differs between dark and bright. The after image then has the
    values of the before image, so it takes no range of its own."""
    nodata: Annotated[Both[float], as_flag(read_nodata, metavar="VALUE")] = None
    """A stored value that means no data, besides those that the rasters declare: 0, or
    before=0,after=255."""
    mask: Annotated[Both[str | Path], as_flag(read_masks, metavar="FILE")] = None
    """Raster of pixels to leave out, such as clouds, in any CRS and on any grid: clouds.tif, or
    before=a.tif,after=b.tif."""
    mask_values: str | None = None
    """Mask values that leave a pixel out, any except 0 by default: 3,8-11, bits:3,4 of a bit
    field, or those of scl, qa_pixel or omnicloudmask."""
    before_date: str | None = None
    """Date of the before image, 2019-06-01; by default the one in the raster."""
    after_date: str | None = None
    """Date of the after image."""
    grid: str | float = "before"
    """Pixels of the map: before, after, the side of a pixel in units of the before raster's
    CRS, or CRS@SIDE: EPSG:3035@10. A mosaic's pixels are its first raster's. A ! at the end allows
    far finer pixels than the rasters have, or more than 1e11 of them."""
    aoi: str | Path | None = None
    """Vector file with polygons, in any CRS, or FILE#LAYER; the rest is nodata."""

    def __post_init__(self):
        check_fields(self)
        require_range(self.value_range, "--value-range")
        require_range(self.after_value_range, "--after-value-range")
        if self.match_light != "none" and self.after_value_range is not None:
            raise ArgumentError(
                "--match-light and --after-value-range both say what the values of the after image "
                "mean",
                fix="leave --after-value-range out: matched, it has the values of the before image",
            )

    @property
    def dates(self) -> tuple[str | None, str | None]:
        """Dates of the images, if the user gives them."""
        return self.before_date, self.after_date

    @property
    def reading(self) -> PairOptions:
        """How a pair is read, for each date."""
        ranges = self.value_range, self.after_value_range or self.value_range
        before, after = (
            DateOptions(*said)
            for said in zip(split_both(self.nodata), ranges, split_both(self.mask), strict=True)
        )
        return PairOptions(
            bands=self.bands,
            grid=self.grid,
            aoi=self.aoi,
            before=before,
            after=after,
            mask_values=self.mask_values,
            match_light=self.match_light,
        )


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """Outputs of a map, and limits.

    Raises:
        ArgumentError: If an option is of another type or out of its range.
    """

    register: Annotated[bool, SWITCH] = False
    """Measure the shift between the two images and undo it."""
    min_area: str | float = 0.0
    """Smaller patches of change become unchanged: 100m2, 0.5ha."""
    vector: Literal["gpkg", "parquet"] = "gpkg"
    """Format of the polygons."""
    cog_size: int | None = None
    """For maps too large for one file: cut them into COGs with this many pixels per side, a power
    of two such as 16384, with a VRT per map and STAC items."""
    layout: Literal["terradelta", "senseearth"] = "terradelta"
    """For folders: before/ after/ change/, or im1/ im2/ as the contest asks."""
    time_budget: Annotated[float, ABOVE_ZERO] | None = None
    """Seconds after which the map must be done; flips and rotations are dropped when late."""
    memory: str | int = DEFAULT_MEMORY
    """Memory that the process may use."""
    shard: str = "1/1"
    """2/4 computes only the second quarter of the map; `merge` joins the quarters."""
    picture: Annotated[bool, SWITCH] = False
    """Also draw before, after and the map into OUTPUT/picture.png."""
    strict: Annotated[bool, SWITCH] = False
    """Fail if the map would carry a caution, before the work starts if the caution is known
    then."""

    def __post_init__(self):
        check_fields(self)
        _ = self.min_area_m2, self.memory_bytes, self.shard_of
        size_px = self.cog_size
        if size_px is not None and (size_px < SMALLEST_PIECE_PX or size_px & (size_px - 1)):
            raise ArgumentError(
                f"COGs of {size_px} x {size_px} px were requested",
                fix=f"give a power of two from {SMALLEST_PIECE_PX} on, such as --cog-size 16384",
            )

    @property
    def min_area_m2(self) -> float:
        """Smaller patches of change become unchanged."""
        return read_area(self.min_area)

    @property
    def memory_bytes(self) -> int:
        """Memory that the process may use."""
        return read_memory(self.memory)

    @property
    def shard_of(self) -> tuple[int, int]:
        """Number of the part of the blocks to answer, from 1, and number of parts."""
        return read_shard(self.shard)


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How the networks are run.

    Raises:
        ArgumentError: If an option is of another type or out of its range.
    """

    tta: Views = "none"
    """Flips and rotations whose answers are averaged, 4, 8 or the reference's 6; slower, slightly
    more accurate."""
    sensitivity: Sensitivity = "balanced"
    """few-alarms flags only what is sure, find-all also what is doubtful; for a model with such
    thresholds, like the default one."""
    tile_size: Annotated[int, TILE_SIZE] | None = None
    """Side of the squares that the network sees, in pixels; 2048 by default, less for networks that
    would need more than --memory."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    backend: BackendName = "auto"
    """Runtime of the network."""
    precision: PrecisionName = "auto"
    """bf16 is faster if the processor supports it, int8 faster still for a model that has been
    quantized, fp32 exact."""

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where the blocks are computed.

    Raises:
        ArgumentError: If an option is of another type or out of its range, or belongs to a cluster
            and the engine is local.
    """

    engine: Literal["local", "ray"] = "local"
    """ray distributes the blocks to the workers of a Ray cluster."""
    address: str | None = None
    """Address of a running cluster, such as host:6379; by default RAY_ADDRESS, or one is started on
    this machine."""
    workers: Annotated[int, POSITIVE_COUNT] | None = None
    """Number of workers; by default as many as fit on the cluster. Each may use --memory."""
    worker_cpus: Annotated[float, ABOVE_ZERO] | None = None
    """Cores per worker; by default up to 4."""

    def __post_init__(self):
        check_fields(self)
        flags = list_given(self)
        if self.engine == "local" and flags:
            raise ArgumentError(
                f"{', '.join(flags)} was given, and the engine is local",
                fix="add --engine ray, or leave it out",
            )


KINDS = {"rasters": RasterOptions, "maps": MapOptions, "runtime": Runtime}
"""Arguments of verbs, and the values that they take."""


def require_kinds(**arguments: RasterOptions | MapOptions | Runtime):
    """Raise if an argument is not the value that its name asks for.

    Raises:
        ArgumentError: Naming the argument, its type and the expected one.
    """
    for name, value in arguments.items():
        kind = KINDS[name]
        if not isinstance(value, kind):
            raise ArgumentError(
                f"{name} is a {type(value).__name__}, and it must be a td.{kind.__name__}",
                fix=f"give {name}=td.{kind.__name__}(...)",
            )


def list_given(options: RasterOptions | MapOptions | Runtime | Cluster) -> list[str]:
    """Return the flags of the options that differ from their defaults."""
    return [
        "--" + field.name.replace("_", "-")
        for field in fields(options)
        if getattr(options, field.name) != field.default
    ]
