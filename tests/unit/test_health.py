"""What the daemon makes of what its workers say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from attrs import frozen

from smsdaemon.health import DaemonHealth
from smsdaemon.worker_state import JournalState, LiveWorker, WorkerState
from tests.support.cases import UnitTest


@frozen
class SayingCrew:
    states: Sequence[WorkerState | None]

    def workers(self) -> list[LiveWorker]:
        return [
            LiveWorker(
                number=number,
                pid=None,
                since=datetime.now(UTC),
                restarts=0,
                silent_seconds=0.0,
                stalled=False,
                state=state,
            )
            for number, state in enumerate(self.states, 1)
        ]


def said(pending: int = 0, *, usable: bool = True) -> WorkerState:
    journal = JournalState(usable=usable, pending=pending, aside=0, trouble="")
    return WorkerState(accepts=True, database=True, directory=True, journal=journal, breakers=0)


class JournaledTests(UnitTest):
    def journaled(self, *states: WorkerState | None) -> bool:
        nothing = cast(Any, None)
        crew = SayingCrew(states)
        return DaemonHealth(crew=crew, pool=nothing, guarantee=nothing, gauges=nothing).journaled()

    def test_it_holds_nothing_where_all_who_said_something_say_so(self) -> None:
        self.assertFalse(self.journaled(said(), said()))
        self.assertFalse(self.journaled(said(), None))
        without = WorkerState(accepts=True, database=True, directory=True, journal=None, breakers=0)
        self.assertFalse(self.journaled(without))

    def test_it_may_hold_something_where_nobody_knows(self) -> None:
        self.assertTrue(self.journaled(None, None))
        self.assertTrue(self.journaled(said(), said(2)))
        self.assertTrue(self.journaled(said(usable=False), said()))
