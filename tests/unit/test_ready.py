"""What is leased ahead of its place: as much as its target takes in a moment."""

from __future__ import annotations

from smsdaemon.ready import MOMENT_SECONDS, Ready
from tests.support.cases import UnitTest


class ReadyTests(UnitTest):
    def setUp(self) -> None:
        self.now = 100.0
        self.ready: Ready[str] = Ready(lambda: self.now)

    def answers(self, target: int, count: int) -> None:
        for _ in range(count):
            self.ready.answered(target)

    def test_nothing_may_wait_for_a_target_that_has_answered_nothing(self) -> None:
        self.assertEqual(self.ready.may_wait(1), 0)

    def test_as_many_may_wait_as_it_answered_in_the_moment_before(self) -> None:
        self.answers(1, 17)
        self.assertEqual(self.ready.may_wait(1), 0)
        self.now += MOMENT_SECONDS
        self.assertEqual((self.ready.may_wait(1), self.ready.may_wait(2)), (17, 0))

    def test_a_target_that_begins_to_hang_gets_nothing_ahead_any_more(self) -> None:
        self.answers(1, 17)
        for _ in range(2):
            self.now += MOMENT_SECONDS
            self.ready.may_wait(2)
        self.assertEqual(self.ready.may_wait(1), 0)

    def test_what_was_answered_long_ago_is_nothing_either(self) -> None:
        self.answers(1, 17)
        self.now += 10 * MOMENT_SECONDS
        self.assertEqual(self.ready.may_wait(1), 0)

    def test_room_can_be_reserved_and_given_back(self) -> None:
        self.answers(1, 2)
        self.now += MOMENT_SECONDS
        self.ready.add(1, "a")
        self.assertTrue(self.ready.reserve(1, 7))
        self.assertFalse(self.ready.reserve(1, 7))
        self.assertFalse(self.ready.reserve(2, 7))
        self.assertEqual(self.ready.waiting(1), 2)
        self.assertEqual([self.ready.release(1, 8), self.ready.release(1, 7)], [False, True])
        self.assertEqual([self.ready.waiting(1), self.ready.release(1, 7)], [1, False])

    def test_who_has_waited_longest_for_a_target_is_taken_first(self) -> None:
        for one in "abc":
            self.ready.add(1, one)
        self.ready.add(2, "d")
        self.assertEqual(self.ready.waiting(1), 3)
        self.assertEqual([self.ready.take(1), self.ready.take(2), self.ready.take(2)], ["a", "d", None])
        self.assertEqual(self.ready.take_all(), ["b", "c"])
        self.assertEqual((self.ready.waiting(1), self.ready.take(1)), (0, None))
