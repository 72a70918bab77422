"""Batches of pair indices: the same for the same seed and epoch, and none of a lone pair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from terradelta.errors import ArgumentError


class PairBatchSampler(Sampler[list[int]]):
    """Yields lists of pair indices, each pair once an epoch; for `DataLoader(batch_sampler=...)`.

    The order depends on (seed, epoch) alone, so a resumed run draws what the stopped one would
    have. Batch normalisation cannot train on a single sample behind global pooling, so a last batch
    of one is joined to the one before it: a batch has `batch_size` pairs, the last one 2 to
    `batch_size + 1`. Only a data set of one pair, or `batch_size=1`, yields batches of one.

    Args:
        num_pairs: Number of pairs in the data set.
        batch_size: Pairs in a batch.
        shuffle: Draw a new order each epoch; otherwise 0, 1, 2, ...
        seed: Non-negative seed of the order.

    Raises:
        ArgumentError: If a number is out of its range.
    """

    epoch: int
    """Set it before each pass; it starts at 0."""

    def __init__(self, num_pairs: int, batch_size: int, shuffle: bool = True, seed: int = 0):
        for name, value, least in (
            ("num_pairs", num_pairs, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ArgumentError(
                    f"{name} is {value}, and it must be {least} or more", fix=f"raise {name}"
                )
        self.num_pairs = num_pairs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        full, rest = divmod(self.num_pairs, self.batch_size)
        return max(1, full + (rest > 1))

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.num_pairs)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        starts = [number * self.batch_size for number in range(len(self))]
        for start, stop in zip(starts, [*starts[1:], self.num_pairs], strict=True):
            yield order[start:stop].tolist()
