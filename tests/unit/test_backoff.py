"""When a failed delivery is tried again."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from smsdaemon.domain.backoff import RetryPolicy
from tests.support.cases import UnitTest
from tests.support.deliveries import RECEIVED_AT as START

POLICY = RetryPolicy(schedule=(0, 2, 10.5), give_up_after=100)


class DelayTests(UnitTest):
    def test_follows_the_schedule_and_repeats_its_last_delay(self) -> None:
        delays = [POLICY.delay_before(attempt, jitter=0) for attempt in (1, 2, 3, 4, 500)]
        self.assertEqual(delays, [0, 2, 10.5, 10.5, 10.5])

    @given(st.integers(1, 1000), st.floats(-1, 1))
    def test_jitter_is_a_fifth_either_way_and_leaves_zero_alone(self, attempt: int, jitter: float) -> None:
        planned = POLICY.delay_before(attempt, jitter=0)
        delay = POLICY.delay_before(attempt, jitter)
        self.assertTrue(planned * 0.8 - 1e-9 <= delay <= planned * 1.2 + 1e-9)

    def test_jitter_reaches_both_ends(self) -> None:
        self.assertAlmostEqual(POLICY.delay_before(2, -1), 1.6)
        self.assertAlmostEqual(POLICY.delay_before(2, 1), 2.4)

    def test_a_schedule_without_delays_or_with_a_negative_one_is_refused(self) -> None:
        for schedule in ((), (1, -1)):
            with self.assertRaises(ValueError):
                RetryPolicy(schedule=schedule, give_up_after=1)


class NextDueTests(UnitTest):
    def due(self, attempt: int, seconds_in: float, retry_after: float | None = None) -> float | None:
        """Seconds from the failure, which is ``seconds_in`` the round, to the next attempt."""
        now = START + timedelta(seconds=seconds_in)
        due_at = POLICY.next_due(attempt, START, now, 0.0, retry_after)
        return None if due_at is None else (due_at - now).total_seconds()

    def test_the_delay_is_that_of_the_next_attempt_counted_from_the_failure(self) -> None:
        self.assertEqual(self.due(1, 0.5), 2)
        self.assertEqual(self.due(2, 3), 10.5)
        self.assertEqual(self.due(3, 14), 10.5)

    def test_gives_up_when_the_next_attempt_would_begin_too_late(self) -> None:
        self.assertEqual(self.due(9, 89.5), 10.5)
        self.assertIsNone(self.due(9, 89.6))

    def test_retry_after_makes_a_delay_longer_never_shorter(self) -> None:
        self.assertEqual(self.due(1, 0, retry_after=30), 30)
        self.assertEqual(self.due(2, 0, retry_after=1), 10.5)

    def test_retry_after_does_not_outlast_giving_up(self) -> None:
        self.assertIsNone(self.due(1, 50, retry_after=51))

    def test_gives_up_only_after_an_attempt(self) -> None:
        at_once = RetryPolicy(schedule=(0,), give_up_after=0)
        self.assertEqual(at_once.delay_before(1, 0), 0)
        self.assertIsNone(at_once.next_due(1, START, START + timedelta(seconds=1), 0.0))
