"""Fetches what providers' requests point at, from hosts that are known, and from nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTCP, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import platformTrust
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from smsdaemon import __version__
from smsdaemon.errors import FetchFailed
from smsdaemon.providers.amazon import is_sns_host

MAX_BYTES = 65536
TIMEOUT_SECONDS = 3.0
"""Below the five seconds in which contract 3 has every request answered."""


class Reactor(IReactorTCP, IReactorTime, IReactorPluggableNameResolver):
    """The parts of a reactor that this needs."""


class HttpsFetch:
    """smsdaemon.ports.Fetch: one GET by https; certificates are checked, redirects are not followed.

    ``allowed``: which hosts, in lower case, it calls at all, on port 443. ``trust_root``: as for the
    HTTP backend; None: the platform's.
    """

    def __init__(
        self,
        *,
        reactor: Reactor,
        allowed: Callable[[str], bool] = is_sns_host,
        timeout: float = TIMEOUT_SECONDS,
        trust_root: object | None = None,
    ) -> None:
        self._reactor = reactor
        self._allowed = allowed
        self._timeout = timeout
        policy = BrowserLikePolicyForHTTPS(platformTrust() if trust_root is None else trust_root)
        pool = HTTPConnectionPool(reactor, persistent=False)
        self._agent = Agent(reactor, policy, connectTimeout=timeout, pool=pool)

    def __call__(self, url: str) -> Deferred[bytes]:
        """The body of a 200; fails with FetchFailed."""
        if not self._may_call(url):
            return fail(FetchFailed("the URL is none that is called"))
        body: Deferred[bytes] = Deferred.fromCoroutine(self._get(url))
        body.addTimeout(self._timeout, self._reactor, onTimeoutCancel=_timed_out)
        body.addErrback(_in_our_terms)
        return body

    def _may_call(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            return False
        # The host as a whole is what stands between // and /: no user, and no port but by default.
        return parts.scheme == "https" and port is None and self._allowed(parts.netloc)

    async def _get(self, url: str) -> bytes:
        headers = Headers({b"User-Agent": [f"smsdaemon/{__version__}".encode()]})
        response: IResponse = await self._agent.request(b"GET", url.encode("ascii"), headers)
        if response.code != 200:
            _abandon(response)
            raise FetchFailed(f"the answer was {response.code}")
        if isinstance(response.length, int) and response.length > MAX_BYTES:
            _abandon(response)
            raise FetchFailed("the answer is too long")
        body = _Body()
        response.deliverBody(body)
        return await body.whole


class _Body(Protocol):
    """Collects an answer; ``whole`` fails as soon as it is too long."""

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self._drop())
        self._read = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._read += data
        if len(self._read) > MAX_BYTES and not self.whole.called:
            self.whole.errback(FetchFailed("the answer is too long"))
            self._drop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(bytes(self._read))
        else:
            self.whole.errback(FetchFailed("the answer broke off"))

    def _drop(self) -> None:
        if self.transport is not None:
            _break_off(self.transport)


class _Dropped(Protocol):
    def makeConnection(self, transport: Any) -> None:
        _break_off(transport)


def _abandon(response: IResponse) -> None:
    response.deliverBody(_Dropped())


def _break_off(proxy: Any) -> None:
    # loseConnection(), all that twisted's proxy has, waits for a TLS peer's goodbye.
    connection = getattr(proxy, "_producer", None)
    if connection is not None:
        connection.abortConnection()


def _timed_out(result: object, _timeout: float) -> object:
    if isinstance(result, Failure):
        raise FetchFailed("no answer in time")
    return result


def _in_our_terms(failure: Failure) -> Failure:
    if failure.check(FetchFailed, CancelledError):
        return failure
    error = FetchFailed(type(failure.value).__name__)
    error.__cause__ = failure.value
    return Failure(error)
