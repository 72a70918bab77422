"""A prediction folder as its readers take it: report, viewer, notebook and sampling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from terradelta.classes import ClassTable
from terradelta.errors import OutputError
from terradelta.fields import FieldError, fill_defaults, read_fields
from terradelta.geo.cog import find_map, read_classes
from terradelta.geo.grid import Grid
from terradelta.inputs import read_object
from terradelta.prediction.records import (
    GridRecord,
    PairRun,
    Parameters,
    Run,
    ShardSummary,
    Summary,
)

RUN_FILE = "run.json"
SUMMARY_FILE = "summary.json"
FIX = "give the folder of a prediction of two rasters, as `terradelta predict` left it"

Record = TypeVar("Record")


@dataclass(frozen=True)
class PredictionFolder:
    """What `terradelta predict` has made, its files checked as they are read."""

    path: Path

    @property
    def has_map(self) -> bool:
        """Whether there is a map of changes: of a folder of images there is none."""
        return find_map(self.path, "change").is_file()

    def read_classes(self) -> ClassTable:
        """Return the classes of the maps.

        Raises:
            RasterError: If the map of classes cannot be read.
        """
        return read_classes(find_map(self.path, "before_class"))

    def read_summary(self, classes: ClassTable | None = None) -> dict[str, Any]:
        """Return the content of summary.json, absent keys with their defaults.

        Args:
            classes: Those of the map, which its transitions must be between.

        Raises:
            OutputError: If it cannot be read, naming file, key and value.
        """
        content = read_object(self.path / SUMMARY_FILE, OutputError, FIX)
        if "blocks" in content:
            self._check(SUMMARY_FILE, ShardSummary, content)
            return content
        summary = self._check(SUMMARY_FILE, Summary, content)
        if classes is not None:
            try:
                summary.require_classes(classes)
            except FieldError as error:
                raise OutputError(f"{self.path / SUMMARY_FILE}: {error}", FIX) from error
        return fill_defaults(Summary, content)

    def read_run(self, cls: type[Run] | type[PairRun] = Run) -> dict[str, Any]:
        """Return the content of run.json, absent keys with their defaults.

        Args:
            cls: What the reader needs of it.

        Raises:
            OutputError: If it cannot be read, naming file, key and value.
        """
        content = read_object(self.path / RUN_FILE, OutputError, FIX)
        self._check(RUN_FILE, cls, content)
        parameters = fill_defaults(Parameters, content["parameters"])
        return {**fill_defaults(cls, content), "parameters": parameters}

    def read_grid(self) -> Grid:
        """Return the pixels of the pair, of which the maps may be a part.

        Raises:
            OutputError: If run.json cannot be read or has none.
        """
        content = read_object(self.path / RUN_FILE, OutputError, FIX)
        try:
            return read_fields(GridRecord, content.get("grid"), "grid").build()
        except FieldError as error:
            raise OutputError(f"{self.path / RUN_FILE}: {error}", FIX) from error

    def _check(self, name: str, cls: type[Record], content: dict[str, Any]) -> Record:
        try:
            return read_fields(cls, content)
        except FieldError as error:
            raise OutputError(f"{self.path / name}: {error}", FIX) from error
