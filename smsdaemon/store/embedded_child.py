"""The running PostgreSQL server as a child process: what it prints, and how it is ended."""

from __future__ import annotations

import os
import re
import shutil
import signal
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.store.embedded_cluster import Server
from smsdaemon.store.embedded_privileges import ENVIRONMENT

_NOTEWORTHY = re.compile(r"^(PANIC|WARNING):|was terminated by signal|No space left")
# Not what a peer is told who connects too early or too late.
_CAUSE = re.compile(r"^(PANIC|FATAL|postgres|setsid): (?! *(the database system is|terminating))")
_RECOVERY_BEGINS = "terminating any other active server processes"
_RECOVERY_ENDS = "ready to accept connections"
_LONGEST_LINE = 2000
_LAST_WORDS_SECONDS = 1.0
_FAST_SHUTDOWN_SECONDS = 20.0
_ABRUPT_SHUTDOWN_SECONDS = 5.0


class Postmaster(ProcessProtocol):
    """One run of the server. ``ended`` fires with why it ended, once its output was read."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._unread = b""
        self._cause = ""
        self._recovering = True  # until it says that it is ready
        self._calls: list[IDelayedCall] = []
        self.has_ended = False
        self.ended: Deferred[str] = Deferred()

    @property
    def pid(self) -> int | None:
        """Its process number while it runs."""
        pid: int | None = getattr(self.transport, "pid", None)
        return pid

    def spawn(self, server: Server) -> None:
        """Start the server. In a session of its own: a Ctrl-C at the terminal is for us to pass on."""
        user = server.location.user
        setsid = shutil.which("setsid", path=ENVIRONMENT["PATH"])
        command = [os.fsencode(word) for word in ([setsid] if setsid else []) + server.command]
        self._reactor.spawnProcess(
            self,
            command[0],
            command,
            env=ENVIRONMENT,
            path="/",
            # Twisted sets that user's own groups too, so that nothing of root's stays.
            uid=user.uid if user.another else None,
            gid=user.gid if user.another else None,
            childFDs={0: "w", 1: "r", 2: "r"},
        )

    def stop(self) -> None:
        """End it: fast, then abruptly (the next start recovers), then by force. See ``ended``."""
        # PostgreSQL 18.6 never ends when the fast request comes while it recovers, at its start or
        # after one of its processes was killed (ADR 3); abruptly loses nothing: it recovers again.
        self._signal(signal.SIGQUIT if self._recovering else signal.SIGINT)
        self._later(_FAST_SHUTDOWN_SECONDS, self._signal, signal.SIGQUIT)
        self._later(_FAST_SHUTDOWN_SECONDS + _ABRUPT_SHUTDOWN_SECONDS, self._signal, signal.SIGKILL)

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.errReceived(data)

    def errReceived(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        self._unread = self._unread[:_LONGEST_LINE]
        for line in lines:
            self._note(line.decode("utf-8", "replace").strip())

    def processExited(self, reason: Failure) -> None:
        # A server process that outlives a killed postmaster would keep its output open.
        assert self.transport is not None
        self._later(_LAST_WORDS_SECONDS, self.transport.loseConnection)

    def processEnded(self, reason: Failure) -> None:
        for call in self._calls:
            if call.active():
                call.cancel()
        self.errReceived(b"\n")
        self.has_ended = True
        signal_number = getattr(reason.value, "signal", None)
        if signal_number is not None:
            self.ended.callback(f"killed by {signal.Signals(signal_number).name}")
        else:
            status = getattr(reason.value, "exitCode", None)
            self.ended.callback(self._cause or f"exit status {status}")

    def _note(self, line: str) -> None:
        if not line:
            return
        if _RECOVERY_BEGINS in line:
            self._recovering = True
        elif _RECOVERY_ENDS in line:
            self._recovering = False
        if _CAUSE.match(line):
            self._cause = line
        if _NOTEWORTHY.search(line):
            self._log.warn("PostgreSQL: {line}", line=line)
        else:
            self._log.debug("PostgreSQL: {line}", line=line)

    def _signal(self, signal_number: int) -> None:
        assert self.transport is not None
        try:
            self.transport.signalProcess(signal_number)
        except ProcessExitedAlready:
            return

    def _later(self, seconds: float, what: object, *arguments: object) -> None:
        self._calls.append(self._reactor.callLater(seconds, what, *arguments))
