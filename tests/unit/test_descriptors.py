"""How the descriptors of a process are shared between peers and all others."""

from __future__ import annotations

import resource
import subprocess
import sys

from twisted.internet.tcp import Port
from twisted.logger import PredicateResult

from smsdaemon.descriptors import FILES, MOST_PEERS, OnceAMinute, PeerRoom, peer_room
from tests.support.cases import UnitTest


class DescriptorTests(UnitTest):
    def test_plenty_is_capped(self) -> None:
        room = peer_room(65_536, others=2005)
        self.assertEqual(room.connections + room.told_connections, MOST_PEERS)

    def test_others_are_left_theirs_and_peers_at_least_half(self) -> None:
        room = peer_room(4096, others=1000)
        self.assertEqual(room.connections + room.told_connections, 4096 - 1000 - FILES)
        room = peer_room(1024, others=2005)
        self.assertEqual(room, PeerRoom(connections=487, told_connections=25))
        self.assertEqual(peer_room(2, others=0), PeerRoom(connections=1, told_connections=1))

    def test_the_soft_limit_is_raised_to_the_hard_one(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", "from smsdaemon.descriptors import raise_limit; print(raise_limit())"],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300)),
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.stdout, "300\n", done.stderr)

    def test_what_twisted_says_of_each_connection_is_logged_once_a_minute(self) -> None:
        now = 5.0
        predicate = OnceAMinute(lambda: now)
        closed = {"log_namespace": Port._logger.namespace, "log_format": "EMFILE encountered"}
        yes, no = PredicateResult.maybe, PredicateResult.no
        self.assertEqual([predicate(closed) for _ in range(3)], [yes, no, no])
        self.assertEqual(predicate({"log_namespace": "smsdaemon"}), yes)
        now = 65.0
        self.assertEqual([predicate(closed) for _ in range(2)], [yes, no])
