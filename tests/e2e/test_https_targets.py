"""Targets by HTTPS: called only where certificate and host name are right."""

from __future__ import annotations

from tests.support.authority import Authority
from tests.support.backend import Backend, backend
from tests.support.certificates import server_context
from tests.support.daemon import QUICK_RETRIES, Daemon, acd_group, client, connector, daemon, reseller
from tests.support.postgres import reachable_folder
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SECRET, SENDER, TEXT_MARKER

NUMBERS = {"right": f"{RECEIVER}61", "wrong host": f"{RECEIVER}62", "unknown": f"{RECEIVER}63"}


class HttpsTargetTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        authority = Authority()
        self.trusted = backend(self, tls=server_context(authority.server(["localhost"])))
        self.unknown = backend(self, tls=server_context(Authority().server(["localhost", "127.0.0.1"])))
        anchors = reachable_folder(self) / "anchors.pem"
        anchors.write_bytes(authority.pem())
        self.running: Daemon = daemon(
            self,
            reseller()
            + client()
            + acd_group("right", self.trusted.url(host="localhost"), secret=SECRET)
            + acd_group("wrong host", self.trusted.url(host="127.0.0.1"))
            + acd_group("unknown", self.unknown.url(host="localhost"))
            + "".join(connector(number, acd_group=group) for group, number in NUMBERS.items()),
            QUICK_RETRIES,
            environment={"SSL_CERT_FILE": str(anchors)},
        )
        self.peer = self.running.peer()
        self.addCleanup(self.peer.close)

    def send(self, group: str) -> str:
        answer = self.peer.post_form(receiver=NUMBERS[group], sender=SENDER, message=TEXT_MARKER)
        self.assertEqual(answer.status, 200)
        return answer.id

    def test_one_that_an_authority_of_ssl_cert_file_signed_is_called(self) -> None:
        id = self.send("right")
        [attempt] = self.trusted.await_attempts(1)
        self.assertEqual(attempt.verify(SECRET)["data"]["id"], id)

    def test_one_with_the_certificate_of_another_host_is_not(self) -> None:
        self.refused("wrong host", self.trusted, "host name")

    def test_one_that_no_known_authority_signed_is_not(self) -> None:
        self.refused("unknown", self.unknown, "certificate verify failed")

    def refused(self, group: str, target: Backend, why: str) -> None:
        """It is tried again and again, and hears no word of the SMS."""
        id = self.send(group)
        statement = "SELECT attempts, reason FROM delivery WHERE message_id = %s"
        until(lambda: self.running.ask(statement, [id])[0][0] > 2, "attempts")
        [(_, reason)] = self.running.ask(statement, [id])
        self.assertIn(why, reason)
        self.assertEqual(target.attempts, [])
