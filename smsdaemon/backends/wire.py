"""One HTTP/1.1 connection to a target, for one request after the other.

Twisted's own client took 82 µs of processor time for a request, and its Agent 137, where this takes 20
(docs/performance.md): calling out is half of what the daemon does. The parser is httptools', that of
Node.js.
"""

from __future__ import annotations

from typing import Any, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from smsdaemon.domain.model import Answer
from smsdaemon.sending import send_now

MAX_ANSWER_BYTES = 65536
"""How much of an answer's body is read (contract 5); what is beyond goes with its connection."""
MAX_HEAD_BYTES = 65536
"""Of status line and headers, those of interim answers included."""

_WITHOUT_BODY = (204, 304)


class NotHttp(Exception):
    """What came is no answer to an HTTP request."""


class GoneBeforeAnswer(Exception):
    """The connection ended before the first byte of an answer; the cause says how."""


class Owner(Protocol):
    """Who is told what becomes of a connection."""

    def made(self, connection: Connection) -> None:
        """It is up, but for TLS."""
        ...

    def idle(self, connection: Connection) -> None:
        """It can be used again."""
        ...

    def lost(self, connection: Connection) -> None:
        """It is down."""
        ...


@implementer(IHandshakeListener)
class Connection(protocol.Protocol):
    """Lets nothing lie about between exchange() and the network.

    The lease is checked just before; a process that is stopped there, for longer than its lease lasts,
    would send when it goes on.
    """

    transport: Any
    _begun: bool
    """Something of the answer is here, be it an interim one."""
    _in_body: bool
    _has_length: bool
    """The end of the body will be seen; otherwise it is that of the connection."""
    _complete: bool
    _unasked: bool
    """There came more than the answer."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._exchange: Deferred[Answer] | None = None
        self._secured: Deferred[None] = Deferred(lambda _: self.break_off())
        self._is_secured = self._reusable = False
        self._status = 0
        self.open = False
        """Whether a request can be sent, or may have been answered when it was."""
        self._begin_answer()

    # --- what the backend asks for ----------------------------------------------------------------

    def secured(self) -> Deferred[None]:
        """Fires when TLS is established: what is written before that would wait inside of it."""
        return self._secured

    def exchange(self, request: bytes) -> Deferred[Answer]:
        """Send a whole request now and read its answer; cancelling breaks the connection off.

        Fails with GoneBeforeAnswer, NotHttp, or as the connection was lost.
        """
        self._begin_answer()
        exchange: Deferred[Answer] = Deferred(self._forget)
        self._exchange = exchange
        self._send(request)
        return exchange

    def _forget(self, _: Deferred[Answer]) -> None:
        self._exchange = None
        self.break_off()

    def break_off(self) -> None:
        self.open = False
        self.transport.abortConnection()

    def close(self) -> None:
        """End it in good order; nothing is under way."""
        if self.open:
            self.open = False
            self.transport.loseConnection()

    def _send(self, request: bytes) -> None:
        transport = self.transport
        if self._is_secured:
            transport.write(request)
            aggregator = getattr(transport, "_aggregator", None)
            if aggregator is not None:  # it gathers small writes for a turn of its own
                aggregator.flush()
            if transport.transport.connected:
                transport.transport.doWrite()  # what it cannot send, the reactor will find again
            return
        send_now(transport, request)

    # --- what comes ---------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.open = True
        self._owner.made(self)

    def handshakeCompleted(self) -> None:
        self._is_secured = True
        if not self._secured.called:
            self._secured.callback(None)

    def dataReceived(self, data: bytes) -> None:
        if self._exchange is None:  # nobody has asked
            self.break_off()
            return
        self._begun = True
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._unasked = True
            if not self._complete:
                self._fail(NotHttp())
                return
        if self._complete:
            self._answered()
        elif self._head_bytes > MAX_HEAD_BYTES and not self._in_body:
            self._fail(NotHttp())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.open = False
        self._owner.lost(self)
        if not self._secured.called:
            self._secured.addErrback(lambda _: None)
            self._secured.errback(reason)
        if self._exchange is None:
            return
        # This is how an answer without a length ends, if its peer closed in order: what a reset has cut off
        # may have been a route. Over TLS "in order" takes the peer's goodbye (close_notify), without which
        # Twisted says ConnectionLost. Then anybody on the way may have cut it, so RFC 9112 (8, 9.8) calls it
        # incomplete. That costs an attempt that its webhook-id tells from another; a lost route, the SMS.
        if self._in_body and not self._has_length and reason.check(ConnectionDone):
            self._answered()
        elif self._begun:
            self._end().errback(reason)
        else:
            gone = GoneBeforeAnswer()
            gone.__cause__ = reason.value
            self._end().errback(gone)

    # --- what the parser finds ----------------------------------------------------------------------

    def _begin_answer(self) -> None:
        self._parser = HttpResponseParser(self)
        self._head_bytes = 0
        self._begun = self._in_body = self._has_length = self._complete = self._unasked = False
        self._retry_after: str | None = None
        self._content = bytearray()

    def on_message_begin(self) -> None:
        self._unasked = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"retry-after":
            if self._retry_after is None:
                self._retry_after = value.decode("latin-1")
        elif name == b"content-length":
            self._has_length = True
        elif name == b"transfer-encoding":
            if value.strip().lower() != b"chunked":
                raise NotHttp()
            self._has_length = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._complete:  # else an interim answer
            self._in_body = True
            self._status = status
            if status in _WITHOUT_BODY:
                self._has_length = True

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._content += body
            if len(self._content) > MAX_ANSWER_BYTES:
                self._complete = True
                self.break_off()

    def on_message_complete(self) -> None:
        if self._in_body and not self._complete:
            self._complete = True
            self._reusable = self._parser.should_keep_alive()

    # --- how it ends --------------------------------------------------------------------------------

    def _answered(self) -> None:
        exchange = self._end()
        answer = Answer(
            status=self._status,
            body=bytes(self._content[:MAX_ANSWER_BYTES]),
            retry_after=self._retry_after,
        )
        if self.open and self._reusable and not self._unasked:
            self._owner.idle(self)  # first: whoever hears the answer may have another request
        else:
            self.close()
        exchange.callback(answer)

    def _fail(self, error: Exception) -> None:
        self.break_off()
        self._end().errback(error)

    def _end(self) -> Deferred[Answer]:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None, "whoever ends an exchange has looked whether there is one"
        return exchange


class ConnectionFactory(Factory):
    """Makes connections of one owner."""

    noisy = False  # else there are two lines in the log for every connection

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def buildProtocol(self, _: IAddress | None) -> Connection:
        return Connection(self._owner)
