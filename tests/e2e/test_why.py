"""What `smsdaemon why` tells of what really happened to SMS in a daemon."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.support.backend import Attempt, Backend, Reply, backend
from tests.support.daemon import acd_group, application, client, connector, daemon, reseller
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import OTHER_RECEIVER, RECEIVER, SECRET, SENDER, TEXT_MARKER, leaks

TEXT = f"{TEXT_MARKER} Grüße"
SETTINGS = "[routing]\nretry_schedule = [0, 0.3]\ntimeout = 1\nlease = 4\ngive_up_after = 60\n"


class WhyTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.target = backend(self)
        self.base = reseller() + client()
        self.daemon = daemon(self, settings=SETTINGS)
        self.peer = self.daemon.peer()
        self.addCleanup(self.peer.close)

    def routed(self, url: str, number: str = RECEIVER) -> None:
        """Have SMS to the number go to a group at this URL."""
        group = acd_group("group", url, secret=SECRET)
        self.daemon.apply(self.base + group + connector(number, acd_group="group"))

    def send(self, number: str = RECEIVER) -> str:
        answer = self.peer.post_form(receiver=number, sender=SENDER, message=TEXT)
        self.assertEqual(answer.status, 200)
        return answer.id

    def delivery(self, id: str) -> dict[str, Any]:
        """Of its last target, as JSON has it with everything shown."""
        found: dict[str, Any] = self.told(id)["deliveries"][-1]
        return found

    def told(self, id: str) -> dict[str, Any]:
        done = self.daemon.command("why", id, "--json", "--show-text")
        self.assertEqual((done.status, done.err), (0, ""))
        found: dict[str, Any] = json.loads(done.out)["sms"]
        return found

    def lines(self, asked: str) -> list[str]:
        """The form for people, in which no number and no text may be."""
        done = self.daemon.command("why", asked)
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertEqual(leaks(done.out.encode()), [])
        return [" ".join(line.split()) for line in done.out.splitlines()]

    def test_each_failure_of_an_sms_is_told_with_its_reason(self) -> None:
        gone = Backend()
        gone.close()
        self.routed(gone.url())
        id = self.send()
        until(
            lambda: self.daemon.ask("SELECT 1 FROM delivery WHERE attempts > 0 AND lease IS NULL"), "a retry"
        )
        answers = iter([Reply(500, f"no {TEXT}".encode()), Reply(503), None, Reply(200, b"taken")])

        def answer(_: Attempt) -> Reply:
            reply = next(answers)
            if reply is None:
                time.sleep(1.5)
            return reply or Reply()

        self.target.answer = answer
        self.routed(self.target.url())
        until(lambda: not self.daemon.pending(), "its delivery")
        delivery = self.delivery(id)
        self.assertEqual(delivery["state"], "delivered")
        attempts = delivery["attempts"]
        self.assertEqual([a["number"] for a in attempts], list(range(1, len(attempts) + 1)))
        self.assertEqual((attempts[0]["status"], attempts[0]["reason"]), (None, "connection refused"))
        last = [(a["outcome"], a["status"], a["answer"]) for a in attempts[-4:]]
        self.assertEqual(
            last,
            [
                ("retry", 500, f"no {TEXT}"),
                ("retry", 503, ""),
                ("retry", None, ""),
                ("delivered", 200, "taken"),
            ],
        )
        self.assertGreater(attempts[-2]["seconds"], 0.9)
        self.assertTrue(all(a["holder"].endswith(f":{self.daemon.pid}") for a in attempts), attempts)
        lines = self.lines(id)
        self.assertEqual(lines[0], f"SMS {id}: delivered")
        self.assertIn(f"answer: {len(TEXT) + 3} characters", lines)
        for reason in ("connection refused", "answered 500", "answered 503"):
            self.assertIn(reason, lines)

    def test_dead_hopped_waiting_and_refused_ones_are_told(self) -> None:
        survey = application("survey", self.target.url("/survey"), secret=SECRET)
        group = acd_group("group", self.target.url("/group"), secret=SECRET)
        connectors = connector(RECEIVER, application="survey") + connector(OTHER_RECEIVER)
        self.daemon.apply(self.base + survey + group + connectors)
        route = Reply(200, b'{"route": {"acd_group": "group"}}')
        self.target.answer = lambda attempt: route if attempt.path == "/survey" else Reply(410)
        id = self.send()
        until(lambda: not self.daemon.pending(), "its end")
        survey_told, group_told = self.told(id)["deliveries"]
        self.assertEqual((survey_told["state"], group_told["state"]), ("delivered", "dead"))
        self.assertEqual(group_told["hops"], [{"kind": "application", "name": "survey"}])
        self.assertEqual(group_told["attempts"][0]["status"], 410)
        self.assertIn("after application survey", self.lines(id))

        self.target.answer = lambda _: Reply(503, headers={"Retry-After": "30"})
        head = self.send()
        behind = self.send()
        until(
            lambda: self.daemon.ask("SELECT 1 FROM delivery WHERE due_at > now() + interval '10 s'"),
            "a retry",
        )
        self.assertTrue(any(line.startswith("now attempt 2 is due 2") for line in self.lines(head)))
        self.assertIn(f"now waits behind SMS {head}", self.lines(behind))
        webhook = self.delivery(head)["id"]
        self.assertEqual(self.lines(webhook), self.lines(head))
        number = self.lines(RECEIVER)
        self.assertIn("pending 2 to it, 0 from it", number)
        self.assertEqual(len([line for line in number if "from +491…11" in line]), 3)

        self.assertEqual(
            self.peer.post_form(receiver=OTHER_RECEIVER, sender=SENDER, message=TEXT).status, 502
        )
        until(lambda: self.daemon.ask("SELECT 1 FROM refused_sms"), "the refused SMS")
        refused = self.lines(OTHER_RECEIVER)
        self.assertTrue(any(line.startswith("requests would be answered 502: ") for line in refused))
        self.assertTrue(any(line.endswith("refused 1 time") for line in refused))
