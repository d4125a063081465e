"""`smsdaemon sink` as a process: what it answers and prints to real deliveries."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
from datetime import UTC, datetime
from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.support.daemon import BINARIES
from tests.support.processes import PATIENCE_SECONDS, ProcessTest
from tests.support.secrets_in_tests import SECRET, SENDER, TEXT_MARKER, keep


class Sink:
    """One running sink."""

    def __init__(self, test: ProcessTest, *arguments: str) -> None:
        command = [str(BINARIES / "smsdaemon"), "sink", "--listen", "tcp:0:interface=127.0.0.1", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        test.addCleanup(self.end)
        stream = self.process.stderr if "--json" in arguments else self.process.stdout
        assert stream is not None
        found = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)/\n", stream.readline())
        assert found is not None
        self.port = int(found[1])

    def end(self) -> tuple[str, str, int]:
        """Interrupt it if it still runs; what it printed since its first line, and its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        if self.process.stdout is not None and self.process.stdout.closed:
            return "", "", self.process.returncode
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        keep("smsdaemon-sink", (out + err).encode())
        return out, err, self.process.returncode

    def deliver(
        self, n: int, secret: str = SECRET, attempt: int = 1, **fields: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Make one attempt as the daemon would; status, body and headers of the answer."""
        body = json.dumps(payload(n, attempt, **fields))
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": f"delivery-{n}",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(f"delivery-{n}", now, body),
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("POST", "/sms", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()


def payload(n: int, attempt: int, **fields: str) -> dict[str, Any]:
    data = {
        "id": f"sms-{n}",
        "delivery": f"delivery-{n}",
        "receiver": "+49123123",
        "connector": "+49123123",
        "sender": SENDER,
        "text": f"{TEXT_MARKER} {n}",
        "received_at": f"2026-11-22T16:43:{n:02}.000000Z",
        "target": {"kind": "acd_group", "name": "support"},
        "attempt": attempt,
    }
    return {"type": "sms.received", "data": {**data, **fields}}


class SinkTests(ProcessTest):
    def test_each_delivery_is_a_line_with_its_signature_and_without_its_text(self) -> None:
        sink = Sink(self, "--secret", SECRET)
        self.assertEqual(sink.deliver(1)[0], 200)
        self.assertEqual(sink.deliver(2, secret="whsec_Zm9vYmFyZm9vYmFy")[0], 401)
        self.assertEqual(sink.deliver(1, attempt=2)[0], 200)
        out, err, status = sink.end()
        first, second, third = out.splitlines()
        self.assertRegex(
            first, r"^\d\d:\d\d:\d\d\.\d{6} 200 id sms-1 delivery delivery-1 attempt 1 to 'support' "
        )
        self.assertTrue(first.endswith(" signature ok"), first)
        self.assertTrue(second.endswith(" signature WRONG"), second)
        self.assertTrue(third.endswith(" signature ok DUPLICATE"), third)
        self.assertEqual(
            err, "3 attempts: 1 delivered, 1 duplicates, 0 out of order, 1 with a wrong signature\n"
        )
        self.assertEqual(status, 130)

    def test_what_is_delivered_forges_no_line_and_steers_no_terminal(self) -> None:
        sink = Sink(self, "--show-text")
        evil = "\x1b[2J\n16:43:42 200"
        sink.deliver(1, id=evil, delivery=evil, receiver=evil, sender=evil, text=evil)
        out, _, _ = sink.end()
        self.assertEqual(len(out.splitlines()), 1, out)
        self.assertNotIn("\x1b", out)
        self.assertEqual(out.count(r"\x1b[2J\n16:43:42 200"), 5, out)

    def test_numbers_are_whole_only_when_asked(self) -> None:
        for options, shown in (((), False), (("--json",), False), (("--json", "--show-text"), True)):
            sink = Sink(self, *options)
            sink.deliver(1, receiver="+4912312399", sender="+4978978999", text="x")
            out, _, _ = sink.end()
            self.assertEqual(("+4912312399" in out, "+4978978999" in out), (shown, shown), out)

    def test_it_answers_the_statuses_in_turn_with_retry_after_and_ends_by_itself(self) -> None:
        sink = Sink(
            self, "--status", "503", "--status", "200", "--retry-after", "7", "--count", "3", "--json"
        )
        status, _, headers = sink.deliver(1)
        self.assertEqual((status, headers["Retry-After"]), (503, "7"))
        status, _, headers = sink.deliver(1, attempt=2)
        self.assertEqual((status, headers["Retry-After"]), (200, None))
        self.assertEqual(sink.deliver(2)[0], 200)
        self.assertEqual(sink.process.wait(PATIENCE_SECONDS), 0)
        out, err, _ = sink.end()
        rows = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            err, "3 attempts: 2 delivered, 0 duplicates, 0 out of order, 0 with a wrong signature\n"
        )
        self.assertEqual(
            [(row["id"], row["attempt"], row["status"]) for row in rows],
            [("sms-1", 1, 503), ("sms-1", 2, 200), ("sms-2", 1, 200)],
        )
        self.assertEqual({row["signature_ok"] for row in rows}, {None})
        self.assertNotIn("text", rows[0])

    def test_it_can_route_as_an_application_does(self) -> None:
        sink = Sink(self, "--route-acd-group", "support")
        status, body, headers = sink.deliver(1)
        self.assertEqual((status, json.loads(body)), (200, {"route": {"acd_group": "support"}}))
        self.assertEqual(headers["Content-Type"], "application/json")

    def test_all_can_be_made_to_fail(self) -> None:
        sink = Sink(self, "--fail-rate", "1")
        self.assertEqual([sink.deliver(n)[0] for n in range(3)], [503, 503, 503])

    def test_what_is_no_delivery_is_answered_too(self) -> None:
        sink = Sink(self)
        connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=PATIENCE_SECONDS)
        self.addCleanup(connection.close)
        for method, body, status in (("POST", b"{nonsense", 200), ("GET", None, 200)):
            connection.request(method, "/", body)
            answer = connection.getresponse()
            answer.read()
            self.assertEqual(answer.status, status, method)

    def test_a_port_in_use_is_one_line_and_status_1(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            listen = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            done = subprocess.run(
                [str(BINARIES / "smsdaemon"), "sink", "--listen", listen],
                capture_output=True,
                text=True,
                timeout=PATIENCE_SECONDS,
            )
        self.assertEqual((done.stdout, done.returncode), ("", 1))
        self.assertEqual(done.stderr, f"smsdaemon: --listen {listen}: Address already in use\n")

    def test_a_secret_that_is_none_is_wrong_usage(self) -> None:
        done = subprocess.run(
            [str(BINARIES / "smsdaemon"), "sink", "--secret", "hunter2-nonsense"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        self.assertEqual(done.returncode, 2)
        self.assertNotIn("hunter2", done.stdout + done.stderr)
