"""How long rows wait for others: not at all where few come, and never beyond a bound."""

from __future__ import annotations

from twisted.internet.task import Clock

from smsdaemon.store.pace import LONGEST_SECONDS, Pace
from tests.support.cases import UnitTest


class PaceTests(UnitTest):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pace = Pace(self.clock)

    def batches(self, count: int, rows: int, every: float) -> None:
        for _ in range(count):
            self.clock.advance(every)
            self.pace.begun(rows)
            self.pace.ended(0)

    def pause(self, waiting: int) -> float:
        return self.pace.pause(waiting, self.clock.seconds())

    def test_the_first_row_goes_at_once(self) -> None:
        self.assertEqual(self.pause(1), 0)

    def test_where_few_come_none_waits(self) -> None:
        self.batches(50, rows=2, every=0.02)
        self.assertEqual(self.pause(1), 0)

    def test_where_many_come_they_wait_for_as_many_as_there_were_the_last_time(self) -> None:
        self.batches(50, rows=30, every=0.01)
        self.assertAlmostEqual(self.pause(29), LONGEST_SECONDS)
        self.assertEqual(self.pause(30), 0)

    def test_what_came_while_it_was_under_way_is_waited_for_with_the_rest(self) -> None:
        self.batches(50, rows=14, every=0.01)
        self.pace.ended(18)
        self.assertAlmostEqual(self.pause(18), LONGEST_SECONDS)
        self.assertEqual(self.pause(32), 0)

    def test_the_first_of_them_waits_no_longer_than_the_bound(self) -> None:
        self.batches(50, rows=30, every=0.01)
        since = self.clock.seconds()
        self.clock.advance(LONGEST_SECONDS * 0.75)
        self.assertAlmostEqual(self.pace.pause(3, since), LONGEST_SECONDS * 0.25)
        self.clock.advance(LONGEST_SECONDS)
        self.assertEqual(self.pace.pause(3, since), 0)

    def test_the_more_come_the_longer_they_wait(self) -> None:
        pauses = []
        for every in (0.1, 0.02, 0.015, 0.005):
            self.batches(50, rows=8, every=every)
            pauses.append(self.pause(1))
        self.assertEqual(pauses, sorted(pauses))
        self.assertEqual(pauses[0], 0)
        self.assertLess(0, pauses[1])
        self.assertAlmostEqual(pauses[-1], LONGEST_SECONDS)

    def test_a_burst_is_soon_forgotten(self) -> None:
        self.batches(20, rows=100, every=0.01)
        self.clock.advance(1)
        self.pace.begun(2)
        self.pace.ended(0)
        self.assertEqual(self.pause(1), 0)
