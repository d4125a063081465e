"""What tests of whole processes share: waiting for conditions, and a guard against waiting for ever."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TypeVar

from tests.support.cases import UnitTest

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
"""Far more than anything takes; a machine may be slow."""


def until(condition: Callable[[], T], what: str, patience: float = PATIENCE_SECONDS) -> T:
    """Wait for a condition, not for a time; gives back what made it true."""
    end = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.01)
    return found


class ProcessTest(UnitTest):
    """Plays peers and backends with blocking calls and threads; the daemons are processes.

    trial's own ``timeout`` needs a reactor, which does not run here; an alarm of the system does.
    """

    guard_seconds = 180
    maxDiff = None

    def setUp(self) -> None:
        former = signal.signal(signal.SIGALRM, self._too_late)
        self.addCleanup(signal.signal, signal.SIGALRM, former)
        signal.alarm(self.guard_seconds)
        self.addCleanup(signal.alarm, 0)

    def _too_late(self, _number: int, _frame: FrameType | None) -> NoReturn:
        raise AssertionError(f"the test took more than {self.guard_seconds} s")
