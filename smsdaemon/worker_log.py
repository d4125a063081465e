"""Log events on their way from a worker to its supervisor, which writes them as it writes its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import frozen
from twisted.logger import FilteringLogObserver, ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from smsdaemon.log import AtLeast, Redaction
from smsdaemon.settings_values import LogSettings


def sender(settings: LogSettings, send: Callable[[dict[str, Any]], object]) -> ILogObserver:
    """An observer that gives the events of the level and above to ``send``, without what is secret."""
    told = _Sender(Redaction(message_text=settings.message_text), send)
    return FilteringLogObserver(told, [AtLeast(LogLevel.lookupByName(settings.level))])


@implementer(ILogObserver)
@frozen
class _Sender:
    clean: Redaction
    send: Callable[[dict[str, Any]], object]

    def __call__(self, event: LogEvent) -> None:
        self.send(as_json(self.clean.event(event)))


def as_json(event: LogEvent) -> dict[str, Any]:
    """The event as it is to be shown: what is not simple is in its text only."""
    failure = event.get("log_failure") or event.get("failure")
    told: dict[str, Any] = {
        "time": event.get("log_time"),
        "level": getattr(event.get("log_level"), "name", None),
        "namespace": event.get("log_namespace"),
        "system": event.get("log_system"),
        "text": _text(event, failure),
        "fields": {
            key: _simple(value)
            for key, value in event.items()
            if not key.startswith("log_") and key not in _LEGACY_KEYS and _is_simple(value)
        },
    }
    if isinstance(failure, Failure):
        told["traceback"] = failure.getTraceback()
    return told


# What twisted.python.log adds to an event.
_LEGACY_KEYS = frozenset({"format", "failure", "isError", "logLevel", "printed", "system", "time", "why"})


def _text(event: LogEvent, failure: object) -> str:
    if isinstance(failure, Failure) and "log_text" in event:
        # twisted.python.log.err: its text is the traceback once more.
        return str(event.get("why") or "Unhandled error")
    return formatEvent(event)


def _is_simple(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str | datetime | UUID | Path)


def _simple(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID | Path) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def event_of(told: dict[str, Any]) -> LogEvent:
    """The event again, for this process' observers. Raises KeyError."""
    event: LogEvent = {
        **told["fields"],
        "log_time": told["time"],
        "log_level": LogLevel.lookupByName(told["level"] or "info"),
        "log_namespace": told["namespace"],
        "log_system": told["system"] or "-",
        # A format without fields, whatever was in it.
        "log_format": told["text"].replace("{", "{{").replace("}", "}}"),
    }
    if "traceback" in told:
        event["log_failure"] = _ToldFailure(told["traceback"])
    return event


class _ToldFailure(Failure):
    """Of another process: only its traceback is known."""

    def __init__(self, traceback: str) -> None:
        super().__init__(RuntimeError("in a worker"))  # type: ignore[no-untyped-call]
        self._told = traceback

    def getTraceback(self, *_: object, **__: object) -> str:
        return self._told
