"""Concatenated SMS in parts, as providers send them: whole texts, or bytes split wherever it may be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import InboundSMS, Part
from smsdaemon.domain.text import decode, worth_keeping

SENDER = "+49789789"
RECEIVER = "+49123123"


def part(
    text: str, number: int, total: int = 2, *, reference: str = "7", sender: str = SENDER, **fields: Any
) -> InboundSMS:
    """One part, of this moment, with an id of its own."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": uuid7(now),
        "received_at": now,
        "connector_id": 1,
        "client_id": 1,
        "target_id": 1,
        "receiver": RECEIVER,
        "sender": sender,
        "sender_raw": sender,
        "text": text,
        "part": Part(reference=reference, number=number, total=total),
    }
    return InboundSMS(**{**values, **fields})


def raw_part(
    raw: bytes, number: int, total: int = 2, *, charset: str | None = "utf-8", **fields: Any
) -> InboundSMS:
    """One part as a provider's bytes make it, which may begin or end within a character."""
    text, encoding = decode(raw, charset)
    kept = worth_keeping(raw, text)
    return part(text, number, total, encoding=encoding, raw_text=kept, **fields)


def cut(raw: bytes, at: Sequence[int]) -> list[bytes]:
    """The bytes in pieces, cut at these places."""
    places = [0, *sorted(place % (len(raw) + 1) for place in at), len(raw)]
    return [raw[begin:end] for begin, end in pairwise(places)]
