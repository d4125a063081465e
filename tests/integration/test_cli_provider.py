"""`smsdaemon provider list`, `show` and `try` as processes."""

from __future__ import annotations

import json

from smsdaemon.providers.catalogue import load
from tests.support.daemon import Daemon, Ended
from tests.support.processes import ProcessTest
from tests.support.signers import JSON, SIGNERS, Sent
from tests.support.vectors import PATH

URL = "https://sms.example.com/SMSReceiver/twilio"
FIELDS = {"To": "+12028831111", "From": "+14133881111", "Body": "Hällo €", "MessageSid": "SM1"}


def raw(headers: dict[str, str], body: bytes, target: str = "/SMSReceiver/twilio") -> bytes:
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class ProviderCommandTest(ProcessTest):
    def setUp(self) -> None:
        self.place = Daemon('[receiver]\npublic_url = "https://sms.example.com"\n')
        self.addCleanup(self.place.remove)

    def provider(self, *arguments: str, status: int = 0) -> Ended:
        done = self.place.command("provider", *arguments)
        self.assertEqual(done.status, status, done.out + done.err)
        self.assertNotIn("Traceback", done.err)
        return done

    def file(self, name: str, content: bytes) -> str:
        path = self.place.folder / name
        path.write_bytes(content)
        return str(path)

    def steps(self, *arguments: str, status: int = 0) -> dict[str, str]:
        done = self.provider("try", *arguments, "--json", status=status)
        return {row["step"]: row["found"] for row in map(json.loads, done.out.splitlines())}


class ListAndShowTests(ProviderCommandTest):
    def test_all_profiles_are_listed_the_generic_one_too(self) -> None:
        rows = [json.loads(line) for line in self.provider("list", "--json").out.splitlines()]
        self.assertEqual([row["name"] for row in rows], ["generic", *load(None)])
        self.assertTrue(all(row["description"] and row["scheme"] for row in rows))
        self.assertRegex(self.provider("list").out, r"(?m)^twilio +twilio +Twilio: ")

    def test_a_profile_is_shown_with_what_an_operator_needs(self) -> None:
        out = self.provider("show", "twilio").out
        for part in (URL, "auth token", "x-twilio-signature", "fallback URL", "text/xml", "public_url"):
            self.assertIn(part, out)
        shown = json.loads(self.provider("show", "vonage", "--json").out)
        self.assertEqual(shown["url"], "https://sms.example.com/SMSReceiver/vonage")
        self.assertEqual([signature["scheme"] for signature in shown["signatures"]], ["vonage_sms"])

    def test_a_profile_of_the_installations_own_is_shown(self) -> None:
        folder = self.place.folder / "profiles"
        folder.mkdir()
        (folder / "gizmo.toml").write_text(
            'name = "gizmo"\ndescription = "Gizmo"\n[fields]\nsender = "from"\ntext = "text"\n'
        )
        self.place.environment["SMSDAEMON_RECEIVER__PROFILES"] = str(folder)
        self.assertIn("/SMSReceiver/gizmo?receiver=NUMBER", self.provider("show", "gizmo").out)

    def test_a_name_that_there_is_not_fails_in_words(self) -> None:
        for arguments in (("show", "nobody"), ("try", "nobody", "--request", str(PATH))):
            self.assertIn("there is no profile nobody", self.provider(*arguments, status=1).err)
        self.provider("show", status=2)
        self.provider("try", "twilio", status=2)


class TryTests(ProviderCommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.secrets = self.file("secrets", b"old\nauth-token\n")
        sent = Sent(url=URL, fields=FIELDS, json=False, at=0, secret="auth-token")
        self.request = SIGNERS["twilio"].sign(sent)
        headers = {name: values[0] for name, values in self.request.headers.items()}
        self.recorded = self.file("request", raw(headers, self.request.body))

    def test_a_raw_request_is_read_step_by_step_and_its_signature_checked(self) -> None:
        steps = self.steps("twilio", "--request", self.recorded, "--secret-file", self.secrets)
        for step, found in (
            ("request", f"POST {URL}"),
            ("fields", "Body, From, MessageSid, To"),
            ("body", "form"),
            ("text (Body)", "Hällo €"),
            ("receiver (To)", "+12028831111"),
            ("signature", "right (twilio)"),
        ):
            self.assertEqual(steps[step], found)
        self.assertIn("<Response/>", steps["answer"])

    def test_a_wrong_signature_is_said_with_its_reason_and_no_secret(self) -> None:
        done = self.provider(
            "try",
            "twilio",
            "--request",
            self.recorded,
            "--secret-file",
            self.secrets,
            "--url",
            "https://other.example.com",
            status=1,
        )
        self.assertIn("WRONG (twilio", done.out)
        self.assertIn("is of another URL", done.out)
        self.assertIn("https://other.example.com/SMSReceiver/twilio", done.out)
        self.assertNotIn("auth-token", done.out + done.err)

    def test_the_time_at_which_it_came_counts(self) -> None:
        sent = Sent(url=URL, fields={"a": "b"}, json=True, at=1_700_000_000, secret="s")
        request = SIGNERS["sinch"].sign(sent)
        headers = {name: values[0] for name, values in request.headers.items()}
        recorded = self.file("sinch", raw(headers, request.body))
        secrets = self.file("secret", b"s")
        given = ("sinch", "--request", recorded, "--secret-file", secrets)
        for at, found in (("1700000000", "right"), ("2023-11-30T00:00:00Z", "too old")):
            steps = self.steps(*given, "--at", at, status=int(found != "right"))
            self.assertIn(found, steps["signature"])
        self.provider("try", *given, "--at", "yesterday", status=2)

    def test_what_cannot_be_read_is_refused_with_the_status_it_would_get(self) -> None:
        broken = raw({"Content-Type": JSON}, b'{"results": [')
        steps = self.steps("infobip", "--request", self.file("broken", broken), status=1)
        self.assertEqual(steps["REFUSED"], "400: the body is not valid JSON")
        steps = self.steps("telnyx", "--request", self.recorded, status=1)
        self.assertTrue(steps["REFUSED"].startswith("415: "))
        get = self.file("get", b"GET /SMSReceiver/telnyx HTTP/1.1\n\n")
        self.assertTrue(self.steps("telnyx", "--request", get, status=1)["REFUSED"].startswith("405: "))

    def test_a_line_of_the_recorded_requests_is_chosen_by_its_id(self) -> None:
        self.assertIn("choose one", self.provider("try", "twilio", "--request", str(PATH), status=1).err)
        steps = self.steps("twilio", "--request", str(PATH), "--id", "twilio-01")
        self.assertEqual(steps["signature"], "right (twilio)")
        self.provider("try", "twilio", "--request", str(PATH), "--id", "none", status=1)

    def test_files_that_are_no_requests_fail_in_words(self) -> None:
        for content, why in (
            (b"", "no request line"),
            (b"hello", "no request line"),
            (b"POST / HTTP/1.1\nno header here\n\n", "line 2 is no header"),
            (b"POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n1\r\n", "chunked"),
            (b"{", "not valid JSON"),
            (b'{"method": "GET"}', "has no path_query"),
            (b'{"method": "GET", "path_query": "/", "headers": 1}', "is no request"),
            (b'{"method": "GET", "path_query": "/", "headers": {}, "clock": 1764150000000}', "in seconds"),
            (b'{"method": "GET", "path_query": "/", "headers": {}, "clock": 1e999}', "in seconds"),
            (b'{"method": "GET", "path_query": "/", "headers": {}, "clock": "noon"}', "in seconds"),
        ):
            done = self.provider("try", "twilio", "--request", self.file("x", content), status=1)
            self.assertIn(why, done.err)
        self.assertIn("No such file", self.provider("try", "twilio", "--request", "/nowhere", status=1).err)
        empty = self.file("empty", b"\n")
        given = ("try", "twilio", "--request", self.recorded, "--secret-file")
        self.assertIn("no secret in it", self.provider(*given, empty, status=1).err)
        self.assertIn("cannot be used", self.provider(*self._telnyx(), status=1).err)

    def _telnyx(self) -> tuple[str, ...]:
        body = b'{"data": {"event_type": "message.received"}}'
        recorded = self.file("telnyx", raw({"Content-Type": JSON}, body))
        return ("try", "telnyx", "--request", recorded, "--secret-file", self.secrets)

    def test_content_length_says_where_the_body_ends(self) -> None:
        body = b"To=1&From=2&Body=x"
        head = {"Content-Type": "application/x-www-form-urlencoded"}
        for headers, content in (
            ({**head, "Content-Length": str(len(body))}, body + b"\n\n"),
            (head, body + b"\n"),
            (head, body),
        ):
            steps = self.steps("twilio", "--request", self.file("x", raw(headers, content)))
            self.assertEqual(steps["text (Body)"], "x")
        cut = self.file("x", raw({**head, "Content-Length": "100"}, body))
        self.assertIn("Content-Length says 100", self.steps("twilio", "--request", cut)["WARNING"])

    def test_handshakes_status_reports_and_terminals_are_harmless(self) -> None:
        report = {"data": {"event_type": "message.finalized", "payload": {}}}
        recorded = self.file("report", raw({"Content-Type": JSON}, json.dumps(report).encode()))
        self.assertEqual(self.steps("telnyx", "--request", recorded)["not an SMS"], "status report")
        evil = raw({"Content-Type": "application/x-www-form-urlencoded"}, b"To=1&From=2&Body=%1b[2J")
        self.assertIn(r"\x1b[2J", self.provider("try", "twilio", "--request", self.file("e", evil)).out)
