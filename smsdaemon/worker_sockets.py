"""Listening sockets that several workers share: the kernel gives each connection to one of them."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IReadDescriptor, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

AT_ONCE = 4
TURN_SECONDS = 0.0005
"""Others have their turn. The reactor makes 1 ms of it, so one worker takes up to 4,000 connections/s."""
EXHAUSTED_SECONDS = 0.5
"""After an error, usually without a descriptor left; until then the other workers take connections."""


def listen(descriptor: int, endpoint: str, factory: IProtocolFactory, reactor: Any) -> Deferred[Any]:
    """Take connections from a socket that somebody else has bound, as ``endpoint`` says.

    Fires, at once, with what has a ``stopListening``.
    """
    inherited: Any = _Inherited(descriptor, reactor)
    if endpoint.startswith("haproxy:"):
        inherited = proxyEndpoint(inherited)
    listening: Deferred[Any] = inherited.listen(factory)
    return listening


@implementer(IStreamServerEndpoint)
class _Inherited:
    def __init__(self, descriptor: int, reactor: Any) -> None:
        self._descriptor, self._reactor = descriptor, reactor

    def listen(self, factory: IProtocolFactory) -> Deferred[Any]:
        shared = SharedSocket(socket.socket(fileno=self._descriptor), factory, self._reactor)
        shared.start()
        return succeed(shared)


@implementer(IReadDescriptor)
class SharedSocket:
    """Accepts a few connections, and lets the other workers have a turn.

    Twisted's own port takes all that wait: when many peers come at once, the worker that wakes up first
    has most of them, for as long as they keep their connections (docs/architecture.md has figures).
    """

    def __init__(self, listening: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        self._socket, self._factory, self._reactor = listening, factory, reactor
        self._log = Logger(namespace="smsdaemon.workers")
        self._pausing: Any = None
        self._said: set[int | None] = set()

    def start(self) -> None:
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> None:
        """Take no more; what waits in the kernel's queue is for the others."""
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        self._reactor.removeReader(self)
        self._socket.close()
        self._factory.doStop()

    # --- what the reactor calls ---------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return type(self).__name__

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""

    def doRead(self) -> None:
        try:
            for _ in range(AT_ONCE):
                self._take(self._socket.accept()[0])
        except (BlockingIOError, ConnectionError):
            return  # another worker was faster, or the peer has thought better of it
        except OSError as error:
            if error.errno == errno.EINVAL:  # the supervisor has shut it down: nothing more will come
                self._reactor.removeReader(self)
                return
            if error.errno == errno.EBADF:
                raise
            # Also those that nobody thinks of (EPERM of a firewall, ENETDOWN, EPROTO): the reactor removes
            # a reader that raises, and this worker would accept nothing any more.
            self._cannot_take(error)
            return
        self._pause(TURN_SECONDS)

    def _take(self, connection: socket.socket) -> None:
        with connection:
            connection.setblocking(False)
            try:
                self._reactor.adoptStreamConnection(connection.fileno(), connection.family, self._factory)
            except OSError:
                return  # the peer is gone

    def _cannot_take(self, error: OSError) -> None:
        if error.errno not in self._said:
            self._said.add(error.errno)
            self._log.error("connections cannot be taken: {why}", why=error.strerror)
        self._pause(EXHAUSTED_SECONDS)

    def _pause(self, seconds: float) -> None:
        self._reactor.removeReader(self)
        self._pausing = self._reactor.callLater(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pausing = None
        self._reactor.addReader(self)
