"""What the admin listener answers: metrics and health (contract 7)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import Protocol

from attrs import frozen
from klein import Klein
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from smsdaemon.deferreds import follower
from smsdaemon.errors import SmsDaemonError
from smsdaemon.metrics import CONTENT_TYPE, Gauges

REFRESH_SECONDS = 2.0
"""How long a scrape waits until the queue is counted; then it gets those gauges as they were."""

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})
_READ_METHODS = ("GET", "HEAD")


@frozen
class Condition:
    """How one part of the program is."""

    ready: bool
    detail: str
    """One line for people; the health URLs need no login, so it names no secret and no address."""


class Health(Protocol):
    """How the whole program is."""

    def accepts(self) -> bool:
        """Whether an SMS that comes now can be accepted."""
        ...

    def conditions(self) -> Mapping[str, Condition]:
        """By part; SMS may be accepted although one of them is not ready."""
        ...

    def show(self) -> None:
        """Set the gauges that need no database, as they are now."""
        ...

    async def count(self) -> None:
        """Set the others; while PostgreSQL is away that does not end before it is back."""


def admin_resource(
    *, gauges: Gauges, health: Health, hosts: Collection[str], timer: IReactorTime
) -> IResource:
    """The whole admin listener.

    ``hosts`` are the names and addresses under which it may be called, besides the loopback ones; a
    wildcard address among them allows every IP address.
    """
    pages = _Pages(gauges, _Freshness(health.count, timer), health)
    return _HostChecked(pages.app.resource(), hosts)


class _Pages:
    app = Klein()

    def __init__(self, gauges: Gauges, freshness: _Freshness, health: Health) -> None:
        self._gauges, self._freshness, self._health = gauges, freshness, health

    @app.route("/metrics", methods=_READ_METHODS)
    async def metrics(self, request: IRequest) -> bytes:
        await self._freshness.wait()
        # Not with what is waited for: an outage, which these tell of, would freeze them.
        self._health.show()
        request.setHeader(b"Content-Type", CONTENT_TYPE.encode())
        return self._gauges.exposition()

    @app.route("/health/live", methods=_READ_METHODS)
    def live(self, request: IRequest) -> bytes:
        return _json(request, {"status": "live"})

    @app.route("/health/ready", methods=_READ_METHODS)
    def ready(self, request: IRequest) -> bytes:
        ready = self._health.accepts()
        if not ready:
            request.setResponseCode(503)
        parts = {
            name: {"ready": part.ready, "detail": part.detail}
            for name, part in self._health.conditions().items()
        }
        return _json(request, {"status": "ready" if ready else "not ready", "parts": parts})

    @app.handle_errors(HTTPException)
    def refused(self, request: IRequest, failure: Failure) -> bytes:
        """Werkzeug's own pages are HTML for browsers; here a line is enough."""
        error = failure.value
        assert isinstance(error, HTTPException)
        for name, value in error.get_headers({}):
            if name == "Allow":
                request.setHeader(b"Allow", value.encode())
        return _line(request, error.code or 500, error.name)


class _HostChecked(Resource):
    """Answers only who calls it by its own name.

    A page in the browser of somebody who may reach this listener can have its own host name
    resolve to this address (DNS rebinding); but then the browser says that name here.
    """

    isLeaf = True

    def __init__(self, inner: IResource, hosts: Collection[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner
        self._hosts = frozenset(host.lower() for host in hosts)

    def render(self, request: Request) -> object:
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        if not self._is_ours(request):
            return _line(request, 421, "This listener does not answer to that host name")
        if not _is_text(b"".join(request.postpath or ())):
            # Klein would answer 400, but not without a traceback in the log.
            return _line(request, 404, "Not Found")
        return self._inner.render(request)

    def _is_ours(self, request: Request) -> bool:
        named = request.requestHeaders.getRawHeaders(b"host", [])
        if not named:
            # HTTP/1.0, as some health checks speak it; every browser names the host.
            return True
        if len(named) > 1:
            return False
        host = _without_port(named[0].decode("latin-1").strip().lower())
        if host and (host == "localhost" or host in self._hosts):
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or bool(_WILDCARDS & self._hosts)


class _Freshness:
    """Has the queue counted, once for all who ask meanwhile."""

    def __init__(self, count: Callable[[], Awaitable[None]], timer: IReactorTime) -> None:
        self._count = count
        self._timer = timer
        self._running: Deferred[None] | None = None
        self._log = Logger(namespace="smsdaemon.web.admin")

    async def wait(self) -> None:
        """Come back with a fresh count, or when that takes too long or fails."""
        running = self._running
        if running is None:
            running = self._running = Deferred.fromCoroutine(self._run())
            running.addBoth(self._ended)
        try:
            # Who asked may hang up or lose patience; the counting goes on.
            await follower(running).addTimeout(REFRESH_SECONDS, self._timer)
        except TimeoutError:
            self._log.warn("gauges of the queue are stale: no answer in {seconds} s", seconds=REFRESH_SECONDS)

    async def _run(self) -> None:
        try:
            await self._count()
        except SmsDaemonError as error:
            self._log.warn("gauges of the queue are stale: {why}", why=str(error))

    def _ended(self, result: object) -> None:
        self._running = None
        if isinstance(result, Failure):
            self._log.failure("gauges of the queue are stale", failure=result)


def _json(request: IRequest, document: Mapping[str, object]) -> bytes:
    request.setHeader(b"Content-Type", b"application/json")
    return json.dumps(document).encode() + b"\n"


def _line(request: IRequest, status: int, text: str) -> bytes:
    request.setResponseCode(status, HTTPStatus(status).phrase.encode())  # twisted has no phrase for 421
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    return text.encode() + b"\n"


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_port(host: str) -> str:
    """The name or address of a Host header, which puts IPv6 addresses in brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
