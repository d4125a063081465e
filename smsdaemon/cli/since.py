"""Times as people give them to a command."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


def read_since(text: str, now: datetime) -> datetime:
    """A time in RFC 3339 (UTC where it names no zone), or a span back from ``now`` as in 2h, 30m, 7d.

    Raises ValueError.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        span = timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return max(now - span, _FIRST) if span < now - _FIRST else _FIRST
    at = datetime.fromisoformat(text.strip())
    return max(at if at.tzinfo is not None else at.replace(tzinfo=UTC), _FIRST)


class Since(click.ParamType[datetime]):
    """The click type of --since."""

    name = "time"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return read_since(value, datetime.now(UTC))
        except ValueError:
            self.fail(
                f"{value!r} is neither RFC 3339 (2026-11-22T16:43:42Z) nor like 2h, 30m, 7d", param, ctx
            )
