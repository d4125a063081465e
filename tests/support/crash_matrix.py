"""The deterministic crash matrix: a scenario is played once for every await and every way it can end."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from itertools import count
from typing import cast

from psycopg2.extensions import make_dsn
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime

from smsdaemon.store.migrate import migrate
from smsdaemon.store.pool import Pool
from tests.support.cases import ReactorTest
from tests.support.crash_ledger import AUDIT, faults_in_the_database
from tests.support.crash_stage import Stage
from tests.support.crashing import MATTERS_TO_A_JOURNAL, How
from tests.support.postgres import make_database

_CLEAR = """
    DELETE FROM delivery; DELETE FROM ended_delivery; DELETE FROM message; DELETE FROM provider_repeat;
    DELETE FROM message_alias; DELETE FROM attempt; DELETE FROM concatenation; DELETE FROM seen
"""


_databases: dict[type, str] = {}


class CrashMatrixTest(ReactorTest):
    """One database for all tests of a class, emptied before each run; it goes with its server."""

    timeout = 100
    ways: Iterable[How] = tuple(how for how in How if how not in MATTERS_TO_A_JOURNAL)

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        new = type(self) not in _databases
        # The server is not what dies here, so nothing is gained by waiting for its disk.
        if new:
            _databases[type(self)] = make_dsn(make_database(), options="-c synchronous_commit=off")
        dsn = _databases[type(self)]
        self.pool = Pool(dsn=dsn, size=4, reactor=cast(IReactorTime, reactor), statement_timeout=20.0)
        self.addCleanup(self.pool.close)
        self.pool.start()
        if new:
            await migrate(self.pool)
            await self.pool.query(AUDIT)

    def stage(self, at: int = 0, how: How | None = None) -> Stage:
        return Stage(self.pool, datetime.now(UTC), at, how)

    async def matrix(
        self,
        scenario: str,
        play: Callable[[Stage], Awaitable[None]],
        *,
        at_least: int,
        ways: Iterable[How] | None = None,
    ) -> None:
        """Play it for each n and way until it comes through without an n-th await.

        ``ways``: those of the class, if not given. ``at_least``: how many awaits there are to be, so that
        the matrix cannot shrink unnoticed.
        """
        points = runs = 0
        # Up to the await that goes wrong, all runs are the same: what it is is known after the first way.
        met: dict[int, str] = {}
        for how in ways or self.ways:
            for n in count(1):
                if how.same_as_another_for(met.get(n, "")):
                    continue
                stage = self.stage(n, how)
                await self._one_run(scenario, play, stage, n, how)
                runs += 1
                if not stage.fate.met:
                    break
                met[n] = stage.fate.met
        points = len(met)
        sys.stderr.write(f"crash matrix: {scenario}: {points} awaits, {runs} runs\n")
        self.assertGreaterEqual(points, at_least, scenario)

    async def _one_run(
        self, scenario: str, play: Callable[[Stage], Awaitable[None]], stage: Stage, n: int, how: How
    ) -> None:
        await self.pool.query(_CLEAR)
        try:
            await play(stage)
            await stage.rest()
            faults = [f"meanwhile: {fault}" for fault in await faults_in_the_database(self.pool)]
            await stage.come_to_an_end()
            faults += await stage.faults()
        except Exception as error:
            raise AssertionError(f"{_where(scenario, stage, n, how)}: {error!r}") from error
        finally:
            await stage.clear()
        assert not faults, f"{_where(scenario, stage, n, how)}: {'; '.join(faults)}"


def _where(scenario: str, stage: Stage, n: int, how: How) -> str:
    return f"{scenario}, await {n} ({stage.fate.met or 'not reached'}), {how.value}"
