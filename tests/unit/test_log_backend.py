"""Deliveries to a target of scheme log."""

from __future__ import annotations

from typing import cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from smsdaemon.backends.log import LogBackend
from smsdaemon.domain.model import Answer
from tests.support.cases import UnitTest
from tests.support.deliveries import client, delivery, held, sms, target


class LogBackendTests(UnitTest):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def deliver(self, message_text: bool) -> str:
        """The log line of one delivery."""
        backend = LogBackend(message_text=message_text)
        an_sms = sms(text="a secret {text}\nof two lines")
        answer = self.successResultOf(backend.deliver(delivery(sms=an_sms), target(), client(), held))
        self.assertEqual(answer, Answer(status=200))
        [event] = [event for event in self.events if event.get("log_namespace") == "smsdaemon.backends.log"]
        self.assertIn(str(an_sms.id), formatEvent(event))
        return formatEvent(event)

    def test_is_one_event_with_ids_and_target_and_without_text_and_numbers(self) -> None:
        line = self.deliver(message_text=False)
        self.assertIn("acd_group acme/shop/support", line)
        for secret in ("secret", "49789789", "49123123"):
            self.assertNotIn(secret, line)

    def test_shows_the_text_on_one_line_where_that_is_allowed(self) -> None:
        self.assertIn(r"'a secret {text}\nof two lines'", self.deliver(message_text=True))
