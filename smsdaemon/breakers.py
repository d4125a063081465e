"""Which targets are left alone for now, since attempt after attempt to them has failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.errors import StoreRefused, StoreUnavailable
from smsdaemon.ports import DeliveryStore, Timer

READ_SECONDS = 10.0
"""How often the store is asked, for what no notification told."""


class Breakers:
    """One breaker for each target; what is open is shared by all processes, through the store.

    Failures in a row are counted in each process for itself: sharing them would be a write for every
    failure. Probes of a target whose breaker is open are the store's (DeliveryStore.claim).
    """

    def __init__(
        self, *, store: DeliveryStore, timer: Timer, failures: int, on_closed: Callable[[], object]
    ) -> None:
        """``failures``: in a row, that open a breaker; ``on_closed``: some target can be called again."""
        self._store, self._timer, self._failures, self._on_closed = store, timer, failures, on_closed
        self._log = Logger(namespace="smsdaemon.breakers")
        self._in_a_row: Counter[int] = Counter()
        self._open: frozenset[int] = frozenset()
        self._changes = 0
        """Ours that the store has not answered yet: what is read meanwhile may be older than they are."""
        self._reading = self._outdated = self._running = False
        self._alarm: Any = None

    def start(self) -> None:
        """Begin to follow the store."""
        self._running = True
        self.refresh()

    def stop(self) -> None:
        self._running = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def is_open(self, target_id: int) -> bool:
        return target_id in self._open

    @property
    def open(self) -> frozenset[int]:
        """The ids of all targets that are left alone."""
        return self._open

    # --- what attempts tell ---------------------------------------------------------------------

    def failed(self, target_id: int, why: str) -> None:
        """An attempt failed in a way that is retried."""
        if target_id in self._open:
            return
        self._in_a_row[target_id] += 1
        if self._in_a_row[target_id] >= self._failures:
            del self._in_a_row[target_id]
            self._open |= {target_id}
            self._log.warn(
                "target {target_id} is left alone after {count} failures in a row: {why}",
                target_id=target_id,
                count=self._failures,
                why=why,
            )
            self._change(self._store.open_breaker(target_id, why))

    def succeeded(self, target_id: int) -> None:
        """The target answered, be it that it wants no more of the SMS (410)."""
        self._in_a_row.pop(target_id, None)
        if target_id in self._open:
            self._open -= {target_id}
            self._log.info("target {target_id} answers again", target_id=target_id)
            self._change(self._store.close_breaker(target_id)).addCallback(lambda _: self._on_closed())

    def _change(self, written: Deferred[None]) -> Deferred[None]:
        self._changes += 1
        return written.addErrback(self._not_asked).addCallback(self._changed)

    def _changed(self, _: None) -> None:
        self._changes -= 1
        self.refresh()

    # --- what the store tells -------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what is open; for notifications, and whenever some may have been missed."""
        if not self._running:
            return
        self._outdated = True
        if not self._reading:
            self._read()

    def _read(self) -> None:
        self._reading, self._outdated = True, False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        changes = self._changes
        d = self._store.open_breakers()
        d.addCallback(self._found, changes)
        d.addErrback(self._not_asked)
        d.addBoth(self._done)

    def _found(self, found: frozenset[int], changes: int) -> None:
        if changes or self._changes:
            return  # the end of the change makes it be read again
        closed = self._open - found
        for target_id in found - self._open:
            self._in_a_row.pop(target_id, None)
        self._open = found
        if closed:
            self._on_closed()

    def _not_asked(self, failure: Failure) -> None:
        if failure.check(StoreRefused):  # of the other the pool and the next reading know more
            self._log.error("breakers: {why}", why=str(failure.value))
        elif not failure.check(StoreUnavailable):
            self._log.failure("breakers", failure=failure)

    def _done(self, _: object) -> None:
        self._reading = False
        if not self._running:
            return
        if self._outdated:
            self._read()
        elif self._alarm is None:
            self._alarm = self._timer.callLater(READ_SECONDS, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.refresh()
