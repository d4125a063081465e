"""Installing smsdaemon as users do: from a checkout or a wheel, in an environment of its own."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

CHECKOUT = Path(__file__).resolve().parents[2]
EPHEMERAL_PORTS = {
    f"SMSDAEMON_{table}__LISTEN": '["tcp:0:interface=127.0.0.1"]' for table in ("HTTP", "HTTPS", "ADMIN")
}
"""Environment of a daemon that must not meet others on its ports."""

_MADE_BY_TOOLS = (".git", ".venv*", "var", "build", "dist", "*.egg-info", "__pycache__", "dropin.cache")
_MADE_BY_TESTS = ("_trial_temp*", ".*_cache", ".hypothesis")
_wheels: list[Path] = []


@frozen
class User:
    """Whose processes a test starts, and what runs Python for them."""

    name: str
    uid: int
    gid: int
    python: Path

    @property
    def us(self) -> bool:
        return self.uid == os.geteuid()

    def run(self, command: Sequence[str | Path], **more: object) -> subprocess.CompletedProcess[str]:
        """Run it to its end as this user, with both outputs as one."""
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            **{"cwd": "/", **self.identity(), **more},
        )

    def identity(self) -> dict[str, object]:
        """Arguments of subprocess that make the process this user's."""
        return {} if self.us else {"user": self.uid, "group": self.gid, "extra_groups": []}


def ourselves() -> User:
    return User(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid(), Path(sys.executable))


def existing_user(name: str) -> User:
    """An unprivileged user that every Debian has; only root can start its processes."""
    entry = pwd.getpwnam(name)
    user = User(name, entry.pw_uid, entry.pw_gid, Path("/"))
    return User(name, user.uid, user.gid, _python_for(user))


def _python_for(user: User) -> Path:
    """A Python that this user can run too; ours may lie where only root gets."""
    found = (getattr(sys, "_base_executable", sys.executable), shutil.which("python3"), "/usr/bin/python3")
    asked = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    for python in found:
        try:
            if python and user.run([python, "-I", "-c", asked]).returncode == 0:
                return Path(python)
        except PermissionError:
            continue
    raise AssertionError(f"no Python from 3.11 on that user {user.name} can run: {found}")


def copy_of_the_checkout(folder: Path) -> Path:
    """A fresh checkout of what is here now, in a new ``folder``."""
    return Path(
        shutil.copytree(CHECKOUT, folder, ignore=shutil.ignore_patterns(*_MADE_BY_TOOLS, *_MADE_BY_TESTS))
    )


def wheels() -> Path:
    """A folder with smsdaemon's wheel and those of all it needs, made once for the whole run."""
    if not _wheels:
        folder = Path(tempfile.mkdtemp(prefix="smsdaemon-wheels-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        checkout = copy_of_the_checkout(folder / "checkout")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet", "wheel"]
        needed = [".[embedded,test]", "setuptools>=70.1"]
        made = ourselves().run([*pip, "--wheel-dir", folder, *needed], cwd=checkout)
        assert made.returncode == 0, made.stdout
        shutil.rmtree(checkout)
        folder.chmod(0o755)
        for wheel in folder.iterdir():
            wheel.chmod(0o644)
        _wheels.append(folder)
    return _wheels[0]


def clean_environment(home: Path, python: Path) -> dict[str, str]:
    """What a login gives, and where pip finds what is needed: :func:`wheels`, if made for this Python."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    version = ourselves().run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout
    if version.strip() == f"{sys.version_info.major}.{sys.version_info.minor}":
        kept["PIP_NO_INDEX"] = "1"
    kept |= {"PIP_FIND_LINKS": str(wheels()), "PIP_NO_CACHE_DIR": "1"}
    return kept | {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8"}
