"""A provider's charset turns out wrong: its SMS are read again and delivered again."""

from __future__ import annotations

import json
from urllib.parse import quote_from_bytes

from tests.support.backend import Reply, backend
from tests.support.daemon import Ended, acd_group, client, connector, daemon, reseller
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SECRET, SENDER, TEXT_MARKER, leaks

FORM = "application/x-www-form-urlencoded"
TEXT = f"{TEXT_MARKER} Grüße für 5 £"


class RedecodeTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.target = backend(self)
        group = acd_group("group", self.target.url(), secret=SECRET)
        directory = reseller() + client() + group + connector(RECEIVER, acd_group="group")
        self.daemon = daemon(self, directory)
        self.peer = self.daemon.peer()
        self.addCleanup(self.peer.close)

    def send(self, raw: bytes, content_type: str = FORM) -> str:
        fields = f"receiver={quote_from_bytes(RECEIVER.encode())}&sender={quote_from_bytes(SENDER.encode())}"
        body = f"{fields}&message={quote_from_bytes(raw)}".encode()
        if content_type.startswith("application/json"):
            body = b'{"receiver":"%s","sender":"%s","message":"%s"}' % (
                RECEIVER.encode(),
                SENDER.encode(),
                raw,
            )
        answer = self.peer.ask("POST", body=body, headers={"Content-Type": content_type})
        self.assertEqual(answer.status, 200)
        return answer.id

    def redecode(self, charset: str, *options: str) -> Ended:
        done = self.daemon.command("redecode", "--charset", charset, *options)
        self.assertEqual((done.status, done.err), (0, ""))
        return done

    def test_what_was_read_by_the_wrong_charset_is_delivered_again_with_the_right_text(self) -> None:
        for content_type, charset, encoding in (
            (FORM, "cp850", "windows-1252"),
            (f"{FORM}; charset=utf-8", "latin-1", "utf-8"),
            ("application/json; charset=utf-8", "iso-8859-15", "utf-8"),
        ):
            before = len(self.target.attempts)
            id = self.send(TEXT.encode(charset), content_type)
            [wrong] = self.target.await_attempts(before + 1)[before:]
            self.assertNotEqual(wrong.data["text"], TEXT)
            self.assertEqual(wrong.data["encoding"], encoding)
            until(lambda: not self.daemon.pending(), "the end of its delivery")
            seen = self.redecode(charset, "--receiver", RECEIVER, "--since", "1h", "--dry-run")
            self.assertEqual(leaks(seen.out.encode()), [])
            self.assertIn(f"{id}\t{encoding} > ", seen.out)
            self.redecode(charset, "--id", id, "--redeliver")
            again = self.target.await_attempts(before + 2)[-1]
            self.assertEqual((again.webhook_id, again.data["id"]), (wrong.webhook_id, id))
            self.assertEqual((again.data["text"], again.data["attempt"]), (TEXT, 2))
            self.assertEqual(again.verify(SECRET)["data"]["text"], TEXT)
            until(lambda: not self.daemon.pending(), "the end of its redelivery")
            self.redecode(charset, "--id", id, "--redeliver")
            self.assertEqual((self.daemon.pending(), len(self.target.attempts)), (0, before + 2))

    def test_what_is_retried_goes_out_with_the_new_text(self) -> None:
        self.target.answer = lambda attempt: Reply(200 if attempt.data["text"] == TEXT else 503)
        id = self.send(TEXT.encode("cp850"))
        self.target.await_attempts(1)
        done = self.redecode("cp850", "--receiver", RECEIVER, "--redeliver", "--json")
        self.assertEqual({json.loads(line)["id"] for line in done.out.splitlines()}, {id})
        until(lambda: not self.daemon.pending(), "its delivery")
        self.assertEqual(self.target.attempts[-1].data["text"], TEXT)
        self.assertEqual(len({attempt.webhook_id for attempt in self.target.attempts}), 1)
