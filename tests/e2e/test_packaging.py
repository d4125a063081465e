"""The wheel, installed in an empty environment elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import smsdaemon
from tests.support.installing import CHECKOUT, EPHEMERAL_PORTS, clean_environment, ourselves, wheels
from tests.support.postgres import reachable_folder
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import keep

VERSION = smsdaemon.__version__


class WheelTests(ProcessTest):
    def test_the_wheel_has_the_sql_files_and_the_plugin_and_no_tests(self) -> None:
        [wheel] = wheels().glob("smsdaemon-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        schema = {f"smsdaemon/store/schema/{path.name}" for path in self.schema()}
        self.assertLessEqual(schema | {"twisted/plugins/smsdaemon_plugin.py", "smsdaemon/py.typed"}, names)
        self.assertEqual({name for name in names if name.startswith("tests")}, set())
        self.assertNotIn("twisted/__init__.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)

    def test_installed_elsewhere_it_has_plugin_command_sql_and_examples_and_runs(self) -> None:
        folder = reachable_folder(self)
        venv = self.install(folder)
        self.assertRegex(self.printed(venv, "twistd", "--help"), r"(?m)^    smsdaemon +\S")
        self.assertEqual(self.printed(venv, "smsdaemon", "--version"), f"smsdaemon {VERSION}\n")
        found = "import smsdaemon.store.migrate as m; print(m.__file__, *[s.name for s in m.migrations()])"
        where, *steps = self.printed(venv, "python", "-c", found).split()
        self.assertTrue(where.startswith(str(venv)), where)
        self.assertEqual(steps, [path.name for path in self.schema()])
        examples = {path.name for path in (venv / "share/smsdaemon/etc").iterdir()}
        self.assertEqual(examples, {"demo.toml", "smsdaemon.service", "smsdaemon.toml"})
        self.runs(venv, folder)

    def runs(self, venv: Path, folder: Path) -> None:
        log = folder / "twistd.log"
        with open(log, "wb") as stream:
            process = subprocess.Popen(
                [venv / "bin/twistd", "-n", "--pidfile=", "smsdaemon"],
                cwd=folder,
                env=self.environment | EPHEMERAL_PORTS,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        self.addCleanup(keep_and_end, process, log, lambda: self.remove_cluster(folder / "var"))
        ready = until(
            lambda: (
                re.search(r"^smsdaemon ready: (\S+)/SMSReceiver ", log.read_text(), re.MULTILINE)
                or (process.poll() is not None and self.fail(log.read_text()))
            ),
            "the ready line",
        )
        assert ready
        with urllib.request.urlopen(f"{ready[1]}/health/ready", timeout=10) as answer:
            self.assertEqual(answer.status, 200)
        directory = str(venv / "share/smsdaemon/etc/demo.toml")
        self.assertIn("create connector", self.printed(venv, "smsdaemon", "apply", directory, cwd=folder))
        sms = f"{ready[1]}/SMSReceiver?receiver=49123123&sender=49789789&message=x"
        until(lambda: status_of(sms) == 200, "a 200")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), -signal.SIGTERM)

    def install(self, folder: Path) -> Path:
        """A new environment that holds what pip installs for the wheel, and nothing else."""
        venv = folder / "venv"
        self.environment = clean_environment(folder, Path(sys.executable))
        us = ourselves()
        made = us.run([sys.executable, "-m", "venv", venv])
        self.assertEqual(made.returncode, 0, made.stdout)
        pip = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet"]
        installed = us.run([*pip, "install", "smsdaemon[embedded]"], env=self.environment, cwd=folder)
        self.assertEqual(installed.returncode, 0, installed.stdout)
        return venv

    def printed(self, venv: Path, program: str, *arguments: str, cwd: Path = Path("/")) -> str:
        done = ourselves().run([venv / "bin" / program, *arguments], env=self.environment, cwd=cwd)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def schema(self) -> list[Path]:
        return sorted((CHECKOUT / "smsdaemon/store/schema").glob("*.sql"))

    def remove_cluster(self, state_dir: Path) -> None:
        cluster = state_dir / "postgresql"
        if cluster.is_symlink():
            shutil.rmtree(os.path.realpath(cluster), ignore_errors=True)


def keep_and_end(process: subprocess.Popen[bytes], log: Path, afterwards: Callable[[], object]) -> None:
    """End a process that a failed test left, and keep what it printed."""
    if process.poll() is None:
        process.kill()
        process.wait()
    keep("twistd", log.read_bytes())
    afterwards()


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
