"""Log events of workers look like the supervisor's own, and are as discreet."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python import log as legacy
from twisted.python.failure import Failure
from zope.interface import implementer

from smsdaemon.log import observer
from smsdaemon.settings_values import LogFormat, LogLevelName, LogSettings
from smsdaemon.worker_channel import read_report, report_line
from smsdaemon.worker_log import event_of, sender
from tests.support.cases import UnitTest
from tests.support.secrets_in_tests import PASSWORD, SENDER, TEXT_MARKER


@implementer(ILogObserver)
class Heard:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)


class WorkerLogTests(UnitTest):
    def lines(
        self, *events: LogEvent, format: LogFormat = "text", level: LogLevelName = "info", told: bool = True
    ) -> list[str]:
        """What the log has of the events; ``told``: by a worker, through its pipe."""
        settings, stream = LogSettings(format=format, level=level), io.StringIO()
        ours = observer(settings, stream)
        if not told:
            for event in events:
                ours(event)
            return stream.getvalue().splitlines()
        through = sender(
            settings, lambda content: ours(event_of(read_report(report_line("log", content))[1]))
        )
        for event in events:
            through(event)
        return stream.getvalue().splitlines()

    def event(self, format: str, level: str = "warn", **fields: object) -> LogEvent:
        heard = Heard()
        getattr(Logger(namespace="smsdaemon.test", observer=heard), level)(format, **fields)
        return heard.events[0]

    def failure(self) -> LogEvent:
        heard = Heard()
        try:
            raise ValueError("{this} is wrong")
        except ValueError:
            logger = Logger(namespace="smsdaemon.test", observer=heard)
            logger.failure("something failed with {id}", Failure(), id=7)
        return heard.events[0]

    def test_they_look_the_same_in_both_formats(self) -> None:
        fields: dict[str, Any] = {
            "id": UUID(int=7),
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            "path": Path("/a"),
            "share": 0.123,
            "endless": float("inf"),
            "odd": object(),
        }
        events = [
            self.event("plain"),
            self.event("{id} at {at} in {path}: {share:.2f} {{}}", **fields),
            self.event("braces {what}", what="{no} {field}"),
            self.failure(),
        ]
        for format in ("text", "json"):
            of_worker, own = (self.lines(*events, format=format, told=told) for told in (True, False))
            self.assertEqual(of_worker, own)

    def test_so_do_those_of_twisteds_old_log(self) -> None:
        heard: list[LogEvent] = []
        publisher = legacy.LogPublisher(heard.append)
        publisher.msg("some words", system="HTTPChannel,1")
        for event in heard:
            self.assertEqual(self.lines(event), self.lines(event, told=False))

    def test_nothing_below_the_level_goes_through(self) -> None:
        events = [self.event(level, level) for level in ("debug", "info", "warn", "error")]
        self.assertEqual(len(self.lines(*events, level="warn")), 2)

    def test_secrets_and_texts_do_not_go_through(self) -> None:
        sent: list[str] = []
        settings = LogSettings()
        through = sender(settings, lambda content: sent.append(json.dumps(content)))
        through(self.event("{password} {text}", password=PASSWORD, text=TEXT_MARKER))
        self.assertNotIn(PASSWORD, sent[0])
        self.assertNotIn(TEXT_MARKER, sent[0])
        [line] = self.lines(self.event(f"from {SENDER} at postgresql://u:{PASSWORD}@db"))
        self.assertNotIn(PASSWORD, line)
        self.assertNotIn(SENDER, line)

    def test_a_failure_shows_its_traceback(self) -> None:
        lines = self.lines(self.failure())
        self.assertIn("something failed with 7", lines[0])
        self.assertEqual(lines[1].strip(), "Traceback (most recent call last):")
        self.assertIn("ValueError: {this} is wrong", lines[-1])
