"""The one service: starts the parts in order, stops them in the reverse, and says when it is ready."""

from __future__ import annotations

import os
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

from smsdaemon.doors import AdminDoor
from smsdaemon.errors import (
    ConfigurationError,
    EmbeddedPostgresError,
    SchemaMismatch,
    SmsDaemonError,
    UnsafeDatabase,
)
from smsdaemon.health import DaemonHealth
from smsdaemon.listening import Listening, Opening, bind
from smsdaemon.log import printable
from smsdaemon.statedir import DaemonLock
from smsdaemon.status_file import WRITE_SECONDS, StatusFile
from smsdaemon.store.embedded import EmbeddedPostgres
from smsdaemon.store.migrate import migrate
from smsdaemon.store.pool import Pool
from smsdaemon.store.safety import GuaranteeInForce
from smsdaemon.upkeep import Upkeep
from smsdaemon.workers import Crew

AGAIN_SECONDS = 1.0
LOOK_SECONDS = 0.02
"""Whether it can accept, until it can."""
OTHERS_SECONDS = 5.0
"""How long the first worker that accepts keeps the ready line waiting for the others: who connects
now is served by those that are there, for as long as the connection lasts."""
EXPECTED = (SchemaMismatch, EmbeddedPostgresError, ConfigurationError, UnsafeDatabase)
"""What keeps the daemon from running and is no bug."""


@frozen(kw_only=True)
class Parts:
    """What the daemon's own process has, besides what its crew has."""

    lock: DaemonLock
    embedded: EmbeddedPostgres | None
    pool: Pool
    """For the schema, upkeep and gauges; the crew has its own."""
    guarantee: GuaranteeInForce
    upkeep: Upkeep
    crew: Crew
    health: DaemonHealth
    status: StatusFile
    admin: AdminDoor
    openings: Sequence[Opening]


class SmsDaemon(Service):
    """Refuses to start synchronously, by exit 1; what goes wrong later is mended or waited for."""

    name = "smsdaemon"

    def __init__(
        self,
        *,
        parts: Parts,
        prepare: Callable[[Pool], Deferred[Sequence[str]]] | None,
        reactor: Any,
        out: TextIO,
    ) -> None:
        """``prepare`` runs once the schema is there (the demo); its lines follow the ready line."""
        self._parts, self._prepare = parts, prepare
        self._reactor, self._out = reactor, out
        self._log = Logger(namespace="smsdaemon")
        self._systemd = sdnotify.SystemdNotifier()
        self._listening: Listening | None = None
        self._coming_up: list[Deferred[None]] = []
        self._announced: Deferred[None] = Deferred()
        self._untold: str | None = None
        self._telling = LoopingCall(self._tell)
        self._telling.clock = reactor

    # --- start --------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        parts = self._parts
        try:
            parts.lock.acquire()
            self._listening = bind(parts.openings, self._reactor)
            parts.crew.bound(self._listening)
        except ConfigurationError as error:
            refuse(error.problems)
        parts.admin.bound(self._listening)
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        # Without a handler it would end the process; there is nothing to read anew (contract 4).
        signal.signal(signal.SIGHUP, lambda *_: None)
        self._reactor.callWhenRunning(stop_once)
        self._reactor.callWhenRunning(self._start)

    def _start(self) -> None:
        self._parts.crew.start(self.give_up)
        for step in (self._come_up(), self._announce()):
            begun = ensureDeferred(step)
            self._coming_up.append(begun)
            begun.addErrback(self._cannot_run)
        self._telling.start(WRITE_SECONDS).addErrback(self._failed)

    async def _come_up(self) -> None:
        """Everything that needs PostgreSQL, in order."""
        parts = self._parts
        if parts.embedded is not None:
            await parts.embedded.start()
        parts.pool.start()
        await self._until_done(lambda: ensureDeferred(parts.guarantee.check()))
        await self._until_done(lambda: migrate(parts.pool))
        lines = await self._prepare(parts.pool) if self._prepare is not None else []
        parts.crew.database_ready()
        parts.upkeep.start()
        await self._announced
        self._print([line.replace("{url}", self._urls()[0]) for line in lines])

    async def _until_done(self, step: Callable[[], Deferred[Any]]) -> None:
        said = ""
        while True:
            try:
                await step()
                return
            except EXPECTED:
                raise
            except SmsDaemonError as error:
                if self._parts.health.stopping:  # the store's word for being cancelled
                    raise CancelledError from None
                if str(error) != said:
                    self._log.warn("waiting for PostgreSQL: {why}", why=str(error))
                    said = str(error)
            await deferLater(self._reactor, AGAIN_SECONDS)

    async def _announce(self) -> None:
        while not self._parts.health.accepts():
            await deferLater(self._reactor, LOOK_SECONDS)
        until = self._reactor.seconds() + OTHERS_SECONDS
        while not self._all_accept() and self._reactor.seconds() < until:
            await deferLater(self._reactor, LOOK_SECONDS)
        self._tell()
        self._print([f"smsdaemon ready: {' '.join(self._urls())}"])
        self._systemd.notify("READY=1")
        self._announced.callback(None)

    def _all_accept(self) -> bool:
        return all(worker.accepts for worker in self._parts.crew.workers())

    def _urls(self) -> list[str]:
        return self._listening.urls() if self._listening is not None else []

    def _print(self, lines: Sequence[str]) -> None:
        # For people and for whoever started us: raw, so that the line begins as promised.
        self._out.write("".join(f"{line}\n" for line in lines))
        self._out.flush()

    def _cannot_run(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if failure.check(*EXPECTED):
            self.give_up(str(failure.value))
        else:
            self._log.failure("cannot run", failure=failure)
            exit_with(self._reactor, 1)

    def give_up(self, why: str) -> None:
        """End in order, with exit status 1."""
        for line in why.splitlines():
            self._log.critical("cannot run: {why}", why=line)
        exit_with(self._reactor, 1)

    # --- what it tells ------------------------------------------------------------------------

    def _tell(self) -> None:
        why = None
        try:
            self._parts.status.write(self._parts.health.document())
        except OSError as error:
            why = error.strerror
        if why is not None and why != self._untold:  # once, not every second
            self._log.warn("the status file cannot be written: {why}", why=why)
        self._untold = why

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the status file is not written any more", failure=failure)

    # --- stop ---------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self._go_down())

    async def _go_down(self) -> None:
        parts = self._parts
        self._systemd.notify("STOPPING=1")
        parts.health.stopping = True
        parts.crew.wind_down()
        for step in self._coming_up:
            step.cancel()
        if self._listening is not None:
            await self._listening.close()
        parts.upkeep.stop()
        # Requests and attempts under way may end; what is pending stays pending.
        await parts.crew.stop()
        await parts.pool.close()
        if parts.embedded is not None:
            await parts.embedded.stop()
        if self._telling.running:
            self._telling.stop()
        parts.status.remove()
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
    stream.write("".join(f"smsdaemon: {printable(problem)}\n" for problem in problems))
    stream.flush()
    raise SystemExit(1)


def exit_with(reactor: Any, status: int) -> None:
    """Stop in order, then exit with this status: after reactor.stop() twistd would exit with 0."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    reactor.addSystemEventTrigger("after", "shutdown", leave)
    reactor.stop()
