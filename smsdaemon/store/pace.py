"""How long a batch gathers rows when many come, so that there are few batches and large ones.

A statement costs about 250 µs of a core whatever is in it, and each of its rows 17 µs more
(docs/performance.md). Where a batch goes as soon as the one before it has come back, a busy machine
spends most of that on batches of five rows: PostgreSQL is quick, so few have come in the meantime.
"""

from __future__ import annotations

from math import exp

from smsdaemon.ports import Timer

LONGEST_SECONDS = 0.010
"""For which a row waits for others, where many come."""
FEW_ROWS_A_SECOND, MANY_ROWS_A_SECOND = 200.0, 1000.0
"""From few to many the pause grows; with fewer, no row waits at all."""
REMEMBERED_SECONDS = 0.1
"""What came longer ago hardly counts."""


class Pace:
    """Measures how many rows a second come, and tells when the next batch may begin."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._rate = 0.0
        self._begun_at = timer.seconds()
        self._rows = self._expected = 0

    def begun(self, rows: int) -> None:
        """A batch of so many rows goes now."""
        now = self._timer.seconds()
        faded = exp(min(0.0, self._begun_at - now) / REMEMBERED_SECONDS)
        self._rate = self._rate * faded + rows / REMEMBERED_SECONDS
        self._begun_at, self._rows = now, rows

    def ended(self, waiting: int) -> None:
        """The batch is back; so many rows have come meanwhile."""
        self._expected = self._rows + waiting

    def pause(self, waiting: int, since: float) -> float:
        """Seconds for which so many rows should wait for others, the first of them since then; 0: no more.

        As many as there were at the end of the last batch, those of it included, are enough: peers that
        wait for their answers before they send again are then all there.
        """
        if waiting >= self._expected:
            return 0.0
        crowded = (self._rate - FEW_ROWS_A_SECOND) / (MANY_ROWS_A_SECOND - FEW_ROWS_A_SECOND)
        patience = LONGEST_SECONDS * min(1.0, max(0.0, crowded))
        return max(0.0, since + patience - self._timer.seconds())
