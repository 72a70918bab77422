"""Keeps to a time budget by dropping test-time views."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from terradelta.prediction.records import ViewsRecord

SPEED_MEMORY = 0.7
"""Weight of the past in the running mean of a view's speed."""


@dataclass
class Pace:
    """Chooses the number of test-time views of each block so that all are done in time.

    The reference implementation's test script does the same for a contest's limit of 400 s: it
    measures its own speed and drops to one view when late.

    Args:
        num_views: Requested number of views.
        deadline: Time when all blocks must be done, in seconds of `time.monotonic`; None for no
            limit.
    """

    num_views: int
    deadline: float | None = None
    _seconds_per_view: float | None = field(default=None, init=False)

    def choose(self, pixels_left: int) -> int:
        """Return the number of views for the next block, never less than one.

        Args:
            pixels_left: Pixels of all blocks that are not done, the next one included.
        """
        if self.deadline is None or self.num_views == 1:
            return self.num_views
        if self._seconds_per_view is None:
            # The speed is unknown until the first block is done.
            return 1
        seconds_left = self.deadline - time.monotonic()
        # The same number for all remaining blocks, so one view of each always stays affordable.
        affordable = seconds_left / (self._seconds_per_view * pixels_left)
        return max(1, min(self.num_views, int(affordable)))

    def learn(self, pixels: int, num_views: int, seconds: float):
        """Record the time of a block."""
        measured = seconds / (pixels * num_views)
        if self._seconds_per_view is None:
            self._seconds_per_view = measured
        else:
            old = self._seconds_per_view
            self._seconds_per_view = SPEED_MEMORY * old + (1 - SPEED_MEMORY) * measured


def describe_runs(views: Sequence[int]) -> tuple[ViewsRecord, ...]:
    """Return runs of items that had the same number of views; items are counted from 1."""
    runs = []
    for count, run in groupby(enumerate(views, start=1), key=lambda item: item[1]):
        numbers = [number for number, _ in run]
        runs.append(ViewsRecord(count, numbers[0], numbers[-1]))
    return tuple(runs)
