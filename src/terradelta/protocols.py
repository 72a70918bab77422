"""The interfaces between terradelta and code that others write for it.

Any object with these attributes and methods fits; no base class is needed. They lie below
the rest of the package: at run time this module imports only the standard library.

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
    from terradelta.models.crop import Crop


class Source(Protocol):
    """Input pixels: one georeferenced image, read window by window.

    What a registered reader returns; see `terradelta.register_reader`. terradelta resamples,
    mosaics and checks it like a file. Calls come from one thread at a time, not always the
    same. Attributes do not change while it is open.

    Errors of `read` other than `TerradeltaError` reach the user as a `RasterError` with the
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
        """The value that means no data in any band, or None. NaN always means no data."""
        ...

    @property
    def band_names(self) -> Sequence[str | None]:
        """Name of each band, such as "red"; None for a band without a name."""
        ...

    @property
    def version(self) -> str:
        """Changes when pixels do; an unfinished map is resumed only from the same version."""
        ...

    def read(self, bands: Sequence[int], window: Window) -> np.ndarray:
        """Return stored values, (C, H, W) of `dtype`, with the window's H rows and W columns.

        Args:
            bands: By number from 1, in the order of the C wanted.
            window: Whole pixels that lie within `grid`.
        """
        ...

    def close(self) -> None:
        """Close the image; called once, after the last `read`."""
        ...


class Network(Protocol):
    """Computes scores from two scaled images; maps are made with it.

    `terradelta.models.change_network.ChangeNetwork`, from which registered architectures derive,
    has all of it but `find_margin_px`, `output_stride` and `score`. Not thread-safe: one call at a
    time. It is deterministic in eval mode, and the pairs of a batch do not influence each other.
    """

    @property
    def output_stride(self) -> int:
        """Pixels; sides and origins of tiles are multiples of it."""
        ...

    @property
    def has_global_pooling(self) -> bool:
        """Whether the answer depends on the size of a tile, even far from its border."""
        ...

    def find_margin_px(self, pool_window_px: int | None) -> int:
        """Return the width of the border of a tile whose answer is discarded, in pixels.

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
        """Iterate over the parameters trained at the recipe's `learning_rate`."""
        ...

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters trained `head_rate_factor` times as fast."""
        ...


class Backend(Protocol):
    """A model prepared for one runtime, device and number format.

    Not thread-safe: one call at a time. `Predictor(create_backend=...)` takes a function that makes
    one.
    """

    def __call__(self, request: Request, crop: Crop | None = None) -> ChangeOutput:
        """Return float32 logits at the heads' own resolutions, on any device.

        Args:
            request: Images in the model's stored scale, (B, C, H, W) uint8 or float32, and where
                both hold data, (B, H, W) bool; sides are multiples of the output stride.
            crop: The part of the images whose logits are wanted, all by default; its sides are
                multiples of the output stride. `ChangeNetwork.score_crop` computes no more than
                that, `terradelta.models.change_network.crop_scores` cuts it out.
        """
        ...


class Sink(Protocol):
    """Output maps: receives the finished blocks.

    `put` is called from one separate thread, once per block, row by row. Meanwhile the network
    works at most two blocks ahead. The sink may keep the arrays. An error of `put` ends the
    prediction and reaches the caller as it is.
    """

    def put(self, block: FinishedBlock) -> None:
        """Take the maps of a block: uint8 (H, W), and its place on the grid of the map."""
        ...


class Executor(AbstractContextManager, Protocol):
    """Answers blocks, in this process or on a cluster; a context manager.

    Entered once, in the thread that calls it.
    """

    def choose_device(self, device: str) -> torch.device:
        """Return the device that the networks compute on.

        Raises:
            ArgumentError: If the device does not exist.
        """
        ...

    def choose_backend(
        self,
        backend: str = "auto",
        precision: str = "auto",
        device: torch.device | None = None,
        pixels: int | None = None,
    ) -> Choice:
        """Return the backend that runs them; see `terradelta.inference.backends.choose_backend`."""
        ...

    def answer(self, work: Work) -> None:
        """Answer the blocks of a work into the store of its job.

        Raises:
            TerradeltaError: If pixels cannot be read, a block cannot be written, or machines are
                lost; blocks answered before that stay in the store.
        """
        ...


class PairDataset(Protocol):
    """Labelled pairs to train on or to validate with, like a `torch.utils.data.Dataset`.

    With `TrainConfig.workers` above 0 it is copied into other processes. Errors of `__getitem__`
    other than `TerradeltaError` reach the user as a `DataError` with the index.
    """

    @property
    def classes(self) -> ClassTable:
        """What the labels mean."""
        ...

    @property
    def bands(self) -> Sequence[str]:
        """Name of each band of the images, in order."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> PairSample:
        """Return a pair; see `PairSample` for shapes and dtypes. Images are not augmented yet."""
        ...
