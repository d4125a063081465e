"""A worker in a process of its own, from its charge to its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import cattrs
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from smsdaemon.metrics import Metrics, count_into, shared_folder
from smsdaemon.worker import Worker
from smsdaemon.worker_channel import (
    DATABASE_READY,
    FIRST_SOCKET,
    ORDERS,
    REPORTS,
    STOP,
    Charge,
    Lines,
    report_line,
)
from smsdaemon.worker_log import sender
from smsdaemon.worker_parts import make_worker
from smsdaemon.worker_sockets import listen

_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 0.05
"""Until it accepts."""
LISTEN_ANYWAY_SECONDS = 2.0
"""A worker that cannot accept leaves peers to the others for so long; then they hear 500 from it."""
_LAST_WORDS_SECONDS = 1.0


def run(charge: Charge, reactor: Any) -> None:
    """Work until the supervisor, or SIGTERM, says stop."""
    count_into(shared_folder(charge.settings.state_dir), charge.number)
    channel = Channel()
    globalLogBeginner.beginLoggingTo(
        [sender(charge.settings.log, channel.log)], discardBuffer=False, redirectStandardIO=False
    )
    worker = make_worker(charge.settings, charge.number, dsn=charge.dsn, metrics=Metrics(), reactor=reactor)
    process = WorkerProcess(charge, worker, channel, reactor)
    pipes: Any = StandardIO  # mypy takes it for the one of Windows
    pipes(channel, ORDERS, REPORTS, reactor=reactor)
    # The reactor would stop at once.
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(process.stop))
    reactor.callWhenRunning(process.start)
    reactor.run(installSignalHandlers=False)
    # Nothing is left to be done, and whatever hangs after all must not keep a successor from its place.
    os._exit(0 if process.stopped else 1)


@implementer(IPushProducer)
class Channel(Protocol):
    """The worker's end of the pipes. What the supervisor does not read in time is dropped, and counted."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._paused = False
        self._dropped = 0
        self.on_order: Callable[[bytes], object] = lambda order: None
        self.gone: Deferred[None] = Deferred()
        """Fires when it is closed, by us or by the supervisor's end."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        for order in self._lines.feed(data):
            self.on_order(order)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.transport = None
        self.gone.callback(None)

    def report(self, kind: str, content: object) -> None:
        """Send it, if there is room."""
        if self.transport is None or self._paused:
            self._dropped += kind == "log"
        else:
            self.transport.write(report_line(kind, content))

    def log(self, told: dict[str, Any]) -> None:
        self.report("log", told)

    def close(self) -> None:
        """After what was said has gone out."""
        if self.transport is not None:
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.transport.loseConnection()

    # --- IPushProducer: when the pipe is full, and when there is room again ---------------------

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.report("dropped", dropped)

    def stopProducing(self) -> None:
        self._paused = True


class WorkerProcess:
    """Runs the worker by the supervisor's orders and tells it how the worker is."""

    def __init__(self, charge: Charge, worker: Worker, channel: Channel, reactor: Any) -> None:
        self._charge, self._worker, self._channel, self._reactor = charge, worker, channel, reactor
        self._log = Logger(namespace="smsdaemon")
        self._ports: list[Any] = []
        self._began = 0.0
        self._stopping: Deferred[None] | None = None
        self.stopped = False
        """Whether it has ended in order."""
        self._beat = LoopingCall(self._report)
        self._looking = LoopingCall(self._look)
        self._beat.clock = self._looking.clock = reactor
        channel.on_order = self._obey
        channel.gone.addCallback(lambda _: reactor.stop())

    def start(self) -> None:
        self._began = self._reactor.seconds()
        self._worker.start()
        for call, seconds in ((self._beat, _BEAT_SECONDS), (self._looking, _LOOK_SECONDS)):
            call.start(seconds).addErrback(self._failed)

    def _obey(self, order: bytes) -> None:
        if order == DATABASE_READY:
            self._worker.database_ready()
        elif order == STOP:
            self.stop()

    def _report(self) -> None:
        self._channel.report("state", cattrs.unstructure(self._worker.state()))

    def _look(self) -> None:
        """Take connections as soon as there is a use in that."""
        accepts = self._worker.accepts
        if accepts or self._reactor.seconds() - self._began > LISTEN_ANYWAY_SECONDS:
            self._listen()
        if accepts:
            self._looking.stop()
            self._report()

    def _listen(self) -> None:
        if self._ports:
            return
        for n, (key, endpoint) in enumerate(self._charge.endpoints):
            factory = self._worker.door.factories[key]
            listening = listen(FIRST_SOCKET + n, endpoint, factory, self._reactor)
            listening.addCallbacks(self._ports.append, self._failed)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("this worker is not as it should be", failure=failure)

    # --- stop ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """In order, once."""
        if self._stopping is None:
            self._stopping = ensureDeferred(self._stop()).addErrback(self._failed).addBoth(self._leave)

    async def _stop(self) -> None:
        if self._looking.running:
            self._looking.stop()
        for port in self._ports:
            port.stopListening()
        await self._worker.stop()

    def _leave(self, _: object) -> None:
        self.stopped = True
        if self._beat.running:
            self._beat.stop()
        self._reactor.callLater(_LAST_WORDS_SECONDS, self._reactor.stop)
        self._channel.close()
