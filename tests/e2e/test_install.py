"""`make run` where it is hard: as root below a closed folder, and in a folder with a blank in its name.

Afterwards nobody else can read anything of it, and nothing that was there before has another mode.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SkipTest

from smsdaemon.store.embedded_location import SYSTEM_DIR, Location, locate, remove
from smsdaemon.store.embedded_processes import end_processes_in
from tests.support.installing import (
    EPHEMERAL_PORTS,
    User,
    clean_environment,
    copy_of_the_checkout,
    existing_user,
    ourselves,
)
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import TEXT_MARKER, keep

ROOT = 0
READY = re.compile(r"^smsdaemon ready: (\S+) ", re.MULTILINE)

# Run as another user with paths to try; it prints what it could do, which is to be nothing.
INTRUDER = """\
import os, socket, sys
for start in sys.argv[1:]:
    for folder, folders, files in os.walk(start, followlinks=True):
        print("list", folder)
        for name in files:
            try:
                open(os.path.join(folder, name), "rb").close()
                print("read", os.path.join(folder, name))
            except OSError:
                pass
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.path.join(start, ".s.PGSQL.5432"))
        print("connect", start)
    except OSError:
        pass
print("tried")
"""


class InstallTests(ProcessTest):
    guard_seconds = 240

    def test_as_root_below_a_folder_that_only_root_can_enter(self) -> None:
        if os.geteuid() != ROOT:
            raise SkipTest("needs root")
        folder = self.new_folder("smsdaemon install", ourselves())
        self.plays_through(folder / "smsdaemon", ourselves(), intruder=existing_user("nobody"))

    def test_as_an_ordinary_user_in_a_folder_with_a_blank_in_its_name(self) -> None:
        root = os.geteuid() == ROOT
        user = existing_user("nobody") if root else ourselves()
        folder = self.new_folder("home of", user)
        folder.chmod(0o755)  # as most homes are: what protects is what smsdaemon makes
        self.plays_through(folder / "sms daemon", user, existing_user("daemon") if root else None)

    # --- the play -----------------------------------------------------------------------------

    def plays_through(self, checkout: Path, user: User, intruder: User | None) -> None:
        copy_of_the_checkout(checkout)
        give_to(user, checkout)
        before = modes(checkout)
        make = self.make_run(checkout, user)
        location = self.location(checkout / "var", user)
        self.assertEqual(modes_of(before), before)
        self.assertClosed(location, intruder)
        self.receives(make)
        self.ends_on_control_c(make)
        self.assertEqual(modes_of(before), before)
        self.assertClosed(location, intruder)

    def make_run(self, checkout: Path, user: User) -> _Running:
        environment = clean_environment(checkout.parent, user.python) | EPHEMERAL_PORTS
        log = Path(tempfile.mkstemp(prefix="smsdaemon-make-run-")[1])
        self.addCleanup(log.unlink)
        with open(log, "wb") as stream:
            process = subprocess.Popen(  # type: ignore[call-overload]
                ["make", "run", f"PYTHON={user.python}"],
                cwd=checkout,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                **user.identity(),
            )
        running = _Running(process, log)
        self.addCleanup(running.keep)
        self.addCleanup(running.end)
        until(lambda: READY.search(running.printed()) or process.poll() is not None, "the ready line", 120)
        self.assertRegex(running.printed(), READY)
        return running

    def receives(self, make: _Running) -> None:
        [url] = READY.findall(make.printed())
        [tried] = re.findall(r"(?m)^  curl -i '(\S+)'$", make.printed())
        query = urllib.parse.parse_qsl(urllib.parse.urlsplit(tried).query)
        sms = [(name, TEXT_MARKER if name == "message" else value) for name, value in query]
        with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(sms)}", timeout=20) as answer:
            self.assertEqual((answer.status, answer.read()), (200, b"OK"))

    def ends_on_control_c(self, make: _Running) -> None:
        os.killpg(make.process.pid, signal.SIGINT)  # what a terminal does
        self.assertIn(make.process.wait(60), (0, 130, -signal.SIGINT))
        self.assertNotIn("***", make.printed())
        self.assertNotIn("Traceback", make.printed())
        self.assertRegex(make.printed(), r"(?m)\[smsdaemon\] stopped$")
        self.assertRaises(ProcessLookupError, os.killpg, make.process.pid, 0)

    # --- what others can do ------------------------------------------------------------------------

    def assertClosed(self, location: Location, intruder: User | None) -> None:
        """Nobody but its user, and the one who serves the database, gets into anything of it."""
        self.assertTrue(location.data.is_dir())
        for path in (location.state_dir, location.cluster, location.data, location.sockets):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode) & 0o007, 0, path)
        self.assertEqual(stat.S_IMODE(location.sockets.stat().st_mode), 0o700)
        if intruder is not None:
            folders = (location.state_dir, location.cluster, location.data, location.sockets)
            tried = intruder.run([intruder.python, "-I", "-c", INTRUDER, *folders])
            self.assertEqual((tried.returncode, tried.stdout), (0, "tried\n"))

    # --- folders -----------------------------------------------------------------------------------

    def new_folder(self, name: str, user: User) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{name} "))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        give_to(user, folder)
        return folder

    def location(self, state_dir: Path, user: User) -> Location:
        """Of what that user's daemon has made; removed after the test, also where it is elsewhere."""
        found = locate(state_dir)
        self.addCleanup(remove, found)
        self.addCleanup(end_processes_in, found.data)
        self.assertEqual(found.user.uid != user.uid, user.uid == ROOT)
        return found


class _Running:
    """`make run`, in a session of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    def printed(self) -> str:
        return self._log.read_text(errors="replace")

    def keep(self) -> None:
        keep("make-run", self._log.read_bytes())

    def end(self) -> None:
        """End what a test that failed has left."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(60)


def give_to(user: User, folder: Path) -> None:
    if not user.us:
        _walk(folder, lambda path: os.chown(path, user.uid, user.gid, follow_symlinks=False))


def modes(checkout: Path) -> dict[Path, str]:
    """Mode and owner of all that is there already: the checkout, what is above it, the system's folders."""
    found = list(checkout.parents) + list(SYSTEM_DIR.parents)
    if SYSTEM_DIR.is_dir():
        found.append(SYSTEM_DIR)
    _walk(checkout, found.append)
    return {path: _mode(path) for path in found}


def modes_of(known: dict[Path, str]) -> dict[Path, str]:
    return {path: _mode(path) for path in known}


def _mode(path: Path) -> str:
    found = path.lstat()
    return f"{found.st_mode:o} {found.st_uid}:{found.st_gid}"


def _walk(folder: Path, do: Callable[[Path], object]) -> None:
    do(folder)
    for at, folders, files in os.walk(folder):
        for name in folders + files:
            do(Path(at, name))
