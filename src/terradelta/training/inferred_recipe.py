"""A recipe for a data set, inferred from its files, as `terradelta train DATA` prints it.

Legend of the array names: T dates, K class ids from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import psutil
import torch
import yaml

from terradelta.classes import SENSEEARTH
from terradelta.data.class_counts import LabelCounts, count_labels
from terradelta.data.images import read_image
from terradelta.data.layouts import PairFolder, find_pairs, list_named_splits
from terradelta.errors import ArgumentError
from terradelta.losses.objective import ChangeObjective
from terradelta.models.precision import choose_device, choose_precision
from terradelta.models.registry import create_model
from terradelta.training.batches import find_training_pairs
from terradelta.training.class_weights import choose_class_weights, weigh_by_count
from terradelta.training.config import TrainConfig
from terradelta.training.network import adopt_architecture, load_start

LARGEST_CROP_PX = 512
CROP_STEP_PX = 32
MEMORY_SHARE = 0.5
"""Share of the free memory for the tensors that a step keeps for its backward pass."""
_PROBED_PAIRS = 2


@dataclass(frozen=True)
class TrainPlan:
    """A recipe and the findings in the data that led to it."""

    config: TrainConfig
    """The recipe."""
    findings: tuple[str, ...]
    """The findings, one line each."""

    def to_yaml(self) -> str:
        """Return the recipe as YAML, with the findings as comments, for `terradelta train FILE`."""
        comments = "".join(f"# {line}\n" for line in self.findings)
        return comments + yaml.safe_dump(self.config.to_dict(), sort_keys=False)


def infer_plan(config: TrainConfig) -> TrainPlan:
    """Return a recipe for `config.data`: options that cannot work are replaced.

    Images that differ in size, or are larger than 512 px, are cropped. Class weights are written
    out: the reference's for its classes, otherwise 1 / sqrt(pixels). A batch that needs more than
    half of the free memory becomes several that are accumulated. Other options stay as given.

    Raises:
        ArgumentError: If not even two pairs fit into memory.
        DataError: If the data set cannot be used.
    """
    start = load_start(config)
    config = adopt_architecture(config, start)
    if config.data is None:
        raise ArgumentError("no data set was named", fix="give its folder or its CSV file")
    pairs = find_training_pairs(config.data, config.val_every, start and start.card.classes)
    counts = count_labels(pairs)
    crop_size_px = config.crop_size_px or _choose_crop(counts)
    side = max(max(size) for size in counts.sizes) if crop_size_px is None else crop_size_px
    num_bands = len(read_image(pairs.pairs[0].before))
    pair_bytes = measure_pair_bytes(config, pairs, num_bands, side)
    free_bytes = _measure_free_memory(choose_device(config.device))
    batch_size = _choose_batch(config, pair_bytes, free_bytes)
    pixels_K = counts.pixels_TK.sum(axis=0)[1:]
    weights = choose_class_weights(config, pairs.classes, lambda: pixels_K)
    if weights is None and config.class_weight_rule == "reference" and pairs.classes != SENSEEARTH:
        weights = weigh_by_count(pixels_K, "inverse-root")
    chosen = replace(
        config,
        crop_size_px=crop_size_px,
        batch_size=batch_size,
        accumulate_batches=config.accumulate_batches * config.batch_size // batch_size,
        class_weights=weights and tuple(round(weight, 3) for weight in weights),
    )
    findings = [
        *_describe_data(config, pairs, counts),
        f"memory: {pair_bytes / 2**20:,.0f} MB per pair of {side} x {side} px for backpropagation, "
        f"{free_bytes / 2**30:.1f} GB free",
    ]
    return TrainPlan(chosen, tuple(findings))


def measure_pair_bytes(config: TrainConfig, pairs: PairFolder, num_bands: int, side: int) -> int:
    """Return the bytes that a pair adds to the tensors kept for the backward pass."""
    device = choose_device(config.device)
    network = create_model(
        config.model,
        encoder=config.encoder,
        num_classes=pairs.classes.num_classes,
        lightweight=config.lightweight,
        in_channels=num_bands,
    ).to(device)
    objective = ChangeObjective(config.loss, change=config.change_loss).to(device)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    image_BCHW = torch.zeros((_PROBED_PAIRS, num_bands, side, side), device=device)
    labels_BHW = torch.ones((_PROBED_PAIRS, side, side), dtype=torch.int64, device=device)
    is_bf16 = choose_precision(device, config.precision) is torch.bfloat16
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=is_bf16),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        # Kept alive to the end: memory that is freed and used again would be counted once.
        parts = objective(network(image_BCHW, image_BCHW), labels_BHW, labels_BHW)
    del parts
    return sum(kept.values()) // _PROBED_PAIRS


def _choose_crop(counts: LabelCounts) -> int | None:
    """Return None if all images have one size that is not too large."""
    shortest = min(min(size) for size in counts.sizes)
    if len(counts.sizes) == 1 and max(next(iter(counts.sizes))) <= LARGEST_CROP_PX:
        return None
    return min(LARGEST_CROP_PX, max(shortest // CROP_STEP_PX * CROP_STEP_PX, min(shortest, 32)))


def _choose_batch(config: TrainConfig, pair_bytes: int, free_bytes: int) -> int:
    """Return the recipe's batch, halved until it fits."""
    batch_size = config.batch_size
    while batch_size > _PROBED_PAIRS and batch_size * pair_bytes > MEMORY_SHARE * free_bytes:
        batch_size //= 2
    if batch_size * pair_bytes > free_bytes:
        raise ArgumentError(
            f"{batch_size} pairs take {batch_size * pair_bytes / 2**30:.1f} GB and "
            f"{free_bytes / 2**30:.1f} GB are free",
            fix="use a smaller --crop-size-px or encoder",
        )
    return batch_size


def _measure_free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _describe_data(config: TrainConfig, pairs: PairFolder, counts: LabelCounts) -> Iterator[str]:
    assert config.data is not None
    named = list_named_splits(config.data)
    held_out = find_pairs(config.data, split="val", val_every=config.val_every)
    yield f"{len(pairs.pairs)} pairs to train on, {len(held_out.pairs)} for validation" + (
        "" if "val" in named else f" (every {config.val_every}th file)"
    )
    if "test" in named:
        tested = find_pairs(config.data, split="test")
        yield f"{len(tested.pairs)} pairs of the split test give the numbers to report"
    else:
        yield "no split named test: the numbers come from the pairs that choose the epoch"
    sizes = sorted(counts.sizes.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{width} x {height} px: {n}" for (height, width), n in sizes[:4])
    yield f"sizes: {shown}" + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else "")
    yield f"changed: {counts.changed_share:.1%} of the pixels"
    totals = counts.pixels_TK[:, 1:].sum(axis=1, keepdims=True)
    shares_TK = counts.pixels_TK[:, 1:] / totals.clip(1)
    for name, before, after in zip(pairs.classes.names[1:], *shares_TK, strict=True):
        note = "" if before + after > 0 else ", never labelled"
        yield f"  {name}: {before:.1%} of the labelled pixels before, {after:.1%} after{note}"
