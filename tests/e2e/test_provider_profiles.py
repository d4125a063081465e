"""Provider profiles of a real daemon: one that the test invents, and wrong ones that stop the start."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from tests.support.backend import backend
from tests.support.daemon import Daemon, acd_group, client, connector, daemon, reseller
from tests.support.postgres import reachable_folder
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER

SECRET = "gizmo-signing-secret-77"
PROFILE = """
name = "gizmo"
description = "Gizmo Telecom, JSON"
[request]
body = ["json"]
batch = "events"
[is_sms]
when = { kind = "mo" }
otherwise = "status report"
[fields]
receiver = "to"
sender = "from"
text = "body.hex"
message_id = "uid"
[text]
[[text.rules]]
written = "hex"
charset = "utf-16be"
[authentication]
scheme = "hmac_body"
header = "x-gizmo-signature"
[answers.success]
content_type = "application/json"
body = '{"ok":true,"id":"{id}"}'
"""
TEXT = f"{TEXT_MARKER} äöü € 😀"


def event(text: str, uid: str, kind: str = "mo") -> dict[str, object]:
    body = {"hex": text.encode("utf-16-be").hex()}
    return {"kind": kind, "to": RECEIVER, "from": SENDER, "uid": uid, "body": body}


class ProviderProfileTests(ProcessTest):
    def settings(self, profile: str) -> str:
        folder = reachable_folder()
        (folder / "gizmo.toml").write_text(profile)
        return f'[receiver]\nprofiles = "{folder}"\n'

    def directory(self, url: str, **keys: Any) -> str:
        entry = connector(RECEIVER, acd_group="group", provider="gizmo", **keys)
        return reseller() + client() + acd_group("group", url) + entry

    def post(self, running: Daemon, events: list[dict[str, object]], secret: str = SECRET) -> int:
        body = json.dumps({"events": events}).encode()
        mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        peer = running.peer()
        self.addCleanup(peer.close)
        headers = {"Content-Type": "application/json", "X-Gizmo-Signature": mac}
        return peer.ask("POST", "/SMSReceiver/gizmo", body, headers).status

    def test_a_provider_is_added_by_a_file_alone_and_its_sms_are_delivered(self) -> None:
        target = backend(self)
        running = daemon(
            self,
            self.directory(target.url(), provider_secrets=["old", SECRET]),
            self.settings(PROFILE),
            workers=2,
        )
        self.assertEqual(self.post(running, [event(TEXT, "1")], secret="wrong"), 401)
        self.assertEqual(self.post(running, [event("x", "9", kind="dlr")]), 200)
        events = [event(TEXT, "1"), event("x", "8", kind="dlr"), event(f"{TEXT_MARKER} 2", "2")]
        for _ in range(2):
            self.assertEqual(self.post(running, events), 200)
        until(lambda: len(target.attempts) == 2, "the deliveries")
        self.assertEqual([a.data["text"] for a in target.attempts], [TEXT, f"{TEXT_MARKER} 2"])
        self.assertEqual({a.data["provider"] for a in target.attempts}, {"gizmo"})
        exported = running.command("export").out
        self.assertIn('provider = "gizmo"', exported)
        self.assertNotIn(SECRET, exported + running.log())

    def test_a_wrong_profile_stops_the_start_and_the_commands(self) -> None:
        settings = self.settings(PROFILE.replace("hmac_body", "trust").replace('"json"', '"jsno"'))
        made = Daemon(settings)
        self.addCleanup(made.remove)
        for ended in (made.run_to_its_end(), made.command("check")):
            self.assertEqual(ended.status, 1)
            said = ended.out + ended.err
            self.assertIn("gizmo.toml: request.body: allowed: a list of form", said)
            self.assertIn("gizmo.toml: authentication: there is no scheme trust", said)
        self.assertNotIn("Traceback", said)
