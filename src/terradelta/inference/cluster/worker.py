"""A worker of a cluster: opens the pair, loads the models and answers blocks.

This module does not depend on Ray. Calls come from several threads: while one block is with
the network, the next is read and the previous one is encoded.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from terradelta.errors import ClusterError, TerradeltaError
from terradelta.fields import read_fields, write_fields
from terradelta.geo.origin import describe_origins, find_differences
from terradelta.geo.raster_record import OriginRecord, RasterRecord
from terradelta.geo.scale import SeenPixels
from terradelta.inference.job import Job
from terradelta.inference.memory import MAX_READ_AHEAD, plan_cache_bytes, plan_memory
from terradelta.inference.prediction_options import Runtime
from terradelta.inference.predictor import Predictor
from terradelta.inference.rasters import describe_inputs, describe_versions, prepare_reading
from terradelta.inference.store import BlockFacts
from terradelta.inference.tiling import offset_slices
from terradelta.models.bundle import Model, load_model
from terradelta.prediction.records import GridRecord, JobRecord
from terradelta.prediction.reopening import recall_options, reopen_pair

MAX_BLOCKS_AT_ONCE = MAX_READ_AHEAD + 2
"""Blocks of a worker: one is read, one is in the network, the others wait in between."""

ModelFiles = Mapping[str, np.ndarray]
"""The files of a model folder by name, as bytes."""
Facts = Mapping[str, str] | GridRecord | RasterRecord


@dataclass(frozen=True)
class Errand:
    """The instructions of a worker, which gets the models as files."""

    job: JobRecord
    """The content of job.json."""
    memory_bytes: int
    """Memory limit of a worker."""
    folder: str
    """Folder that relative paths start from."""


@dataclass(frozen=True)
class Post:
    """A worker's message when it is ready."""

    host: str
    """Its machine."""
    blocks_at_once: int
    """How many blocks it can hold."""


@dataclass(frozen=True)
class Answer:
    """An answered block."""

    content: bytes
    """Content of its file in the store."""
    facts: BlockFacts
    """How it was made."""


class Worker:
    """One network on one machine.

    Args:
        errand: The instructions.
    """

    def __init__(self, errand: Errand):
        self._errand = errand
        self._job = Job(Path("unused"), errand.job)
        self._reading, self._computing = Lock(), Lock()
        self._finished = 0.0

    def start(self, *models: ModelFiles) -> Post:
        """Get ready: open the pair, load the models, measure the memory they take.

        Raises:
            TerradeltaError: If this machine cannot do the work; the message names it.
        """
        with _name_host():
            job = self._errand.job
            _require_same("packages", job.versions, describe_versions())
            if Path(self._errand.folder).is_dir():
                os.chdir(self._errand.folder)
            cache_bytes = plan_cache_bytes(self._errand.memory_bytes)
            # GDAL looks at this once, when it first reads.
            os.environ["GDAL_CACHEMAX"] = str(cache_bytes)
            pair = reopen_pair(job)
            _require_same("grid", job.grid, GridRecord.of(pair.grid))
            before, after = describe_inputs(pair, (job.before.path, job.after.path))
            _require_same("before image", job.before, before)
            _require_same("after image", job.after, after)
            _require_content("before", job.before, job.origins.before)
            _require_content("after", job.after, job.origins.after)
            self._predictor = _load_predictor(job, models)
            memory = plan_memory(
                self._errand.memory_bytes, self._predictor, self._job.plan[0], pair.bytes_per_pixel
            )
            self._read = prepare_reading(pair, self._predictor, job.light)
            self._finished = time.monotonic()
            return Post(socket.gethostname(), memory.read_ahead + 2)

    def answer(self, index: int, num_views: int) -> Answer:
        """Return the file of a block.

        Args:
            index: Number of the block in the plan.
            num_views: Number of test-time views to average.

        Raises:
            RasterError: If its pixels cannot be read.
        """
        block = self._job.plan[index]
        with _name_host():
            with self._reading:
                window = self._read(block.read)
            with self._computing:
                started = time.monotonic()
                maps = self._predictor.map_window(
                    window, block.read, block.tiles, block.write, num_views
                )
                now = time.monotonic()
                facts = BlockFacts(num_views, now - self._finished, now - started)
                self._finished = now
            valid_HW = window.valid_HW[offset_slices(block.write, block.read)]
            del window
            store = self._job.store
            return Answer(store.encode(block.write, store.lay_out(maps, valid_HW), facts), facts)


def read_model_files(folder: str | Path) -> ModelFiles:
    """Return the files of a model folder, to be sent to workers."""
    return {
        path.name: np.fromfile(path, np.uint8)
        for path in sorted(Path(folder).iterdir())
        if path.is_file()
    }


def _load_predictor(job: JobRecord, models: tuple[ModelFiles, ...]) -> Predictor:
    parameters = job.parameters
    seen = SeenPixels(parameters.reduction, parameters.enlargement)
    runtime = {
        "tta": parameters.tta,
        "sensitivity": parameters.sensitivity,
        "device": parameters.device,
        "backend": parameters.backend,
        "precision": parameters.precision,
        "tile_size": job.plan.tile_size_px * seen.enlargement // seen.reduction,
    }
    with tempfile.TemporaryDirectory(prefix="terradelta-models-") as folder:
        # Named as on the machine that sent them.
        names = [Path(model.folder) for model in job.models]
        loaded = [
            replace(_load_model(Path(folder, str(number)), files), folder=name)
            for number, (files, name) in enumerate(zip(models, names, strict=True))
        ]
        predictor = Predictor(
            loaded,
            read_fields(Runtime, {key: value for key, value in runtime.items() if value}),
            value_ranges=recall_options(job).seen_ranges,
        )
        predictor.see(seen)
        # Inside, as an int8 graph is read from its file now.
        predictor.start()
    return predictor


def _load_model(folder: Path, files: ModelFiles) -> Model:
    folder.mkdir()
    for name, content in files.items():
        content.tofile(folder / name)
    return load_model(folder)


def _require_same(what: str, wanted: Facts, found: Facts):
    """Raise if this machine differs from the one that planned the work."""
    there, here = _list_facts(wanted), _list_facts(found)
    for key in there.keys() | here.keys():
        if key not in ("path", "size_bytes") and there.get(key) != here.get(key):
            raise ClusterError(
                f"the {what} differ from the driver's: {key} is {here.get(key)} here and "
                f"{there.get(key)} there",
                fix="install the same packages everywhere, and let every machine see the same "
                "files under the same names, for example in object storage",
            )


def _list_facts(facts: Facts) -> dict[str, Any]:
    return dict(facts) if isinstance(facts, Mapping) else write_fields(facts)


def _require_content(date: str, image: RasterRecord, origins: Sequence[OriginRecord]):
    """Raise if this machine sees other files than the driver under the same names."""
    for difference in find_differences(origins, describe_origins(image.path)):
        raise ClusterError(
            f"the {date} image differs from the driver's: {difference}",
            fix="let every machine see the same files under the same names, for example in object "
            "storage",
        )


@contextmanager
def _name_host() -> Iterator[None]:
    """Name the machine in errors."""
    try:
        yield
    except TerradeltaError as error:
        raise type(error)(f"{socket.gethostname()}: {error.problem}", error.fix) from error
