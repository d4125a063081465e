"""UUIDv7 (RFC 9562, section 5.7), which Python's own uuid module makes from 3.14 on only."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_VERSION_AND_VARIANT = (0x7 << 76) | (0b10 << 62)
_RANDOM = ((1 << 12) - 1) << 64 | ((1 << 62) - 1)


def uuid7(at: datetime) -> UUID:
    """A new id that sorts by ``at`` (aware), to the millisecond."""
    milliseconds = (at - _EPOCH) // _MILLISECOND
    random = int.from_bytes(os.urandom(10), "big")
    return UUID(int=(milliseconds << 80) | (random & _RANDOM) | _VERSION_AND_VARIANT)


def first_uuid7(at: datetime) -> UUID:
    """The smallest UUIDv7 that could have been made at ``at``: a lower bound for id ranges."""
    milliseconds = (at - _EPOCH) // _MILLISECOND
    return UUID(int=(milliseconds << 80) | _VERSION_AND_VARIANT)


def time_of(uuid: UUID) -> datetime:
    """When the UUIDv7 was made, as an aware UTC datetime, to the millisecond."""
    return _EPOCH + (uuid.int >> 80) * _MILLISECOND


def of_the_same_time(uuid: UUID) -> tuple[UUID, UUID]:
    """The first and the last id with the time of this one; of other versions too, whatever it means there."""
    rest = (1 << 80) - 1
    return UUID(int=uuid.int & ~rest), UUID(int=uuid.int | rest)
