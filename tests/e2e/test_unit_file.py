"""etc/smsdaemon.service, played as systemd would: start, stop and restart with what stands in it."""

from __future__ import annotations

import configparser
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from smsdaemon.settings import Settings
from tests.support.daemon import BINARIES, LISTENERS, Daemon, acd_group, client, connector, reseller
from tests.support.installing import CHECKOUT
from tests.support.processes import PATIENCE_SECONDS, ProcessTest
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER

INSTALLED = "/opt/smsdaemon/bin/"
CONFIG = "/etc/smsdaemon/smsdaemon.toml"


class Unit:
    """The service file, as far as it says how the process is run."""

    def __init__(self, path: Path) -> None:
        parser = configparser.ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#")
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(path.read_text(encoding="utf-8"))
        self.service = parser["Service"]

    def command(self, config: Path) -> list[str]:
        """ExecStart with this environment's programs and another settings file."""
        program, *arguments = shlex.split(self.service["ExecStart"])
        name = program.removeprefix(INSTALLED)
        return [str(BINARIES / name), *(str(config) if word == CONFIG else word for word in arguments)]

    @property
    def kill_signal(self) -> signal.Signals:
        return signal.Signals[self.service["KillSignal"]]

    def is_success(self, status: int) -> bool:
        """Whether systemd takes this end for a clean one; by default also that by SIGTERM."""
        return status == 0 or (status < 0 and signal.Signals(-status).name in self.successes())

    def successes(self) -> list[str]:
        return self.service["SuccessExitStatus"].split()


class UnderSystemd(Daemon):
    """Run by the unit's own commands; what it tells systemd is heard."""

    def __init__(self, unit: Unit) -> None:
        super().__init__(listeners=LISTENERS)
        self.unit = unit
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(self.folder / "notify"))
        self.notifications.settimeout(PATIENCE_SECONDS)

    def spawn(self) -> None:
        self._logs.append(self.folder / f"unit-{len(self._logs)}.log")
        self.state_dir.mkdir(mode=int(self.unit.service["StateDirectoryMode"], 8), exist_ok=True)
        with open(self._logs[-1], "wb") as log:
            self._process = subprocess.Popen(
                self.unit.command(self.config),
                cwd=self.state_dir,
                env={
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
                    "LANG": "C.UTF-8",
                    "NOTIFY_SOCKET": str(self.folder / "notify"),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=int(self.unit.service["UMask"], 8),
                start_new_session=True,
            )

    def heard(self) -> Iterator[str]:
        """What it tells systemd, as it comes."""
        while True:
            yield from self.notifications.recv(4096).decode().splitlines()

    def start(self) -> None:
        """As `systemctl start`: comes back when the unit is up."""
        self.spawn()
        self.await_notification("READY=1")

    def stop(self) -> int:
        """As `systemctl stop`; how it ended, within the unit's time."""
        self.signal(self.unit.kill_signal)
        self.await_notification("STOPPING=1")
        assert self._process is not None
        return self._process.wait(float(self.unit.service["TimeoutStopSec"]))

    def await_notification(self, wanted: str) -> None:
        for said in self.heard():
            if said == wanted:
                return

    def remove(self) -> None:
        super().remove()
        self.notifications.close()


class UnitFileTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.unit = Unit(CHECKOUT / "etc" / "smsdaemon.service")

    def running(self) -> UnderSystemd:
        """A unit that was started, with a connector."""
        made = UnderSystemd(self.unit)
        self.addCleanup(made.remove)
        made.start()
        made.apply(
            reseller() + client() + acd_group("group", "log:") + connector(RECEIVER, acd_group="group")
        )
        return made

    def test_it_is_ready_when_it_says_so_to_systemd(self) -> None:
        running = self.running()
        self.assertEqual(self.unit.service["Type"], "notify")
        self.assertEqual(
            running.peer().get(receiver=RECEIVER, sender=SENDER, message=TEXT_MARKER).status, 200
        )

    def test_stop_ends_it_and_its_postgresql_in_time_and_is_a_success(self) -> None:
        running = self.running()
        self.assertNotEqual(running.postgres_processes(), set())
        began = time.monotonic()
        status = running.stop()
        self.assertTrue(self.unit.is_success(status), status)
        self.assertLess(time.monotonic() - began, float(self.unit.service["TimeoutStopSec"]))
        self.assertEqual(running.postgres_processes(), set())
        self.assertRaises(ProcessLookupError, os.killpg, running.pid, 0)

    def test_after_a_restart_everything_is_still_there(self) -> None:
        running = self.running()
        texts = [f"{TEXT_MARKER} {n}" for n in range(3)]
        for text in texts:
            self.assertEqual(running.peer().get(receiver=RECEIVER, sender=SENDER, message=text).status, 200)
        before = running.ask("SELECT id, text FROM message ORDER BY id")
        self.assertEqual([text for _, text in before], texts)
        self.assertTrue(self.unit.is_success(running.stop()))
        running.start()
        self.assertEqual(running.ask("SELECT id, text FROM message ORDER BY id"), before)
        self.assertEqual(
            running.peer().get(receiver=RECEIVER, sender=SENDER, message=TEXT_MARKER).status, 200
        )

    def test_a_second_stop_while_it_stops_shows_no_traceback(self) -> None:
        running = self.running()
        running.signal(self.unit.kill_signal)
        running.await_notification("STOPPING=1")
        running.signal(self.unit.kill_signal)
        self.assertTrue(self.unit.is_success(running.status()))
        self.assertNotIn("Traceback", running.log())

    def test_time_to_stop_is_enough_for_the_default_shutdown(self) -> None:
        shutdown_seconds = Settings(state_dir=Path("/")).shutdown_seconds
        self.assertGreater(float(self.unit.service["TimeoutStopSec"]), shutdown_seconds + 30)
