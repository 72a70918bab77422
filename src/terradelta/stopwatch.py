"""Measures the seconds of each part of a run, from the start of its process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_command_line = ContextVar("is_command_line", default=False)


@contextmanager
def count_process() -> Iterator[None]:
    """Make the stopwatches inside count from the start of this process, for a single run."""
    token = _is_command_line.set(True)
    try:
        yield
    finally:
        _is_command_line.reset(token)


class Stopwatch:
    """Times the parts of a run; the first is `start_up`.

    On the command line it starts with the process, elsewhere when it is created.
    """

    started: float
    """The start, in seconds of `time.monotonic`."""

    def __init__(self):
        self.started = _find_process_start() if _is_command_line.get() else time.monotonic()
        self._part, self._begun = "start_up", self.started
        self._seconds: dict[str, float] = {}

    def begin(self, part: str):
        """End the current part and begin another, or continue an earlier one."""
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
