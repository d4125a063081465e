"""What a quick target gets ahead: leased with what is attempted, begun as places become free."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail

from smsdaemon.domain.model import Answer, Delivery, Postponed
from smsdaemon.errors import TargetUnreachable
from smsdaemon.ready import MOMENT_SECONDS
from smsdaemon.turns import AT_ONCE
from tests.support.deliveries import sms
from tests.unit.test_dispatch import START, DispatcherTest


class TurnTests(DispatcherTest):
    def test_of_many_that_become_free_at_once_some_begin_and_the_others_in_the_next_turns(self) -> None:
        self.dispatcher = self.make(per_target=20)
        self.dispatcher.start()
        self.backend.answer = Deferred
        for _ in range(20):
            self.dispatcher.reserve(1, 1)
            self.dispatcher.take(self.one())
        self.assertEqual(len(self.backend.attempts), AT_ONCE)
        self.clock.advance(0)  # as many turns as it takes
        self.assertEqual(len(self.backend.attempts), 20)

    def test_stopping_gives_back_what_waits_for_its_turn(self) -> None:
        self.dispatcher.stop(5)
        self.dispatcher = self.make(per_target=20)
        self.dispatcher.start()
        answers: list[Deferred[Answer]] = []

        def later() -> Deferred[Answer]:
            answers.append(Deferred())
            return answers[-1]

        self.backend.answer = later
        for _ in range(20):
            self.dispatcher.reserve(1, 1)
            self.dispatcher.take(self.one())
        stopped = self.dispatcher.stop(5)
        for answer in answers:
            answer.callback(Answer(status=200))
        self.successResultOf(stopped)
        self.assertEqual(len(answers), AT_ONCE)
        self.assertEqual(len(self.store.outcomes), 20)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AheadTests(DispatcherTest):
    def setUp(self) -> None:
        super().setUp()
        self.answers: list[Deferred[Answer]] = []

    def be_slow(self) -> None:
        def answer() -> Deferred[Answer]:
            self.answers.append(Deferred())
            return self.answers[-1]

        self.backend.answer = answer

    def be_quick_for_a_moment(self, count: int) -> None:
        """So many answers in the last moment; the next attempts wait for theirs."""
        self.clock.advance(MOMENT_SECONDS)
        for _ in range(count):
            self.attempt()
            self.clock.advance(0)
        self.be_slow()
        self.clock.advance(MOMENT_SECONDS)

    def several(self, count: int) -> list[Delivery]:
        return [self.one(sms=sms(received_at=START, sender=f"+4978978{n}")) for n in range(count)]

    def claim(self, count: int) -> list[Delivery]:
        self.store.due = claimed = self.several(count)
        self.dispatcher.look()
        return claimed

    def test_room_is_offered_for_as_many_as_it_answered_in_a_moment(self) -> None:
        self.be_quick_for_a_moment(20)
        self.claim(1)  # something is in flight, so that the target is named at all
        self.store.asked.clear()
        self.dispatcher.look()
        _, room, _ = self.store.asked[-1]
        self.assertEqual(room, {1: 3 + 20})

    def test_what_is_claimed_beyond_the_places_begins_as_these_become_free(self) -> None:
        self.be_quick_for_a_moment(20)
        began = len(self.backend.attempts)
        self.claim(9)
        self.assertEqual(len(self.backend.attempts) - began, 4)
        for n in range(9):
            self.answers[n].callback(Answer(status=200))
            self.clock.advance(0)
            self.assertEqual(len(self.backend.attempts) - began, min(9, 5 + n))
        self.assertEqual(len(self.store.outcomes), 20 + 9)

    def test_what_is_accepted_beyond_the_places_may_wait_for_one_with_its_lease(self) -> None:
        self.be_quick_for_a_moment(20)
        began = len(self.backend.attempts)
        several = self.several(30)
        taken = [one for one in several if self.dispatcher.reserve(1, 1)]
        self.assertEqual(len(taken), 4 + 20)
        for one in taken:
            self.dispatcher.take(one)
        self.clock.advance(0)
        self.assertEqual(len(self.backend.attempts) - began, 4)
        for n in range(24):
            self.answers[n].callback(Answer(status=200))
            self.clock.advance(0)
        self.assertEqual(len(self.backend.attempts) - began, 24)

    def test_a_place_is_free_with_the_answer_and_not_only_when_that_is_recorded(self) -> None:
        self.be_slow()
        self.claim(5)
        self.store.down = True
        self.answers[0].callback(Answer(status=200))
        self.assertEqual(len(self.backend.attempts), 5)

    def test_where_its_breaker_opens_meanwhile_they_are_given_back_unattempted(self) -> None:
        self.dispatcher = self.make(breaker_failures=3)
        self.dispatcher.start()
        self.be_quick_for_a_moment(20)
        began = len(self.backend.attempts)
        self.claim(12)
        self.backend.answer = lambda: fail(TargetUnreachable("connection refused"))
        for n in range(4):
            self.answers[n].errback(TargetUnreachable("connection refused"))
            self.clock.pump([0, 0, 0])
        self.assertLess(len(self.backend.attempts) - began, 12)
        given_back = [
            outcome
            for _, outcome in self.store.outcomes
            if isinstance(outcome, Postponed) and not outcome.attempted
        ]
        self.assertEqual(len(self.backend.attempts) - began + len(given_back), 12)

    def test_stopping_gives_back_what_waits(self) -> None:
        self.be_quick_for_a_moment(20)
        began = len(self.backend.attempts)
        self.claim(12)
        stopped = self.dispatcher.stop(5)
        for answer in self.answers:
            answer.callback(Answer(status=200))
        self.successResultOf(stopped)
        self.assertEqual(len(self.backend.attempts) - began, 4)
        self.assertEqual(len(self.store.outcomes), 20 + 12)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_waits_keeps_its_lease(self) -> None:
        self.be_quick_for_a_moment(20)
        self.claim(9)
        self.clock.advance(20)
        self.clock.advance(20)
        self.assertEqual(len(self.store.kept[-1]), 9)

    def test_what_waits_and_is_anothers_by_then_is_not_attempted(self) -> None:
        self.be_quick_for_a_moment(20)
        began = len(self.backend.attempts)
        claimed = self.claim(5)
        in_flight = {delivery.id for delivery in self.backend.attempts}
        self.store.taken_away = {delivery.id for delivery in claimed} - in_flight
        self.clock.advance(20)
        self.clock.advance(20)
        for answer in self.answers[:4]:
            answer.callback(Answer(status=200))
        self.assertEqual(len(self.backend.attempts) - began, 4)
        self.assertEqual(self.ledger.lost, 1)
