"""HTTP and HTTPS targets: one POST for each attempt, signed as Standard Webhooks 1.0 says."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit
from weakref import WeakSet

from attrs import frozen
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import platformTrust
from twisted.python.failure import Failure

from smsdaemon import __version__
from smsdaemon.backends.addresses import NamedEndpoint, Reactor
from smsdaemon.backends.connections import Connections
from smsdaemon.backends.payload import body
from smsdaemon.backends.reasons import reason
from smsdaemon.backends.tls import creator
from smsdaemon.backends.wire import Connection, ConnectionFactory, GoneBeforeAnswer
from smsdaemon.deadlines import Deadlines
from smsdaemon.domain.hosts import is_host
from smsdaemon.domain.model import Answer, Client, Delivery, Target
from smsdaemon.errors import LeaseLost, TargetUnreachable
from smsdaemon.names import LookUp, Names, system_look_up
from smsdaemon.ports import UtcClock

_CACHED_DESTINATIONS = 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Everything that may stand in a request line; what is not in here is percent-encoded.
_URL_CHARACTERS = "".join(map(chr, range(0x21, 0x7F)))

_LINES = b"webhook-id: %s\r\nwebhook-timestamp: %s\r\nwebhook-signature: v1,%s\r\nContent-Length: %d\r\n"


@frozen(kw_only=True)
class _Host:
    """What is the same for every URL at one scheme, host and port."""

    endpoint: IStreamClientEndpoint
    secure: bool
    connections: Connections
    factory: ConnectionFactory


@frozen(kw_only=True)
class _Destination:
    """What is the same in every attempt at one URL with one secret."""

    host: _Host
    head: bytes
    """Request line and headers, but for those that differ from attempt to attempt."""
    key: bytes
    """Of the signature."""

    def request(self, webhook_id: str, timestamp: int, content: bytes) -> bytes:
        """A whole request, but for the empty line and the body."""
        id, at = webhook_id.encode(), b"%d" % timestamp
        signature = b64encode(hmac.digest(self.key, b".".join((id, at, content)), "sha256"))
        return self.head + _LINES % (id, at, signature, len(content))


class HttpBackend:
    """One POST for each attempt; answers are Answers whatever their status, all else is TargetUnreachable.

    Certificates are verified against ``trust_root``, or the platform's authorities (to which
    OpenSSL's own SSL_CERT_FILE and SSL_CERT_DIR point), and the URL's host. ``timeout`` is
    seconds for the whole attempt, from the look-up of the name to the end of the body.
    """

    schemes: Sequence[str] = ("http", "https")

    def __init__(
        self,
        *,
        reactor: Reactor,
        now: UtcClock,
        timeout: float,
        connections_per_host: int,
        trust_root: object | None = None,
        look_up: LookUp = system_look_up,
    ) -> None:
        self._reactor = reactor
        self._names = Names(reactor=reactor, look_up=look_up, patience=timeout)
        self._now = now
        self._timeout = timeout
        self._keep = connections_per_host
        self._trust_root = platformTrust() if trust_root is None else trust_root
        self._destination = lru_cache(_CACHED_DESTINATIONS)(self._make_destination)
        # Of its own: a TLS context costs milliseconds, and several targets may share a host.
        self._host = lru_cache(_CACHED_DESTINATIONS)(self._make_host)
        self._connections: WeakSet[Connections] = WeakSet()
        """Of every host that has some open, or may yet be called; open ones keep theirs alive."""
        self._deadlines: Deadlines[_Attempt] = Deadlines(
            seconds=timeout, clock=reactor, on_late=lambda attempt: attempt.stop(_late(timeout))
        )

    def deliver(
        self, delivery: Delivery, target: Target, client: Client, check_lease: Callable[[], None]
    ) -> Deferred[Answer]:
        """Make one attempt; fails with TargetUnreachable, and with CancelledError only if cancelled."""
        try:
            destination = self._destination(target.url, target.secret)
        except TargetUnreachable:
            return fail(Failure())
        content = body(delivery, target, client)
        request = destination.request(str(delivery.id), int(self._now().timestamp()), content)
        attempt = _Attempt(destination.host, request, content, check_lease)
        self._deadlines.begin(attempt)
        attempt.begin()
        return attempt.done.addBoth(self._ended, attempt)

    def close(self) -> Deferred[None]:
        """End what is under way and close idle connections; fires when that is done."""
        for attempt in self._deadlines.all():
            attempt.stop(TargetUnreachable("this process stopped before the answer came"))
        self._deadlines.close()
        self._names.close()
        closed = DeferredList([connections.close() for connections in tuple(self._connections)])
        return closed.addCallback(lambda _: None)

    def _ended(self, result: Any, attempt: _Attempt) -> Any:
        self._deadlines.end(attempt)
        return result

    # --- where to ----------------------------------------------------------------------------

    def _make_destination(self, url: str, secret: str) -> _Destination:
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").encode("idna" if not url.isascii() else "ascii").decode("ascii")
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
            if not host:
                raise ValueError("no host")
        except (ValueError, KeyError) as error:
            raise TargetUnreachable("its URL cannot be used") from error
        try:
            if not is_host(host):  # of a directory that was applied before they were refused
                raise ValueError("no resolver takes it")
            called = self._host(parts.scheme, host, port)
        except ValueError as error:
            raise TargetUnreachable("its host name cannot be used") from error
        try:
            key: bytes = Webhook(secret)._whsecret
        except (ValueError, EmptyWebhookSecretError) as error:
            raise TargetUnreachable("its secret cannot be used") from error
        path = quote((parts.path or "/") + ("?" + parts.query if parts.query else ""), safe=_URL_CHARACTERS)
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {_host_header(parts.scheme, host, port)}",
            f"User-Agent: smsdaemon/{__version__}",
            "Content-Type: application/json",
        ]
        if "@" in parts.netloc:
            credentials = unquote_to_bytes(parts.netloc.rpartition("@")[0])
            lines.append("Authorization: Basic " + b64encode(credentials).decode())
        head = "".join(f"{line}\r\n" for line in lines).encode("ascii")
        return _Destination(host=called, head=head, key=key)

    def _make_host(self, scheme: str, host: str, port: int) -> _Host:
        connections = Connections(keep=self._keep, clock=self._reactor)
        self._connections.add(connections)
        return _Host(
            endpoint=self._endpoint(scheme, host, port),
            secure=scheme == "https",
            connections=connections,
            factory=ConnectionFactory(connections),
        )

    def _endpoint(self, scheme: str, host: str, port: int) -> IStreamClientEndpoint:
        endpoint = NamedEndpoint(
            reactor=self._reactor, names=self._names, host=host, port=port, timeout=self._timeout
        )
        if scheme == "http":
            return endpoint
        wrapped: IStreamClientEndpoint = wrapClientTLS(creator(host, self._trust_root), endpoint)
        return wrapped


def _host_header(scheme: str, host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == _DEFAULT_PORTS[scheme] else f"{name}:{port}"


def _late(seconds: float) -> TargetUnreachable:
    return TargetUnreachable(f"timed out after {seconds:g} s")


class _Attempt:
    """One POST, from the look for a connection to its answer."""

    def __init__(self, host: _Host, request: bytes, content: bytes, check_lease: Callable[[], None]) -> None:
        self._host, self._request, self._content = host, request, content
        self._check_lease = check_lease
        self._under_way: Deferred[Any] | None = None
        self._stopped_by: BaseException | None = None
        self.done: Deferred[Answer] = Deferred(lambda _: self.stop(CancelledError()))

    def begin(self) -> None:
        connection = self._host.connections.take()
        if connection is None:
            self._dial(b"")
        else:
            self._send(connection, b"", self._lost_idle)

    def stop(self, why: BaseException) -> None:
        """Break off; it fails with ``why``."""
        self._stopped_by = why
        if self._under_way is not None:
            self._under_way.cancel()

    def _dial(self, more_headers: bytes) -> None:
        dialling = self._host.endpoint.connect(self._host.factory)
        self._under_way = dialling
        dialling.addCallbacks(self._dialled, self._failed, callbackArgs=(more_headers,))

    def _dialled(self, connection: Connection, more_headers: bytes) -> None:
        if not self._host.secure:
            self._send(connection, more_headers, self._failed)
            return
        self._under_way = secured = connection.secured()
        secured.addCallback(lambda _: self._send(connection, more_headers, self._failed))
        secured.addErrback(self._failed)

    def _send(
        self, connection: Connection, more_headers: bytes, on_failure: Callable[[Failure], None]
    ) -> None:
        try:
            self._check_lease()
        except LeaseLost:
            connection.break_off()
            self.done.errback(Failure())
            return
        request = b"".join((self._request, more_headers, b"\r\n", self._content))
        self._under_way = exchange = connection.exchange(request)
        exchange.addCallbacks(self.done.callback, on_failure)

    def _lost_idle(self, failure: Failure) -> None:
        if failure.check(GoneBeforeAnswer) and self._stopped_by is None:
            # The peer closed an idle connection in the moment we used it. That is no failure of the
            # target, and it can tell a repeat by its webhook-id. This one is surely a new connection.
            self._dial(b"Connection: close\r\n")
        else:
            self._failed(failure)

    def _failed(self, failure: Failure) -> None:
        """In our terms, or, for a bug of ours, as it is."""
        error: Any = failure.value
        if self._stopped_by is not None:  # whatever became of the cancellation on its way
            self.done.errback(self._stopped_by)
            return
        text = reason(error)
        if isinstance(error, TargetUnreachable) or text is None:
            self.done.errback(failure)
            return
        ours = TargetUnreachable(text)
        ours.__cause__ = error
        self.done.errback(ours)
