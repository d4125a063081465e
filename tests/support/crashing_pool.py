"""What a process reaches PostgreSQL by: real connections, with each await counted in a Life."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from smsdaemon.store import directory_queries, message_queries, part_queries, queries
from smsdaemon.store.driver import Rows, fetch, translate
from smsdaemon.store.pool import Pool
from tests.support.crashing import DONE, OUTLIVED, How, Life, Turn

T = TypeVar("T")


class _TakenBack(Exception):
    """Rolls a transaction back."""


class CrashingPool(Pool):
    """What a store of one process is given to reach PostgreSQL: the real pool's ways, counted."""

    def __init__(self, real: Pool, life: Life) -> None:
        self._real, self._life = real, life

    @property
    def alive(self) -> int:
        return 0 if self._life.away else self._real.alive

    def lend(self, use: Callable[[Any], Deferred[T]]) -> Deferred[T]:
        waiting: Deferred[None] = Deferred()
        self._reach(waiting)
        d = waiting.addCallback(lambda _: use(CrashingConnection(self._real, self._life)))
        return cast("Deferred[T]", d).addErrback(translate)

    def _reach(self, waiting: Deferred[None]) -> None:
        if self._life.dead or waiting.called:
            return
        if self._life.away:
            self._life.clock.callLater(0.1, self._reach, waiting)
        else:
            waiting.callback(None)


class CrashingConnection:
    """The part of store.driver.Connection that the stores use."""

    def __init__(self, real: Pool, life: Life) -> None:
        self._real, self._life = real, life

    def rows(self, sql: str, params: object = None) -> Deferred[Rows]:
        return self._life.lives(self._rows(sql, params))

    async def _rows(self, sql: str, params: object) -> Rows:
        self._life.reach_postgres()
        how = self._life.meets(_name(sql))
        if how is How.COMMITS_LATE or how in OUTLIVED:
            late = await self._committed_late(sql, params)
            if how is How.COMMITS_LATE:
                return await late
            late.addErrback(lambda _: None)
            self._life.fail(how)

        def do() -> Deferred[Rows]:
            return self._real.lend(lambda connection: connection.rows(sql, params))

        async def taken_back() -> None:
            with suppress(_TakenBack):
                await self._in_transaction(sql, params, _take_back)

        return await self._life.goes(how, do, taken_back)

    async def _committed_late(self, sql: str, params: object) -> Deferred[Rows]:
        """Executed when this comes back; fires when it is committed."""
        go_on: Deferred[None] = Deferred()
        executed: Deferred[None] = Deferred()

        async def execute() -> Deferred[Rows]:
            committed = self._in_transaction(sql, params, lambda: go_on, executed)
            await executed
            return ensureDeferred(self._life.server.commit_late(go_on, committed))

        return await self._life.work(execute)

    def _in_transaction(
        self,
        sql: str,
        params: object,
        then: Callable[[], Awaitable[None]],
        executed: Deferred[None] | None = None,
    ) -> Deferred[Rows]:
        """Commit after ``then``, roll back where it fails."""

        async def interaction(cursor: Any) -> Rows:
            try:
                await cursor.execute(sql, params)
                found = fetch(cursor)
            finally:
                if executed is not None:
                    executed.callback(None)
            await then()
            return found

        return self._real.lend(
            lambda connection: connection.runInteraction(lambda cursor: ensureDeferred(interaction(cursor)))
        )

    def steps(self, interaction: Callable[[Any], Deferred[T]]) -> Deferred[T]:
        return self._life.lives(self._transaction(interaction))

    async def _transaction(self, interaction: Callable[[Any], Deferred[T]]) -> T:
        life = self._life
        life.reach_postgres()
        await life.awaited("BEGIN", _nothing, _nothing)
        turn = Turn(life.server)
        await life.spend(ensureDeferred(turn.acquire()))
        how: How | None = None
        executed: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()

        async def whole(cursor: Any) -> T:
            nonlocal how
            result = await interaction(CrashingCursor(cursor, life, turn))
            how = life.meets("COMMIT")
            if how in OUTLIVED:
                executed.callback(None)
                await go_on
            elif how in {How.LATE, How.COMMITS_LATE}:
                turn.release()
                await life.pause()
            elif how is not None and how not in DONE and how is not How.SLOW:
                life.fail(how)
            return result

        outcome: list[Any] = []

        def ended(result: Any) -> None:
            turn.release()
            outcome.append(result)
            if not executed.called:
                executed.callback(None)

        committed: Deferred[Any] = self._real.lend(
            lambda connection: connection.runInteraction(lambda cursor: ensureDeferred(whole(cursor)))
        )
        committed.addBoth(ended)
        await life.spend(executed)
        if how in OUTLIVED:
            turn.release()
            ensureDeferred(life.server.commit_late(go_on, committed))
            life.fail(how)
        [result] = outcome
        if isinstance(result, Failure):
            result.raiseException()
        return await life.goes(how if how in {*DONE, How.SLOW} else None, partial(_given, result), _nothing)


class CrashingCursor:
    """The part of txpostgres' Cursor that Pool.transaction uses."""

    def __init__(self, real: Any, life: Life, turn: Turn) -> None:
        self._real, self._life, self._turn = real, life, turn

    @property
    def description(self) -> Any:
        return self._real.description

    def fetchall(self) -> Rows:
        return cast(Rows, self._real.fetchall())

    def execute(self, sql: str, params: object = None) -> Deferred[Any]:
        def do() -> Deferred[Any]:
            return cast("Deferred[Any]", self._real.execute(sql, params))

        how = self._life.meets(f"step {_name(sql)}")
        if how in {How.LATE, How.SLOW}:
            self._turn.release()  # others go on meanwhile, and meet the locks of this transaction
        # Not Life.lives(): who dies here must unwind the transaction first.
        return ensureDeferred(self._life.goes(how, do, do, in_turn=False))


async def _take_back() -> None:
    raise _TakenBack


async def _nothing() -> None:
    return None


async def _given(value: T) -> T:
    return value


def _name(sql: str) -> str:
    """What the code calls a statement."""
    for module in (queries, message_queries, part_queries, directory_queries):
        for name, value in vars(module).items():
            if value == sql and not name.startswith("_"):
                return name
    return " ".join(sql.split())[:40]
