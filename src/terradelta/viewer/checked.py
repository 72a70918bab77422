"""The checked map: the patches after review, in a separate GeoPackage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from terradelta.classes import ClassTable
from terradelta.destination import claim_file
from terradelta.errors import ArgumentError, OutputError
from terradelta.geo.cog import find_map, read_classes
from terradelta.geo.style import write_layer_style
from terradelta.geo.vector import CHUNK_ROWS, LAYER, PolygonWriter
from terradelta.outputs import stage_file
from terradelta.prediction.changes import FIX, check_patches, guard_reading, require_polygons
from terradelta.review_copies import GEOPACKAGE
from terradelta.viewer.geopackage import provide_geopackage
from terradelta.viewer.reviews import TABLE, Review, ReviewStore, require_labels


def export_checked(folder: str | Path, path: str | Path, *, overwrite: bool = False) -> int:
    """Write the checked map's patches: rejected ones left out, relabelled ones changed.

    The columns are those of `changes`, followed by `status` and `note`; patches without
    a review are included as predicted, with the status "unreviewed".

    Args:
        folder: A prediction of two rasters.
        path: The GeoPackage to make.
        overwrite: Replace an existing file.

    Returns:
        Number of its patches.

    Raises:
        ArgumentError: If `path` does not end in `.gpkg`.
        OutputExistsError: If it exists and `overwrite` is False.
        OutputError: If the patches cannot be read or it cannot be written.
        DataError: If a review is not valid.
    """
    folder, path = Path(folder), Path(path)
    if path.suffix != ".gpkg":
        raise ArgumentError(
            f"{path} does not end in .gpkg", fix="the checked map is written as a GeoPackage"
        )
    if path.resolve() == (folder / GEOPACKAGE).resolve():
        raise ArgumentError(
            f"{path} holds the reviews themselves", fix="choose another file for the checked map"
        )
    path = claim_file(path, [folder], overwrite=overwrite, is_own=_is_checked)
    classes = read_classes(find_map(folder, "before_class"))
    source = provide_geopackage(folder, classes)
    reviews = ReviewStore(source).read()
    transitions: set[int] = set()
    with stage_file(path) as staged:
        with PolygonWriter(staged, None) as writer:
            for frame in _read_chunks(source, classes):
                checked = _check(source, frame, reviews, classes)
                transitions.update(checked["transition"].tolist())
                writer.write(checked)
        write_layer_style(staged, classes, transitions)
    return writer.count


def _is_checked(path: Path) -> bool:
    """Return whether a file holds checked patches, and no reviews."""
    try:
        layers = {name for name, _ in pyogrio.list_layers(path)}
        fields = set(pyogrio.read_info(path, layer=LAYER)["fields"])
    except (DataSourceError, DataLayerError):
        return False
    return TABLE not in layers and {"transition", "status", "note"} <= fields


def _read_chunks(path: Path, classes: ClassTable) -> Iterator[geopandas.GeoDataFrame]:
    """Yield the patches in order, at least one frame."""
    with guard_reading(path):
        count = pyogrio.read_info(path, layer=LAYER)["features"]
    for chunk in range(max(1, math.ceil(count / CHUNK_ROWS))):
        with guard_reading(path):
            frame = pyogrio.read_dataframe(
                path,
                layer=LAYER,
                skip_features=chunk * CHUNK_ROWS,
                max_features=CHUNK_ROWS,
                fid_as_index=True,
            )
        check_patches(path, frame, classes, has_area=False)
        if not isinstance(frame, geopandas.GeoDataFrame):
            raise OutputError(f"{path} has no geometry in its layer {LAYER!r}", FIX)
        require_polygons(path, frame.index.tolist(), np.asarray(frame.geometry))
        yield frame


def _check(
    source: Path,
    frame: geopandas.GeoDataFrame,
    reviews: dict[int, Review],
    classes: ClassTable,
) -> geopandas.GeoDataFrame:
    """Return patches with their reviews applied."""
    # After the columns of `changes`, before the geometry.
    frame.insert(len(frame.columns) - 1, "status", "unreviewed")
    frame.insert(len(frame.columns) - 1, "note", "")
    for fid in frame.index.intersection(list(reviews)):
        review = reviews[fid]
        frame.loc[fid, ["status", "note"]] = review.status, review.note
        if review.status == "relabelled":
            labels = review.reviewed_from, review.reviewed_to
            frame.loc[fid, ["from", "to"]] = labels
            require_labels(source, int(fid), review, classes)
            ids = (classes.names.index(str(label)) for label in labels)
            frame.loc[fid, "transition"] = classes.encode_transition(*ids)
    kept = frame[np.array(frame["status"] != "rejected")].reset_index(drop=True)
    assert isinstance(kept, geopandas.GeoDataFrame)
    return kept
