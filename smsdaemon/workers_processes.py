"""The supervisor of several workers: starts them, starts again what dies, and ends them in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.doors import HTTP, HTTPS, utc_now
from smsdaemon.errors import ConfigurationError
from smsdaemon.listening import Listening
from smsdaemon.metrics import make_shared_folder, shared_folder
from smsdaemon.statedir import DaemonLock
from smsdaemon.worker_channel import DATABASE_READY, STOP, Charge
from smsdaemon.worker_state import LiveWorker
from smsdaemon.workers_child import WorkerChild

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
"""Before a worker that died is started again; doubled each time."""
SOUND_AFTER_SECONDS = 60.0
"""Who lived as long as this is started again after the first pause."""
HOPELESS_DEATHS, HOPELESS_SECONDS = 10, 60.0
"""So many deaths within that time, and nobody who is ready: this is no accident."""
STALLED_SECONDS = 5.0
STARTING_SECONDS = 30.0
"""How long a worker that starts may be silent."""
LOOK_SECONDS = 1.0
KILLED_AFTER_SHUTDOWN_SECONDS = 5.0
ENDLESS_SECONDS = 60.0
"""A worker that is silent for so long, or for a lease if that is more, is killed."""


@define(eq=False)
class _Place:
    """What stays when a worker dies and its successor comes."""

    number: int
    since: datetime
    child: WorkerChild | None = None
    began: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS
    restarts: int = 0
    stalled: bool = False
    waiting: Any = None
    """The call that starts it again."""


class _NotOurs(Factory):
    """Stands where a port wants a factory; the connections are the workers'."""

    noisy = False


class WorkerProcesses:
    """Implements workers.Crew."""

    def __init__(
        self,
        *,
        count: int,
        charge: Charge,
        lock: DaemonLock,
        on_restart: Callable[[], object],
        reactor: Any,
    ) -> None:
        """``charge``: that of every worker, but for number and endpoints."""
        self._charge, self._lock, self._reactor = charge, lock, reactor
        self._on_restart = on_restart
        self._on_hopeless: Callable[[str], object] = lambda why: None
        self._log = Logger(namespace="smsdaemon.workers")
        self.factories: Mapping[str, IProtocolFactory] = {HTTP: _NotOurs(), HTTPS: _NotOurs()}
        self._sockets: list[int] = []
        self._places = [_Place(number=n, since=utc_now()) for n in range(1, count + 1)]
        self._deaths: deque[float] = deque(maxlen=HOPELESS_DEATHS)
        self._database_ready = self._stopping = False
        self._looked_at = 0.0
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def bound(self, public: Listening) -> None:
        endpoints = []
        for opening, port in public.ports:
            if opening.key not in self.factories:
                continue
            if not hasattr(port, "stopReading") or not hasattr(port, "fileno"):
                problem = f'{opening.key}: "{opening.endpoint}" cannot be shared by several workers'
                raise ConfigurationError([problem])
            # It stays open here, so that what waits in its queue is not lost with a worker.
            port.stopReading()
            self._sockets.append(port.fileno())
            endpoints.append((opening.key, opening.endpoint))
        self._charge = evolve(self._charge, endpoints=tuple(endpoints))

    def workers(self) -> Sequence[LiveWorker]:
        now = self._reactor.seconds()
        return [
            LiveWorker(
                number=place.number,
                pid=None if place.child is None else place.child.pid,
                since=place.since,
                restarts=place.restarts,
                silent_seconds=0.0 if place.child is None else now - place.child.heard_at,
                stalled=place.stalled,
                state=None if place.child is None else place.child.state,
            )
            for place in self._places
        ]

    # --- start --------------------------------------------------------------------------------

    def start(self, on_hopeless: Callable[[str], object]) -> None:
        self._on_hopeless = on_hopeless
        folder = shared_folder(self._charge.settings.state_dir)
        try:
            make_shared_folder(folder)
        except OSError as error:
            self._on_hopeless(f"cannot make {folder}: {error.strerror}")
            return
        for place in self._places:
            self._spawn(place)
        self._looked_at = self._reactor.seconds()
        self._looking.start(LOOK_SECONDS, now=False).addErrback(self._failed)

    def database_ready(self) -> None:
        self._database_ready = True
        for place in self._places:
            if place.child is not None:
                place.child.tell(DATABASE_READY)

    def _spawn(self, place: _Place) -> None:
        place.waiting, place.stalled = None, False
        place.since, place.began = utc_now(), self._reactor.seconds()
        charge = evolve(self._charge, number=place.number, supervisor=os.getpid())
        place.child = child = WorkerChild(charge, self._reactor, self._heard)
        child.ended.addCallback(self._ended, place).addErrback(self._failed)
        try:
            child.spawn(self._reactor, lock=self._lock.descriptor, sockets=self._sockets)
        except OSError as error:  # no more processes, or no more memory
            child.ended.callback((error.strerror or type(error).__name__, False))
            return
        if self._database_ready:
            child.tell(DATABASE_READY)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the workers are not looked after as they should be", failure=failure)

    # --- what becomes of them -----------------------------------------------------------------

    def _heard(self) -> None:
        if any(worker.accepts for worker in self.workers()):
            self._deaths.clear()

    def _ended(self, how: tuple[str, bool], place: _Place) -> None:
        why, in_order = how
        pid = None if place.child is None else place.child.pid
        place.child = None
        if self._stopping:
            if not in_order:
                self._log.warn("worker {worker}: {why}", worker=place.number, why=why)
            return
        now = self._reactor.seconds()
        if now - place.began > SOUND_AFTER_SECONDS:
            place.pause = FIRST_PAUSE_SECONDS
        say = self._log.info if in_order else self._log.error
        say(
            "worker {worker} (process {pid}) ended, {why}; it is started again in {pause:g} s",
            worker=place.number,
            pid=pid,
            why=why,
            pause=place.pause,
        )
        self._deaths.append(now)
        if len(self._deaths) == HOPELESS_DEATHS and now - self._deaths[0] <= HOPELESS_SECONDS:
            self._on_hopeless(
                f"workers died {HOPELESS_DEATHS} times within {HOPELESS_SECONDS:g} s, the last: {why}, "
                "and none was ready in that time"
            )
            return
        place.restarts += 1
        self._on_restart()
        place.waiting = self._reactor.callLater(place.pause, self._spawn, place)
        place.pause = min(place.pause * 2, LONGEST_PAUSE_SECONDS)

    def _look(self) -> None:
        now = self._reactor.seconds()
        slept = now - self._looked_at > 2 * LOOK_SECONDS
        self._looked_at = now
        for place in self._places:
            if place.child is not None:
                if slept:  # it is ourselves who did not listen
                    place.child.heard_at = now
                self._look_at(place, place.child, now - place.child.heard_at)

    def _look_at(self, place: _Place, child: WorkerChild, silent: float) -> None:
        enough = STALLED_SECONDS if child.state is not None else STARTING_SECONDS
        if silent > max(ENDLESS_SECONDS, self._charge.settings.routing.lease):
            self._log.error(
                "worker {worker} (process {pid}) is killed: it was silent for {seconds:.0f} s",
                worker=place.number,
                pid=child.pid,
                seconds=silent,
            )
            child.kill()
        elif silent > enough and not place.stalled:
            place.stalled = True
            self._log.error(
                "worker {worker} (process {pid}) is stalled: silent for {seconds:.0f} s",
                worker=place.number,
                pid=child.pid,
                seconds=silent,
            )
        elif silent <= enough and place.stalled:
            place.stalled = False
            self._log.info("worker {worker} answers again", worker=place.number)

    # --- stop ---------------------------------------------------------------------------------

    def wind_down(self) -> None:
        """Each of them does so when it is told to stop."""

    def stop(self) -> Deferred[None]:
        self._stopping = True
        if self._looking.running:
            self._looking.stop()
        ends = []
        for place in self._places:
            if place.waiting is not None:
                place.waiting.cancel()
                place.waiting = None
            if place.child is not None:
                ends.append(place.child.ended)
                self._end(place.child)
        patience = self._charge.settings.shutdown_seconds + KILLED_AFTER_SHUTDOWN_SECONDS
        late = self._reactor.callLater(patience, self._kill_all, patience)

        def ended(_: object) -> None:
            if late.active():
                late.cancel()

        return DeferredList(ends).addCallback(ended)

    def _end(self, child: WorkerChild) -> None:
        if child.state is None:  # it has not begun, and may be deaf to orders for a while
            child.quiet = True
            child.kill()
        else:
            child.tell(STOP)

    def _kill_all(self, seconds: float) -> None:
        for place in self._places:
            if place.child is not None:
                self._log.error(
                    "worker {worker} has not stopped within {seconds:g} s and is killed",
                    worker=place.number,
                    seconds=seconds,
                )
                place.child.kill()
