"""The one service: starts the parts in order, stops them in the reverse, and says when it is ready."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

import sdnotify
from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.backends.http import HttpBackend
from smsdaemon.deferreds import InFlight
from smsdaemon.dispatch import Dispatcher
from smsdaemon.doors import Doors
from smsdaemon.errors import ConfigurationError, EmbeddedPostgresError, SchemaMismatch, SmsDaemonError
from smsdaemon.listening import Listening, bind
from smsdaemon.statedir import DaemonLock
from smsdaemon.store.directory import DirectorySnapshot
from smsdaemon.store.embedded import EmbeddedPostgres
from smsdaemon.store.migrate import migrate
from smsdaemon.store.pool import Listener, Pool
from smsdaemon.store.postgres import PostgresStore

UPKEEP_SECONDS = 3600.0
AGAIN_SECONDS = 1.0


@frozen(kw_only=True)
class Parts:
    """What runs, in the order in which it is started."""

    lock: DaemonLock
    embedded: EmbeddedPostgres | None
    pool: Pool
    listener: Listener
    directory: DirectorySnapshot
    store: PostgresStore
    http_backend: HttpBackend
    dispatcher: Dispatcher
    requests: InFlight
    """Acceptances under way."""


class Readiness:
    """Whether the daemon can accept; asked by health pages."""

    def __init__(self, pool: Pool, directory: DirectorySnapshot) -> None:
        self._pool, self._directory = pool, directory
        self.started = False

    def database(self) -> bool:
        return self._pool.alive > 0

    def directory(self) -> bool:
        return self._directory.loaded

    def __call__(self) -> bool:
        return self.started and self.database() and self.directory()


class SmsDaemon(Service):
    """Refuses to start synchronously, by exit 1; what goes wrong later is mended or waited for."""

    name = "smsdaemon"

    def __init__(
        self,
        *,
        parts: Parts,
        readiness: Readiness,
        doors: Doors,
        prepare: Callable[[Pool], Deferred[Sequence[str]]] | None,
        shutdown_seconds: float,
        reactor: Any,
        out: TextIO,
    ) -> None:
        """``prepare`` runs once the schema is there (the demo); its lines follow the ready line."""
        self._parts, self._readiness, self._doors, self._prepare = parts, readiness, doors, prepare
        self._shutdown_seconds, self._reactor, self._out = shutdown_seconds, reactor, out
        self._log = Logger(namespace="smsdaemon")
        self._systemd = sdnotify.SystemdNotifier()
        self._listening: Listening | None = None
        self._coming_up: Deferred[None] | None = None
        self._upkeep = LoopingCall(self._keep_up)
        self._upkeep.clock = reactor

    # --- start --------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        try:
            self._parts.lock.acquire()
            self._listening = bind(self._doors.openings, self._reactor)
        except ConfigurationError as error:
            refuse(error.problems)
        self._doors.bound(self._listening)
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        # Without a handler it would end the process; there is nothing to read anew (contract 4).
        signal.signal(signal.SIGHUP, lambda *_: None)
        self._reactor.callWhenRunning(stop_once)
        self._coming_up = ensureDeferred(self._come_up())
        self._coming_up.addErrback(self._cannot_run)

    async def _come_up(self) -> None:
        parts = self._parts
        if parts.embedded is not None:
            await parts.embedded.start()
        parts.pool.start()
        await self._until_done(lambda: migrate(parts.pool))
        lines = await self._prepare(parts.pool) if self._prepare is not None else []
        parts.listener.start()
        await parts.directory.start()
        parts.dispatcher.start()
        self._upkeep.start(UPKEEP_SECONDS, now=False).addErrback(self._failed)
        # What lives now lives to the end; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        self._readiness.started = True
        self._announce(lines)

    async def _until_done(self, step: Callable[[], Deferred[Any]]) -> None:
        said = ""
        while True:
            try:
                await step()
                return
            except SchemaMismatch:
                raise
            except SmsDaemonError as error:
                if str(error) != said:
                    self._log.warn("waiting for PostgreSQL: {why}", why=str(error))
                    said = str(error)
            await deferLater(self._reactor, AGAIN_SECONDS)

    def _announce(self, lines: Sequence[str]) -> None:
        urls = " ".join(self._listening.urls()) if self._listening is not None else ""
        # For people and for whoever started us: raw, so that the line begins as promised.
        self._out.write("".join(f"{line}\n" for line in [f"smsdaemon ready: {urls}", *lines]))
        self._out.flush()
        self._systemd.notify("READY=1")

    def _cannot_run(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if failure.check(SchemaMismatch, EmbeddedPostgresError, ConfigurationError):
            self._log.critical("cannot run: {why}", why=str(failure.value))
        else:
            self._log.failure("cannot run", failure=failure)
        exit_with(self._reactor, 1)

    # --- upkeep -------------------------------------------------------------------------------

    def _keep_up(self) -> Deferred[None]:
        return ensureDeferred(self._upkeep_once())

    async def _upkeep_once(self) -> None:
        try:
            await migrate(self._parts.pool)  # makes the coming months' partitions
            await self._parts.store.forget_repeats()
        except SmsDaemonError as error:
            self._log.warn("upkeep failed, next try in an hour: {why}", why=str(error))

    def _failed(self, failure: Failure) -> None:
        self._log.failure("upkeep stopped", failure=failure)

    # --- stop ---------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self._go_down())

    async def _go_down(self) -> None:
        parts = self._parts
        self._systemd.notify("STOPPING=1")
        self._readiness.started = False
        self._doors.wind_down()
        if self._coming_up is not None:
            self._coming_up.cancel()
        if self._listening is not None:
            await self._listening.close()
        if self._upkeep.running:
            self._upkeep.stop()
        # Requests and attempts under way may end; what is pending stays pending.
        await parts.dispatcher.stop(self._shutdown_seconds)
        await parts.requests.drained()
        parts.directory.stop()
        parts.listener.close()
        parts.store.close()
        await parts.http_backend.close()
        await parts.pool.close()
        if parts.embedded is not None:
            await parts.embedded.stop()
        parts.lock.release()
        self._log.info("stopped")


def stop_once() -> None:
    """Have the reactor hear the first SIGTERM or SIGINT only; the second would log a traceback."""
    asked = False

    def first_only(reactors: Any) -> Callable[[int, Any], None]:
        def heard(number: int, frame: Any) -> None:
            nonlocal asked
            if not asked:
                asked = True
                reactors(number, frame)

        return heard

    for number in (signal.SIGTERM, signal.SIGINT):
        theirs = signal.getsignal(number)
        if callable(theirs):
            signal.signal(number, first_only(theirs))


def refuse(problems: Sequence[str]) -> NoReturn:
    """Say what is wrong, a line each, and exit 1; for use before the reactor runs."""
    # Not sys.stderr: once its log has begun, twistd has put that in its place.
    stream = sys.__stderr__ or sys.stderr
    stream.write("".join(f"smsdaemon: {problem}\n" for problem in problems))
    stream.flush()
    raise SystemExit(1)


def exit_with(reactor: Any, status: int) -> None:
    """Stop in order, then exit with this status: after reactor.stop() twistd would exit with 0."""
    import os

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    reactor.addSystemEventTrigger("after", "shutdown", leave)
    reactor.stop()
