"""What lies in the state folder: the lock that lets one daemon run, and what it tells of itself."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smsdaemon.errors import ConfigurationError
from smsdaemon.statedir import DaemonLock, process_lives
from smsdaemon.status_file import FRESH_SECONDS, StatusFile
from tests.support.cases import UnitTest

ENDS_SOON = "import sys, time; print(flush=True); time.sleep(float(sys.argv[1]))"


class FolderTest(UnitTest):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def dead_pid(self) -> int:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        return process.pid


class LockTests(FolderTest):
    def held_by_another(self, pid: int, seconds: float) -> None:
        """As if workers of the daemon with that process id still had its lock."""
        path = self.folder / "daemon.lock"
        path.write_text(f"{pid}\n")
        with open(path) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            descriptor = held.fileno()
            worker = subprocess.Popen(
                [sys.executable, "-c", ENDS_SOON, str(seconds)], pass_fds=[descriptor], stdout=subprocess.PIPE
            )
        self.addCleanup(worker.wait)
        self.addCleanup(worker.kill)
        assert worker.stdout is not None
        self.addCleanup(worker.stdout.close)
        worker.stdout.readline()

    def test_the_workers_of_a_dead_daemon_are_waited_for(self) -> None:
        self.held_by_another(self.dead_pid(), 0.3)
        lock = DaemonLock(self.folder)
        lock.acquire()
        self.assertEqual((self.folder / "daemon.lock").read_text(), f"{os.getpid()}\n")
        lock.release()

    def test_a_living_daemon_is_a_reason_to_refuse_at_once(self) -> None:
        self.held_by_another(os.getpid(), 30)
        began = time.monotonic()
        error = self.assertRaises(ConfigurationError, DaemonLock(self.folder).acquire)
        self.assertLess(time.monotonic() - began, 1)
        self.assertIn(f"another smsdaemon (process {os.getpid()}) runs", str(error))

    def test_it_is_free_again_after_its_release(self) -> None:
        for _ in range(2):
            lock = DaemonLock(self.folder)
            lock.acquire()
            lock.release()


class StatusTests(FolderTest):
    def test_nothing_is_told_where_no_daemon_runs(self) -> None:
        status = StatusFile(self.folder)
        self.assertIsNone(status.read())
        status.write({"accepts": True})
        status.remove()
        self.assertIsNone(status.read())
        for rubbish in ("", "{", "[]", "{}", '{"pid": "x", "written_at": 1}'):
            (self.folder / "status.json").write_text(rubbish)
            self.assertIsNone(status.read(), rubbish)

    def test_what_a_dead_daemon_left_is_not_believed(self) -> None:
        status = StatusFile(self.folder)
        status.write({"accepts": True})
        self.change(pid=self.dead_pid())
        self.assertIsNone(status.read())

    def test_a_living_one_is_fresh_unless_it_hangs(self) -> None:
        status = StatusFile(self.folder)
        status.write({"accepts": True})
        told = status.read() or {}
        self.assertEqual((told["accepts"], told["pid"], told["fresh"]), (True, os.getpid(), True))
        self.change(written_at=time.time() - FRESH_SECONDS - 1)
        self.assertFalse((status.read() or {})["fresh"])

    def change(self, **keys: object) -> None:
        path = self.folder / "status.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    def test_others_may_not_read_it(self) -> None:
        StatusFile(self.folder).write({})
        self.assertEqual((self.folder / "status.json").stat().st_mode & 0o777, 0o600)

    def test_a_process_that_has_ended_does_not_live_though_nobody_has_asked_for_its_status(self) -> None:
        ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
        assert ended.stdout is not None
        ended.stdout.read()
        while process_lives(ended.pid):
            time.sleep(0.01)
        ended.wait()
        ended.stdout.close()
        self.assertTrue(process_lives(os.getpid()))
