"""What this process has leased, until when it surely has it, and the heartbeats that prolong that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.domain.model import Delivery
from smsdaemon.errors import LeaseLost, StoreRefused, StoreUnavailable
from smsdaemon.ports import Timer

SURE = 0.98
"""The part of a lease in which it is relied on: the database's clock may run a little faster than ours."""
BEATS = 3
"""Heartbeats within the length of a lease."""

Keep = Callable[[Sequence[Delivery]], Deferred[set[UUID]]]


class Lease:
    """The right to attempt one delivery."""

    def __init__(self, delivery: Delivery, until: float, timer: Timer, on_lost: Callable[[], object]) -> None:
        self.delivery, self.until = delivery, until
        self._timer, self._on_lost = timer, on_lost
        self._lost = False

    @property
    def over(self) -> bool:
        """Whether another process may have the delivery by now, as far as can be known without asking."""
        return self._lost or self._timer.seconds() >= self.until

    def check(self) -> None:
        """Raises LeaseLost where it is over: what was stopped for a while must not call out after it."""
        if self.over:
            raise LeaseLost("its lease is over")

    def lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._on_lost()


class Leases:
    """Prolongs what is held for long, all of it with one statement.

    A lease is lost when the store says so. Where the store says nothing, it is lost at the end of the
    time for which it was given, since another process may reach the store. (After a stall of this
    process the store is asked first: an answer of the target may have come meanwhile.)
    """

    def __init__(self, *, keep: Keep, timer: Timer, seconds: float) -> None:
        """``seconds``: how long a lease lasts from the moment the store gives or prolongs it."""
        self._keep, self._timer, self._seconds = keep, timer, seconds
        self._log = Logger(namespace="smsdaemon.leases")
        self._held: dict[UUID, Lease] = {}
        self._alarm: Any = None
        self._expiry: Any = None

    def hold(self, delivery: Delivery, on_lost: Callable[[], object]) -> Lease:
        """Look after the lease until release(); ``on_lost`` is called when it is lost before that."""
        leased_at = self._timer.seconds() if delivery.leased_at is None else delivery.leased_at
        lease = Lease(delivery, leased_at + self._seconds * SURE, self._timer, on_lost)
        before = self._held.get(delivery.id)
        self._held[delivery.id] = lease
        if before is not None:  # claimed again by this very process
            before.lose()
        if self._alarm is None:
            self._set_alarm()
        return lease

    def release(self, lease: Lease) -> None:
        """The delivery was settled, or is left to others."""
        if self._held.get(lease.delivery.id) is lease:
            del self._held[lease.delivery.id]

    def close(self) -> None:
        """Prolong nothing more."""
        for call in (self._alarm, self._expiry):
            if call is not None:
                call.cancel()
        self._alarm = self._expiry = None

    def _set_alarm(self) -> None:
        self._alarm = self._timer.callLater(self._seconds / BEATS, self._beat)

    def _beat(self) -> None:
        self._alarm = None
        if not self._held:
            return  # the next one to be held sets the alarm again
        self._set_alarm()
        sent_at = self._timer.seconds()
        # The others, which are most, will have ended before the next beat, or can wait for it.
        old = [
            lease for lease in self._held.values() if lease.until - sent_at < self._seconds * (1 - 1 / BEATS)
        ]
        if not old:
            return
        d: Deferred[Any] = self._keep([lease.delivery for lease in old])
        clock: Any = self._timer
        d.addTimeout(self._seconds / BEATS * 0.75, clock)  # else it would wait for a connection for ever
        d.addCallbacks(self._kept, self._not_kept, callbackArgs=(old, sent_at), errbackArgs=(old,))
        d.addErrback(lambda failure: self._log.failure("a heartbeat failed", failure=failure))

    def _kept(self, ids: set[UUID], asked: list[Lease], sent_at: float) -> None:
        for lease in asked:
            if lease.delivery.id in ids:
                lease.until = sent_at + self._seconds * SURE
            else:
                self._lose(lease)

    def _not_kept(self, failure: Failure, asked: list[Lease]) -> None:
        failure.trap(StoreUnavailable, StoreRefused, TimeoutError)
        if failure.check(StoreRefused):  # the others say so themselves, elsewhere
            self._log.error("prolonging leases was refused: {why}", why=str(failure.value))
        self._give_up_overdue()

    def _give_up_overdue(self) -> None:
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        self._expiry = None
        for lease in [lease for lease in self._held.values() if lease.over]:
            self._lose(lease)
        if self._held:
            first = min(lease.until for lease in self._held.values())
            self._expiry = self._timer.callLater(
                max(0.0, first - self._timer.seconds()), self._give_up_overdue
            )

    def _lose(self, lease: Lease) -> None:
        if self._held.get(lease.delivery.id) is lease:  # else it was settled meanwhile
            del self._held[lease.delivery.id]
            lease.lose()
