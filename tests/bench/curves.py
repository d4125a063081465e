"""What had happened by when, and how fast: from the times of single events.

Taken from what load and backend have written down, so that looking costs the daemon nothing, and every
sample is exact.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from attrs import field, frozen

STEP_SECONDS = 0.25


def _in_order(times: Iterable[float]) -> list[float]:
    return sorted(times)


@frozen
class Events:
    """Times in seconds, in any order when made; at least one where ``last`` is asked for."""

    times: Sequence[float] = field(converter=_in_order)

    def so_far(self, at: float) -> int:
        """How many there were, those at that very moment included."""
        return bisect_right(self.times, at)

    def between(self, start: float, end: float) -> int:
        """From ``start`` on, until before ``end``."""
        return bisect_left(self.times, end) - bisect_left(self.times, start)

    def rate(self, start: float, end: float) -> float:
        """A second; 0 where there is no time between."""
        return round(self.between(start, end) / (end - start), 1) if end > start else 0.0

    def longest_gap(self, start: float, end: float) -> float:
        """The longest time without one, in seconds; all of it where there is none."""
        inside = self.times[bisect_left(self.times, start) : bisect_left(self.times, end)]
        points = [start, *inside, end]
        return round(max(after - before for before, after in pairwise(points)), 3)

    @property
    def last(self) -> float:
        return self.times[-1]


@frozen(kw_only=True)
class Curves:
    """Samples at equal steps; ``seconds`` count from the origin that was given."""

    seconds: list[float]
    accepted: list[int]
    delivered: list[int]

    @property
    def pending(self) -> list[int]:
        return [
            accepted - delivered for accepted, delivered in zip(self.accepted, self.delivered, strict=True)
        ]


def curves(
    accepted: Events,
    delivered: Events,
    *,
    origin: float,
    start: float,
    end: float,
    step: float = STEP_SECONDS,
) -> Curves:
    """Sampled from ``start`` to the first sample at or after ``end``."""
    moments = list(_moments(start, end, step))
    return Curves(
        seconds=[round(moment - origin, 3) for moment in moments],
        accepted=[accepted.so_far(moment) for moment in moments],
        delivered=[delivered.so_far(moment) for moment in moments],
    )


def _moments(start: float, end: float, step: float) -> Iterator[float]:
    n = 0
    while True:
        moment = start + n * step
        yield moment
        if moment >= end:
            return
        n += 1
