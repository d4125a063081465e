"""The composition root: makes every part from the settings; the reactor comes from tap.py."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, TextIO

from smsdaemon import demo
from smsdaemon.backends.http import HttpBackend
from smsdaemon.backends.log import LogBackend
from smsdaemon.daemon import Parts, Readiness, SmsDaemon
from smsdaemon.deferreds import InFlight
from smsdaemon.dispatch import Dispatcher, Terms
from smsdaemon.domain.backoff import RetryPolicy
from smsdaemon.doors import Doors, utc_now
from smsdaemon.errors import ConfigurationError, SmsDaemonError
from smsdaemon.metrics import Metrics
from smsdaemon.settings import Settings
from smsdaemon.statedir import DaemonLock, make_state_dir
from smsdaemon.store.directory import CHANNEL, DirectorySnapshot
from smsdaemon.store.embedded import EmbeddedPostgres, problems
from smsdaemon.store.pool import Listener, Pool
from smsdaemon.store.postgres import STATEMENT_SECONDS, PostgresStore

DELIVERY_CHANNEL = "smsdaemon_delivery"
"""Notified by the command when it made deliveries due (redeliver)."""
IN_MEMORY = 2000
"""Attempts in flight at once, to all targets together."""


def build(settings: Settings, *, reactor: Any, out: TextIO, demo_file: Path | None) -> SmsDaemon:
    """The daemon, ready to be started; nothing listens or connects yet.

    ``demo_file``: a directory to apply at start. Raises ConfigurationError.
    """
    embedded, dsn = _database(settings, reactor)
    parts, metrics = _parts(settings, embedded, dsn, reactor)
    readiness = Readiness(parts.pool, parts.directory)
    doors = Doors(settings=settings, core=parts, metrics=metrics, ready=readiness, reactor=reactor)
    return SmsDaemon(
        parts=parts,
        readiness=readiness,
        doors=doors,
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
    metrics = Metrics(utc_now)
    pool = _pool(dsn, settings.database.pool, reactor)
    store = PostgresStore(
        pool=pool,
        timer=reactor,
        utc_now=utc_now,
        lease_seconds=settings.routing.lease,
        first_delay_seconds=settings.routing.retry_schedule[0],
    )
    http_backend = HttpBackend(
        reactor=reactor,
        now=utc_now,
        timeout=settings.routing.timeout,
        connections_per_host=settings.routing.concurrency,
    )
    directory = DirectorySnapshot(pool=pool, reactor=reactor)
    dispatcher = _dispatcher(settings, store, directory, http_backend, metrics, reactor)
    directory.follow(dispatcher.look)  # the dispatcher reads the directory, and is woken by it
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


def _dispatcher(
    settings: Settings,
    store: PostgresStore,
    directory: DirectorySnapshot,
    http_backend: HttpBackend,
    metrics: Metrics,
    reactor: Any,
) -> Dispatcher:
    backends = (http_backend, LogBackend(message_text=settings.log.message_text))
    return Dispatcher(
        store=store,
        directory=directory,
        backends={scheme: backend for backend in backends for scheme in backend.schemes},
        terms=_terms(settings),
        timer=reactor,
        utc_now=utc_now,
        jitter=lambda: random.uniform(-1, 1),
        observer=metrics,
    )


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
