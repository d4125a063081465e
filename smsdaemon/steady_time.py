"""Timers that do not notice when somebody sets the clock."""

from __future__ import annotations

import time
from typing import Any


def keep_steady(reactor: Any) -> None:
    """Have the reactor measure time by the monotonic clock; to be called before it has any timer.

    Twisted's own is the time of day: set back by an hour, every timer is an hour late, and a lease
    lasts for an hour too long.
    """
    reactor.seconds = time.monotonic
