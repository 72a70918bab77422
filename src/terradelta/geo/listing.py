"""Reads BEFORE and AFTER: one raster, or a list of rasters that make a mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from terradelta.errors import ArgumentError, RasterError
from terradelta.extensions import find_reader
from terradelta.fields import read_fields, show
from terradelta.inputs import ContentError, parse_json, read_text
from terradelta.redaction import redact


@dataclass(frozen=True)
class StacAsset:
    """A file of an item."""

    href: str
    roles: tuple[str, ...] | None = None
    title: str | None = None


@dataclass(frozen=True)
class StacItem:
    """The fields of an item that must be valid before pystac reads it."""

    type: Literal["Feature"]
    stac_version: str
    id: str
    assets: dict[str, StacAsset]
    properties: dict[str, Any]
    geometry: dict[str, Any] | None = None
    bbox: tuple[float, ...] | None = None
    links: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class StacItems:
    """The items of a collection."""

    features: tuple[StacItem, ...]


RasterPaths = str | Path | Sequence[str | Path]
"""A raster, a file that lists rasters, or the rasters themselves."""

MAX_LIST_BYTES = 2**30
"""Largest list of rasters: a million STAC items."""
LIST_ENDINGS = (".txt", ".lst")
STAC_ENDINGS = (".json", ".geojson")
OBJECT_STORES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
"""GDAL's own access, which finds credentials in the environment and needs no other package."""
BAND_JOINER = " + "
"""Separator of files whose bands make one raster."""
OFFSET_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Properties of items of Sentinel-2 that are true if pixels include the offset already, although
their `raster:bands` states it."""
REMOTE = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsioss", "/vsiswift", "/vsihdfs")


def list_rasters(source: RasterPaths) -> list[str] | None:
    """Return the rasters of a mosaic in their order, or None if `source` is one raster.

    A raster of a registered reader counts as a mosaic of one.

    Args:
        source: A sequence of rasters; a text file (.txt, .lst) with one raster a line, relative to
            the file, ignoring blank lines and those with a leading #; or a STAC item or item
            collection (.json, .geojson), the asset's name after a #, `items.json#visual`, or one
            for each band, `items.json#red,green,blue`. Each raster may be several files, see
            `split_files`.

    Raises:
        RasterError: If the list cannot be read, is empty or lacks the asset.
        ArgumentError: If it is a STAC file and pystac is not installed, or not a path.
    """
    require_paths(source, "the source")
    if not isinstance(source, str | Path):
        paths = [str(path) for path in source]
        return _require_rasters(paths, "the list of rasters")
    path, asset = split_asset(str(source))
    if path.lower().endswith(LIST_ENDINGS):
        lines = (line.strip() for line in _read_text(path).splitlines())
        listed = [line for line in lines if line and not line.startswith("#")]
        paths = [resolve_beside(line, path) for line in listed]
    elif path.lower().endswith(STAC_ENDINGS):
        paths = _list_assets(path, asset)
    elif find_reader(path) is not None:
        # It is read like the only raster of a mosaic.
        return [path]
    else:
        return None
    return _require_rasters(paths, path)


def list_scalings(source: RasterPaths) -> list[list[list[tuple[float, float]]]] | None:
    """Return the scalings in STAC items, None for other sources.

    Returns:
        For each raster of the mosaic and each of its files the scale and the offset of each band,
        one for all bands if the asset gives only one, or none.

    Raises:
        RasterError: If they cannot be read or are not numbers.
        ArgumentError: If pystac is not installed.
    """
    if not isinstance(source, str | Path):
        return None
    path, asset = split_asset(str(source))
    if not path.lower().endswith(STAC_ENDINGS):
        return None
    return [
        [_read_scalings(item, name, path) for name in _choose_assets(item, asset, path)]
        for item in _read_items(path)
    ]


def _read_scalings(item: Any, name: str, path: str) -> list[tuple[float, float]]:
    """Return scale and offset of each band of an asset, of STAC 1.0 or 1.1."""
    fields = item.assets[name].extra_fields
    bands = fields.get("raster:bands") or fields.get("bands") or []
    # Values of an asset apply to all its bands.
    described = [{**fields, **band} for band in bands] or [fields]
    is_applied = any(item.properties.get(key) is True for key in OFFSET_APPLIED)
    scalings = []
    for band in described:
        scale, offset = (band.get(f"raster:{key}", band.get(key)) for key in ("scale", "offset"))
        for key, number in (("scale", scale), ("offset", offset)):
            if isinstance(number, bool) or not isinstance(number, int | float | None):
                raise RasterError(
                    f"{path}: asset {name} of item {item.id} has the {key} {number!r}",
                    fix="correct it in the item: it must be a number",
                )
        if scale is None and offset is None:
            continue
        shift = 0.0 if offset is None or is_applied else float(offset)
        scalings.append((1.0 if scale is None else float(scale), shift))
    if scalings and len(scalings) < len(described):
        raise RasterError(
            f"{path}: asset {name} of item {item.id} has a scale for {len(scalings)} of its "
            f"{len(described)} bands",
            fix="give each of its bands one in the item, or none",
        )
    return scalings


def require_paths(source: object, name: str):
    """Raise unless a source of rasters is a path or a list of paths.

    Args:
        source: The value.
        name: Name of the argument.

    Raises:
        ArgumentError: Naming its type.
    """
    listed = source if isinstance(source, list | tuple) else [source]
    for one in listed:
        if not isinstance(one, str | Path):
            raise ArgumentError(
                f"{name} is of the type {type(one).__name__}, and it must be a path, or a list of "
                "paths",
                fix="write arrays to GeoTIFF files first, and give the paths of these",
            )


def list_dates(source: RasterPaths) -> tuple[str, str] | None:
    """Return the first and the last date of STAC items, in ISO 8601, None for other sources.

    Raises:
        RasterError: If they cannot be read.
        ArgumentError: If pystac is not installed.
    """
    if not isinstance(source, str | Path):
        return None
    path, _ = split_asset(str(source))
    if not path.lower().endswith(STAC_ENDINGS):
        return None
    dates = []
    try:
        for item in _read_items(path):
            period = item.common_metadata
            dates += [item.datetime, period.start_datetime, period.end_datetime]
        known = [date for date in dates if date is not None]
        return (min(known).isoformat(), max(known).isoformat()) if known else None
    except (ValueError, TypeError, AttributeError) as error:
        raise _refuse(path, f"its dates cannot be read: {error}") from error


def name_source(source: RasterPaths) -> str:
    """Return a name for messages: the file's name, or the first one's and the number of others.

    All files of bands are named; a signed address loses its signature.
    """
    if isinstance(source, str | Path):
        return BAND_JOINER.join(Path(redact(file)).name for file in split_files(source))
    more = len(source) - 1
    return name_source(source[0]) + (f" and {more} more" if more else "")


def record_source(source: RasterPaths) -> str | tuple[str, ...]:
    """Return it as it is recorded."""
    return str(source) if isinstance(source, str | Path) else tuple(map(str, source))


def locate(path: str | Path) -> str:
    """Return GDAL's name of a raster: `/vsis3/bucket/key` for `s3://bucket/key`."""
    location = str(path)
    scheme, separator, rest = location.partition("://")
    if separator and scheme in OBJECT_STORES:
        return OBJECT_STORES[scheme] + rest
    return f"/vsicurl/{location}" if scheme in ("http", "https") else location


def is_file(path: str | Path) -> bool:
    """Return whether a raster is a file; a signed address may be too long for the file system."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def split_files(path: str | Path) -> list[str]:
    """Return the files whose bands make a raster: three for `red.tif + green.tif + blue.tif`."""
    text = str(path)
    is_one = BAND_JOINER not in text or text.startswith("<") or is_file(text)
    return [text] if is_one else text.split(BAND_JOINER)


def is_remote(path: str | Path) -> bool:
    """Return whether a raster, or a file of its bands, is read over a network."""
    return any(locate(file).startswith(REMOTE) for file in split_files(path))


def resolve_beside(path: str, listing: str | Path) -> str:
    """Return a raster listed in a file; paths are relative to that file."""
    folder = Path(listing).parent
    beside = str(folder / path)
    if is_file(beside):
        return beside
    return BAND_JOINER.join(
        file
        if "://" in file or file.startswith(("/", "<")) or Path(file).is_absolute()
        else str(folder / file)
        for file in split_files(path)
    )


def split_asset(source: str) -> tuple[str, str | None]:
    """Return the file of a source and the name of a STAC file's asset, or None."""
    path, separator, asset = source.rpartition("#")
    if separator and path.lower().endswith(STAC_ENDINGS) and not is_file(source):
        return path, asset
    return source, None


def _read_text(path: str) -> str:
    if is_remote(path):
        raise RasterError(
            f"{path} is a list and not on this machine",
            fix="fetch the list first; the rasters that it lists may stay where they are",
        )
    try:
        return read_text(path, MAX_LIST_BYTES)
    except ContentError as error:
        raise RasterError(
            f"{path}, a list of rasters, cannot be read: {error}",
            fix="give a text file with one raster a line",
        ) from error


def _list_assets(path: str, asset: str | None) -> list[str]:
    """Return the raster of each item of a STAC file, in the file's order."""
    return [
        BAND_JOINER.join(
            resolve_beside(item.assets[name].get_absolute_href() or item.assets[name].href, path)
            for name in _choose_assets(item, asset, path)
        )
        for item in _read_items(path)
    ]


def _read_items(path: str) -> list[Any]:
    """Return the items of a STAC file, each a pystac.Item."""
    content = _parse_stac(path)
    try:
        import pystac
    except ImportError as error:
        raise ArgumentError(
            f"{path} is a STAC file and pystac is not installed",
            fix='pip install "terradelta[stac]"',
        ) from error
    features = [content] if content["type"] == "Feature" else content.get("features")
    try:
        read_fields(StacItems, {"features": features})
        # pystac may fail anywhere on a file of another kind.
        return [pystac.Item.from_dict(one) for one in features or ()]
    except Exception as error:
        raise _refuse(path, str(error)) from error


def _parse_stac(path: str) -> dict[str, Any]:
    try:
        content = parse_json(_read_text(path))
    except ContentError as error:
        raise _refuse(path, str(error)) from error
    kind = content.get("type") if isinstance(content, dict) else None
    if kind not in ("Feature", "FeatureCollection"):
        raise _refuse(path, f"it is a {show(kind)}")
    return content


def _refuse(path: str, why: str) -> RasterError:
    return RasterError(
        f"{path} cannot be opened as a raster, nor as STAC items: {why}",
        fix="give a raster, a STAC Item or an ItemCollection",
    )


def _choose_assets(item: Any, asset: str | None, path: str) -> list[str]:
    """Return the names of the assets that make an item's raster."""
    names = ", ".join(item.assets) or "none"
    if asset is not None:
        chosen = [asset] if asset in item.assets else asset.split(",")
        for name in chosen:
            if name not in item.assets:
                raise RasterError(
                    f"{path}: item {item.id} has no asset {name!r}; it has {names}",
                    fix=f"name one that every item has, {path}#ASSET, or one for each band, "
                    f"{path}#RED,GREEN,BLUE",
                )
        return chosen
    data = [name for name, found in item.assets.items() if "data" in (found.roles or ())]
    candidates = data or list(item.assets)
    if len(candidates) != 1:
        raise RasterError(
            f"{path}: item {item.id} has the assets {names}, and none was chosen",
            fix=f"name one, {path}#{candidates[0] if candidates else 'ASSET'}, or one for each "
            f"band, separated by commas",
        )
    return candidates


def _require_rasters(paths: list[str], name: str) -> list[str]:
    if not paths:
        raise RasterError(f"{name} names no raster", fix="list at least one")
    for path in paths:
        if "\0" in path:
            raise RasterError(
                f"{name} lists {show(path)}, which is not a path", fix="list one raster a line"
            )
    return paths
