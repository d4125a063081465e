"""When a failed delivery is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smsdaemon.domain.backoff import RetryPolicy
from tests.support.cases import UnitTest

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


class NextDelayTests(UnitTest):
    def test_the_delay_is_that_of_the_next_attempt(self) -> None:
        delays = [POLICY.next_delay(attempt, 0.5, 0.0) for attempt in (1, 2, 3)]
        self.assertEqual(delays, [2, 10.5, 10.5])

    def test_gives_up_when_the_next_attempt_would_begin_too_late(self) -> None:
        self.assertEqual(POLICY.next_delay(9, 89.5, 0.0), 10.5)
        self.assertIsNone(POLICY.next_delay(9, 89.6, 0.0))

    def test_retry_after_makes_a_delay_longer_never_shorter(self) -> None:
        self.assertEqual(POLICY.next_delay(1, 0, 0.0, retry_after=30), 30)
        self.assertEqual(POLICY.next_delay(2, 0, 0.0, retry_after=1), 10.5)

    def test_retry_after_does_not_outlast_giving_up(self) -> None:
        self.assertIsNone(POLICY.next_delay(1, 50, 0.0, retry_after=51))

    def test_gives_up_only_after_an_attempt(self) -> None:
        at_once = RetryPolicy(schedule=(0,), give_up_after=0)
        self.assertEqual(at_once.delay_before(1, 0), 0)
        self.assertIsNone(at_once.next_delay(1, 1, 0.0))
