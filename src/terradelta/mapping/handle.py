"""A prediction folder as an object: its numbers as tables, its map as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terradelta.cautions import Caution
from terradelta.prediction.folder import PredictionFolder
from terradelta.prediction.records import Summary

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from matplotlib.axes import Axes
    from pandas import DataFrame


@dataclass(frozen=True)
class Prediction:
    """A prediction folder. In a notebook it shows itself."""

    folder: Path
    """Folder of the maps."""
    summary: Summary
    """The content of summary.json: areas, shares and transitions."""
    kept_reviews: Path | None = None
    """File with the reviews of the prediction that this one replaced, and their patches; None
    without reviews."""

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """Reasons to doubt the map: read them before the numbers."""
        return self.summary.cautions

    # Modules that draw are slow to import.

    @property
    def transitions(self) -> DataFrame:
        """A row per transition that occurs, largest first, as transitions.csv has them.

        Columns `from`, `to`, `pixels`, `area_ha` (missing without a CRS), `share_percent`.
        """
        from terradelta.mapping.notebook import tabulate_transitions

        return tabulate_transitions(self.summary)

    @property
    def changes(self) -> GeoDataFrame:
        """The changed patches, read again from changes.gpkg or changes.parquet.

        Columns `from`, `to`, `transition`, `pixels`, `area_m2`, `confidence`, `before_date`,
        `after_date`, `geometry`.

        Raises:
            OutputError: If there are none, as for a folder of images.
        """
        from terradelta.mapping.notebook import read_changes

        return read_changes(self.folder, self.summary)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the from-to map, reduced to the size of a screen, with its largest transitions.

        Args:
            ax: Axes to draw on; a new figure by default.

        Raises:
            OutputError: If there is no map, as for a folder of images.
        """
        from terradelta.mapping.notebook import plot_changes

        return plot_changes(self.folder, self.summary, ax)

    def explore(self, **options: Any) -> Any:
        """Return the patches on an interactive map (a folium.Map), coloured by class.

        The page it makes fetches its script and, unless `tiles=None`, a background from the web.

        Args:
            options: Options of geopandas' `explore`.

        Raises:
            ArgumentError: If folium or mapclassify is not installed.
            OutputError: If there are no polygons, as for a folder of images.
        """
        from terradelta.mapping.notebook import explore_changes

        return explore_changes(self.folder, self.summary, **options)

    def _repr_html_(self) -> str:
        from terradelta.mapping.notebook import render_prediction

        return render_prediction(self.folder, self.summary)


@dataclass(frozen=True)
class Shard:
    """A part of an unfinished map; `merge` makes the prediction when all parts are done."""

    folder: Path
    """Folder of the blocks until then."""
    blocks: int
    """Number of blocks of the map."""
    blocks_done: int
    """Number of blocks answered so far, by this shard and by others."""

    def _repr_html_(self) -> str:
        from terradelta.mapping.notebook import render_shard

        return render_shard(self.folder, self.blocks_done, self.blocks)


def open_prediction(folder: str | Path) -> Prediction:
    """Return a prediction that exists.

    Args:
        folder: The output of `predict`, `merge` or `demo`.

    Raises:
        OutputError: If it holds no summary.json, or a damaged one.
        RasterError: If it has a map of changes without its classes.
    """
    files = PredictionFolder(Path(folder))
    classes = files.read_classes() if files.has_map else None
    return Prediction(files.path, files.read_summary(classes))
