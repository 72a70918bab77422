"""The demo: a drawn scene mapped by the embedded model."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from terradelta.data.synthetic import write_geotiff_pair
from terradelta.inference.prediction_options import MapOptions
from terradelta.mapping.handle import Prediction
from terradelta.mapping.run import claim_prediction, predict
from terradelta.prediction.folder import PredictionFolder

SEED = 2026
SIZE_PX = 768
GSD_M = 0.5


def demo(
    output: str | Path, *, overwrite: bool = False, discard_reviews: bool = False
) -> Prediction:
    """Draw a georeferenced scene, map its changes with the embedded model and draw a picture.

    The scene (`scene/`, with its true maps) is kept in the prediction folder, so that the reader
    can open it beside the map.

    Args:
        output: Folder to make; it appears whole or not at all.
        overwrite: Replace an existing output; reviews of it that people made are kept beside it.
        discard_reviews: With `overwrite`, drop those reviews.

    Raises:
        OutputExistsError: If the output exists and may not be replaced.
    """
    output = claim_prediction(output, overwrite=overwrite, discard_reviews=discard_reviews)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".demo-") as scratch:
        scene = Path(scratch) / "scene"
        write_geotiff_pair(scene, SEED, SIZE_PX, gsd_m=GSD_M)
        prediction = predict(
            scene / "before.tif",
            scene / "after.tif",
            output,
            maps=MapOptions(picture=True),
            overwrite=overwrite,
            discard_reviews=discard_reviews,
        )
        assert isinstance(prediction, Prediction)
        scene.rename(output / "scene")
        _follow_scene(output)
    return prediction


def _follow_scene(output: Path):
    """Say in run.json the final path of the scene, so that the report can be made again."""
    files = PredictionFolder(output)
    run = files.read_run()
    before, after = (
        replace(raster, path=str(output / "scene" / f"{date}.tif"))
        for date, raster in (("before", run.before), ("after", run.after))
    )
    files.write(replace(run, before=before, after=after))
