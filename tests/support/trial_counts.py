"""Reads from trial's output how many tests passed and failed, and takes a skip for a failure."""

from __future__ import annotations

import re

from attrs import frozen

ALLOWED_SKIPS = ("needs root",)
"""What reasons for a skip may begin with; a missing database or plugin is none."""

_SUMMARY = re.compile(r"^(?:PASSED|FAILED)(?: \((.*)\))?$", re.MULTILINE)
_SKIPPED = re.compile(r"^=+\n\[SKIPPED\]\n(.*)\n\n((?:[\w.]+\n)+)", re.MULTILINE)


@frozen
class Counts:
    """Of one run of trial, or of several together."""

    passed: int
    failed: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed"


def counts(printed: str, status: int) -> Counts:
    """What a run of trial printed and how it exited; one that broke off or ran nothing has failed."""
    summaries = _SUMMARY.findall(printed)
    found = {} if not summaries else _numbers(summaries[-1])
    allowed = sum(
        len(tests.split()) for reason, tests in _SKIPPED.findall(printed) if reason.startswith(ALLOWED_SKIPS)
    )
    passed = found.pop("successes", 0) + found.pop("expectedFailures", 0)
    failed = sum(found.values()) - allowed
    if not failed and (status or not passed):
        failed = 1
    return Counts(passed, failed)


def _numbers(summary: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", summary)}
