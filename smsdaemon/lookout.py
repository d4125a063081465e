"""Asks the store for what is due and nobody was told of: in time, seldom enough, and no more than fits."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.domain.model import Delivery
from smsdaemon.errors import StoreRefused, StoreUnavailable
from smsdaemon.places import Places
from smsdaemon.ports import DeliveryStore, DirectorySource, Timer
from smsdaemon.ready import Ready

SWEEP_SECONDS = 1.0
"""How often the store is asked, whatever is known of it: retries of other processes, and what a dead
one left."""
CLAIM_AT_MOST = 500
USERS_SECONDS = 600.0
"""Who shares a target is forgotten after once to twice this time."""
_REMEMBERED_RETRIES = 1000


class Lookout:
    """Hands over what it claims; several wishes to look become one question."""

    def __init__(
        self,
        *,
        store: DeliveryStore,
        directory: DirectorySource,
        places: Places,
        ready: Ready[Any],
        timer: Timer,
        begin: Callable[[Delivery], object],
        may_look: Callable[[], bool],
        on_looked: Callable[[], object],
    ) -> None:
        """``begin`` is called for each delivery. While ``may_look`` says no, the store is not asked.
        ``on_looked``: called after each answer."""
        self._store, self._directory, self._timer = store, directory, timer
        self._places, self._ready = places, ready
        self._begin, self._may_look, self._on_looked = begin, may_look, on_looked
        self._log = Logger(namespace="smsdaemon.dispatch")
        self._retries: list[float] = []
        self._running = self._look_again = False
        self.looking = False
        """The store has not answered yet."""
        self._asked: Deferred[Any] | None = None
        self._alarm: Any = None
        self._users_noted_at = timer.seconds()

    def start(self) -> None:
        self._running = True
        self.look()

    def stop(self) -> None:
        """Ask no more; what is being answered is still handed over."""
        self._running = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def cut_off(self) -> None:
        """Wait for the store no longer: where it is away, it may not answer for ever.

        What it leases all the same, for a question that it had been sent, is left to those leases.
        """
        if self._asked is not None:
            self._asked.cancel()

    def look(self) -> None:
        """Ask the store for what is due, soon."""
        if not self._running:
            return
        if self.looking:
            self._look_again = True
            return
        self.looking, self._look_again = True, False
        # A part of what is free: the rest is for what is accepted meanwhile.
        limit = min(CLAIM_AT_MOST, (self._places.room_in_all() + 1) // 2)
        if limit == 0 or not self._may_look():
            self._looked(None)
            return
        room, elsewhere = self._room(), self._places.room_elsewhere()
        d: Deferred[Any] = self._store.claim(limit, room, elsewhere)
        self._asked = d
        d.addCallback(self._claimed, room, elsewhere, limit)
        d.addErrback(self._not_claimed)
        d.addBoth(self._looked)

    def look_if_worth(self, target_id: int) -> None:
        """Look where more of the target's are known to wait and there is room enough for them."""
        may_wait, wait = self._ready.may_wait(target_id), self._ready.waiting(target_id)
        if self._places.worth_a_look(target_id, may_wait, wait):
            self.look()

    def remember_retry(self, delay: float) -> None:
        """Something will be due in so many seconds; what is not soon is left to the sweep."""
        if delay < SWEEP_SECONDS and len(self._retries) < _REMEMBERED_RETRIES:
            heapq.heappush(self._retries, self._timer.seconds() + delay)
            self._set_alarm()

    def _room(self) -> dict[int, int]:
        room = {
            target_id: free + max(0, self._ready.may_wait(target_id) - self._ready.waiting(target_id))
            for target_id, free in self._places.room().items()
        }
        room.update({t.id: 0 for t in self._directory.current().targets.values() if not t.enabled})
        return room

    def _claimed(
        self, deliveries: Sequence[Delivery], room: dict[int, int], elsewhere: int, limit: int
    ) -> None:
        got = Counter(delivery.target_id for delivery in deliveries)
        self._places.claimed(room, elsewhere, got, cut=len(deliveries) >= limit)
        for delivery in deliveries:
            self._begin(delivery)

    def _not_claimed(self, failure: Failure) -> None:
        failure.trap(StoreUnavailable, StoreRefused, CancelledError)
        if failure.check(StoreRefused):  # the other says so itself, and the next look is not far
            self._log.error("asking for what is due was refused: {why}", why=str(failure.value))

    def _looked(self, result: object) -> None:
        self.looking, self._asked = False, None
        if isinstance(result, Failure):
            self._log.failure("asking for what is due failed", failure=result)
        if self._look_again and self._running:
            self.look()
        else:
            self._set_alarm()
        self._on_looked()

    def _set_alarm(self) -> None:
        """Look again when the next retry is due, and after SWEEP_SECONDS at the latest."""
        if not self._running:
            return
        now = self._timer.seconds()
        delay = SWEEP_SECONDS
        if self._retries:
            delay = min(delay, max(0.0, self._retries[0] - now))
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._timer.callLater(delay, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = self._timer.seconds()
        while self._retries and self._retries[0] <= now:
            heapq.heappop(self._retries)
        if now - self._users_noted_at >= USERS_SECONDS:
            self._users_noted_at = now
            self._places.forget_users()
        self.look()
