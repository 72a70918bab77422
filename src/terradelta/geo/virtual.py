"""Virtual rasters: bands of files combined by GDAL's VRT format, in memory.

Each stores the name of its source, which its own name does not contain: see `name_raster`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import rasterio
from affine import Affine
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from terradelta.errors import RasterError
from terradelta.geo.grid import Grid, allow_no_place
from terradelta.geo.listing import BAND_JOINER, is_file, split_files

NAMESPACE = "TERRADELTA"
"""Domain of GDAL's metadata that stores the source of a virtual raster."""


def name_raster(raster: Any) -> str:
    """Return a raster's name for messages, for a virtual one that of its source.

    Args:
        raster: An open raster, or another object with a name.
    """
    raster = raster.src_dataset if isinstance(raster, WarpedVRT) else raster
    made_from = raster.tags(ns=NAMESPACE).get("name") if isinstance(raster, DatasetReader) else None
    return made_from or raster.name


def count_bands(raster: DatasetReader) -> list[int]:
    """Return the number of bands of each of the files that make a raster."""
    files = raster.tags(ns=NAMESPACE).get("files", "").split()
    return list(Counter(files).values()) or [raster.count]


def name_gdal_type(dtype: str) -> str:
    """Return GDAL's name of a numpy data type."""
    return typename_fwd[dtype_rev[dtype]]


@contextmanager
def open_virtual(
    dataset: DatasetReader, layers_xml: str, files: Sequence[int], nodata: float | None = None
) -> Iterator[DatasetReader]:
    """Open a virtual raster with the place of a raster; a context manager.

    Args:
        dataset: The raster.
        layers_xml: See `expand_palette` and `copy_bands`.
        files: File of each of the bands; see `tell_files`.
        nodata: A value that means no data, besides those that the bands declare.
    """
    facts = {"name": name_raster(dataset), "files": " ".join(map(str, files))}
    if nodata is not None:
        facts["nodata"] = repr(nodata)
    with allow_no_place():
        virtual = rasterio.open(_frame(dataset, layers_xml, facts))
    with closing(virtual):
        yield virtual


def is_masked(flags: Sequence[MaskFlags]) -> bool:
    """Return whether a band has a mask that does not follow from its own values."""
    # Without flags it has its own mask; GDAL's NODATA_VALUES apply to all bands together.
    return not flags or MaskFlags.per_dataset in flags


def expand_palette(dataset: DatasetReader, nodata: float | None = None) -> str:
    """Return bands of red, green and blue in place of a palette, and their mask."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}"><ColorInterp>{colour}</ColorInterp>'
        f"{_pick_colour(dataset, number)}</VRTRasterBand>"
        for number, colour in enumerate(("Red", "Green", "Blue"), start=1)
    )
    masks = _list_masks(dataset, 1, None)
    if any(colour[3] == 0 for colour in dataset.colormap(1).values()):
        masks.append(_pick_colour(dataset, 4))
    for value in (dataset.nodata, nodata):
        if value is not None:
            masks.append(_mask_value(dataset, 1, value))
    return bands + _write_mask(masks)


def _pick_colour(dataset: DatasetReader, number: int) -> str:
    component = f"<ColorTableComponent>{number}</ColorTableComponent>"
    return f"<ComplexSource>{_name_source(dataset, '1')}{component}</ComplexSource>"


def copy_bands(dataset: DatasetReader, alpha: int | None = None) -> str:
    """Return the bands of a raster, including alpha, and their masks.

    Args:
        dataset: The raster.
        alpha: The number of an alpha band that masks the others.
    """
    is_shared = all(dataset.mask_flag_enums)
    bands = "".join(
        _write_band(
            dataset,
            number,
            number,
            _write_source(dataset, str(number)),
            "" if is_shared else _write_mask(_list_masks(dataset, number, alpha)),
        )
        for number in dataset.indexes
    )
    return bands + (_write_mask(_list_masks(dataset, 1, alpha)) if is_shared else "")


def copy_with_points(dataset: DatasetReader, alpha: int | None, nodata: float | None) -> str:
    """Return the bands of a raster, one mask of all invalid pixels, and its georeference.

    GDAL warps a raster by its nodata values or by its mask, not by both.

    Args:
        dataset: A raster with control points or a sensor model.
        alpha: The number of an alpha band that masks the others.
        nodata: A value that means no data, besides those that the bands declare.
    """
    bands = "".join(
        _write_band(dataset, number, number, _write_source(dataset, str(number)), has_nodata=False)
        for number in dataset.indexes
    )
    masks = _list_masks(dataset, 1, alpha)
    for values in (dataset.nodatavals, [nodata] * dataset.count):
        parts = [
            _mask_value(dataset, number, value)
            for number, value in enumerate(values, start=1)
            if value is not None and number != alpha
        ]
        # With 8 bits one band alone is not enough; see `find_valid`.
        is_colour = dataset.dtypes[0] in ("uint8", "int8")
        masks += [_sum_sources(dataset, parts)] if is_colour and parts else parts
    return _write_points(dataset) + bands + _write_mask(masks)


def _mask_value(dataset: DatasetReader, number: int, value: float) -> str:
    """Return the XML of a source that reads 0 where a band holds a value, 255 elsewhere."""
    scaling = "<ScaleOffset>255</ScaleOffset><ScaleRatio>0</ScaleRatio>"
    other = f"{_name_source(dataset, str(number))}{scaling}<NODATA>{value!r}</NODATA>"
    return f"<ComplexSource>{other}</ComplexSource>"


def _sum_sources(dataset: DatasetReader, sources: Sequence[str]) -> str:
    """Return the XML of the sum of several sources."""
    xml = (
        f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">'
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
        "<PixelFunctionType>sum</PixelFunctionType>"
        f"<SourceTransferType>Float64</SourceTransferType>{''.join(sources)}"
        "</VRTRasterBand></VRTDataset>"
    )
    name = f"<SourceFilename>{escape(xml)}</SourceFilename><SourceBand>1</SourceBand>"
    return f"<SimpleSource>{name}</SimpleSource>"


def _write_points(dataset: DatasetReader) -> str:
    """Return the control points, or else the sensor model, of a raster."""
    points, crs = dataset.gcps
    if points:
        items = "".join(
            f'<GCP Id="{number}" Pixel="{point.col!r}" Line="{point.row!r}" X="{point.x!r}" '
            f'Y="{point.y!r}" Z="{point.z or 0.0!r}"/>'
            for number, point in enumerate(points)
        )
        projection = quoteattr(crs.to_wkt()) if crs else '""'
        return f"<GCPList Projection={projection}>{items}</GCPList>"
    items = "".join(
        f'<MDI key="{key}">{escape(text)}</MDI>' for key, text in dataset.tags(ns="RPC").items()
    )
    return f'<Metadata domain="RPC">{items}</Metadata>'


def copy_values(dataset: DatasetReader) -> str:
    """Return the bands of a raster as bare values: no nodata, mask, palette or alpha."""
    return "".join(
        f'<VRTRasterBand dataType="{name_gdal_type(dataset.dtypes[number - 1])}" band="{number}">'
        f"{_write_source(dataset, str(number))}</VRTRasterBand>"
        for number in dataset.indexes
    )


def tell_files(dataset: DatasetReader) -> list[int]:
    """Return the file of each band of a raster, numbered from 0.

    Bands of one file are consecutive; those of a virtual raster may come from many files.
    """
    told = dataset.tags(ns=NAMESPACE).get("files")
    if told is not None:
        return list(map(int, told.split()))
    if dataset.driver != "VRT" or dataset.count == 1:
        return [0] * dataset.count
    root = ElementTree.fromstring(dataset.tags(ns="xml:VRT")["xml:VRT"])
    names = [
        frozenset(source.text for source in band.iter("SourceFilename"))
        for band in root.findall("VRTRasterBand")
    ]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]


def find_missing_sources(name: str) -> list[str]:
    """Return the missing local files of a virtual raster or of its sources.

    Args:
        name: A raster, or files of bands; see `split_files`.

    Raises:
        RasterError: If a virtual raster is not well-formed XML.
    """
    missing: dict[str, None] = {}
    found: set[str] = set()
    waiting = [file for file in split_files(name) if is_file(file)]
    while waiting:
        path = Path(waiting.pop())
        if path.suffix.lower() != ".vrt" or str(path) in found:
            continue
        found.add(str(path))
        for source in _parse(path).iter("SourceFilename"):
            is_beside = source.get("relativeToVRT") == "1"
            file = str(path.parent / (source.text or "")) if is_beside else source.text or ""
            if is_file(file):
                waiting.append(file)
            elif not file.startswith("/vsi") and not set(":<") & set(file):
                missing[file] = None
    return list(missing)


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise RasterError(
            f"{path} is not well-formed XML: {error}",
            fix="build it again, for example with gdalbuildvrt",
        ) from error


def stack_bands(
    datasets: Sequence[DatasetReader], names: Sequence[str], alphas: Sequence[int | None]
) -> DatasetReader:
    """Open the bands of several rasters as one raster, in their order.

    It has the pixels of the finest; coarser ones are resampled to them bilinearly. Bands keep their
    names, nodata values, scales and offsets, and each has the mask and the true alpha band of its
    file.

    Args:
        datasets: The rasters, open.
        names: Names for errors.
        alphas: The number of the true alpha band of each.

    Raises:
        RasterError: If they do not cover the same ground in the same CRS.
    """
    finest = max(range(len(datasets)), key=lambda index: datasets[index].width)
    base = datasets[finest]
    bands, files = "", []
    for file, (dataset, name, alpha) in enumerate(zip(datasets, names, alphas, strict=True)):
        _require_same_ground(base, names[finest], dataset, name)
        for number in dataset.indexes:
            if number == alpha:
                continue
            files.append(file)
            source = _write_source(dataset, str(number), base)
            mask = _write_mask(_list_masks(dataset, number, alpha, base))
            bands += _write_band(dataset, number, len(files), source, mask)
    facts = {"name": BAND_JOINER.join(names), "files": " ".join(map(str, files))}
    return rasterio.open(_frame(base, bands, facts))


def _require_same_ground(base: DatasetReader, base_name: str, other: DatasetReader, name: str):
    scale = Affine.scale(other.width / base.width, other.height / base.height)
    laid = Grid(other.crs, other.transform @ scale, base.width, base.height)
    if not laid.same_as(Grid.of(base)):
        raise RasterError(
            f"{base_name} and {name} cannot be bands of one raster: they cover {_say_place(base)} "
            f"and {_say_place(other)}",
            fix=f"warp {name} to the other's ground first: gdalwarp with -t_srs and -te",
        )


def _say_place(dataset: DatasetReader) -> str:
    edges = ", ".join(f"{edge:.10g}" for edge in dataset.bounds)
    return f"({edges}) in {dataset.crs or 'no CRS'}"


def _write_band(
    dataset: DatasetReader,
    number: int,
    position: int,
    source: str,
    mask: str = "",
    *,
    has_nodata: bool = True,
) -> str:
    """Return a band of a raster as a band of a virtual raster."""
    kind, text = dataset.dtypes[number - 1], dataset.descriptions[number - 1]
    colour = dataset.colorinterp[number - 1]
    nodata = dataset.nodatavals[number - 1] if has_nodata else None
    name = "Undefined" if colour == ColorInterp.alpha else colour.name.capitalize()
    described = f"<Description>{escape(text)}</Description>" if text else ""
    value = "" if nodata is None else f"<NoDataValue>{nodata!r}</NoDataValue>"
    # Tags only: the stored values are read.
    scale, offset = dataset.scales[number - 1], dataset.offsets[number - 1]
    if (scale, offset) != (1.0, 0.0):
        value += f"<Offset>{offset!r}</Offset><Scale>{scale!r}</Scale>"
    return (
        f'<VRTRasterBand dataType="{name_gdal_type(kind)}" band="{position}">'
        f"{described}{value}<ColorInterp>{name}</ColorInterp>{source}{mask}</VRTRasterBand>"
    )


def _list_masks(
    dataset: DatasetReader, number: int, alpha: int | None, base: DatasetReader | None = None
) -> list[str]:
    """Return the XML that reads the mask of a band and its alpha band, if any."""
    flags = dataset.mask_flag_enums[number - 1]
    masks = []
    if is_masked(flags) and MaskFlags.alpha not in flags:
        masks.append(_write_source(dataset, f"mask,{number}", base, "nearest"))
    if alpha is not None:
        masks.append(_write_source(dataset, str(alpha), base, "nearest"))
    return masks


def _write_mask(masks: Sequence[str]) -> str:
    """Return the mask that is 0 where any of several is."""
    kind = ""
    if len(masks) > 1:
        kind = ' subClass="VRTDerivedRasterBand"'
        product = "<PixelFunctionType>mul</PixelFunctionType>"
        masks = [f"{product}<SourceTransferType>Float64</SourceTransferType>", *masks]
    band = f'<VRTRasterBand dataType="Byte"{kind}>{"".join(masks)}</VRTRasterBand>'
    return f"<MaskBand>{band}</MaskBand>" if masks else ""


def _write_source(
    dataset: DatasetReader,
    band: str,
    base: DatasetReader | None = None,
    resampling: str = "bilinear",
) -> str:
    """Return the XML that reads a band, resampled to a base raster if that has other pixels."""
    name = _name_source(dataset, band)
    if base is None or (dataset.width, dataset.height) == (base.width, base.height):
        return f"<SimpleSource>{name}</SimpleSource>"
    rectangles = "".join(
        f'<{key} xOff="0" yOff="0" xSize="{one.width}" ySize="{one.height}"/>'
        for key, one in (("SrcRect", dataset), ("DstRect", base))
    )
    return f'<SimpleSource resampling="{resampling}">{name}{rectangles}</SimpleSource>'


def _name_source(dataset: DatasetReader, band: str) -> str:
    # A rasterio URI such as zip://a.zip!b.tif is not GDAL's name of the file.
    is_uri = "://" in dataset.name and dataset.files
    name = dataset.files[0] if is_uri else dataset.name
    if not name.startswith("<") and is_file(name):
        name = str(Path(name).resolve())
    return f"<SourceFilename>{escape(name)}</SourceFilename><SourceBand>{band}</SourceBand>"


def _frame(dataset: DatasetReader, layers_xml: str, facts: Mapping[str, str]) -> str:
    """Return a virtual raster of these layers with the size and the place of a raster."""
    items = "".join(f'<MDI key="{key}">{escape(text)}</MDI>' for key, text in facts.items())
    transform = ", ".join(repr(number) for number in dataset.transform.to_gdal())
    place = f"<SRS>{escape(dataset.crs.to_wkt())}</SRS>" if dataset.crs else ""
    if not dataset.transform.is_identity:
        place += f"<GeoTransform>{transform}</GeoTransform>"
    return (
        f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">{place}'
        f'<Metadata domain="{NAMESPACE}">{items}</Metadata>{layers_xml}</VRTDataset>'
    )
