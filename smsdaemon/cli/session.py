"""What every command has in common: settings, reactor, database, and how it ends."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import click
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
    textFileLogObserver,
)
from zope.interface import implementer

from smsdaemon import settings as settings_module
from smsdaemon.errors import SchemaMismatch, SmsDaemonError, StoreUnavailable
from smsdaemon.log import printable
from smsdaemon.settings import Settings
from smsdaemon.store.embedded import EmbeddedPostgres
from smsdaemon.store.embedded import Reactor as EmbeddedReactor
from smsdaemon.store.migrate import migrate, migrations
from smsdaemon.store.pool import Pool
from smsdaemon.store.support import schema_state

Reactor = PosixReactorBase
Work = Callable[[Reactor], Coroutine[Any, Any, None]]
_F = TypeVar("_F", bound=Callable[..., Any])

DATABASE_SECONDS = 30.0
"""How long a command waits for a PostgreSQL that is starting (contract 6)."""
FAILED = 1

config_option: Callable[[_F], _F] = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file; without it $SMSDAEMON_CONFIG, else the built-in defaults.",
)
json_option: Callable[[_F], _F] = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line."
)


def given_outside(context: click.Context, config: Path | None, as_json: bool) -> tuple[Path | None, bool]:
    """--config and --json, which may also stand before the name of a command within a group."""
    outer = context.parent.params if context.parent is not None else {}
    return config or outer.get("config"), as_json or bool(outer.get("as_json"))


def read_settings(config: Path | None) -> Settings:
    """The settings the daemon would run with; raises ConfigurationError."""
    return settings_module.load(config, os.environ, settings_module.current_folder(), serving=False)


class Failed(SmsDaemonError):
    """The command has said what went wrong, or says it with this; the exit status is 1."""


# --- the run of a command ---------------------------------------------------------------------


@implementer(ILogObserver)
class _LastWarning:
    """Remembers why things are not as they should be, for the one line that tells so in the end."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") == LogLevel.warn:
            self.text = formatEvent(event)


_last_warning = _LastWarning()


def run(work: Work) -> NoReturn:
    """Run a command's coroutine on the reactor and exit: 0, or 1 with a line on stderr.

    Trouble that is expected, a SmsDaemonError, ends in one line; only a bug shows a traceback.
    Ctrl-C and SIGTERM cancel the coroutine, which so can close what it has opened.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 has no "…"
    critical = FilteringLogObserver(
        textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(defaultLogLevel=LogLevel.critical)]
    )
    globalLogBeginner.beginLoggingTo([_last_warning, critical], discardBuffer=True, redirectStandardIO=False)
    react(_run, [work])


async def _run(reactor: Reactor, work: Work) -> None:
    running: Deferred[None] = Deferred()
    reactor.callWhenRunning(running.callback, None)
    await running
    ended_by: list[int] = []
    begin: Deferred[None] = Deferred()
    command = ensureDeferred(_after(begin, work, reactor))

    def interrupted(number: int, _frame: object) -> None:
        if ended_by:  # the second time nobody wants to wait for what hangs
            os._exit(128 + number)
        ended_by.append(number)
        reactor.callFromThread(command.cancel)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    # Only now: the reactor's own handlers would stop it under the command, with everything open.
    begin.callback(None)
    try:
        await command
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough (| head). The interpreter would flush once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CancelledError, SmsDaemonError) as error:
        # What is cancelled may fail with an error of its own.
        if ended_by:
            raise SystemExit(128 + ended_by[0]) from None
        for line in str(error).splitlines():
            click.echo(f"smsdaemon: {printable(line)}", err=True)
        raise SystemExit(FAILED) from None


async def _after(begin: Deferred[None], work: Work, reactor: Reactor) -> None:
    await begin
    await work(reactor)


# --- the database -----------------------------------------------------------------------------


@asynccontextmanager
async def database(reactor: Reactor, settings: Settings) -> AsyncIterator[Pool]:
    """The daemon's database; the embedded one is started for the while where no daemon runs it."""
    if settings.database.dsn:
        async with connected(reactor, settings.database.dsn) as pool:
            yield pool
        return
    embedded = EmbeddedPostgres(state_dir=settings.state_dir, reactor=cast(EmbeddedReactor, reactor))
    try:
        await embedded.start(timeout=DATABASE_SECONDS)
        async with connected(reactor, embedded.dsn) as pool:
            yield pool
    finally:
        await embedded.stop()


@asynccontextmanager
async def connected(reactor: Reactor, dsn: str) -> AsyncIterator[Pool]:
    """A pool that has reached PostgreSQL; raises StoreUnavailable where it does not in time."""
    pool = Pool(dsn=dsn, size=1, reactor=reactor, statement_timeout=0)
    try:
        pool.start()
        answer = pool.query("SELECT 1")
        answer.addTimeout(DATABASE_SECONDS, reactor, _unreachable)
        await answer
        yield pool
    finally:
        await pool.close()


def _unreachable(_result: object, seconds: float) -> NoReturn:
    why = _last_warning.text.strip() or "PostgreSQL is not reachable"
    raise StoreUnavailable(f"{why} (waited {seconds:g} s)")


@asynccontextmanager
async def usable_database(reactor: Reactor, settings: Settings) -> AsyncIterator[Pool]:
    """The database with the schema that this code knows; an empty database gets it.

    An older schema is left for ``smsdaemon migrate`` or the daemon to change: a command that only
    looks must not. Raises SchemaMismatch.
    """
    async with database(reactor, settings) as pool:
        state = await schema_state(pool)
        ours = migrations()[-1].number
        if state is None:
            await migrate(pool)
        elif state.number < ours:
            raise SchemaMismatch(
                f"the database has schema {state.number}, this smsdaemon needs {ours}: run smsdaemon migrate"
            )
        elif state.oldest_code > ours:
            raise SchemaMismatch(
                f"the database has schema {state.number}, which needs smsdaemon with schema"
                f" {state.oldest_code} or newer; this one knows schema {ours}: install a newer smsdaemon"
            )
        yield pool
