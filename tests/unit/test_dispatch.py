"""The dispatcher's chain and its asking for what is due, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from smsdaemon.dispatch import Dispatcher, Terms
from smsdaemon.domain.backoff import RetryPolicy
from smsdaemon.domain.model import (
    Answer,
    Client,
    Dead,
    Delivered,
    Delivery,
    Directory,
    Hop,
    Outcome,
    Postponed,
    Target,
)
from smsdaemon.errors import StoreUnavailable, TargetUnreachable
from tests.support.cases import UnitTest
from tests.support.deliveries import delivery, sms, target

START = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)


class ScriptedStore:
    """Hands out what the test queued and keeps every outcome."""

    def __init__(self) -> None:
        self.due: list[Delivery] = []
        self.next: list[Delivery | None] = []
        self.outcomes: list[tuple[Delivery, Outcome]] = []
        self.asked: list[tuple[int, dict[int, int], int]] = []
        self.down = False

    def settle(self, settled: Delivery, outcome: Outcome) -> Deferred[Delivery | None]:
        if self.down:
            return fail(StoreUnavailable("down"))
        self.outcomes.append((settled, outcome))
        return succeed(self.next.pop(0) if self.next else None)

    def claim(self, limit: int, room: Mapping[int, int], elsewhere: int) -> Deferred[Sequence[Delivery]]:
        self.asked.append((limit, dict(room), elsewhere))
        if self.down:
            return fail(StoreUnavailable("down"))
        claimed, self.due = self.due[:limit], self.due[limit:]
        return succeed(claimed)

    def accept(self, *_: Any) -> Any:
        raise AssertionError("the dispatcher accepts nothing")


class ScriptedBackend:
    """Answers 200, or as the test says, or when the test says."""

    schemes: Sequence[str] = ("http",)

    def __init__(self) -> None:
        self.attempts: list[Delivery] = []
        self.answer: Callable[[], Deferred[Answer]] = lambda: succeed(Answer(status=200))

    def deliver(self, attempted: Delivery, to: Target, client: Client) -> Deferred[Answer]:
        self.attempts.append(attempted)
        return self.answer()


class Ledger:
    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []

    def delivery_ended(self, kind: str, outcome: str, seconds: float | None) -> None:
        self.ended.append((kind, outcome))


class DispatcherTest(UnitTest):
    def setUp(self) -> None:
        self.clock, self.store, self.backend, self.ledger = (
            Clock(),
            ScriptedStore(),
            ScriptedBackend(),
            Ledger(),
        )
        self.directory = Directory(
            targets={
                1: target(),
                2: target(id=2, kind="application", name="survey"),
                3: target(id=3, name="gone", url="gopher://x"),
            },
            clients={1: Client(id=1, reseller="acme", name="shop")},
        )
        self.dispatcher = self.make()
        self.dispatcher.start()

    def make(self, per_target: int = 4, give_up_after: float = 100) -> Dispatcher:
        terms = Terms(
            retry=RetryPolicy(schedule=(0, 2, 10), give_up_after=give_up_after),
            per_target=per_target,
            in_all=100,
            lease_seconds=60,
        )
        return Dispatcher(
            store=self.store,
            directory=self,
            backends={"http": self.backend},
            terms=terms,
            timer=self.clock,
            utc_now=self.now,
            jitter=lambda: 0.0,
            observer=self.ledger,
        )

    def current(self) -> Directory:
        return self.directory

    def now(self) -> datetime:
        return START + timedelta(seconds=self.clock.seconds())

    def one(self, target_id: int = 1, **fields: Any) -> Delivery:
        return delivery(
            sms=sms(received_at=START), target_id=target_id, **{"round_started_at": START, **fields}
        )

    def attempt(self, attempted: Delivery | None = None) -> Outcome:
        """Attempt it in a reserved place; its outcome."""
        chosen = attempted or self.one()
        self.assertTrue(self.dispatcher.reserve(chosen.target_id))
        self.dispatcher.take(chosen)
        return self.store.outcomes[-1][1]


class ChainTests(DispatcherTest):
    def test_a_2xx_is_delivered_and_counted(self) -> None:
        self.assertIsInstance(self.attempt(), Delivered)
        self.assertEqual(self.ledger.ended, [("acd_group", "delivered")])

    def test_an_unreachable_target_postpones_by_the_schedule(self) -> None:
        self.backend.answer = lambda: fail(TargetUnreachable("connection refused"))
        self.assertEqual(self.attempt(), Postponed(delay_seconds=2, reason="connection refused"))
        again = self.attempt(self.one(attempt=2, round_attempt=2))
        self.assertEqual(again, Postponed(delay_seconds=10, reason="connection refused"))
        self.assertEqual(self.ledger.ended, [("acd_group", "retry")] * 2)

    def test_retry_after_of_a_busy_target_is_honoured(self) -> None:
        self.backend.answer = lambda: succeed(Answer(status=503, retry_after="30"))
        self.assertEqual(self.attempt(), Postponed(delay_seconds=30, reason="answered 503"))

    def test_what_would_come_too_late_is_given_up_with_the_last_reason(self) -> None:
        self.backend.answer = lambda: succeed(Answer(status=500))
        early = START - timedelta(seconds=99)
        outcome = self.attempt(self.one(round_started_at=early, round_attempt=3))
        self.assertEqual(outcome, Dead(reason="given up after attempt 3: answered 500"))
        self.assertEqual(self.ledger.ended, [("acd_group", "dead")])

    def test_410_is_dead_at_once(self) -> None:
        self.backend.answer = lambda: succeed(Answer(status=410))
        self.assertIsInstance(self.attempt(), Dead)

    def test_a_routing_application_sends_the_sms_on_and_the_next_target_is_looked_after(self) -> None:
        self.backend.answer = lambda: succeed(Answer(status=200, body=b'{"route":{"acd_group":"support"}}'))
        asked = len(self.store.asked)
        outcome = self.attempt(self.one(target_id=2))
        assert isinstance(outcome, Delivered)
        assert outcome.onward is not None
        hops = (Hop(kind="application", name="survey"),)
        self.assertEqual((outcome.onward.id, outcome.onward_hops), (1, hops))
        self.assertEqual(len(self.store.asked), asked + 1)

    def test_a_disabled_target_is_left_alone_and_nothing_counts_as_an_attempt(self) -> None:
        self.directory = evolve(self.directory, targets={1: target(enabled=False)})
        self.assertEqual(self.attempt(), Postponed(delay_seconds=0, reason="", attempted=False))
        self.assertEqual((self.backend.attempts, self.ledger.ended), ([], []))

    def test_a_target_that_this_process_does_not_know_yet_is_waited_for_then_buried(self) -> None:
        outcome = self.attempt(self.one(target_id=9))
        assert isinstance(outcome, Postponed)
        self.assertFalse(outcome.attempted)
        self.clock.advance(31)
        self.assertIsInstance(self.attempt(self.one(target_id=9)), Dead)

    def test_a_url_that_no_backend_serves_is_dead_with_the_reason(self) -> None:
        self.assertIn("no backend", self.attempt(self.one(target_id=3)).reason)

    def test_a_bug_in_a_backend_postpones_and_is_logged(self) -> None:
        self.backend.answer = lambda: fail(KeyError("bug"))
        outcome = self.attempt()
        self.assertEqual(outcome.reason, "internal error: KeyError")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_the_next_of_the_conversation_follows_in_the_same_place(self) -> None:
        self.store.next = [self.one(), self.one(), None]
        self.attempt()
        self.assertEqual(len(self.backend.attempts), 3)
        self.assertEqual([self.dispatcher.reserve(1) for _ in range(5)], [True] * 4 + [False])


class UnrecordedOutcomeTests(DispatcherTest):
    def test_an_outcome_is_recorded_as_soon_as_the_store_is_back(self) -> None:
        self.store.down = True
        self.dispatcher.reserve(1)
        self.dispatcher.take(self.one())
        self.clock.pump([1] * 10)
        self.assertEqual(self.store.outcomes, [])
        self.store.down = False
        self.clock.advance(1)
        self.assertIsInstance(self.store.outcomes[0][1], Delivered)
        self.assertEqual(len(self.backend.attempts), 1)

    def test_after_the_lease_it_is_left_to_whoever_claims_it_next(self) -> None:
        self.store.down = True
        self.dispatcher.reserve(1)
        self.dispatcher.take(self.one())
        self.clock.pump([1] * 70)
        self.store.down = False
        self.clock.pump([1] * 5)
        self.assertEqual(self.store.outcomes, [])
        self.assertEqual([self.dispatcher.reserve(1) for _ in range(5)], [True] * 4 + [False])


class LookingTests(DispatcherTest):
    def test_the_store_is_asked_at_start_and_every_second(self) -> None:
        self.assertEqual(len(self.store.asked), 1)
        self.clock.pump([0.5] * 6)
        self.assertEqual(len(self.store.asked), 4)

    def test_what_is_due_is_attempted_within_the_bounds_of_its_target(self) -> None:
        self.backend.answer = Deferred
        self.store.due = [self.one() for _ in range(3)]
        self.dispatcher.look()
        self.assertEqual(len(self.backend.attempts), 3)
        self.dispatcher.look()
        self.assertEqual(self.store.asked[-1], (97, {1: 1}, 4))

    def test_a_disabled_target_is_offered_no_room(self) -> None:
        self.directory = evolve(self.directory, targets={1: target(enabled=False)})
        self.dispatcher.look()
        self.assertEqual(self.store.asked[-1][1], {1: 0})

    def test_a_retry_is_looked_for_when_it_is_due_and_not_a_second_later(self) -> None:
        self.dispatcher = self.make()
        self.dispatcher.start()
        self.backend.answer = lambda: succeed(Answer(status=503, retry_after="0"))
        self.attempt(self.one(round_attempt=0))  # due again at once
        asked = len(self.store.asked)
        self.clock.advance(0.01)
        self.assertGreater(len(self.store.asked), asked)

    def test_freed_places_are_filled_with_what_had_to_wait(self) -> None:
        waiting: list[Deferred[Answer]] = []

        def later() -> Deferred[Answer]:
            waiting.append(Deferred())
            return waiting[-1]

        self.backend.answer = later
        for _ in range(4):
            self.dispatcher.reserve(1)
            self.dispatcher.take(self.one())
        self.assertFalse(self.dispatcher.reserve(1))
        self.store.due = [self.one()]
        waiting[0].callback(Answer(status=200))
        self.assertEqual(len(self.backend.attempts), 5)

    def test_a_store_that_is_down_is_asked_again(self) -> None:
        self.store.down = True
        self.clock.advance(1)
        self.store.down, self.store.due = False, [self.one()]
        self.clock.advance(1)
        self.assertEqual(len(self.backend.attempts), 1)


class StopTests(DispatcherTest):
    def test_stopping_waits_for_what_is_in_flight_and_begins_nothing_more(self) -> None:
        answer: Deferred[Answer] = Deferred()
        self.backend.answer = lambda: answer
        self.dispatcher.reserve(1)
        self.dispatcher.take(self.one())
        stopped = self.dispatcher.stop(20)
        self.assertNoResult(stopped)
        self.assertFalse(self.dispatcher.reserve(1))
        self.store.next = [self.one()]
        answer.callback(Answer(status=200))
        self.successResultOf(stopped)
        self.assertEqual(len(self.backend.attempts), 1)
        unused = Postponed(delay_seconds=0, reason="", attempted=False)
        self.assertEqual([type(o) for _, o in self.store.outcomes], [Delivered, Postponed])
        self.assertEqual(self.store.outcomes[1][1], unused)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_does_not_end_in_time_is_cut_off_and_stays_pending(self) -> None:
        self.backend.answer = Deferred
        self.dispatcher.reserve(1)
        self.dispatcher.take(self.one())
        stopped = self.dispatcher.stop(20)
        self.clock.advance(20)
        self.successResultOf(stopped)
        self.assertIsInstance(self.store.outcomes[0][1], Postponed)

    def test_stopping_an_idle_dispatcher_is_immediate_and_leaves_no_timer(self) -> None:
        self.successResultOf(self.dispatcher.stop(20))
        self.assertEqual(self.clock.getDelayedCalls(), [])
