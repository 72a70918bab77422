"""From image windows to class maps: the network, test-time views and ensembles.

Legend of the array names: B batch, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor

from terradelta.classes import ClassTable
from terradelta.data.augment import VIEW_SETS, apply_view
from terradelta.errors import ModelError
from terradelta.fields import POSITIVE_COUNT, checks_ranges
from terradelta.flags import read_memory
from terradelta.geo.grid import Grid
from terradelta.geo.pair import PairWindow
from terradelta.geo.pair_options import ModelNeeds, Range, require_range
from terradelta.geo.scale import SeenPixels, find_seen_pixels
from terradelta.inference.backends import Choice, Request, choose_backend, make_backend
from terradelta.inference.needs import describe_needs
from terradelta.inference.prediction_options import DEFAULT_MEMORY, Runtime, require_kinds
from terradelta.inference.resolution import average_squares, enlarge, fit_tiling
from terradelta.inference.tile_batches import TileBatch, batch_alike
from terradelta.inference.tiling import Tile, Tiling, list_tile_sizes, offset_slices
from terradelta.inference.votes import (
    ClassMaps,
    Probabilities,
    Vote,
    average,
    decide,
    turn_crop,
)
from terradelta.models.bundle import Model
from terradelta.models.card import Temperatures
from terradelta.models.change_network import ChangeOutput
from terradelta.models.crop import Crop
from terradelta.models.decision import join_rules
from terradelta.models.footprint import count_live_bytes
from terradelta.models.precision import choose_device
from terradelta.protocols import Backend, Network

logger = logging.getLogger(__name__)

TILE_SHARE = 0.35
"""Share of a memory budget for the features of one tile, in torch at float32, so that what runtimes
take besides, the process and the blocks that wait fit beside them."""
BYTES_PER_MAP_PIXEL = 64
"""Of a tile's images, and of its answer in full resolution."""
DEFAULT_POOL_WINDOW_PX = 512
"""For a model with global pooling whose card names no training size."""
BATCHES_AHEAD = {"cpu": 0, "cuda": 1}
"""Number of batches given to the network before an earlier answer is fetched."""


class Predictor:
    """One model or several that vote, ready to answer batches of pairs.

    Args:
        models: Models of one class table and one list of bands; their probabilities are averaged.
        runtime: Views, tiles, device, backend and number format.
        value_ranges: Values of the before and of the after image that become the darkest and
            brightest the models know; None for images in the models' own scale.
        batch_size: Tiles of one size that are answered together. They are large, and other batches
            round differently.
        device: What the networks compute on, without a check that this machine has it; by default
            that of the runtime.
        choose: Chooses the backend: `choose_backend` on this machine, or on the one that will
            answer.
        create_backend: Prepares a model to run, from the choice, the model, the device and
            the side of the window of global pooling in pixels: `make_backend`, or a function that
            makes your own `terradelta.protocols.Backend`.

    Raises:
        ArgumentError: If this machine does not have what the runtime needs.
        ModelError: If the models do not fit each other.
    """

    @checks_ranges
    def __init__(
        self,
        models: Sequence[Model],
        runtime: Runtime = Runtime(),  # noqa: B008
        *,
        value_ranges: tuple[Range | None, Range | None] = (None, None),
        batch_size: Annotated[int, POSITIVE_COUNT] = 1,
        device: torch.device | None = None,
        choose: Callable[..., Choice] = choose_backend,
        create_backend: Callable[[Choice, Model, torch.device, int | None], Backend] = make_backend,
    ):
        require_kinds(runtime=runtime)
        _require_alike(models)
        self.tta = runtime.tta
        self.device = choose_device(runtime.device) if device is None else device
        before_range, after_range = value_ranges
        self.value_ranges: tuple[Range | None, Range | None] = (
            require_range(before_range, "--value-range"),
            require_range(after_range, "--after-value-range"),
        )
        self.classes: ClassTable = models[0].card.classes
        self.bands: tuple[str, ...] = models[0].card.bands
        self.rule = join_rules([model.card.find_rule(runtime.sensitivity) for model in models])
        self.sensitivity = runtime.sensitivity
        self._models = list(models)
        self._asked = runtime.backend, runtime.precision
        # Wrong names are rejected now; the choice itself may need the size of the job.
        choose(*self._asked, self.device)
        self._choose = choose
        self._create_backend = create_backend
        self._choice: Choice | None = None
        self._backends: list[Backend] = []
        self._tile_size_px = runtime.tile_size
        self._memory_bytes = read_memory(DEFAULT_MEMORY)
        self.see(SeenPixels())
        self.batch_size = batch_size
        self._batches_ahead = BATCHES_AHEAD[self.device.type]

    def see(self, pixels: SeenPixels):
        """Let the networks see means of pixels, or interpolated ones, and answer for each pixel.

        For images of finer or coarser pixels than those of training. Tiles and margins grow or
        shrink with them.

        Args:
            pixels: What they see in place of the pixels.
        """
        self.seen_pixels = pixels
        self.tiling = self._choose_tiling()

    def fit_memory(self, memory_bytes: int):
        """Choose tiles that fit into a memory budget, unless the runtime names their size.

        The size does not depend on the machine; by default it suits 4 GB.

        Args:
            memory_bytes: Memory that the process may use.
        """
        self._memory_bytes = memory_bytes
        self.tiling = self._choose_tiling()

    def see_grid(self, grid: Grid):
        """Let the networks see the pixels of a grid in a size that they learned from.

        Args:
            grid: The grid of the map; see `find_seen_pixels`.
        """
        self.see(find_seen_pixels(grid, self.needs.resolution_m))

    def choose(self, pixels: int | None = None) -> Choice:
        """Return the choice of the backend; it does not change afterwards.

        Args:
            pixels: Pixels of the whole job, which decide whether compiling is worth its time.

        Raises:
            ArgumentError: If the requested runtime is not available.
        """
        if self._choice is None:
            if pixels is not None:
                pixels *= self.num_views * len(self._models) * self.seen_pixels.enlargement**2
                pixels //= self.seen_pixels.reduction**2
            self._choice = self._choose(*self._asked, self.device, pixels)
            logger.info("%s at %s: %s", *astuple(self._choice))
        return self._choice

    def start(self, pixels: int | None = None):
        """Prepare the backends; otherwise the first answer does it.

        Args:
            pixels: Same as in `choose`.

        Raises:
            ArgumentError: If the requested runtime is not available.
            ModelError: If a model has no graph for the precision requested.
        """
        if not self._backends:
            choice = self.choose(pixels)
            self._backends = [
                self._create_backend(choice, model, self.device, choose_pool_window(model))
                for model in self._models
            ]

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The backends, one for each model, prepared if necessary; see `start`."""
        self.start()
        return tuple(self._backends)

    @property
    def choice(self) -> Choice:
        """The choice of the backend."""
        return self.choose()

    @property
    def num_views(self) -> int:
        """Number of test-time views."""
        return len(VIEW_SETS[self.tta])

    @property
    def largest_value(self) -> float:
        """The brightest stored value of the models."""
        return max(model.card.scaling.divisor for model in self._models)

    @property
    def needs(self) -> ModelNeeds:
        """The inputs that the models need."""
        return describe_needs([model.card for model in self._models])

    @cached_property
    def live_bytes(self) -> tuple[float, ...]:
        """Bytes per pixel that each model's features take; see `count_live_bytes`."""
        return tuple(count_live_bytes(model) for model in self._models)

    def _choose_tiling(self) -> Tiling:
        networks: list[Network] = [model.network for model in self._models]
        stride_px = int(np.lcm.reduce([network.output_stride for network in networks]))
        margin_px = max(
            network.find_margin_px(choose_pool_window(model))
            for network, model in zip(networks, self._models, strict=True)
        )
        margin_px = -(-margin_px // stride_px) * stride_px
        tile_size_px = self._tile_size_px or self._choose_tile_size(margin_px, stride_px)
        return fit_tiling(Tiling(tile_size_px, margin_px, stride_px), self.seen_pixels)

    def _choose_tile_size(self, margin_px: int, stride_px: int) -> int:
        map_pixels = (self.seen_pixels.reduction / self.seen_pixels.enlargement) ** 2
        pixel_bytes = max(self.live_bytes) + map_pixels * BYTES_PER_MAP_PIXEL
        sizes = list_tile_sizes(margin_px, stride_px)
        most_bytes = TILE_SHARE * self._memory_bytes
        fitting = [side for side in sizes if side**2 * pixel_bytes <= most_bytes]
        return fitting[0] if fitting else sizes[-1]

    def __call__(
        self,
        before_BCHW: Tensor,
        after_BCHW: Tensor,
        valid_BHW: Tensor | None = None,
        num_views: int | None = None,
    ) -> Probabilities:
        """Return the probabilities for a batch of pairs.

        Args:
            before_BCHW: Images of the first date, as read.
            after_BCHW: Images of the second date.
            valid_BHW: Where both dates hold data; elsewhere the networks see their mean colour, as
                they do beyond an image's border.
            num_views: Number of test-time views to average; all by default.
        """
        height, width = before_BCHW.shape[-2:]
        votes, size = self._collect_votes(before_BCHW, after_BCHW, valid_BHW, num_views)
        self._require_finite(votes)
        return Probabilities(*(part[..., :height, :width] for part in average(votes, size)))

    def classify(
        self,
        before_BCHW: Tensor,
        after_BCHW: Tensor,
        valid_BHW: Tensor | None = None,
        num_views: int | None = None,
    ) -> list[ClassMaps]:
        """Return the class maps of a batch of pairs.

        Args:
            before_BCHW: Same as in a call.
            after_BCHW: Same as in a call.
            valid_BHW: Same as in a call.
            num_views: Same as in a call.
        """
        height, width = before_BCHW.shape[-2:]
        votes, size = self._collect_votes(before_BCHW, after_BCHW, valid_BHW, num_views)
        self._require_finite(votes)
        kept = [(slice(0, height), slice(0, width))] * len(before_BCHW)
        return decide(votes, size, self.rule, kept)

    @torch.inference_mode()
    def _collect_votes(
        self,
        before_BCHW: Tensor,
        after_BCHW: Tensor,
        valid_BHW: Tensor | None,
        num_views: int | None,
        crop: Crop | None = None,
    ) -> tuple[list[Vote], tuple[int, int]]:
        """Return the answer of each model to each view for a crop, and the size of that.

        Without a crop it is that of the images, padded to a multiple of the stride.
        """
        self.start()
        if valid_BHW is None:
            shape = (len(before_BCHW), *before_BCHW.shape[-2:])
            valid_BHW = torch.ones(shape, dtype=torch.bool)
        seen = Request(
            *(
                _pad_to_multiple(part, self.tiling.stride_px)
                for part in (before_BCHW, after_BCHW, valid_BHW)
            )
        )
        height, width = seen.valid_BHW.shape[-2:]
        crop = crop or Crop(0, height, 0, width)
        if self.seen_pixels.reduction > 1:
            seen = average_squares(seen, self.seen_pixels.reduction)
        elif self.seen_pixels.enlargement > 1:
            seen = enlarge(seen, self.seen_pixels.enlargement)
        seen_crop = self._scale_crop(crop)
        seen_size = seen.valid_BHW.shape[-2], seen.valid_BHW.shape[-1]
        votes = []
        for model, backend in zip(self._models, self._backends, strict=True):
            scaled = [
                _scale(model, image, value_range)
                for image, value_range in zip(seen[:2], self.value_ranges, strict=True)
            ]
            for view in VIEW_SETS[self.tta][:num_views]:
                turned = Request(*(apply_view(part, view) for part in (*scaled, seen.valid_BHW)))
                scores = backend(turned, turn_crop(seen_crop, view, seen_size))
                votes.append(Vote(view, _calibrate(scores, model.card.temperatures)))
        return votes, crop.size

    def _scale_crop(self, crop: Crop) -> Crop:
        """Return a crop in the pixels that the networks see."""
        enlargement, reduction = self.seen_pixels.enlargement, self.seen_pixels.reduction
        return Crop(*(side_px * enlargement // reduction for side_px in crop))

    def _require_finite(self, votes: Sequence[Vote]):
        """Raise if a model answers NaN or infinity: NaN would count as unchanged."""
        views = len(votes) // len(self._models)
        for number, vote in enumerate(votes):
            if vote.is_finite:
                continue
            model, precision = self._models[number // views], self.choice.precision
            unusable = "do not use this model: its weights overflow; train it or fetch it again"
            raise ModelError(
                f"the model {model.name} answers with NaN or infinite scores at {precision}",
                fix=unusable
                if precision == "fp32"
                else f"use --precision fp32; if that fails too, {unusable}",
            )

    def map_window(
        self,
        pair: PairWindow,
        window: Window,
        tiles: Sequence[Tile],
        write: Window,
        num_views: int | None = None,
    ) -> ClassMaps:
        """Answer a window of a source tile by tile.

        Args:
            pair: The pixels of the window.
            window: Where they lie in the source.
            tiles: The tiles that the network sees; each lies within the window.
            write: The part of the source that the tiles answer for.
            num_views: Number of test-time views to average; all by default.

        Returns:
            The maps of the `write` window. They are undefined where the pair is invalid: tiles
            without a valid pixel cost no network.
        """
        maps = ClassMaps.empty(int(write.height), int(write.width))
        wanted = [tile for tile in tiles if pair.valid_HW[offset_slices(tile.write, window)].any()]
        asked: deque[tuple[TileBatch, list[Vote]]] = deque()
        for batch in batch_alike(wanted, self.tiling.stride_px, self.batch_size):
            request = self._cut(pair, [offset_slices(tile.read, window) for tile in batch.tiles])
            votes, _ = self._collect_votes(*request, num_views, batch.crop)
            asked.append((batch, votes))
            # A GPU works on this batch while the maps of the previous one are fetched.
            if len(asked) > self._batches_ahead:
                self._decide_into(maps, write, *asked.popleft())
        while asked:
            self._decide_into(maps, write, *asked.popleft())
        return maps

    def _cut(self, pair: PairWindow, parts: Sequence[tuple[slice, slice]]) -> Request:
        """Return some windows of a pair as one batch."""
        request = Request(
            _stack(pair.before_CHW, parts),
            _stack(pair.after_CHW, parts),
            torch.from_numpy(np.stack([pair.data_HW[part] for part in parts])),
        )
        if self.device.type != "cuda":
            return request
        # Only from pinned memory are pixels copied while the GPU computes.
        return Request(*(part.pin_memory() for part in request))

    def _decide_into(self, maps: ClassMaps, write: Window, batch: TileBatch, votes: Sequence[Vote]):
        # Not earlier: this waits for the GPU, which should have the next batch before.
        self._require_finite(votes)
        answers = decide(votes, batch.crop.size, self.rule, batch.kept)
        for tile, answer in zip(batch.tiles, answers, strict=True):
            for map_HW, part_HW in zip(maps, answer, strict=True):
                map_HW[offset_slices(tile.write, write)] = part_HW


def _scale(model: Model, image_BCHW: Tensor, value_range: Range | None) -> Tensor:
    """Return an image in the values that a model was trained on, uint8 or float32."""
    if value_range is not None:
        low, high = value_range
        image_BCHW = (image_BCHW.float() - low).div_(high - low).clamp_(0, 1)
        return image_BCHW.mul_(model.card.scaling.divisor)
    return image_BCHW if image_BCHW.dtype == torch.uint8 else image_BCHW.float()


def choose_pool_window(model: Model) -> int | None:
    """Return the side of the window over which a model's heads take means."""
    if not model.network.has_global_pooling:
        return None
    return model.card.tile_size_px or DEFAULT_POOL_WINDOW_PX


def _calibrate(scores: ChangeOutput, temperatures: Temperatures) -> ChangeOutput:
    """Return calibrated logits."""
    if temperatures == Temperatures():
        return scores
    return ChangeOutput(
        scores.before_logits / temperatures.classes,
        scores.after_logits / temperatures.classes,
        temperatures.calibrate_change(scores.change_logits),
    )


def _pad_to_multiple(part_BHW: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column of images or masks until the stride divides both sides."""
    height, width = part_BHW.shape[-2:]
    below, right = -height % stride, -width % stride
    if not (below or right):
        return part_BHW
    rows = torch.arange(height + below).clamp(max=height - 1)
    columns = torch.arange(width + right).clamp(max=width - 1)
    return part_BHW[..., rows, :][..., columns]


def _stack(image_CHW: np.ndarray, parts: Sequence[tuple[slice, slice]]) -> Tensor:
    stacked_BCHW = np.stack([image_CHW[:, *part] for part in parts])
    # torch has few operations on unsigned integers of more than a byte.
    return torch.from_numpy(
        stacked_BCHW if stacked_BCHW.dtype == np.uint8 else stacked_BCHW.astype(np.float32)
    )


def _require_alike(models: Sequence[Model]):
    if not models:
        raise ModelError("no model was given", fix="name at least one model folder")
    first = models[0].card
    for model in models[1:]:
        for part in ("classes", "bands"):
            mine, theirs = getattr(first, part), getattr(model.card, part)
            if mine != theirs:
                raise ModelError(
                    f"the models of an ensemble differ in their {part}: {mine} and {theirs}",
                    fix="vote only with models trained on the same classes and bands",
                )
