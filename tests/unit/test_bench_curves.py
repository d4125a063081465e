"""Samples and rates from the times of single events."""

from __future__ import annotations

from tests.bench.curves import Events, curves
from tests.support.cases import UnitTest


class EventsTests(UnitTest):
    def test_what_happened_at_a_moment_counts_as_so_far(self) -> None:
        events = Events([3.0, 1.0, 2.0, 2.0])
        self.assertEqual([events.so_far(at) for at in (0.9, 1.0, 2.0, 9.0)], [0, 1, 3, 4])

    def test_adjacent_spans_count_each_event_once(self) -> None:
        events = Events([0.0, 1.0, 2.0, 3.0])
        self.assertEqual(events.between(0.0, 2.0) + events.between(2.0, 4.0), 4)
        self.assertEqual(events.rate(0.0, 2.0), 1.0)
        self.assertEqual(events.rate(2.0, 2.0), 0.0)

    def test_a_gap_may_be_at_the_ends_or_all_there_is(self) -> None:
        events = Events([10.0, 10.5, 13.0])
        self.assertEqual(events.longest_gap(10.0, 13.5), 2.5)
        self.assertEqual(events.longest_gap(4.0, 11.0), 6.0)
        self.assertEqual(events.longest_gap(13.5, 20.0), 6.5)


class CurvesTests(UnitTest):
    def test_samples_begin_before_the_load_and_end_after_the_last_event(self) -> None:
        accepted, delivered = Events([100.1, 100.2, 100.6]), Events([100.3, 100.7, 101.1])
        found = curves(accepted, delivered, origin=100.0, start=99.5, end=101.1, step=0.25)
        self.assertEqual(found.seconds, [-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25])
        self.assertEqual(found.accepted, [0, 0, 0, 2, 2, 3, 3, 3])
        self.assertEqual(found.delivered, [0, 0, 0, 0, 1, 2, 2, 3])
        self.assertEqual(found.pending, [0, 0, 0, 2, 1, 1, 1, 0])
