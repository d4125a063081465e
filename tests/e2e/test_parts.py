"""Concatenated SMS through a running daemon: joined whichever way their parts come, or given up in time."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from tests.support.backend import Backend, backend
from tests.support.daemon import Daemon, acd_group, client, connector, daemon, reseller
from tests.support.processes import ProcessTest
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER

TEXTS = {1: f"{TEXT_MARKER} ä", 2: " €[", 3: "] ö"}


class PartsTest(ProcessTest):
    def run_with(self, target: Backend, settings: str = "", workers: int = 1) -> Daemon:
        directory = (
            reseller()
            + client()
            + acd_group("group", target.url())
            + connector(RECEIVER, acd_group="group", provider=["vonage", "openmarket-uk"], unsigned=True)
        )
        return daemon(self, directory, settings, workers=workers)

    def get(self, running: Daemon, profile: str, fields: Mapping[str, object]) -> str:
        """On a connection of its own, so that any worker may have it; the id that it hears."""
        peer = running.peer()
        try:
            answer = peer.ask("GET", f"/SMSReceiver/{profile}?{urlencode(fields)}")
        finally:
            peer.close()
        self.assertEqual(answer.status, 200, answer.body)
        return answer.id

    def vonage(self, running: Daemon, number: int, reference: str = "7", total: int = 3) -> str:
        fields = {"to": RECEIVER, "msisdn": SENDER, "text": TEXTS[number]}
        fields["messageId"] = f"{reference}-{number}"
        parts = {"concat": "true", "concat-ref": reference, "concat-part": number, "concat-total": total}
        return self.get(running, "vonage", fields | parts)


class JoiningTests(PartsTest):
    def test_in_any_order_with_repeats_and_by_any_worker_they_are_one_sms(self) -> None:
        target = backend(self)
        running = self.run_with(target, workers=2)
        ids = {self.vonage(running, number) for number in (3, 1, 3, 2, 1, 2)}
        self.assertEqual(len(ids), 1)
        [attempt] = target.await_attempts(1)
        self.assertEqual(attempt.data["text"], TEXTS[1] + TEXTS[2] + TEXTS[3])
        self.assertEqual((attempt.data["id"], attempt.data["parts"]), (*ids, 3))
        self.assertNotIn("parts_missing", attempt.data)
        self.assertEqual(running.ask("SELECT count(*) FROM message"), [(1,)])

    def test_a_character_that_was_cut_in_two_is_whole_again(self) -> None:
        target = backend(self)
        running = self.run_with(target, workers=2)
        text = f"{TEXT_MARKER} 😀🐟"
        raw = text.encode("utf-16-be")
        cut = raw.index("🐟".encode("utf-16-be")) + 2
        for number, piece in ((2, raw[cut:]), (1, raw[:cut])):
            udh = bytes([5, 0, 3, 66, 2, number]).hex()
            fields = {"smsto": RECEIVER, "smsfrom": SENDER, "smsid": f"o-{number}", "smsdate": ""}
            coded = {"bits": "16", "smsucs2": piece.hex(), "smsudh": udh}
            self.get(running, "openmarket-uk", fields | coded)
        [attempt] = target.await_attempts(1)
        self.assertEqual((attempt.data["text"], attempt.data["parts"]), (text, 2))

    def test_those_that_came_before_a_restart_are_joined_with_those_after_it(self) -> None:
        target = backend(self)
        running = self.run_with(target)
        first = self.vonage(running, 2)
        running.stop()
        running.start()
        self.assertEqual({self.vonage(running, 1), self.vonage(running, 3)}, {first})
        [attempt] = target.await_attempts(1)
        self.assertEqual(attempt.data["text"], TEXTS[1] + TEXTS[2] + TEXTS[3])


class GivingUpTests(PartsTest):
    def test_it_is_delivered_with_what_is_there_and_the_numbers_of_what_is_not(self) -> None:
        target = backend(self)
        running = self.run_with(target, "[receiver]\nconcatenation_timeout = 1\n")
        id = self.vonage(running, 2)
        [attempt] = target.await_attempts(1)
        self.assertEqual((attempt.data["id"], attempt.data["text"]), (id, TEXTS[2]))
        self.assertEqual((attempt.data["parts"], attempt.data["parts_missing"]), (3, [1, 3]))
        self.assertIn("1 concatenated SMS given up: parts are missing", running.log())
