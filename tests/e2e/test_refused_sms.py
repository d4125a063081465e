"""What is answered 502 is kept, and delivered once its connector is mended; what is not ours is not."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.support.backend import Backend
from tests.support.daemon import Daemon, acd_group, client, connector, daemon, reseller
from tests.support.postgres import PrivateServer
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import (
    OTHER_RECEIVER,
    OTHER_TOKEN,
    RECEIVER,
    SENDER,
    TEXT_MARKER,
    TOKEN,
    leaks,
)
from tests.support.sms_peers import in_threads

AT_ONCE_SECONDS = 0.5
"""Far less than anybody waits for a database."""


class RefusedSmsTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.target = Backend()
        self.addCleanup(self.target.close)

    def begin(self, running: Daemon) -> None:
        """With a connector that has no target."""
        self.daemon = running
        self.apply("")
        self.peer = running.peer()
        self.addCleanup(self.peer.close)

    def apply(self, connectors_target: str) -> None:
        keys = {"acd_group": connectors_target} if connectors_target else {}
        self.daemon.apply(
            reseller()
            + client()
            + acd_group("group", self.target.url())
            + connector(RECEIVER, **keys)
            + connector(OTHER_RECEIVER, acd_group="group", require_token=True, tokens=[TOKEN])
        )

    def send(self, text: str = "", **fields: str) -> int:
        message = f"{TEXT_MARKER} {text}"
        return self.peer.post_form(receiver=RECEIVER, sender=SENDER, message=message, **fields).status

    def refused(self) -> list[dict[str, Any]]:
        """Without the harness' own, which are the sentinels of its directory."""
        done = self.daemon.command("refused", "--receiver", RECEIVER, "--json")
        self.assertEqual(done.status, 0, done.err)
        return [json.loads(line) for line in done.out.splitlines()]

    def retry(self) -> list[str]:
        done = self.daemon.command("refused", "retry", "--receiver", RECEIVER, "--json")
        self.assertEqual(done.status, 0, done.err)
        return [json.loads(line)["result"] for line in done.out.splitlines()]

    def await_refused(self, times: int) -> list[dict[str, Any]]:
        until(
            lambda: self.daemon.ask(
                "SELECT 1 FROM refused_sms WHERE receiver = %s HAVING sum(times) = %s", [RECEIVER, times]
            ),
            "what was refused in the store",
        )
        return self.refused()

    def test_it_is_kept_once_and_delivered_once_when_the_connector_is_mended(self) -> None:
        self.begin(daemon(self))
        for _ in range(3):
            self.assertEqual(self.send(message_id="m1"), 502)
        [row] = self.await_refused(times=3)
        self.assertEqual((row["times"], row["provider_message_id"]), (3, "m1"))
        self.apply("group")
        self.assertEqual(self.retry(), ["accepted"])
        [attempt] = self.target.await_attempts(1)
        self.assertEqual((attempt.data["id"], attempt.data["text"]), (row["id"], row["text"]))
        until(lambda: self.daemon.pending() == 0, "the outcome")
        self.assertEqual((len(self.target.attempts), self.refused()), (1, []))
        self.assertEqual(self.send(message_id="m1"), 200)  # the provider goes on repeating
        self.assertEqual(self.daemon.ask("SELECT count(*) FROM message"), [(1,)])

    def test_a_repeat_that_came_after_the_mending_is_not_delivered_twice(self) -> None:
        self.begin(daemon(self))
        self.assertEqual(self.send(message_id="m1"), 502)
        self.await_refused(times=1)
        self.apply("group")
        self.assertEqual(self.send(message_id="m1"), 200)
        self.assertEqual(self.retry(), ["already accepted"])
        until(lambda: self.daemon.pending() == 0, "the outcome")
        self.assertEqual(len(self.target.attempts), 1)
        self.assertEqual(self.refused(), [])

    def test_while_the_database_is_away_502_comes_at_once_and_is_kept_after(self) -> None:
        server = PrivateServer(self)
        server.start()
        running = Daemon(dsn=server.dsn)
        self.addCleanup(running.remove)
        running.start()
        self.begin(running)
        server.kill()
        for n in range(20):
            began = time.monotonic()
            self.assertEqual(self.send(str(n)), 502)
            self.assertLess(time.monotonic() - began, AT_ONCE_SECONDS)
        server.start()
        self.assertEqual(len(self.await_refused(times=20)), 20)

    def test_a_daemon_that_stops_writes_what_it_refused_before(self) -> None:
        self.begin(daemon(self))
        for n in range(50):
            self.assertEqual(self.send(str(n)), 502)
        self.daemon.stop()
        self.assertEqual(len(self.refused()), 50)

    def test_floods_of_what_is_not_ours_leave_few_lines_and_no_rows(self) -> None:
        self.begin(daemon(self))
        unknown, wrong = f"{RECEIVER}9", OTHER_TOKEN
        began = time.monotonic()

        def flood(_: int) -> None:
            peer = self.daemon.peer()
            for _ in range(200):
                answer = peer.post_form(receiver=unknown, sender=SENDER, message=TEXT_MARKER, token=wrong)
                self.assertEqual(answer.status, 404)
                fields = {"receiver": OTHER_RECEIVER, "sender": SENDER, "message": TEXT_MARKER}
                self.assertEqual(peer.post_form(**fields, token=wrong).status, 401)
            peer.close()

        in_threads(4, flood)
        spans = 1 + int((time.monotonic() - began) // 10)
        lines = [line for line in self.daemon.log().splitlines() if "refused: " in line]
        self.assertIn(len([line for line in lines if "no connector" in line]), range(1, spans + 2))
        self.assertIn(len([line for line in lines if "token" in line]), range(1, spans + 1))
        self.assertEqual(leaks(self.daemon.log().encode()), [])
        self.assertEqual(self.refused(), [])
