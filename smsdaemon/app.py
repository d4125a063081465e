"""The composition root: makes every part from the settings; the reactor comes from tap.py."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.server import Site

from smsdaemon import demo
from smsdaemon.backends.http import HttpBackend
from smsdaemon.backends.log import LogBackend
from smsdaemon.daemon import Parts, Readiness, SmsDaemon
from smsdaemon.deferreds import InFlight
from smsdaemon.dispatch import Dispatcher, Terms
from smsdaemon.domain.backoff import RetryPolicy
from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import Receipt, Submission
from smsdaemon.errors import ConfigurationError, SmsDaemonError
from smsdaemon.intake import Receiver
from smsdaemon.listening import Listening, Opening
from smsdaemon.metrics import Metrics
from smsdaemon.providers.generic import GenericProvider
from smsdaemon.settings import Settings, TlsListener
from smsdaemon.statedir import DaemonLock, make_state_dir
from smsdaemon.store.directory import CHANNEL, DirectorySnapshot
from smsdaemon.store.embedded import EmbeddedPostgres, problems
from smsdaemon.store.pool import Listener, Pool
from smsdaemon.store.postgres import STATEMENT_SECONDS, PostgresStore
from smsdaemon.web import tls
from smsdaemon.web.admin import Condition, admin_resource
from smsdaemon.web.bounded import BoundedSite, Bounds
from smsdaemon.web.receiver import ReceiverPages

DELIVERY_CHANNEL = "smsdaemon_delivery"
"""Notified by the command when it made deliveries due (redeliver)."""
IN_MEMORY = 2000
"""Attempts in flight at once, to all targets together."""
RECEIVER_PATH = "/SMSReceiver"


def utc_now() -> datetime:
    return datetime.now(UTC)


def build(settings: Settings, *, reactor: Any, out: TextIO, demo_file: Path | None) -> SmsDaemon:
    """The daemon, ready to be started; nothing listens or connects yet.

    ``demo_file``: a directory to apply at start. Raises ConfigurationError.
    """
    embedded, dsn = _database(settings, reactor)
    parts, metrics = _parts(settings, embedded, dsn, reactor)
    readiness = Readiness(parts.pool, parts.directory)
    admin_hosts: set[str] = set()
    openings = _openings(settings, parts, metrics, readiness, admin_hosts, reactor)

    def bound(listening: Listening) -> None:
        admin_hosts.update(listening.hosts("admin.listen"))

    return SmsDaemon(
        parts=parts,
        readiness=readiness,
        openings=openings,
        on_bound=bound,
        prepare=None if demo_file is None else demo.preparation(demo_file, utc_now),
        shutdown_seconds=settings.shutdown_seconds,
        reactor=reactor,
        out=out,
    )


def _database(settings: Settings, reactor: Any) -> tuple[EmbeddedPostgres | None, str]:
    if settings.database.dsn.strip():
        make_state_dir(settings.state_dir)
        return None, settings.database.dsn
    found = problems(settings.state_dir)
    if found:
        raise ConfigurationError([f"embedded PostgreSQL: {problem}" for problem in found])
    embedded = EmbeddedPostgres(state_dir=settings.state_dir, reactor=reactor)
    try:
        return embedded, embedded.dsn
    except SmsDaemonError as error:
        raise ConfigurationError([str(error)]) from error


def _parts(
    settings: Settings, embedded: EmbeddedPostgres | None, dsn: str, reactor: Any
) -> tuple[Parts, Metrics]:
    routing = settings.routing
    metrics = Metrics(utc_now)
    pool = _pool(dsn, settings.database.pool, reactor)
    store = PostgresStore(
        pool=pool,
        timer=reactor,
        utc_now=utc_now,
        lease_seconds=routing.lease,
        first_delay_seconds=routing.retry_schedule[0],
    )
    http_backend = HttpBackend(
        reactor=reactor, now=utc_now, timeout=routing.timeout, connections_per_host=routing.concurrency
    )
    log_backend = LogBackend(message_text=settings.log.message_text)
    # The directory wakes the dispatcher, which reads the directory.
    wake: list[Dispatcher] = []
    directory = DirectorySnapshot(
        pool=pool, reactor=reactor, on_change=[lambda: [dispatcher.look() for dispatcher in wake]]
    )
    dispatcher = Dispatcher(
        store=store,
        directory=directory,
        backends={scheme: backend for backend in (http_backend, log_backend) for scheme in backend.schemes},
        terms=_terms(settings),
        timer=reactor,
        utc_now=utc_now,
        jitter=lambda: random.uniform(-1, 1),
        observer=metrics,
    )
    wake.append(dispatcher)
    listener = Listener(
        dsn=dsn,
        channels={CHANNEL: directory.refresh, DELIVERY_CHANNEL: dispatcher.look},
        on_listening=directory.refresh,
        reactor=reactor,
    )
    parts = Parts(
        lock=DaemonLock(settings.state_dir),
        embedded=embedded,
        pool=pool,
        listener=listener,
        directory=directory,
        store=store,
        http_backend=http_backend,
        dispatcher=dispatcher,
        requests=InFlight(),
    )
    return parts, metrics


def _pool(dsn: str, size: int, reactor: Any) -> Pool:
    try:
        return Pool(dsn=dsn, size=size, reactor=reactor, statement_timeout=STATEMENT_SECONDS)
    except SmsDaemonError as error:
        raise ConfigurationError([str(error)]) from error


def _terms(settings: Settings) -> Terms:
    routing = settings.routing
    return Terms(
        retry=RetryPolicy(schedule=routing.retry_schedule, give_up_after=routing.give_up_after),
        per_target=routing.concurrency,
        in_all=max(IN_MEMORY, routing.concurrency),
        lease_seconds=routing.lease,
    )


# --- listeners --------------------------------------------------------------------------------


@frozen
class _Counted:
    """A receiver whose requests under way are known, so that an ordered stop can wait for them."""

    receiver: Receiver
    in_flight: InFlight

    def receive(self, submission: Submission) -> Deferred[Receipt]:
        return self.in_flight.add(self.receiver.receive(submission))


def _openings(
    settings: Settings,
    parts: Parts,
    metrics: Metrics,
    readiness: Readiness,
    admin_hosts: set[str],
    reactor: Any,
) -> list[Opening]:
    public = _public_site(settings, parts, metrics, readiness, reactor)
    found: list[Opening] = []
    if settings.http is not None:
        found += _each("http.listen", settings.http.listen, public, "http", RECEIVER_PATH)
    if settings.https is not None:
        secured = TLSMemoryBIOFactory(_context(settings.https, settings.state_dir, metrics), False, public)
        found += _each("https.listen", settings.https.listen, secured, "https", RECEIVER_PATH)
    if settings.admin is not None:
        admin = Site(_admin(parts, metrics, readiness, admin_hosts, reactor))
        admin.displayTracebacks = False
        admin.log = lambda request: None
        found += _each("admin.listen", settings.admin.listen, admin, "http", "/")
    return found


def _each(
    key: str, endpoints: Sequence[str], factory: IProtocolFactory, scheme: str, path: str
) -> list[Opening]:
    return [
        Opening(key=key, endpoint=endpoint, factory=factory, scheme=scheme, path=path)
        for endpoint in endpoints
    ]


def _public_site(
    settings: Settings, parts: Parts, metrics: Metrics, readiness: Readiness, reactor: Any
) -> BoundedSite:
    receiver = Receiver(
        directory=parts.directory,
        store=parts.store,
        outlet=parts.dispatcher,
        utc_now=utc_now,
        new_id=uuid7,
        on_accepted=metrics.accepted,
    )
    pages = ReceiverPages(
        receiver=_Counted(receiver, parts.requests),
        provider=GenericProvider(),
        observe=metrics.request_answered,
        ready=readiness,
        clock=reactor,
    )
    bounds = Bounds(
        max_body_bytes=settings.receiver.max_body_bytes, max_url_bytes=settings.receiver.max_url_bytes
    )
    return BoundedSite(pages.resource(), clock=reactor, bounds=bounds, observe=metrics.request_answered)


def _context(listener: TlsListener, state_dir: Path, metrics: Metrics) -> Any:
    certificate, key = listener.certificate, listener.key
    if certificate is None or key is None:
        names = ["localhost", socket.gethostname()]
        certificate, key = tls.ensure_self_signed(state_dir / "tls", utc_now(), names)
    metrics.certificate(tls.expiry(certificate))
    return tls.server_context(certificate, key)


def _admin(parts: Parts, metrics: Metrics, readiness: Readiness, hosts: set[str], reactor: Any) -> Any:
    async def refresh() -> None:
        queue = await parts.store.queue()
        waiting = 0.0 if queue.oldest is None else (utc_now() - queue.oldest).total_seconds()
        metrics.queue(
            pending=queue.pending - queue.leased,
            leased=queue.leased,
            dead=queue.dead,
            oldest_pending_seconds=max(0.0, waiting),
        )

    conditions: Mapping[str, Any] = {
        "started": lambda: Condition(readiness.started, "started" if readiness.started else "starting"),
        "database": lambda: _condition(readiness.database(), "PostgreSQL is connected", "PostgreSQL is away"),
        "directory": lambda: _condition(readiness.directory(), "the directory is loaded", "not loaded yet"),
    }
    return admin_resource(metrics=metrics, refresh=refresh, parts=conditions, hosts=hosts, timer=reactor)


def _condition(ready: bool, good: str, bad: str) -> Condition:
    return Condition(ready, good if ready else bad)
