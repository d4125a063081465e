"""Histories of chaos that are made up: what providers, backends and the adversary can have seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.chaos import checker
from tests.chaos.evidence import Run, Terms
from tests.chaos.history import Attempt, Events, Fault, Request, Row
from tests.support.cases import UnitTest

LEASE, TIMEOUT, CONCATENATION = 4.0, 1.5, 3.0


def request(number: int, at: float, *, takes: float = 0.01, **known: Any) -> Request:
    """One of conversation "c", answered 200 with the id ``i<number>``."""
    given = {"identified": True, "status": 200, "id": f"i{number}", **known}
    return Request(conversation="c", number=number, sent=at, ended=at + takes, **given)


def unanswered(number: int, at: float, **known: Any) -> Request:
    return request(number, at, status=0, id=None, **known)


def attempt(number: int, at: float, *, takes: float = 0.1, **known: Any) -> Attempt:
    """One of conversation "c" at target "t", taken with 200."""
    given = {
        "target": "t",
        "delivery": f"d{number}",
        "id": f"i{number}",
        "attempt": 1,
        "end": "answered",
        "status": 200,
        **known,
    }
    return Attempt(conversation="c", number=number, began=at, ended=at + takes, **given)


def row(number: int, **known: Any) -> Row:
    given = {"id": f"i{number}", "state": "delivered", "attempts": 1, **known}
    return Row(conversation="c", number=number, **given)


def fault(kind: str, at: float, takes: float = 1.0) -> Fault:
    return Fault(kind=kind, began=at, ended=at + takes)


class CheckerTest(UnitTest):
    """Checks histories of conversation "c", of which each SMS goes to ``chain``."""

    def run_of(
        self,
        requests: Sequence[Request] = (),
        attempts: Sequence[Attempt] = (),
        rows: Sequence[Row] = (),
        faults: Sequence[Fault] = (),
        aliases: dict[str, str] | None = None,
        chain: Sequence[str] = ("t",),
    ) -> Run:
        events = Events(requests=list(requests), attempts=list(attempts), faults=list(faults))
        terms = Terms(lease=LEASE, timeout=TIMEOUT, concatenation=CONCATENATION, chains={"c": chain})
        return Run(events=events, rows=rows, terms=terms, aliases=aliases or {})

    def wrong(self, invariant: str, **parts: Any) -> int:
        """How many things are wrong with it."""
        return len(checker.check(self.run_of(**parts))[invariant])
