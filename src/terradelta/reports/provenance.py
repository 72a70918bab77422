"""Describes the origin of a map for readers: rasters, models, parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from terradelta.errors import ModelError
from terradelta.geo.dates import ImageDate, read_dates
from terradelta.geo.grid import Grid
from terradelta.geo.listing import name_source
from terradelta.geo.normalization import LightMatch
from terradelta.models.bundle import hash_model, load_card
from terradelta.models.card import ModelCard

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
    "change_threshold": "Counts as changed from a probability of",
    "min_area_m2": "Smallest patch, m²",
    "backend": "Backend",
    "precision": "Precision",
    "device": "Device",
}


def describe_models(models: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return name, hash and card of each model; no card where the folder holds another by now."""
    described = []
    for model in models:
        folder = Path(model["folder"])
        try:
            card = load_card(folder) if hash_model(folder) == model["sha256"] else None
        except (ModelError, OSError):
            card = None
        described.append(
            {
                "name": folder.name,
                "sha256": model["sha256"],
                "card": card,
                "trained_on": None if card is None else card.training.get("data"),
                "facts": [] if card is None else _describe_card(card),
                "scores": {} if card is None else card.scores,
                "limits": () if card is None else card.limits,
            }
        )
    return described


def _describe_card(card: ModelCard) -> list[tuple[str, str]]:
    architecture = card.architecture
    temperatures = card.temperatures
    is_calibrated = (temperatures.change, temperatures.classes) != (1.0, 1.0)
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


def describe_run(run: dict[str, Any], grid: Grid) -> dict[str, list[tuple[str, str]]]:
    """Return facts of the rasters and of how they were mapped, as names and texts."""
    dates = read_dates(run)
    rasters = [
        (date.capitalize(), _describe_raster(run[date]) + _describe_date(taken))
        for date, taken in zip(("before", "after"), dates, strict=True)
    ]
    parameters = run["parameters"]
    # Blocks without data had none.
    views = sorted({part["views"] for part in run["views_of_blocks"]} - {0}) or [0]
    return {
        "rasters": [*rasters, ("Map", _describe_grid(grid))],
        "parameters": [
            *(
                (words, _write(parameters[name]))
                for name, words in PARAMETER_WORDS.items()
                if parameters.get(name) not in (None, False, 0.0)
            ),
            *_describe_light(run),
            ("Versions", ", ".join(f"{name} {text}" for name, text in run["versions"].items())),
            ("Views averaged", " to ".join(map(str, dict.fromkeys([views[0], views[-1]])))),
        ],
    }


def _describe_light(run: dict[str, Any]) -> list[tuple[str, str]]:
    light = LightMatch.from_run(run)
    return [] if light is None else [("Light matched", light.to_text(run["band_names"]))]


def _describe_raster(raster: dict[str, Any]) -> str:
    kinds = "/".join(sorted(set(raster["dtypes"])))
    place = raster["crs"] or "no coordinate reference system"
    place = place if len(place) <= 40 else f"{place[:37]}..."
    return (
        f"{name_source(raster['path'])}, {raster['width']:,} × {raster['height']:,} px, "
        f"{raster['bands']} bands, {kinds}, {place}"
    )


def _describe_date(taken: ImageDate | None) -> str:
    if taken is None:
        return ", taken at an unknown date"
    source = "as was said" if taken.origin == "flag" else f"by its {taken.origin}"
    return f", taken {taken.text} ({source})"


def _describe_grid(grid: Grid) -> str:
    size = f"{grid.width:,} × {grid.height:,} px"
    if grid.crs is None:
        return size
    unit = "degrees" if grid.crs.is_geographic else grid.crs.linear_units
    width, height = grid.pixel_size
    return f"{size} of {width:.6g} × {height:.6g} {unit}"


def _write(value: Any) -> str:
    if isinstance(value, dict):
        return name_source(value["path"])
    if isinstance(value, list):
        return ", ".join("none" if part is None else str(part) for part in value)
    return "yes" if value is True else f"{value:g}" if isinstance(value, float) else str(value)
