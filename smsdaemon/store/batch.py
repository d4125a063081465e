"""Group commit: rows gather while a batch is under way, and go together in the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Generic, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from smsdaemon.errors import StoreConflict, StoreOverloaded, StoreRefused, StoreUnavailable
from smsdaemon.ports import Timer
from smsdaemon.store.pace import Pace

Row = TypeVar("Row")
Result = TypeVar("Result")
Connection = Any

MAX_ROWS = 200
STATEMENT_SECONDS = 2.5
"""Server-side limit of one statement of the hot path."""
PATIENCE_SECONDS = 2.0
"""How long a row waits for a connection. With the above: under the 5 s in which a peer hears 500."""
MAX_REPEATS = 20
"""A batch refused because another process was at the same rows goes through the next time, nearly
always; this bounds the rest."""


@define(eq=False)
class _Waiting(Generic[Row, Result]):
    row: Row
    until: float
    done: Deferred[Result]


@define(eq=False)
class _Together(Generic[Row, Result]):
    """Rows that are sent in one transaction, and whose results come together."""

    rows: list[Row]
    until: float
    done: Deferred[list[Result]]


_Entry = _Waiting[Row, Result] | _Together[Row, Result]


class Batcher(Generic[Row, Result]):
    """Sends rows in batches: one row alone where nothing is under way, many under load.

    A row that could not be sent within ``patience`` seconds is withdrawn: nothing of it is stored.
    """

    def __init__(
        self,
        *,
        lend: Callable[[Callable[[Connection], Deferred[None]]], Deferred[None]],
        send: Callable[[Connection, list[Row]], Deferred[list[Result]]],
        timer: Timer,
        max_waiting: int,
        patience: float = PATIENCE_SECONDS,
        max_rows: int = MAX_ROWS,
        under_way: int = 1,
    ) -> None:
        """``lend`` calls back with a connection when one is free (store.pool.Pool.lend).

        ``send`` makes one transaction of the rows and fires with one result per row, in order; it
        fails with StoreConflict (is repeated), StoreRefused (the rows are tried one by one, so that
        a bad one does not fail its neighbours) or StoreUnavailable (all of them fail).

        ``under_way``: one batch at a time, since with two, what came first could be committed second.
        It costs nothing (docs/performance.md): the batches grow instead.
        """
        self._lend, self._send, self._timer = lend, send, timer
        self._may_be_under_way, self._max_rows = under_way, max_rows
        self._max_waiting, self._patience = max_waiting, patience
        self._waiting: deque[_Entry[Row, Result]] = deque()
        self._under_way = 0
        self._closed = False
        self._alarm: Any = None
        self._pace = Pace(timer)
        self._gathering: Any = None

    def add(self, row: Row) -> Deferred[Result]:
        """Send the row with the next batch; fires with its own result.

        Cancelling withdraws a row that was not sent. One that was may be stored or not, but is not
        sent again where its batch is repeated.
        """
        d: Deferred[Result] = Deferred()
        self._take(_Waiting(row, self._timer.seconds() + self._patience, d))
        return d

    def add_all(self, rows: list[Row]) -> Deferred[list[Result]]:
        """As add(), but all of them in one transaction, or none; fires with a result for each.

        They go together also where they are more than ``max_rows``.
        """
        if len(rows) == 1:
            return self.add(rows[0]).addCallback(lambda result: [result])
        d: Deferred[list[Result]] = Deferred()
        self._take(_Together(rows, self._timer.seconds() + self._patience, d))
        return d

    def _take(self, entry: _Entry[Row, Result]) -> None:
        if self._closed:
            entry.done.errback(StoreUnavailable("the store is closed"))
            return
        if len(self._waiting) >= self._max_waiting:
            entry.done.errback(StoreOverloaded("too many are waiting for the database"))
            return
        self._waiting.append(entry)
        if self._alarm is None:
            self._alarm = self._timer.callLater(self._patience, self._withdraw)
        self._pump()

    def close(self) -> None:
        """Withdraw what was not sent and take nothing more; what is under way goes on."""
        self._closed = True
        for call in (self._alarm, self._gathering):
            if call is not None:
                call.cancel()
        self._alarm = self._gathering = None
        waiting, self._waiting = self._waiting, deque()
        for entry in _wanted(waiting):
            entry.done.errback(StoreUnavailable("the store is closed"))

    def _pump(self) -> None:
        # A batch takes its rows when it has a connection, not when it asks for one: what comes in
        # the meantime goes along.
        while self._waiting and self._under_way < self._may_be_under_way:
            pause = self._pace.pause(len(self._waiting), self._waiting[0].until - self._patience)
            if pause:
                if self._gathering is None:
                    self._gathering = self._timer.callLater(pause, self._gathered)
                return
            if self._gathering is not None:
                self._gathering.cancel()
                self._gathering = None
            self._under_way += 1
            self._lend(self._one_batch).addCallbacks(self._done, self._not_lent)

    def _gathered(self) -> None:
        self._gathering = None
        self._pump()

    def _one_batch(self, connection: Connection) -> Deferred[None]:
        taken: list[_Entry[Row, Result]] = []
        room = self._max_rows
        while self._waiting and room > 0:
            entry = self._waiting.popleft()
            taken.append(entry)
            room -= len(entry.rows) if isinstance(entry, _Together) else 1
        self._pace.begun(len(taken))
        return self._try(taken, connection, MAX_REPEATS)

    def _try(
        self, entries: list[_Entry[Row, Result]], connection: Connection, repeats: int
    ) -> Deferred[None]:
        entries = _wanted(entries)
        if not entries:
            return succeed(None)
        d = self._send(connection, _rows(entries))
        return d.addCallbacks(
            self._deliver, self._failed, callbackArgs=(entries,), errbackArgs=(entries, connection, repeats)
        )

    def _deliver(self, results: list[Result], entries: list[_Entry[Row, Result]]) -> None:
        found = iter(results)
        for entry in entries:
            if isinstance(entry, _Together):
                together = list(islice(found, len(entry.rows)))
                if not entry.done.called:
                    entry.done.callback(together)
                continue
            result = next(found)
            if not entry.done.called:
                entry.done.callback(result)

    def _failed(
        self,
        failure: Failure,
        entries: list[_Entry[Row, Result]],
        connection: Connection,
        repeats: int,
    ) -> Deferred[None] | None:
        if failure.check(StoreConflict) and repeats > 0:
            return self._try(entries, connection, repeats - 1)
        if failure.check(StoreRefused) and len(entries) > 1:
            return self._one_by_one(entries, connection)
        for entry in entries:
            if not entry.done.called:
                entry.done.errback(failure)
        return None

    def _one_by_one(self, entries: list[_Entry[Row, Result]], connection: Connection) -> Deferred[None]:
        def next_one(_: None) -> Deferred[None]:
            if not remaining:
                return succeed(None)
            return self._try([remaining.popleft()], connection, MAX_REPEATS).addCallback(next_one)

        remaining = deque(entries)
        return next_one(None)

    def _done(self, _: object) -> None:
        self._under_way -= 1
        self._pace.ended(len(self._waiting))
        self._pump()

    def _not_lent(self, failure: Failure) -> None:
        """No connection will come: asking for the next would fail at once, again and again."""
        waiting, self._waiting = self._waiting, deque()
        self._under_way -= 1
        for entry in _wanted(waiting):
            entry.done.errback(failure)

    def _withdraw(self) -> None:
        """Fail what has waited too long for a connection, and look again when the next would have."""
        self._alarm = None
        now = self._timer.seconds()
        late = []
        while self._waiting and self._waiting[0].until <= now:
            late.append(self._waiting.popleft())
        for entry in _wanted(late):
            entry.done.errback(StoreUnavailable("PostgreSQL is not reachable"))
        if self._waiting and self._alarm is None:
            self._alarm = self._timer.callLater(self._waiting[0].until - now, self._withdraw)


def _wanted(entries: Iterable[_Entry[Row, Result]]) -> list[_Entry[Row, Result]]:
    """Without those whose result nobody waits for any more."""
    return [entry for entry in entries if not entry.done.called]


def _rows(entries: list[_Entry[Row, Result]]) -> list[Row]:
    rows: list[Row] = []
    for entry in entries:
        if isinstance(entry, _Together):
            rows += entry.rows
        else:
            rows.append(entry.row)
    return rows
