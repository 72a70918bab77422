"""From image windows to class maps: the network, test-time views and ensembles.

Legend of the array names: B batch, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor

from terradelta.classes import ClassTable
from terradelta.data.augment import VIEW_SETS, View, apply_view, undo_view
from terradelta.errors import ArgumentError, ModelError
from terradelta.geo.pair import PairWindow
from terradelta.models.bundle import Model
from terradelta.models.precision import choose_device, choose_precision
from terradelta.predict.tiling import Tile, Tiling, offset_slices

DEFAULT_TILE_SIZE_PX = 1024
MIN_MARGINS_PER_TILE = 5
"""A tile of fewer margins would throw away more than two thirds of its answer."""
DEFAULT_POOL_WINDOW_PX = 512
"""Where a model with global pooling does not say what size of image it was trained on."""
DEFAULT_BATCH_SIZE = {"cpu": 1, "cuda": 4}
"""Tiles of a batch. Fixed and not by the memory at hand, as other batches round differently."""


class Probabilities(NamedTuple):
    """What an ensemble believes about a batch of pairs; float32."""

    before_BKHW: Tensor
    """Probability of each land-cover class before."""
    after_BKHW: Tensor
    """Probability of each land-cover class after."""
    change_BHW: Tensor
    """Probability of change."""


class ClassMaps(NamedTuple):
    """The answer for one window."""

    before_HW: np.ndarray
    """uint8 class id before where changed, 0 where unchanged."""
    after_HW: np.ndarray
    """uint8 class id after where changed, 0 where unchanged."""
    confidence_HW: np.ndarray
    """uint8 percent: the probability that the answer is right."""
    unchanged_HW: np.ndarray
    """uint8 percent: the probability that nothing changed."""

    @classmethod
    def empty(cls, height: int, width: int) -> ClassMaps:
        """Return maps to be filled."""
        return cls(*np.zeros((4, height, width), dtype=np.uint8))


class Predictor:
    """One model or several that vote, ready to answer batches of pairs.

    Args:
        models: Models of one class table and one list of bands; their probabilities are averaged.
        tta: Test-time views whose probabilities are averaged: "none", "flips" (4), "d4" (8), or
            "seed6" (identity, two flips, three quarter turns; what the reference uses).
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32" or "bf16".
        value_range: Stored values that become the darkest and the brightest the models know; by
            default images are taken to be in the models' own scale.
        tile_size_px: Side of the tiles; by default 1024, more for networks that look very far.
        batch_size: Tiles of one size that are answered together; by default what suits the device.

    Raises:
        ArgumentError: If an option is unknown.
        ModelError: If the models do not fit each other.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        tta: str = "none",
        device: str = "auto",
        precision: str = "auto",
        value_range: tuple[float, float] | None = None,
        tile_size_px: int | None = None,
        batch_size: int | None = None,
    ):
        if tta not in VIEW_SETS:
            raise ArgumentError(
                f"test-time views {tta!r} are not known", fix=f"use one of {', '.join(VIEW_SETS)}"
            )
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ArgumentError(
                f"the value range runs from {value_range[0]:g} to {value_range[1]:g}",
                fix="give the smaller number first: --value-range 0,3000",
            )
        _require_alike(models)
        self.tta = tta
        self.device = choose_device(device)
        self.precision = choose_precision(self.device, precision)
        self.value_range = value_range
        self._models = list(models)
        for model in models:
            model.network.to(self.device).to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
            if model.network.has_global_pooling:
                model.network.pool_window_px = model.card.tile_size_px or DEFAULT_POOL_WINDOW_PX
        self.classes: ClassTable = models[0].card.classes
        self.bands: tuple[str, ...] = models[0].card.bands
        self.threshold = float(np.mean([model.card.change_threshold for model in models]))
        self.tiling = self._choose_tiling(tile_size_px)
        self.batch_size = batch_size or DEFAULT_BATCH_SIZE[self.device.type]

    @property
    def num_views(self) -> int:
        """How many test-time views there are."""
        return len(VIEW_SETS[self.tta])

    @property
    def largest_value(self) -> float:
        """The brightest stored value that the models know."""
        return max(model.card.scaling.divisor for model in self._models)

    def _choose_tiling(self, tile_size_px: int | None) -> Tiling:
        networks = [model.network for model in self._models]
        stride_px = int(np.lcm.reduce([network.output_stride for network in networks]))
        margin_px = max(network.margin_px for network in networks)
        margin_px = -(-margin_px // stride_px) * stride_px
        default = max(DEFAULT_TILE_SIZE_PX, MIN_MARGINS_PER_TILE * margin_px)
        return Tiling(tile_size_px or default, margin_px, stride_px)

    @torch.inference_mode()
    def __call__(
        self,
        before_BCHW: Tensor,
        after_BCHW: Tensor,
        valid_BHW: Tensor | None = None,
        num_views: int | None = None,
    ) -> Probabilities:
        """Return the probabilities for a batch of pairs.

        Args:
            before_BCHW: Images of the first date, in their stored scale and dtype.
            after_BCHW: Images of the second date.
            valid_BHW: Where both dates hold data; elsewhere the networks see their mean colour, as
                they do beyond an image's border.
            num_views: How many of the test-time views to average; all by default.
        """
        images = [image.to(self.device) for image in (before_BCHW, after_BCHW)]
        valid_BHW = None if valid_BHW is None else valid_BHW.to(self.device)
        views = VIEW_SETS[self.tta][:num_views]
        total: Probabilities | None = None
        for model in self._models:
            scaled = [self._scale(model, image, valid_BHW) for image in images]
            for view in views:
                vote = self._vote(model, view, scaled)
                total = vote if total is None else _add(total, vote)
        assert total is not None
        return Probabilities(*(part.div_(len(self._models) * len(views)) for part in total))

    def _scale(self, model: Model, image_BCHW: Tensor, valid_BHW: Tensor | None) -> Tensor:
        if self.value_range is not None:
            low, high = self.value_range
            image_BCHW = (image_BCHW.float() - low).div_(high - low).clamp_(0, 1)
            image_BCHW *= model.card.scaling.divisor
        scaled_BCHW = model.card.scaling.apply(image_BCHW)
        if valid_BHW is not None:
            scaled_BCHW.masked_fill_(~valid_BHW[:, None], 0)
        return scaled_BCHW

    def _vote(self, model: Model, view: View, scaled: Sequence[Tensor]) -> Probabilities:
        images = [
            apply_view(image_BCHW, view).contiguous(memory_format=torch.channels_last)
            for image_BCHW in scaled
        ]
        with torch.autocast(
            self.device.type, self.precision, enabled=self.precision is not torch.float32
        ):
            output = model.network(*images)
        return Probabilities(
            undo_view(output.before_logits.float().softmax(dim=1), view),
            undo_view(output.after_logits.float().softmax(dim=1), view),
            undo_view(output.change_logits.float().sigmoid(), view),
        )

    def classify(
        self,
        before_BCHW: Tensor,
        after_BCHW: Tensor,
        valid_BHW: Tensor | None = None,
        num_views: int | None = None,
    ) -> list[ClassMaps]:
        """Return the class maps of a batch of pairs; arguments as of a call."""
        probabilities = self(before_BCHW, after_BCHW, valid_BHW, num_views)
        return [
            ClassMaps(*maps) for maps in zip(*decide(probabilities, self.threshold), strict=True)
        ]

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
            tiles: What the network is to see; each lies within the window.
            write: The part of the source that the tiles answer for.
            num_views: How many of the test-time views to average; all by default.

        Returns:
            The maps of the `write` window. They are undefined where the pair is invalid: tiles
            without a valid pixel cost no network.
        """
        maps = ClassMaps.empty(int(write.height), int(write.width))
        wanted = [tile for tile in tiles if pair.valid_HW[offset_slices(tile.write, window)].any()]
        for batch in _batch_alike(wanted, self.batch_size):
            seen = [offset_slices(tile.read, window) for tile in batch]
            answers = self.classify(
                _stack(pair.before_CHW, seen),
                _stack(pair.after_CHW, seen),
                torch.from_numpy(np.stack([pair.data_HW[part] for part in seen])),
                num_views,
            )
            for tile, answer in zip(batch, answers, strict=True):
                for map_HW, part_HW in zip(maps, answer, strict=True):
                    map_HW[offset_slices(tile.write, write)] = part_HW[tile.kept]
        return maps


def decide(
    probabilities: Probabilities, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return class ids before and after, confidence and certainty that nothing changed.

    A pixel is changed where its probability of change reaches the threshold; its classes are then
    the most probable ones. Confidence is the probability of the whole answer if its parts were
    independent: 1 - p where unchanged, p * p_before * p_after where changed. All four arrays are
    (B, H, W) uint8, the last two in percent; the last is 1 - p everywhere.
    """
    before, after, change_BHW = probabilities
    changed_BHW = change_BHW >= threshold
    before_top, after_top = before.max(dim=1), after.max(dim=1)
    unchanged_BHW = 1 - change_BHW
    confidence_BHW = torch.where(
        changed_BHW, change_BHW * before_top.values * after_top.values, unchanged_BHW
    )
    before_ids, after_ids = (
        torch.where(changed_BHW, top.indices + 1, 0).to(torch.uint8).cpu().numpy()
        for top in (before_top, after_top)
    )
    confidence, unchanged = (
        (100 * part_BHW).round().to(torch.uint8).cpu().numpy()
        for part_BHW in (confidence_BHW, unchanged_BHW)
    )
    return before_ids, after_ids, confidence, unchanged


def _add(total: Probabilities, vote: Probabilities) -> Probabilities:
    return Probabilities(*(part.add_(more) for part, more in zip(total, vote, strict=True)))


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
    # torch knows few operations on unsigned integers of more than a byte.
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
