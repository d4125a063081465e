"""A listening socket that workers share, whatever accept() says."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from smsdaemon.worker_sockets import EXHAUSTED_SECONDS, SharedSocket
from tests.support.cases import UnitTest


class FailingSocket:
    """Nobody can be accepted from it."""

    def __init__(self, number: int) -> None:
        self.number, self.asked = number, 0

    def accept(self) -> Any:
        self.asked += 1
        raise OSError(self.number, os.strerror(self.number))

    def fileno(self) -> int:
        return 99

    def close(self) -> None:
        """Nothing to close."""


class SharedSocketTests(UnitTest):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.events: list[LogEvent] = []

        @implementer(ILogObserver)
        def remember(event: LogEvent) -> None:
            self.events.append(event)

        globalLogPublisher.addObserver(remember)
        self.addCleanup(globalLogPublisher.removeObserver, remember)

    def shared(self, number: int) -> tuple[FailingSocket, SharedSocket]:
        """One whose accept() fails with that number."""
        failing = FailingSocket(number)
        listening: Any = failing
        shared = SharedSocket(listening, Factory(), self.reactor)
        shared.start()
        return failing, shared

    def said(self) -> list[str]:
        return [event["why"] for event in self.events if event["log_namespace"] == "smsdaemon.workers"]

    def test_no_unusual_error_makes_it_deaf(self) -> None:
        # Of Linux' accept(2): what is wrong with the network, a firewall, and what nobody has thought of.
        for name in ("EPERM", "ENETDOWN", "EPROTO", "EHOSTUNREACH", "ENONET", "EMFILE", "ENOMEM", "EIO"):
            self.events.clear()
            failing, shared = self.shared(getattr(errno, name))
            for times in (1, 2, 3):
                self.assertIn(shared, self.reactor.getReaders(), name)
                shared.doRead()
                self.assertEqual(failing.asked, times, name)
                self.assertNotIn(shared, self.reactor.getReaders(), "it would be asked again at once")
                self.reactor.advance(EXHAUSTED_SECONDS)
            self.assertEqual(self.said(), [os.strerror(failing.number)], "once")
            shared.stopListening()

    def test_a_peer_that_went_and_another_worker_that_was_faster_are_nothing_to_speak_of(self) -> None:
        for number in (errno.EAGAIN, errno.ECONNABORTED, errno.ECONNRESET):
            _, shared = self.shared(number)
            shared.doRead()
            self.assertIn(shared, self.reactor.getReaders())
            shared.stopListening()
        self.assertEqual(self.said(), [])

    def test_a_socket_that_was_shut_down_is_left(self) -> None:
        _, shared = self.shared(errno.EINVAL)
        shared.doRead()
        self.reactor.advance(10 * EXHAUSTED_SECONDS)
        self.assertNotIn(shared, self.reactor.getReaders())
        self.assertEqual(self.said(), [])

    def test_one_that_is_closed_is_a_bug_and_not_waited_for(self) -> None:
        _, shared = self.shared(errno.EBADF)
        self.assertRaises(OSError, shared.doRead)
