"""What signatures say to come once only, remembered for a while, for all processes."""

from __future__ import annotations

import json
from collections import OrderedDict
from hashlib import blake2b
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.errors import SmsDaemonError
from smsdaemon.ports import Timer
from smsdaemon.store.batch import MAX_ROWS, Batcher
from smsdaemon.store.driver import Rows
from smsdaemon.store.pool import Pool

PATIENCE_SECONDS = 0.3
"""After that PostgreSQL counts as away, and this process' memory has to do."""
MAX_REMEMBERED = 50_000
MAX_WAITING = 5_000
KNOWN_FOR = "1 day"
LASTING = "29 days"
"""How much longer where only the nonce keeps a signature from being used again; 150 bytes for each SMS."""

# The column connector_id holds a digest of profile and secret (ports.NonceStore): of the same type, so that a
# smsdaemon that still keeps nonces by connector can go on beside this one. What is to last is of the future.

_SEE = f"""
WITH input AS MATERIALIZED (
    SELECT DISTINCT ON (connector_id, nonce) connector_id, decode(nonce, 'hex') AS nonce,
           decode(content, 'hex') AS content,
           now() + CASE WHEN in_time THEN interval '0' ELSE interval '{LASTING}' END AS seen_at
    FROM json_to_recordset(%(rows)s)
        AS r(n integer, connector_id bigint, nonce text, content text, in_time boolean)
    ORDER BY connector_id, nonce, n
), seen AS (
    -- A repeat updates the row it meets with what it holds, since only that returns it.
    INSERT INTO provider_nonce AS p (connector_id, nonce, content, seen_at)
    SELECT connector_id, nonce, content, seen_at FROM input ORDER BY connector_id, nonce
    ON CONFLICT (connector_id, nonce) DO UPDATE SET
        content = CASE WHEN p.seen_at < now() - interval '{KNOWN_FOR}'
                       THEN EXCLUDED.content ELSE p.content END,
        seen_at = CASE WHEN p.seen_at < now() - interval '{KNOWN_FOR}'
                       THEN EXCLUDED.seen_at ELSE p.seen_at END
    RETURNING connector_id, encode(nonce, 'hex'), encode(content, 'hex')
)
SELECT * FROM seen
"""

_FORGET = f"""
WITH forgotten AS (
    DELETE FROM provider_nonce WHERE (connector_id, nonce) IN (
        SELECT connector_id, nonce FROM provider_nonce
        WHERE seen_at < now() - interval '{KNOWN_FOR}' ORDER BY seen_at LIMIT %(at_once)s)
    AND seen_at < now() - interval '{KNOWN_FOR}'  -- again: as in message_queries.FORGET_REPEATS
    RETURNING 1)
SELECT count(*) FROM forgotten
"""

Key = tuple[int, str]


@frozen
class _Seen:
    key: Key
    content: str
    in_time: bool


class PostgresNonces:
    """Implements ports.NonceStore: in PostgreSQL, and in this process' memory in front of it.

    While PostgreSQL is away a nonce is known to the process only that has seen it; it is written down
    with the next one that PostgreSQL takes.
    """

    def __init__(self, *, pool: Pool, timer: Timer) -> None:
        self._log = Logger(namespace="smsdaemon.store")
        self._memory: OrderedDict[Key, str] = OrderedDict()
        self._unwritten: OrderedDict[Key, _Seen] = OrderedDict()
        self._away = False
        self._timer = timer
        self._batcher: Batcher[_Seen, str] = Batcher(
            lend=pool.lend,
            send=self._send,
            timer=timer,
            max_waiting=MAX_WAITING,
            patience=PATIENCE_SECONDS,
        )

    def close(self) -> None:
        """Ask PostgreSQL no more."""
        self._batcher.close()

    def see(self, signed_with: int, nonce: str, content: bytes, in_time: bool) -> Deferred[bool]:
        key = (signed_with, blake2b(nonce.encode(), digest_size=16).hexdigest())
        seen = _Seen(key, content.hex(), in_time)
        known = self._memory.get(seen.key)
        if known is not None:
            return succeed(known == seen.content)
        asked = self._batcher.add(seen)
        answered: Deferred[bool] = asked.addCallbacks(
            self._compared, self._not_asked, callbackArgs=(seen,), errbackArgs=(seen,)
        )
        # A statement may take longer than anybody waits; it is not broken off for that.
        return _first_of(answered, self._timer, 2 * PATIENCE_SECONDS, lambda: self._on_my_own(seen))

    def _compared(self, content: str, seen: _Seen) -> bool:
        if self._away:
            self._away = False
            self._log.info("nonces are shared again")
        # Only now: what PostgreSQL has may be of another process, with other content.
        _remember(self._memory, seen.key, content)
        return content == seen.content

    def _not_asked(self, failure: Failure, seen: _Seen) -> bool:
        if not failure.check(SmsDaemonError):
            self._log.failure("nonces could not be looked up", failure=failure)
        return self._on_my_own(seen)

    def _on_my_own(self, seen: _Seen) -> bool:
        if not self._away:
            self._away = True
            self._log.warn("PostgreSQL is away: each process remembers its own nonces only")
        known = self._memory.get(seen.key)
        if known is not None:
            return known == seen.content
        _remember(self._memory, seen.key, seen.content)
        _remember(self._unwritten, seen.key, seen)
        return True

    def _send(self, connection: Any, batch: list[_Seen]) -> Deferred[list[str]]:
        late = list(self._unwritten.values())[:MAX_ROWS]
        rows = [
            {
                "n": n,
                "connector_id": seen.key[0],
                "nonce": seen.key[1],
                "content": seen.content,
                "in_time": seen.in_time,
            }
            for n, seen in enumerate([*late, *batch])
        ]
        d: Deferred[Rows] = connection.rows(_SEE, {"rows": json.dumps(rows)})

        def found(stored: Rows) -> list[str]:
            contents = {(int(connector_id), nonce): content for connector_id, nonce, content in stored}
            for seen in late:
                self._unwritten.pop(seen.key, None)
            return [contents[seen.key] for seen in batch]

        return d.addCallback(found)


def _remember(memory: OrderedDict[Key, Any], key: Key, value: Any) -> None:
    memory[key] = value
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)


def _first_of(asked: Deferred[bool], timer: Timer, seconds: float, otherwise: Any) -> Deferred[bool]:
    """What was asked, or after so many seconds the other; what was asked goes on."""
    first: Deferred[bool] = Deferred()

    def too_late() -> None:
        if not first.called:
            first.callback(otherwise())

    alarm: Any = timer.callLater(seconds, too_late)

    def answered(result: bool) -> None:
        if alarm.active():
            alarm.cancel()
        if not first.called:
            first.callback(result)

    asked.addCallback(answered)
    return first


async def forget_nonces(pool: Pool, at_once: int = 5000) -> int:
    """Forget those of more than KNOWN_FOR ago, by and by; returns how many."""
    total = 0
    while True:
        [(count,)] = await pool.query(_FORGET, {"at_once": at_once})
        total += int(count)
        if count < at_once:
            return total
