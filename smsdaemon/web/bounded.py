"""HTTP/1.1 as twisted.web speaks it, with a bound on everything that a peer can make large or slow."""

# mypy: allow-untyped-calls

from __future__ import annotations

from math import inf
from typing import Any
from urllib.parse import quote_from_bytes

from attrs import frozen
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import IResource

from smsdaemon.sending import send_now
from smsdaemon.web.answers import TEXT, Answer
from smsdaemon.web.crowd import Crowd, TurnedAway, half_close
from smsdaemon.web.heads import DateLine, head_lines
from smsdaemon.web.request import BoundedRequest, Observe


@frozen(kw_only=True)
class Bounds:
    """What one connection may cost, and how many there may be at once."""

    max_body_bytes: int = 65536
    max_url_bytes: int = 16384
    max_header_bytes: int = 32768
    request_seconds: float = 30
    """From the first byte of a request to its last."""
    idle_seconds: float = 75
    """Between requests, and for the peer to take its answers."""
    swallowed_bytes: int = 1024 * 1024
    """How much of a refused request is read after the answer, so that the peer gets to read that."""
    swallowing_seconds: float = 2
    connections: int = 1000
    """Beyond these, a connection hears 500."""
    told_connections: int = 100
    """Beyond these on top, it is closed without a word."""
    telling_seconds: float = 1
    """How long a connection that will hear 500 may take to say what it wants."""


class BoundedChannel(http.HTTPChannel):
    """One connection, which carries one request at a time.

    Requests that a peer sends ahead wait unparsed, at most 16 KiB and one read of them; then the
    connection is not read until it was answered. Nor is it while the peer does not take its answers.
    """

    site: BoundedSite
    _answered: BoundedRequest | None = None
    """What was answered while the answers before it still wait for the peer."""
    _refusing = False
    """Nothing more is parsed: what comes is read and thrown away until the peer, time or bytes end."""
    _swallowed = 0
    _in_request_line = True
    _between_requests = True
    _deadline = inf
    _watch: Any = None

    # --- time: one delayed call per connection, which is moved for slow requests only ----------

    def connectionMade(self) -> None:
        self._bounds = bounds = self.site.bounds
        self._clock = self.site.clock
        self.site.crowd.served += 1
        # Room to say 414 to what is too long by far; past that, lineLengthExceeded(). Three times
        # that for a request line of raw bytes, which lineReceived() writes as %-escapes.
        self.MAX_LENGTH = 4 * bounds.max_url_bytes + 1024
        self.totalHeadersSize = 3 * self.MAX_LENGTH + bounds.max_header_bytes
        super().connectionMade()
        self._deadline = self._clock.seconds() + bounds.idle_seconds
        self._watch = self._clock.callLater(bounds.idle_seconds, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        left = self._deadline - self._clock.seconds()
        if left <= 0:
            self._watch = None
            self.timeoutConnection()
        else:
            self._watch = self._clock.callLater(min(left, self._bounds.idle_seconds), self._look_at_deadline)

    def _allow(self, seconds: float) -> None:
        self._deadline = self._clock.seconds() + seconds
        if self._watch is not None:
            self._watch.reset(seconds)

    def timeoutConnection(self) -> None:
        """Close without a word in the log: peers that go idle are nothing to report."""
        # Who has not read in all this time is not waited for once more.
        patience = 0 if self._waitingForTransport else self.abortTimeout
        self._abortingCall = self._clock.callLater(patience, self.forceAbortClient)
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.crowd.served -= 1
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connectionLost(reason)

    # --- reading --------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._refusing:
            self._swallow(data)
            return
        # Not HTTPChannel's own, which starts the timeout anew with each byte.
        LineReceiver.dataReceived(self, data)
        waiting = not self._handlingRequest and not self._refusing and bool(self.requests or self._buffer)
        if not waiting:
            self._between_requests = True
        elif self._between_requests:
            self._between_requests = False
            self._allow(self._bounds.request_seconds)

    def lineReceived(self, line: bytes) -> None:
        if self._refusing:
            return
        if self._in_request_line and line:
            self._in_request_line = False
            if not line.isascii():
                # Careless clients send text as it is. What they mean is clear, so do not lose the SMS.
                line = quote_from_bytes(line, _PRINTABLE).encode()
        super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a Content-Length of more digits than int() takes
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        if self.length is None or self.length <= self._bounds.max_body_bytes:
            super().allHeadersReceived()
        else:
            self.requests[-1].refuse_body()
            self.body_exceeded()

    def body_exceeded(self) -> None:
        """Answer the request that is being read now; its body is not worth reading."""
        self.persistent, self._handlingRequest = False, True
        self._refuse_more()
        self.requests[-1].requestReceived(self._command, self._path, self._version)

    def allContentReceived(self) -> None:
        self._in_request_line = True
        self._deadline = inf
        super().allContentReceived()

    def _finishRequestBody(self, data: bytes) -> None:
        if not self._refusing:
            super()._finishRequestBody(data)

    def rawDataReceived(self, data: bytes) -> None:
        if self._refusing:
            self._swallow(data)
        else:
            super().rawDataReceived(data)

    def requestDone(self, request: BoundedRequest) -> None:
        self._deadline = self._clock.seconds() + self._bounds.idle_seconds
        if self._waitingForTransport and self.persistent:
            self._answered = request
        else:
            super().requestDone(request)

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            send_now(self.transport, data)

    def pauseProducing(self) -> None:
        super().pauseProducing()
        # HTTPChannel reads on while it answers: a peer that did not read cost 3 MB more each second.
        self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self._answered is not None:
            request, self._answered = self._answered, None
            super().requestDone(request)

    # --- refusing -------------------------------------------------------------------------------

    def lineLengthExceeded(self, line: bytes) -> None:
        if self._in_request_line:
            limit = self._bounds.max_url_bytes
            self._refuse(414, b"the URL is longer than %d bytes\n" % limit)
        else:
            self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._refuse(400, b"this is not valid HTTP\n")

    def _refuse(self, status: int, text: bytes) -> None:
        """Answer what never became a request."""
        if self._refusing:
            return
        self._refuse_more()
        answer = Answer(status, TEXT, text)
        self.write(head_lines(answer, self.site.date_line(), closes=True) + text)
        self.site.observe(status, 0.0)
        self.loseConnection()

    def _refuse_more(self) -> None:
        self._refusing = True
        self.clearLineBuffer()

    def _swallow(self, data: bytes) -> None:
        self._swallowed += len(data)
        if self._swallowed > self._bounds.swallowed_bytes:
            super().loseConnection()

    def loseConnection(self) -> None:
        """Close, but where the peer may still be sending, let it read the answer first.

        A close with unread bytes makes TCP throw away what we sent (RFC 9112, 9.6).
        """
        if not self._refusing or self._swallowed > self._bounds.swallowed_bytes:
            super().loseConnection()
            return
        self._allow(self._bounds.swallowing_seconds)
        if not self.isSecure():
            half_close(self.transport)


_PRINTABLE = bytes(range(32, 127))


class BoundedSite(server.Site):
    """A web site of one resource, without access log, banner, tracebacks, sessions or HTTP/2.

    The access log would hold URLs, and with them tokens.
    """

    protocol = BoundedChannel  # type: ignore[assignment]  # ours is no proxy: there is no HTTP/2
    displayTracebacks = False

    def __init__(self, resource: IResource, *, clock: IReactorTime, bounds: Bounds, observe: Observe) -> None:
        """``observe`` is told of answers to what never became a request; resources see to theirs."""
        super().__init__(resource, requestFactory=BoundedRequest, timeout=None, reactor=clock)
        self.clock, self.bounds, self.observe = clock, bounds, observe
        self.winding_down = False
        """Set: every answer is its connection's last, so that peers go elsewhere."""
        self.date_line = DateLine()
        self.crowd = Crowd(bounds=bounds, clock=clock, date_line=self.date_line, observe=observe)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return TurnedAway(self.crowd) if self.crowd.full() else super().buildProtocol(addr)

    def startFactory(self) -> None:
        """Nothing: what it does in twisted.web is for the access log."""

    stopFactory = startFactory

    def log(self, request: http.Request) -> None:
        """Nothing."""

    def acceptableProtocols(self) -> list[bytes]:
        """Not HTTP/2, also where its package is installed: its channel knows none of the bounds."""
        return [b"http/1.1"]
