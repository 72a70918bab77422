"""Maps as cloud-optimised GeoTIFFs, through virtual rasters (VRT): one from many files, or many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.windows import Window

from terradelta.classes import ClassTable
from terradelta.errors import OutputError, RasterError
from terradelta.geo.gdal_errors import is_gdal_error
from terradelta.geo.grid import Grid, allow_no_place

BLOCK_SIZE_PX = 512
GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16"}


@dataclass(frozen=True)
class MapFormat:
    """The values of a map and their display."""

    dtype: str
    """numpy data type, uint8 or uint16."""
    nodata: int
    """Value of invalid pixels."""
    description: str
    """Description of the band."""
    palette: Mapping[int, tuple[int, int, int]] | None = None
    """Colour (red, green, blue) of each value; empty for a continuous map."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Name of each value; kept in the band's tags as `class_N`."""
    resampling: str = "MODE"
    """Resampling of overviews: "MODE" for classes, "AVERAGE" for quantities."""


def write_cog(
    path: Path,
    grid: Grid,
    parts: Iterable[tuple[Path, Window]],
    band: int,
    map_format: MapFormat,
    tags: Mapping[str, str],
):
    """Copy a band of many files into one COG.

    Args:
        path: The file to make.
        grid: Its pixels.
        parts: Each file, and its place on the grid.
        band: Number of the files' band, from 1.
        map_format: Format of the band.
        tags: Further tags of the file's header.

    Raises:
        OutputError: If it cannot be written.
    """
    virtual = path.with_suffix(".vrt")
    write_virtual(virtual, grid, parts, band, map_format, tags)
    try:
        rasterio.shutil.copy(
            virtual,
            path,
            driver="COG",
            COMPRESS="DEFLATE",
            BLOCKSIZE=str(BLOCK_SIZE_PX),
            OVERVIEW_RESAMPLING=map_format.resampling,
            BIGTIFF="IF_SAFER",
        )
    except Exception as error:
        if not is_gdal_error(error):
            raise
        raise OutputError(
            f"{path} cannot be written: {error}",
            fix="make room or allow writing there, then run the same command again: it resumes "
            "where it stopped",
        ) from error
    finally:
        virtual.unlink()


def find_map(folder: Path, name: str) -> Path:
    """Return the file of a map in a prediction folder: one COG, or the VRT of many.

    Args:
        folder: The prediction folder.
        name: Name of the map, for example "change".
    """
    virtual = folder / f"{name}.vrt"
    return virtual if virtual.is_file() else folder / f"{name}.tif"


def read_classes(path: Path) -> ClassTable:
    """Return the classes of a map of class ids, such as before_class.tif, from its own header.

    Raises:
        RasterError: If it does not exist, or names no classes.
    """
    try:
        with allow_no_place(), rasterio.open(path) as dataset:
            tags, colours = dataset.tags(1), dataset.colormap(1)
    except (RasterioError, ValueError) as error:
        raise RasterError(
            f"{path} cannot be read as a map of classes: {error}",
            fix="give the folder that `terradelta predict` made from two rasters",
        ) from error
    names: list[str] = []
    while f"class_{len(names)}" in tags:
        names.append(tags[f"class_{len(names)}"])
    if len(names) < 2:
        raise RasterError(
            f"{path} names {len(names)} classes in its band's tags (class_0, class_1, ...)",
            fix="give the folder that `terradelta predict` made, with its maps unchanged",
        )
    return ClassTable(tuple(names), tuple(colours[value][:3] for value in range(len(names))))


def write_virtual(
    path: Path,
    grid: Grid,
    parts: Iterable[tuple[Path, Window]],
    band: int,
    map_format: MapFormat,
    tags: Mapping[str, str],
    *,
    overviews: Sequence[int] = (),
):
    """Write a VRT that shows a band of many files; nodata where no file lies.

    Files below the VRT's folder are named relative to it, so that they may move together.

    Args:
        path: The file to make.
        grid: Its pixels.
        parts: Each file, and its place on the grid, which may reach beyond it.
        band: Number of the files' band, from 1.
        map_format: Format of the band.
        tags: Further tags of the file's header.
        overviews: Factors of the overviews that all files have.
    """
    kind = GDAL_TYPES[map_format.dtype]
    place = f"<SRS>{escape(grid.crs.to_wkt())}</SRS>" if grid.crs else ""
    if not grid.transform.is_identity:
        numbers = ", ".join(repr(number) for number in grid.transform.to_gdal())
        place += f"<GeoTransform>{numbers}</GeoTransform>"
    with path.open("w", encoding="utf-8") as file:
        file.write(f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">\n')
        file.write(f"{place}{_metadata(tags)}\n")
        file.write(f'<VRTRasterBand dataType="{kind}" band="1">\n')
        file.write(f"<Description>{escape(map_format.description)}</Description>")
        file.write(_metadata({f"class_{value}": name for value, name in map_format.names.items()}))
        file.write(f"<NoDataValue>{map_format.nodata}</NoDataValue>\n")
        file.write(_colours(map_format.palette))
        for source, window in parts:
            file.write(_source(source, window, path.parent, band, kind))
        file.write("</VRTRasterBand>")
        if overviews:
            factors = " ".join(map(str, overviews))
            resampling = map_format.resampling.lower()
            file.write(f'<OverviewList resampling="{resampling}">{factors}</OverviewList>')
        file.write("</VRTDataset>\n")


def _source(source: Path, window: Window, folder: Path, band: int, kind: str) -> str:
    is_below = source.is_relative_to(folder)
    name = source.relative_to(folder).as_posix() if is_below else str(source.resolve())
    size = f'xSize="{window.width}" ySize="{window.height}"'
    # With its properties stated, a file is opened only when its pixels are read.
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="{is_below:d}">{escape(name)}'
        f"</SourceFilename><SourceBand>{band}</SourceBand>"
        f'<SourceProperties RasterXSize="{window.width}" RasterYSize="{window.height}" '
        f'DataType="{kind}" BlockXSize="{window.width}" BlockYSize="64"/>'
        f'<SrcRect xOff="0" yOff="0" {size}/>'
        f'<DstRect xOff="{window.col_off}" yOff="{window.row_off}" {size}/>'
        "</SimpleSource>\n"
    )


def _metadata(tags: Mapping[str, str]) -> str:
    items = "".join(
        f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>" for key, value in tags.items()
    )
    return f"<Metadata>{items}</Metadata>" if items else ""


def _colours(palette: Mapping[int, tuple[int, int, int]] | None) -> str:
    if palette is None:
        return "<ColorInterp>Gray</ColorInterp>"
    # Entries are in the order of their values; those without a colour are transparent.
    entries = (palette.get(value) for value in range(max(palette) + 1))
    lines = (
        '<Entry c1="0" c2="0" c3="0" c4="0"/>'
        if colour is None
        else f'<Entry c1="{colour[0]}" c2="{colour[1]}" c3="{colour[2]}" c4="255"/>'
        for colour in entries
    )
    return f"<ColorInterp>Palette</ColorInterp><ColorTable>{''.join(lines)}</ColorTable>\n"
