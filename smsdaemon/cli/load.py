"""Sends many prebuilt HTTP/1.1 requests over keep-alive connections, and measures the answers.

It shares the machine with the daemon it loads, so it must cost less per request than the daemon
does: bytes are written as they are, and of an answer only status, length and SMS id are read. An
HTTP client library costs about ten times as much (docs/performance.md).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from collections.abc import Callable
from typing import cast

from attrs import Factory as make
from attrs import define, frozen
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

RECONNECT_SECONDS = 0.1
TICK_SECONDS = 0.001

AnswerSeen = Callable[[int, float, float, int, bytes], None]
"""Called with a request's number, when it was due, when it was answered, status and answer."""


@frozen(kw_only=True)
class Plan:
    """How many requests go out, and when."""

    request: Callable[[int], bytes]
    """Makes request number i, counted from 0."""
    count: int | None = None
    """None: until ``stop`` is called."""
    rate: float | None = None
    """Requests a second, open loop: number i is due at i / rate, whatever became of the ones
    before. None: closed loop, each connection sends when it has its answer."""
    connections: int = 64
    timeout: float = 10.0
    """Seconds for one answer."""


@define(kw_only=True)
class Tally:
    """What came of the requests so far."""

    sent: int = 0
    statuses: Counter[int] = make(Counter)
    errors: Counter[str] = make(Counter)
    latencies: array[float] = make(lambda: array("d"))
    """Seconds from when each answered request was due to the end of its answer."""
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def finished(self) -> int:
        """Requests that were answered or failed."""
        return len(self.latencies) + self.errors.total()

    def summary(self) -> dict[str, object]:
        """The figures as they are printed; latencies in milliseconds, None where nothing came."""
        seconds = max(self.ended_at - self.started_at, 1e-9)
        ordered = sorted(self.latencies)
        return {
            "sent": self.sent,
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "errors": dict(self.errors.most_common()),
            "seconds": round(seconds, 3),
            "rate": round(len(ordered) / seconds, 1),
            "p50_ms": _milliseconds(percentile(ordered, 0.50)),
            "p90_ms": _milliseconds(percentile(ordered, 0.90)),
            "p99_ms": _milliseconds(percentile(ordered, 0.99)),
            "max_ms": _milliseconds(percentile(ordered, 1.0)),
        }


def percentile(ordered: list[float], share: float) -> float | None:
    """The value that ``share`` of the ascending values do not exceed (nearest rank)."""
    if not ordered:
        return None
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def message_id(answer: bytes) -> str | None:
    """The SMS-Message-Id that an answer bears."""
    start = answer.find(b"SMS-Message-Id: ", 0, answer.find(b"\r\n\r\n"))
    return answer[start + 16 : start + 52].decode("ascii", "replace") if start >= 0 else None


class Load:
    """One run of a plan; ``run`` fires with the tally when everything is answered or has failed."""

    def __init__(
        self,
        *,
        plan: Plan,
        endpoint: IStreamClientEndpoint,
        reactor: IReactorTime,
        clock: Callable[[], float],
        seen: AnswerSeen | None = None,
    ) -> None:
        self.tally = Tally()
        self._plan = plan
        self._endpoint = endpoint
        self._reactor = reactor
        self._clock = clock
        self._seen = seen
        self._made = 0
        self._count = math.inf if plan.count is None else plan.count
        self._waiting: deque[tuple[int, float]] = deque()
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting: set[Deferred[IProtocol]] = set()
        self._next_tick: IDelayedCall | None = None
        self._watch = LoopingCall(self._drop_overdue)
        self._watch.clock = reactor
        self._finishing = False
        self._done: Deferred[Tally] = Deferred(lambda _: self.stop())

    def run(self) -> Deferred[Tally]:
        """Start; cancelling it ends the run as ``stop`` does, and fails with CancelledError."""
        self.tally.started_at = self._clock()
        self._watch.start(min(self._plan.timeout / 4, 0.5), now=False)
        self._tick()
        return self._done

    def stop(self) -> None:
        """Send nothing more; what is unanswered is given until its time is up."""
        self._made -= len(self._waiting)
        self._waiting.clear()
        self._count = self._made
        self._finish_if_done()

    def _tick(self) -> None:
        """Make what has become due wait for a connection, and see that there are connections."""
        seconds = RECONNECT_SECONDS
        if self._plan.rate is None:
            wanted = self._count - self._made - len(self._connecting)
        else:
            seconds = self._make_due(self._plan.rate)
            while self._waiting and self._idle:
                self._idle.pop().send(*self._waiting.popleft())
            wanted = len(self._waiting) - len(self._connecting)
        room = self._plan.connections - len(self._open) - len(self._connecting)
        for _ in range(int(min(wanted, room))):
            self._connect()
        self._tick_again_in(seconds)
        self._finish_if_done()

    def _tick_again_in(self, seconds: float) -> None:
        if self._next_tick is not None and self._next_tick.active():
            self._next_tick.reset(seconds)
        else:
            self._next_tick = self._reactor.callLater(seconds, self._tick)

    def _make_due(self, rate: float) -> float:
        """Queue the requests that are due; returns the seconds until there may be more."""
        started_at = self.tally.started_at
        due_by_now = min(int((self._clock() - started_at) * rate) + 1, self._count)
        while self._made < due_by_now:
            self._waiting.append((self._made, started_at + self._made / rate))
            self._made += 1
        seconds = started_at + self._made / rate - self._clock()
        return min(max(seconds, TICK_SECONDS), RECONNECT_SECONDS)

    def _connect(self) -> None:
        attempt = self._endpoint.connect(Factory.forProtocol(lambda: _Connection(self)))
        self._connecting.add(attempt)
        attempt.addBoth(self._connect_ended, attempt)

    def _connect_ended(self, result: IProtocol | Failure, attempt: Deferred[IProtocol]) -> None:
        self._connecting.discard(attempt)
        if isinstance(result, Failure) and not self._finishing:
            self._could_not_connect(result)

    def _could_not_connect(self, failure: Failure) -> None:
        """The request that the connection was wanted for has failed."""
        if self._plan.rate is None:
            if self._made >= self._count:
                return
            self._made += 1
        elif self._waiting:
            self._waiting.popleft()
        else:
            return
        self.tally.sent += 1
        self._failed(failure)

    def _failed(self, failure: Failure) -> None:
        self.tally.errors[_reason(failure)] += 1
        self._finish_if_done()

    def make(self, number: int) -> bytes:
        """The bytes of a request that is being sent now."""
        self.tally.sent += 1
        return self._plan.request(number)

    def connected(self, connection: _Connection) -> None:
        """Give a new connection its first request."""
        self._open.add(connection)
        self._next(connection)

    def _next(self, connection: _Connection) -> None:
        if self._waiting:
            connection.send(*self._waiting.popleft())
        elif self._plan.rate is None and self._made < self._count:
            self._made += 1
            connection.send(self._made - 1, self._clock())
        else:
            self._idle.append(connection)
            self._finish_if_done()

    def answered(self, connection: _Connection, number: int, due: float, status: int, answer: bytes) -> None:
        """Count one answer and send the next request, unless the peer is closing."""
        now = self._clock()
        self.tally.statuses[status] += 1
        self.tally.latencies.append(now - due)
        if self._seen is not None:
            self._seen(number, due, now, status, answer)
        if not connection.closing:
            self._next(connection)

    def lost(self, connection: _Connection, busy: bool, failure: Failure) -> None:
        """A connection ended; the request on it, if any, has failed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if busy:
            self._failed(failure)
        if self._finishing:
            self._finish_if_done()
        elif not busy:
            self._tick()

    def _drop_overdue(self) -> None:
        oldest = self._clock() - self._plan.timeout
        for connection in list(self._open):
            if (connection.busy or self._finishing) and connection.sent_at < oldest:
                connection.abandon()

    def now(self) -> float:
        """The run's own clock."""
        return self._clock()

    def _finish_if_done(self) -> None:
        if self._made < self._count or self._waiting or self.tally.finished < self._made:
            return
        if not self._finishing:
            self._finishing = True
            self.tally.ended_at = self._clock()
            for attempt in list(self._connecting):
                attempt.cancel()
            for connection in list(self._open):
                connection.close()
        if not self._open and not self._done.called:
            self._watch.stop()
            if self._next_tick is not None and self._next_tick.active():
                self._next_tick.cancel()
            self._done.callback(self.tally)


class TimedOut(Exception):
    """No answer came in the time a request is given."""


class _Connection(Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._number = 0
        self._due = 0.0
        self._unread = b""
        self._why: Exception | None = None
        self.sent_at = 0.0
        self.busy = False
        self.closing = False

    def connectionMade(self) -> None:
        tcp = ITCPTransport(self.transport, None)
        if tcp is not None:
            tcp.setTcpNoDelay(True)
        self._load.connected(self)

    def send(self, number: int, due: float) -> None:
        """Write the request of that number."""
        self._number, self._due, self.busy = number, due, True
        self.sent_at = self._load.now()
        cast(ITCPTransport, self.transport).write(self._load.make(number))

    def dataReceived(self, data: bytes) -> None:
        if self._unread:
            data = self._unread + data
        head = data.find(b"\r\n\r\n")
        if head < 0 or not _complete(data, head):
            self._unread = data
            return
        self._unread = b""
        if not self.busy:  # nothing was asked: whatever this is, it is no answer
            return self.close()
        self.busy = False
        self.closing = data.startswith(b"HTTP/1.0") or data.find(b"onnection: close", 0, head) >= 0
        try:
            status = int(data[9:12])
        except ValueError:
            status = 0
        self._load.answered(self, self._number, self._due, status, data)
        if self.closing:
            self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        busy, self.busy = self.busy, False
        self._load.lost(self, busy, reason if self._why is None else Failure(self._why))

    def abandon(self) -> None:
        """Give the request up: it had its time."""
        self._why = TimedOut("timeout")
        cast(ITCPTransport, self.transport).abortConnection()

    def close(self) -> None:
        """Hang up."""
        self.closing = True
        cast(ITCPTransport, self.transport).loseConnection()


def _complete(data: bytes, head: int) -> bool:
    """Whether the answer whose head ends at ``head`` is all there."""
    start = data.find(b"Content-Length: ", 0, head)
    if start < 0:
        lowered = data[:head].lower()
        if b"transfer-encoding: chunked" in lowered:
            return data.endswith(b"0\r\n\r\n")
        start = lowered.find(b"content-length: ")
        if start < 0:  # a body that ends with the connection, which nobody needs
            return True
    length = data[start + 16 : data.find(b"\r", start)]
    return len(data) >= head + 4 + int(length)


def _reason(failure: Failure) -> str:
    """One short name for why a request failed, fit for counting."""
    error = failure.value
    if isinstance(error, ConnectionDone):
        return "closed without an answer"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return f"TLS: {error.args[0][-1][-1]}"
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
