"""The dispatcher's chain and its asking for what is due, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from smsdaemon.dispatch import RECORDING_SECONDS, Dispatcher, Terms
from smsdaemon.domain.backoff import RetryPolicy
from smsdaemon.domain.model import (
    Answer,
    Attempt,
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
from smsdaemon.errors import LeaseLost, StoreUnavailable, TargetUnreachable
from smsdaemon.lookout import SWEEP_SECONDS
from smsdaemon.recording import AGAIN_SECONDS
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
        self.attempts: list[Attempt | None] = []
        self.kept: list[list[Delivery]] = []
        self.taken_away: set[UUID] = set()
        """Deliveries that are another's by now."""
        self.breakers: set[int] = set()
        self.down = self.silent = False
        self.settling: Deferred[None] | None = None
        """Until it fires, outcomes are on their way."""
        self.claiming: Deferred[Sequence[Delivery]] | None = None
        """What a claim waits for, as it does for a connection while PostgreSQL is away."""

    def settle(
        self, settled: Delivery, outcome: Outcome, attempt: Attempt | None
    ) -> Deferred[Delivery | None]:
        if self.down:
            return fail(StoreUnavailable("down"))
        if settled.id in self.taken_away:
            return fail(LeaseLost("taken away"))
        self.outcomes.append((settled, outcome))
        self.attempts.append(attempt)
        if self.settling is not None:
            return self.settling.addCallback(lambda _: None)
        return succeed(self.next.pop(0) if self.next else None)

    def keep(self, deliveries: Sequence[Delivery]) -> Deferred[set[UUID]]:
        self.kept.append(list(deliveries))
        if self.silent:
            return Deferred()
        if self.down:
            return fail(StoreUnavailable("down"))
        return succeed({delivery.id for delivery in deliveries} - self.taken_away)

    def open_breaker(self, target_id: int, reason: str) -> Deferred[None]:
        self.breakers.add(target_id)
        return succeed(None)

    def close_breaker(self, target_id: int) -> Deferred[None]:
        self.breakers.discard(target_id)
        return succeed(None)

    def open_breakers(self) -> Deferred[frozenset[int]]:
        return succeed(frozenset(self.breakers))

    def claim(self, limit: int, room: Mapping[int, int], elsewhere: int) -> Deferred[Sequence[Delivery]]:
        self.asked.append((limit, dict(room), elsewhere))
        if self.down:
            return fail(StoreUnavailable("down"))
        if self.claiming is not None:
            return self.claiming
        claimed, self.due = self.due[:limit], self.due[limit:]
        return succeed(claimed)


class ScriptedBackend:
    """Answers 200, or as the test says, or when the test says."""

    schemes: Sequence[str] = ("http",)

    def __init__(self) -> None:
        self.attempts: list[Delivery] = []
        self.answer: Callable[[], Deferred[Answer]] = lambda: succeed(Answer(status=200))

    def deliver(
        self, attempted: Delivery, to: Target, client: Client, check_lease: Callable[[], None]
    ) -> Deferred[Answer]:
        check_lease()
        self.attempts.append(attempted)
        return self.answer()


class Ledger:
    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.lost = 0

    def delivery_ended(self, kind: str, outcome: str, seconds: float | None) -> None:
        self.ended.append((kind, outcome))

    def lease_lost(self) -> None:
        self.lost += 1


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

    def make(
        self, per_target: int = 4, give_up_after: float = 100, breaker_failures: int = 1000
    ) -> Dispatcher:
        terms = Terms(
            retry=RetryPolicy(schedule=(0, 2, 10), give_up_after=give_up_after),
            per_target=per_target,
            in_all=100,
            lease_seconds=60,
            breaker_failures=breaker_failures,
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
        values = {"sms": sms(received_at=START), "leased_at": self.clock.seconds(), **fields}
        return delivery(target_id=target_id, **values)

    def attempt(self, attempted: Delivery | None = None) -> Outcome:
        """Attempt it in a reserved place; its outcome."""
        chosen = attempted or self.one()
        self.assertTrue(self.dispatcher.reserve(chosen.target_id, 1))
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
        outcome = self.attempt(self.one(round_seconds=99, round_attempt=3))
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
        self.assertEqual([self.dispatcher.reserve(1, 1) for _ in range(5)], [True] * 4 + [False])


class UnrecordedOutcomeTests(DispatcherTest):
    def test_an_outcome_is_recorded_as_soon_as_the_store_is_back(self) -> None:
        self.store.down = True
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        self.clock.pump([1] * 10)
        self.assertEqual(self.store.outcomes, [])
        self.store.down = False
        self.clock.advance(1)
        self.assertIsInstance(self.store.outcomes[0][1], Delivered)
        self.assertEqual(len(self.backend.attempts), 1)

    def test_it_is_recorded_beyond_the_lease_if_nobody_has_taken_it(self) -> None:
        self.store.down = True
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        self.clock.pump([1] * 90)
        self.store.down = False
        self.clock.advance(1)
        self.assertIsInstance(self.store.outcomes[0][1], Delivered)
        self.assertEqual((len(self.backend.attempts), self.ledger.lost), (1, 0))

    def test_nothing_is_claimed_before_it_is_recorded_since_that_would_be_it(self) -> None:
        self.store.down = True
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        self.clock.pump([0.1] * 20)
        asked = len(self.store.asked)
        self.clock.pump([0.1] * 20)
        self.assertEqual(len(self.store.asked), asked)
        self.store.down = False
        self.clock.pump([0.1] * 20)
        self.assertGreater(len(self.store.asked), asked)

    def test_an_outcome_that_had_been_recorded_without_an_answer_counts_as_recorded(self) -> None:
        self.store.down = True
        self.dispatcher.reserve(1, 1)
        delivered = self.one()
        self.dispatcher.take(delivered)
        self.store.down, self.store.taken_away = False, {delivered.id}
        self.clock.advance(1)
        self.assertEqual((self.ledger.ended, self.ledger.lost), ([("acd_group", "delivered")], 0))


class AttemptRecordTests(DispatcherTest):
    def test_an_answer_is_recorded_with_its_status_beginning_and_time(self) -> None:
        answer: Deferred[Answer] = Deferred()
        self.backend.answer = lambda: answer
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        self.clock.advance(1.5)
        answer.callback(Answer(status=500, body=b"no \x00" + b"x" * 300))
        expected = Attempt(seconds=1.5, status=500, answer="no \ufffd" + "x" * 196)
        self.assertEqual(self.store.attempts, [expected])

    def test_no_answer_is_recorded_as_none_and_what_was_not_attempted_not_at_all(self) -> None:
        self.backend.answer = lambda: fail(TargetUnreachable("connection refused"))
        self.attempt()
        self.directory = evolve(self.directory, targets={1: target(enabled=False)})
        self.attempt()
        self.assertEqual(self.store.attempts, [Attempt(seconds=0.0), None])

    def test_the_time_an_attempt_took_counts_towards_giving_up(self) -> None:
        answer: Deferred[Answer] = Deferred()
        self.backend.answer = lambda: answer
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one(round_seconds=90))
        self.clock.advance(9)
        answer.callback(Answer(status=500))
        self.assertIsInstance(self.store.outcomes[0][1], Dead)


class LostLeaseTests(DispatcherTest):
    def setUp(self) -> None:
        super().setUp()
        self.cancelled = 0
        self.answers: list[Deferred[Answer]] = []
        self.backend.answer = self.hang

    def hang(self) -> Deferred[Answer]:
        def cancelled(_: Deferred[Answer]) -> None:
            self.cancelled += 1

        self.answers.append(Deferred(cancelled))
        return self.answers[-1]

    def hanging(self, **fields: Any) -> Delivery:
        begun = self.one(**fields)
        self.assertTrue(self.dispatcher.reserve(1, 1))
        self.dispatcher.take(begun)
        return begun

    def test_a_long_attempt_keeps_its_lease_and_is_settled(self) -> None:
        begun = self.hanging()
        self.clock.pump([1] * 200)
        self.assertEqual([[d.id for d in kept] for kept in self.store.kept][:2], [[begun.id]] * 2)
        self.answers[0].callback(Answer(status=200))
        self.assertIsInstance(self.store.outcomes[0][1], Delivered)
        self.assertEqual((self.cancelled, self.ledger.lost), (0, 0))

    def test_all_that_is_held_for_long_is_prolonged_with_one_question(self) -> None:
        begun = {self.hanging().id for _ in range(4)}
        self.clock.pump([1] * 45)
        self.assertEqual([{d.id for d in kept} for kept in self.store.kept], [begun] * len(self.store.kept))
        self.assertLessEqual(len(self.store.kept), 3)

    def test_an_attempt_whose_lease_is_anothers_is_cut_off_and_not_settled(self) -> None:
        begun = self.hanging()
        self.store.taken_away = {begun.id}
        self.clock.pump([1] * 45)
        self.assertEqual((self.cancelled, self.store.outcomes, self.ledger.lost), (1, [], 1))
        self.assertEqual([self.dispatcher.reserve(1, 1) for _ in range(5)], [True] * 4 + [False])

    def test_without_a_word_of_the_store_it_is_cut_off_before_another_can_have_it(self) -> None:
        for trouble in ("down", "silent"):
            self.store.down, self.store.silent = trouble == "down", trouble == "silent"
            self.cancelled = self.ledger.lost = 0
            self.hanging()
            self.clock.pump([0.5] * 116)
            self.assertEqual(self.cancelled, 0, trouble)
            self.clock.pump([0.5] * 3)
            self.assertEqual((self.cancelled, self.store.outcomes, self.ledger.lost), (1, [], 1), trouble)

    def test_after_a_stall_the_store_is_asked_before_anything_is_cut_off(self) -> None:
        self.hanging()
        self.clock.advance(1000)
        self.answers[0].callback(Answer(status=200))
        self.assertIsInstance(self.store.outcomes[0][1], Delivered)
        self.assertEqual((self.cancelled, self.ledger.lost), (0, 0))

    def test_an_attempt_is_not_begun_when_its_lease_is_over_and_is_given_back(self) -> None:
        late = self.one()
        self.clock.advance(61)
        self.assertEqual(self.attempt(late), Postponed(delay_seconds=0, reason="", attempted=False))
        self.assertEqual((self.backend.attempts, self.ledger.lost), ([], 1))

    def test_an_outcome_that_comes_too_late_is_counted_as_lost_and_as_nothing_else(self) -> None:
        begun = self.hanging()
        self.store.taken_away = {begun.id}
        self.answers[0].callback(Answer(status=200))
        self.assertEqual((self.store.outcomes, self.ledger.ended, self.ledger.lost), ([], [], 1))

    def test_claiming_what_this_process_itself_lost_ends_the_first_attempt(self) -> None:
        begun = self.hanging()
        self.store.due = [evolve(begun, attempt=2, lease=UUID(int=2))]
        self.dispatcher.look()
        self.assertEqual((self.cancelled, len(self.backend.attempts), self.ledger.lost), (1, 2, 1))
        self.answers[1].callback(Answer(status=200))
        self.assertEqual([settled.attempt for settled, _ in self.store.outcomes], [2])

    def test_stopping_leaves_no_timer_and_keeps_leases_until_the_last_attempt_has_ended(self) -> None:
        self.hanging()
        stopped = self.dispatcher.stop(100)
        self.clock.pump([1] * 45)
        self.assertTrue(self.store.kept)
        self.answers[0].callback(Answer(status=200))
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BreakerTests(DispatcherTest):
    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.dispatcher.stop(0))
        self.dispatcher = self.make(breaker_failures=3)
        self.dispatcher.start()

    def fail_in_a_row(self, times: int = 3) -> None:
        self.backend.answer = lambda: succeed(Answer(status=500))
        for _ in range(times):
            self.attempt()

    def test_failures_in_a_row_open_it_and_nothing_more_is_begun(self) -> None:
        self.fail_in_a_row()
        self.assertEqual(self.store.breakers, {1})
        self.assertFalse(self.dispatcher.reserve(1, 1))
        self.assertTrue(self.dispatcher.reserve(2, 1))

    def test_a_success_or_a_final_answer_between_them_ends_the_row(self) -> None:
        for status in (200, 410):
            self.fail_in_a_row(2)
            self.backend.answer = lambda status=status: succeed(Answer(status=status))  # type: ignore[misc]
            self.attempt()
        self.fail_in_a_row(2)
        self.assertEqual(self.store.breakers, set())

    def test_no_answer_at_all_counts_and_an_error_of_ours_does_not(self) -> None:
        self.backend.answer = lambda: fail(KeyError("bug"))
        for _ in range(5):
            self.attempt()
        self.flushLoggedErrors(KeyError)
        self.assertEqual(self.store.breakers, set())
        self.backend.answer = lambda: fail(TargetUnreachable("connection refused"))
        for _ in range(3):
            self.attempt()
        self.assertEqual(self.store.breakers, {1})

    def test_what_was_leased_before_is_given_back_unattempted(self) -> None:
        self.dispatcher.reserve(1, 1)
        self.fail_in_a_row()
        attempts = len(self.backend.attempts)
        self.dispatcher.take(self.one())
        self.assertEqual(self.store.outcomes[-1][1], Postponed(delay_seconds=0, reason="", attempted=False))
        self.assertEqual(len(self.backend.attempts), attempts)

    def test_a_probe_that_fails_leaves_it_open_and_its_successor_alone(self) -> None:
        self.fail_in_a_row()
        self.backend.answer = lambda: succeed(Answer(status=503, retry_after="200"))
        self.store.due, self.store.next = [self.one()], [self.one()]  # given up, so that a successor comes
        attempts = len(self.backend.attempts)
        self.dispatcher.look()
        self.assertEqual(len(self.backend.attempts), attempts + 1)
        self.assertEqual(self.store.outcomes[-1][1], Postponed(delay_seconds=0, reason="", attempted=False))
        self.assertEqual(self.store.breakers, {1})

    def test_a_probe_that_succeeds_closes_it_and_all_that_waits_is_looked_for(self) -> None:
        self.fail_in_a_row()
        self.backend.answer = lambda: succeed(Answer(status=200))
        self.store.due, self.store.next = [self.one()], [self.one(), None]
        attempts, asked = len(self.backend.attempts), len(self.store.asked)
        self.dispatcher.look()
        self.assertEqual(self.store.breakers, set())
        self.assertEqual(len(self.backend.attempts), attempts + 2)  # with its successor
        self.assertGreater(len(self.store.asked), asked + 1)
        self.assertTrue(self.dispatcher.reserve(1, 1))

    def test_what_another_process_opened_or_closed_holds_here_at_its_notice_or_soon(self) -> None:
        self.store.breakers = {1}
        self.dispatcher.refresh_breakers()
        self.assertFalse(self.dispatcher.reserve(1, 1))
        self.store.breakers = set()
        asked = len(self.store.asked)
        self.clock.pump([0.3] * 40)
        self.assertTrue(self.dispatcher.reserve(1, 1))
        self.assertGreater(len(self.store.asked), asked)

    def test_while_it_is_open_what_is_accepted_asks_for_no_look(self) -> None:
        self.fail_in_a_row()
        asked = len(self.store.asked)
        for _ in range(100):
            self.dispatcher.reserve(1, 1)
            self.dispatcher.queued(1)
        self.assertEqual(len(self.store.asked), asked)


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
        self.assertEqual(self.store.asked[-1], (49, {1: 1}, 3))

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
            self.dispatcher.reserve(1, 1)
            self.dispatcher.take(self.one())
        self.assertFalse(self.dispatcher.reserve(1, 1))
        self.store.due = [self.one()]
        waiting[0].callback(Answer(status=200))
        self.assertEqual(len(self.backend.attempts), 5)

    def test_what_was_claimed_while_all_places_were_reserved_begins_when_one_is_given_back(self) -> None:
        claim: Deferred[Sequence[Delivery]] = Deferred()
        self.store.claiming = claim
        self.clock.advance(SWEEP_SECONDS)
        self.assertTrue(all(self.dispatcher.reserve(1, 1) for _ in range(4)))
        self.store.claiming = None
        claim.callback([self.one()])
        self.assertEqual(self.backend.attempts, [])
        self.dispatcher.release(1, 1)
        self.assertEqual(len(self.backend.attempts), 1)

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
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        stopped = self.dispatcher.stop(20)
        self.assertNoResult(stopped)
        self.assertFalse(self.dispatcher.reserve(1, 1))
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
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        stopped = self.dispatcher.stop(20)
        self.clock.advance(20)
        self.successResultOf(stopped)
        self.assertIsInstance(self.store.outcomes[0][1], Postponed)

    def test_a_claim_that_is_not_answered_is_not_waited_for_any_longer_than_attempts(self) -> None:
        self.store.claiming = Deferred()
        self.clock.advance(SWEEP_SECONDS)
        stopped = self.dispatcher.stop(20)
        self.clock.advance(19)
        self.assertNoResult(stopped)
        self.clock.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_a_claim_leased_just_before_the_end_is_given_back(self) -> None:
        claim: Deferred[Sequence[Delivery]] = Deferred()
        self.store.claiming = claim
        self.clock.advance(SWEEP_SECONDS)
        stopped = self.dispatcher.stop(20)
        claim.callback([self.one()])
        self.successResultOf(stopped)
        self.assertEqual(self.backend.attempts, [])
        self.assertIsInstance(self.store.outcomes[0][1], Postponed)

    def test_what_cannot_be_recorded_is_tried_again_until_the_cut_off_and_not_after_it(self) -> None:
        self.store.down = True
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        stopped = self.dispatcher.stop(20)
        self.clock.pump([AGAIN_SECONDS] * 39)
        self.assertNoResult(stopped)
        self.clock.pump([AGAIN_SECONDS] * 2)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_could_not_be_recorded_for_an_hour_ends_with_the_cut_off(self) -> None:
        self.store.down = True
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        self.clock.pump([AGAIN_SECONDS] * 7200)
        stopped = self.dispatcher.stop(0)
        self.clock.advance(AGAIN_SECONDS)
        self.successResultOf(stopped)

    def test_an_attempt_that_is_cut_off_while_nothing_can_be_recorded_is_left_to_its_lease(self) -> None:
        self.backend.answer = Deferred
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        self.store.down = True
        stopped = self.dispatcher.stop(20)
        self.clock.advance(20)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_store_that_says_nothing_of_what_was_cut_off_is_waited_for_a_moment_only(self) -> None:
        self.backend.answer = Deferred
        self.store.settling = Deferred()
        self.dispatcher.reserve(1, 1)
        self.dispatcher.take(self.one())
        stopped = self.dispatcher.stop(20)
        self.clock.advance(20)
        self.assertNoResult(stopped)
        self.clock.advance(RECORDING_SECONDS)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_again_it_waits_until_what_was_leased_meanwhile_has_been_given_back(self) -> None:
        self.assertTrue(self.dispatcher.reserve(1, 1))
        self.dispatcher.take(self.one())
        self.assertTrue(self.dispatcher.reserve(1, 1))
        self.successResultOf(self.dispatcher.stop(20))
        given_back: Deferred[None] = Deferred()
        self.store.settling = given_back
        self.dispatcher.take(self.one())
        stopped = self.dispatcher.stop(1)
        self.assertNoResult(stopped)
        given_back.callback(None)
        self.successResultOf(stopped)
        self.assertIsInstance(self.store.outcomes[-1][1], Postponed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_an_idle_dispatcher_is_immediate_and_leaves_no_timer(self) -> None:
        self.successResultOf(self.dispatcher.stop(20))
        self.assertEqual(self.clock.getDelayedCalls(), [])
