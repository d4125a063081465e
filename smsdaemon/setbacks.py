"""What becomes of a delivery whose attempt has failed, or could not be made."""

from __future__ import annotations

from collections.abc import Callable

from smsdaemon.domain.backoff import RetryPolicy
from smsdaemon.domain.model import Dead, Delivery, Outcome, Postponed
from smsdaemon.lookout import SWEEP_SECONDS
from smsdaemon.ports import Timer

TARGET_UNKNOWN_SECONDS = 30.0
"""A target that is not in this process' directory may be newer than it."""


class Setbacks:
    """Postponed by the schedule, or dead where that gives up."""

    def __init__(self, *, retry: RetryPolicy, timer: Timer, jitter: Callable[[], float]) -> None:
        """``jitter`` gives a number from -1 to 1."""
        self._retry, self._timer, self._jitter = retry, timer, jitter
        self._unknown_since: dict[int, float] = {}

    def failed(self, delivery: Delivery, seconds: float, reason: str, wait: float | None = None) -> Outcome:
        """An attempt of so many seconds has failed; ``wait``: as the target asks for."""
        so_far = delivery.round_seconds + seconds
        delay = self._retry.next_delay(delivery.round_attempt, so_far, self._jitter(), wait)
        if delay is None:
            return Dead(reason=f"given up after attempt {delivery.round_attempt}: {reason}")
        return Postponed(delay_seconds=delay, reason=reason)

    def nowhere_to_go(self, target_id: int, why: str) -> Outcome:
        """The directory has no such target: it waits for a while, and is dead after that."""
        now = self._timer.seconds()
        if now - self._unknown_since.setdefault(target_id, now) < TARGET_UNKNOWN_SECONDS:
            return Postponed(delay_seconds=SWEEP_SECONDS * 2, reason=why, attempted=False)
        return Dead(reason=why)

    def known(self, target_id: int) -> None:
        """The directory has the target."""
        if self._unknown_since:
            self._unknown_since.pop(target_id, None)
