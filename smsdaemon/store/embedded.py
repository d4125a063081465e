"""The embedded PostgreSQL: initialised, started, restarted and stopped by the process that owns it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.errors import EmbeddedPostgresError
from smsdaemon.store.embedded_child import Postmaster
from smsdaemon.store.embedded_cluster import Server, prepare, problems
from smsdaemon.store.embedded_location import SYSTEM_DIR, locate
from smsdaemon.store.embedded_lock import OwnerLock
from smsdaemon.store.embedded_processes import accepting_postmaster, end_processes_in

__all__ = ["EmbeddedPostgres", "problems"]

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.2
_READY_POLL_SECONDS = 0.05
_SOUND_AFTER_SECONDS = 10.0

_T = TypeVar("_T")

# IReactorTime, IReactorProcess and IReactorThreads: types cannot say that one object is all of them.
Reactor = Any


class EmbeddedPostgres:
    """Runs the server of a state folder's cluster, or waits while another process does.

    The holder of the lock is the owner: it starts the server and starts it again when it dies. Any
    other process finds the owner's server, and becomes the owner when that one ends.
    """

    _log = Logger()

    def __init__(self, *, state_dir: Path, reactor: Reactor, system_dir: Path = SYSTEM_DIR) -> None:
        self._state_dir = state_dir
        self._system_dir = system_dir
        self._reactor = reactor
        self._waiting: list[Deferred[None]] = []
        self._lock: OwnerLock | None = None
        self._child: Postmaster | None = None
        self._sleeping: Deferred[None] | None = None
        self._supervision: Deferred[None] | None = None
        self._stopping = False
        self._accepting = False
        self._reported: set[str] = set()
        self.problem: str | None = None
        """Why the server is not running, where that is known; None while it accepts."""

    @property
    def dsn(self) -> str:
        """How libpq connects; known before the server, or its cluster, exists.

        Makes the state folder where it is missing. Raises EmbeddedPostgresError.
        """
        return locate(self._state_dir, self._system_dir).dsn

    @property
    def owner(self) -> bool:
        """Whether the server is this process' child."""
        return self._child is not None

    def start(self, timeout: float | None = None) -> Deferred[None]:
        """See to it that the server runs, until :meth:`stop`; fires when it accepts connections.

        Fails with EmbeddedPostgresError at once where :func:`problems` finds one, and after
        ``timeout`` seconds, though it is still tried then.
        """
        found = problems(self._state_dir)
        if found:
            return fail(EmbeddedPostgresError("; ".join(found)))
        if self._supervision is None:
            self._stopping = False
            self._supervision = Deferred.fromCoroutine(self._supervise())
            self._supervision.addErrback(self._give_up)
        if self._accepting:
            return succeed(None)
        started: Deferred[None] = Deferred()
        self._waiting.append(started)
        if timeout is not None:
            started.addTimeout(timeout, self._reactor, lambda _, seconds: self._too_late(seconds))
        return started

    def stop(self) -> Deferred[None]:
        """Stop the server if it is ours, fast and clean; fires when nothing of it runs any more."""
        if self._supervision is None:
            return succeed(None)
        self._stopping = True
        if self._sleeping is not None:
            self._sleeping.cancel()
        if self._child is not None:
            self._child.stop()
        stopped: Deferred[None] = Deferred()
        self._supervision.addBoth(self._pass_on_stopped, stopped)
        return stopped

    # --- the life of the server --------------------------------------------------------------

    async def _supervise(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping:
            began = self._reactor.seconds()
            try:
                if not self._is_owner():
                    await self._sleep(_LOCK_POLL_SECONDS)
                    continue
                why = await self._serve()
            except (EmbeddedPostgresError, OSError) as error:
                why = str(error)
            self._accepting = False
            if self._stopping:
                break
            if self._reactor.seconds() - began > _SOUND_AFTER_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            self._report(why)
            await self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _is_owner(self) -> bool:
        """Take the lock; where another process holds it, see whether its server accepts."""
        location = locate(self._state_dir, self._system_dir)
        if self._lock is None:
            self._lock = OwnerLock(location.lock)
        if self._lock.take():
            return True
        if accepting_postmaster(location.data) is not None:
            self._note_accepting()
        else:
            self._accepting = False
            self.problem = "another process is starting the embedded PostgreSQL"
        return False

    async def _serve(self) -> str:
        """Run the server once, as its owner; says why it ended."""
        server = await self._in_thread(lambda: prepare(self._state_dir, self._system_dir))
        if self._stopping:
            return "stopped"
        self._child = child = Postmaster(self._reactor)
        try:
            child.spawn(server)
            await self._until_accepting(child, server)
            why = await child.ended
        finally:
            self._child = None
        if why.startswith("killed"):
            # Its processes see that the postmaster is gone only when they next wait for something.
            await self._in_thread(lambda: end_processes_in(server.location.data))
        return why

    async def _until_accepting(self, child: Postmaster, server: Server) -> None:
        while not (child.has_ended or self._stopping):
            if accepting_postmaster(server.location.data) == child.pid:
                self._log.info(
                    "PostgreSQL {version} serves {cluster}",
                    version=server.binaries.server_version,
                    cluster=str(server.location.cluster),
                )
                self._note_accepting()
                return
            await self._sleep(_READY_POLL_SECONDS)

    # --- what is told --------------------------------------------------------------------------

    def _note_accepting(self) -> None:
        self._accepting = True
        self.problem = None
        self._reported.clear()
        self._tell_waiting(None)

    def _tell_waiting(self, result: Failure | None) -> None:
        waiting, self._waiting = self._waiting, []
        for started in waiting:
            if not started.called:  # else it timed out
                started.callback(result)

    def _report(self, why: str) -> None:
        """Log why it does not run; the same reason once, until it ran again."""
        self.problem = why
        reason = re.sub(r"\d+", "", why)  # numbers of processes and files differ each time
        if reason not in self._reported:
            self._reported.add(reason)
            self._log.warn("the embedded PostgreSQL ended and is started again: {why}", why=why)

    def _too_late(self, seconds: float) -> None:
        raise EmbeddedPostgresError(
            f"the embedded PostgreSQL did not accept connections within {seconds:g} s: "
            f"{self.problem or 'it is still starting'}"
        )

    def _give_up(self, failure: Failure) -> None:
        self._log.failure("the embedded PostgreSQL is no longer supervised", failure)
        self.problem = str(failure.value)
        self._tell_waiting(Failure(EmbeddedPostgresError(f"the embedded PostgreSQL failed: {self.problem}")))

    def _pass_on_stopped(self, _: object, stopped: Deferred[None]) -> None:
        self._supervision = None
        self._accepting = False
        if self._lock is not None:
            self._lock.release()
        self._tell_waiting(Failure(EmbeddedPostgresError("the embedded PostgreSQL was stopped")))
        stopped.callback(None)

    # --- time and threads ----------------------------------------------------------------------

    async def _sleep(self, seconds: float) -> None:
        if self._stopping:
            return
        self._sleeping = deferLater(self._reactor, seconds)
        try:
            await self._sleeping
        except CancelledError:
            if not self._stopping:
                raise
        finally:
            self._sleeping = None

    def _in_thread(self, work: Callable[[], _T]) -> Deferred[_T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
