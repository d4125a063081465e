"""The run's PostgreSQL: a real server of the embedded wheel, which nobody but the adversary starts again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from psycopg2 import extensions

from smsdaemon.store.embedded_processes import processes_in
from tests.support.postgres import PlainServer


class PostgresUnderFire(PlainServer):
    """Calls block; the run makes them in threads."""

    @property
    def socket(self) -> str:
        """The path of its Unix socket."""
        parts = extensions.parse_dsn(self.dsn)
        return str(Path(parts["host"], f".s.PGSQL.{parts['port']}"))

    def dsn_by(self, port: int) -> str:
        """Of its database as it is reached through a TCP port here."""
        parts = extensions.parse_dsn(self.dsn)
        made: str = extensions.make_dsn(
            host="127.0.0.1",
            port=port,
            user=parts["user"],
            dbname=parts["dbname"],
            sslmode="disable",
            gssencmode="disable",
        )
        return made

    def stop_at_once(self) -> None:
        """`pg_ctl stop -m immediate`."""
        server = self._prepared()
        user = server.location.user
        command = [
            str(server.binaries.folder / "pg_ctl"),
            "stop",
            "-m",
            "immediate",
            "-D",
            str(server.location.data),
        ]
        subprocess.run(
            command,
            check=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            user=user.uid if user.another else None,
            group=user.gid if user.another else None,
            extra_groups=[user.gid] if user.another else None,
        )
        if self._process is not None:
            self._process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP to all its processes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._server is None:
            return
        for pid in processes_in(self._server.location.data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
