"""The second use case: every pending delivery is attempted, and its outcome recorded, until it ends.

The chain in ``Dispatcher._attempt`` is the process: plan, deliver, settle; whatever fails becomes an
outcome too. Leases, order and what is due next are the store's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.breakers import Breakers
from smsdaemon.domain.backoff import RetryPolicy
from smsdaemon.domain.model import (
    Answer,
    Attempt,
    Dead,
    Delivered,
    Delivery,
    Postponed,
)
from smsdaemon.domain.routing import TryAgain, excerpt, read_answer
from smsdaemon.errors import LeaseLost, NoRoute, StoreRefused, StoreUnavailable, TargetUnreachable
from smsdaemon.leases import Leases
from smsdaemon.lookout import Lookout
from smsdaemon.places import Places
from smsdaemon.ports import Backend, DeliveryObserver, DeliveryStore, DirectorySource, Timer, UtcClock
from smsdaemon.ready import Ready
from smsdaemon.recording import Recording
from smsdaemon.runs import Ending, Plan, Run
from smsdaemon.setbacks import Setbacks
from smsdaemon.told import Told
from smsdaemon.turns import AT_ONCE, Turns

RECORDING_SECONDS = 1.0
"""How long the outcome of what was cut off is waited for."""

_GIVEN_BACK = Postponed(delay_seconds=0, reason="", attempted=False)


@frozen(kw_only=True)
class Terms:
    """How attempts are made and repeated."""

    retry: RetryPolicy
    per_target: int
    in_all: int
    lease_seconds: float
    breaker_failures: int = 10
    """In a row, after which a target is left alone."""


class Dispatcher:
    """Implements ports.Outlet."""

    def __init__(
        self,
        *,
        store: DeliveryStore,
        directory: DirectorySource,
        backends: Mapping[str, Backend],
        terms: Terms,
        timer: Timer,
        utc_now: UtcClock,
        jitter: Callable[[], float],
        observer: DeliveryObserver,
    ) -> None:
        """``backends`` by URL scheme; ``jitter`` gives a number from -1 to 1."""
        self._store, self._directory, self._backends = store, directory, backends
        self._timer, self._utc_now, self._observer = timer, utc_now, observer
        self._told = Told(directory=directory, utc_now=utc_now, observer=observer)
        self._setbacks = Setbacks(retry=terms.retry, timer=timer, jitter=jitter)
        self._log = Logger(namespace="smsdaemon.dispatch")
        self._places = Places(per_target=terms.per_target, in_all=terms.in_all)
        self._ready: Ready[Run] = Ready(timer.seconds)
        self._turns: Turns[Run] = Turns(timer=timer, at_once=AT_ONCE, begin=self._begin_now)
        self._leases = Leases(keep=store.keep, timer=timer, seconds=terms.lease_seconds)
        self._lookout = self._make_lookout()
        self._breakers = Breakers(
            store=store, timer=timer, failures=terms.breaker_failures, on_closed=self.look
        )
        self._runs: set[Run] = set()
        self._unrecorded: set[Run] = set()
        self._running = self._is_cut_off = False
        self._drained: Deferred[None] | None = None
        self._late: Any = None

    def _make_lookout(self) -> Lookout:
        return Lookout(
            store=self._store,
            directory=self._directory,
            places=self._places,
            ready=self._ready,
            timer=self._timer,
            begin=self._begin_claimed,
            # After a time without PostgreSQL, what is claimed first would be what waits to be recorded.
            may_look=lambda: not self._unrecorded,
            on_looked=self._check_drained,
        )

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look for what is due."""
        self._running = True
        self._breakers.start()
        self._lookout.start()

    def stop(self, seconds: float) -> Deferred[None]:
        """Begin nothing more; fires when what is in flight has ended, or was cut off after a while.

        What is leased after that is given back; called once more it waits for this too.
        """
        self._running = False
        self._lookout.stop()
        self._breakers.stop()
        self._turns.begin_all()
        for run in self._ready.take_all():
            self._begin_or_wait(run)  # which gives it back
        drained: Deferred[None] = Deferred()
        self._drained = drained
        self._late = self._timer.callLater(seconds, self._cut_off)

        def ended(_: None) -> None:
            self._leases.close()
            if self._late.active():
                self._late.cancel()

        drained.addCallback(ended)
        self._check_drained()
        return drained

    def _cut_off(self) -> None:
        """End what waits for a target; what waits for the store has a moment more, and no second try."""
        self._is_cut_off = True
        self._late = self._timer.callLater(RECORDING_SECONDS, self._let_go)
        self._lookout.cut_off()
        for run in [run for run in self._runs if not run.ended]:
            run.cancel()

    def _let_go(self) -> None:
        """Leave what the store said nothing of to its lease."""
        for run in list(self._runs):
            run.cancel()

    def _check_drained(self) -> None:
        if self._drained is not None and not self._runs and not self._lookout.looking:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def look(self) -> None:
        """Ask the store for what is due, soon; several calls become one question."""
        self._lookout.look()

    def refresh_breakers(self) -> None:
        """Somebody opened or closed the breaker of a target, or may have."""
        self._breakers.refresh()

    @property
    def open_breakers(self) -> frozenset[int]:
        """The targets, by id, that are left alone now."""
        return self._breakers.open

    # --- ports.Outlet -------------------------------------------------------------------------

    def reserve(self, target_id: int, connector_id: int) -> bool:
        if not self._running or self._breakers.is_open(target_id):
            return False
        if self._places.reserve(target_id, connector_id) or self._ready.reserve(target_id, connector_id):
            return True
        self._places.refused(target_id)
        return False

    def release(self, target_id: int, connector_id: int) -> None:
        if not self._ready.release(target_id, connector_id):
            self._places.free(target_id, connector_id)
            self._begin_ready(target_id)

    def queued(self, target_id: int) -> None:
        if not self._breakers.is_open(target_id):
            self._places.waits(target_id)
            self._lookout.look_if_worth(target_id)

    def take(self, delivery: Delivery) -> None:
        run = self._run(delivery, claimed=False)
        if self._ready.release(delivery.target_id, delivery.sms.connector_id):
            self._begin_or_wait(run)
        else:
            self._begin(run)

    def _begin_claimed(self, delivery: Delivery) -> None:
        self._begin_or_wait(self._run(delivery, claimed=True))

    def _begin_or_wait(self, run: Run) -> None:
        """Attempt it now, or as soon as its target has a place."""
        delivery = run.delivery
        if not self._running or self._places.has_one(delivery.target_id):
            self._places.take(delivery.target_id, delivery.sms.connector_id)
            self._begin(run)
        else:
            self._ready.add(delivery.target_id, run)

    def _begin_ready(self, target_id: int) -> None:
        """Give the places that are free to what waits for them."""
        while self._places.has_one(target_id) and (run := self._ready.take(target_id)) is not None:
            if not run.lost:
                run.claimed = False  # its breaker may have opened since the store looked at it
                self._begin_or_wait(run)

    def _run(self, delivery: Delivery, *, claimed: bool) -> Run:
        run = Run(delivery, claimed=claimed, began_at=self._timer.seconds())
        run.lease = self._leases.hold(delivery, lambda: self._lose(run))
        return run

    def _begin(self, run: Run) -> None:
        self._runs.add(run)
        if self._running:
            self._turns.begin(run)
        else:
            self._begin_now(run)

    def _begin_now(self, run: Run) -> None:
        run.began_at = self._timer.seconds()
        if run.lost:
            self._ended(None, run)
            return
        run.chain = chain = self._attempt(run)
        chain.addBoth(self._ended, run)

    # --- the chain ----------------------------------------------------------------------------

    def _attempt(self, run: Run) -> Deferred[Any]:
        d: Deferred[Any] = succeed(run)
        d.addCallback(self._plan)
        d.addCallback(self._deliver)
        d.addErrback(self._ending_of_failure, run)
        d.addCallback(self._settle, run)
        return d

    def _plan(self, run: Run) -> Plan:
        directory = self._directory.current()
        target = directory.targets.get(run.delivery.target_id)
        client = None if target is None else directory.clients.get(target.client_id)
        if target is None or client is None:
            raise NoRoute("the target was removed from the directory")
        self._setbacks.known(target.id)
        return Plan(run, target, client)

    def _deliver(self, plan: Plan) -> Ending | Deferred[Ending]:
        run, target = plan.run, plan.target
        left_alone = self._breakers.is_open(target.id) and not run.claimed
        if not self._running or not target.enabled or left_alone:
            return Ending(_GIVEN_BACK, None)
        backend = self._backends.get(target.url.partition(":")[0].lower())
        if backend is None:
            return Ending(Dead(reason="there is no backend for the scheme of the target's URL"), None)
        run.lease.check()
        d = backend.deliver(run.delivery, target, plan.client, run.lease.check)
        return d.addCallback(self._ending_of_answer, plan)

    def _ending_of_answer(self, answer: Answer, plan: Plan) -> Ending:
        run, directory, now = plan.run, self._directory.current(), self._utc_now()
        self._ready.answered(plan.target.id)
        attempt = Attempt(seconds=self._seconds(run), status=answer.status, answer=excerpt(answer.body))
        meaning = read_answer(answer, run.delivery, plan.target, directory, now)
        if isinstance(meaning, TryAgain):
            self._breakers.failed(plan.target.id, meaning.reason)
            again = self._setbacks.failed(run.delivery, attempt.seconds, meaning.reason, meaning.retry_after)
            return Ending(again, attempt)
        self._breakers.succeeded(plan.target.id)
        return Ending(meaning, attempt)

    def _ending_of_failure(self, failure: Failure, run: Run) -> Ending | None:
        """What becomes of a delivery that got no answer; None: it is another's."""
        error = failure.value
        if run.lost:
            return None
        if isinstance(error, LeaseLost):  # nothing was sent; if it is still ours after all, all the better
            self._count_lost(run, "before the target was called")
            return Ending(_GIVEN_BACK, None)
        if isinstance(error, NoRoute):
            return Ending(self._setbacks.nowhere_to_go(run.delivery.target_id, str(error)), None)
        seconds = self._seconds(run)
        attempt = Attempt(seconds=seconds)
        failed = self._setbacks.failed
        if not self._running and not isinstance(error, TargetUnreachable):
            return Ending(failed(run.delivery, seconds, "cut off by shutdown"), attempt)
        if isinstance(error, TargetUnreachable):
            if self._running:
                self._breakers.failed(run.delivery.target_id, str(error))
            return Ending(failed(run.delivery, seconds, str(error)), attempt)
        # A bug of ours. The SMS is not lost: it comes again.
        self._log.failure("attempt of delivery {id} failed", failure=failure, id=run.delivery.id)
        return Ending(failed(run.delivery, seconds, f"internal error: {type(error).__name__}"), attempt)

    def _seconds(self, run: Run) -> float:
        return max(0.0, self._timer.seconds() - run.began_at)

    # --- recording ----------------------------------------------------------------------------

    def _settle(self, ending: Ending | None, run: Run) -> Deferred[Delivery | None] | None:
        self._end(run)
        if ending is None:
            return None
        return self._told_of(self._store.settle(run.delivery, ending.outcome, ending.attempt), run, ending)

    def _told_of(
        self, settling: Deferred[Delivery | None], run: Run, ending: Ending
    ) -> Deferred[Delivery | None]:
        return settling.addCallbacks(
            self._settled, self._not_settled, callbackArgs=(run, ending), errbackArgs=(run, ending)
        )

    def _may_try_again(self, run: Run) -> bool:
        """Until it is known: an outcome that is not recorded is a second delivery.

        Also beyond the lease, since the store takes it as long as nobody else has the delivery.
        """
        self._unrecorded.add(run)
        return not self._is_cut_off

    def _end(self, run: Run) -> None:
        """The attempt is over: its place is another's, whenever its outcome will have been recorded."""
        if not run.ended:
            run.ended = True
            target_id = run.delivery.target_id
            self._places.free(target_id, run.delivery.sms.connector_id)
            self._begin_ready(target_id)
            self._lookout.look_if_worth(target_id)

    def _settled(self, next_one: Delivery | None, run: Run, ending: Ending) -> Delivery | None:
        outcome = ending.outcome
        self._told.ended(run.delivery, outcome)
        if isinstance(outcome, Postponed):
            if outcome.attempted:
                self._lookout.remember_retry(outcome.delay_seconds)
        elif isinstance(outcome, Delivered) and outcome.onward is not None:
            self.queued(outcome.onward.id)
        return next_one

    def _not_settled(
        self, failure: Failure, run: Run, ending: Ending
    ) -> Deferred[Delivery | None] | Delivery | None:
        failure.trap(StoreUnavailable, StoreRefused, LeaseLost)
        if failure.check(StoreUnavailable) and self._may_try_again(run):
            recording = Recording(
                lambda: self._store.settle(run.delivery, ending.outcome, ending.attempt),
                timer=self._timer,
                may_try_again=lambda: self._may_try_again(run),
            )
            return self._told_of(recording.done, run, ending)
        if failure.check(LeaseLost):
            if run in self._unrecorded:  # what went unanswered before had been recorded, as far as we know
                return self._settled(None, run, ending)
            self._count_lost(run, "before its outcome was recorded")
        elif failure.check(StoreRefused):
            self._log.error(
                "outcome of delivery {id} was not recorded, it will be attempted again: {why}",
                id=run.delivery.id,
                why=str(failure.value),
            )
        else:
            self._log.warn("delivery {id} was left to its lease", id=run.delivery.id)
        return None

    def _lose(self, run: Run) -> None:
        """The lease is another's: what goes on must end, and its outcome counts no more."""
        if run.ended:
            return  # whether it could be recorded is the store's to say
        self._count_lost(run, "during its attempt")
        run.cancel()

    def _count_lost(self, run: Run, when: str) -> None:
        if run.lost:
            return
        run.lost = True
        self._observer.lease_lost()
        self._log.warn("delivery {id}: the lease was lost {when}", id=run.delivery.id, when=when)

    def _ended(self, result: Any, run: Run) -> None:
        delivery = run.delivery
        self._runs.discard(run)
        self._unrecorded.discard(run)
        self._leases.release(run.lease)
        self._end(run)
        if isinstance(result, Failure):
            if result.check(CancelledError):
                self._log.warn("delivery {id} was left to its lease", id=delivery.id)
            else:
                self._log.failure("delivery {id} was left to its lease", failure=result, id=delivery.id)
        elif result is not None:
            self._begin_or_wait(self._run(result, claimed=False))
        self._check_drained()
