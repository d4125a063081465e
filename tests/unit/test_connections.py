"""Which connections to targets are kept, and for how long."""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from smsdaemon.backends.connections import IDLE_SECONDS, Connections
from smsdaemon.backends.wire import Connection
from tests.support.cases import UnitTest


class ConnectionsTests(UnitTest):
    def setUp(self) -> None:
        self.clock = Clock()
        self.connections = Connections(keep=2, clock=cast(IReactorTime, self.clock))

    def idle(self) -> Connection:
        connection = Connection(self.connections)
        connection.makeConnection(StringTransport())
        self.connections.idle(connection)
        return connection

    def is_closed(self, connection: Connection) -> bool:
        return bool(connection.transport.disconnecting)

    def test_the_one_that_was_used_last_is_used_next(self) -> None:
        first, second = self.idle(), self.idle()
        self.assertIs(self.connections.take(), second)
        self.assertIs(self.connections.take(), first)
        self.assertIsNone(self.connections.take())

    def test_one_that_its_peer_has_closed_is_not_used(self) -> None:
        first, second = self.idle(), self.idle()
        second.connectionLost()
        self.assertIs(self.connections.take(), first)

    def test_more_than_are_to_be_kept_are_closed(self) -> None:
        kept = [self.idle(), self.idle()]
        self.assertTrue(self.is_closed(self.idle()))
        self.assertFalse(any(self.is_closed(one) for one in kept))

    def test_what_is_not_needed_for_a_while_is_closed_and_leaves_no_timer(self) -> None:
        first = self.idle()
        self.clock.advance(IDLE_SECONDS / 2)
        second = self.idle()
        self.clock.advance(IDLE_SECONDS / 2)
        self.assertEqual([self.is_closed(first), self.is_closed(second)], [True, False])
        self.clock.advance(IDLE_SECONDS / 2)
        self.assertTrue(self.is_closed(second))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closing_waits_for_the_ends_of_all_and_no_longer_than_a_while(self) -> None:
        first, second = self.idle(), self.idle()
        closed = self.connections.close()
        first.connectionLost()
        self.assertNoResult(closed)
        second.connectionLost()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
