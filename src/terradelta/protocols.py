"""The interfaces between terradelta and what others write for it.

Whatever has these attributes and methods fits; nothing needs to be derived from them. All lie below
the rest of the package: at run time this module imports nothing but the standard library.

Legend of the array names: B batch, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from rasterio.windows import Window
    from torch import Tensor, nn

    from terradelta.classes import ClassTable
    from terradelta.data.dataset import PairSample
    from terradelta.geo.grid import Grid
    from terradelta.inference.backends.choice import Choice
    from terradelta.inference.backends.interface import Request
    from terradelta.inference.rasters import Work
    from terradelta.inference.store import FinishedBlock
    from terradelta.models.change_network import ChangeOutput


class Source(Protocol):
    """Pixels in: one georeferenced image that is read window by window.

    What a registered reader returns; see `terradelta.register_reader`. terradelta resamples,
    mosaics and checks it as it does a file. Calls come from one thread at a time, not always the
    same. Attributes do not change while it is open.

    What `read` raises that is no `TerradeltaError` reaches the user as a `RasterError` with the
    path and the window.
    """

    @property
    def grid(self) -> Grid:
        """Its pixels: CRS, which it must have, transform in the CRS's units, width and height."""
        ...

    @property
    def count(self) -> int:
        """Number of bands, 1 or more."""
        ...

    @property
    def dtype(self) -> str:
        """Data type of all bands, as numpy names it: an integer or a float of 8 to 64 bits."""
        ...

    @property
    def nodata(self) -> float | None:
        """The value that is no data in any band, None for none. NaN is no data in any case."""
        ...

    @property
    def band_names(self) -> Sequence[str | None]:
        """Name of each band, such as "red"; None for one without."""
        ...

    @property
    def version(self) -> str:
        """Changes when pixels do; an unfinished map is resumed only from the same version."""
        ...

    def read(self, bands: Sequence[int], window: Window) -> np.ndarray:
        """Return stored values, (C, H, W) of `dtype`, H rows and W columns of the window.

        Args:
            bands: By number from 1, in the order of the C wanted.
            window: Whole pixels that lie within `grid`.
        """
        ...

    def close(self) -> None:
        """Release what is open; called once, after the last `read`."""
        ...


class Network(Protocol):
    """From two scaled images to scores: what maps are made with.

    `terradelta.models.change_network.ChangeNetwork`, from which registered architectures derive,
    has all of it but `find_margin_px`, `output_stride` and `score`. Not thread-safe: one call at a
    time. It is deterministic in eval mode, and the pairs of a batch do not influence each other.
    """

    @property
    def output_stride(self) -> int:
        """Sides and origins of tiles are multiples of this, in pixels."""
        ...

    @property
    def has_global_pooling(self) -> bool:
        """Whether the answer depends on the size of a tile, however far from its border."""
        ...

    def find_margin_px(self, pool_window_px: int | None) -> int:
        """Return the width of the border of a tile whose answer is not used, in pixels.

        Args:
            pool_window_px: Side of the window that global pooling is limited to, None for none.
        """
        ...

    def score(self, before_BCHW: Tensor, after_BCHW: Tensor) -> ChangeOutput:
        """Return float logits (B, K, h, w) of both dates and (B, h', w') of change.

        They are resized bilinearly to the images' size.

        Args:
            before_BCHW: Float images; sides are multiples of `output_stride`.
            after_BCHW: The second date, of the same shape.
        """
        ...

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over what is trained at the recipe's `learning_rate`."""
        ...

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over what is trained `head_rate_factor` times as fast."""
        ...


class Backend(Protocol):
    """A model made ready for one runtime, device and number format.

    Not thread-safe: one call at a time. `Predictor(create_backend=...)` takes what makes one.
    """

    def __call__(self, request: Request) -> ChangeOutput:
        """Return float32 logits at the heads' own resolutions, on any device.

        Args:
            request: Images in the model's stored scale, (B, C, H, W) uint8 or float32, and where
                both hold data, (B, H, W) bool; sides are multiples of the output stride.
        """
        ...


class Sink(Protocol):
    """Maps out: where finished blocks go.

    `put` is called from one thread of its own, once a block, row by row; the network goes on
    meanwhile, at most two blocks ahead. Arrays are the sink's to keep. What `put` raises ends the
    prediction and reaches the caller as it is.
    """

    def put(self, block: FinishedBlock) -> None:
        """Take the maps of a block: uint8 (H, W), and its place on the grid of the map."""
        ...


class Executor(AbstractContextManager, Protocol):
    """Where blocks are answered: this process, or a cluster; a context manager.

    Entered once, in the thread that calls it.
    """

    def choose_device(self, device: str) -> torch.device:
        """Return what networks compute on there.

        Raises:
            ArgumentError: If there is no such device.
        """
        ...

    def choose_backend(
        self,
        backend: str = "auto",
        precision: str = "auto",
        device: torch.device | None = None,
        pixels: int | None = None,
    ) -> Choice:
        """Return what runs them there; see `terradelta.inference.backends.choose_backend`."""
        ...

    def answer(self, work: Work) -> None:
        """Answer the blocks of a work into the store of its job.

        Raises:
            TerradeltaError: If pixels cannot be read, a block cannot be written, or machines are
                lost; what is answered by then stays in the store.
        """
        ...


class PairDataset(Protocol):
    """Labelled pairs to train on or to validate with, as `torch.utils.data.Dataset` has them.

    With `TrainConfig.workers` above 0 it is copied into other processes. What `__getitem__` raises
    that is no `TerradeltaError` reaches the user as a `DataError` with the index.
    """

    @property
    def classes(self) -> ClassTable:
        """What the labels mean."""
        ...

    @property
    def bands(self) -> Sequence[str]:
        """What each band of the images is, in order."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> PairSample:
        """Return a pair; see `PairSample` for shapes and dtypes. Images are not augmented yet."""
        ...
