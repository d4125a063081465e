"""Group commit: rows gather while a batch is under way, and go together in the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from smsdaemon.errors import StoreConflict, StoreRefused, StoreUnavailable
from smsdaemon.ports import Timer

Row = TypeVar("Row")
Result = TypeVar("Result")
Connection = Any

MAX_REPEATS = 20
"""A batch refused because another process was at the same rows goes through the next time, nearly
always; this bounds the rest."""


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
        under_way: int,
        max_rows: int,
        max_waiting: int,
        patience: float,
    ) -> None:
        """``lend`` calls back with a connection when one is free (store.pool.Pool.lend).

        ``send`` makes one transaction of the rows and fires with one result per row, in order; it
        fails with StoreConflict (is repeated), StoreRefused (the rows are tried one by one, so that
        a bad one does not fail its neighbours) or StoreUnavailable (all of them fail).
        """
        self._lend, self._send, self._timer = lend, send, timer
        self._may_be_under_way, self._max_rows = under_way, max_rows
        self._max_waiting, self._patience = max_waiting, patience
        self._waiting: deque[tuple[float, Row, Deferred[Result]]] = deque()
        self._under_way = 0
        self._alarm: Any = None

    def add(self, row: Row) -> Deferred[Result]:
        """Send the row with the next batch; fires with its own result."""
        d: Deferred[Result] = Deferred()
        if len(self._waiting) >= self._max_waiting:
            d.errback(StoreUnavailable("too many are waiting for the database"))
            return d
        self._waiting.append((self._timer.seconds() + self._patience, row, d))
        if self._alarm is None:
            self._alarm = self._timer.callLater(self._patience, self._withdraw)
        self._pump()
        return d

    def close(self) -> None:
        """Withdraw what was not sent; what is under way goes on."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        waiting, self._waiting = self._waiting, deque()
        for _, _, d in waiting:
            d.errback(StoreUnavailable("the store is closed"))

    def _pump(self) -> None:
        # A batch takes its rows when it has a connection, not when it asks for one: what comes in
        # the meantime goes along.
        while self._waiting and self._under_way < self._may_be_under_way:
            self._under_way += 1
            self._lend(self._one_batch).addBoth(self._done)

    def _one_batch(self, connection: Connection) -> Deferred[None]:
        taken = [self._waiting.popleft() for _ in range(min(self._max_rows, len(self._waiting)))]
        if not taken:
            return succeed(None)
        return self._try([(row, d) for _, row, d in taken], connection, MAX_REPEATS)

    def _try(
        self, rows: list[tuple[Row, Deferred[Result]]], connection: Connection, repeats: int
    ) -> Deferred[None]:
        d = self._send(connection, [row for row, _ in rows])
        return d.addCallbacks(
            self._deliver, self._failed, callbackArgs=(rows,), errbackArgs=(rows, connection, repeats)
        )

    def _deliver(self, results: list[Result], rows: list[tuple[Row, Deferred[Result]]]) -> None:
        for (_, d), result in zip(rows, results, strict=True):
            d.callback(result)

    def _failed(
        self, failure: Failure, rows: list[tuple[Row, Deferred[Result]]], connection: Connection, repeats: int
    ) -> Deferred[None] | None:
        if failure.check(StoreConflict) and repeats > 0:
            return self._try(rows, connection, repeats - 1)
        if failure.check(StoreRefused) and len(rows) > 1:
            return self._one_by_one(rows, connection)
        for _, d in rows:
            d.errback(failure)
        return None

    def _one_by_one(self, rows: list[tuple[Row, Deferred[Result]]], connection: Connection) -> Deferred[None]:
        def next_one(_: None) -> Deferred[None]:
            if not remaining:
                return succeed(None)
            return self._try([remaining.popleft()], connection, MAX_REPEATS).addCallback(next_one)

        remaining = deque(rows)
        return next_one(None)

    def _done(self, _: object) -> None:
        self._under_way -= 1
        self._pump()

    def _withdraw(self) -> None:
        """Fail what has waited too long for a connection, and look again when the next would have."""
        self._alarm = None
        now = self._timer.seconds()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, d = self._waiting.popleft()
            d.errback(StoreUnavailable("PostgreSQL is not reachable"))
        if self._waiting:
            self._alarm = self._timer.callLater(self._waiting[0][0] - now, self._withdraw)
