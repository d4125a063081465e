"""Few of many: what a log gets to see of events that anybody can cause at will."""

from __future__ import annotations

from collections.abc import Callable

SPAN_SECONDS = 10.0


class Samples:
    """Lets one event of each kind pass in a span of time, and counts those that it holds back.

    Keeps two numbers for each kind, so kinds must be few: never what a peer has sent.
    """

    def __init__(self, seconds: Callable[[], float], span: float = SPAN_SECONDS) -> None:
        """``seconds``: a clock, as a reactor's."""
        self._seconds, self._span = seconds, span
        self._passed_at: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def take(self, kind: str) -> int | None:
        """How many were held back since the last one that passed; None: hold back this one too."""
        now = self._seconds()
        last = self._passed_at.get(kind)
        # A clock that steps back must not make for silence until it is where it was.
        if last is not None and last <= now < last + self._span:
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return None
        self._passed_at[kind] = now
        return self._held_back.pop(kind, 0)
