"""The directory in memory: an immutable snapshot, replaced whenever PostgreSQL notifies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.domain.model import Client, Connector, Directory, Target
from smsdaemon.domain.reading import GENERIC
from smsdaemon.errors import SmsDaemonError, StoreUnavailable
from smsdaemon.store import directory_queries as queries
from smsdaemon.store.directory_copy import DirectoryCopy
from smsdaemon.store.directory_rows import slices, token_hashes
from smsdaemon.store.pool import Pool, Run

CHANNEL = "smsdaemon_directory"
"""What schema/0001_initial.sql notifies on every change of the directory."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
COPY_AGAIN_SECONDS = 30.0
_GENERIC = (GENERIC,)
_NONE: tuple[str, ...] = ()


class DirectorySnapshot:
    """A ports.DirectorySource that follows the store.

    Whoever owns the store.pool.Listener has it call ``refresh`` on CHANNEL and whenever it listens
    (again), as what was said before was not heard. What cannot be read leaves the old snapshot in
    force and is tried again, with growing pauses.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        reactor: IReactorTime,
        on_change: Sequence[Callable[[], object]] = (),
        copy: DirectoryCopy | None = None,
        writes_copy: bool = False,
    ) -> None:
        """``on_change``: called after each time that the snapshot was replaced.

        ``copy``: what use_copy() reads; ``writes_copy``: whether this process is the one that writes it.
        """
        self._log = Logger(namespace="smsdaemon.store")
        self._pool, self._reactor, self._on_change = pool, reactor, list(on_change)
        self._directory: Directory | None = None
        self._first: Deferred[None] | None = None
        self._reading: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._outdated = False
        self._stopped = False
        self._copy, self._writes_copy = copy, writes_copy
        self._stale = False
        self._writing: Deferred[None] | None = None
        self._written: Directory | None = None
        self._copy_again: IDelayedCall | None = None

    @property
    def loaded(self) -> bool:
        """Whether there is a snapshot at all, of PostgreSQL or of the disk."""
        return self._directory is not None

    @property
    def stale(self) -> bool:
        """Whether the snapshot is the one of the disk: nothing was read from PostgreSQL yet."""
        return self._stale

    def current(self) -> Directory:
        """The newest snapshot; raises StoreUnavailable before the first one is there."""
        if self._directory is None:
            raise StoreUnavailable("the directory is not loaded yet")
        return self._directory

    def follow(self, changed: Callable[[], object]) -> None:
        """Have ``changed`` called too after each replacement."""
        self._on_change.append(changed)

    def start(self) -> Deferred[None]:
        """Fires when the first snapshot was read, however long PostgreSQL is away; stop cancels it.

        The copy on disk does not count.
        """
        self._first = Deferred()
        self.refresh()
        return self._first

    def use_copy(self) -> Deferred[bool]:
        """Take the copy on disk for the time being; fires with whether it became the snapshot.

        What is read from PostgreSQL wins, also while the copy is being read.
        """
        if self._copy is None or self._directory is not None:
            return succeed(False)
        return self._copy.read().addCallback(self._take_copy)

    def stop(self) -> None:
        """Read no more; the last snapshot stays."""
        self._stopped = True
        self._cancel_retry()
        if self._copy_again is not None and self._copy_again.active():
            self._copy_again.cancel()
        if self._reading is not None:
            self._reading.cancel()
        if self._first is not None and not self._first.called:
            self._first.cancel()

    def refresh(self) -> None:
        """Read the directory anew; asked while it is being read, once more after that."""
        self._outdated = True
        if self._reading is None and not self._stopped:
            self._read()

    def _read(self) -> None:
        self._outdated = False
        self._cancel_retry()
        before = self._directory or Directory()
        d = self._pool.transaction(partial(read_snapshot, before=before)).addCallback(self._replace)
        self._reading = d
        d.addErrback(self._read_later).addBoth(self._done)

    def _replace(self, directory: Directory) -> None:
        self._pause = FIRST_PAUSE_SECONDS
        self._log.debug("directory read: {connectors} connectors", connectors=len(directory.connectors))
        self._put(directory, stale=False)
        if self._first is not None and not self._first.called:
            self._first.callback(None)
        self._write_copy()

    def _take_copy(self, directory: Directory | None) -> bool:
        if directory is None or self._directory is not None or self._stopped:
            return False
        self._put(directory, stale=True)
        said = "the directory of before is in force until PostgreSQL can be read: {connectors} connectors"
        self._log.warn(said, connectors=len(directory.connectors))
        return True

    def _put(self, directory: Directory, *, stale: bool) -> None:
        self._directory, self._stale = directory, stale
        for changed in self._on_change:
            # One follower's bug must not keep the others from the news.
            maybeDeferred(changed).addErrback(partial(self._log.failure, "a change was not followed"))

    def _write_copy(self) -> None:
        """Write the snapshot, unless it is there; while one is being written, after that."""
        directory = self._directory
        if self._copy is None or not self._writes_copy or directory is None or self._stale or self._stopped:
            return
        # Nearly all of it is the same objects as before, so comparing is quick.
        if self._writing is not None or directory == self._written:
            return
        self._writing = d = self._copy.write(directory)
        d.addCallbacks(self._copy_written, self._copy_not_written, callbackArgs=(directory,))

    def _copy_written(self, _: None, directory: Directory) -> None:
        self._writing, self._written = None, directory
        self._write_copy()

    def _copy_not_written(self, failure: Failure) -> None:
        self._writing, self._written = None, None
        if failure.check(SmsDaemonError):
            self._log.warn("{why}", why=str(failure.value))
        else:
            self._log.failure("the directory's copy could not be written", failure)
        if not self._stopped and (self._copy_again is None or not self._copy_again.active()):
            self._copy_again = self._reactor.callLater(COPY_AGAIN_SECONDS, self._write_copy)

    def _read_later(self, failure: Failure) -> None:
        if self._stopped and failure.check(CancelledError):
            return
        if failure.check(SmsDaemonError):
            self._log.warn("the directory could not be read: {why}", why=str(failure.value))
        else:
            self._log.failure("the directory could not be read", failure)
        if not self._stopped:
            self._retry = self._reactor.callLater(self._pause, self.refresh)
            self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2)

    def _done(self, _: object) -> None:
        self._reading = None
        if self._outdated and not self._stopped and self._retry is None:
            self._read()

    def _cancel_retry(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None


async def read_snapshot(run: Run, before: Directory) -> Directory:
    """All that is not removed, as of one moment, in slices that leave the reactor its turn.

    What did not change since ``before`` is taken from there: 100,000 new objects at once would set
    off full garbage collections of more than 100 ms each, in which nothing is accepted.
    """
    await run(queries.CONSISTENT_READ)
    clients: dict[int, Client] = {}
    async for rows in slices(run, queries.CLIENTS):
        for id_, reseller, name, enabled, reseller_enabled in rows:
            on = enabled and reseller_enabled
            client = Client(id=id_, reseller=reseller, name=name, enabled=on)
            clients[id_] = _same(before.clients.get(id_), client)
    targets: dict[int, Target] = {}
    async for rows in slices(run, queries.TARGETS):
        for id_, client_id, kind, name, url, secret, subject, enabled in rows:
            target = Target(
                id=id_,
                client_id=client_id,
                kind=kind,
                name=name,
                url=url,
                secret=secret,
                subject=subject,
                enabled=enabled,
            )
            targets[id_] = _same(before.targets.get(id_), target)
    return Directory(clients=clients, targets=targets, connectors=await _connectors(run, before.connectors))


async def _connectors(run: Run, before: dict[str, Connector]) -> dict[str, Connector]:
    connectors: dict[str, Connector] = {}
    async for rows in slices(run, queries.CONNECTORS):
        for row in rows:
            key = row[3]
            was = before.get(key)
            # To make 100,000 objects only to find them equal to those before took three times as long.
            connectors[key] = was if was is not None and _says(row, was) else _connector(row)
    return connectors


def _connector(row: tuple[Any, ...]) -> Connector:
    id_, client_id, number, key, target_id, require_token, sender_format, enabled, *more = row
    hashes, providers, secrets, unsigned = more
    return Connector(
        id=id_,
        client_id=client_id,
        number=number,
        number_key=key,
        target_id=target_id,
        require_token=require_token,
        token_hashes=token_hashes(hashes),
        sender_format=sender_format,
        providers=_GENERIC if providers is None else tuple(providers),
        provider_secrets=_NONE if secrets is None else tuple(secrets),
        unsigned=unsigned,
        enabled=enabled,
    )


def _says(row: tuple[Any, ...], connector: Connector) -> bool:
    """Whether the row is what the connector was made of."""
    plain = (
        connector.id,
        connector.client_id,
        connector.number,
        connector.number_key,
        connector.target_id,
        connector.require_token,
        connector.sender_format,
        connector.enabled,
    )
    if row[:8] != plain:
        return False
    hashes, providers, secrets, unsigned = row[8:]
    if (hashes, providers, secrets) == (None, None, None):
        return (
            not connector.token_hashes
            and connector.providers == _GENERIC
            and not connector.provider_secrets
            and unsigned == connector.unsigned
        )
    return connector == _connector(row)


T = TypeVar("T")


def _same(before: T | None, now: T) -> T:
    return before if before is not None and before == now else now
