"""One HTML file with its style, script and pictures inside, that makes no network requests.

Legend of the array names: H rows, W columns, last C red, green, blue and perhaps alpha.
"""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from terradelta.classes import Colour
from terradelta.outputs import write_bytes
from terradelta.reports import wording

REPORT_FILE = "report.html"

PHOTOGRAPH_QUALITY = 80
FILL_ALPHA = 120
"""Opacity, of 255, of the inside of marked areas; their edges are opaque."""


def write_page(path: Path, template: str, **content: Any):
    """Write a page, completely or not at all.

    Args:
        path: The file.
        template: Name of a file in `templates/`.
        content: Values of the template. Text is escaped: names of classes and files come from the
            user.

    Raises:
        OutputError: If it cannot be written.
    """
    write_bytes(path, render(template, **content).encode())


def render(template: str, **content: Any) -> str:
    """Return a page, or the part of a page that a template makes."""
    script = _read_asset("page.js")
    # The browser runs only this script, even if a name was not escaped.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(_read_asset("page.css")),
            script=Markup(script),
            script_digest=digest,
            **content,
        )
    )


@cache
def _environment() -> Environment:
    """Return the environment of the templates, each compiled when it is first used."""
    environment = Environment(
        loader=PackageLoader("terradelta.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "css": css_colour,
        "percent": wording.say_percent,
        "count": wording.say_count,
    }
    return environment


def css_colour(colour: Colour) -> str:
    """Return a colour in CSS."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def embed_photograph(picture_HWC: np.ndarray) -> str:
    """Return a picture as a data URI, with lossy compression that is not visible.

    Args:
        picture_HWC: uint8, RGB or RGBA.
    """
    file = io.BytesIO()
    Image.fromarray(picture_HWC).save(file, "WEBP", quality=PHOTOGRAPH_QUALITY, method=4)
    return _to_uri("image/webp", file.getvalue())


def embed_overlay(fill_HW: np.ndarray, edge_HW: np.ndarray, colour: Colour) -> str:
    """Return a see-through picture of one colour as a data URI.

    Args:
        fill_HW: bool, where it is half transparent.
        edge_HW: bool, where it is opaque; wins over the fill.
        colour: Colour of both.
    """
    indices_HW = np.where(edge_HW, 2, fill_HW).astype(np.uint8)
    image = Image.fromarray(indices_HW, mode=None).convert("P")
    image.putpalette([255, 255, 255, *colour, *colour])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, bits=2, transparency=bytes([0, FILL_ALPHA, 255]))
    return _to_uri("image/png", file.getvalue())


def embed_colours(classes_HW: np.ndarray, colours: tuple[Colour, ...]) -> str:
    """Return a map of ids as a data URI, each id in its colour.

    Args:
        classes_HW: uint8 ids.
        colours: Colour of each id.
    """
    image = Image.fromarray(classes_HW).convert("P")
    image.putpalette([part for colour in colours for part in colour])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _to_uri("image/png", file.getvalue())


def _to_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _read_asset(name: str) -> str:
    asset = package_files("terradelta.reports") / "templates" / name
    return asset.read_text(encoding="utf-8")
