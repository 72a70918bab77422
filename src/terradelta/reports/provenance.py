"""Describes the origin of a map for readers: rasters, models, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terradelta.errors import ModelError
from terradelta.geo.dates import ImageDate
from terradelta.geo.grid import Grid
from terradelta.geo.listing import name_source
from terradelta.models.bundle import hash_model, load_card
from terradelta.models.card import ModelCard, Temperatures
from terradelta.prediction.records import AreaRecord, DatesRecord, ModelRecord, RasterRecord, Run

PARAMETER_WORDS = {
    "tta": "Test-time views",
    "bands": "Bands read",
    "grid": "Pixels of the map",
    "aoi": "Area of interest",
    "register": "Registered",
    "nodata": "Nodata given, before and after",
    "mask": "Masks, before and after",
    "mask_values": "Mask values left out",
    "value_range": "Values from dark to bright",
    "after_value_range": "Values of the after image from dark to bright",
    "sensitivity": "Sensitivity",
    "decided_by": "Counts as changed by the probability of the",
    "change_threshold": "Counts as changed from a probability of",
    "min_area_m2": "Smallest patch, m²",
    "backend": "Backend",
    "precision": "Precision",
    "device": "Device",
}


@dataclass(frozen=True)
class ModelPassage:
    """A page's section on a model."""

    name: str
    sha256: str
    card: ModelCard | None
    """None if its folder is gone or holds another model now."""

    @property
    def trained_on(self) -> str | None:
        """The data set."""
        return None if self.card is None else self.card.training.get("data")

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Facts of the card, as names and texts."""
        return [] if self.card is None else _describe_card(self.card)

    @property
    def limits(self) -> tuple[str, ...]:
        """Its known failures."""
        return () if self.card is None else self.card.limits


def describe_models(models: Sequence[ModelRecord]) -> list[ModelPassage]:
    """Return name, hash and card of each model."""
    described = []
    for model in models:
        folder = Path(model.folder)
        try:
            card = load_card(folder) if hash_model(folder) == model.sha256 else None
        except (ModelError, OSError):
            card = None
        described.append(ModelPassage(folder.name, model.sha256, card))
    return described


def _describe_card(card: ModelCard) -> list[tuple[str, str]]:
    architecture = card.architecture
    temperatures = card.temperatures
    is_calibrated = temperatures != Temperatures()
    return [
        ("Network", f"{architecture.get('name')} on {architecture.get('encoder')}"),
        ("Trained on", str(card.training.get("data") or "not recorded")),
        ("Bands", ", ".join(card.bands)),
        (
            "Confidence",
            f"calibrated (temperatures {temperatures.change:.3g} and {temperatures.classes:.3g})"
            if is_calibrated
            else "as the network states it, not calibrated",
        ),
        ("Licence of the weights", card.licence or "not stated"),
    ]


def describe_run(run: Run, grid: Grid) -> dict[str, list[tuple[str, str]]]:
    """Return facts of the rasters and of the run, as names and texts."""
    dates = (run.dates or DatesRecord()).build()
    rasters = [
        (name, _describe_raster(raster) + _describe_date(taken))
        for name, raster, taken in zip(
            ("Before", "After"), (run.before, run.after), dates, strict=True
        )
    ]
    # Blocks without data had no views.
    views = sorted({part.views for part in run.views_of_blocks} - {0}) or [0]
    return {
        "rasters": [*rasters, ("Map", _describe_grid(grid))],
        "parameters": [
            *(
                (words, _write(value))
                for name, words in PARAMETER_WORDS.items()
                if (value := getattr(run.parameters, name)) not in (None, False, 0.0)
            ),
            *_describe_light(run),
            ("Versions", ", ".join(f"{name} {text}" for name, text in run.versions.items())),
            ("Views averaged", " to ".join(map(str, dict.fromkeys([views[0], views[-1]])))),
        ],
    }


def _describe_light(run: Run) -> list[tuple[str, str]]:
    return [] if run.light is None else [("Light matched", run.light.to_text(run.band_names))]


def _describe_raster(raster: RasterRecord) -> str:
    kinds = "/".join(sorted(set(raster.dtypes)))
    place = raster.crs or "no coordinate reference system"
    place = place if len(place) <= 40 else f"{place[:37]}..."
    return (
        f"{name_source(raster.path)}, {raster.width:,} × {raster.height:,} px, "
        f"{raster.bands} bands, {kinds}, {place}"
    )


def _describe_date(taken: ImageDate | None) -> str:
    if taken is None:
        return ", taken at an unknown date"
    source = "as given" if taken.origin == "flag" else f"by its {taken.origin}"
    return f", taken {taken.text} ({source})"


def _describe_grid(grid: Grid) -> str:
    size = f"{grid.width:,} × {grid.height:,} px"
    if grid.crs is None:
        return size
    unit = "degrees" if grid.crs.is_geographic else grid.crs.linear_units
    width, height = grid.pixel_size
    return f"{size} of {width:.6g} × {height:.6g} {unit}"


def _write(value: Any) -> str:
    if isinstance(value, AreaRecord):
        return name_source(value.path)
    if isinstance(value, tuple):
        return ", ".join("none" if part is None else str(part) for part in value)
    return "yes" if value is True else f"{value:g}" if isinstance(value, float) else str(value)
