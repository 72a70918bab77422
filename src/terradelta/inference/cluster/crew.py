"""Gives blocks to workers and handles the failures of both.

A block is requested again until it is answered: from other workers if one is lost; if reading it
fails, `MAX_ATTEMPTS` times. Requesting a block twice is harmless, as an answer only replaces a
file.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from terradelta.errors import ClusterError
from terradelta.inference.cluster.worker import Answer, Post

MAX_ATTEMPTS = 3
"""Attempts at a block that fails with its own error, and at starting a worker."""
MAX_LOSSES = 10
"""Workers lost in a row without an answered block in between: something kills them."""
PATIENCE_SECONDS = 5.0
"""Interval at which the crew checks for room for more workers."""

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Member:
    """A worker of the crew."""

    actor: Any
    """Ray's handle of it."""
    post: Post | None = None
    """None until it is ready."""
    asked: set[int] = field(default_factory=set)
    """Blocks assigned to it."""

    def count_vacancies(self, fair_share: int) -> int:
        """Return how many more blocks it can take now."""
        if self.post is None:
            return 0
        return min(self.post.blocks_at_once, fair_share) - len(self.asked)


class Crew:
    """The workers of one job.

    Args:
        hire: Starts a worker, which then gets ready.
        count_wanted: Returns the wanted number of workers.
        models: The models that workers load.
    """

    def __init__(
        self,
        hire: Callable[[], Any],
        count_wanted: Callable[[], int],
        models: Sequence[ray.ObjectRef[Any]],
    ):
        self._hire = hire
        self._count_wanted = count_wanted
        self._models = models
        self._members: list[_Member] = []
        self._calls: dict[ray.ObjectRef[Any], tuple[_Member, int | None]] = {}
        self._failures: Counter[int | None] = Counter()
        self._losses = 0
        self._left = 0
        self._again: deque[int] = deque()
        self._error: BaseException | None = None

    @property
    def num_ready(self) -> int:
        """How many workers are ready."""
        return sum(member.post is not None for member in self._members)

    def answer(
        self,
        indices: Sequence[int],
        choose_views: Callable[[int], int],
        keep: Callable[[int, Answer], None],
    ):
        """Let the workers answer blocks.

        Memory does not grow with their number: a worker gets only as many as it can hold.

        Args:
            indices: Numbers of the blocks.
            choose_views: Returns how many views a block may have.
            keep: Stores an answer.

        Raises:
            TerradeltaError: Of a block that fails for its own reason, or of a worker that cannot
                get ready; the blocks of other workers are finished first.
            ClusterError: If workers are lost repeatedly.
        """
        waiting = iter(indices)
        self._left = len(indices)
        try:
            while self._left and (self._error is None or self._is_answering()):
                if self._error is None:
                    self._fill_up()
                    self._hand_out(waiting, choose_views)
                done, _ = ray.wait(list(self._calls), timeout=PATIENCE_SECONDS)
                for call in done:
                    member, index = self._calls.pop(call)
                    answer = self._take(call, member, index)
                    if isinstance(answer, Answer):
                        assert index is not None
                        keep(index, answer)
                        self._left -= 1
        finally:
            for member in self._members:
                ray.kill(member.actor)
        if self._error is not None:
            raise self._error

    def _is_answering(self) -> bool:
        return any(index is not None for _, index in self._calls.values())

    def _fill_up(self):
        """Hire as many workers as fit."""
        for _ in range(self._count_wanted() - len(self._members)):
            member = _Member(self._hire())
            self._members.append(member)
            self._calls[member.actor.start.remote(*self._models)] = member, None

    def _hand_out(self, waiting: Iterator[int], choose_views: Callable[[int], int]):
        """Give blocks to the workers with the fewest, until no worker has room."""
        # Towards the end no worker waits for one with many blocks.
        fair_share = math.ceil(self._left / len(self._members))
        while True:
            member = max(self._members, key=lambda member: member.count_vacancies(fair_share))
            if member.count_vacancies(fair_share) < 1:
                return
            # New ones first: failed ones may fail again for a while.
            index = next(waiting, None)
            if index is None and self._again:
                index = self._again.popleft()
            if index is None:
                return
            member.asked.add(index)
            call = member.actor.answer.remote(index, choose_views(index))
            self._calls[call] = member, index

    def _take(self, call: ray.ObjectRef[Any], member: _Member, index: int | None) -> Answer | None:
        """Return a worker's answer to a call, None if it is not a block."""
        try:
            answer = ray.get(call)
        except RayTaskError as error:
            self._fail(member, index, getattr(error, "cause", error))
            return None
        except RayActorError as error:
            self._lose(member, error)
            return None
        except RayError:
            # The answer was lost with the machine that held it.
            assert index is not None
            self._put_back(member, index)
            return None
        if index is None:
            member.post = answer
            self._failures[None] = 0
            logger.info("worker %d is ready on %s", self.num_ready, answer.host)
            return None
        member.asked.discard(index)
        self._losses = 0
        return answer

    def _put_back(self, member: _Member, index: int):
        member.asked.discard(index)
        self._again.append(index)

    def _fail(self, member: _Member, index: int | None, error: BaseException):
        """Count an error of a block, or of a worker that could not get ready."""
        self._failures[index] += 1
        if self._failures[index] >= MAX_ATTEMPTS:
            self._error = self._error or error
        if index is None:
            self._dismiss(member)
        else:
            logger.warning(
                "block %d failed, attempt %d: %s", index + 1, self._failures[index], error
            )
            self._put_back(member, index)

    def _lose(self, member: _Member, error: RayActorError):
        """Give the blocks of a lost worker to other workers."""
        host = "before it was ready" if member.post is None else f"on {member.post.host}"
        logger.warning("a worker was lost %s; others take its %d blocks", host, len(member.asked))
        self._losses += 1
        if self._losses >= max(MAX_LOSSES, 3 * len(self._members)):
            first = min(member.asked, default=None)
            self._error = ClusterError(
                f"{self._losses} workers were lost one after the other, the last one {host}"
                + ("" if first is None else f" with block {first + 1}")
                + f": {error}",
                fix="see the logs of Ray on that machine; if memory ran out there, use less with "
                "--memory or have fewer workers with --workers",
            )
        self._dismiss(member)

    def _dismiss(self, member: _Member):
        self._members.remove(member)
        self._calls = {
            call: (owner, index)
            for call, (owner, index) in self._calls.items()
            if owner is not member
        }
        self._again.extend(sorted(member.asked))
        ray.kill(member.actor)
