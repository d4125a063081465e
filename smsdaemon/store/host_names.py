"""Looks up the addresses of host names in threads: libpq does it in ours, for as long as DNS takes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, gatherResults
from twisted.python.failure import Failure

LOOK_UP_SECONDS = 5.0
MOST_THREADS = 8

LookUp = Callable[[str], list[str]]


@frozen
class Found:
    """``addresses`` of the names that have some; ``trouble``: why others have none, a line or ""."""

    addresses: dict[str, list[str]]
    trouble: str


def system_look_up(name: str) -> list[str]:
    """As libpq does it, /etc/hosts and all; blocks. Raises OSError."""
    # Bytes: of text Python would make IDNA, which libpq does not.
    found = socket.getaddrinfo(name.encode(), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_address(where) for *_, where in found))


def _address(where: tuple[Any, ...]) -> str:
    scope = where[3] if len(where) == 4 else 0
    return f"{where[0]}%{scope}" if scope and "%" not in where[0] else str(where[0])


class HostNames:
    """A thread for each name that is being looked up, whoever and however often it is asked for.

    A look-up cannot be broken off. One that hangs keeps its one thread, which keeps nobody from exiting.
    """

    def __init__(
        self, reactor: Any, look_up: LookUp = system_look_up, seconds: float = LOOK_UP_SECONDS
    ) -> None:
        self._reactor, self._look_up, self._seconds = reactor, look_up, seconds
        self._under_way: dict[str, list[Deferred[list[str]]]] = {}

    def find(self, names: Sequence[str]) -> Deferred[Found]:
        """Fires after ``seconds`` at the latest, with what is known then; may be cancelled."""
        asked: list[Deferred[Any]] = [self._ask(name).addErrback(_why, name) for name in names]
        return gatherResults(asked, consumeErrors=True).addCallback(_sorted_out, names)

    def _ask(self, name: str) -> Deferred[list[str]]:
        waiting = self._under_way.get(name)
        if waiting is None:
            if len(self._under_way) >= MOST_THREADS:
                return fail(OSError("too many names are being looked up"))
            try:
                Thread(target=self._in_thread, args=(name,), daemon=True).start()
            except RuntimeError as error:  # the system gives no more
                return fail(error)
            waiting = self._under_way[name] = []
        d: Deferred[list[str]] = Deferred(waiting.remove)
        waiting.append(d)
        return d.addTimeout(self._seconds, self._reactor)

    def _in_thread(self, name: str) -> None:
        outcome: list[str] | Failure
        try:
            outcome = self._look_up(name)
        except Exception:  # noqa: BLE001  # whatever it is, somebody waits for it
            outcome = Failure()
        self._reactor.callFromThread(self._answered, name, outcome)

    def _answered(self, name: str, outcome: list[str] | Failure) -> None:
        for d in self._under_way.pop(name):
            d.callback(outcome)


def _why(failure: Failure, name: str) -> str | Failure:
    if failure.check(CancelledError):
        return failure
    if failure.check(TimeoutError):
        return f"the address of {name} was not found in time"
    why = getattr(failure.value, "strerror", None) or str(failure.value)
    return f"the address of {name} was not found: {why}"


def _sorted_out(outcomes: list[list[str] | str], names: Sequence[str]) -> Found:
    pairs = list(zip(names, outcomes, strict=True))
    return Found(
        {name: outcome for name, outcome in pairs if not isinstance(outcome, str)},
        "; ".join(outcome for _, outcome in pairs if isinstance(outcome, str)),
    )
