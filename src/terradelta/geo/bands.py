"""Chooses the bands that a model reads: given ones, ones found by name, or ones in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rasterio.enums import ColorInterp

from terradelta.errors import ArgumentError, RasterError
from terradelta.geo.band_names import name_colours, name_file_band
from terradelta.geo.listing import BAND_JOINER, split_files
from terradelta.geo.pair_options import Bands
from terradelta.geo.virtual import name_raster

GUESSED_BANDS = 4
"""In rasters with this many nameless bands, the first three are mostly red, green and blue."""
RASTER_ENDINGS = (".tif", ".tiff", ".jp2", ".img", ".vrt")


class Described(Protocol):
    """The properties that distinguish the bands of a raster."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def descriptions(self) -> Sequence[str | None]: ...  # noqa: D102
    @property
    def colorinterp(self) -> Sequence[ColorInterp]: ...  # noqa: D102
    @property
    def dtypes(self) -> Sequence[str]: ...  # noqa: D102


def describe_bands(dataset: Described) -> dict[int, str]:
    """Return number (from 1) and lower-case name of each band; "" if it has no name."""
    names = {}
    for number, (text, colour) in enumerate(
        zip(dataset.descriptions, dataset.colorinterp, strict=True), start=1
    ):
        is_named = colour not in (ColorInterp.undefined, ColorInterp.gray)
        names[number] = (text or (colour.name if is_named else "")).lower()
    return names


def select_bands(
    dataset: Described, band_names: Sequence[str], bands: Bands | None = None
) -> list[int]:
    """Return the numbers (from 1) of the bands of a raster that a model needs.

    By default they are found by their names or colour interpretation. A raster of nameless bands,
    exactly as many as the model needs (without alpha), is read in its own order; of four, the
    first three are read, see `is_guess`.

    Raises:
        ArgumentError: If `bands` has another length than `band_names`.
        RasterError: If a band does not exist or cannot be distinguished from the others.
    """
    known = describe_bands(dataset)
    if bands is not None:
        if len(bands) != len(band_names):
            raise ArgumentError(
                f"--bands names {len(bands)} bands ({', '.join(map(str, bands))}) but the model "
                f"needs {len(band_names)} ({', '.join(band_names)})",
                fix="name one band for each that the model needs, in that order",
            )
        return [_find_band(dataset, known, band) for band in bands]
    found = _find_names(known, band_names)
    if found is not None:
        return found
    nameless = _list_nameless(known)
    if len(nameless) == len(band_names) or is_guess(dataset, band_names, bands):
        return nameless[: len(band_names)]
    raise RasterError(
        f"{name_raster(dataset)} has the bands {_list(known)}, and the model needs "
        f"{', '.join(band_names)}",
        fix=f"name the bands that show {', '.join(band_names)}, in this order, by number or by "
        f"name: --bands {_suggest_bands(known, band_names)}",
    )


def is_guess(dataset: Described, band_names: Sequence[str], bands: Bands | None = None) -> bool:
    """Return whether `select_bands` uses the first three of four nameless bands."""
    known = describe_bands(dataset)
    return (
        bands is None
        and tuple(band_names) == ("red", "green", "blue")
        and len(_list_nameless(known)) == GUESSED_BANDS
        and _find_names(known, band_names) is None
    )


def join_bands(folder: Path, band_names: Sequence[str]) -> str | None:
    """Return the files of a folder that hold the bands of a model, joined as one raster.

    Returns None unless there is exactly one file for each band.
    """
    named = {
        path: name
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in RASTER_ENDINGS and (name := name_file_band(path.stem))
    }
    colours = name_colours({number: name.lower() for number, name in enumerate(named.values())})
    files = [
        [path for path, colour in zip(named, colours.values(), strict=True) if colour == name]
        for name in band_names
    ]
    if any(len(found) != 1 for found in files):
        return None
    return BAND_JOINER.join(str(found[0]) for found in files)


def name_joined_files(raster: str, numbers: Sequence[int]) -> list[str]:
    """Return the colours in the names of joined single-band files.

    Args:
        raster: Their joined name; see `split_files`.
        numbers: Numbers of the bands, from 1.

    Returns:
        One for each number; empty if a name gives no colour or a file has no number.
    """
    files = split_files(raster)
    names = {n: name_file_band(Path(file).stem) or "" for n, file in enumerate(files, start=1)}
    colours = name_colours({n: name.lower() for n, name in names.items()})
    found = [colours.get(number, "") for number in numbers]
    return found if len(files) > 1 and all(found) else []


def _find_names(known: Mapping[int, str], band_names: Sequence[str]) -> list[int] | None:
    """Return the bands with these names or their synonyms; None if one is missing."""
    for names in (known, name_colours(known)):
        found = [[number for number in names if names[number] == name] for name in band_names]
        if all(found) and (names is known or all(len(numbers) == 1 for numbers in found)):
            return [numbers[0] for numbers in found]
    return None


def _find_band(dataset: Described, known: dict[int, str], band: int | str) -> int:
    text = str(band).lower()
    # Superscripts are digits too, and Python refuses numbers of 4,300 digits.
    number = int(text) if re.fullmatch("[0-9]{1,9}", text) else None
    for candidate, name in known.items():
        if candidate == number or (number is None and name == text):
            return candidate
    raise RasterError(
        f"{name_raster(dataset)} has no band {band}; it has {_list(known)}",
        fix="name bands that the raster has with --bands, by number from 1 or by name",
    )


def _list_nameless(known: Mapping[int, str]) -> list[int]:
    """Return the bands without alpha, if none has a meaningful name."""
    data = {number: name for number, name in known.items() if name != "alpha"}
    return list(data) if all(map(_says_nothing, data.values())) else []


def _says_nothing(name: str) -> bool:
    return re.fullmatch(r"((b|band|layer|channel)?[ _-]*\d+)?", name) is not None


def _suggest_bands(known: Mapping[int, str], band_names: Sequence[str]) -> str:
    """Return an example of `--bands`, with names if the raster has some."""
    colours = name_colours(known)
    examples = []
    for position, wanted in enumerate(band_names):
        number = next((n for n in known if colours[n] == wanted or known[n] == wanted), None)
        number = number or list(known)[min(position, len(known) - 1)]
        name = known[number]
        examples.append(name if re.fullmatch(r"[a-z][a-z0-9_]*", name) else str(number))
    return ",".join(examples)


def _list(known: Mapping[int, str]) -> str:
    return ", ".join(f"{number} {name or '(unnamed)'}" for number, name in known.items())
