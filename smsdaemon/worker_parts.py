"""Makes a worker from the settings."""

from __future__ import annotations

import os
import random
import socket
from typing import Any

from smsdaemon.backends.http import HttpBackend
from smsdaemon.backends.log import LogBackend
from smsdaemon.deferreds import InFlight
from smsdaemon.descriptors import peer_room, raise_limit
from smsdaemon.dispatch import Dispatcher, Terms
from smsdaemon.domain.backoff import RetryPolicy
from smsdaemon.doors import PublicDoor, utc_now
from smsdaemon.drift import DriftWatch
from smsdaemon.drift_keeper import DriftKeeper
from smsdaemon.errors import ConfigurationError, SmsDaemonError
from smsdaemon.metrics import Metrics
from smsdaemon.providers.catalogue import load as load_profiles
from smsdaemon.refusals import Refusals
from smsdaemon.samples import Samples
from smsdaemon.settings import Settings
from smsdaemon.store import breakers
from smsdaemon.store.batch import STATEMENT_SECONDS
from smsdaemon.store.deliveries import PostgresDeliveries
from smsdaemon.store.directory import CHANNEL, DirectorySnapshot
from smsdaemon.store.directory_copy import DirectoryCopy
from smsdaemon.store.journal import Journal
from smsdaemon.store.journal_mover import Mover
from smsdaemon.store.journaled import JournaledMessages
from smsdaemon.store.messages import LeaseTerms, PostgresMessages
from smsdaemon.store.nonces import PostgresNonces
from smsdaemon.store.pool import Listener, Pool
from smsdaemon.store.refused import PostgresRefused
from smsdaemon.worker import Journaling, Readiness, Worker, WorkerParts

DELIVERY_CHANNEL = "smsdaemon_delivery"
"""Notified by the command when it made deliveries due (redeliver)."""
IN_MEMORY = 2000
"""Attempts in flight at once, to all targets together."""


def make_worker(settings: Settings, number: int, *, dsn: str, metrics: Metrics, reactor: Any) -> Worker:
    """A worker that is not started yet; ``number``: its own, from 1. Raises ConfigurationError."""
    parts = _parts(settings, number, dsn, metrics, reactor)
    readiness = Readiness(parts)
    return Worker(
        parts=parts,
        readiness=readiness,
        door=PublicDoor(
            settings=settings,
            core=parts,
            profiles=load_profiles(settings.receiver.profiles),
            metrics=metrics,
            ready=readiness,
            room=peer_room(raise_limit(), _descriptors(settings)),
            reactor=reactor,
        ),
        metrics=metrics,
        journal_after=settings.receiver.journal_after,
        shutdown_seconds=settings.shutdown_seconds,
        reactor=reactor,
    )


def _descriptors(settings: Settings) -> int:
    """How many connections to PostgreSQL and to targets there may be at once."""
    return settings.database.pool + 1 + max(IN_MEMORY, 2 * settings.routing.concurrency)


def make_pool(dsn: str, size: int, reactor: Any) -> Pool:
    """Raises ConfigurationError where libpq does not understand the DSN."""
    try:
        return Pool(dsn=dsn, size=size, reactor=reactor, statement_timeout=STATEMENT_SECONDS)
    except SmsDaemonError as error:
        raise ConfigurationError([str(error)]) from error


def _parts(settings: Settings, number: int, dsn: str, metrics: Metrics, reactor: Any) -> WorkerParts:
    pool = make_pool(dsn, settings.database.pool, reactor)
    terms = _lease_terms(settings)
    postgres = PostgresMessages(pool=pool, timer=reactor, utc_now=utc_now, terms=terms)
    deliveries = PostgresDeliveries(
        pool=pool,
        timer=reactor,
        utc_now=utc_now,
        terms=terms,
        probe_seconds=settings.routing.breaker_probe,
    )
    http_backend = HttpBackend(
        reactor=reactor,
        now=utc_now,
        timeout=settings.routing.timeout,
        connections_per_host=settings.routing.concurrency,
    )
    directory = _directory(settings, number, pool, reactor)
    dispatcher = _dispatcher(settings, deliveries, directory, http_backend, metrics, reactor)
    directory.follow(dispatcher.look)  # the dispatcher reads the directory, and is woken by it
    refused = PostgresRefused(pool=pool, reactor=reactor, counter=metrics)
    drift = DriftWatch(seconds=reactor.seconds, utc_now=utc_now)
    return WorkerParts(
        journaling=_journaling(settings, postgres, pool, dispatcher, reactor),
        pool=pool,
        listener=_listener(dsn, directory, dispatcher, reactor),
        directory=directory,
        postgres=postgres,
        nonces=PostgresNonces(pool=pool, timer=reactor),
        deliveries=deliveries,
        http_backend=http_backend,
        dispatcher=dispatcher,
        refused=refused,
        refusals=Refusals(samples=Samples(reactor.seconds), kept=refused),
        requests=InFlight(),
        drift=drift,
        drift_keeper=DriftKeeper(watch=drift, state_dir=settings.state_dir, number=number, reactor=reactor),
    )


def _lease_terms(settings: Settings) -> LeaseTerms:
    return LeaseTerms(
        seconds=settings.routing.lease,
        first_delay_seconds=settings.routing.retry_schedule[0],
        holder=f"{socket.gethostname()}:{os.getpid()}",
    )


def _directory(settings: Settings, number: int, pool: Pool, reactor: Any) -> DirectorySnapshot:
    copy = DirectoryCopy(settings.state_dir / "directory.copy", reactor)
    return DirectorySnapshot(
        pool=pool,
        reactor=reactor,
        copy=copy if settings.receiver.journal else None,
        writes_copy=number == 1,  # one of them is enough
    )


def _journaling(
    settings: Settings, postgres: PostgresMessages, pool: Pool, dispatcher: Dispatcher, reactor: Any
) -> Journaling | None:
    if not settings.receiver.journal:
        return None
    journal = Journal(folder=settings.state_dir / "journal", reactor=reactor)
    mover = Mover(journal=journal, messages=postgres, pool=pool, timer=reactor, on_moved=dispatcher.look)
    messages = JournaledMessages(
        messages=postgres,
        journal=journal,
        mover=mover,
        timer=reactor,
        journal_after=settings.receiver.journal_after,
    )
    return Journaling(journal=journal, messages=messages)


def _listener(dsn: str, directory: DirectorySnapshot, dispatcher: Dispatcher, reactor: Any) -> Listener:
    def listening() -> None:
        # What was said before was not heard.
        directory.refresh()
        dispatcher.refresh_breakers()

    return Listener(
        dsn=dsn,
        channels={
            CHANNEL: directory.refresh,
            DELIVERY_CHANNEL: dispatcher.look,
            breakers.CHANNEL: dispatcher.refresh_breakers,
        },
        on_listening=listening,
        reactor=reactor,
    )


def _dispatcher(
    settings: Settings,
    deliveries: PostgresDeliveries,
    directory: DirectorySnapshot,
    http_backend: HttpBackend,
    metrics: Metrics,
    reactor: Any,
) -> Dispatcher:
    backends = (http_backend, LogBackend(message_text=settings.log.message_text))
    return Dispatcher(
        store=deliveries,
        directory=directory,
        backends={scheme: backend for backend in backends for scheme in backend.schemes},
        terms=_terms(settings),
        timer=reactor,
        utc_now=utc_now,
        jitter=lambda: random.uniform(-1, 1),
        observer=metrics,
    )


def _terms(settings: Settings) -> Terms:
    routing = settings.routing
    return Terms(
        retry=RetryPolicy(schedule=routing.retry_schedule, give_up_after=routing.give_up_after),
        per_target=routing.concurrency,
        in_all=max(IN_MEMORY, 2 * routing.concurrency),
        lease_seconds=routing.lease,
        breaker_failures=routing.breaker_failures,
    )
