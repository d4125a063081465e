"""The second use case: every pending delivery is attempted, and its outcome recorded, until it ends.

The chain in ``Dispatcher._attempt`` is the process: plan, deliver, settle; whatever fails becomes an
outcome too. Leases, order and what is due next are the store's business.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.domain.backoff import RetryPolicy
from smsdaemon.domain.model import (
    Answer,
    Client,
    Dead,
    Delivered,
    Delivery,
    Outcome,
    Postponed,
    Target,
)
from smsdaemon.domain.routing import TryAgain, read_answer
from smsdaemon.errors import NoRoute, StoreRefused, StoreUnavailable, TargetUnreachable
from smsdaemon.places import Places
from smsdaemon.ports import Backend, DeliveryObserver, DirectorySource, MessageStore, Timer, UtcClock

SWEEP_SECONDS = 1.0
"""How often the store is asked for what is due, whatever is known of it: retries of other processes,
and what a dead one left."""
CLAIM_AT_MOST = 500
SETTLE_AGAIN_SECONDS = 0.5
TARGET_UNKNOWN_SECONDS = 30.0
"""A target that is not in this process' directory may be newer than it."""
_REMEMBERED_RETRIES = 1000


@frozen(kw_only=True)
class Terms:
    """How attempts are made and repeated."""

    retry: RetryPolicy
    per_target: int
    in_all: int
    lease_seconds: float


@frozen
class _Plan:
    delivery: Delivery
    target: Target
    client: Client


class Dispatcher:
    """Implements ports.Outlet."""

    def __init__(
        self,
        *,
        store: MessageStore,
        directory: DirectorySource,
        backends: Mapping[str, Backend],
        terms: Terms,
        timer: Timer,
        utc_now: UtcClock,
        jitter: Callable[[], float],
        observer: DeliveryObserver,
    ) -> None:
        """``backends`` by URL scheme; ``jitter`` gives a number from -1 to 1."""
        self._store, self._directory, self._backends, self._terms = store, directory, backends, terms
        self._timer, self._utc_now, self._jitter, self._observer = timer, utc_now, jitter, observer
        self._log = Logger(namespace="smsdaemon.dispatch")
        self._places = Places(per_target=terms.per_target, in_all=terms.in_all)
        self._attempts: set[Deferred[Any]] = set()
        self._retries: list[float] = []
        self._looking = self._look_again = self._running = False
        self._alarm: Any = None
        self._drained: Deferred[None] | None = None

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look for what is due."""
        self._running = True
        self.look()

    def stop(self, seconds: float) -> Deferred[None]:
        """Begin nothing more; fires when what is in flight has ended, or was cut off after a while."""
        self._running = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        drained: Deferred[None] = Deferred()
        self._drained = drained
        late: Any = self._timer.callLater(seconds, self._cut_off)

        def ended(_: None) -> None:
            if late.active():
                late.cancel()

        drained.addCallback(ended)
        self._check_drained()
        return drained

    def _cut_off(self) -> None:
        for attempt in list(self._attempts):
            attempt.cancel()

    def _check_drained(self) -> None:
        if self._drained is not None and not self._attempts and not self._looking:
            drained, self._drained = self._drained, None
            drained.callback(None)

    # --- ports.Outlet -------------------------------------------------------------------------

    def reserve(self, target_id: int) -> bool:
        return self._running and self._places.reserve(target_id)

    def release(self, target_id: int) -> None:
        self._places.free(target_id)

    def queued(self, target_id: int) -> None:
        self._places.waits(target_id)
        self._look_if_worth(target_id)

    def take(self, delivery: Delivery) -> None:
        """Attempt a delivery in a place that was reserved; the place is free when that has ended."""
        d = self._attempt(delivery)
        self._attempts.add(d)
        d.addBoth(self._ended, d, delivery)

    # --- the chain ----------------------------------------------------------------------------

    def _attempt(self, delivery: Delivery) -> Deferred[Any]:
        d: Deferred[Any] = succeed(delivery)
        d.addCallback(self._plan)
        d.addCallback(self._deliver)
        d.addErrback(self._outcome_of_failure, delivery)
        d.addCallback(self._settle, delivery, self._timer.seconds() + self._terms.lease_seconds)
        return d

    def _plan(self, delivery: Delivery) -> _Plan:
        directory = self._directory.current()
        target = directory.targets.get(delivery.target_id)
        client = None if target is None else directory.clients.get(target.client_id)
        if target is None or client is None:
            raise NoRoute("the target was removed from the directory")
        return _Plan(delivery, target, client)

    def _deliver(self, plan: _Plan) -> Outcome | Deferred[Outcome]:
        if not self._running or not plan.target.enabled:
            return Postponed(delay_seconds=0, reason="", attempted=False)
        backend = self._backends.get(plan.target.url.partition(":")[0].lower())
        if backend is None:
            return Dead(reason="there is no backend for the scheme of the target's URL")
        d = backend.deliver(plan.delivery, plan.target, plan.client)
        return d.addCallback(self._outcome_of_answer, plan)

    def _outcome_of_answer(self, answer: Answer, plan: _Plan) -> Outcome:
        directory, now = self._directory.current(), self._utc_now()
        meaning = read_answer(answer, plan.delivery, plan.target, directory, now)
        if isinstance(meaning, TryAgain):
            return self._postponed(plan.delivery, meaning.reason, meaning.retry_after)
        return meaning

    def _outcome_of_failure(self, failure: Failure, delivery: Delivery) -> Outcome:
        error = failure.value
        if isinstance(error, TargetUnreachable):
            return self._postponed(delivery, str(error), None)
        if isinstance(error, NoRoute):
            known_for = (self._utc_now() - delivery.round_started_at).total_seconds()
            if known_for < TARGET_UNKNOWN_SECONDS:
                return Postponed(delay_seconds=SWEEP_SECONDS * 2, reason=str(error), attempted=False)
            return Dead(reason=str(error))
        # A bug of ours, or shutdown's cancellation. Either way the SMS is not lost: it comes again.
        if not self._running:
            return self._postponed(delivery, "cut off by shutdown", None)
        self._log.failure("attempt of delivery {id} failed", failure=failure, id=delivery.id)
        return self._postponed(delivery, f"internal error: {type(error).__name__}", None)

    def _postponed(self, delivery: Delivery, reason: str, wait: float | None) -> Outcome:
        now = self._utc_now()
        due = self._terms.retry.next_due(
            delivery.round_attempt, delivery.round_started_at, now, self._jitter(), wait
        )
        if due is None:
            return Dead(reason=f"given up after attempt {delivery.round_attempt}: {reason}")
        return Postponed(delay_seconds=max(0.0, (due - now).total_seconds()), reason=reason)

    def _settle(self, outcome: Outcome, delivery: Delivery, lease_ends: float) -> Deferred[Delivery | None]:
        d = self._store.settle(delivery, outcome)
        return d.addCallbacks(
            self._settled,
            self._not_settled,
            callbackArgs=(delivery, outcome),
            errbackArgs=(delivery, outcome, lease_ends),
        )

    def _settled(self, next_one: Delivery | None, delivery: Delivery, outcome: Outcome) -> Delivery | None:
        self._report(delivery, outcome)
        if isinstance(outcome, Postponed):
            if outcome.attempted:
                self._remember_retry(outcome.delay_seconds)
        elif isinstance(outcome, Delivered) and outcome.onward is not None:
            self.queued(outcome.onward.id)
        return next_one

    def _not_settled(
        self, failure: Failure, delivery: Delivery, outcome: Outcome, lease_ends: float
    ) -> Deferred[Delivery | None] | None:
        """Try until the lease is over: an outcome that is not recorded is a second delivery."""
        failure.trap(StoreUnavailable, StoreRefused)
        if failure.check(StoreRefused) or self._timer.seconds() + SETTLE_AGAIN_SECONDS > lease_ends:
            self._log.error(
                "outcome of delivery {id} was not recorded, it will be attempted again: {why}",
                id=delivery.id,
                why=str(failure.value),
            )
            return None
        again: Deferred[Delivery | None] = Deferred()
        self._timer.callLater(SETTLE_AGAIN_SECONDS, again.callback, None)
        return again.addCallback(lambda _: self._settle(outcome, delivery, lease_ends))

    def _ended(self, result: Any, attempt: Deferred[Any], delivery: Delivery) -> None:
        self._attempts.discard(attempt)
        self._places.free(delivery.target_id)
        if isinstance(result, Failure):
            self._log.failure("delivery {id} was left to its lease", failure=result, id=delivery.id)
        elif result is not None:
            self._places.take(delivery.target_id)
            self.take(result)
        self._look_if_worth(delivery.target_id)
        self._check_drained()

    def _report(self, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, Postponed) and not outcome.attempted:
            return
        target = self._directory.current().targets.get(delivery.target_id)
        kind = "unknown" if target is None else target.kind
        name = {Delivered: "delivered", Postponed: "retry", Dead: "dead"}[type(outcome)]
        seconds = None
        if isinstance(outcome, Delivered):
            seconds = (self._utc_now() - delivery.sms.received_at).total_seconds()
        else:
            self._log.warn(
                "message {message_id} to target {target_id}: attempt {attempt}, {outcome}: {why}",
                message_id=delivery.sms.id,
                target_id=delivery.target_id,
                attempt=delivery.attempt,
                outcome=name,
                why=outcome.reason,
            )
        self._observer.delivery_ended(kind, name, seconds)

    # --- what is due --------------------------------------------------------------------------

    def look(self) -> None:
        """Ask the store for what is due, soon; several calls become one question."""
        if not self._running:
            return
        if self._looking:
            self._look_again = True
            return
        self._looking, self._look_again = True, False
        room, limit = self._room(), min(CLAIM_AT_MOST, self._places.room_in_all())
        if limit == 0:
            self._looked(None)
            return
        d = self._store.claim(limit, room, self._terms.per_target)
        d.addCallback(self._claimed, room, limit)
        d.addErrback(self._not_claimed)
        d.addBoth(self._looked)

    def _room(self) -> dict[int, int]:
        room = self._places.room()
        room.update({t.id: 0 for t in self._directory.current().targets.values() if not t.enabled})
        return room

    def _claimed(self, deliveries: Sequence[Delivery], room: dict[int, int], limit: int) -> None:
        got = Counter(delivery.target_id for delivery in deliveries)
        self._places.claimed(room, self._terms.per_target, got, cut=len(deliveries) >= limit)
        for delivery in deliveries:
            self._places.take(delivery.target_id)
            self.take(delivery)

    def _not_claimed(self, failure: Failure) -> None:
        failure.trap(StoreUnavailable, StoreRefused)
        if failure.check(StoreRefused):  # the other says so itself, and the next look is not far
            self._log.error("asking for what is due was refused: {why}", why=str(failure.value))

    def _looked(self, result: object) -> None:
        self._looking = False
        if isinstance(result, Failure):
            self._log.failure("asking for what is due failed", failure=result)
        if self._look_again and self._running:
            self.look()
        else:
            self._set_alarm()
        self._check_drained()

    def _look_if_worth(self, target_id: int) -> None:
        if self._places.worth_a_look(target_id):
            self.look()

    def _remember_retry(self, delay: float) -> None:
        if delay < SWEEP_SECONDS and len(self._retries) < _REMEMBERED_RETRIES:
            heapq.heappush(self._retries, self._timer.seconds() + delay)
            self._set_alarm()

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
        self.look()
