"""Requests that change their shape are told in status, metrics and log of a real daemon."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import urlopen

from smsdaemon.domain.shapes import LEARNING_LOOKS
from smsdaemon.drift import FAILURES
from tests.support.daemon import Daemon, acd_group, client, connector, daemon, reseller
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER, TOKEN

SIGNED, GUARDED = RECEIVER + "7", RECEIVER + "8"
DIRECTORY = (
    reseller()
    + client()
    + acd_group("group", "log:")
    + connector(RECEIVER, acd_group="group")
    + connector(GUARDED, acd_group="group", require_token=True, tokens=[TOKEN])
    + connector(SIGNED, acd_group="group", provider="twilio", provider_secrets=["a-secret"])
)


class DriftTests(ProcessTest):
    def drift(self, running: Daemon) -> list[dict[str, Any]]:
        told = json.loads(running.command("status", "--json").out)
        return [
            {key: row[key] for key in ("kind", "provider", "connector", "names")} for row in told["drift"]
        ]

    def send(self, running: Daemon, count: int, body: dict[str, str], path: str = "/SMSReceiver") -> None:
        peer = running.peer()
        self.addCleanup(peer.close)
        for n in range(count):
            content = urlencode({**body, "n": str(n)}, quote_via=quote, encoding="latin-1").encode()
            peer.ask("POST", path, content, {"Content-Type": "application/x-www-form-urlencoded"})

    def test_what_has_changed_is_told_everywhere_outlives_a_restart_and_can_be_acknowledged(self) -> None:
        running = daemon(self, DIRECTORY)
        fields = {"receiver": RECEIVER, "sender": SENDER, "message": TEXT_MARKER}
        self.send(running, LEARNING_LOOKS + 5, fields)
        self.assertEqual(self.drift(running), [])

        changed = {**fields, "message": f"{TEXT_MARKER} ä", "carrier": "1"}
        self.send(
            running, FAILURES, {"To": SIGNED, "From": SENDER, "Body": TEXT_MARKER}, "/SMSReceiver/twilio"
        )

        self.send(running, FAILURES, {**fields, "receiver": GUARDED, "token": TOKEN[:-1] + "0"})
        self.send(running, FAILURES, {"To": SIGNED}, "/SMSReceiver/twilio")

        def all_told() -> bool:
            self.send(running, 1, changed)
            return len(self.drift(running)) == 5

        until(all_told, "the drift")
        generic = {"provider": "generic", "connector": RECEIVER}
        expected = [
            {"kind": "charset", "names": ["text that is not UTF-8"], **generic},
            {"kind": "unknown field", "names": ["carrier"], **generic},
            {
                "kind": "signature",
                "names": ["the token is missing, or wrong"],
                "provider": "generic",
                "connector": GUARDED,
            },
            {"kind": "unreadable", "names": ["missing: sender"], "provider": "twilio", "connector": ""},
            {
                "kind": "signature",
                "names": ["the header x-twilio-signature is missing"],
                "provider": "twilio",
                "connector": SIGNED,
            },
        ]
        self.assertEqual(self.drift(running), expected)
        plain = running.command("status").out
        self.assertRegex(plain, rf"drift +generic for {re.escape(RECEIVER)} since .*: unknown field: carrier")
        self.assertIn("are not what they were: unknown field: carrier", running.log())
        self.assertEqual(running.log().count("unknown field: carrier"), 1)
        with urlopen(running.url("admin") + "metrics") as response:
            metrics = response.read().decode()
        self.assertIn('smsdaemon_drift{kind="unknown field",provider="generic"} 1.0', metrics)

        running.stop()
        running.start()
        self.assertEqual(self.drift(running), expected[:2])  # signatures are counted anew
        self.assertEqual(running.command("status", "--acknowledge").status, 0)
        until(lambda: self.drift(running) == [], "the acknowledgement")
