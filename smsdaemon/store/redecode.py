"""Reads the bytes of stored texts again, by another charset, for when a provider's turns out wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal
from uuid import UUID

from attrs import evolve, field, frozen

from smsdaemon.domain.text import decode
from smsdaemon.store import redecode_queries as queries
from smsdaemon.store.pool import Pool, Run
from smsdaemon.store.redelivery import repeated, revive_last
from smsdaemon.store.selection import Selection, selected

Result = Literal["changed", "unchanged", "ascii", "no bytes", "damaged"]
Redelivery = Literal["redelivered", "pending", "under way", "no target"]

_PAGE_ROWS = 500
"""Small, because the deliveries of what changes are held until the page's commit."""
_REPLACEMENT = "\ufffd"


@frozen(kw_only=True)
class Rereading:
    """How texts are to be read again."""

    charset: str
    """One of domain.text.charset_labels()."""
    damaged: bool = False
    """Change also what would have U+FFFD in it then."""
    redeliver: bool = False
    dry_run: bool = False


@frozen(kw_only=True)
class Reread:
    """What reading its bytes again makes of one SMS."""

    id: str
    encoding: str
    """The charset it was read by so far."""
    text: str = field(repr=False)
    """As stored so far."""
    new_text: str = field(repr=False)
    """As it would be; the text so far where there are no bytes to read."""
    result: Result
    """ascii, no bytes: only this text was there to be read; damaged: it was left alone."""
    redelivery: Redelivery | None = None
    """pending: it goes out with the new text anyhow; under way: as text that was leased before."""


@frozen
class Lease:
    """A delivery that is being attempted with the text of before."""

    message_id: str
    delivery_id: str
    lease: str


@frozen
class Page:
    """Some SMS, oldest first, and what of them is under way."""

    reread: list[Reread]
    leases: list[Lease]


async def redecode(
    pool: Pool, chosen: Selection | Sequence[UUID], rereading: Rereading
) -> AsyncIterator[Page]:
    """Read the chosen SMS again, page by page; each page is one transaction, redelivery included."""
    ids = None if isinstance(chosen, Selection) else [str(id) for id in chosen]
    selection = chosen if isinstance(chosen, Selection) else Selection()
    parameters = {**await selected(pool, selection), "ids": ids}
    left = selection.limit
    while left is None or left > 0:
        asked = _PAGE_ROWS if left is None else min(left, _PAGE_ROWS)
        page = await repeated(pool, _Transaction({**parameters, "rows": asked}, rereading))
        if page.reread:
            yield page
        if len(page.reread) < asked:
            return
        parameters["after"] = page.reread[-1].id
        left = None if left is None else left - len(page.reread)


async def under_way(pool: Pool, leases: Sequence[Lease]) -> list[Lease]:
    """Those of the leases that still hold."""
    held = {tuple(row) for row in await pool.query(queries.LEASED, {"ids": [x.delivery_id for x in leases]})}
    return [lease for lease in leases if (lease.delivery_id, lease.lease) in held]


async def redeliver_again(pool: Pool, leases: Sequence[Lease]) -> set[str]:
    """Once they are no longer under way: redeliver what went out with the text of before.

    Returns the SMS that were redelivered; the others are pending, or their target was removed.
    """
    messages = list(dict.fromkeys(lease.message_id for lease in leases))
    return await repeated(pool, lambda run: revive_last(run, messages))


@frozen
class _Transaction:
    """One page."""

    parameters: dict[str, Any]
    rereading: Rereading

    async def __call__(self, run: Run) -> Page:
        rows = await run(queries.PAGE, self.parameters)
        reread = [_reread(self.rereading, *row) for row in rows]
        if self.rereading.dry_run:
            return Page(reread, [])
        changed = [one for one in reread if one.result == "changed"]
        updates = [
            {"id": one.id, "text": one.new_text, "encoding": self.rereading.charset}
            for one in reread
            if one.result in ("changed", "unchanged")
        ]
        await run(queries.UPDATE, {"rows": json.dumps(updates, ensure_ascii=False)})
        if not self.rereading.redeliver or not changed:
            return Page(reread, [])
        return await self._redelivered(run, reread, [one.id for one in changed])

    async def _redelivered(self, run: Run, reread: list[Reread], changed: list[str]) -> Page:
        # Held from here to the commit: what is leased now has the text of before, what is leased
        # afterwards has the new one, and nothing ends in between.
        pending = await run(queries.HOLD, {"messages": changed})
        leases = [Lease(message, id, lease) for message, id, lease in pending if lease is not None]
        revived = await revive_last(run, changed)
        state: dict[str, Redelivery] = dict.fromkeys(changed, "no target")
        state |= dict.fromkeys((message for message, _, _ in pending), "pending")
        state |= dict.fromkeys((lease.message_id for lease in leases), "under way")
        state |= dict.fromkeys(revived, "redelivered")
        return Page([evolve(one, redelivery=state.get(one.id)) for one in reread], leases)


def _reread(rereading: Rereading, id: str, text: str, encoding: str, raw: memoryview | None) -> Reread:
    new_text = text if raw is None else decode(bytes(raw), rereading.charset)[0]
    result: Result
    if raw is None:
        result = "ascii" if text.isascii() else "no bytes"
    elif new_text == text:
        result = "unchanged"
    elif _REPLACEMENT in new_text and not rereading.damaged:
        result = "damaged"
    else:
        result = "changed"
    return Reread(id=id, encoding=encoding, text=text, new_text=new_text, result=result)
