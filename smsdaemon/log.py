"""Writes log events as lines, text or JSON, and keeps secrets out of them (contract 2)."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

from attrs import frozen
from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    PredicateResult,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from smsdaemon.descriptors import OnceAMinute
from smsdaemon.domain.masking import HIDDEN, masked_number
from smsdaemon.settings_values import LogSettings


def observer(settings: LogSettings, stream: TextIO) -> ILogObserver:
    """Writes the events of the level and above to the stream, one line each."""
    clean = Redaction(message_text=settings.message_text)
    lines: ILogObserver = JsonLines(stream, clean) if settings.format == "json" else TextLines(stream, clean)
    return FilteringLogObserver(
        lines, [AtLeast(LogLevel.lookupByName(settings.level)), OnceAMinute(time.monotonic)]
    )


@implementer(ILogFilterPredicate)
@frozen
class AtLeast:
    """Lets events of the level and above pass. Twisted's own drops events that have no namespace."""

    level: Any
    """One of LogLevel."""

    def __call__(self, event: LogEvent) -> Any:
        passes = event.get("log_level", LogLevel.critical) >= self.level
        return PredicateResult.maybe if passes else PredicateResult.no


# --- secrecy -----------------------------------------------------------------------------------


_SECRET_NAMES = r"tokens?|passwords?|passwd|pwd|secrets?|authorization"
_SECRETS = (
    # A query holds the token, the text and both numbers. Twisted splits a request line at ASCII blanks.
    (re.compile(r"(?<=\S)\?\S+", re.ASCII), f"?{HIDDEN}"),
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]*"), f"whsec_{HIDDEN}"),
    (re.compile(r"(?<=://)([^\s:/@]{0,256}):[^\s@]{0,256}@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(
            rf"\b(\w*(?:{_SECRET_NAMES})['\"]?\s*[=:]\s*[\[(]?(?:b(?=['\"]))?)"
            r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&,;'\")\]}]+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)
_SECRET_FIELD = re.compile(rf"(?:.*_)?(?:{_SECRET_NAMES}|dsn)", re.IGNORECASE)
_TEXT_FIELDS = frozenset({"text", "body"})
_NUMBER = re.compile(r"(?<![\w+])\+\d{6,}")


@frozen(kw_only=True)
class Redaction:
    """Belt and braces: whoever logs leaves secrets out already, but not every library does."""

    message_text: bool
    """True: texts and full numbers may stay."""

    def text(self, text: str) -> str:
        """The text without what a log must not show, and without control characters."""
        for pattern, instead in _SECRETS:
            text = pattern.sub(instead, text)
        if not self.message_text:
            text = _NUMBER.sub(lambda found: masked_number(found[0]), text)
        return printable(text)

    def event(self, event: Mapping[str, Any]) -> LogEvent:
        """The event without the fields whose names say that a log must not show them."""
        return {key: HIDDEN if self._hides(key) else value for key, value in event.items()}

    def _hides(self, field: str) -> bool:
        return bool(_SECRET_FIELD.fullmatch(field)) or (field in _TEXT_FIELDS and not self.message_text)


def printable(text: str) -> str:
    """The text on one line, with everything a terminal would not print as a character escaped."""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)


# --- lines -------------------------------------------------------------------------------------


@implementer(ILogObserver)
@frozen
class TextLines:
    """Time, level, source and message; a traceback follows on lines of its own, indented."""

    stream: TextIO
    clean: Redaction

    def __call__(self, event: LogEvent) -> None:
        message, failure = _message_and_failure(self.clean.event(event))
        head = f"{_time(event)} {_level(event):<8} [{printable(_source(event))}] "
        lines = [head + self.clean.text(message)]
        if failure is not None:
            lines += [f"    {self.clean.text(line)}" for line in _traceback(failure).splitlines()]
        _write(self.stream, "".join(f"{line}\n" for line in lines))


@implementer(ILogObserver)
@frozen
class JsonLines:
    """One JSON object a line: time, level, logger, message, the event's simple fields, failure."""

    stream: TextIO
    clean: Redaction

    def __call__(self, event: LogEvent) -> None:
        clean_event = self.clean.event(event)
        message, failure = _message_and_failure(clean_event)
        line: dict[str, object] = {
            "time": _time(event),
            "level": _level(event),
            "logger": _source(event),
            "message": self.clean.text(message),
        }
        if failure is not None:
            # JSON escapes the line breaks of a traceback; its reader wants them back.
            line["failure"] = "\n".join(map(self.clean.text, _traceback(failure).splitlines()))
        for key, value in clean_event.items():
            if not key.startswith("log_") and key not in line and key not in _LEGACY_KEYS:
                simple = self._simple(value)
                if simple is not _NOT_SIMPLE:
                    line[self.clean.text(key)] = simple
        _write(self.stream, json.dumps(line) + "\n")

    def _simple(self, value: object) -> object:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, datetime):
            return value.isoformat()
        return self.clean.text(str(value)) if isinstance(value, str | UUID | Path) else _NOT_SIMPLE


_NOT_SIMPLE = object()
_LEGACY_KEYS = frozenset({"format", "failure", "isError", "logLevel", "printed", "system", "time", "why"})
"""What twisted.python.log adds to an event."""


def _message_and_failure(event: LogEvent) -> tuple[str, Failure | None]:
    failure = event.get("log_failure") or event.get("failure")
    if not isinstance(failure, Failure):
        return formatEvent(event), None
    if "log_text" in event:
        # twisted.python.log.err: its text is the traceback once more.
        return str(event.get("why") or "Unhandled error"), failure
    return formatEvent(event), failure


def _traceback(failure: Failure) -> str:
    try:
        return failure.getTraceback()
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        return f"no traceback: {type(error).__name__}"


def _time(event: LogEvent) -> str:
    at = datetime.fromtimestamp(event.get("log_time") or 0.0, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _level(event: LogEvent) -> str:
    return getattr(event.get("log_level"), "name", "info")


def _source(event: LogEvent) -> str:
    namespace = str(event.get("log_namespace") or "-")
    if namespace == "log_legacy":
        return str(event.get("log_system") or "-")
    return namespace


def _write(stream: TextIO, lines: str) -> None:
    # In one piece: several processes may share the stream.
    encoding = getattr(stream, "encoding", None) or "utf-8"  # twisted.python.logfile has none
    stream.write(lines.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
