"""Peers that do not wait for their answer, a thousand times over."""

from __future__ import annotations

import socket
import struct

from tests.support.backend import backend
from tests.support.daemon import Daemon, acd_group, client, connector, daemon, reseller
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER_PREFIX, TEXT_MARKER
from tests.support.sms_peers import PATH, in_threads, query

TIMES = 1000
PEERS = 10
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: a reset, not a goodbye


class HangUpTests(ProcessTest):
    def test_a_thousand_peers_that_hang_up_leave_a_pool_that_works(self) -> None:
        target = backend(self)
        running = daemon(
            self,
            reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group"),
        )
        in_threads(PEERS, lambda n: self.hang_up_often(running, n))
        # More requests than there are connections, so that each connection is used again.
        peer = running.peer()
        self.addCleanup(peer.close)
        for n in range(20):
            answer = peer.post_form(receiver=RECEIVER, sender="1", message=f"{TEXT_MARKER} {n}")
            self.assertEqual(answer.status, 200)
        self.assert_nothing_hangs(running)
        # What was stored for those who had gone is delivered like all else, exactly once, and not only
        # when its lease of 60 seconds is over.
        until(lambda: running.pending() == 0, "the deliveries", patience=30)
        stored = {id for (id,) in running.ask("SELECT id::text FROM message")}
        self.assertGreater(len(stored), 20, "no peer came as far as a stored SMS: the test shows nothing")
        self.assertEqual(target.ids(), stored)
        self.assertEqual(len(target.attempts), len(stored))

    def hang_up_often(self, running: Daemon, n: int) -> None:
        fields = {"receiver": RECEIVER, "sender": f"{SENDER_PREFIX}{n:05d}", "message": TEXT_MARKER}
        request = f"GET {PATH}?{query(fields)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        for count in range(TIMES // PEERS):
            with socket.create_connection(("127.0.0.1", running.port()), timeout=10) as connection:
                # Every fourth in the middle of the request; some by a reset.
                connection.sendall(request[: len(request) // 2] if count % 4 == 3 else request)
                if count % 2:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)

    def assert_nothing_hangs(self, running: Daemon) -> None:
        until(
            lambda: (
                not running.ask(
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                    " AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()"
                )
            ),
            "no transaction that was left open",
        )
