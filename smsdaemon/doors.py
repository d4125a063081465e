"""What listens: the public site, the admin site, and the TLS around them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.server import Site

from smsdaemon.deferreds import InFlight
from smsdaemon.dispatch import Dispatcher
from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import Receipt, Submission
from smsdaemon.intake import Receiver
from smsdaemon.listening import Listening, Opening
from smsdaemon.metrics import Metrics
from smsdaemon.ports import DirectorySource
from smsdaemon.providers.generic import GenericProvider
from smsdaemon.settings import Settings, TlsListener
from smsdaemon.store.postgres import PostgresStore
from smsdaemon.web import tls
from smsdaemon.web.admin import Condition, admin_resource
from smsdaemon.web.bounded import BoundedSite, Bounds
from smsdaemon.web.receiver import ReceiverPages

RECEIVER_PATH = "/SMSReceiver"


def utc_now() -> datetime:
    return datetime.now(UTC)


class Core(Protocol):
    """The parts that stand behind the doors (daemon.Parts)."""

    @property
    def directory(self) -> DirectorySource: ...
    @property
    def store(self) -> PostgresStore: ...
    @property
    def dispatcher(self) -> Dispatcher: ...
    @property
    def requests(self) -> InFlight: ...


class Ready(Protocol):
    """Says whether the daemon can accept, and which part of it cannot (daemon.Readiness)."""

    started: bool

    def __call__(self) -> bool: ...
    def database(self) -> bool: ...
    def directory(self) -> bool: ...


@frozen
class _Counted:
    """A receiver whose requests under way are known, so that an ordered stop can wait for them."""

    receiver: Receiver
    in_flight: InFlight

    def receive(self, submission: Submission) -> Deferred[Receipt]:
        return self.in_flight.add(self.receiver.receive(submission))


class _QuietSite(Site):
    """Without access log and tracebacks."""

    displayTracebacks = False

    def log(self, request: object) -> None:
        """Nothing."""


class Doors:
    """Makes the sites and says where they are to listen."""

    def __init__(
        self, *, settings: Settings, core: Core, metrics: Metrics, ready: Ready, reactor: Any
    ) -> None:
        self._settings, self._core, self._metrics = settings, core, metrics
        self._ready, self._reactor = ready, reactor
        self._admin_hosts: set[str] = set()
        self._public = self._public_site()
        self.openings: Sequence[Opening] = self._openings()

    def bound(self, listening: Listening) -> None:
        """The ports are known now: the admin site may be called by their addresses."""
        self._admin_hosts.update(listening.hosts("admin.listen"))

    def wind_down(self) -> None:
        """Have every further answer close its connection."""
        self._public.winding_down = True

    def _openings(self) -> list[Opening]:
        settings = self._settings
        found: list[Opening] = []
        if settings.http is not None:
            found += _each("http.listen", settings.http.listen, self._public, "http", RECEIVER_PATH)
        if settings.https is not None:
            secured = TLSMemoryBIOFactory(self._context(settings.https), False, self._public)
            found += _each("https.listen", settings.https.listen, secured, "https", RECEIVER_PATH)
        if settings.admin is not None:
            found += _each("admin.listen", settings.admin.listen, self._admin_site(), "http", "/")
        return found

    def _public_site(self) -> BoundedSite:
        core, metrics, bounds = self._core, self._metrics, self._settings.receiver
        receiver = Receiver(
            directory=core.directory,
            store=core.store,
            outlet=core.dispatcher,
            utc_now=utc_now,
            new_id=uuid7,
            on_accepted=metrics.accepted,
        )
        pages = ReceiverPages(
            receiver=_Counted(receiver, core.requests),
            provider=GenericProvider(),
            observe=metrics.request_answered,
            ready=self._ready,
            clock=self._reactor,
        )
        return BoundedSite(
            pages.resource(),
            clock=self._reactor,
            bounds=Bounds(max_body_bytes=bounds.max_body_bytes, max_url_bytes=bounds.max_url_bytes),
            observe=metrics.request_answered,
        )

    def _context(self, listener: TlsListener) -> Any:
        certificate, key = listener.certificate, listener.key
        if certificate is None or key is None:
            names = ["localhost", socket.gethostname()]
            certificate, key = tls.ensure_self_signed(self._settings.state_dir / "tls", utc_now(), names)
        self._metrics.certificate(tls.expiry(certificate))
        return tls.server_context(certificate, key)

    def _admin_site(self) -> Site:
        resource = admin_resource(
            metrics=self._metrics,
            refresh=self._count_queue,
            parts=self._conditions(),
            hosts=self._admin_hosts,
            timer=self._reactor,
        )
        return _QuietSite(resource)  # type: ignore[no-untyped-call]

    async def _count_queue(self) -> None:
        queue = await self._core.store.queue()
        waiting = 0.0 if queue.oldest is None else (utc_now() - queue.oldest).total_seconds()
        self._metrics.queue(
            pending=queue.pending - queue.leased,
            leased=queue.leased,
            dead=queue.dead,
            oldest_pending_seconds=max(0.0, waiting),
        )

    def _conditions(self) -> Mapping[str, Callable[[], Condition]]:
        ready = self._ready
        return {
            "started": lambda: _condition(ready.started, "started", "starting or stopping"),
            "database": lambda: _condition(ready.database(), "PostgreSQL is connected", "PostgreSQL is away"),
            "directory": lambda: _condition(ready.directory(), "the directory is loaded", "not loaded yet"),
        }


def _condition(good: bool, yes: str, no: str) -> Condition:
    return Condition(good, yes if good else no)


def _each(
    key: str, endpoints: Sequence[str], factory: IProtocolFactory, scheme: str, path: str
) -> list[Opening]:
    return [
        Opening(key=key, endpoint=endpoint, factory=factory, scheme=scheme, path=path)
        for endpoint in endpoints
    ]
