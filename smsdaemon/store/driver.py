"""The only module that knows the driver: connections that heal, and its errors in our words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from txpostgres import txpostgres
from txpostgres.reconnection import ConnectionDead, DeadConnectionDetector
from txpostgres.retrying import RetryingCall

from smsdaemon.errors import StoreConflict, StoreRefused, StoreUnavailable, StoreUnfit
from smsdaemon.store.dsn import completed, names_in, with_addresses
from smsdaemon.store.host_names import Found, HostNames
from smsdaemon.store.prepared import (
    PLANNED_AT_LEAST_FOR_SECONDS,
    PLANNED_FOR_SECONDS,
    SLOW_SECONDS,
    Prepared,
)

T = TypeVar("T")
Rows = list[tuple[Any, ...]]

_NOT_PREPARED = "26000"
CONNECT_SECONDS = 10.0
"""libpq does not time asynchronous connects itself."""


# --- what the driver says, in our words -------------------------------------------------------


def _is_dead(failure: Failure) -> bool:
    """Whether the failure means that the connection is of no more use (not just the statement)."""
    if failure.check(psycopg2.InterfaceError, txpostgres.RollbackFailed, ConnectionDone):
        return True
    if not failure.check(psycopg2.OperationalError):
        return False
    code = getattr(failure.value, "pgcode", None)
    # OperationalError is also what a deadlock or a full disk is; these carry a code.
    return code is None or code.startswith(("08", "57P"))


def translate(failure: Failure) -> Failure:
    """The driver's error as one of ours, without its text: that may quote the row."""
    if failure.check(StoreUnavailable, StoreRefused):
        return failure
    # txpostgres turns a server-side cancellation (statement_timeout) into CancelledError.
    if failure.check(CancelledError):
        error: Exception = StoreUnavailable("PostgreSQL did not answer in time")
    elif failure.check(ConnectionDead, txpostgres.RollbackFailed, ConnectionDone):
        error = StoreUnavailable("the connection to PostgreSQL was lost")
    elif failure.check(psycopg2.Error):
        error = _by_code(getattr(failure.value, "pgcode", None), failure.value)
    else:
        return failure
    error.__cause__ = failure.value
    return Failure(error)


def _by_code(code: str | None, cause: object) -> Exception:
    name = type(cause).__name__
    if code is None:
        if isinstance(cause, psycopg2.ProgrammingError):  # the driver's own complaint
            return StoreRefused(name)
        return StoreUnavailable("the connection to PostgreSQL was lost")
    said = f"{name} ({code})"
    if code == "23505" or code.startswith("40"):
        return StoreConflict(said)
    if code.startswith(("22", "23")):
        return StoreRefused(said)
    if code.startswith(("08", "25006", "25P03", "25P04", "53", "55", "57", "58", "XX")):
        return StoreUnavailable(said)
    # Undefined table, insufficient privilege …: every row would be refused, and none is to blame.
    return StoreUnfit(said)


def complete_dsn(dsn: str, *, statement_timeout: float, name: str = "smsdaemon") -> str:
    """The DSN with what we rely on: time-outs on the server and the socket, UTF-8, UTC.

    What the operator wrote wins, except for the session's own settings. Raises StoreRefused where
    libpq does not understand it (the text names no part of it: it may hold a password).
    """
    try:
        given = psycopg2.extensions.parse_dsn(dsn)
    except psycopg2.ProgrammingError:
        raise StoreRefused("database.dsn is not a libpq connection string or URI") from None
    full = completed(given, statement_timeout=statement_timeout, name=name)
    return str(psycopg2.extensions.make_dsn(**full))


# --- one connection ---------------------------------------------------------------------------


def _pauses() -> Iterator[float]:
    """Seconds before each try to reconnect, without end."""
    pause = 0.0
    while True:
        yield pause
        pause = min(2.0, max(0.05, pause * 1.7))


class _WatchedConnection(psycopg2.extensions.connection):  # type: ignore[misc]
    """psycopg2's connection with a descriptor of its own for the reactor to watch.

    libpq closes its socket whenever it sees fit, and the system gives the number to whoever opens
    something next. A reactor that still watches the number then takes the newcomer for an old
    acquaintance: it never waits for it, and fails when it is to be forgotten. A duplicate keeps its
    number until we close it, which is after the reactor has forgotten it.
    """

    descriptor = -1
    _is_up = False

    def cancel(self) -> None:
        """Nothing: libpq's cancel opens a connection and waits for its end, and with it our reactor.

        txpostgres calls it where a connect is given up; closing the connection ends that as well.
        """

    def poll(self) -> int:
        state: int = super().poll()
        if not self._is_up:
            # While it connects, libpq goes from socket to socket (hosts, TLS refused). The reactor
            # watches none of them meanwhile: txpostgres takes out what it is told of before it polls.
            self._follow()
            self._is_up = state == psycopg2.extensions.POLL_OK
        return state

    def _follow(self) -> None:
        number = self.fileno()
        if self.descriptor == -1 or not os.path.sameopenfile(number, self.descriptor):
            self.close_descriptor()
            self.descriptor = os.dup(number)

    def close_descriptor(self) -> None:
        if self.descriptor != -1:
            os.close(self.descriptor)
            self.descriptor = -1


class _Cursor(txpostgres.Cursor):  # type: ignore[misc]
    """A cursor that is watched by its connection's descriptor."""

    def fileno(self) -> int:
        return self._connection.fileno()  # type: ignore[no-any-return]


class Connection(txpostgres.Connection):  # type: ignore[misc]
    """A txpostgres connection that gives up connecting after a while and dies without a traceback."""

    def __init__(
        self, reactor: Any, detector: Any, names: HostNames, on_unfit: Callable[[str], object]
    ) -> None:
        """``on_unfit``: told of every statement that failed because PostgreSQL is not as it should be."""
        super().__init__(reactor, detector=detector)
        self._names, self._on_unfit = names, on_unfit
        self._looking_up: Deferred[Any] | None = None
        self._watched: _WatchedConnection | None = None

    def connectionFactory(self, dsn: str, **kwargs: Any) -> _WatchedConnection:
        made = psycopg2.connect(self._located, connection_factory=_WatchedConnection, **kwargs)
        assert isinstance(made, _WatchedConnection)
        self._watched = made
        return made

    def cursorFactory(self, cursor: Any, connection: Connection) -> _Cursor:
        return _Cursor(cursor, connection)

    def fileno(self) -> int:
        return -1 if self._watched is None else self._watched.descriptor

    def connect(self, dsn: str) -> Deferred[Any]:
        self._planned: dict[str, float] = {}
        self._unwatch()
        given = psycopg2.extensions.parse_dsn(dsn)
        names = names_in(given, os.environ)
        if not names:
            return self._open(dsn, dsn)
        # Or a first look-up that fails would find nothing to connect again.
        self.detector.setReconnectable(self, dsn)
        found = self._looking_up = self._names.find(names)
        found.addBoth(self._looked_up)
        opened: Deferred[Any] = found.addCallback(self._open_at, dsn, given)
        return opened

    def _looked_up(self, outcome: Any) -> Any:
        self._looking_up = None
        return outcome

    def _open_at(self, found: Found, dsn: str, given: dict[str, str]) -> Deferred[Any]:
        located = with_addresses(given, os.environ, found.addresses)
        if located is None:
            raise psycopg2.OperationalError(found.trouble)
        return self._open(dsn, str(psycopg2.extensions.make_dsn(**located)))

    def _open(self, dsn: str, located: str) -> Deferred[Any]:
        """``dsn`` is what the next connect begins with, as addresses may have changed by then."""
        self._located = located
        d: Deferred[Any] = super().connect(dsn)
        if not d.called:
            late = self.reactor.callLater(CONNECT_SECONDS, self.close)

            def answered(result: T) -> T:
                if late.active():
                    late.cancel()
                return result

            d.addBoth(answered)
        return d

    def close(self) -> None:
        if self._looking_up is not None:
            self._looking_up.cancel()
        self._unwatch()
        if self.pollable() is not None:
            super().close()

    def _unwatch(self) -> None:
        """Take what is watched out of the reactor, then close it: in this order, always."""
        if self._watched is not None:
            self.reactor.removeReader(self)
            self.reactor.removeWriter(self)
            self._watched.close_descriptor()
            self._watched = None

    def doRead(self) -> None:
        self._survive(super().doRead)

    def doWrite(self) -> None:
        self._survive(super().doWrite)

    def _survive(self, progress: Callable[[], None]) -> None:
        """The end of a connection that nobody waits for shows up when its socket is watched.

        txpostgres lets the driver's error escape into the reactor, which logs a traceback before
        it tells connectionLost.
        """
        try:
            progress()
        except psycopg2.Error:
            self.connectionLost(Failure())

    def _runInteraction(self, interaction: Callable[[Any], Deferred[T]]) -> Deferred[T]:
        """As txpostgres does it, but for the traceback in the log when the connection is lost meanwhile."""
        cursor = self.cursor()
        d: Deferred[Any] = cursor.execute("begin")
        d.addCallback(interaction)
        d.addCallback(lambda result: cursor.execute("commit").addCallback(lambda _: result))
        return d.addErrback(self._roll_back, cursor)

    def _roll_back(self, failure: Failure, cursor: Any) -> Deferred[Any]:
        def not_rolled_back(_: Failure) -> Failure:
            lost = psycopg2.InterfaceError("the connection was lost in a transaction")
            return failure if _is_dead(failure) else Failure(lost)

        rolled_back: Deferred[Any] = maybeDeferred(cursor.execute, "rollback")
        return rolled_back.addCallbacks(lambda _: failure, not_rolled_back)

    def rows(self, sql: str, params: object = None) -> Deferred[Rows]:
        """Run one statement, or several joined by ``;`` as one transaction; rows of the last one."""
        d: Deferred[Rows] = self._doit(self._rows, sql, params)
        return d.addErrback(self._translated)

    def steps(self, interaction: Callable[[Any], Deferred[T]]) -> Deferred[T]:
        """Run what is given a cursor as one transaction; fails with our errors."""
        d: Deferred[T] = self.runInteraction(interaction)
        return d.addErrback(self._translated)

    def _translated(self, failure: Failure) -> Failure:
        ours = translate(failure)
        if ours is not failure and ours.check(StoreUnfit):
            self._on_unfit(str(ours.value))
        return ours

    def _rows(self, sql: str, params: object) -> Deferred[Rows]:
        if isinstance(sql, Prepared):
            return self._prepared_rows(sql, params)
        d = self.cursor().execute(sql, params)
        return d.addCallback(fetch)  # type: ignore[no-any-return]

    def _prepared_rows(self, statement: Prepared, params: object) -> Deferred[Rows]:
        planned_at, now = self._planned.get(statement.name), self.reactor.seconds()
        if planned_at is not None and now < planned_at + PLANNED_FOR_SECONDS:
            d = self._rows(statement.execute, params)
        else:
            # With nothing planned it is the first time, or something has failed and nobody knows.
            before = statement.forget if planned_at else "" if self._planned else "DEALLOCATE ALL"
            self._planned[statement.name] = now
            d = self._rows(";".join(filter(None, [before, statement.prepare])), None)
            d.addCallback(lambda _: self._rows(statement.execute, params))
        return d.addCallbacks(self._note_slow, self._plan_again, callbackArgs=(statement.name, now))

    def _note_slow(self, rows: Rows, name: str, sent_at: float) -> Rows:
        """Have a statement planned anew that takes long under a plan that is not new."""
        now = self.reactor.seconds()
        if now - sent_at > SLOW_SECONDS and now - self._planned.get(name, now) > PLANNED_AT_LEAST_FOR_SECONDS:
            self._planned[name] = -inf
        return rows

    def _plan_again(self, failure: Failure) -> Failure:
        """Whatever has failed, what is prepared on this connection is not known now."""
        self._planned.clear()
        if getattr(failure.value, "pgcode", None) == _NOT_PREPARED:
            return Failure(StoreConflict("what was prepared is gone"))
        return failure


def fetch(cursor: Any) -> Rows:
    return cursor.fetchall() if cursor.description is not None else []


class _Detector(DeadConnectionDetector):  # type: ignore[misc]
    """txpostgres' detector, which can be told to stop and says when it starts."""

    def __init__(self, reactor: IReactorTime, on_down: Callable[[str], object]) -> None:
        super().__init__(_is_dead, _pauses, reactor)
        self._on_down = on_down
        self._retrying: Deferred[object] | None = None
        self.stopped = False

    def startReconnecting(self, f: Failure) -> None:
        if self.stopped:
            return
        self._on_down(_first_line(f))
        call = RetryingCall(self.reconnect)
        call.reactor = self.reactor
        self._retrying = call.start(self.reconnectionIterator())
        self._retrying.addCallback(lambda _: self.connectionRecovered())
        self._retrying.addErrback(lambda _: None)  # its pauses never end: this is stop()

    def stop(self) -> None:
        self.stopped = self.connectionIsDead = True
        if self._retrying is not None:
            # Raised where a connect is under way; closing the connection ends that.
            with suppress(txpostgres._CancelInProgress, psycopg2.Error):
                self._retrying.cancel()


class Lifeline:
    """Keeps one connection alive: says when it is up, reconnects when it is not."""

    def __init__(
        self,
        *,
        dsn: str,
        reactor: IReactorTime,
        names: HostNames,
        on_up: Callable[[Connection], object],
        on_down: Callable[[str], object],
        on_unfit: Callable[[str], object],
    ) -> None:
        # One detector each: with a shared one only a single connection comes back (ADR 1).
        self._detector = _Detector(reactor, on_down)
        self._detector.addRecoveryHandler(self._up)
        self.connection = Connection(reactor, self._detector, names, on_unfit)
        self._dsn, self._on_up = dsn, on_up
        self._connected = False

    @property
    def alive(self) -> bool:
        return self._connected and not self._detector.connectionIsDead

    def start(self) -> None:
        d = self.connection.connect(self._dsn)
        d.addCallback(lambda _: self._up())
        # Attached to the first connect too, or a server that is down at our start is never tried again.
        d.addErrback(self._detector.checkForDeadConnection)
        d.addErrback(lambda _: None)

    def _up(self) -> None:
        self._connected = True
        self._on_up(self.connection)

    def close(self) -> None:
        self._detector.stop()
        self.connection.close()


def _first_line(failure: Failure) -> str:
    """Why a connection is down, for the log: libpq's words on connecting name no row."""
    lines = str(failure.value).strip().splitlines()
    return lines[0] if lines else type(failure.value).__name__
