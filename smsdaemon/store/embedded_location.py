"""Where a state folder's cluster and its socket are; what is decided once is kept in the state folder.

``postgresql``         the cluster's folder, or a link to it where it cannot be in the state folder
``postgresql.lock``    held by the process that runs the server
``postgresql.socket``  a link to the socket's folder where the cluster's path is too long for a socket
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

from attrs import frozen

from smsdaemon.errors import EmbeddedPostgresError
from smsdaemon.store.embedded_binaries import make_system_dir
from smsdaemon.store.embedded_privileges import (
    OsUser,
    can_enter,
    current_user,
    make_folder_for,
    system_user,
    user_of,
)

SYSTEM_DIR = Path("/var/lib/smsdaemon")
DATABASE = "smsdaemon"
ROLE = "smsdaemon"
PORT = 5432
_LONGEST_SOCKET_PATH = 99  # bytes; the system takes 107, PostgreSQL adds ".lock" to a file beside


@frozen(kw_only=True)
class Location:
    """One state folder's cluster; its folder need not exist yet."""

    state_dir: Path
    cluster: Path
    sockets: Path
    user: OsUser

    @property
    def data(self) -> Path:
        return self.cluster / "data"

    @property
    def unfinished(self) -> Path:
        """Where a cluster is initialised before it gets its place."""
        return self.cluster.with_name(self.cluster.name + ".new")

    @property
    def lock(self) -> Path:
        return self.state_dir / "postgresql.lock"

    @property
    def dsn(self) -> str:
        """How libpq connects; it refuses a server that is not the cluster's user's."""
        words = {
            "host": str(self.sockets),
            "port": str(PORT),
            "dbname": DATABASE,
            "user": ROLE,
            "requirepeer": self.user.name,
        }
        return " ".join(f"{key}={_quoted(value)}" for key, value in words.items())


def locate(state_dir: Path, system_dir: Path = SYSTEM_DIR) -> Location:
    """Say where everything is, deciding (and making the state folder) where nobody did before.

    Any process may call it at any time and finds the same. Raises EmbeddedPostgresError.
    """
    state_dir = Path(os.path.abspath(state_dir))
    try:
        user = _owner(state_dir)
        make_state_dir(state_dir, user)
        cluster = _cluster(state_dir, user, system_dir)
        return Location(
            state_dir=state_dir, cluster=cluster, sockets=_sockets(state_dir, cluster, user), user=user
        )
    except OSError as error:
        raise EmbeddedPostgresError(f"the embedded PostgreSQL cannot use {state_dir}: {error}") from error


def make_state_dir(state_dir: Path, user: OsUser) -> None:
    """Make the state folder, closed to others, where it is missing; an existing one stays as it is."""
    if state_dir.is_dir():
        return
    state_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.mkdir(state_dir, 0o700)
    except FileExistsError:
        return
    if user.another:
        # The server's user passes through it to the cluster, and lists nothing.
        os.chown(state_dir, -1, user.gid)
        os.chmod(state_dir, 0o710)


def cluster_of(state_dir: Path) -> Path | None:
    """The cluster's folder where that is decided already, existing or not."""
    entry = state_dir / "postgresql"
    try:
        return state_dir / os.readlink(entry)
    except FileNotFoundError:
        return None
    except OSError:  # EINVAL: a folder, not a link
        return entry


def make_socket_folder(location: Location) -> None:
    """Make the socket's folder, which may be gone: a restart of the machine empties /tmp."""
    if not location.sockets.exists():
        make_folder_for(location.user, location.sockets)


def remove(location: Location) -> None:
    """Delete the state folder and whatever of it is elsewhere; nothing must be running."""
    for folder in (location.unfinished, location.cluster, location.sockets, location.state_dir):
        shutil.rmtree(folder, ignore_errors=True)


def _owner(state_dir: Path) -> OsUser:
    """Whose the cluster is: this process' user; for root, that of the existing cluster or the system user."""
    if os.geteuid() != 0:
        return current_user()
    cluster = cluster_of(state_dir)
    if cluster is not None and cluster.exists():
        uid = cluster.stat().st_uid
        if uid != 0:
            found = user_of(uid)
            if found is None:
                raise EmbeddedPostgresError(f"{cluster} belongs to the user id {uid}, which has no name here")
            return found
    return system_user()


def _cluster(state_dir: Path, user: OsUser, system_dir: Path) -> Path:
    decided = cluster_of(state_dir)
    if decided is not None:
        return decided
    if can_enter(user, state_dir):
        return state_dir / "postgresql"
    clusters = system_dir / "clusters"
    make_system_dir(system_dir)
    make_system_dir(clusters)
    if not can_enter(user, clusters):
        raise EmbeddedPostgresError(
            f"user {user.name}, who runs PostgreSQL for root, can enter neither {state_dir} nor {clusters}"
        )
    # The link comes first: a start that is broken off leaves no cluster that nothing points to.
    with contextlib.suppress(FileExistsError):  # another process decided in this moment
        os.symlink(clusters / secrets.token_hex(8), state_dir / "postgresql")
    return state_dir / os.readlink(state_dir / "postgresql")


def _sockets(state_dir: Path, cluster: Path, user: OsUser) -> Path:
    beside = cluster / "socket"
    if _fits(beside):
        return beside
    link = state_dir / "postgresql.socket"
    while True:
        try:
            folder = Path(os.readlink(link))
        except FileNotFoundError:
            folder = Path(tempfile.mkdtemp(prefix="smsdaemon-", dir="/tmp"))
            if user.another:
                os.chown(folder, user.uid, user.gid)
            try:
                os.symlink(folder, link)
            except FileExistsError:
                os.rmdir(folder)  # another process decided in this moment
            continue
        if _is_trusted(folder, user):
            return folder
        link.unlink(missing_ok=True)


def _fits(sockets: Path) -> bool:
    """Whether a socket in this folder can be made, and named in a libpq string."""
    name = str(sockets)
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    # libpq reads a comma as the end of one host of several.
    return length + len(f"/.s.PGSQL.{PORT}") <= _LONGEST_SOCKET_PATH and "," not in name


def _is_trusted(folder: Path, user: OsUser) -> bool:
    """Whether the folder is ours and closed; one that is gone is made again later, under its name."""
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(found.st_mode) and found.st_uid == user.uid and stat.S_IMODE(found.st_mode) == 0o700


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
