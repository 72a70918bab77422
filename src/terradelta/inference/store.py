"""The answered blocks of a map: one small GeoTIFF each, written completely or not at all.

A killed run resumes from them, shards on other machines contribute them, and the
finished maps are copied from them.

Legend of the array names: H rows, W columns.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from terradelta.classes import ClassTable
from terradelta.errors import RasterError
from terradelta.geo.grid import Grid, allow_no_place
from terradelta.inference.predictor import ClassMaps
from terradelta.outputs import write_bytes

CLASS_NODATA = 255
CONFIDENCE_NODATA = 255
FILES_PER_FOLDER = 1000
_SEAL = b"terradelta"
"""Marker before the checksum of a block's file."""
LAYERS = ("before", "after", "change", "confidence", "unchanged")

logger = logging.getLogger(__name__)


class BlockLayers(NamedTuple):
    """The content of a block's file, band by band; nodata where invalid."""

    before_HW: np.ndarray
    """Class id before where changed, 0 elsewhere."""
    after_HW: np.ndarray
    """Class id after where changed, 0 elsewhere."""
    change_HW: np.ndarray
    """Transition, 0 = unchanged."""
    confidence_HW: np.ndarray
    """Percent: the probability that the answer is right."""
    unchanged_HW: np.ndarray
    """Percent: the probability that nothing changed."""

    @property
    def valid(self) -> np.ndarray:
        """Where both dates hold data, (H, W) bool."""
        return self.confidence_HW != CONFIDENCE_NODATA


class BlockFacts(NamedTuple):
    """How a block was answered; stored with it."""

    views: int
    """Test-time views that were averaged."""
    seconds: float
    """Wall time since the previous block, or since the start."""
    network_seconds: float
    """The part of it in the network."""


@dataclass(frozen=True)
class FinishedBlock:
    """An answered block, as given to sinks; see `terradelta.protocols.Sink`."""

    index: int
    """Its number in the plan, row by row."""
    window: Window
    """Its place on the grid of the map; blocks do not overlap."""
    maps: ClassMaps
    """The maps, undefined where `valid_HW` is False."""
    valid_HW: np.ndarray
    """bool: where both dates hold data, inside the area of interest and not under a mask."""
    facts: BlockFacts
    """How it was answered."""


class BlockStore:
    """Files of the blocks of one map; the sink of `predict`.

    Args:
        folder: Folder of the files.
        grid: The pixels of the map.
        classes: Classes of its values.
    """

    def __init__(self, folder: Path, grid: Grid, classes: ClassTable):
        self.folder = folder
        self._grid = grid
        self._classes = classes
        self.change_dtype, self.change_nodata = transition_format(classes)
        # Those that this process has written or read.
        self._sound: set[int] = set()
        self._damaged: set[int] = set()

    def path(self, index: int) -> Path:
        """Return the path of the file of a block."""
        return self.folder / f"{index // FILES_PER_FOLDER:05d}" / f"{index:08d}.tif"

    def has(self, index: int) -> bool:
        """Return whether a block is answered; a damaged one is logged and does not count."""
        if index in self._sound:
            return self.path(index).is_file()
        path = self.path(index)
        if not path.is_file():
            return False
        if _is_sound(path.read_bytes()):
            self._sound.add(index)
            return True
        if index not in self._damaged:
            logger.warning("%s, a finished part of the map, is damaged", path)
            self._damaged.add(index)
        return False

    @property
    def damaged(self) -> list[Path]:
        """Files of blocks found damaged and not written again since."""
        return [self.path(index) for index in sorted(self._damaged)]

    def lay_out(self, maps: ClassMaps, valid_HW: np.ndarray) -> BlockLayers:
        """Return a block's layers in the data type of the transitions, with nodata filled in."""
        dtype = self.change_dtype
        before_HW, after_HW = maps.before_HW.astype(dtype), maps.after_HW.astype(dtype)
        change_HW = self._classes.encode_transition(before_HW, after_HW)
        layers = (before_HW, after_HW, change_HW, maps.confidence_HW, maps.unchanged_HW)
        nodata = (CLASS_NODATA, CLASS_NODATA, self.change_nodata, *(CONFIDENCE_NODATA,) * 2)
        return BlockLayers(
            *(
                np.where(valid_HW, layer_HW, value).astype(dtype)
                for layer_HW, value in zip(layers, nodata, strict=True)
            )
        )

    def put(self, block: FinishedBlock):
        """Write the layers of a finished block; see `write`."""
        layers = self.lay_out(block.maps, block.valid_HW)
        self.write(block.index, block.window, layers, block.facts)

    def write(self, index: int, window: Window, layers: BlockLayers, facts: BlockFacts):
        """Write the layers of a block.

        Args:
            index: Number of the block.
            window: Its place on the grid.
            layers: The layers.
            facts: How they were made.

        Raises:
            OutputError: If the file cannot be written, for example because the disk is full.
        """
        self.keep(index, self.encode(window, layers, facts))

    def write_empty(self, index: int, window: Window):
        """Write a block of nodata only, without a network.

        Raises:
            OutputError: If the file cannot be written.
        """
        shape = int(window.height), int(window.width)
        layers = self.lay_out(ClassMaps.empty(*shape), np.zeros(shape, bool))
        self.write(index, window, layers, BlockFacts(0, 0.0, 0.0))

    def encode(self, window: Window, layers: BlockLayers, facts: BlockFacts) -> bytes:
        """Return the content of a block's file; see `write`."""
        part = self._grid.crop(window)
        with allow_no_place(), MemoryFile() as memory:
            with memory.open(
                driver="GTiff",
                width=part.width,
                height=part.height,
                count=len(LAYERS),
                dtype=self.change_dtype,
                crs=part.crs,
                transform=part.transform,
                interleave="band",
                blockysize=64,
                compress="deflate",
                zlevel=1,
            ) as dataset:
                dataset.write(np.stack(layers))
                dataset.update_tags(**facts._asdict())
            content = memory.read()
        # Behind its end, which readers of TIFFs ignore.
        return content + _SEAL + hashlib.sha256(content).digest()

    def keep(self, index: int, content: bytes):
        """Write the file of a block, already encoded.

        Raises:
            OutputError: If it cannot be written.
        """
        write_bytes(self.path(index), content)
        self._sound.add(index)
        self._damaged.discard(index)

    def read(self, index: int) -> tuple[BlockLayers, BlockFacts]:
        """Return the layers of a block and how they were made.

        Raises:
            RasterError: If the file is damaged.
        """
        path = self.path(index)
        try:
            content = path.read_bytes()
            if not _is_sound(content):
                raise ValueError("its checksum differs")
            with allow_no_place(), MemoryFile(content) as memory, memory.open() as dataset:
                tags = dataset.tags()
                facts = BlockFacts(
                    int(tags["views"]), float(tags["seconds"]), float(tags["network_seconds"])
                )
                return BlockLayers(*dataset.read()), facts
        except (OSError, KeyError, ValueError, RasterioError) as error:
            self._sound.discard(index)
            raise RasterError(
                f"{path}, a finished part of the map, is damaged: {error}",
                fix="run the same `terradelta predict` again: it makes that part again",
            ) from error

    def elsewhere(self, folder: Path) -> BlockStore:
        """Return a store of the same map in another folder."""
        return BlockStore(folder, self._grid, self._classes)


def _is_sound(content: bytes) -> bool:
    """Return whether a block's file is as it was written, by the checksum at its end."""
    end = len(content) - hashlib.sha256().digest_size
    start = end - len(_SEAL)
    return content[start:end] == _SEAL and hashlib.sha256(content[:start]).digest() == content[end:]


def transition_format(classes: ClassTable) -> tuple[str, int]:
    """Return the data type and nodata value that hold every transition of a class table."""
    return ("uint8", 255) if classes.num_transitions <= 255 else ("uint16", 65535)
