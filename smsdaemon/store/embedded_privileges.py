"""Which system user the embedded PostgreSQL belongs to, and how something is run as that user."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

from attrs import frozen

from smsdaemon.errors import EmbeddedPostgresError

SYSTEM_USER = "smsdaemon"

# Nothing of the caller's: PGPORT, PGDATA or a locale of another encoding would change what PostgreSQL does.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

_PATIENCE_SECONDS = 300.0
_STATED = re.compile(r"(\w+: error|FATAL|PANIC): .*")


@frozen(kw_only=True)
class OsUser:
    """A user of this machine, as PostgreSQL's peer authentication names it."""

    name: str
    uid: int
    gid: int

    @property
    def another(self) -> bool:
        """Whether a process must change its user to become this one; only root can."""
        return self.uid != os.geteuid()


def current_user() -> OsUser:
    """The user this process runs as."""
    found = user_of(os.geteuid())
    if found is None:
        raise EmbeddedPostgresError(
            f"the user id {os.geteuid()} has no name on this machine; "
            "PostgreSQL runs only as a user that has one"
        )
    return found


def user_of(uid: int) -> OsUser | None:
    """The user with this number, where the machine knows one."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return None
    return OsUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def system_user() -> OsUser:
    """The unprivileged user that serves when this process is root; created where it is absent."""
    if not _exists(SYSTEM_USER):
        _create_system_user()
    entry = pwd.getpwnam(SYSTEM_USER)
    return OsUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def can_create_system_user() -> bool:
    """Whether :func:`system_user` has what it needs."""
    return _exists(SYSTEM_USER) or shutil.which("useradd", path=ENVIRONMENT["PATH"]) is not None


def run_as(
    user: OsUser, command: list[str | Path], *, folder: Path = Path("/"), typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end as ``user``, with that user's groups only; ``typed`` is its input.

    Blocks. In a session of its own, so that a Ctrl-C meant for us does not end it half-way.
    """
    try:
        return subprocess.run(
            command,
            cwd=folder,
            input=typed,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
            env=ENVIRONMENT,
            timeout=_PATIENCE_SECONDS,
            start_new_session=True,
            user=user.uid if user.another else None,
            group=user.gid if user.another else None,
            extra_groups=os.getgrouplist(user.name, user.gid) if user.another else None,
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedPostgresError(f"{command[0]} did not end within {_PATIENCE_SECONDS:.0f} s") from error


def succeeds_as(user: OsUser, script: str, *arguments: str | Path) -> bool:
    """Whether the shell script, run as ``user`` with these arguments, ends well.

    Asked of a real process of that user, because modes alone do not say it (ACLs, mount options).
    """
    return run_as(user, ["/bin/sh", "-c", script, "sh", *arguments]).returncode == 0


def can_enter(user: OsUser, folder: Path) -> bool:
    """Whether ``user`` gets through to this folder."""
    if not user.another:
        return os.access(folder, os.X_OK)
    return succeeds_as(user, 'cd -- "$1"', folder)


def make_folder_for(user: OsUser, folder: Path) -> None:
    """Make the folder, open to this user alone."""
    os.mkdir(folder, 0o700)
    if user.another:
        os.chown(folder, user.uid, user.gid)


def stated_cause(printed: str) -> str:
    """Why a PostgreSQL program failed, in one line of what it printed.

    The first error is the cause; what follows is its consequence. Without the time and process
    number in front of it, so that the same cause reads the same.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    for line in lines:
        found = _STATED.search(line)
        if found is not None:
            return found[0]
    return lines[-1] if lines else "it said nothing"


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _create_system_user() -> None:
    useradd = shutil.which("useradd", path=ENVIRONMENT["PATH"])
    if useradd is None:
        raise EmbeddedPostgresError(
            f"as root, PostgreSQL runs as the system user {SYSTEM_USER}, and there is no useradd to create "
            "it: create it, run smsdaemon as an ordinary user, or set [database] dsn"
        )
    try:
        grp.getgrnam(SYSTEM_USER)
        group = ["--gid", SYSTEM_USER]
    except KeyError:
        group = ["--user-group"]
    options = ["--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    made = subprocess.run(
        [useradd, *options, *group, SYSTEM_USER],
        capture_output=True,
        check=False,
        text=True,
        env=ENVIRONMENT,
    )
    # Another smsdaemon may have been first.
    if made.returncode != 0 and not _exists(SYSTEM_USER):
        raise EmbeddedPostgresError(
            f"as root, PostgreSQL runs as the system user {SYSTEM_USER}, which cannot be created: "
            f"{stated_cause(made.stderr)}"
        )
