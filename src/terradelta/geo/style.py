"""Styles for maps and polygons: attribute tables and QGIS styles with colours and names.

GDAL pads a palette to 256 entries without names, so a GIS without these files
shows a legend of 256 numbers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from terradelta.classes import ClassTable, Colour
from terradelta.errors import OutputError
from terradelta.geo.vector import FIXED_DATE, LAYER
from terradelta.outputs import write_bytes

UNCHANGED_ALPHA = 64
"""Opacity, of 255, of value 0: white mutes the imagery below, so that changes stand out,
and distinguishes compared ground from ground without data, which is clear."""
FILL_ALPHA = 166
"""Opacity, of 255, of a polygon's inside."""
OUTLINE_WIDTH_MM = 0.2
RAMP: tuple[Colour, ...] = (
    (68, 1, 84),
    (59, 82, 139),
    (33, 145, 140),
    (94, 201, 98),
    (253, 231, 37),
)
"""Low to high in five steps of viridis, whose order is visible to colour-blind readers and in
grey."""
QGIS_VERSION = "3.22.0"
"""The oldest long-term release that the styles are tested with; newer ones read them too."""

# GDAL's numbers for the type and the use of an attribute table's column.
_INTEGER, _STRING = 0, 2
_COUNT, _NAME, _VALUE, _RED, _GREEN, _BLUE, _ALPHA = 1, 2, 5, 6, 7, 8, 9

_LAYER_STYLES = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256),
    f_table_schema TEXT(256),
    f_table_name TEXT(256),
    f_geometry_column TEXT(256),
    styleName TEXT(30),
    styleQML TEXT,
    styleSLD TEXT,
    useAsDefault BOOLEAN,
    description TEXT,
    owner TEXT(30),
    ui TEXT(30),
    update_time DATETIME
)
"""


def write_raster_style(
    path: Path,
    classes: Mapping[int, tuple[str, Colour]],
    counts: Mapping[int, int] | None = None,
):
    """Give a map of classes its names and colours, in files beside it.

    `X.tif.aux.xml` holds GDAL's raster attribute table, which ArcGIS and QGIS from 3.30 on read; a
    VRT holds it itself. `X.qml` is the style that QGIS takes by default. Nodata is clear, and
    0, unchanged, almost clear.

    Args:
        path: The map, `X.tif` or `X.vrt`.
        classes: Name and colour (red, green, blue) of each value in the legend.
        counts: Pixels of each of these values, to show in the legend.
    """
    dataset = _attribute_table(classes, counts)
    if path.suffix == ".vrt":
        _embed(path, dataset)
    else:
        write_bytes(path.with_name(f"{path.name}.aux.xml"), _serialise(dataset))
    style, renderer = _raster_style("paletted")
    palette = SubElement(renderer, "colorPalette")
    for value, (name, colour) in sorted(classes.items()):
        SubElement(
            palette,
            "paletteEntry",
            value=str(value),
            color=_hex(colour),
            alpha=str(_alpha(value)),
            label=name,
        )
    _write_qml(path, style)


def write_quantity_style(path: Path, low: float, high: float, unit: str = ""):
    """Give a map of a quantity a ramp from dark to bright, in a `.qml` beside it.

    Args:
        path: The map, `X.tif`.
        low: Value at the ramp's dark end; values below it look the same.
        high: Value at its bright end.
        unit: Unit after a number in the legend.
    """
    limits = {"classificationMin": f"{low:g}", "classificationMax": f"{high:g}"}
    style, renderer = _raster_style("singlebandpseudocolor", limits)
    shader = SubElement(
        SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue=f"{low:g}",
        maximumValue=f"{high:g}",
    )
    for step, colour in enumerate(RAMP):
        value = f"{low + (high - low) * step / (len(RAMP) - 1):g}"
        SubElement(
            shader,
            "item",
            value=value,
            color=_hex(colour),
            alpha="255",
            label=f"{value} {unit}".rstrip(),
        )
    _write_qml(path, style)


def write_layer_style(path: Path, classes: ClassTable, transitions: Iterable[int]):
    """Give the polygons of changes a legend of their transitions.

    In a GeoPackage the style lies in the table `layer_styles`, from which QGIS takes a layer's
    default; for other files it is a `.qml` beside them.

    Args:
        path: `X.gpkg`, or another file of polygons.
        classes: Names and colours.
        transitions: Those that occur; 0, unchanged, is ignored.
    """
    style = _layer_style(classes, sorted(set(transitions) - {0}))
    if path.suffix == ".gpkg":
        store_layer_style(path, LAYER, "a colour for each transition", _serialise(style).decode())
    else:
        _write_qml(path, style)


def _attribute_table(
    classes: Mapping[int, tuple[str, Colour]], counts: Mapping[int, int] | None
) -> Element:
    columns = [("Value", _INTEGER, _VALUE), ("Class name", _STRING, _NAME)]
    if counts is not None:
        columns.append(("Count", _INTEGER, _COUNT))
    colours = (("Red", _RED), ("Green", _GREEN), ("Blue", _BLUE), ("Alpha", _ALPHA))
    columns += [(name, _INTEGER, use) for name, use in colours]

    dataset = Element("PAMDataset")
    band = SubElement(dataset, "PAMRasterBand", band="1")
    table = SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, use) in enumerate(columns):
        definition = SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", kind), ("Usage", use)):
            SubElement(definition, tag).text = str(text)
    for index, (value, (name, colour)) in enumerate(sorted(classes.items())):
        row = SubElement(table, "Row", index=str(index))
        count = [] if counts is None else [counts.get(value, 0)]
        for cell in (value, name, *count, *colour, _alpha(value)):
            SubElement(row, "F").text = str(cell)
    return dataset


def _embed(path: Path, dataset: Element):
    """Put an attribute table into the band of a VRT, before its sources."""
    virtual = ElementTree.parse(path)
    band, table = (
        root.find(name)
        for root, name in (
            (virtual.getroot(), "VRTRasterBand"),
            (dataset, "PAMRasterBand/GDALRasterAttributeTable"),
        )
    )
    assert band is not None
    assert table is not None
    tags = [element.tag for element in band]
    band.insert(tags.index("SimpleSource") if "SimpleSource" in tags else len(tags), table)
    write_bytes(path, _serialise(virtual.getroot()))


def _raster_style(
    kind: str, attributes: Mapping[str, str] | None = None
) -> tuple[Element, Element]:
    """Return a raster style's root and its renderer, which is still empty."""
    style = _style()
    renderer = SubElement(
        SubElement(style, "pipe"),
        "rasterrenderer",
        {"type": kind, "band": "1", "opacity": "1", "alphaBand": "-1", **(attributes or {})},
    )
    return style, renderer


def _layer_style(classes: ClassTable, transitions: Iterable[int]) -> Element:
    style = _style()
    renderer = SubElement(
        style, "renderer-v2", type="categorizedSymbol", attr="transition", forceraster="0"
    )
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for index, transition in enumerate(transitions):
        SubElement(
            categories,
            "category",
            symbol=str(index),
            value=str(transition),
            label=classes.name_transition(transition),
            render="true",
        )
        symbol = SubElement(symbols, "symbol", name=str(index), type="fill", alpha="1")
        fill = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0"})
        colour = classes.colour_transition(transition)
        darker = [part // 2 for part in colour]
        properties = {
            "style": "solid",
            "color": _commas(*colour, FILL_ALPHA),
            "outline_style": "solid",
            "outline_color": _commas(*darker, 255),
            "outline_width": str(OUTLINE_WIDTH_MM),
            "outline_width_unit": "MM",
        }
        for key, value in properties.items():
            SubElement(fill, "prop", k=key, v=value)
    return style


def store_layer_style(path: Path, layer: str, description: str, qml: str):
    """Put a layer's style into a GeoPackage like QGIS: a table of attributes, one row a layer.

    Args:
        path: The GeoPackage, which holds the layer and no styles yet.
        layer: The layer, which QGIS opens with the style.
        description: Description of the style.
        qml: The style.

    Raises:
        OutputError: If it cannot be written.
    """
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute(_LAYER_STYLES)
            connection.execute(
                "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, "
                "last_change) VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?)",
                (FIXED_DATE,),
            )
            (geometry_column,) = connection.execute(
                "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
            ).fetchone()
            connection.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
                "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, "
                "owner, update_time) VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '', ?)",
                (layer, geometry_column, layer, qml, description, FIXED_DATE),
            )
    except sqlite3.Error as error:
        raise OutputError(
            f"{path} cannot be given a style: {error}",
            fix="make room or allow writing there, then run the same command again: it resumes "
            "where it stopped",
        ) from error
    finally:
        connection.close()


def _alpha(value: int) -> int:
    return UNCHANGED_ALPHA if value == 0 else 255


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _commas(*numbers: int) -> str:
    return ",".join(map(str, numbers))


def _style() -> Element:
    return Element("qgis", version=QGIS_VERSION)


def _write_qml(path: Path, style: Element):
    write_bytes(path.with_suffix(".qml"), _serialise(style))


def _serialise(root: Element) -> bytes:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8") + b"\n"
