"""A process that comes to grief at a chosen await, on a real PostgreSQL: one way, one place, each run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, NoReturn, TypeVar, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred
from twisted.internet.task import Clock, deferLater

from smsdaemon.errors import SmsDaemonError, StoreConflict, StoreUnavailable
from smsdaemon.store.pool import Pool

T = TypeVar("T")
reactor = cast(Any, _reactor)

LATE_SECONDS = 1.0
"""Longer than it takes until the journal is used; the server's own limit of a statement is not reached,
as this is the process' time and not the server's."""
AWAY_SECONDS = 2.0
QUIET_SECONDS = 20.0
"""Of real time: who is still at it then does the same again and again."""


class How(Enum):
    """What becomes of an await."""

    UNSENT = "lost before it was sent"
    ROLLED_BACK = "lost in the middle of its transaction"
    UNANSWERED = "committed, its answer lost"
    CONFLICT = "rolled back for another's sake"
    LATE = "sent, and reaches the server late"
    COMMITS_LATE = "holds its locks for long before it is committed"
    SLOW = "committed, answered late"
    UNSENT_AWAY = "lost before it was sent, and PostgreSQL away for a while"
    UNANSWERED_AWAY = "committed, its answer lost, and PostgreSQL away for a while"
    OUTLIVED = "its connection lost, committed only later"
    DIED_BEFORE = "the process died before it was sent"
    DIED_AFTER = "the process died after it was committed"
    DIED_OUTLIVED = "the process died, committed only later"

    def same_as_another_for(self, what: str) -> bool:
        """Whether it makes no difference of its own: nothing is left open in a journal or by reading."""
        if what.startswith("journal."):
            return self not in _FOR_ANYTHING
        if what.startswith("step "):
            return self not in _WITHIN_A_TRANSACTION
        return what.startswith("SELECT") and self not in _FOR_ANYTHING | _AWAY


_FOR_ANYTHING = {How.UNSENT, How.UNANSWERED, How.LATE, How.SLOW, How.DIED_BEFORE, How.DIED_AFTER}
_WITHIN_A_TRANSACTION = {How.UNSENT, How.CONFLICT, How.LATE, How.DIED_BEFORE, How.UNSENT_AWAY}
"""Whatever else was done in it before is undone all the same."""
_UNDONE = {How.ROLLED_BACK, How.CONFLICT}
DONE = {How.UNANSWERED, How.UNANSWERED_AWAY, How.DIED_AFTER}
_AWAY = {How.UNSENT_AWAY, How.UNANSWERED_AWAY}
MATTERS_TO_A_JOURNAL = {*_AWAY, How.SLOW}
"""Where there is none, these are as good as the same without the wait."""
_IN_TIME = {How.LATE, How.COMMITS_LATE, How.SLOW}
OUTLIVED = {How.OUTLIVED, How.DIED_OUTLIVED}
_DEATHS = {How.DIED_BEFORE, How.DIED_AFTER, How.DIED_OUTLIVED}


class _Died(Exception):
    """Unwinds what holds a connection of the test's; nobody of the dead process hears of it."""


class Server:
    """What all processes share: PostgreSQL, time as it passes there, and whose turn it is."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.turn = DeferredLock()
        """Awaits are made one after the other, of all processes, so that a run can be repeated."""
        self.clock = Clock()
        self._waiting: list[Deferred[None]] = []
        self.open = self.ending = 0
        """Transactions that are committed when the clock goes on; and those that are being committed."""

    async def commit_late(self, go_on: Deferred[None], committed: Deferred[T]) -> T:
        """Leave a transaction open for a while."""
        self.open += 1
        await deferLater(cast(Any, self.clock), LATE_SECONDS)
        self.open -= 1
        self.ending += 1
        go_on.callback(None)
        try:
            return await committed
        finally:
            reactor.callLater(0, self._ended)

    def _ended(self) -> None:
        self.ending -= 1
        self.rest()

    def rests(self) -> Deferred[None]:
        """Fires when something that took real time is done."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def rest(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)


class Turn:
    """The right to be the only one that does something; a transaction has it for all its steps."""

    def __init__(self, server: Server) -> None:
        self._lock = server.turn
        self._held = False

    async def acquire(self) -> None:
        await self._lock.acquire()
        self._held = True

    def release(self) -> None:
        """Nothing happens where it is not held any more."""
        if self._held:
            self._held = False
            self._lock.release()


class Life:
    """One process' time and its awaits; once it is dead, whatever it awaits never fires."""

    def __init__(self, server: Server, at: int = 0, how: How | None = None) -> None:
        """``at``: the number of the await, from 1, that ends as ``how``; 0: none."""
        self.clock = Clock()
        self.dead = False
        self.awaits = 0
        self.met = ""
        """What the await was that went wrong; empty while it was not reached."""
        self.belongings: list[Callable[[], Awaitable[None]]] = []
        self._at, self._how = at, how
        self._away_until = 0.0
        self.server = server
        self._running = self._spending = 0
        self.pausing = 0
        """What goes on when the clock does; it may hold locks."""
        self._never: list[Deferred[Any]] = []

    @property
    def away(self) -> bool:
        """Whether PostgreSQL cannot be reached."""
        return self.clock.seconds() < self._away_until

    @property
    def busy(self) -> bool:
        """Whether something will happen although the clock stands."""
        return self._running > 0 or self._spending > self.pausing

    def spare(self) -> None:
        """From now on nothing happens to it."""
        self._at = 0

    async def bury(self) -> None:
        """Give back what the system takes back from a process that dies."""
        for give_back in self.belongings:
            await give_back()

    def lose_postgres(self) -> None:
        """It cannot be reached for a while, and every connection to it is lost."""
        self._away_until = self.clock.seconds() + AWAY_SECONDS

    # --- what the wrappers call ------------------------------------------------------------------

    def lives(self, steps: Coroutine[Any, Any, T]) -> Deferred[T]:
        """A Deferred of what the process awaits."""
        return ensureDeferred(self._while_alive(steps))

    async def awaited(
        self, what: str, do: Callable[[], Awaitable[T]], taken_back: Callable[[], Awaitable[object]]
    ) -> T:
        """One await; ``taken_back`` does the same without committing it."""
        return await self.goes(self.meets(what), do, taken_back)

    async def goes(
        self,
        how: How | None,
        do: Callable[[], Awaitable[T]],
        taken_back: Callable[[], Awaitable[object]],
        in_turn: bool = True,
    ) -> T:
        """As awaited(), of one that was counted; ``in_turn``: False where its process has the turn."""
        if how is How.LATE:
            await self.pause()
        if how is None or how in _IN_TIME:
            result = await self.work(do, in_turn)
            if how is How.SLOW:
                await self.pause()
            return result
        with suppress(SmsDaemonError):
            if how in DONE:
                await self.work(do, in_turn)
            elif how in _UNDONE:
                await self.work(taken_back, in_turn)
        self.fail(how)

    def meets(self, what: str) -> How | None:
        """Count an await; how it goes wrong, if it is the one."""
        self.awaits += 1
        if self.awaits != self._at:
            return None
        self.met = what
        return self._how

    def fail(self, how: How) -> NoReturn:
        """What the process hears, if anything."""
        if how in _DEATHS:
            self.dead = True
            ensureDeferred(self.work(self.bury))
            raise _Died
        if how in _AWAY:
            self.lose_postgres()
        if how is How.CONFLICT:
            raise StoreConflict("made to repeat it")
        raise StoreUnavailable("the connection to PostgreSQL was lost")

    async def work(self, do: Callable[[], Awaitable[T]], in_turn: bool = True) -> T:
        """Do what takes real time, after what was begun before."""
        self._running += 1
        turn = Turn(self.server)
        if in_turn:
            await turn.acquire()
        try:
            return await do()
        finally:
            turn.release()
            # The process goes on first, and may have more to do.
            reactor.callLater(0, self._rest)

    async def spend(self, d: Deferred[T]) -> T:
        """Wait for what takes real time now and then."""
        self._spending += 1
        try:
            return await d
        finally:
            self._spending -= 1
            self._running += 1
            reactor.callLater(0, self._rest)

    def reach_postgres(self) -> None:
        """Raises StoreUnavailable while it cannot be reached."""
        if self.away:
            raise StoreUnavailable("the connection to PostgreSQL was lost")

    async def pause(self) -> None:
        """What takes long by the process' own clock."""
        self.pausing += 1
        reactor.callLater(0, self.server.rest)
        await deferLater(cast(Any, self.clock), LATE_SECONDS)
        self.pausing -= 1

    async def _while_alive(self, steps: Coroutine[Any, Any, T]) -> T:
        try:
            if self.dead:
                steps.close()
                raise _Died
            result = await steps
        except _Died:
            result = await self._nothing()
        except SmsDaemonError:
            if not self.dead:
                raise
        return result if not self.dead else cast(T, await self._nothing())

    async def _nothing(self) -> Any:
        # Kept: what is collected runs the `finally` of a process that is dead.
        never: Deferred[Any] = Deferred()
        self._never.append(never)
        return await never

    def _rest(self) -> None:
        self._running -= 1
        self.server.rest()


async def quiet(lives: Sequence[Life], server: Server) -> None:
    """Come back when nothing happens any more unless a clock goes on."""
    await deferLater(reactor, 0)
    end = reactor.seconds() + QUIET_SECONDS
    while server.ending or any(life.busy for life in lives):
        assert reactor.seconds() < end, "it goes on and on"
        if server.ending or not (server.open or any(life.pausing for life in lives)):
            await server.rests()
        elif (await server.pool.query(_BLOCKED))[0][0]:
            return
        else:
            await deferLater(reactor, 0.001)


_BLOCKED = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
