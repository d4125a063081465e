"""Few of many: what the log sees of refusals that anybody can cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from smsdaemon.domain.model import Submission
from smsdaemon.domain.refused import RefusedSMS
from smsdaemon.errors import TokenRefused, UnknownConnector
from smsdaemon.refusals import Refusals
from smsdaemon.samples import SPAN_SECONDS, Samples
from tests.support.cases import UnitTest
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER, TOKEN, leaks


class SamplesTests(UnitTest):
    def setUp(self) -> None:
        self.clock = Clock()
        self.samples = Samples(self.clock.seconds)

    def test_one_of_each_kind_passes_in_a_span(self) -> None:
        taken = [self.samples.take(kind) for kind in ("a", "a", "b", "a", "b")]
        self.assertEqual(taken, [0, None, 0, None, None])

    def test_the_next_one_that_passes_tells_how_many_did_not(self) -> None:
        for _ in range(1001):
            self.samples.take("a")
        self.clock.advance(SPAN_SECONDS)
        self.assertEqual([self.samples.take("a"), self.samples.take("a")], [1000, None])
        self.clock.advance(SPAN_SECONDS)
        self.assertEqual(self.samples.take("a"), 1)

    def test_a_clock_that_steps_back_does_not_silence_it(self) -> None:
        self.clock.advance(3600)
        self.samples.take("a")
        self.clock.rightNow -= 3600
        self.assertEqual([self.samples.take("a"), self.samples.take("a")], [0, None])


class NothingKept:
    def __init__(self) -> None:
        self.kept: list[RefusedSMS] = []

    def keep(self, sms: RefusedSMS) -> None:
        self.kept.append(sms)


class RefusalsTests(UnitTest):
    def setUp(self) -> None:
        self.clock, self.sink = Clock(), NothingKept()
        captured = capturedLogs()
        self.events: Sequence[Mapping[str, Any]] = captured.__enter__()
        self.addCleanup(captured.__exit__, None, None, None)
        self.refusals = Refusals(samples=Samples(self.clock.seconds), kept=self.sink)
        self.submission = Submission(
            receiver=RECEIVER, sender=SENDER, text=TEXT_MARKER, token=TOKEN, message_id="m"
        )

    def ours(self) -> list[Mapping[str, Any]]:
        return [event for event in self.events if event.get("log_namespace") == "smsdaemon.intake"]

    def lines(self) -> list[str]:
        return [formatEvent(dict(event)) for event in self.ours()]

    def test_a_flood_leaves_few_lines_and_nothing_in_the_store(self) -> None:
        for _ in range(10_000):
            self.refusals.turned_away(UnknownConnector("no connector has this receiver"), self.submission)
            self.refusals.turned_away(TokenRefused("the token is not valid"), self.submission)
            self.clock.advance(0.001)
        self.assertEqual(len(self.lines()), 2)
        self.clock.advance(SPAN_SECONDS)
        self.refusals.turned_away(UnknownConnector("no connector has this receiver"), self.submission)
        self.assertIn("9999 more", self.lines()[-1])
        self.assertEqual(self.sink.kept, [])

    def test_a_line_shows_neither_number_nor_token_nor_text(self) -> None:
        self.refusals.turned_away(TokenRefused("the token is not valid"), self.submission)
        [line] = self.lines()
        self.assertEqual(leaks(line.encode()), [])
        self.assertIn(f"{RECEIVER[:4]}…{RECEIVER[-2:]}", line)
        [event] = self.ours()
        self.assertEqual(leaks(repr(event).encode()), [])
