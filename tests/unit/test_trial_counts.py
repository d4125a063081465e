"""What `make test` and .ci/run make of trial's output."""

from __future__ import annotations

from tests.support.cases import UnitTest
from tests.support.trial_counts import Counts, counts

SKIPS = """\
===============================================================================
[SKIPPED]
{reason}

tests.e2e.test_a.ATests.test_one
tests.e2e.test_a.ATests.test_two
-------------------------------------------------------------------------------
Ran 5 tests in 1.000s

PASSED (skips=2, successes=3)
"""


class CountsTests(UnitTest):
    def test_a_pass_is_counted(self) -> None:
        self.assertEqual(counts("…\nPASSED (successes=215)\n", 0), Counts(215, 0))

    def test_failures_errors_and_unexpected_successes_are_failures(self) -> None:
        printed = "FAILED (failures=2, errors=3, unexpectedSuccesses=1, successes=9)\n"
        self.assertEqual(counts(printed, 1), Counts(9, 6))

    def test_a_skip_is_a_failure(self) -> None:
        self.assertEqual(counts(SKIPS.format(reason="no PostgreSQL here"), 0), Counts(3, 2))

    def test_an_allowed_skip_is_none(self) -> None:
        self.assertEqual(counts(SKIPS.format(reason="needs root"), 0), Counts(3, 0))

    def test_a_run_that_prints_no_summary_has_failed(self) -> None:
        for printed in ("", "Traceback …", "Ran 0 tests in 0.000s\n\nPASSED\n"):
            self.assertEqual(counts(printed, 0), Counts(0, 1), printed)

    def test_an_exit_status_that_the_summary_does_not_explain_is_a_failure(self) -> None:
        self.assertEqual(counts("PASSED (successes=3)\n", 1), Counts(3, 1))

    def test_the_last_summary_counts(self) -> None:
        printed = "PASSED (successes=1)\nFAILED (errors=1, successes=2)\n"
        self.assertEqual(counts(printed, 1), Counts(2, 1))

    def test_the_sum_is_printed_as_promised(self) -> None:
        self.assertEqual(str(Counts(3, 0) + Counts(2, 1)), "5 passed, 1 failed")
