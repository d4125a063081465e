"""`smsdaemon check`: whether a daemon with these settings would do its work."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import click
from attrs import frozen
from twisted.internet.defer import DeferredSemaphore, TimeoutError, gatherResults
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol

from smsdaemon.backends.addresses import NamedEndpoint
from smsdaemon.certificates import read_chain, read_pair, validity_problem
from smsdaemon.cli.session import Reactor, config_option, database, json_option, read_settings, run
from smsdaemon.errors import ConfigurationError, SmsDaemonError, TargetUnreachable
from smsdaemon.log import printable
from smsdaemon.names import Names, system_look_up
from smsdaemon.providers.catalogue import load as load_profiles
from smsdaemon.settings import Settings
from smsdaemon.store.migrate import migrations
from smsdaemon.store.pool import Pool
from smsdaemon.store.safety import read_guarantee
from smsdaemon.store.support import (
    TargetState,
    queue_state,
    schema_state,
    target_states,
)

CONNECT_SECONDS = 3.0
AT_ONCE = 50
DEFAULT_PORTS = {"http": 80, "https": 443}
FEW_DAYS = 14
FEW_BYTES = 100_000_000

Result = Literal["ok", "WARN", "FAIL"]


@frozen
class Finding:
    """One line of the output."""

    result: Result
    check: str
    detail: str


@click.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> None:
    """Check settings, database, certificate and targets; exit 1 if the daemon could not work.

    A target that cannot be connected to is a warning: its deliveries wait for it.
    """

    async def work(reactor: Reactor) -> None:
        failed = False
        async for finding in _findings(reactor, config):
            failed = failed or finding.result == "FAIL"
            if as_json:
                row = {"check": finding.check, "result": finding.result.lower(), "detail": finding.detail}
                print(json.dumps(row), flush=True)
            else:
                print(printable(f"{finding.result:4}  {finding.check}: {finding.detail}"), flush=True)
        if failed:
            raise SystemExit(1)

    run(work)


async def _findings(reactor: Reactor, config: Path | None) -> AsyncIterator[Finding]:
    try:
        settings = read_settings(config)
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding("FAIL", "settings", problem)
        return
    try:
        profiles = load_profiles(settings.receiver.profiles)
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding("FAIL", "profiles", problem)
        return
    yield Finding("ok", "settings", "can be used")
    yield Finding("ok", "profiles", f"{len(profiles)} can be used besides generic")
    for finding in (*_risks(settings), *_certificate(settings, datetime.now(UTC)), *_journal(settings)):
        yield finding
    try:
        async with database(reactor, settings) as pool:
            async for finding in _database(reactor, settings, pool):
                yield finding
    except SmsDaemonError as error:
        yield Finding("FAIL", "database", str(error))


# --- settings ---------------------------------------------------------------------------------


def _risks(settings: Settings) -> list[Finding]:
    """What is allowed together, but seldom meant."""
    found = []
    timeout, shutdown = settings.routing.timeout, settings.shutdown_seconds
    if shutdown < timeout:
        found.append(
            f"shutdown_seconds, {shutdown:g}, is below routing.timeout, {timeout:g}: a stop ends attempts"
            " that could have succeeded, and they are made again"
        )
    if not settings.receiver.journal:
        found.append(
            "receiver.journal is false: while PostgreSQL is away, SMS are answered with 500, and providers"
            " that do not repeat them lose them"
        )
    return [Finding("WARN", "settings", text) for text in found]


# --- journal ----------------------------------------------------------------------------------


def _journal(settings: Settings) -> list[Finding]:
    if not settings.receiver.journal:
        return []
    folder = settings.state_dir / "journal"
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return [Finding("FAIL", "journal", f"{existing} cannot be read: {error.strerror}")]
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        return [Finding("FAIL", "journal", f"{existing} is no folder that this user can write")]
    return [journal_space(folder, free)]


def journal_space(folder: Path, free: int) -> Finding:
    """``free``: in bytes."""
    room = f"{folder} can be written, {free // 1_000_000} MB are free"
    if free < FEW_BYTES:
        return Finding("WARN", "journal", f"{room}: SMS that come while PostgreSQL is away may not fit")
    return Finding("ok", "journal", room)


# --- certificate ------------------------------------------------------------------------------


def _certificate(settings: Settings, now: datetime) -> list[Finding]:
    if settings.https is None:
        return []
    certificate, key = settings.https.certificate, settings.https.key
    if certificate is None or key is None:
        return [Finding("ok", "certificate", "self-signed, made and renewed by the daemon")]
    try:
        read_pair(certificate, key)
        own = read_chain(certificate)[0]
    except ConfigurationError as error:
        return [Finding("FAIL", "certificate", problem) for problem in error.problems]
    invalid = validity_problem(own, now)
    if invalid is not None:
        return [Finding("FAIL", "certificate", f"{certificate} {invalid}")]
    days = (own.not_valid_after_utc - now).days
    return [
        Finding("WARN" if days < FEW_DAYS else "ok", "certificate", f"{certificate} has {days} days left")
    ]


# --- database ---------------------------------------------------------------------------------


async def _database(reactor: Reactor, settings: Settings, pool: Pool) -> AsyncIterator[Finding]:
    guarantee = await read_guarantee(pool)
    unsafe: Result = "WARN" if settings.database.allow_unsafe else "FAIL"
    for problem in guarantee.problems:
        yield Finding(unsafe, "database", problem)
    for warning in guarantee.warnings:
        yield Finding("WARN", "database", warning)
    checksums = "on" if guarantee.data_checksums else "off"
    result: Result = unsafe if guarantee.problems else "ok"
    yield Finding(result, "guarantee", f"{guarantee.statement}; data checksums {checksums}")
    state, ours = await schema_state(pool), migrations()[-1].number
    if state is None:
        yield Finding("FAIL", "schema", "there is none: run smsdaemon migrate, or start the daemon")
        return
    if state.oldest_code > ours:
        yield Finding("FAIL", "schema", f"{state.number}, which needs a newer smsdaemon than this ({ours})")
        return
    if state.number < ours:
        yield Finding("FAIL", "schema", f"{state.number}, this smsdaemon needs {ours}: run smsdaemon migrate")
        return
    queue = await queue_state(pool)
    yield Finding("ok", "schema", f"{state.number} on PostgreSQL {queue.postgres_version}")
    for finding in await _targets(reactor, await target_states(pool)):
        yield finding


# --- targets ----------------------------------------------------------------------------------


async def _targets(reactor: Reactor, targets: list[TargetState]) -> list[Finding]:
    """A TCP connection to each, many at once; nothing is sent."""
    tokens = DeferredSemaphore(AT_ONCE)
    names = Names(reactor=cast(Any, reactor), look_up=system_look_up, patience=CONNECT_SECONDS)
    checks = [tokens.run(_target, reactor, names, target) for target in targets if not target.removed]
    try:
        return list(await gatherResults(checks))
    finally:
        names.close()


async def _target(reactor: Reactor, names: Names, target: TargetState) -> Finding:
    name = f"target {target.client}/{target.name}"
    parts = urlsplit(target.url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return Finding("ok", name, f"{parts.scheme}: needs no connection")
    where = f"{parts.hostname} port {parts.port or DEFAULT_PORTS[parts.scheme]}"
    endpoint = NamedEndpoint(
        reactor=cast(Any, reactor),
        names=names,
        host=parts.hostname,
        port=parts.port or DEFAULT_PORTS[parts.scheme],
        timeout=CONNECT_SECONDS,
    )
    try:
        protocol = await connectProtocol(endpoint, Protocol()).addTimeout(2 * CONNECT_SECONDS, reactor)
    except TimeoutError:
        return Finding("WARN", name, f"{where}: its name was not found in time")
    except (ConnectError, OSError, ValueError, TargetUnreachable) as error:
        why = str(error).strip().rstrip(".") or type(error).__name__
        return Finding("WARN", name, f"{where}: {why.splitlines()[0]}")
    cast(ITCPTransport, protocol.transport).loseConnection()
    return Finding("ok", name, f"{where} can be connected to")
