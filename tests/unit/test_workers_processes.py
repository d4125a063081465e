"""The supervisor's decisions: whom it starts again and when, whom it kills, and when it gives up."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smsdaemon.metrics import shared_folder
from smsdaemon.settings import Settings
from smsdaemon.statedir import DaemonLock
from smsdaemon.worker_channel import ORDERS, REPORTS, Charge, charge_bytes, report_line
from smsdaemon.workers_processes import (
    HOPELESS_DEATHS,
    KILLED_AFTER_SHUTDOWN_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SOUND_AFTER_SECONDS,
    STALLED_SECONDS,
    WorkerProcesses,
)
from tests.support.cases import UnitTest

READY: dict[str, object] = {
    "accepts": True,
    "database": True,
    "directory": True,
    "journal": None,
    "breakers": 0,
}
LEASE_SECONDS = 60.0


class Spawned:
    """A process that does only what a test has it do; the transport of its protocol."""

    def __init__(self, protocol: ProcessProtocol, pid: int) -> None:
        self.protocol, self.pid = protocol, pid
        self.heard = b""
        self.killed = False
        protocol.makeConnection(self)

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert descriptor == ORDERS
        self.heard += data

    def signalProcess(self, name: str) -> None:
        assert name == "KILL"
        self.killed = True

    def report(self, **state: object) -> None:
        self.protocol.childDataReceived(REPORTS, report_line("state", {**READY, **state}))

    def die(self, signal: int | None = 9) -> None:
        why = ProcessDone(0) if signal is None else ProcessTerminated(signal=signal)
        self.protocol.processEnded(Failure(why))


class ProcessTable(Clock):
    """The part of a reactor that starts processes, and keeps time."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[Spawned] = []

    def spawnProcess(self, protocol: ProcessProtocol, *_: object, **__: object) -> None:
        self.spawned.append(Spawned(protocol, 100 + len(self.spawned)))


class SupervisionTests(UnitTest):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.settings = Settings(state_dir=Path(scratch.name), shutdown_seconds=7.0)
        self.table = ProcessTable()
        self.restarts = 0
        self.hopeless: list[str] = []

    def crew(self, count: int = 2) -> WorkerProcesses:
        lock = DaemonLock(self.settings.state_dir)
        lock.acquire()
        self.addCleanup(lock.release)
        self.charge = Charge(number=0, supervisor=0, settings=self.settings, dsn="", endpoints=())
        crew = WorkerProcesses(
            count=count, charge=self.charge, lock=lock, on_restart=self.restarted, reactor=self.table
        )
        crew.start(self.hopeless.append)
        return crew

    def restarted(self) -> None:
        self.restarts += 1

    def pass_time(self, seconds: float, *alive: Spawned) -> None:
        """Second by second, in which these workers are heard."""
        for _ in range(int(seconds)):
            self.table.advance(1)
            for process in alive:
                process.report()

    def test_each_is_started_with_its_charge_and_told_of_the_database_once(self) -> None:
        crew = self.crew()
        crew.database_ready()
        for process in self.table.spawned:
            self.assertTrue(process.heard.endswith(b"database\n"))
            self.assertEqual(process.heard.count(b"database\n"), 1)
        self.table.spawned[0].die()
        self.table.advance(0.1)
        self.assertEqual(self.table.spawned[2].heard.count(b"database\n"), 1)

    def test_one_that_dies_is_started_again_with_growing_pauses(self) -> None:
        self.crew(1)
        pauses = []
        for _ in range(9):
            self.table.spawned[-1].report()  # else there would soon be no hope
            before, began = len(self.table.spawned), self.table.seconds()
            self.table.spawned[-1].die()
            while len(self.table.spawned) == before:
                self.table.advance(1 / 64)
            pauses.append(self.table.seconds() - began)
        for pause, expected in zip(pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5], strict=True):
            self.assertApproximates(pause, expected, 1 / 32)
        self.assertEqual(self.restarts, 9)

    def test_one_that_lived_for_a_while_is_started_again_at_once(self) -> None:
        self.crew(1)
        for _ in range(4):
            self.table.spawned[-1].report()
            self.table.spawned[-1].die()
            self.table.advance(LONGEST_PAUSE_SECONDS)
        sound = self.table.spawned[-1]
        self.pass_time(SOUND_AFTER_SECONDS + 1, sound)
        sound.die()
        self.table.advance(0.1)
        self.assertIsNot(self.table.spawned[-1], sound)

    def test_deaths_before_anybody_was_ready_are_hopeless_in_the_end(self) -> None:
        self.crew(2)
        for _ in range(HOPELESS_DEATHS):
            self.assertEqual(self.hopeless, [])
            self.table.spawned[-1].die()
            self.table.advance(LONGEST_PAUSE_SECONDS)
        [why] = self.hopeless
        self.assertIn("10 times within 60 s, the last: killed by SIGKILL", why)

    def test_while_another_is_ready_there_is_hope(self) -> None:
        crew = self.crew(2)
        other = self.table.spawned[1]
        other.report()
        self.table.spawned[0].die()
        for _ in range(3 * HOPELESS_DEATHS):
            self.pass_time(LONGEST_PAUSE_SECONDS, other)
            self.table.spawned[-1].die()
        self.assertEqual(self.hopeless, [])
        self.assertEqual([worker.accepts for worker in crew.workers()], [False, True])

    def test_slow_deaths_are_no_reason_to_give_up(self) -> None:
        self.crew(1)
        for _ in range(2 * HOPELESS_DEATHS):
            self.pass_time(8)
            self.table.spawned[-1].die()
        self.assertEqual(self.hopeless, [])

    def test_one_that_is_silent_is_not_ready_and_killed_in_the_end(self) -> None:
        crew = self.crew(2)
        hanging, other = self.table.spawned
        hanging.report()
        other.report()
        self.pass_time(STALLED_SECONDS, other)
        self.assertEqual([worker.stalled for worker in crew.workers()], [False, False])
        self.pass_time(1, other)
        [worker, _] = crew.workers()
        self.assertEqual((worker.stalled, worker.accepts), (True, False))
        self.pass_time(LEASE_SECONDS - STALLED_SECONDS - 1, other)
        self.assertFalse(hanging.killed)
        self.pass_time(1, other)
        self.assertTrue(hanging.killed)
        hanging.die()
        self.table.advance(0.1)
        self.assertEqual(len(self.table.spawned), 3)
        self.assertFalse(other.killed)

    def test_one_that_is_heard_again_is_ready_again(self) -> None:
        crew = self.crew(1)
        [process] = self.table.spawned
        process.report()
        self.pass_time(STALLED_SECONDS + 2)
        self.assertTrue(crew.workers()[0].stalled)
        process.report()
        self.pass_time(1, process)
        self.assertTrue(crew.workers()[0].accepts)

    def test_its_own_sleep_is_not_held_against_the_workers(self) -> None:
        crew = self.crew(1)
        [process] = self.table.spawned
        process.report()
        self.table.advance(1000)
        self.assertEqual((crew.workers()[0].stalled, process.killed), (False, False))

    def test_at_the_end_each_is_told_and_killed_only_if_it_takes_too_long(self) -> None:
        crew = self.crew(3)
        quick, slow, starting = self.table.spawned
        quick.report()
        slow.report()
        stopped = crew.stop()
        self.assertEqual([p.heard.endswith(b"stop\n") for p in self.table.spawned], [True, True, False])
        self.assertEqual([p.killed for p in self.table.spawned], [False, False, True])
        starting.die()
        quick.die(None)
        self.table.advance(self.settings.shutdown_seconds + KILLED_AFTER_SHUTDOWN_SECONDS - 0.1)
        self.assertFalse(slow.killed)
        self.assertNoResult(stopped)
        self.table.advance(0.1)
        self.assertTrue(slow.killed)
        slow.die()
        self.successResultOf(stopped)
        self.assertEqual((self.restarts, len(self.table.spawned)), (0, 3))

    def test_one_that_is_about_to_be_started_again_is_not_when_the_end_comes_first(self) -> None:
        crew = self.crew(1)
        self.table.spawned[0].die()
        self.successResultOf(crew.stop())
        self.table.advance(LONGEST_PAUSE_SECONDS)
        self.assertEqual(len(self.table.spawned), 1)

    def test_what_a_daemon_before_has_counted_is_forgotten(self) -> None:
        folder = shared_folder(self.settings.state_dir)
        folder.mkdir()
        (folder / "counter_1.db").write_bytes(b"old")
        self.crew()
        self.assertEqual(list(folder.iterdir()), [])

    def test_a_charge_shows_no_dsn(self) -> None:
        charge = Charge(number=1, supervisor=2, settings=self.settings, dsn="password=x", endpoints=())
        self.assertNotIn("password", repr(charge))
        self.assertIn(b"password", charge_bytes(charge))
