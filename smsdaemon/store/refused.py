"""Keeps what was answered 502 in the table refused_sms, behind the answer's back."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.deferreds import InFlight
from smsdaemon.domain.concatenation import sound
from smsdaemon.domain.refused import RefusedSMS
from smsdaemon.errors import SmsDaemonError, StoreUnavailable
from smsdaemon.ports import RefusedCounter
from smsdaemon.samples import Samples
from smsdaemon.store import refused_queries as queries
from smsdaemon.store.batch import Batcher
from smsdaemon.store.driver import Rows
from smsdaemon.store.pool import Pool

MAX_KEPT = 100_000
MAX_KEPT_BYTES = 256 * 1024 * 1024
"""Of text. Past either cap the oldest go, by id; each process looks after every LOOK_AFTER of its own,
so the store may be over by as much."""
LOOK_AFTER_ROWS = 5_000
LOOK_AFTER_CHARACTERS = 8 * 1024 * 1024
TRIM_AT_ONCE = 10_000
"""More than what a process adds between two looks, so that trimming keeps up, and few enough for the
time a statement may take."""
FORGET_AT_ONCE = 1_000

MAX_WAITING = 1_000
MAX_WAITING_CHARACTERS = 16 * 1024 * 1024
"""In memory, for the database."""
PATIENCE_SECONDS = 600.0
"""How long they wait for it: nobody waits with them, and they are few."""
AGAIN_SECONDS = 1.0
"""Between the tries of what failed."""
BATCH_ROWS = 50


class PostgresRefused:
    """Implements ports.RefusedSink."""

    def __init__(self, *, pool: Pool, reactor: IReactorTime, counter: RefusedCounter) -> None:
        self._reactor, self._counter = reactor, counter
        self._samples = Samples(reactor.seconds)
        self._log = Logger(namespace="smsdaemon.store")
        self._batcher: Batcher[RefusedSMS, None] = Batcher(
            lend=pool.lend,
            send=self._keep_all,
            timer=reactor,
            max_rows=BATCH_ROWS,
            max_waiting=MAX_WAITING,
            patience=PATIENCE_SECONDS,
        )
        self._in_flight = InFlight()
        self._waiting = self._waiting_characters = 0
        self._pausing: list[Deferred[None]] = []
        self._alarm: Any = None
        self._rows_unlooked, self._characters_unlooked = LOOK_AFTER_ROWS, 0
        self._closed = False

    def keep(self, sms: RefusedSMS) -> None:
        size = _size(sms)
        if self._waiting >= MAX_WAITING or self._waiting_characters + size > MAX_WAITING_CHARACTERS:
            self._drop("too much is waiting for the database")
            return
        self._waiting += 1
        self._waiting_characters += size
        d = ensureDeferred(self._write(sms))
        d.addCallbacks(lambda _: self._counter.refused_kept(1), self._not_kept)
        self._in_flight.add(d.addBoth(self._off, size))

    async def stop(self, seconds: float) -> None:
        """Write what waits, within so many seconds, and drop the rest."""
        try:
            await self._in_flight.drained().addTimeout(seconds, self._reactor)
        except TimeoutError:
            pass
        finally:
            self._closed = True
            self._batcher.close()
            if self._alarm is not None:
                self._alarm.cancel()
                self._go_on()

    async def _write(self, sms: RefusedSMS) -> None:
        until = self._reactor.seconds() + PATIENCE_SECONDS
        while not self._closed:
            try:
                # A COMMIT that went unanswered does no harm: an id is stored once (of a repeat, `times`
                # may count one too many).
                return await self._batcher.add(sms)
            except StoreUnavailable:
                if self._closed or self._reactor.seconds() > until:
                    raise
            await self._pause()
        raise StoreUnavailable("the store is closed")

    def _pause(self) -> Deferred[None]:
        """Fires for all together: there is one timer, not one for each."""
        d: Deferred[None] = Deferred()
        self._pausing.append(d)
        if self._alarm is None:
            self._alarm = self._reactor.callLater(AGAIN_SECONDS, self._go_on)
        return d

    def _go_on(self) -> None:
        self._alarm = None
        pausing, self._pausing = self._pausing, []
        for d in pausing:
            d.callback(None)

    def _not_kept(self, failure: Failure) -> None:
        if failure.check(SmsDaemonError):
            self._drop(str(failure.value))
        else:
            self._counter.refused_dropped(1)
            self._log.failure("a refused SMS could not be kept", failure=failure)

    def _off(self, _: object, size: int) -> None:
        self._waiting -= 1
        self._waiting_characters -= size

    def _drop(self, why: str, n: int = 1) -> None:
        self._counter.refused_dropped(n)
        more = self._samples.take("dropped")
        if more is not None:
            self._log.warn(
                "refused SMS dropped: {why} ({more} more times since the last such line)",
                why=why,
                more=more,
            )

    def _keep_all(self, connection: Any, batch: list[RefusedSMS]) -> Deferred[list[None]]:
        rows = json.dumps([{"n": n, **_row(sms)} for n, sms in enumerate(batch)], ensure_ascii=False)
        d: Deferred[Any] = connection.rows(queries.KEEP, {"rows": rows})
        d.addCallback(lambda _: self._look(connection, batch))
        return d.addCallback(lambda _: [None] * len(batch))

    def _look(self, connection: Any, batch: list[RefusedSMS]) -> Deferred[None] | None:
        """Whether there is room for more; what is over the caps goes."""
        self._rows_unlooked += len(batch)
        self._characters_unlooked += sum(map(_size, batch))
        if self._rows_unlooked < LOOK_AFTER_ROWS and self._characters_unlooked < LOOK_AFTER_CHARACTERS:
            return None
        self._rows_unlooked = self._characters_unlooked = 0
        caps = {"rows": MAX_KEPT, "bytes": MAX_KEPT_BYTES, "at_once": TRIM_AT_ONCE}
        d: Deferred[Rows] = connection.rows(queries.TRIM, caps)
        return d.addCallbacks(self._trimmed, self._not_trimmed)

    def _trimmed(self, rows: Rows) -> None:
        [(count,)] = rows
        if count:
            self._drop("the store of refused SMS is full, the oldest go", count)

    def _not_trimmed(self, failure: Failure) -> None:
        failure.trap(SmsDaemonError, CancelledError)
        self._rows_unlooked = LOOK_AFTER_ROWS  # at the next batch
        self._log.warn("refused SMS could not be trimmed: {why}", why=str(failure.value))


async def forget_refused(pool: Pool) -> int:
    """Remove what came for the last time 7 days ago; returns how many."""
    total = 0
    while True:
        [(count,)] = await pool.query(queries.FORGET, {"at_once": FORGET_AT_ONCE})
        total += int(count)
        if count < FORGET_AT_ONCE:
            return total


def _size(sms: RefusedSMS) -> int:
    """About the bytes that it takes: cheap, not exact."""
    return len(sms.submission.text) + len(sms.submission.raw_text or b"")


def _row(sms: RefusedSMS) -> dict[str, Any]:
    submission, part = sms.submission, sound(sms.submission.part)
    return {
        "id": str(sms.id),
        "at": sms.received_at.isoformat(),
        "reason": sms.reason,
        "connector_id": sms.connector_id,
        "receiver": sms.receiver,
        "sender": sms.sender,
        "sender_raw": submission.sender,
        "text": submission.text,
        "raw_text": None if submission.raw_text is None else submission.raw_text.hex(),
        "keyword": submission.keyword,
        "provider": submission.provider,
        "provider_message_id": submission.message_id,
        "encoding": submission.encoding,
        "parts": submission.parts,
        "part_reference": None if part is None else part.reference,
        "part_number": None if part is None else part.number,
        "part_total": None if part is None else part.total,
        "repeat_key": None if sms.provider_key is None else sms.provider_key.hex(),
    }
