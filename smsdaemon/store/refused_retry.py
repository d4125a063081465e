"""Refused SMS for people: what is there, and another try once their connectors are mended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Any, Literal, NamedTuple
from uuid import UUID

from attrs import frozen

from smsdaemon.domain.ids import first_uuid7, time_of, uuid7
from smsdaemon.domain.model import Directory, InboundSMS, Part, Submission
from smsdaemon.domain.numbers import matching_key
from smsdaemon.errors import NotRoutable, StoreConflict
from smsdaemon.intake import attributed, provider_key
from smsdaemon.store import refused_queries as queries
from smsdaemon.store.directory import read_snapshot
from smsdaemon.store.message_queries import ACCEPT
from smsdaemon.store.messages import Acceptance, accept_with_parts, row
from smsdaemon.store.pool import Pool, Run

PAGE_ROWS = 200
"""A text may have 64 KB, and a page is one transaction."""
_TRIES = 10


class RefusedRow(NamedTuple):
    """One refused SMS as `smsdaemon refused` shows it; times are RFC 3339 in UTC."""

    id: str
    received_at: str
    """The first time."""
    last_at: str
    times: int
    receiver: str
    sender: str
    reason: str
    provider_message_id: str | None
    text: str


async def refused(
    pool: Pool, *, receiver: str | None, since: datetime | None, limit: int | None
) -> AsyncIterator[list[RefusedRow]]:
    """Those that came first since then, oldest first, page by page."""
    after = UUID(int=0) if since is None else UUID(int=first_uuid7(since).int - 1)
    left = limit
    while left is None or left > 0:
        asked = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
        rows = await pool.query(queries.LIST, {**_chosen(after, receiver), "rows": asked})
        if rows:
            yield [RefusedRow(id, _rfc3339(time_of(UUID(id))), *more) for id, *more in rows]
        if len(rows) < asked:
            return
        after = UUID(rows[-1][0])
        left = None if left is None else left - len(rows)


# --- another try ------------------------------------------------------------------------------


@frozen(kw_only=True)
class Chosen:
    """Which refused SMS are meant; what is None does not matter."""

    id: UUID | None = None
    receiver: str | None = None


class Retried(NamedTuple):
    """What became of one."""

    id: str
    result: Literal["accepted", "already accepted", "still refused"]
    message_id: str | None
    """Under which it was accepted: its own, or that of a repeat that came after the mending."""
    reason: str | None
    """Why it is still refused."""


class _Undone(Exception):
    """Carries what a dry run has found past the rollback."""

    def __init__(self, results: list[Retried]) -> None:
        super().__init__()
        self.results = results


async def retry(
    pool: Pool, chosen: Chosen, *, first_delay_seconds: float, dry_run: bool
) -> AsyncIterator[list[Retried]]:
    """Accept them, in the order in which they first came, page by page; each page is one transaction.

    What was accepted is no longer refused after the same COMMIT. A running daemon is told.
    """
    directory = await pool.transaction(partial(read_snapshot, before=Directory()))
    after = UUID(int=0)
    while True:
        page = _Page(directory, chosen, after, first_delay_seconds, dry_run)
        results = await _with_patience(pool, page)
        if results:
            yield results
        if len(results) < PAGE_ROWS:
            return
        after = UUID(results[-1].id)


async def _with_patience(pool: Pool, page: _Page) -> list[Retried]:
    try:
        for _ in range(_TRIES - 1):
            try:
                return await pool.transaction(page)
            except StoreConflict:
                continue  # the daemon made another one the head of a conversation meanwhile
        return await pool.transaction(page)
    except _Undone as undone:
        return undone.results


@frozen
class _Page:
    """One transaction."""

    directory: Directory
    chosen: Chosen
    after: UUID
    first_delay_seconds: float
    dry_run: bool

    async def __call__(self, run: Run) -> list[Retried]:
        wanted = _chosen(self.after, self.chosen.receiver)
        id = None if self.chosen.id is None else str(self.chosen.id)
        results: dict[str, Retried] = {}
        good = []
        for found in await run(queries.TAKE, {**wanted, "id": id, "rows": PAGE_ROWS}):
            results[found[0]] = Retried(found[0], "still refused", None, None)
            try:
                good.append(self._attributed(*found))
            except NotRoutable as error:
                results[found[0]] = Retried(found[0], "still refused", None, str(error))
        results |= await self._accept(run, good)
        left = [(result.id, result.reason) for result in results.values() if result.reason is not None]
        if left:
            ids, reasons = zip(*left, strict=True)
            await run(queries.STILL_REFUSED, {"ids": list(ids), "reasons": list(reasons)})
        if self.dry_run:
            raise _Undone(list(results.values()))
        return list(results.values())

    def _attributed(
        self, id: str, client_id: int | None, receiver: str, sender: str, *more: Any
    ) -> InboundSMS:
        """As intake does it, by the directory as it is now; raises NotRoutable."""
        text, raw_text, keyword, provider, message_id, encoding, parts, reference, number, total = more
        connector = self.directory.connectors.get(matching_key(receiver))
        if connector is None:
            raise NotRoutable("no connector has this number any more")
        if connector.client_id != client_id:
            # Removed, and made anew for somebody else, whom this SMS is no business of.
            raise NotRoutable("the number is of another client now")
        submission = Submission(
            receiver=receiver,
            sender=sender,
            text=text,
            keyword=keyword,
            message_id=message_id,
            encoding=encoding,
            raw_text=None if raw_text is None else bytes(raw_text),
            provider=provider,
            part=None if number is None else Part(reference=reference, number=number, total=total),
            parts=parts,
        )
        received_at = time_of(UUID(id))
        return attributed(submission, connector, self.directory, id=UUID(id), received_at=received_at)

    async def _accept(self, run: Run, good: list[InboundSMS]) -> dict[str, Retried]:
        if not good:
            return {}
        acceptances = [Acceptance(sms, provider_key(sms), False, uuid7(sms.received_at)) for sms in good]
        if any(sms.part is not None for sms in good):
            receipts = [found for _, found in await accept_with_parts(run, acceptances, self._parameters)]
        else:
            rows = [{"n": n, **row(acceptance)} for n, acceptance in enumerate(acceptances)]
            receipts = await run(ACCEPT, self._parameters(rows))
        await run(queries.REMOVE, {"ids": [str(sms.id) for sms in good]})
        await run(queries.NOTIFY)
        results = {}
        for sms, (_, message_id, duplicate, _) in zip(good, receipts, strict=True):
            result: Literal["accepted", "already accepted"] = "already accepted" if duplicate else "accepted"
            results[str(sms.id)] = Retried(str(sms.id), result, str(message_id), None)
        return results

    def _parameters(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "rows": json.dumps(rows, ensure_ascii=False),
            "lease": None,  # whoever claims it next has it
            "lease_seconds": 0,
            "first_delay": self.first_delay_seconds,
            "holder": None,
        }


def _chosen(after: UUID, receiver: str | None) -> dict[str, Any]:
    return {"after": str(after), "receiver_key": None if receiver is None else matching_key(receiver)}


def _rfc3339(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"
