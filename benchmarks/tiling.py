"""How much a map depends on its tiles: pooling windows, margins, and cropping against blending.

Prints three tables. Maps are float32 and labels are the classes of both dates and change; all ways
of a table run in turn in one process. Run: `python benchmarks/tiling.py [pooling|margins|seams]`,
about ten minutes on two cores in all.

Legend of the array names: C channels, K classes, H rows, W columns; M maps (two dates and change).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import terradelta as td
from terradelta.data.synthetic import draw_pair
from terradelta.evaluation.scoring_protocols import create_protocol
from terradelta.models.bundle import Model
from terradelta.models.card import ModelCard, Scaling
from terradelta.models.registry import create_model

EMBEDDED = Path(__file__).parents[1] / "tests/weights/drawn"
"""The U-Net of recipes/drawn_scenes.py."""
SCENE_SEED, STRIP_SEED, CALIBRATION_SEED = 7, 8, 9
TILE_SIZE_PX = 1024
BAND_PX = 32


class Maps(NamedTuple):
    """Probabilities of one pair."""

    before_KHW: Tensor
    """Probability of each land-cover class before."""
    after_KHW: Tensor
    """Probability of each land-cover class after."""
    change_HW: Tensor
    """Of change."""

    def label(self, threshold: float) -> np.ndarray:
        """Return class indices of both dates and the change mask, (M, H, W)."""
        before_HW, after_HW = self.before_KHW.argmax(0), self.after_KHW.argmax(0)
        return torch.stack([before_HW, after_HW, self.change_HW >= threshold]).numpy()


@dataclass(frozen=True)
class Cut:
    """How an image is cut into tiles; the first tile's kept part ends at `first_px`."""

    tile_size_px: int
    margin_px: int
    first_px: int = 0

    def cut_axis(self, length: int, stride: int) -> list[tuple[int, int, int, int]]:
        """Return (read start, read end, kept start, kept end) of each tile along an axis."""
        if length <= self.tile_size_px:
            return [(0, length, 0, length)]
        step = (self.tile_size_px - 2 * self.margin_px) // stride * stride
        first = self.first_px or step + self.margin_px // stride * stride
        edges = [0, *range(first, length - self.margin_px, step), length]
        tiles = []
        for start, end in pairwise(edges):
            last = max(length - self.tile_size_px, 0) // stride * stride
            read = min(max(start - self.margin_px, 0) // stride * stride, last)
            tiles.append((read, min(read + self.tile_size_px, length), start, end))
        return tiles

    def cut(self, height: int, width: int, stride: int) -> Iterator[tuple[slice, ...]]:
        """Yield the rows and columns that are read and those that are kept."""
        for top, bottom, row, row_end in self.cut_axis(height, stride):
            for left, right, column, column_end in self.cut_axis(width, stride):
                yield (
                    slice(top, bottom),
                    slice(left, right),
                    slice(row, row_end),
                    slice(column, column_end),
                )


def build_model(name: str, encoder: str, *, seed: int = 0, weights: str | None = None) -> Model:
    """Return an untrained network whose batch statistics fit drawn scenes."""
    torch.manual_seed(seed)
    network = create_model(name, encoder, encoder_weights=weights).train()
    if weights:
        network.encoder.eval()
    with torch.no_grad():
        for i in range(12):
            scenes = [draw_pair((CALIBRATION_SEED, seed, 2 * i + j), 128) for j in range(2)]
            dates = zip(*((scene.before_CHW, scene.after_CHW) for scene in scenes), strict=True)
            scaling = Scaling.for_encoder(encoder)
            network(*(scaling.apply(torch.from_numpy(np.stack(images))) for images in dates))
    network.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    scaling = Scaling.for_encoder(encoder)
    return Model(
        network, ModelCard(architecture=network.config, classes=td.SENSEEARTH, scaling=scaling)
    )


def load_embedded() -> Model:
    """Return the model that terradelta comes with: a U-Net over EfficientNet-lite0."""
    model = td.load_model(EMBEDDED)
    model.network.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return model


@torch.inference_mode()
def answer(model: Model, images: list[Tensor]) -> Maps:
    """Return the network's probabilities of one pair of scaled images (1, C, H, W)."""
    laid_out = [image.contiguous(memory_format=torch.channels_last) for image in images]
    before, after, change = model.network(*laid_out)
    return Maps(before[0].softmax(0), after[0].softmax(0), change[0].sigmoid())


def scale(model: Model, *images_CHW: np.ndarray) -> list[Tensor]:
    """Return images as the network needs them."""
    return [model.card.scaling.apply(torch.from_numpy(image.copy())[None]) for image in images_CHW]


def answer_cropped(model: Model, images: list[Tensor], cut: Cut) -> Maps:
    """Keep the centre of each tile."""
    height, width = images[0].shape[-2:]
    whole: list[Tensor] = []
    for rows, columns, kept_rows, kept_columns in cut.cut(
        height, width, model.network.output_stride
    ):
        parts = answer(model, [image[..., rows, columns] for image in images])
        whole = whole or [part.new_zeros(*part.shape[:-2], height, width) for part in parts]
        inner = (
            slice(kept_rows.start - rows.start, kept_rows.stop - rows.start),
            slice(kept_columns.start - columns.start, kept_columns.stop - columns.start),
        )
        for out, part in zip(whole, parts, strict=True):
            out[..., kept_rows, kept_columns] = part[..., *inner]
    return Maps(*whole)


def answer_blended(model: Model, images: list[Tensor], cut: Cut) -> Maps:
    """Average tiles, each weighted by a ramp from 0 at its edges to 1 at the end of the overlap."""
    height, width = images[0].shape[-2:]
    whole: list[Tensor] = []
    weights_HW = torch.zeros(height, width)
    for rows, columns, _, _ in cut.cut(height, width, model.network.output_stride):
        parts = answer(model, [image[..., rows, columns] for image in images])
        whole = whole or [part.new_zeros(*part.shape[:-2], height, width) for part in parts]
        ramps = (
            _ramp(side, length, 2 * cut.margin_px)
            for side, length in ((rows, height), (columns, width))
        )
        weight_HW = torch.outer(*ramps)
        weights_HW[rows, columns] += weight_HW
        for out, part in zip(whole, parts, strict=True):
            out[..., rows, columns] += part * weight_HW
    return Maps(*(out / weights_HW for out in whole))


def _ramp(side: slice, length: int, overlap_px: int) -> Tensor:
    """Return the weights along an axis; there is no ramp where the tile ends with the image."""
    position = torch.arange(side.stop - side.start) + 0.5
    rise = position if side.start else torch.full_like(position, overlap_px)
    fall = position.flip(0) if side.stop < length else torch.full_like(position, overlap_px)
    return (torch.minimum(rise, fall) / max(overlap_px, 1)).clamp(max=1)


def to_ids(labels_MHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class ids of both dates, 0 where unchanged."""
    before_HW, after_HW, change_HW = labels_MHW
    return (before_HW + 1) * change_HW, (after_HW + 1) * change_HW


def compare_pooling():
    """Print accuracy, dependence on tiles and time of global and local pooling."""
    print(
        f"Drawn scenes of seeds ({SCENE_SEED}, i), protocol second; tiles as size / margin; labels"
    )
    print("that differ from global pooling on 256-px tiles, and from the untiled map with a window")
    print("of 256 px; median seconds a pair; 3 scenes for the embedded model, else 1\n")
    ways: dict[str, tuple[int | None, Cut | None]] = {
        "global, 256 / 64": (None, Cut(256, 64)),
        "global, 256 / 64, elsewhere": (None, Cut(256, 64, 128)),
        "global, untiled": (None, None),
        "window 256, untiled": (256, None),
        "window 256, 512 / 160": (256, Cut(512, 160)),
    }
    more: dict[str, tuple[int | None, Cut | None]] = {
        "window 128, untiled": (128, None),
        "window 256, 512 / 96": (256, Cut(512, 96)),
        "window 256, 512 / 128": (256, Cut(512, 128)),
        "window 256, 512 / 128, elsewhere": (256, Cut(512, 128, 224)),
        "window 256, 512 / 192": (256, Cut(512, 192)),
    }
    compare_ways("embedded U-Net", load_embedded(), ways | more, scenes=3, size_px=1024)
    for name in ("pspnet", "deeplabv3plus"):
        model = build_model(name, "resnet18")
        compare_ways(f"{name} resnet18, untrained", model, ways, scenes=1, size_px=768)


def compare_ways(
    title: str,
    model: Model,
    ways: dict[str, tuple[int | None, Cut | None]],
    *,
    scenes: int,
    size_px: int,
):
    """Print a row for each way, which is a pooling window and tiles, of predicting scenes."""
    metrics = {way: create_protocol("second", 6) for way in ways}
    seconds = {way: [] for way in ways}
    differs = {(way, other): [] for way in ways for other in ways}
    for index in range(scenes):
        scene = draw_pair((SCENE_SEED, index), size_px)
        images = scale(model, scene.before_CHW, scene.after_CHW)
        labels = {}
        for way, (window_px, cut) in ways.items():
            model.network.pool_window_px = window_px
            started = time.perf_counter()
            maps = answer_cropped(model, images, cut or Cut(size_px, 0))
            seconds[way].append(time.perf_counter() - started)
            labels[way] = maps.label(model.card.change_threshold)
            metrics[way].update(*to_ids(labels[way]), *scene.labels)
        for way, other in differs:
            differs[way, other].append(np.mean(labels[way] != labels[other]))
    heading = f"{title}, {size_px} px"
    print(f"{heading:<42}{'IoU ch.':>8}{'mIoU':>8}{'vs 256/64':>11}{'vs untiled':>12}{'s':>7}")
    for way in ways:
        scores = metrics[way].compute()
        today, target = (
            100 * np.mean(differs[way, other])
            for other in ("global, 256 / 64", "window 256, untiled")
        )
        print(
            f"{way:<42}{scores['iou_changed']:>8.4f}{scores['miou']:>8.4f}"
            f"{today:>9.3f} %{target:>10.3f} %{statistics.median(seconds[way]):>7.1f}"
        )


def measure_bands(model: Model, *, scenes: int = 2, cut_px: int = 512, depth_px: int = 512):
    """Return label disagreement and the largest logit difference by distance to a cut edge.

    A strip is cut off at its top, then at its bottom; differences are in standard deviations of the
    logits.
    """
    shares, largest = [], []
    for index in range(scenes):
        scene = draw_pair((STRIP_SEED, index), (cut_px + depth_px, 256))
        images = scale(model, scene.before_CHW, scene.after_CHW)
        with torch.inference_mode():
            whole = model.network(*images)
            threshold = whole.change_logits.median()
            for rows, is_top in ((slice(cut_px, None), True), (slice(0, depth_px), False)):
                part = model.network(*(image[..., rows, :] for image in images))
                for cut, full in zip(part, whole, strict=True):
                    kept = full[..., rows, :]
                    if cut.ndim == 4:
                        differ_HW = (cut.argmax(1) != kept.argmax(1))[0]
                        far_HW = (cut - kept).abs().amax(1)[0] / full.std()
                    else:
                        differ_HW = ((cut > threshold) != (kept > threshold))[0]
                        far_HW = (cut - kept).abs()[0] / full.std()
                    if not is_top:
                        differ_HW, far_HW = differ_HW.flip(0), far_HW.flip(0)
                    shares.append(differ_HW.double().unflatten(0, (-1, BAND_PX)).mean((1, 2)))
                    largest.append(far_HW.unflatten(0, (-1, BAND_PX)).amax((1, 2)))
    return torch.stack(shares).mean(0).numpy(), torch.stack(largest).amax(0).numpy()


def sum_over_tile(share_by_band: np.ndarray, margin_px: int) -> float:
    """Return the share among the pixels of a tile that lie beyond the margin of all four edges."""
    sides = TILE_SIZE_PX - 2 * BAND_PX * np.arange(TILE_SIZE_PX // BAND_PX // 2 + 1)
    pixels = sides[:-1] ** 2 - sides[1:] ** 2
    kept = slice(margin_px // BAND_PX, None)
    return float((pixels * share_by_band[: len(pixels)])[kept].sum() / pixels[kept].sum())


def compare_margins():
    """Print the effect of a tile's edge by distance."""
    cases = [
        ("fcn", "resnet18", None, None),
        ("fcn", "resnet34", None, None),
        ("fcn", "resnet50", None, None),
        ("fcn", "resnet101", None, None),
        ("fcn", "efficientnet_lite0", "imagenet", None),
        ("fcn", "efficientnet_lite0", None, None),
        ("fcn", "efficientnet_lite1", None, None),
        ("fcn", "efficientnet_lite2", None, None),
        ("fcn", "hrnet_w18", None, None),
        ("pspnet", "resnet18", None, None),
        ("pspnet", "resnet18", None, 256),
        ("deeplabv3plus", "resnet18", None, 256),
        ("unet", "resnet18", None, 256),
        ("unet", "efficientnet_lite0", "imagenet", 256),
    ]
    margins = range(64, 449, 64)
    print(f"Labels of a {TILE_SIZE_PX}-px tile beyond a margin that differ from the uncut image,")
    print("in %; untrained networks, weight seed 0, batch statistics of drawn scenes; in brackets")
    print("the largest logit difference at that distance, in standard deviations\n")
    print(f"{'network':<40}{'margin_px':>9}" + "".join(f"{m:>15}" for m in margins))
    models = (
        (f"{name} {encoder} {weights or ''}", build_model(name, encoder, weights=weights), window)
        for name, encoder, weights, window in cases
    )
    embedded = [("embedded U-Net", load_embedded(), 256)]
    for name, model, window_px in [*embedded, *models]:
        model.network.pool_window_px = window_px
        shares, largest = measure_bands(model)
        cells = (
            f"{100 * sum_over_tile(shares, m):>8.3f} ({largest[m // BAND_PX]:.2f})" for m in margins
        )
        title = name if window_px is None else f"{name.strip()}, window {window_px}"
        print(f"{title:<40}{model.network.margin_px:>9}" + "".join(f"{c:>15}" for c in cells))


def compare_seams(size_px: int = 1024):
    """Print how far cropped and blended tiles are from the untiled map at equal cost."""
    print(
        "\nLabels that differ from the untiled map, in %, and largest difference of a probability"
    )
    print(f"{'network':<22}{'tiles':>10}{'cropped':>18}{'blended':>18}{'blended/cropped':>17}")
    models = {
        "fcn resnet18": (build_model("fcn", "resnet18"), None),
        "embedded, window 256": (load_embedded(), 256),
    }
    for name, (model, window_px) in models.items():
        model.network.pool_window_px = window_px
        scene = draw_pair((SCENE_SEED, 0), size_px)
        images = scale(model, scene.before_CHW, scene.after_CHW)
        whole = answer(model, images)
        threshold = model.card.change_threshold if window_px else float(whole.change_HW.median())
        for margin_px in (32, 64, 96, 128):
            cut = Cut(512, margin_px)
            shares, cells = [], []
            for way in (answer_cropped, answer_blended):
                maps = way(model, images, cut)
                share = 100 * np.mean(maps.label(threshold) != whole.label(threshold))
                most = max(float((a - b).abs().max()) for a, b in zip(maps, whole, strict=True))
                shares.append(share)
                cells.append(f"{share:.4f} ({most:.3f})")
            ratio = shares[1] / shares[0] if shares[0] else float("nan")
            print(
                f"{name:<22}{f'512 / {margin_px}':>10}"
                + "".join(f"{cell:>18}" for cell in cells)
                + f"{ratio:>17.2f}"
            )


TABLES = {"pooling": compare_pooling, "margins": compare_margins, "seams": compare_seams}


def main():
    """Measure and print the requested tables, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all by default")
    arguments = parser.parse_args()
    for name in arguments.tables or TABLES:
        TABLES[name]()
        print()


if __name__ == "__main__":
    main()
