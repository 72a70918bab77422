"""From image windows to class maps: the network, test-time views and ensembles.

Legend of the array names: B batch, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor

from terradelta.classes import ClassTable
from terradelta.data.augment import VIEW_SETS, apply_view, undo_view
from terradelta.errors import ArgumentError, ModelError
from terradelta.geo.pair import PairWindow
from terradelta.models.bundle import Model
from terradelta.models.precision import choose_device, choose_precision
from terradelta.predict.tiling import Tiling

DEFAULT_TILE_SIZE_PX = 1024
MARGIN_PX = 128
CONFIDENCE_NODATA = 255


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


class Source(Protocol):
    """Where windows of a pair come from."""

    def read(self, window: Window) -> PairWindow:
        """Return one window of both dates."""
        ...


class Predictor:
    """One model or several that vote, ready to answer batches of pairs.

    Args:
        models: Models of one class table and one list of bands; their probabilities are averaged.
        tta: Test-time views whose probabilities are averaged: "none", "flips" (4), "d4" (8), or
            "seed6" (identity, two flips, three quarter turns; what the reference uses).
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32" or "bf16".

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
    ):
        if tta not in VIEW_SETS:
            raise ArgumentError(
                f"test-time views {tta!r} are not known", fix=f"use one of {', '.join(VIEW_SETS)}"
            )
        _require_alike(models)
        self.tta = tta
        self.device = choose_device(device)
        self.precision = choose_precision(self.device, precision)
        self._models = list(models)
        for model in models:
            model.network.to(self.device).to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
        self.classes: ClassTable = models[0].card.classes
        self.bands: tuple[str, ...] = models[0].card.bands
        self.threshold = float(np.mean([model.card.change_threshold for model in models]))

    @property
    def tiling(self) -> Tiling:
        """The tiles that these models need."""
        strides = [model.network.output_stride for model in self._models]
        fixed = {m.card.tile_size_px for m in self._models if m.card.tile_size_px is not None}
        if len(fixed) > 1:
            raise ModelError(
                f"the models want tiles of different sizes: {sorted(fixed)} px",
                fix="predict with each by itself",
            )
        tile_size_px = fixed.pop() if fixed else DEFAULT_TILE_SIZE_PX
        margin_px = min(MARGIN_PX, tile_size_px // 4)
        return Tiling(tile_size_px, margin_px, int(np.lcm.reduce(strides)))

    @torch.inference_mode()
    def __call__(self, before_BCHW: Tensor, after_BCHW: Tensor) -> Probabilities:
        """Return the probabilities for a batch of pairs, in the images' stored scale and dtype."""
        before_BCHW = before_BCHW.to(self.device)
        after_BCHW = after_BCHW.to(self.device)
        votes = [
            self._vote(model, view, before_BCHW, after_BCHW)
            for model in self._models
            for view in VIEW_SETS[self.tta]
        ]
        return Probabilities(
            *(torch.stack(parts).mean(dim=0) for parts in zip(*votes, strict=True))
        )

    def _vote(self, model: Model, view, before_BCHW: Tensor, after_BCHW: Tensor) -> Probabilities:
        images = [
            model.card.scaling.apply(apply_view(image_BCHW, view)).contiguous(
                memory_format=torch.channels_last
            )
            for image_BCHW in (before_BCHW, after_BCHW)
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

    def classify(self, before_BCHW: Tensor, after_BCHW: Tensor) -> list[ClassMaps]:
        """Return the class maps of a batch of pairs."""
        probabilities = self(before_BCHW, after_BCHW)
        return [
            ClassMaps(*maps) for maps in zip(*decide(probabilities, self.threshold), strict=True)
        ]

    def map_tiles(
        self, source: Source, height: int, width: int
    ) -> Iterator[tuple[Window, ClassMaps, np.ndarray]]:
        """Answer a whole source tile by tile.

        Yields:
            The window, its class maps and where both dates are valid (H, W) bool; the windows cover
            the source exactly once. Maps are undefined where invalid.
        """
        for tile in self.tiling.cut(height, width):
            pair = source.read(tile.read)
            if pair.valid_HW.any():
                images = (_batch_of_one(pair.before_CHW), _batch_of_one(pair.after_CHW))
                maps = self.classify(*images)[0]
            else:
                maps = ClassMaps(*[np.zeros(pair.valid_HW.shape, dtype=np.uint8)] * 3)
            kept = ClassMaps(*(part_HW[tile.kept] for part_HW in maps))
            yield tile.write, kept, pair.valid_HW[tile.kept]


def decide(
    probabilities: Probabilities, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return class ids before and after and the confidence in percent, (B, H, W) uint8 each.

    A pixel is changed where its probability of change reaches the threshold; its classes are then
    the most probable ones. Confidence is the probability of the whole answer if its parts were
    independent: 1 - p where unchanged, p * p_before * p_after where changed.
    """
    before, after, change_BHW = probabilities
    changed_BHW = change_BHW >= threshold
    before_top, after_top = before.max(dim=1), after.max(dim=1)
    confidence_BHW = torch.where(
        changed_BHW, change_BHW * before_top.values * after_top.values, 1 - change_BHW
    )
    ids = [
        torch.where(changed_BHW, top.indices + 1, 0).to(torch.uint8).cpu().numpy()
        for top in (before_top, after_top)
    ]
    percent_BHW = (100 * confidence_BHW).round().to(torch.uint8).cpu().numpy()
    return ids[0], ids[1], percent_BHW


def _batch_of_one(image_CHW: np.ndarray) -> Tensor:
    if image_CHW.dtype != np.uint8:
        image_CHW = image_CHW.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(image_CHW))[None]


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
