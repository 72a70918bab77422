"""From-to sums: pixels and ground area of each transition.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from terradelta.classes import ClassTable
from terradelta.inference.confidence import UnsureChange
from terradelta.outputs import stage_file
from terradelta.prediction.records import Summary, TransitionRow

M2_PER_HECTARE = 10_000


class TransitionSums:
    """Pixels and ground area by transition, summed window by window.

    Args:
        classes: The classes of the map.
        has_area: Whether ground areas are known; without a CRS only pixels are counted.
    """

    def __init__(self, classes: ClassTable, has_area: bool = True):
        self.classes = classes
        self.has_area = has_area
        self.pixels = np.zeros(classes.num_transitions, dtype=np.int64)
        self.area_m2 = np.zeros(classes.num_transitions)
        self.nodata_pixels = 0
        self.nodata_m2 = 0.0

    def add(self, change_HW: np.ndarray, valid_HW: np.ndarray, pixel_area_m2_HW: np.ndarray | None):
        """Add a window of a from-to map; invalid pixels count only as nodata."""
        size = self.classes.num_transitions
        # Most pixels are unchanged, and a sum is several times faster than a count by value.
        changed_HW = valid_HW & (change_HW != 0)
        unchanged_HW = valid_HW & (change_HW == 0)
        values = change_HW[changed_HW]
        self.pixels += np.bincount(values, minlength=size)
        self.pixels[0] += np.count_nonzero(unchanged_HW)
        self.nodata_pixels += int(valid_HW.size - np.count_nonzero(valid_HW))
        if pixel_area_m2_HW is not None:
            areas = pixel_area_m2_HW[changed_HW]
            self.area_m2 += np.bincount(values, weights=areas, minlength=size)
            self.area_m2[0] += pixel_area_m2_HW.sum(where=unchanged_HW)
            # Outside of the projection's domain, pixels have no area.
            self.nodata_m2 += float(np.nansum(pixel_area_m2_HW[~valid_HW]))

    def clear(self, transition: int, pixels: int, area_m2: float):
        """Count some pixels of a transition as unchanged."""
        self.pixels[[transition, 0]] += (-pixels, pixels)
        self.area_m2[[transition, 0]] += (-area_m2, area_m2)

    def rows(self) -> tuple[TransitionRow, ...]:
        """Return a row per transition that occurs, largest first, with hectares and shares.

        Shares are of the valid pixels' area, or of their number if areas are unknown.
        """
        weight = self.area_m2 if self.has_area else self.pixels
        total = weight.sum()
        order = [int(t) for t in np.argsort(-weight, kind="stable") if t and self.pixels[t]]
        return tuple(self._row(transition, weight[transition] / total) for transition in order)

    def _row(self, transition: int, share: float) -> TransitionRow:
        from_class, to_class = self.classes.decode_transition(transition)
        return TransitionRow(
            from_class=self.classes.names[from_class],
            to_class=self.classes.names[to_class],
            pixels=int(self.pixels[transition]),
            area_ha=self._hectares(self.area_m2[transition]),
            share_percent=100 * float(share),
        )

    def _hectares(self, area_m2: float) -> float | None:
        return float(area_m2) / M2_PER_HECTARE if self.has_area else None

    @property
    def changed_percent(self) -> float:
        """Share of the valid pixels' area, or of their number, that changed; 0 without pixels."""
        weight = self.area_m2 if self.has_area else self.pixels
        return 100 * float(weight[1:].sum() / weight.sum()) if self.pixels.any() else 0.0

    def summarize(self, unsure: UnsureChange) -> Summary:
        """Return totals and transitions.

        Args:
            unsure: The change that is more likely wrong than right.
        """
        changed_pixels = int(self.pixels[1:].sum())
        changed_ha = self._hectares(self.area_m2[1:].sum())
        return Summary(
            valid_pixels=int(self.pixels.sum()),
            changed_pixels=changed_pixels,
            nodata_pixels=self.nodata_pixels,
            nodata_ha=self._hectares(self.nodata_m2),
            valid_ha=self._hectares(self.area_m2.sum()),
            changed_ha=changed_ha,
            changed_percent=self.changed_percent,
            transitions=self.rows(),
            unsure_pixels=unsure.pixels,
            unsure_ha=unsure.area_ha,
            unsure_percent=unsure.find_percent(changed_pixels, changed_ha),
        )

    def write_csv(self, path: Path):
        """Write a line per transition, then unchanged, valid total and nodata."""
        occurring = (
            (row.from_class, row.to_class, row.pixels, row.area_ha, row.share_percent)
            for row in self.rows()
        )
        unchanged_ha = self._hectares(self.area_m2[0])
        unchanged = (int(self.pixels[0]), unchanged_ha, 100 - self.changed_percent)
        total = (int(self.pixels.sum()), self._hectares(self.area_m2.sum()), 100.0)
        nodata = (self.nodata_pixels, self._hectares(self.nodata_m2), None)
        with stage_file(path) as staged, staged.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["from", "to", "pixels", "area_ha", "share_percent"])
            writer.writerows(occurring)
            writer.writerow([self.classes.names[0], self.classes.names[0], *unchanged])
            writer.writerow(["all valid", "all valid", *total])
            writer.writerow(["nodata", "nodata", *nodata])
