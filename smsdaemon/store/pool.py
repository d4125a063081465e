"""Connections that heal, lent to one user at a time.

txpostgres' own ConnectionPool is not used: a connection that died goes back into its idle set, where
the next query finds it first (docs/adr/0001). Here only living connections are lent; whoever finds
none waits until one is back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.errors import StoreUnavailable
from smsdaemon.samples import Samples
from smsdaemon.store.driver import Connection, Lifeline, Rows, complete_dsn, fetch, translate
from smsdaemon.store.host_names import HostNames

CLOSING_SECONDS = 1.0
"""How long what runs may still take when the pool closes. A PostgreSQL that is frozen answers nothing, and
nobody else ends what waits for it: the server's own time-outs are as frozen as the server."""

T = TypeVar("T")
Run = Callable[..., Awaitable[Rows]]


# --- the pool ---------------------------------------------------------------------------------


class Pool:
    """``size`` connections, each of which reconnects for itself; lends the living ones in turn."""

    def __init__(self, *, dsn: str, size: int, reactor: IReactorTime, statement_timeout: float) -> None:
        self._log = Logger(namespace="smsdaemon.store")
        full = complete_dsn(dsn, statement_timeout=statement_timeout)
        self._names = HostNames(reactor)
        self._lifelines = [
            Lifeline(
                dsn=full,
                reactor=reactor,
                names=self._names,
                on_up=self._came_up,
                on_down=self._went_down,
                on_unfit=self._is_unfit,
            )
            for _ in range(size)
        ]
        self._of = {line.connection: line for line in self._lifelines}
        self._idle: deque[Connection] = deque()
        self._waiting: deque[Deferred[Connection]] = deque()
        self._lent: set[Connection] = set()
        self._reactor = reactor
        self._drained: Deferred[None] | None = None
        self._closed = False
        self._late: Any = None
        self._last_trouble = ""
        self._samples = Samples(reactor.seconds)

    @property
    def alive(self) -> int:
        """How many connections are up."""
        return sum(line.alive for line in self._lifelines)

    def start(self) -> None:
        """Begin to connect; what is not reachable now is tried again until it is."""
        for line in self._lifelines:
            line.start()

    def close(self) -> Deferred[None]:
        """Close when what runs has ended, or soon; whoever waits for a connection fails.

        What still runs after CLOSING_SECONDS fails too; whether it is carried out nobody knows.
        """
        if self._drained is None:
            self._drained = Deferred()
            self._late = self._reactor.callLater(CLOSING_SECONDS, self._close_lines)
            waiting, self._waiting = self._waiting, deque()
            for d in waiting:
                d.errback(StoreUnavailable("the pool is closed"))
            self._close_if_drained()
        return self._drained

    def query(self, sql: str, params: object = None) -> Deferred[Rows]:
        """Run one statement, or several joined by ``;`` as one transaction; rows of the last one."""
        return self.lend(lambda connection: connection.rows(sql, params))

    def transaction(self, interaction: Callable[[Run], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """Run an async function that is given ``run(sql, params)``, as one transaction."""
        return self.lend(lambda connection: connection.steps(interaction_of(interaction)))

    def lend(self, use: Callable[[Connection], Deferred[T]]) -> Deferred[T]:
        """Call ``use`` with a connection when one is free; it is free again when that ends.

        The Deferred may be cancelled while it waits for a connection; what has begun goes on.
        """
        result: Deferred[T] = Deferred()
        waiter: Deferred[Connection] = Deferred(self._forget)
        begun = False

        def lent(connection: Connection) -> Deferred[T]:
            nonlocal begun
            begun = True
            self._lent.add(connection)
            return use(connection).addBoth(self._given_back, connection)

        def cancel(_: Deferred[T]) -> None:
            if not begun:
                waiter.cancel()

        result = Deferred(cancel)
        done = waiter.addCallback(lent).addErrback(translate)
        done.addBoth(lambda outcome: None if result.called else _fire(result, outcome))
        self._waiting.append(waiter)
        if self._drained is not None:
            self._waiting.pop().errback(StoreUnavailable("the pool is closed"))
        else:
            self._serve()
        return result

    def _forget(self, waiter: Deferred[Connection]) -> None:
        self._waiting.remove(waiter)

    def _serve(self) -> None:
        while self._waiting and self._idle:
            connection = self._idle.popleft()
            if self._of[connection].alive:
                self._waiting.popleft().callback(connection)

    def _given_back(self, outcome: T, connection: Connection) -> T:
        self._lent.discard(connection)
        if self._drained is not None:
            self._close_if_drained()
        elif self._of[connection].alive:
            self._idle.append(connection)
            self._serve()
        return outcome

    def _came_up(self, connection: Connection) -> None:
        if self._last_trouble:
            self._log.info("PostgreSQL is reachable again")
            self._last_trouble = ""
        if connection not in self._idle and connection not in self._lent:
            self._idle.append(connection)
        self._serve()

    def _went_down(self, why: str) -> None:
        if why != self._last_trouble:
            self._log.warn("PostgreSQL is not reachable: {why}", why=why)
            self._last_trouble = why

    def _is_unfit(self, why: str) -> None:
        more = self._samples.take(why)
        if more is not None:
            said = "PostgreSQL is not as it should be: {why} ({more} more since the last such line)"
            self._log.error(said, why=why, more=more)

    def _close_if_drained(self) -> None:
        if not self._lent:
            self._close_lines()

    def _close_lines(self) -> None:
        if self._closed:  # what runs is given back while its line is closed
            return
        self._closed = True
        if self._late.active():
            self._late.cancel()
        self._names.close()
        for line in self._lifelines:
            line.close()
        assert self._drained is not None, "only close() leads here"
        self._drained.callback(None)


def interaction_of(steps: Callable[[Run], Coroutine[Any, Any, T]]) -> Callable[[Any], Deferred[T]]:
    """What Connection.steps() takes: ``steps`` as one transaction."""

    def in_transaction(cursor: Any) -> Deferred[T]:
        async def run(sql: str, params: object = None) -> Rows:
            await cursor.execute(sql, params)
            return fetch(cursor)

        return ensureDeferred(steps(run))

    return in_transaction


def _fire(d: Deferred[T], outcome: Any) -> None:
    if isinstance(outcome, Failure):
        d.errback(outcome)
    else:
        d.callback(outcome)


# --- notifications ----------------------------------------------------------------------------


LISTEN_AGAIN_SECONDS = 1.0


class Listener:
    """A connection of its own that hears NOTIFY on some channels, and listens again after a loss.

    Also where the connection lives and LISTEN failed: a standby that is promoted later keeps its
    connections, so that nothing else would make it listen.
    """

    def __init__(
        self,
        *,
        dsn: str,
        channels: dict[str, Callable[[], object]],
        on_listening: Callable[[], object],
        reactor: IReactorTime,
    ) -> None:
        """``on_listening``: called whenever listening (again): what was said before was not heard."""
        self._channels, self._on_listening = channels, on_listening
        self._log = Logger(namespace="smsdaemon.store")
        full = complete_dsn(dsn, statement_timeout=5.0, name="smsdaemon listener")
        self._names = HostNames(reactor)
        self._line = Lifeline(
            dsn=full,
            reactor=reactor,
            names=self._names,
            on_up=self._listen,
            on_down=lambda why: None,
            on_unfit=lambda why: None,
        )
        self._line.connection.addNotifyObserver(self._heard)
        self._reactor = reactor
        self._again: IDelayedCall | None = None
        self._closed = False
        self._last_trouble = ""

    def start(self) -> None:
        self._line.start()

    def close(self) -> None:
        self._closed = True
        self._no_more_tries()
        self._names.close()
        self._line.close()

    def _listen(self, connection: Connection) -> None:
        self._no_more_tries()
        d = connection.rows(";".join(f"LISTEN {channel}" for channel in self._channels))
        d.addCallbacks(self._listens, self._not_listening, errbackArgs=(connection,))
        d.addErrback(lambda f: self._log.failure("what was not heard was not read", failure=f))

    def _listens(self, _: Rows) -> None:
        self._last_trouble = ""
        self._on_listening()

    def _not_listening(self, failure: Failure, connection: Connection) -> None:
        if self._closed:
            return
        why = str(failure.value)
        if why != self._last_trouble:
            self._log.warn("cannot listen: {why}", why=why)
            self._last_trouble = why
        self._no_more_tries()
        self._again = self._reactor.callLater(LISTEN_AGAIN_SECONDS, self._try_again, connection)

    def _try_again(self, connection: Connection) -> None:
        if self._line.alive:  # otherwise it is called when the connection is back
            self._listen(connection)

    def _no_more_tries(self) -> None:
        if self._again is not None and self._again.active():
            self._again.cancel()

    def _heard(self, notify: Any) -> None:
        callback = self._channels.get(notify.channel)
        if callback is not None:
            callback()
