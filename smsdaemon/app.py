"""The composition root: makes every part from the settings; the reactor comes from tap.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

from prometheus_client import CollectorRegistry

from smsdaemon import demo, workers
from smsdaemon.daemon import Parts, SmsDaemon
from smsdaemon.doors import AdminDoor, certificate_pair, openings, utc_now
from smsdaemon.errors import ConfigurationError, SmsDaemonError
from smsdaemon.health import DaemonHealth
from smsdaemon.metrics import Gauges, Metrics, shared_folder, summed
from smsdaemon.providers.catalogue import load as load_profiles
from smsdaemon.settings import Settings
from smsdaemon.statedir import DaemonLock, make_state_dir
from smsdaemon.status_file import StatusFile
from smsdaemon.store.concatenations import Patience
from smsdaemon.store.embedded import EmbeddedPostgres, problems
from smsdaemon.store.safety import GuaranteeInForce
from smsdaemon.upkeep import Upkeep
from smsdaemon.web import tls
from smsdaemon.worker_channel import Charge
from smsdaemon.worker_parts import make_pool, make_worker
from smsdaemon.workers import Alone, Crew
from smsdaemon.workers_processes import WorkerProcesses


def build(settings: Settings, *, reactor: Any, out: TextIO, demo_file: Path | None) -> SmsDaemon:
    """The daemon, ready to be started; nothing listens or connects yet.

    ``demo_file``: a directory to apply at start. Raises ConfigurationError.
    """
    profiles = load_profiles(settings.receiver.profiles)  # workers do so too, but this stops the start
    embedded, dsn = _database(settings, reactor)
    lock = DaemonLock(settings.state_dir)
    if workers.count(settings) == 1:
        metrics = Metrics()
        gauges = _gauges(settings, metrics.registry)
        crew: Crew = Alone(make_worker(settings, 1, dsn=dsn, metrics=metrics, reactor=reactor))
    else:
        gauges = _gauges(settings, summed(shared_folder(settings.state_dir)))
        crew = _processes(settings, dsn, lock, gauges, reactor)
    return SmsDaemon(
        parts=_parts(settings, embedded, dsn, lock, crew, gauges, reactor),
        prepare=None if demo_file is None else demo.preparation(demo_file, utc_now, profiles),
        reactor=reactor,
        out=out,
    )


def _database(settings: Settings, reactor: Any) -> tuple[EmbeddedPostgres | None, str]:
    if settings.database.dsn:
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


def _gauges(settings: Settings, events: CollectorRegistry) -> Gauges:
    gauges = Gauges(utc_now, events)
    pair = certificate_pair(settings)
    if pair is not None:
        gauges.certificate(tls.expiry(pair[0]))
    return gauges


def _processes(
    settings: Settings, dsn: str, lock: DaemonLock, gauges: Gauges, reactor: Any
) -> WorkerProcesses:
    pair = certificate_pair(settings)
    if pair is not None:
        tls.server_context(*pair)  # what is wrong with it is to stop the start, not each worker's
    return WorkerProcesses(
        count=workers.count(settings),
        charge=Charge(number=0, supervisor=0, settings=settings, dsn=dsn, endpoints=()),
        lock=lock,
        on_restart=gauges.worker_restarted,
        reactor=reactor,
    )


def _parts(
    settings: Settings,
    embedded: EmbeddedPostgres | None,
    dsn: str,
    lock: DaemonLock,
    crew: Crew,
    gauges: Gauges,
    reactor: Any,
) -> Parts:
    pool = make_pool(dsn, 1, reactor)
    guarantee = GuaranteeInForce(pool=pool, allow_unsafe=settings.database.allow_unsafe)
    health = DaemonHealth(crew=crew, pool=pool, guarantee=guarantee, gauges=gauges)
    admin = AdminDoor(gauges=gauges, health=health, reactor=reactor)
    return Parts(
        lock=lock,
        embedded=embedded,
        pool=pool,
        guarantee=guarantee,
        upkeep=Upkeep(
            pool=pool,
            guarantee=guarantee,
            patience=_patience(settings),
            journaled=health.journaled,
            reactor=reactor,
        ),
        crew=crew,
        health=health,
        status=StatusFile(settings.state_dir),
        admin=admin,
        openings=openings(settings, crew.factories, admin.factory),
    )


def _patience(settings: Settings) -> Patience:
    return Patience(
        seconds=settings.receiver.concatenation_timeout,
        first_delay_seconds=settings.routing.retry_schedule[0],
    )
