"""Recognizes names of bands: colours, wavelengths, numbers of Sentinel-2 and Landsat.

Colours are the common names of the STAC extension `eo` (red, nir08); numbers are those of
Sentinel-2 (B04) and of Landsat's surface reflectance (SR_B4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

WAVELENGTHS_NM = {"blue": (440, 515), "green": (520, 600), "red": (620, 690), "nir": (770, 900)}
"""Wavelength of the middle of a band."""
SENTINEL_2 = {2: "blue", 3: "green", 4: "red", 8: "nir"}
LANDSAT_8 = {2: "blue", 3: "green", 4: "red", 5: "nir"}
"""Also for Landsat 9."""
LANDSAT_5 = {1: "blue", 2: "green", 3: "red", 4: "nir"}
"""Also for Landsat 4 and 7."""

_CODE = re.compile(r"(?<![a-z0-9])(sr[_ ]?)?b(0?\d|1\d)(a?)(?![a-z0-9])")
_WAVELENGTH = re.compile(r"(\d{3,4})\s*nm")
_OLD_LANDSAT = re.compile(r"(?<![a-z0-9])l[te]0[457](?![0-9])")


def name_file_band(stem: str) -> str | None:
    """Return the band in the name of a single-band file: a colour, "B04" or "SR_B4".

    Args:
        stem: The file's name, such as "T32TQR_20190615T101031_B04_10m".
    """
    text = stem.lower().replace("_", " ")
    code = _CODE.search(text)
    if code is None:
        return _name_colour(text) or None
    if _OLD_LANDSAT.search(text):
        return LANDSAT_5.get(int(code[2]))
    return f"{'SR_' if code[1] else ''}B{code[2]}{code[3].upper()}"


def name_colours(names: Mapping[int, str]) -> dict[int, str]:
    """Return the colour that each band shows, "" if its name does not give it.

    Args:
        names: Number and lower-case name of each band of a raster.
    """
    codes = {number: _CODE.search(name.replace("_", " ")) for number, name in names.items()}
    scheme = _choose_scheme([code for code in codes.values() if code is not None])
    colours = {}
    for number, name in names.items():
        code = codes[number]
        by_code = "" if code is None or code[3] else scheme.get(int(code[2]), "")
        colours[number] = _name_colour(name.replace("_", " ")) or by_code
    return colours


def _choose_scheme(codes: Sequence[re.Match[str]]) -> dict[int, str]:
    """Return the meaning of band numbers, empty if they are ambiguous."""
    numbers = {int(code[2]) for code in codes}
    if codes and all(code[1] for code in codes):
        if {1, 2, 3, 4, 5, 7} <= numbers and 6 not in numbers:
            return LANDSAT_5
        # Band 1 is coastal for Landsat 8 and blue for Landsat 5.
        return {} if 1 in numbers and max(numbers) <= 4 else LANDSAT_8
    is_padded = any(code[2].startswith("0") for code in codes)
    if is_padded or 12 in numbers or any(code[3] for code in codes):
        return SENTINEL_2
    # Without band 1 they are not plain indices. Sentinel-2 and Landsat 8 agree on these three.
    return {} if 1 in numbers else {number: SENTINEL_2[number] for number in (2, 3, 4)}


def _name_colour(text: str) -> str:
    """Return the only colour that a lower-case text names, "" without one or with several."""
    joined = " ".join(re.findall(r"[a-z]+", text))
    # The red edge does not count, nor does PlanetScope's first green, of 531 nm.
    joined = re.sub(r"red ?edge|green i\b|yellow", "", joined)
    joined = re.sub(r"near ?infra ?red", "nir", joined)
    found = [colour for colour in WAVELENGTHS_NM if re.search(rf"\b{colour}\b", joined)]
    if found:
        return found[0] if len(found) == 1 else ""
    wavelength = _WAVELENGTH.search(text)
    middle_nm = int(wavelength[1]) if wavelength else 0
    spans = WAVELENGTHS_NM.items()
    return next((colour for colour, (low, high) in spans if low <= middle_nm <= high), "")
