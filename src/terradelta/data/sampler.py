"""Batches of pair indices: reproducible from seed and epoch, and never of a single pair.

Several processes share one list of batches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from terradelta.errors import ArgumentError


class PairBatchSampler(Sampler[list[int]]):
    """Yields lists of pair indices, each pair once per epoch; for `DataLoader(batch_sampler=...)`.

    The order depends only on (seed, epoch), so a resumed run draws the same batches as an
    uninterrupted one. Batch normalisation cannot train on a single sample behind global pooling, so
    a last batch of one is joined to the previous one: a batch has `batch_size` pairs, the last one
    2 to `batch_size + 1`. Only a data set of one pair, or `batch_size=1`, yields batches of one.

    With several processes, each gets every `processes`-th batch, so they see different pairs. All
    get the same number: the rest at the end of the order is left out of the epoch, other pairs in
    each epoch.

    Args:
        num_pairs: Number of pairs in the data set.
        batch_size: Pairs in a batch.
        shuffle: Draw a new order each epoch; otherwise 0, 1, 2, ...
        seed: Non-negative seed of the order.
        rank: Number of this process, from 0.
        processes: Number of processes.

    Raises:
        ArgumentError: If a number is out of its range, or there are more processes than batches.
    """

    epoch: int
    """Set it before each pass; it starts at 0."""

    def __init__(
        self,
        num_pairs: int,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        *,
        rank: int = 0,
        processes: int = 1,
    ):
        for name, value, least in (
            ("num_pairs", num_pairs, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("processes", processes, 1),
        ):
            if value < least:
                raise ArgumentError(
                    f"{name} is {value}, and it must be {least} or more", fix=f"raise {name}"
                )
        self.num_pairs = num_pairs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.epoch = 0
        if len(self) == 0:
            raise ArgumentError(
                f"{num_pairs} pairs make {self._count()} batches of {batch_size}, fewer than the"
                f" {processes} processes",
                fix="use fewer processes or a smaller batch_size",
            )

    def __len__(self) -> int:
        return self._count() // self.processes

    def _count(self) -> int:
        """Return the batches of all processes together."""
        full, rest = divmod(self.num_pairs, self.batch_size)
        return max(1, full + (rest > 1))

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.num_pairs)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        starts = [number * self.batch_size for number in range(self._count())]
        stops = [*starts[1:], self.num_pairs]
        mine = slice(self.rank, len(self) * self.processes, self.processes)
        for start, stop in zip(starts[mine], stops[mine], strict=True):
            yield order[start:stop].tolist()
