"""What is leased and waits for a place of its target: no more than the target takes in a moment."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from smsdaemon.places import one_less

T = TypeVar("T")

MOMENT_SECONDS = 0.05
"""Long enough for claims of a hundred; twice as much made no difference (docs/performance.md)."""


class Ready(Generic[T]):
    """A queue for each target, as long as the number of its answers in a moment.

    Asking the store for one delivery costs nearly as much as asking for fifty. So a target that is
    quick gets ahead what it will take in the next moment, and one that hangs gets nothing ahead.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """``seconds``: a clock that never goes back."""
        self._seconds = seconds
        self._queues: dict[int, deque[T]] = {}
        self._reserved: Counter[int] = Counter()
        self._reserved_by: Counter[tuple[int, int]] = Counter()
        """By target and connector."""
        self._answers: Counter[int] = Counter()
        self._answers_before: Counter[int] = Counter()
        self._moment_ends = seconds() + MOMENT_SECONDS

    def answered(self, target_id: int) -> None:
        """An attempt has ended with an answer."""
        self._look_at_clock()
        self._answers[target_id] += 1

    def may_wait(self, target_id: int) -> int:
        """How many may wait for the target, those included that do."""
        self._look_at_clock()
        return self._answers_before[target_id]

    def waiting(self, target_id: int) -> int:
        """How many do, or will: what is reserved counts."""
        queue = self._queues.get(target_id)
        return self._reserved[target_id] + (0 if queue is None else len(queue))

    def reserve(self, target_id: int, connector_id: int) -> bool:
        """Whether one more may wait; if so there is room for it until release()."""
        if self.waiting(target_id) >= self.may_wait(target_id):
            return False
        self._reserved[target_id] += 1
        self._reserved_by[target_id, connector_id] += 1
        return True

    def release(self, target_id: int, connector_id: int) -> bool:
        """Give room back that was reserved; says whether there was any."""
        if not self._reserved_by[target_id, connector_id]:
            return False
        one_less(self._reserved, target_id)
        one_less(self._reserved_by, (target_id, connector_id))
        return True

    def add(self, target_id: int, one: T) -> None:
        self._queues.setdefault(target_id, deque()).append(one)

    def take(self, target_id: int) -> T | None:
        """The one that has waited longest for the target."""
        queue = self._queues.get(target_id)
        if queue is None:
            return None
        one = queue.popleft()
        if not queue:
            del self._queues[target_id]
        return one

    def take_all(self) -> list[T]:
        """Everything that waits for any."""
        queues, self._queues = self._queues, {}
        return [one for queue in queues.values() for one in queue]

    def _look_at_clock(self) -> None:
        now = self._seconds()
        if now < self._moment_ends:
            return
        # Whose last answers are older than a moment has taken none in this one.
        fresh = now < self._moment_ends + MOMENT_SECONDS
        self._answers_before = self._answers if fresh else Counter()
        self._answers = Counter()
        self._moment_ends = now + MOMENT_SECONDS
