"""From image windows to class maps: the network, test-time views and ensembles.

Legend of the array names: B batch, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from itertools import groupby
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from rasterio.windows import Window
from torch import Tensor

from terradelta.classes import ClassTable
from terradelta.data.augment import VIEW_SETS, apply_view
from terradelta.errors import ModelError
from terradelta.fields import POSITIVE_COUNT, checks_ranges
from terradelta.geo.grid import Grid
from terradelta.geo.pair import PairWindow
from terradelta.geo.pair_options import ModelNeeds, Range, require_range
from terradelta.geo.scale import SeenPixels, find_seen_pixels
from terradelta.inference.backends import Choice, Request, choose_backend, make_backend
from terradelta.inference.needs import describe_needs
from terradelta.inference.prediction_options import Runtime, require_kinds
from terradelta.inference.tiling import Tile, Tiling, offset_slices
from terradelta.inference.votes import ClassMaps, Probabilities, Vote, average, decide
from terradelta.models.bundle import Model
from terradelta.models.card import Temperatures
from terradelta.models.change_network import ChangeOutput
from terradelta.models.decision import join_rules
from terradelta.models.precision import choose_device
from terradelta.protocols import Backend, Network

logger = logging.getLogger(__name__)

DEFAULT_TILE_SIZE_PX = 1024
MIN_MARGINS_PER_TILE = 5
"""A smaller tile, in margins, would discard more than two thirds of its answer."""
DEFAULT_POOL_WINDOW_PX = 512
"""For a model with global pooling whose card names no training size."""
DEFAULT_BATCH_SIZE = {"cpu": 1, "cuda": 4}
"""Tiles per batch. It does not depend on the free memory, as other batches round differently."""
BATCHES_AHEAD = {"cpu": 0, "cuda": 1}
"""Number of batches given to the network before an earlier answer is fetched."""


class Predictor:
    """One model or several that vote, ready to answer batches of pairs.

    Args:
        models: Models of one class table and one list of bands; their probabilities are averaged.
        runtime: Views, tiles, device, backend and number format.
        value_ranges: Values of the before and of the after image that become the darkest and
            brightest the models know; None for images in the models' own scale.
        batch_size: Tiles of one size that are answered together; by default a number that suits the
            device.
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
        batch_size: Annotated[int, POSITIVE_COUNT] | None = None,
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
        self.see(SeenPixels())
        self.batch_size = batch_size or DEFAULT_BATCH_SIZE[self.device.type]
        self._batches_ahead = BATCHES_AHEAD[self.device.type]

    def see(self, pixels: SeenPixels):
        """Let the networks see means of pixels, or interpolated ones, and answer for each pixel.

        For images of finer or coarser pixels than those of training. Tiles and margins grow or
        shrink with them.

        Args:
            pixels: What they see in place of the pixels.
        """
        self.seen_pixels = pixels
        self.tiling = self._choose_tiling(self._tile_size_px)

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

    def _choose_tiling(self, tile_size_px: int | None) -> Tiling:
        networks: list[Network] = [model.network for model in self._models]
        stride_px = int(np.lcm.reduce([network.output_stride for network in networks]))
        margin_px = max(
            network.find_margin_px(choose_pool_window(model))
            for network, model in zip(networks, self._models, strict=True)
        )
        margin_px = -(-margin_px // stride_px) * stride_px
        default = max(DEFAULT_TILE_SIZE_PX, MIN_MARGINS_PER_TILE * margin_px)
        return _fit_tiling(Tiling(tile_size_px or default, margin_px, stride_px), self.seen_pixels)

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
        kept: Sequence[tuple[slice, slice]] | None = None,
    ) -> list[ClassMaps]:
        """Return the class maps of a batch of pairs.

        Args:
            before_BCHW: Same as in a call.
            after_BCHW: Same as in a call.
            valid_BHW: Same as in a call.
            num_views: Same as in a call.
            kept: Rows and columns of each pair that are wanted; all by default.
        """
        height, width = before_BCHW.shape[-2:]
        votes, size = self._collect_votes(before_BCHW, after_BCHW, valid_BHW, num_views)
        self._require_finite(votes)
        kept = kept or [(slice(0, height), slice(0, width))] * len(before_BCHW)
        return decide(votes, size, self.rule, kept)

    @torch.inference_mode()
    def _collect_votes(
        self,
        before_BCHW: Tensor,
        after_BCHW: Tensor,
        valid_BHW: Tensor | None,
        num_views: int | None,
    ) -> tuple[list[Vote], tuple[int, int]]:
        """Return the answer of each model to each view, and the size of its images."""
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
        if self.seen_pixels.reduction > 1:
            seen = _average_squares(seen, self.seen_pixels.reduction)
        elif self.seen_pixels.enlargement > 1:
            seen = _enlarge(seen, self.seen_pixels.enlargement)
        votes = []
        for model, backend in zip(self._models, self._backends, strict=True):
            scaled = [
                _scale(model, image, value_range)
                for image, value_range in zip(seen[:2], self.value_ranges, strict=True)
            ]
            for view in VIEW_SETS[self.tta][:num_views]:
                turned = Request(*(apply_view(part, view) for part in (*scaled, seen.valid_BHW)))
                votes.append(Vote(view, _calibrate(backend(turned), model.card.temperatures)))
        return votes, (height, width)

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
        asked: deque[tuple[list[Tile], list[Vote], tuple[int, int]]] = deque()
        for batch in _batch_alike(wanted, self.batch_size):
            request = self._cut(pair, [offset_slices(tile.read, window) for tile in batch])
            asked.append((batch, *self._collect_votes(*request, num_views)))
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

    def _decide_into(
        self,
        maps: ClassMaps,
        write: Window,
        batch: Sequence[Tile],
        votes: Sequence[Vote],
        size: tuple[int, int],
    ):
        # Not earlier: this waits for the GPU, which should have the next batch before.
        self._require_finite(votes)
        kept = [tile.kept for tile in batch]
        answers = decide(votes, size, self.rule, kept)
        for tile, answer in zip(batch, answers, strict=True):
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


def _fit_tiling(seen: Tiling, pixels: SeenPixels) -> Tiling:
    """Return the tiling of an image, from that of the pixels that the networks see."""
    if pixels.enlargement == 1:
        return Tiling(*(side_px * pixels.reduction for side_px in astuple(seen)))
    # Origins of tiles are multiples of the stride in the pixels that the networks see.
    stride_px = seen.stride_px // math.gcd(seen.stride_px, pixels.enlargement)
    margin_px = -(-seen.margin_px // (pixels.enlargement * stride_px)) * stride_px
    tile_size_px = max(seen.tile_size_px // pixels.enlargement, 2 * margin_px + stride_px)
    return Tiling(tile_size_px, margin_px, stride_px)


def _average_squares(request: Request, side_px: int) -> Request:
    """Return the means of squares of pixels with data, float32; without data where none has.

    Row by row of squares, as float copies of all pixels would take many times their memory.
    """
    rows = []
    for top in range(0, request.valid_BHW.shape[-2], side_px):
        strip = slice(top, top + side_px)
        weight_B1HW = request.valid_BHW[:, None, strip].float()
        share_B1HW = F.avg_pool2d(weight_B1HW, side_px)
        means = (
            F.avg_pool2d(part[..., strip, :].float() * weight_B1HW, side_px)
            / share_B1HW.clamp_min(1e-6)
            for part in request[:2]
        )
        rows.append((*means, share_B1HW[:, 0] > 0))
    return Request(*(torch.cat(parts, dim=-2) for parts in zip(*rows, strict=True)))


def _enlarge(request: Request, factor: int) -> Request:
    """Return images interpolated bilinearly between the pixels with data, float32."""
    weight_B1HW = request.valid_BHW[:, None].float()

    def interpolate(part_BCHW: Tensor) -> Tensor:
        return F.interpolate(part_BCHW, scale_factor=factor, mode="bilinear")

    share_B1HW = interpolate(weight_B1HW).clamp_min(1e-6)
    before_BCHW, after_BCHW = (
        interpolate(part.float() * weight_B1HW) / share_B1HW for part in request[:2]
    )
    valid_BHW = request.valid_BHW.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    return Request(before_BCHW, after_BCHW, valid_BHW)


def _pad_to_multiple(part_BHW: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column of images or masks until the stride divides both sides."""
    height, width = part_BHW.shape[-2:]
    below, right = -height % stride, -width % stride
    if not (below or right):
        return part_BHW
    rows = torch.arange(height + below).clamp(max=height - 1)
    columns = torch.arange(width + right).clamp(max=width - 1)
    return part_BHW[..., rows, :][..., columns]


def _batch_alike(tiles: Sequence[Tile], batch_size: int) -> Iterator[list[Tile]]:
    """Yield batches of tiles of one size."""

    def size(tile: Tile) -> tuple[int, int]:
        return int(tile.read.height), int(tile.read.width)

    for _, alike in groupby(sorted(tiles, key=size), key=size):
        rest = list(alike)
        for first in range(0, len(rest), batch_size):
            yield rest[first : first + batch_size]


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
