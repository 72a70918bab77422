"""A prediction folder: its files are checked as they are read, and written in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from terradelta.classes import ClassTable
from terradelta.errors import OutputError
from terradelta.fields import FieldError, read_fields, write_fields
from terradelta.geo.cog import find_map, read_classes
from terradelta.geo.grid import Grid
from terradelta.inputs import read_object, read_record
from terradelta.outputs import stage_file, write_json
from terradelta.prediction.records import FolderRun, GridRecord, PairRun, Run, Summary

RUN_FILE = "run.json"
SUMMARY_FILE = "summary.json"
FIX = "give the folder of a prediction of two rasters, as `terradelta predict` left it"


@dataclass(frozen=True)
class PredictionFolder:
    """The output of `terradelta predict`; files are checked when read."""

    path: Path

    @property
    def has_map(self) -> bool:
        """Whether it has a map of changes, which maps of a folder of images lack."""
        return find_map(self.path, "change").is_file()

    def read_classes(self) -> ClassTable:
        """Return the classes of the maps.

        Raises:
            RasterError: If the map of classes cannot be read.
        """
        return read_classes(find_map(self.path, "before_class"))

    def read_summary(self, classes: ClassTable | None = None) -> Summary:
        """Return the content of summary.json.

        Args:
            classes: Classes of the map, to which its transitions must belong.

        Raises:
            OutputError: If it cannot be read, naming file, key and value.
        """
        path = self.path / SUMMARY_FILE
        summary = read_record(path, Summary, OutputError, FIX)
        if classes is not None:
            try:
                summary.require_classes(classes)
            except FieldError as error:
                raise OutputError(f"{path}: {error}", FIX) from error
        return summary

    def read_run(self) -> Run:
        """Return the content of run.json.

        Raises:
            OutputError: If it cannot be read, naming file, key and value.
        """
        return read_record(self.path / RUN_FILE, Run, OutputError, FIX)

    def read_pair(self) -> PairRun:
        """Return the part of run.json that is needed to open the two rasters again.

        Raises:
            OutputError: If it cannot be read, naming file, key and value.
        """
        return read_record(self.path / RUN_FILE, PairRun, OutputError, FIX)

    def read_folder_run(self) -> FolderRun:
        """Return the content of run.json of a prediction of two folders of images.

        Raises:
            OutputError: If it cannot be read, naming file, key and value.
        """
        return read_record(self.path / RUN_FILE, FolderRun, OutputError, FIX)

    def read_grid(self) -> Grid:
        """Return the pixels of the pair, of which the maps may be a part.

        Raises:
            OutputError: If run.json cannot be read or has no grid.
        """
        content = read_object(self.path / RUN_FILE, OutputError, FIX)
        try:
            return read_fields(GridRecord, content.get("grid"), "grid").build()
        except FieldError as error:
            raise OutputError(f"{self.path / RUN_FILE}: {error}", FIX) from error

    def write(self, record: Summary | Run | FolderRun):
        """Write summary.json or run.json, completely or not at all.

        Raises:
            OutputExistsError: If a folder has this name.
        """
        name = SUMMARY_FILE if isinstance(record, Summary) else RUN_FILE
        with stage_file(self.path / name) as staged:
            write_json(staged, write_fields(record))
