"""The times that providers write; only ever shown, since what counts is when a request came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

NAMED_FORMATS = ("iso", "unix", "unix_ms")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_LENGTH = 64
_DIRECTIVE = re.compile("%(.?)", re.DOTALL)
_DIRECTIVES = frozenset("aAbBdfHIjmMpSwyYzZ")
"""Of strptime(); without those that mean something else in each locale."""


def is_format(text: str) -> bool:
    """Whether a profile may name it: each directive is known, and there once."""
    found = [letter for letter in _DIRECTIVE.findall(text) if letter != "%"]
    return text in NAMED_FORMATS or (
        bool(found) and len(set(found)) == len(found) and set(found) <= _DIRECTIVES
    )


def zone(name: str) -> tzinfo:
    """Raises ValueError for a name that nobody knows."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f'"{name}" is no time zone; allowed: as in "UTC" or "Europe/Berlin"') from error


def time_of(text: str, formats: Sequence[str], zone: tzinfo) -> datetime | None:
    """Aware, in UTC; None where none of the formats fits. ``zone``: of times that name none."""
    text = text.strip()
    if not text or len(text) > _MAX_LENGTH:
        return None
    for wanted in formats:
        try:
            found = _read(text, wanted)
            return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            continue
    return None


def _read(text: str, wanted: str) -> datetime:
    if wanted == "iso":
        return datetime.fromisoformat(text)
    if wanted == "unix":
        return _EPOCH + timedelta(seconds=float(text))
    if wanted == "unix_ms":
        return _EPOCH + timedelta(milliseconds=float(text))
    return datetime.strptime(text, wanted)
