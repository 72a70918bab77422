"""The look of surfaces: colour by season and climate, and texture.

Colours are sRGB, 0 to 255, under neutral light. A texture holds the amplitudes, relative to the
colour, of the four noise fields of `render`: grain, mottle, patches, canopy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terradelta.data.synthetic.shapes import (
    BUILDING,
    GROUND,
    LOW_VEGETATION,
    PLAYGROUND,
    TREE,
    WATER,
)

Colours = tuple[tuple[int, int, int], ...]
Texture = tuple[float, float, float, float]

SEASONS = ("spring", "summer", "autumn", "winter")
_SEASON_SHARES = (0.27, 0.38, 0.23, 0.12)

_TRACES: Texture = (0.04, 0.04, 0.05, 0.0)
_TURF: Texture = (0.07, 0.06, 0.13, 0.0)
_DIRT: Texture = (0.06, 0.09, 0.14, 0.0)
_CROWN: Texture = (0.16, 0.14, 0.05, 0.0)
_CANOPY: Texture = (0.10, 0.08, 0.10, 1.0)
_RIPPLES: Texture = (0.02, 0.02, 0.10, 0.0)


@dataclass(frozen=True)
class Climate:
    """Natural colours of a part of the world; four colours are spring, summer, autumn, winter."""

    grass: Colours
    broadleaf: Colours
    evergreen: Colours
    soil: Colours
    water: Colours


_TEMPERATE = Climate(
    grass=((98, 130, 66), (92, 118, 62), (118, 118, 70), (110, 112, 80)),
    broadleaf=((66, 96, 46), (50, 80, 40), (112, 88, 44), (86, 78, 64)),
    evergreen=((44, 68, 44), (42, 66, 42), (42, 64, 42), (40, 60, 42)),
    soil=((166, 142, 112), (152, 124, 96), (178, 160, 132)),
    water=((42, 62, 66), (36, 52, 48), (58, 84, 98), (74, 84, 66)),
)
_DRY = Climate(
    grass=((120, 124, 72), (146, 134, 84), (140, 126, 82), (116, 118, 72)),
    broadleaf=((58, 74, 44), (56, 70, 44), (66, 72, 46), (68, 72, 54)),
    evergreen=((46, 60, 42), (46, 58, 42), (46, 58, 42), (42, 56, 40)),
    soil=((198, 176, 146), (184, 156, 124), (208, 192, 168)),
    water=((30, 60, 70), (28, 46, 42), (60, 108, 116), (48, 66, 52)),
)
_TROPICAL = Climate(
    grass=((104, 132, 58), (96, 122, 54), (112, 126, 60), (126, 124, 66)),
    broadleaf=((56, 88, 40), (50, 84, 38), (58, 86, 40), (66, 84, 42)),
    evergreen=((42, 74, 38), (40, 72, 36), (42, 72, 38), (46, 72, 38)),
    soil=((186, 122, 84), (172, 112, 76), (196, 146, 106)),
    water=((50, 66, 58), (94, 92, 70), (40, 56, 54), (62, 80, 72)),
)
CLIMATES = (_TEMPERATE, _DRY, _TROPICAL)
_CLIMATE_SHARES = (0.5, 0.3, 0.2)

_ROOFS: Colours = (
    (168, 92, 66),
    (150, 78, 58),
    (186, 112, 82),
    (78, 78, 84),
    (98, 92, 90),
    (122, 96, 76),
    (138, 118, 102),
    (176, 172, 168),
    (96, 118, 156),
    (104, 132, 112),
)
_FLAT_ROOFS: Colours = (
    (214, 212, 206),
    (232, 230, 226),
    (190, 190, 188),
    (164, 160, 154),
    (202, 190, 170),
    (120, 122, 126),
    (104, 132, 176),
    (172, 104, 84),
)
_ASPHALT: Colours = ((98, 98, 102), (112, 110, 110), (126, 123, 120), (88, 88, 94))
_CONCRETE: Colours = ((176, 172, 164), (160, 156, 150), (188, 180, 166), (146, 144, 142))
_CARS: Colours = (
    (226, 226, 226),
    (200, 202, 206),
    (52, 54, 60),
    (86, 88, 94),
    (140, 44, 40),
    (50, 70, 120),
    (150, 150, 150),
)
_COURTS: Colours = ((172, 76, 58), (186, 92, 70), (62, 122, 84), (60, 98, 150), (52, 110, 108))
_POOLS: Colours = ((70, 160, 190), (86, 178, 196), (54, 130, 176))
_CROPS: dict[str, Colours] = {
    "spring": ((84, 128, 58), (112, 132, 72), (146, 128, 92), (172, 168, 70), (96, 140, 68)),
    "summer": ((74, 118, 52), (184, 164, 100), (196, 176, 116), (90, 122, 58), (154, 146, 84)),
    "autumn": ((146, 128, 86), (168, 148, 104), (128, 110, 82), (100, 126, 66), (156, 142, 92)),
    "winter": ((124, 112, 84), (112, 124, 72), (134, 122, 92), (96, 118, 66)),
}


class Palette:
    """Colours of one place at its two dates.

    Args:
        rng: Draws the climate, the seasons and the style of the place.
    """

    def __init__(self, rng: np.random.Generator):
        self.climate = CLIMATES[rng.choice(len(CLIMATES), p=_CLIMATE_SHARES)]
        before, after = rng.choice(len(SEASONS), size=2, p=_SEASON_SHARES)
        self.seasons = (int(before), int(after))
        # A town has a few roof colours and one kind of water and soil.
        self._roofs = rng.choice(len(_ROOFS), size=4)
        self._soil = int(rng.integers(len(self.climate.soil)))
        self._water = int(rng.integers(len(self.climate.water)))

    def paint(self, surface: str, rng: np.random.Generator) -> np.ndarray:
        """Return the colours (2, 3) of one object made of `surface`, before and after."""
        if surface == "crop":
            pairs = [_CROPS[SEASONS[season]] for season in self.seasons]
            colours = np.array([pair[rng.integers(len(pair))] for pair in pairs], np.float32)
        elif surface in ("grass", "broadleaf", "evergreen"):
            table = getattr(self.climate, surface)
            colours = np.array([table[season] for season in self.seasons], np.float32)
        else:
            colours = np.array([self._fixed_colour(surface, rng)] * 2, np.float32)
        spread = _SPREAD.get(surface, 0.06)
        brightness = 1 + spread * rng.uniform(-1, 1)
        tint = 1 + 0.5 * spread * rng.uniform(-1, 1, 3)
        return (colours * (brightness * tint)).astype(np.float32)

    def _fixed_colour(self, surface: str, rng: np.random.Generator) -> tuple[int, int, int]:
        if surface == "soil":
            return self.climate.soil[self._soil]
        if surface == "water":
            return self.climate.water[self._water]
        if surface == "roof":
            return _ROOFS[self._roofs[rng.integers(4)] if rng.random() < 0.7 else rng.integers(10)]
        table = _FIXED[surface]
        return table[rng.integers(len(table))]


_FIXED: dict[str, Colours] = {
    "flat roof": _FLAT_ROOFS,
    "asphalt": _ASPHALT,
    "concrete": _CONCRETE,
    "gravel": ((172, 158, 136), (156, 148, 136)),
    "car": _CARS,
    "court": _COURTS,
    "track": ((176, 84, 62), (164, 72, 58), (188, 96, 76)),
    "turf": ((84, 134, 66), (72, 122, 62), (96, 142, 74)),
    "line": ((228, 228, 222),),
    "pool": _POOLS,
    "sand": ((214, 198, 164), (200, 182, 146)),
    "roof unit": ((196, 196, 194), (130, 130, 130), (84, 86, 90)),
}
_SPREAD = {"roof": 0.16, "broadleaf": 0.2, "evergreen": 0.18, "crop": 0.12, "grass": 0.1}
_SPREAD |= {"soil": 0.12, "water": 0.12, "flat roof": 0.08, "car": 0.1, "line": 0.02}

CLASS_OF: dict[str, int] = {
    "water": WATER,
    "pool": WATER,
    "soil": GROUND,
    "gravel": GROUND,
    "sand": GROUND,
    "asphalt": GROUND,
    "concrete": GROUND,
    "car": GROUND,
    "grass": LOW_VEGETATION,
    "crop": LOW_VEGETATION,
    "broadleaf": TREE,
    "evergreen": TREE,
    "roof": BUILDING,
    "flat roof": BUILDING,
    "roof unit": BUILDING,
    "court": PLAYGROUND,
    "track": PLAYGROUND,
    "turf": PLAYGROUND,
}
"""Land cover of each surface; markings ("line") have the class of the surface below."""

TEXTURE_OF: dict[str, Texture] = {
    "water": _RIPPLES,
    "pool": (0.03, 0.03, 0.0, 0.0),
    "soil": _DIRT,
    "sand": (0.05, 0.05, 0.08, 0.0),
    "gravel": (0.07, 0.06, 0.08, 0.0),
    "asphalt": _TRACES,
    "concrete": _TRACES,
    "grass": _TURF,
    "crop": (0.07, 0.06, 0.10, 0.0),
    "broadleaf": _CROWN,
    "evergreen": _CROWN,
    "roof": (0.05, 0.03, 0.02, 0.0),
    "flat roof": (0.025, 0.02, 0.03, 0.0),
    "court": (0.02, 0.01, 0.03, 0.0),
    "track": (0.02, 0.01, 0.03, 0.0),
    "turf": (0.04, 0.03, 0.06, 0.0),
}
CANOPY: Texture = _CANOPY
"""Texture of closed forest, whose crowns are not drawn individually."""
