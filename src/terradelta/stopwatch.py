"""Measures the seconds of each part of a run, from the start of its process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_command_line = ContextVar("is_command_line", default=False)


@contextmanager
def count_process() -> Iterator[None]:
    """Have the stopwatches within count from when this process began: it serves one run only."""
    token = _is_command_line.set(True)
    try:
        yield
    finally:
        _is_command_line.reset(token)


class Stopwatch:
    """Clocks a run part after part, the first of which is `start_up`.

    It starts when the process did on the command line, and elsewhere when it is made.
    """

    started: float
    """When, in seconds of `time.monotonic`."""

    def __init__(self):
        self.started = _find_process_start() if _is_command_line.get() else time.monotonic()
        self._part, self._begun = "start_up", self.started
        self._seconds: dict[str, float] = {}

    def begin(self, part: str):
        """End the part that runs and begin another, or go on with an earlier one."""
        now = time.monotonic()
        self._seconds[self._part] = self._seconds.get(self._part, 0.0) + now - self._begun
        self._part, self._begun = part, now

    def read(self) -> dict[str, float]:
        """Return the seconds of each part until now; they add up to all that have passed."""
        self.begin(self._part)
        return dict(self._seconds)


def _find_process_start() -> float:
    # 20 ms that --help does not need.
    import psutil

    age = max(0.0, time.time() - psutil.Process().create_time())
    return time.monotonic() - age
