"""The QGIS form for labels: value lists, pictures and a symbol for finished points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from terradelta.classes import Colour
from terradelta.geo.style import QGIS_VERSION

_TO_LABEL = "to label"
_COLOURS: Mapping[str, Colour] = {_TO_LABEL: (255, 0, 255)}
_DONE: Colour = (120, 120, 120)
_PICTURE_PX = 360
_PATH_OF_LAYER = "file_path(layer_property(@layer_id, 'path'))"


@dataclass(frozen=True)
class FormField:
    """A field as the form shows it."""

    name: str
    """Its name in the layer."""
    alias: str
    """Its name in the form."""
    choices: tuple[str, ...] | None = None
    """Its value list; empty for free text."""
    is_picture: bool = False
    """Whether it holds the path of a picture, seen from the layer's file."""
    is_fixed: bool = False
    """Whether the labeller cannot change it."""
    constraint: str | None = None
    """A QGIS expression that must hold before the form can be saved."""
    hint: str = ""
    """The form's message if the constraint does not hold."""


def write_form(fields: Iterable[FormField], state: str, pixel_size: float) -> str:
    """Return the QGIS style of a layer of points to be labelled, as QML.

    Args:
        fields: Fields in the form's order.
        state: Field that is empty until a point is labelled; it sets the points' colour.
        pixel_size: Side of the pixel around each point, in units of the layer's CRS.
    """
    fields = list(fields)
    root = Element(
        "qgis", version=QGIS_VERSION, styleCategories="Symbology|Fields|Forms", labelsEnabled="0"
    )
    states = next((field.choices for field in fields if field.name == state), None) or ()
    root.append(_renderer(state, states, pixel_size))
    configuration = SubElement(root, "fieldConfiguration")
    _add_widget(configuration, "fid", "Hidden", {})
    for field in fields:
        _add_widget(configuration, field.name, *_choose_widget(field))
    aliases, constraints = SubElement(root, "aliases"), SubElement(root, "constraints")
    expressions = SubElement(root, "constraintExpressions")
    editable = SubElement(root, "editable")
    for index, field in enumerate(fields, start=1):
        SubElement(aliases, "alias", field=field.name, index=str(index), name=field.alias)
        if field.constraint:
            # 4: by an expression; 1: hard.
            SubElement(
                constraints,
                "constraint",
                field=field.name,
                constraints="4",
                exp_strength="1",
                notnull_strength="0",
                unique_strength="0",
            )
            SubElement(
                expressions, "constraint", field=field.name, exp=field.constraint, desc=field.hint
            )
        SubElement(editable, "field", name=field.name, editable="0" if field.is_fixed else "1")
    SubElement(root, "editorlayout").text = "generatedlayout"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def _choose_widget(field: FormField) -> tuple[str, dict[str, Any]]:
    """Return QGIS's widget for a field and its options."""
    if field.choices:
        return "ValueMap", {"map": [{choice: choice} for choice in field.choices]}
    if field.is_picture:
        root = {"active": True, "expression": _PATH_OF_LAYER, "type": 3}
        return "ExternalResource", {
            "DocumentViewer": 1,
            "DocumentViewerHeight": _PICTURE_PX,
            "DocumentViewerWidth": _PICTURE_PX,
            "FileWidget": False,
            "RelativeStorage": 2,
            "StorageMode": 0,
            "PropertyCollection": {
                "name": "",
                "properties": {"propertyRootPath": root},
                "type": "collection",
            },
        }
    return "TextEdit", {"IsMultiline": False, "UseHtml": False}


def _add_widget(parent: Element, name: str, kind: str, options: dict[str, Any]):
    widget = SubElement(SubElement(parent, "field", name=name), "editWidget", type=kind)
    _add_option(SubElement(widget, "config"), options)


def _add_option(parent: Element, value: Any, name: str | None = None):
    """Write a value as QGIS stores a QVariant."""
    option = SubElement(parent, "Option")
    if name is not None:
        option.set("name", name)
    if isinstance(value, dict):
        option.set("type", "Map")
        for key, part in value.items():
            _add_option(option, part, key)
    elif isinstance(value, list):
        option.set("type", "List")
        for part in value:
            _add_option(option, part)
    else:
        option.set("type", {bool: "bool", int: "int", str: "QString"}[type(value)])
        option.set("value", str(value).lower() if isinstance(value, bool) else str(value))


def _renderer(state: str, states: Iterable[str], pixel_size: float) -> Element:
    """Return a symbol coloured by state: a large ring around a square of one pixel."""
    renderer = Element(
        "renderer-v2",
        type="categorizedSymbol",
        attr=f"coalesce(\"{state}\", '{_TO_LABEL}')",
        forceraster="0",
    )
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for index, value in enumerate((_TO_LABEL, *states)):
        SubElement(
            categories, "category", symbol=str(index), value=value, label=value, render="true"
        )
        symbol = SubElement(symbols, "symbol", name=str(index), type="marker", alpha="1")
        colour = ",".join(map(str, (*_COLOURS.get(value, _DONE), 255)))
        for shape, size, unit in (("circle", 6, "MM"), ("square", pixel_size, "MapUnit")):
            marker = {
                "name": shape,
                "color": "0,0,0,0",
                "outline_color": colour,
                "outline_width": "0.4",
                "outline_width_unit": "MM",
                "size": repr(size),
                "size_unit": unit,
            }
            layer = {"class": "SimpleMarker", "enabled": "1", "pass": "0"}
            part = SubElement(symbol, "layer", layer)
            for key, text in marker.items():
                SubElement(part, "prop", k=key, v=text)
    return renderer
