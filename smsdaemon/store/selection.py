"""Which SMS are meant: by time, by numbers in any spelling, and by the ids that somebody was told."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from attrs import frozen

from smsdaemon.domain.ids import first_uuid7
from smsdaemon.domain.numbers import matching_key
from smsdaemon.store.pool import Pool, Run

# A sender is stored with + and digits, or as it came. Only the latter, which are few, are brought to
# their matching form row by row; domain.numbers.matching_key() is what the expression repeats.
_SENDER_KEY = r"""regexp_replace(
          regexp_replace(m.sender, '[-./()]|\s', '', 'g'), '^(\+|00(?=[0-9]{8}))', '')"""
SENDER_AS_IT_CAME = rf"(m.sender !~ '^\+[0-9]+$' AND {_SENDER_KEY} = %(sender_key)s)"
SELECTED = f"""m.id > %(after)s::uuid AND (%(until)s::uuid IS NULL OR m.id < %(until)s::uuid)
      AND (%(receivers)s::text[] IS NULL OR m.receiver = ANY(%(receivers)s::text[]))
      AND (%(sender_key)s::text IS NULL OR m.sender = ANY(%(senders)s::text[]) OR {SENDER_AS_IT_CAME})"""
"""Of a ``message`` m; takes what selected() gives."""

_WRITTEN = "SELECT DISTINCT number FROM connector WHERE number_key = %(key)s"
_ALIAS = "SELECT message_id::text FROM message_alias WHERE id = %(id)s::uuid"


@frozen(kw_only=True)
class Selection:
    """Which messages are wanted; what is None does not matter."""

    state: str | None = None
    receiver: str | None = None
    sender: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """What was received at that time is not wanted."""
    limit: int | None = None


async def selected(pool: Pool, selection: Selection) -> dict[str, Any]:
    """The parameters of SELECTED; the state is not among them."""
    receiver, sender = selection.receiver, selection.sender
    return {
        "after": str(before(selection.since)),
        "until": None if selection.until is None else str(first_uuid7(selection.until)),
        "receivers": None if receiver is None else await spelled_as_receiver(pool.query, receiver),
        "sender_key": None if sender is None else matching_key(sender),
        "senders": [] if sender is None else spelled(sender),
    }


def spelled(number: str) -> list[str]:
    """How the number may be stored, but for those senders that SENDER_AS_IT_CAME finds."""
    key = matching_key(number)
    return list(dict.fromkeys((f"+{key}", key, f"00{key}", number.strip())))


async def spelled_as_receiver(run: Run, number: str) -> list[str]:
    """How the number may be stored as a receiver: as connectors are or were written."""
    rows = await run(_WRITTEN, {"key": matching_key(number)})
    # spelled(): what a connector that was renamed was written like when the SMS came.
    return list(dict.fromkeys([*(written for (written,) in rows), *spelled(number)]))


def before(since: datetime | None) -> UUID:
    """An id below that of everything received since then."""
    return UUID(int=0) if since is None else UUID(int=first_uuid7(since).int - 1)


async def own_id(pool: Pool, id: UUID) -> UUID:
    """The SMS' own id, where a provider heard another one (contract 3, Repeats); else the id itself."""
    rows = await pool.query(_ALIAS, {"id": str(id)})
    return UUID(rows[0][0]) if rows else id
