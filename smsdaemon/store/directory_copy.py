"""The directory's copy on disk, so that a daemon which starts without PostgreSQL can still accept.

JSON lines: a header with the format's number, an array for each client, target and connector, and at the
end how many there are and the digest of everything before. Targets' secrets are not in it, as nothing is
delivered without PostgreSQL; tokens are there as hashes, as in PostgreSQL. Providers' secrets are in it,
as signatures could not be checked without them: the file is its owner's only (0600), in a folder that is so
too (0700).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from smsdaemon.domain.model import Client, Connector, Directory, Target
from smsdaemon.errors import StoreUnavailable
from smsdaemon.store.directory_rows import token_hashes

T = TypeVar("T")

FORMAT = 2
BEFORE_PROVIDERS = 1
"""This format can still be read: connectors have no providers, provider_secrets and unsigned there."""
ROWS_AT_ONCE = 200
"""So that the reactor is held up for a millisecond or two."""
BYTES_AT_ONCE = 32_768
"""The same, of reading."""


class Unreadable(Exception):
    """The copy cannot be used; the text says why."""


class DirectoryCopy:
    """One file, written by one process at a time; whoever reads it sees the old or the new one."""

    def __init__(self, file: Path, reactor: Any) -> None:
        self._file, self._reactor = file, reactor
        self._log = Logger(namespace="smsdaemon.store")

    def write(self, directory: Directory) -> Deferred[None]:
        """Replace the copy; it is on disk when this fires. Fails with StoreUnavailable."""
        return ensureDeferred(self._write(directory))

    def read(self) -> Deferred[Directory | None]:
        """The copy; None where there is none yet, and with a line in the log where it cannot be used."""
        return ensureDeferred(self._read())

    # --- writing -------------------------------------------------------------------------------

    async def _write(self, directory: Directory) -> None:
        new = self._file.with_name(self._file.name + ".writing")
        try:
            stream = await self._in_thread(lambda: _begin(new))
            try:
                await self._write_rows(stream, directory)
                await self._in_thread(lambda: _sync(stream))
            finally:
                stream.close()
            await self._in_thread(lambda: _replace(new, self._file))
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise StoreUnavailable(f"the directory's copy cannot be written: {why}") from error

    async def _write_rows(self, stream: BinaryIO, directory: Directory) -> None:
        digest = hashlib.blake2b(digest_size=16)
        count = 0
        lines = map(_line, chain([{"format": FORMAT}], _rows(directory)))
        while some := list(islice(lines, ROWS_AT_ONCE)):
            content = b"".join(some)
            digest.update(content)
            count += len(some)
            await self._in_thread(lambda content=content: stream.write(content))  # type: ignore[misc]
        end = _line({"lines": count, "digest": digest.hexdigest()})
        await self._in_thread(lambda: stream.write(end))

    # --- reading -------------------------------------------------------------------------------

    async def _read(self) -> Directory | None:
        try:
            stream = await self._in_thread(lambda: self._file.open("rb"))
            try:
                return await self._read_rows(stream)
            finally:
                stream.close()
        except FileNotFoundError:
            return None
        except OSError as error:
            why = error.strerror or type(error).__name__
        except Unreadable as error:
            why = str(error)
        self._log.warn("the directory's copy on disk cannot be used: {why}", why=why)
        return None

    async def _read_rows(self, stream: BinaryIO) -> Directory:
        """Raises Unreadable or OSError."""
        directory = Directory()
        digest = hashlib.blake2b(digest_size=16)
        count = 0
        last = b""
        while some := await self._in_thread(lambda: stream.readlines(BYTES_AT_ONCE)):
            lines = [last, *some] if last else some
            last = lines.pop()  # it may be the end of all
            for line in lines:
                _take(line, directory, first=not count)
                count += 1
            digest.update(b"".join(lines))
        if _parsed(last) != {"lines": count, "digest": digest.hexdigest()}:
            raise Unreadable("it is cut off or damaged")
        return directory

    def _in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        d: Deferred[T] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
        return d


# --- files, in a thread ----------------------------------------------------------------------------


def _begin(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)  # of one that was killed
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _replace(new: Path, old: Path) -> None:
    new.rename(old)
    folder = os.open(old.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# --- lines -----------------------------------------------------------------------------------------


def _rows(directory: Directory) -> Iterator[list[Any]]:
    for client in directory.clients.values():
        yield ["client", client.id, client.reseller, client.name, client.enabled]
    for t in directory.targets.values():
        yield ["target", t.id, t.client_id, t.kind, t.name, t.url, t.subject, t.enabled]
    for c in directory.connectors.values():
        hashes = b"".join(sorted(c.token_hashes)).hex()
        owner = [c.id, c.client_id, c.target_id]
        yield [
            "connector",
            *owner,
            c.number,
            c.number_key,
            c.require_token,
            hashes,
            c.sender_format,
            c.enabled,
            c.providers,
            c.provider_secrets,
            c.unsigned,
        ]


def _line(row: object) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(line)
    return None


def _take(line: bytes, directory: Directory, *, first: bool) -> None:
    """Put what the line says into the directory. Raises Unreadable."""
    row = _parsed(line)
    if first:
        if row not in ({"format": FORMAT}, {"format": BEFORE_PROVIDERS}):
            raise Unreadable("it is not in the format of this version")
        return
    try:
        kind, id_, *rest = row
        if kind == "client":
            reseller, name, enabled = rest
            directory.clients[id_] = Client(id=id_, reseller=reseller, name=name, enabled=enabled)
        elif kind == "target":
            directory.targets[id_] = _target(id_, rest)
        else:
            connector = _connector(id_, rest)
            directory.connectors[connector.number_key] = connector
    except (TypeError, ValueError) as error:
        raise Unreadable("it is damaged") from error


def _target(id_: int, rest: list[Any]) -> Target:
    client_id, kind, name, url, subject, enabled = rest
    return Target(
        id=id_,
        client_id=client_id,
        kind=kind,
        name=name,
        url=url,
        secret="",
        subject=subject,
        enabled=enabled,
    )


def _connector(id_: int, rest: list[Any]) -> Connector:
    client_id, target_id, number, key, require_token, hashes, sender_format, enabled, *more = rest
    providers, secrets, unsigned = more or (("generic",), (), False)
    return Connector(
        id=id_,
        client_id=client_id,
        number=number,
        number_key=key,
        target_id=target_id,
        require_token=require_token,
        token_hashes=token_hashes(memoryview(bytes.fromhex(hashes)) if hashes else None),
        sender_format=sender_format,
        providers=tuple(providers),
        provider_secrets=tuple(secrets),
        unsigned=unsigned,
        enabled=enabled,
    )
