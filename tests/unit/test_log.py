"""The log: one line an event, at the level wanted, and no secret in it."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.logger._legacy import publishToNewObserver
from twisted.python.failure import Failure
from twisted.python.log import textFromEventDict
from twisted.python.logfile import LogFile
from twisted.web.http import combinedLogFormatter
from twisted.web.test.requesthelper import DummyRequest
from zope.interface.verify import verifyObject

from smsdaemon.log import observer
from smsdaemon.settings import LogSettings
from tests.support.cases import UnitTest

AT = datetime(2026, 11, 22, 16, 43, 42, 123456, UTC).timestamp()
TEXT = LogSettings()
JSON = LogSettings(format="json")
URL = "/SMSReceiver?receiver=%2B49123123&message=geheim&token=5760"


class LogTest(UnitTest):
    def lines(self, settings: LogSettings, *events: dict[str, object]) -> list[str]:
        """What the events are written as."""
        stream = io.StringIO()
        write = observer(settings, stream)
        for event in events:
            write({"log_level": LogLevel.info, "log_namespace": "smsdaemon.x", "log_time": AT, **event})
        written = stream.getvalue()
        self.assertTrue(written.endswith("\n") or not written)
        return written.split("\n")[:-1]

    def row(self, **event: object) -> dict[str, object]:
        """What one event is as JSON."""
        (line,) = self.lines(JSON, event)
        row: dict[str, object] = json.loads(line)
        return row

    def message(self, text: str, settings: LogSettings = TEXT) -> str:
        """What becomes of a text that is logged."""
        (line,) = self.lines(settings, {"log_format": "{x}", "x": text})
        return line.partition("] ")[2]

    def legacy(self, settings: LogSettings, **event: object) -> list[str]:
        """What an event of twisted.python.log is written as."""
        stream = io.StringIO()
        event = {"time": AT, "system": "-", "isError": 0, "message": (), **event}
        publishToNewObserver(observer(settings, stream), event, textFromEventDict)
        return stream.getvalue().splitlines()


class TextTests(LogTest):
    def test_a_line_has_time_level_source_and_message(self) -> None:
        self.assertEqual(
            self.lines(TEXT, {"log_format": "message {id} accepted", "id": 7}),
            ["2026-11-22T16:43:42.123Z info     [smsdaemon.x] message 7 accepted"],
        )

    def test_a_message_stays_on_its_line_and_moves_no_cursor(self) -> None:
        self.assertEqual(
            self.message("a\nb\r\x1b[2J\u2028c\x7f\u202e\ud800ü"),
            "a\\nb\\r\\x1b[2J\\u2028c\\x7f\\u202e\\ud800ü",
        )

    def test_a_stream_that_cannot_hold_a_character_gets_it_escaped(self) -> None:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
        observer(TEXT, stream)({"log_level": LogLevel.info, "log_format": "grün", "log_time": AT})
        self.assertEqual(raw.getvalue(), b"2026-11-22T16:43:42.123Z info     [-] gr\\xfcn\n")

    def test_a_log_file_of_twisted_can_be_the_stream(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        stream: Any = LogFile("log", folder.name)
        self.addCleanup(stream.close)
        observer(TEXT, stream)({"log_level": LogLevel.info, "log_format": "grün\ud800", "log_time": AT})
        self.assertEqual(
            Path(stream.path).read_text("utf-8"), "2026-11-22T16:43:42.123Z info     [-] grün\\ud800\n"
        )

    def test_a_traceback_follows_indented(self) -> None:
        lines = self.lines(TEXT, {"log_format": "broken", "log_failure": _failure("one\ntwo token=5760")})
        self.assertEqual(lines[0], "2026-11-22T16:43:42.123Z info     [smsdaemon.x] broken")
        self.assertEqual(lines[1], "    Traceback (most recent call last):")
        self.assertEqual(lines[-2:], ["    builtins.ValueError: one", "    two token=…"])
        self.assertTrue(all(line.startswith("    ") for line in lines[1:]))

    def test_an_error_of_the_old_log_is_written_once(self) -> None:
        failure = _failure("boom")
        lines = self.legacy(TEXT, failure=failure, why="while reading", isError=1)
        self.assertEqual(lines[0], "2026-11-22T16:43:42.123Z critical [-] while reading")
        self.assertEqual(sum("ValueError: boom" in line for line in lines), 1)


class JsonTests(LogTest):
    def test_an_object_has_the_simple_fields_of_the_event(self) -> None:
        id = UUID("019a0000-0000-7000-8000-000000000000")
        self.assertEqual(
            self.row(
                log_format="message {id}",
                id=id,
                path=Path("/a"),
                at=datetime(2026, 1, 2, tzinfo=UTC),
                number=4,
                share=0.5,
                never=float("inf"),
                flag=True,
                nothing=None,
                thing=object(),
                log_source=object(),
            ),
            {
                "time": "2026-11-22T16:43:42.123Z",
                "level": "info",
                "logger": "smsdaemon.x",
                "message": f"message {id}",
                "id": str(id),
                "path": "/a",
                "at": "2026-01-02T00:00:00+00:00",
                "number": 4,
                "share": 0.5,
                "never": "inf",
                "flag": True,
                "nothing": None,
            },
        )

    def test_a_failure_is_one_string_on_the_same_line(self) -> None:
        row = self.row(log_format="broken", log_failure=_failure("no"))
        self.assertEqual(row["message"], "broken")
        trace = str(row["failure"]).splitlines()
        self.assertEqual(
            (trace[0], trace[-1]), ("Traceback (most recent call last):", "builtins.ValueError: no")
        )

    def test_a_field_cannot_pass_for_one_of_the_lines_own(self) -> None:
        row = self.row(log_format="true", level="debug", message="false", logger="other")
        self.assertEqual((row["level"], row["message"], row["logger"]), ("info", "true", "smsdaemon.x"))

    def test_fields_are_cleaned_as_messages_are(self) -> None:
        row = self.row(
            log_format="x", url=URL, sender="+49789789", token="5760", text="geheim", new_secret="x"
        )
        self.assertEqual(row["url"], "/SMSReceiver?…")
        self.assertEqual(row["sender"], "+497…89")
        self.assertEqual((row["token"], row["text"], row["new_secret"]), ("…", "…", "…"))

    def test_what_json_cannot_hold_is_escaped(self) -> None:
        (line,) = self.lines(JSON, {"log_format": "{x}", "x": "\ud800\n\x7f"})
        self.assertTrue(line.isascii())
        self.assertEqual(json.loads(line)["message"], "\\ud800\\n\\x7f")


class LevelTests(LogTest):
    def test_only_the_level_and_above_is_written(self) -> None:
        events = [{"log_level": level, "log_format": level.name} for level in LogLevel.iterconstants()]
        for settings, wanted in (
            (LogSettings(level="debug"), ["debug", "info", "warn", "error", "critical"]),
            (LogSettings(level="warn"), ["warn", "error", "critical"]),
            (LogSettings(level="critical"), ["critical"]),
        ):
            lines = self.lines(settings, *events)
            self.assertEqual([line.rpartition(" ")[2] for line in lines], wanted)

    def test_a_logger_can_write_to_it(self) -> None:
        stream = io.StringIO()
        write = observer(TEXT, stream)
        self.assertTrue(verifyObject(ILogObserver, write))
        Logger("smsdaemon.y", observer=write).warn("queue has {count}", count=3)
        self.assertTrue(stream.getvalue().endswith("Z warn     [smsdaemon.y] queue has 3\n"))


class SecrecyTests(LogTest):
    def test_the_access_log_of_twisted_web_shows_no_query(self) -> None:
        for uri in (URL, URL + '&a="b', URL.replace("geheim", "\xa0geheim"), URL.replace("message", "\x0bm")):
            request: Any = DummyRequest([b""])
            request.method, request.clientproto, request.code = b"GET", b"HTTP/1.1", 200
            request.uri = uri.encode("latin-1")
            request.sentLength = 2
            line = combinedLogFormatter("[22/Nov/2026:16:43:42 +0000]", request)
            for settings in (TEXT, JSON, LogSettings(message_text=True)):
                (written,) = self.legacy(settings, message=(line,))
                written = json.loads(written)["message"] if settings is JSON else written
                self.assertIn("GET /SMSReceiver?… HTTP/1.1", written)
                for secret in ("geheim", "5760", "49123123"):
                    self.assertNotIn(secret, written)

    def test_urls_in_messages_lose_their_query(self) -> None:
        for text, shown in (
            (f"<Request at 0x1 uri={URL} HTTP/1.1>", "<Request at 0x1 uri=/SMSReceiver?… HTTP/1.1>"),
            (
                f"called https://acd.example.com:1{URL} twice",
                "called https://acd.example.com:1/SMSReceiver?… twice",
            ),
            ("GET /SMSReceiver?message=a\xa0geheim\x85x HTTP/1.1", "GET /SMSReceiver?… HTTP/1.1"),
            ("is it there? yes", "is it there? yes"),
            ("postgresql://sms:geheim@db/sms", "postgresql://sms:…@db/sms"),
            ("amqp://:geheim@q", "amqp://:…@q"),
        ):
            self.assertEqual(self.message(text), shown)

    def test_secrets_in_messages_are_left_out(self) -> None:
        for text, shown in (
            ("secret whsec_MfKQ9r8GKYqrTwjU+/w= made", "secret whsec_… made"),
            ("host=db password=geheim user=sms", "host=db password=… user=sms"),
            ("password = 'ge\\'heim x' user=sms", "password = … user=sms"),
            ("{'token': '5760', 'a': 1}", "{'token': …, 'a': 1}"),
            ('{"tokens": ["5760"]}', '{"tokens": […]}'),
            ("{b'token': [b'5760']}", "{b'token': [b…]}"),
            ("PGPASSWORD=geheim x", "PGPASSWORD=… x"),
            ("token=b5760 secret: blah", "token=… secret: …"),
            ("client_secret:geheim", "client_secret:…"),
            ("Authorization: Bearer abc.def", "Authorization: … …"),
            ("a=1&token=5760&b=2", "a=1&token=…&b=2"),
            ("TokenRefused was answered", "TokenRefused was answered"),
        ):
            self.assertEqual(self.message(text), shown)

    def test_numbers_in_messages_are_masked_and_ids_are_not(self) -> None:
        self.assertEqual(self.message("from +4915112345678 (+49123123)"), "from +491…78 (+491…23)")
        for text in (
            "019a1234-0000-7000-8000-000000000000",
            "2026-11-22T16:43:42+00:00",
            "1+2345678",
            "port 48151623",
        ):
            self.assertEqual(self.message(text), text)

    def test_message_text_may_be_let_in(self) -> None:
        event: dict[str, object] = {"log_format": "{text} from {sender} {token}"}
        event |= {"text": "geheim", "sender": "+49789789", "token": "5760"}
        (closed,) = self.lines(TEXT, event)
        (opened,) = self.lines(LogSettings(message_text=True), event)
        self.assertEqual(closed.partition("] ")[2], "… from +497…89 …")
        self.assertEqual(opened.partition("] ")[2], "geheim from +49789789 …")


def _failure(text: str) -> Failure:
    try:
        raise ValueError(text)
    except ValueError:
        return Failure()
