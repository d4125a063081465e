"""`smsdaemon check`: whether a daemon with these settings would do its work."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

import click
from attrs import frozen
from twisted.internet.defer import DeferredSemaphore, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol

from smsdaemon.certificates import read_chain, read_pair, validity_problem
from smsdaemon.cli.session import Reactor, config_option, database, json_option, read_settings, run
from smsdaemon.errors import ConfigurationError, SmsDaemonError
from smsdaemon.settings import Settings
from smsdaemon.store.migrate import migrations
from smsdaemon.store.pool import Pool
from smsdaemon.store.support import (
    TargetState,
    durability_settings,
    queue_state,
    schema_state,
    target_states,
)

CONNECT_SECONDS = 3.0
AT_ONCE = 50
DEFAULT_PORTS = {"http": 80, "https": 443}
FEW_DAYS = 14


@frozen
class Finding:
    """One line of the output."""

    result: Literal["ok", "WARN", "FAIL"]
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
                print(f"{finding.result:4}  {finding.check}: {finding.detail}", flush=True)
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
    yield Finding("ok", "settings", "can be used")
    for finding in _certificate(settings, datetime.now(UTC)):
        yield finding
    try:
        async with database(reactor, settings) as pool:
            async for finding in _database(reactor, pool):
                yield finding
    except SmsDaemonError as error:
        yield Finding("FAIL", "database", str(error))


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


async def _database(reactor: Reactor, pool: Pool) -> AsyncIterator[Finding]:
    unsafe = {name: value for name, value in (await durability_settings(pool)).items() if value == "off"}
    for name in unsafe:
        yield Finding("FAIL", "database", f"{name} is off: what was answered with 200 could be lost")
    if not unsafe:
        yield Finding("ok", "database", "reachable; fsync, full_page_writes and synchronous_commit are on")
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
    checks = [tokens.run(_target, reactor, target) for target in targets if not target.removed]
    return list(await gatherResults(checks))


async def _target(reactor: Reactor, target: TargetState) -> Finding:
    name = f"target {target.client}/{target.name}"
    parts = urlsplit(target.url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return Finding("ok", name, f"{parts.scheme}: needs no connection")
    where = f"{parts.hostname} port {parts.port or DEFAULT_PORTS[parts.scheme]}"
    endpoint = HostnameEndpoint(
        reactor, parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme], timeout=CONNECT_SECONDS
    )
    try:
        protocol = await connectProtocol(endpoint, Protocol())
    except (ConnectError, DNSLookupError, OSError, ValueError) as error:
        why = str(error).strip().rstrip(".") or type(error).__name__
        return Finding("WARN", name, f"{where}: {why.splitlines()[0]}")
    cast(ITCPTransport, protocol.transport).loseConnection()
    return Finding("ok", name, f"{where} can be connected to")
