"""The `predict` verb: two rasters or two folders in, a prediction folder out."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from terradelta.data.layouts import match_folders
from terradelta.errors import ArgumentError
from terradelta.geo.pair import Bands
from terradelta.models.bundle import hash_model, load_model
from terradelta.outputs import refuse_existing, stage_folder
from terradelta.predict.engine import Predictor
from terradelta.predict.folders import map_folder
from terradelta.predict.rasters import map_rasters

DEFAULT_MODEL = Path(str(package_files("terradelta") / "weights" / "drawn"))


@dataclass(frozen=True)
class Prediction:
    """A finished prediction folder."""

    folder: Path
    """Where the maps lie."""
    summary: dict[str, Any]
    """The content of summary.json: areas, shares and transitions."""


def predict(
    before: str | Path,
    after: str | Path,
    output: str | Path,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    tta: str = "none",
    bands: Bands | None = None,
    layout: str = "terradelta",
    device: str = "auto",
    precision: str = "auto",
    picture: bool = False,
    overwrite: bool = False,
) -> Prediction:
    """Map what changed between two rasters, or between two folders of images.

    Args:
        before: The earlier raster, or a folder of images.
        after: The later raster, or a folder of images with the same names.
        output: Folder to make; it appears whole or not at all.
        model: A model folder, or several that vote; the embedded model by default.
        tta: Test-time views to average: "none", "flips", "d4" or "seed6".
        bands: Numbers (from 1) or names of the raster bands that the model reads, in its order.
        layout: For folders: "terradelta" (before/ after/ change/) or "senseearth" (im1/ im2/).
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32" or "bf16".
        picture: Also draw before, after and the map into `picture.png`; rasters only.
        overwrite: Replace an existing output.

    Returns:
        The folder and its summary.

    Raises:
        TerradeltaError: If an input cannot be used or the output exists; the message has the fix.
    """
    before_is_folder, after_is_folder = Path(before).is_dir(), Path(after).is_dir()
    if before_is_folder != after_is_folder:
        raise ArgumentError(
            f"{before} is a {_kind(before_is_folder)} and {after} is a {_kind(after_is_folder)}",
            fix="give two rasters or two folders",
        )
    if picture and before_is_folder:
        raise ArgumentError(
            f"a picture was asked for and {before} is a folder", fix="open the PNGs it writes"
        )
    output = Path(output)
    refuse_existing(output, overwrite)
    folders = [Path(folder) for folder in _listed(model)]
    predictor = Predictor(
        [load_model(folder) for folder in folders], tta=tta, device=device, precision=precision
    )
    started = time.monotonic()
    with stage_folder(output, overwrite=overwrite) as staged:
        if before_is_folder:
            pairs = match_folders(Path(before), Path(after))
            summary = map_folder(predictor, pairs, staged, layout)
        else:
            summary = map_rasters(predictor, before, after, staged, bands)
        seconds = time.monotonic() - started
        if picture:
            from terradelta.report.picture import draw_picture

            draw_picture(
                before,
                after,
                staged,
                predictor.classes,
                summary,
                band_names=predictor.bands,
                bands=bands,
            )
        _write_json(staged / "summary.json", summary)
        provenance = {
            "before": str(before),
            "after": str(after),
            "models": [{"folder": str(f), "sha256": hash_model(f)} for f in folders],
            "parameters": {
                "tta": tta,
                "bands": None if bands is None else list(bands),
                "device": str(predictor.device),
                "precision": str(predictor.precision).removeprefix("torch."),
                "change_threshold": predictor.threshold,
            },
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("terradelta", "torch", "rasterio")},
            },
            "seconds": round(seconds, 3),
        }
        _write_json(staged / "run.json", provenance)
    return Prediction(output, summary)


def _listed(model: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    if model is None:
        return [DEFAULT_MODEL]
    return [model] if isinstance(model, str | Path) else list(model)


def _kind(is_folder: bool) -> str:
    return "folder" if is_folder else "raster"


def _write_json(path: Path, content: dict[str, Any]):
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
