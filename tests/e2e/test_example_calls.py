"""The calls that the API's description shows, from a provider's request to the target's backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from urllib.parse import quote
from uuid import UUID

from tests.support.backend import Attempt, Backend
from tests.support.daemon import (
    Daemon,
    acd_group,
    application,
    client,
    connector,
    reseller,
    shared_daemon,
)
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import EXAMPLE_TOKEN, SECRET
from tests.support.sms_peers import PATH, Answer, Peer, query

TEXT = "This is a test message"
CLIENT = "acme/examples"
FREE, WITH_TOKEN = "+49123123", "+49123124"
SAID = {
    "receiver": FREE,
    "sender": "ALPHA",
    "sender_raw": "ALPHA",
    "text": "Grüße",
    "keyword": "win",
    "provider_message_id": "p-1",
    "encoding": "windows-1252",
}
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@cache
def scene() -> tuple[Daemon, Backend]:
    """The run's daemon with the directory of the examples, and where their SMS go."""
    target = Backend()
    daemon = shared_daemon()
    daemon.apply(directory(target))
    return daemon, target


def directory(target: Backend) -> str:
    return (
        reseller()
        + client("examples")
        + acd_group("support", target.url("/acd"), CLIENT, secret=SECRET, subject="SMS from {sender}")
        + application("survey", target.url("/app"), CLIENT, secret=SECRET)
        + connector(FREE, CLIENT, acd_group="support")
        + connector(WITH_TOKEN, CLIENT, application="survey", require_token=True, tokens=[EXAMPLE_TOKEN])
    )


class ExampleCallTests(ProcessTest):
    """The four URLs of the description, each by HTTP and by HTTPS."""

    def setUp(self) -> None:
        super().setUp()
        self.daemon, self.target = scene()

    def both(self) -> list[Peer]:
        peers = [self.daemon.peer(), self.daemon.tls_peer()]
        for peer in peers:
            self.addCleanup(peer.close)
        return peers

    def test_without_token_and_plus(self) -> None:
        for peer in self.both():
            answer = peer.ask(
                "GET",
                f"{PATH}?receiver=49123123&sender=49789789&message=This%20is%20a%20test%20message",
            )
            self.arrived(answer, "support", sender_raw="49789789")

    def test_without_token_with_plus(self) -> None:
        for peer in self.both():
            answer = peer.ask(
                "GET",
                f"{PATH}?receiver=%2B49123123&sender=%2B49789789&message=This%20is%20a%20test%20message",
            )
            self.arrived(answer, "support", sender_raw="+49789789")

    def test_with_token_without_plus(self) -> None:
        for peer in self.both():
            answer = peer.ask(
                "GET",
                f"{PATH}?receiver=49123124&sender=49789789&message=This%20is%20a%20test%20message"
                f"&token={EXAMPLE_TOKEN}",
            )
            self.arrived(answer, "survey", sender_raw="49789789")

    def test_with_token_and_plus(self) -> None:
        for peer in self.both():
            answer = peer.ask(
                "GET",
                f"{PATH}?receiver=%2B49123124&sender=%2B49789789&message=This%20is%20a%20test%20message"
                f"&token={EXAMPLE_TOKEN}",
            )
            self.arrived(answer, "survey", sender_raw="+49789789")

    def test_a_plus_that_was_left_unencoded(self) -> None:
        for peer in self.both():
            answer = peer.ask("GET", f"{PATH}?receiver=+49123123&sender=+49789789&message={quote(TEXT)}")
            self.arrived(answer, "support", sender_raw=" 49789789")

    def test_each_type_of_post(self) -> None:
        fields = {"receiver": FREE, "sender": "+49789789", "message": TEXT}
        for peer in self.both():
            for answer in (
                peer.post_form(**fields),
                peer.post_multipart(**fields),
                peer.post_json(**fields),
                peer.ask("POST", f"{PATH}?{query(fields)}"),
                peer.ask("POST", body=query(fields).encode()),
            ):
                self.arrived(answer, "support", sender_raw="+49789789")

    def test_each_type_of_post_with_a_token(self) -> None:
        fields = {"receiver": WITH_TOKEN, "sender": "+49789789", "message": TEXT, "token": EXAMPLE_TOKEN}
        for peer in self.both():
            for answer in (
                peer.post_form(**fields),
                peer.post_multipart(**fields),
                peer.post_json(**fields),
            ):
                self.arrived(answer, "survey", sender_raw="+49789789")

    def test_everything_else_that_a_request_can_say(self) -> None:
        peer = self.both()[0]
        body = quote("Grüße".encode("cp1252")).encode()
        answer = peer.ask(
            "POST",
            f"{PATH}?ziel=0049%20(0)123123&ziel=49123123&absender=ALPHA",
            b"smstext=" + body + b"&keyword=%20win%20&msgid=p-1",
            {"Content-Type": "application/x-www-form-urlencoded; charset=windows-1252"},
        )
        self.assertEqual(answer.status, 404)  # the first value that is not empty counts
        answer = peer.ask(
            "POST",
            f"{PATH}?ziel=&ziel=0049-123.123&absender=ALPHA",
            b"smstext=" + body + b"&keyword=%20win%20&msgid=p-1",
        )
        [attempt] = self.await_id(answer.id)
        said = {key: attempt.data[key] for key in SAID}
        self.assertEqual(said, SAID)

    # --- what every example leads to ------------------------------------------------------------

    def arrived(self, answer: Answer, target: str, sender_raw: str) -> None:
        """The SMS is in PostgreSQL and at its target, as contract 5 writes it."""
        self.assertEqual((answer.status, answer.body.strip()), (200, b"OK"))
        self.stored(answer.id, target, sender_raw)
        path = "/acd" if target == "support" else "/app"
        [attempt] = [a for a in self.await_id(answer.id) if a.path == path]
        self.assertEqual(attempt.headers["content-type"].partition(";")[0], "application/json")
        payload = attempt.verify(SECRET)
        self.assertEqual(payload, self.payload(answer.id, attempt, payload, target, sender_raw))
        self.assertEqual(payload["timestamp"], payload["data"]["received_at"])
        self.assertRegex(payload["timestamp"], _UTC)

    def await_id(self, id: str) -> list[Attempt]:
        until(lambda: id in self.target.ids(), "the delivery")
        return [attempt for attempt in self.target.attempts if attempt.data["id"] == id]

    def stored(self, id: str, target: str, sender_raw: str) -> None:
        [row] = self.daemon.ask(
            "SELECT receiver, sender, sender_raw, text, received_at FROM message WHERE id = %s", [id]
        )
        receiver = FREE if target == "support" else WITH_TOKEN
        self.assertEqual(row[:4], (receiver, "+49789789", sender_raw, TEXT))
        self.assertLess(abs((datetime.now(UTC) - row[4]).total_seconds()), 30)
        self.assertEqual(UUID(id).version, 7)

    def payload(
        self, id: str, attempt: Attempt, found: Mapping[str, object], target: str, sender_raw: str
    ) -> dict[str, object]:
        """What it is to be, but for the time of receipt."""
        receiver = FREE if target == "support" else WITH_TOKEN
        to: dict[str, object] = {"kind": "application", "name": "survey", "subject": ""}
        if target == "support":
            to = {"kind": "acd_group", "name": "support", "subject": "SMS from +49789789"}
        return {
            "type": "sms.received",
            "timestamp": found["timestamp"],
            "data": {
                "id": id,
                "delivery": attempt.webhook_id,
                "receiver": receiver,
                "sender": "+49789789",
                "sender_raw": sender_raw,
                "text": TEXT,
                "keyword": None,
                "received_at": found["timestamp"],
                "reseller": "acme",
                "client": "examples",
                "connector": receiver,
                "provider": "generic",
                "provider_message_id": None,
                "encoding": "utf-8",
                "parts": 1,
                "target": to,
                "attempt": 1,
                "hops": [],
            },
        }
