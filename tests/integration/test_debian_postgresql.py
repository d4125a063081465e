"""The store's own tests once more, on each PostgreSQL of Debian that this machine has (15 and up).

They run in a trial of their own, which is told of the server; here one test stands for each server.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

from tests.support.cases import UnitTest
from tests.support.postgres import reachable_folder

_SERVERS = [
    folder
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if folder.parent.name.isdigit() and int(folder.parent.name) >= 15 and (folder / "initdb").exists()
]
_MODULES = [
    f"tests.integration.test_{name}" for name in ("store", "migrate", "apply", "directory_snapshot", "pool")
]


class DebianPostgresqlTests(UnitTest):
    """Its tests are made below: none where Debian's PostgreSQL is not installed."""

    def check(self, binaries: Path) -> None:
        folder = reachable_folder(self)
        as_user = self.unprivileged(folder)
        data = folder / "server" / "data"
        self.run_in_server([binaries / "initdb", "-D", data, "-U", "smsdaemon", "-E", "UTF8"], as_user)
        options = f"-k {data.parent} -c listen_addresses= -c fsync=off"
        control: list[Path | str] = [binaries / "pg_ctl", "-D", data, "-l", data.parent / "log", "-w"]
        self.run_in_server([*control, "-o", options, "start"], as_user)
        self.addCleanup(self.run_in_server, [*control, "-m", "immediate", "stop"], as_user)
        environment = {
            **os.environ,
            "SMSDAEMON_TEST_DSN": f"host={data.parent} user=smsdaemon dbname=postgres",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        trial: list[Path | str] = [
            Path(sys.executable).with_name("trial"),
            f"--temp-directory={folder / 'trial'}",
            *_MODULES,
        ]
        done = subprocess.run(trial, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-1000:])
        self.assertIn("PASSED (successes=", done.stdout)

    def unprivileged(self, folder: Path) -> dict[str, int]:
        """Arguments for a process that PostgreSQL is willing to be; the server's folder is made its own."""
        place = folder / "server"
        place.mkdir(mode=0o700)
        if os.geteuid() != 0:
            return {}
        user = pwd.getpwnam("smsdaemon")  # made by reachable_folder
        os.chown(place, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid}

    def run_in_server(self, command: list[Path | str], as_user: dict[str, int]) -> None:
        # Not captured through pipes: the server inherits them and keeps them open.
        subprocess.run(
            command,
            check=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **as_user,  # type: ignore[call-overload]
        )


def _test_on(binaries: Path) -> None:
    def test(self: DebianPostgresqlTests) -> None:
        self.check(binaries)

    name = f"test_the_stores_tests_pass_on_postgresql_{binaries.parent.name}_of_debian"
    test.__name__ = name
    setattr(DebianPostgresqlTests, name, test)


for _binaries in _SERVERS:
    _test_on(_binaries)
