"""When a delivery that failed is tried again, and when no more."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

JITTER = 0.2
"""A delay is up to this part of it longer or shorter, so that what failed together spreads out."""


def _usable(_policy: object, _attribute: object, schedule: Sequence[float]) -> None:
    if not schedule or min(schedule) < 0:
        raise ValueError("a retry schedule needs at least one delay, and none below 0")


@frozen(kw_only=True)
class RetryPolicy:
    """The retry schedule of contract 2; all durations are seconds."""

    schedule: Sequence[float] = field(validator=_usable)
    """Delays before attempt 1, 2, 3 …; the last one repeats."""
    give_up_after: float
    """No attempt begins later than this after the first one of its round."""

    def delay_before(self, round_attempt: int, jitter: float) -> float:
        """The delay before the attempt of this number (from 1); ``jitter`` is in [-1, 1]."""
        delay = self.schedule[min(round_attempt, len(self.schedule)) - 1]
        return delay * (1 + JITTER * jitter)

    def next_delay(
        self, round_attempt: int, round_seconds: float, jitter: float, retry_after: float | None = None
    ) -> float | None:
        """Seconds to the next attempt after attempt ``round_attempt`` failed, or None to give up.

        ``round_seconds``: since the first attempt of the round. ``retry_after``, the wish of the
        target, makes a delay longer and never shorter, and does not outlast ``give_up_after``.
        """
        delay = max(self.delay_before(round_attempt + 1, jitter), retry_after or 0.0)
        return None if round_seconds + delay > self.give_up_after else delay
