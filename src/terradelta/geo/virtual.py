"""Virtual rasters: bands of files put together anew, as GDAL's VRT has them, in memory.

Each keeps the name of what it was made from, which its own does not tell: see `name_raster`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import rasterio
from affine import Affine
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid, allow_no_place
from terradelta.geo.listing import BAND_JOINER, is_file

NAMESPACE = "TERRADELTA"
"""Of GDAL's metadata, where the name is kept."""


def name_raster(raster: Any) -> str:
    """Return what a person calls a raster, of a virtual one what that was made from.

    Args:
        raster: An open raster, or whatever else has a name.
    """
    made_from = raster.tags(ns=NAMESPACE).get("name") if isinstance(raster, DatasetReader) else None
    return made_from or raster.name


def count_bands(raster: DatasetReader) -> list[int]:
    """Return how many bands each of the files has that make a raster."""
    counts = raster.tags(ns=NAMESPACE).get("counts")
    return [int(count) for count in counts.split(",")] if counts else [raster.count]


def name_gdal_type(dtype: str) -> str:
    """Return what GDAL calls a data type of numpy's."""
    return typename_fwd[dtype_rev[dtype]]


@contextmanager
def open_virtual(
    dataset: DatasetReader, bands_xml: str, mask_band: str = "mask,1", nodata: float | None = None
) -> Iterator[DatasetReader]:
    """Open a virtual raster with the place and a mask of a raster; a context manager.

    Args:
        dataset: That raster.
        bands_xml: See `expand_palette` and `drop_alpha`.
        mask_band: Which of the dataset's bands is the mask; none if empty.
        nodata: What its bands hold where there is no data.
    """
    if nodata is not None:
        value = f"<NoDataValue>{nodata!r}</NoDataValue>"
        bands_xml = bands_xml.replace("<ColorInterp>", f"{value}<ColorInterp>")
    is_masked = MaskFlags.all_valid not in dataset.mask_flag_enums[0]
    if mask_band.isdigit() or (mask_band and is_masked):
        bands_xml += _write_mask(_write_source(dataset, mask_band))
    with allow_no_place():
        virtual = rasterio.open(_frame(dataset, bands_xml, name_raster(dataset)))
    with closing(virtual):
        yield virtual


def expand_palette(dataset: DatasetReader) -> str:
    """Return bands of red, green and blue in place of a palette."""
    return "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}"><ColorInterp>{colour}</ColorInterp>'
        f"<ComplexSource>{_name_source(dataset, '1')}"
        f"<ColorTableComponent>{number}</ColorTableComponent></ComplexSource></VRTRasterBand>"
        for number, colour in enumerate(("Red", "Green", "Blue"), start=1)
    )


def drop_alpha(dataset: DatasetReader) -> str:
    """Return the bands of a raster, alpha being one like any other."""
    return "".join(
        _write_band(dataset, number, number, _write_source(dataset, str(number)))
        for number in dataset.indexes
    )


def stack_bands(
    datasets: Sequence[DatasetReader], names: Sequence[str], are_masked: Sequence[bool]
) -> DatasetReader:
    """Open the bands of several rasters as those of one, in their order.

    It has the pixels of the finest; coarser ones are laid on them bilinearly. Bands keep their
    names, nodata values, scales and offsets. The first alpha band that is one, or else the first
    mask that a raster has, masks the whole.

    Args:
        datasets: The rasters, open.
        names: What to call them in an error.
        are_masked: Which of them have an alpha band that is one.

    Raises:
        RasterError: If they do not cover the same ground in the same CRS.
    """
    finest = max(range(len(datasets)), key=lambda index: datasets[index].width)
    base = datasets[finest]
    bands, masks = "", []
    position, counts = 0, []
    for dataset, name, is_masked in zip(datasets, names, are_masked, strict=True):
        _require_same_ground(base, names[finest], dataset, name)
        if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
            masks.append(_write_source(dataset, "mask,1", base))
        for number, colour in zip(dataset.indexes, dataset.colorinterp, strict=True):
            source = _write_source(dataset, str(number), base)
            if is_masked and colour == ColorInterp.alpha:
                masks.insert(0, source)
                continue
            position += 1
            bands += _write_band(dataset, number, position, source, dataset.nodatavals[number - 1])
        counts.append(position - sum(counts))
    mask = _write_mask(masks[0]) if masks else ""
    return rasterio.open(_frame(base, bands + mask, BAND_JOINER.join(names), counts))


def _require_same_ground(base: DatasetReader, base_name: str, other: DatasetReader, name: str):
    scale = Affine.scale(other.width / base.width, other.height / base.height)
    laid = Grid(other.crs, other.transform @ scale, base.width, base.height)
    if not laid.same_as(Grid.of(base)):
        raise RasterError(
            f"{base_name} and {name} cannot be bands of one raster: they cover {_say_place(base)} "
            f"and {_say_place(other)}",
            fix=f"lay {name} on the other's ground first, for example with gdalwarp -t_srs and -te",
        )


def _say_place(dataset: DatasetReader) -> str:
    edges = ", ".join(f"{edge:.10g}" for edge in dataset.bounds)
    return f"({edges}) in {dataset.crs or 'no CRS'}"


def _write_band(
    dataset: DatasetReader, number: int, position: int, source: str, nodata: float | None = None
) -> str:
    """Return a band of a raster as one of a virtual raster."""
    kind, text = dataset.dtypes[number - 1], dataset.descriptions[number - 1]
    colour = dataset.colorinterp[number - 1]
    name = "Undefined" if colour == ColorInterp.alpha else colour.name.capitalize()
    described = f"<Description>{escape(text)}</Description>" if text else ""
    value = "" if nodata is None else f"<NoDataValue>{nodata!r}</NoDataValue>"
    # Tags only: what is read is what is stored.
    scale, offset = dataset.scales[number - 1], dataset.offsets[number - 1]
    if (scale, offset) != (1.0, 0.0):
        value += f"<Offset>{offset!r}</Offset><Scale>{scale!r}</Scale>"
    return (
        f'<VRTRasterBand dataType="{name_gdal_type(kind)}" band="{position}">'
        f"{described}{value}<ColorInterp>{name}</ColorInterp>{source}</VRTRasterBand>"
    )


def _write_mask(source: str) -> str:
    return f'<MaskBand><VRTRasterBand dataType="Byte">{source}</VRTRasterBand></MaskBand>'


def _write_source(dataset: DatasetReader, band: str, base: DatasetReader | None = None) -> str:
    """Return what reads a band, laid on the whole of a base raster where that has other pixels."""
    name = _name_source(dataset, band)
    if base is None or (dataset.width, dataset.height) == (base.width, base.height):
        return f"<SimpleSource>{name}</SimpleSource>"
    rectangles = "".join(
        f'<{key} xOff="0" yOff="0" xSize="{one.width}" ySize="{one.height}"/>'
        for key, one in (("SrcRect", dataset), ("DstRect", base))
    )
    return f'<SimpleSource resampling="bilinear">{name}{rectangles}</SimpleSource>'


def _name_source(dataset: DatasetReader, band: str) -> str:
    # A rasterio URI such as zip://a.zip!b.tif is not GDAL's name of the file.
    is_uri = "://" in dataset.name and dataset.files
    name = dataset.files[0] if is_uri else dataset.name
    if not name.startswith("<") and is_file(name):
        name = str(Path(name).resolve())
    return f"<SourceFilename>{escape(name)}</SourceFilename><SourceBand>{band}</SourceBand>"


def _frame(
    dataset: DatasetReader, bands_xml: str, name: str, counts: Sequence[int] | None = None
) -> str:
    """Return a virtual raster of these bands with the size and the place of a raster.

    It keeps a name and how many bands each of its files has; see `name_raster` and `count_bands`.
    """
    kept = f'<MDI key="name">{escape(name)}</MDI>'
    if counts is not None:
        kept += f'<MDI key="counts">{",".join(map(str, counts))}</MDI>'
    named = f'<Metadata domain="{NAMESPACE}">{kept}</Metadata>'
    transform = ", ".join(repr(number) for number in dataset.transform.to_gdal())
    place = f"<SRS>{escape(dataset.crs.to_wkt())}</SRS>" if dataset.crs else ""
    if not dataset.transform.is_identity:
        place += f"<GeoTransform>{transform}</GeoTransform>"
    return (
        f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">'
        f"{place}{named}{bands_xml}</VRTDataset>"
    )
