"""The options of composition: pastes, seams, light, season and shift."""

from __future__ import annotations

from dataclasses import dataclass

from terradelta.errors import ArgumentError

_RANGES = {
    "objects": (0, 200),
    "regions": (0, 20),
    "decoys": (0, 100),
    "unchanged": (0, 1),
    "smallest_px": (1, 100_000),
    "seam_px": (0, 5),
    "harmony": (0, 1),
    "light": (0, 0.6),
    "season": (0, 0.6),
    "blur_px": (0, 5),
    "noise": (0, 50),
    "largest_shift_px": (0, 8),
}


@dataclass(frozen=True)
class Composition:
    """Pastes into a scene, and differences between its two dates.

    Numbers of pastes are maxima; a paste that does not fit is left out.

    Raises:
        ArgumentError: If a field is out of its range.
    """

    objects: int = 12
    """Whole areas of one class (a building, a lake, a grove) pasted into one date, 0 to 200."""
    regions: int = 2
    """Irregular parts of another place pasted into one date, 0 to 20."""
    decoys: int = 6
    """Seams where nothing changed: pasted into both dates, or relit in one; 0 to 100."""
    unchanged: float = 0.08
    """Share of pairs in which nothing changes, 0 to 1."""
    smallest_px: int = 24
    """Pieces of change with fewer pixels are left out, 1 or more."""
    seam_px: float = 1.0
    """Width over which a paste fades in from its outline inwards, 0 (hard) to 5."""
    harmony: float = 0.3
    """Share of the colour difference between the places that is corrected in a paste, 0 to 1."""
    light: float = 0.25
    """Spread of brightness, colour cast, gamma, haze and illumination of a date, 0 to 0.6."""
    season: float = 0.12
    """Spread of each class's own colour factors at a date, 0 to 0.6."""
    blur_px: float = 0.7
    """Largest radius of a date's blur, 0 to 5."""
    noise: float = 4.0
    """Largest standard deviation of a date's noise, in grey levels, 0 to 50."""
    largest_shift_px: float = 1.0
    """Largest misregistration of the dates along either axis, 0 to 8. Each date takes half of it,
    in opposite directions, so the labels fit both dates to half of it."""

    def __post_init__(self):
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ArgumentError(
                    f"{name} is {value}, and it must be {least} to {most}",
                    fix=f"leave it out for {getattr(type(self), name)}",
                )
