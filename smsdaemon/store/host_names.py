"""Addresses of the hosts in a DSN, for libpq: it looks them up in our thread, for as long as DNS takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.python.failure import Failure

from smsdaemon.names import LookUp, Names, system_look_up

LOOK_UP_SECONDS = 5.0


@frozen
class Found:
    """``addresses`` of the names that have some; ``trouble``: why others have none, a line or ""."""

    addresses: dict[str, Sequence[str]]
    trouble: str


class HostNames:
    """Looks all names of a DSN up, none of them for longer than anybody wants to wait."""

    def __init__(
        self, reactor: Any, look_up: LookUp = system_look_up, seconds: float = LOOK_UP_SECONDS
    ) -> None:
        self._reactor, self._seconds = reactor, seconds
        self._names = Names(reactor=reactor, look_up=look_up, patience=seconds)

    def find(self, names: Sequence[str]) -> Deferred[Found]:
        """Fires after ``seconds`` at the latest, with what is known then; may be cancelled."""
        asked: list[Deferred[Any]] = [self._ask(name) for name in names]
        return gatherResults(asked, consumeErrors=True).addCallback(_sorted_out, names)

    def close(self) -> None:
        """Begin no more look-ups."""
        self._names.close()

    def _ask(self, name: str) -> Deferred[Any]:
        asked: Deferred[Any] = self._names.addresses(name).addTimeout(self._seconds, self._reactor)
        asked.addErrback(_why, name)
        return asked


def _why(failure: Failure, name: str) -> str | Failure:
    if failure.check(CancelledError):
        return failure
    if failure.check(TimeoutError):
        return f"the address of {name} was not found in time"
    return f"the address of {name} was not found: {failure.value}"


def _sorted_out(outcomes: list[Sequence[str] | str], names: Sequence[str]) -> Found:
    pairs = list(zip(names, outcomes, strict=True))
    return Found(
        {name: outcome for name, outcome in pairs if not isinstance(outcome, str)},
        "; ".join(outcome for _, outcome in pairs if isinstance(outcome, str)),
    )
