"""Does what the plan says goes wrong, and undoes it."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.chaos import kinds
from tests.chaos.disk import Disk
from tests.chaos.faketime import Clock
from tests.chaos.history import History
from tests.chaos.plan import PlannedFault
from tests.chaos.postgres import PostgresUnderFire
from tests.chaos.processes import Daemon, send
from tests.chaos.proxy import Proxy

START_SECONDS = 30.0
"""For the daemon to be ready; PostgreSQL may be away for a third of it."""
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05
_CUT_PATIENCE_SECONDS = 20.0
"""For a commit to be cut: the daemon may just be starting, after PostgreSQL did."""
_STEP_SECONDS = 3600
_CLOCK_HEARD_SECONDS = 1.2


@frozen(kw_only=True)
class World:
    """What can be hurt."""

    reactor: Any
    daemon: Daemon
    postgres: PostgresUnderFire
    proxy: Proxy
    disk: Disk
    clock: Clock
    history: History
    workers: int


class Adversary:
    """Runs the lanes of faults side by side."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.too_late: list[str] = []
        """What did not recover in time."""

    async def run(self, lanes: Sequence[Sequence[PlannedFault]]) -> None:
        """All of them; every one is undone when this comes back."""
        began = self._world.reactor.seconds()
        await gatherResults([Deferred.fromCoroutine(self._lane(lane, began)) for lane in lanes])

    async def _lane(self, planned: Sequence[PlannedFault], began: float) -> None:
        for fault in planned:
            await self._pause(max(0.0, began + fault.at - self._world.reactor.seconds()))
            number = self._world.history.begin("fault", kind=fault.kind)
            happened = await self._DEEDS[fault.kind](self, fault)
            self._world.history.end(number, happened=happened is not False)

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._world.reactor, seconds)

    async def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        ends = self._world.reactor.seconds() + seconds
        while not condition():
            if self._world.reactor.seconds() > ends:
                self.too_late.append(f"{what} took more than {seconds:g} s")
                return
            await self._pause(_POLL_SECONDS)

    # --- PostgreSQL ---------------------------------------------------------------------------

    async def _kill_postgres(self, fault: PlannedFault) -> None:
        await deferToThread(self._world.postgres.kill)
        await self._pause(fault.seconds)
        await deferToThread(self._world.postgres.start)

    async def _stop_postgres(self, fault: PlannedFault) -> None:
        await deferToThread(self._world.postgres.stop_at_once)
        await self._pause(fault.seconds)
        await deferToThread(self._world.postgres.start)

    async def _freeze_postgres(self, fault: PlannedFault) -> None:
        self._world.postgres.freeze()
        await self._pause(fault.seconds)
        self._world.postgres.thaw()

    async def _cut_commits(self, fault: PlannedFault) -> bool:
        happened = False
        for _ in range(1 + fault.variant % 3):
            cut = self._world.proxy.cut_next_commit()
            cut.addTimeout(_CUT_PATIENCE_SECONDS, self._world.reactor)
            try:
                await cut
            except TimeoutError:
                return happened
            happened = True
        return happened

    async def _silence_database(self, fault: PlannedFault) -> None:
        self._world.proxy.silence()
        await self._pause(fault.seconds)
        if fault.variant % 2:
            self._world.proxy.cut_all()
        self._world.proxy.speak()

    async def _refuse_database(self, fault: PlannedFault) -> None:
        await self._world.proxy.refuse()
        await self._pause(fault.seconds)
        self._world.proxy.listen()

    # --- the daemon ---------------------------------------------------------------------------

    async def _kill_worker(self, fault: PlannedFault) -> None:
        daemon = self._world.daemon
        workers = daemon.workers()
        victim = workers[fault.variant % len(workers)]
        if victim == daemon.pid:
            await self._kill_daemon(fault)
            return
        send(signal.SIGKILL, [victim])
        await self._until(
            lambda: len(set(daemon.workers()) - {victim}) == self._world.workers,
            START_SECONDS,
            "replacing a worker",
        )
        await self._pause(1.0)  # for it to listen

    async def _kill_supervisor(self, fault: PlannedFault) -> None:
        """Its workers are left alone, and end by themselves."""
        await self._kill(self._world.daemon.processes()[:1], fault)

    async def _kill_daemon(self, fault: PlannedFault) -> None:
        await self._kill(self._world.daemon.processes(), fault)

    async def _kill(self, pids: Sequence[int], fault: PlannedFault) -> None:
        ended = self._world.daemon.expect_its_end()
        send(signal.SIGKILL, pids)
        await ended
        await self._pause(fault.seconds)
        await self._start_daemon()

    async def _restart_daemon(self, fault: PlannedFault) -> None:
        ended = self._world.daemon.expect_its_end()
        pids = self._world.daemon.processes()
        send(signal.SIGTERM, pids[:1])
        await self._until(lambda: bool(ended.called), _STOP_SECONDS, "stopping the daemon")
        send(signal.SIGKILL, pids if not ended.called else [])
        await ended
        await self._pause(fault.seconds)
        await self._start_daemon()

    async def _start_daemon(self) -> None:
        daemon = self._world.daemon
        daemon.start()
        await self._until(lambda: daemon.is_ready or not daemon.runs, START_SECONDS, "starting the daemon")
        if not daemon.runs:
            await self._pause(1.0)
            await self._start_daemon()

    async def _freeze_worker(self, fault: PlannedFault) -> None:
        workers = self._world.daemon.workers()
        await self._freeze(workers[fault.variant % len(workers)], fault.seconds)

    async def _freeze_supervisor(self, fault: PlannedFault) -> None:
        await self._freeze(self._world.daemon.pid, fault.seconds)

    async def _freeze(self, pid: int, seconds: float) -> None:
        send(signal.SIGSTOP, [pid])
        await self._pause(seconds)
        send(signal.SIGCONT, [pid])

    # --- the machine --------------------------------------------------------------------------

    async def _fill_disk(self, fault: PlannedFault) -> None:
        self._world.disk.fill()
        await self._pause(fault.seconds)
        self._world.disk.clear()

    async def _step_forward(self, fault: PlannedFault) -> bool:
        return await self._step(_STEP_SECONDS, fault.seconds)

    async def _step_back(self, fault: PlannedFault) -> bool:
        return await self._step(-_STEP_SECONDS, fault.seconds)

    async def _step(self, by: int, seconds: float) -> bool:
        self._world.clock.set(by)
        await self._pause(seconds + _CLOCK_HEARD_SECONDS)
        self._world.clock.set(0)
        await self._pause(_CLOCK_HEARD_SECONDS)
        return self._world.clock.can_step

    _DEEDS: Mapping[str, Callable[[Adversary, PlannedFault], Awaitable[bool | None]]] = {
        kinds.POSTGRES_KILLED: _kill_postgres,
        kinds.POSTGRES_STOPPED: _stop_postgres,
        kinds.POSTGRES_FROZEN: _freeze_postgres,
        kinds.COMMIT_CUT: _cut_commits,
        kinds.DATABASE_SILENT: _silence_database,
        kinds.DATABASE_REFUSED: _refuse_database,
        kinds.WORKER_KILLED: _kill_worker,
        kinds.SUPERVISOR_KILLED: _kill_supervisor,
        kinds.DAEMON_KILLED: _kill_daemon,
        kinds.DAEMON_RESTARTED: _restart_daemon,
        kinds.WORKER_FROZEN: _freeze_worker,
        kinds.SUPERVISOR_FROZEN: _freeze_supervisor,
        kinds.DISK_FULL: _fill_disk,
        kinds.CLOCK_FORWARD: _step_forward,
        kinds.CLOCK_BACK: _step_back,
    }
