"""The directory in memory follows the one in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from smsdaemon.domain.directory_values import token_hash
from smsdaemon.domain.model import Connector, Directory
from smsdaemon.errors import StoreUnavailable
from smsdaemon.store.directory import CHANNEL, DirectorySnapshot
from smsdaemon.store.directory_copy import DirectoryCopy
from smsdaemon.store.pool import Listener, Pool
from tests.support.cases import ReactorTest
from tests.support.store import apply_text, migrated_pool

SHOP = '[[reseller]]\nname = "acme"\n[[client]]\nname = "shop"\nreseller = "acme"\n'
WHOLE = (
    SHOP + '[[acd_group]]\nclient = "acme/shop"\nname = "support"\nurl = "log:"\n'
    '[[connector]]\nclient = "acme/shop"\nnumber = "+49 123123"\nacd_group = "support"\ntokens = ["a", "b"]\n'
)
CONNECTOR_OFF = '[[connector]]\nnumber = "+49 123123"\nenabled = false\n'
END_LISTENERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'smsdaemon listener'
"""

clock = cast(IReactorTime, reactor)


class SnapshotTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.pool: Pool
        self.dsn, self.pool = await migrated_pool(self)
        self.replaced = 0
        self.snapshot = DirectorySnapshot(pool=self.pool, reactor=clock, on_change=[self.count])
        self.addCleanup(self.snapshot.stop)

    def count(self) -> None:
        self.replaced += 1

    async def follow(self) -> None:
        """Start the snapshot and have it listen."""
        self.listener = Listener(
            dsn=self.dsn,
            channels={CHANNEL: self.snapshot.refresh},
            on_listening=self.snapshot.refresh,
            reactor=clock,
        )
        self.addCleanup(self.listener.close)
        await self.snapshot.start()
        before = self.replaced
        self.listener.start()
        await self.until(lambda: self.replaced > before)

    async def until(self, condition: Callable[[], bool]) -> float:
        """Wait for it; how many seconds it took."""
        began = clock.seconds()
        while not condition():
            await deferLater(clock, 0.005)
        return clock.seconds() - began

    def connector(self) -> Connector:
        return self.snapshot.current().connectors["49123123"]

    async def test_the_snapshot_holds_what_is_stored(self) -> None:
        await apply_text(self.pool, WHOLE)
        await self.snapshot.start()
        directory = self.snapshot.current()
        connector = self.connector()
        self.assertEqual((connector.number, connector.require_token), ("+49 123123", False))
        self.assertEqual(connector.token_hashes, {token_hash("a"), token_hash("b")})
        assert connector.target_id is not None
        target = directory.targets[connector.target_id]
        self.assertEqual((target.kind, target.name, target.url), ("acd_group", "support", "log:"))
        client = directory.clients[target.client_id]
        self.assertEqual((client.reseller, client.name, client.enabled), ("acme", "shop", True))

    async def test_before_the_first_one_there_is_none_to_be_had(self) -> None:
        self.assertFalse(self.snapshot.loaded)
        self.assertRaises(StoreUnavailable, self.snapshot.current)
        await self.snapshot.start()
        self.assertTrue(self.snapshot.loaded)
        self.assertEqual(self.snapshot.current().connectors, {})

    async def test_a_client_of_a_disabled_reseller_is_disabled(self) -> None:
        await apply_text(self.pool, WHOLE + '[[client]]\nname = "off"\nreseller = "acme"\nenabled = false\n')
        await self.snapshot.start()
        enabled = {c.name: c.enabled for c in self.snapshot.current().clients.values()}
        self.assertEqual(enabled, {"shop": True, "off": False})
        await apply_text(self.pool, '[[reseller]]\nname = "acme"\nenabled = false\n')
        self.snapshot.refresh()
        await self.until(lambda: self.replaced == 2)
        self.assertEqual([c.enabled for c in self.snapshot.current().clients.values()], [False, False])

    async def test_what_is_removed_is_not_in_it(self) -> None:
        await apply_text(self.pool, WHOLE)
        await apply_text(self.pool, "", prune=True)
        await self.snapshot.start()
        directory = self.snapshot.current()
        self.assertEqual((directory.connectors, directory.targets, directory.clients), ({}, {}, {}))

    async def test_more_than_one_slice_is_read_whole(self) -> None:
        numbers = [f"49{n}" for n in range(1_000_000, 1_002_345)]
        entries = (
            f'[[connector]]\nclient = "acme/shop"\nnumber = "+{n}"\ntokens = ["{n}"]\n' for n in numbers
        )
        await apply_text(self.pool, SHOP + "".join(entries))
        await self.snapshot.start()
        connectors = self.snapshot.current().connectors
        self.assertEqual(list(connectors), numbers)
        self.assertTrue(all(c.token_hashes == {token_hash(key)} for key, c in connectors.items()))

    async def test_a_change_is_in_force_within_a_second(self) -> None:
        await apply_text(self.pool, WHOLE)
        await self.follow()
        await apply_text(self.pool, CONNECTOR_OFF)
        self.assertLess(await self.until(lambda: not self.connector().enabled), 1.0)

    async def test_a_request_that_holds_a_snapshot_keeps_seeing_it(self) -> None:
        await apply_text(self.pool, WHOLE)
        await self.follow()
        held = self.snapshot.current()
        await apply_text(self.pool, CONNECTOR_OFF)
        await self.until(lambda: not self.connector().enabled)
        self.assertTrue(held.connectors["49123123"].enabled)

    async def test_an_apply_that_changes_nothing_replaces_nothing(self) -> None:
        await apply_text(self.pool, WHOLE)
        await self.follow()
        before = self.replaced
        await apply_text(self.pool, WHOLE)
        await apply_text(self.pool, CONNECTOR_OFF)
        await self.until(lambda: not self.connector().enabled)
        self.assertEqual(self.replaced, before + 1)

    async def test_what_was_said_while_nobody_listened_is_read_when_listening_again(self) -> None:
        await apply_text(self.pool, WHOLE)
        await self.follow()
        # A change that nobody is told of: only a new beginning can bring it.
        await self.pool.query("ALTER TABLE connector DISABLE TRIGGER notify_directory")
        await apply_text(self.pool, CONNECTOR_OFF)
        await self.pool.query("ALTER TABLE connector ENABLE TRIGGER notify_directory")
        self.assertTrue(self.connector().enabled)
        self.assertEqual(await self.pool.query(END_LISTENERS), [(True,)])
        await self.until(lambda: not self.connector().enabled)
        await apply_text(self.pool, CONNECTOR_OFF.replace("false", "true"))
        self.assertLess(await self.until(lambda: self.connector().enabled), 1.0)

    async def test_what_did_not_change_is_the_same_object_in_the_next_snapshot(self) -> None:
        await apply_text(self.pool, WHOLE + '[[connector]]\nclient = "acme/shop"\nnumber = "2"\n')
        await self.follow()
        before = self.snapshot.current()
        await apply_text(self.pool, '[[connector]]\nnumber = "2"\nacd_group = "support"\n')
        await self.until(lambda: self.snapshot.current().connectors["2"].target_id is not None)
        self.assertIs(self.connector(), before.connectors["49123123"])

    async def test_any_number_of_notifications_while_reading_lead_to_one_more_reading(self) -> None:
        first = self.snapshot.start()
        for _ in range(50):
            self.snapshot.refresh()
        await first
        await self.until(lambda: self.replaced == 2)
        # Both connections of the pool are free again, so no third reading is under way.
        await self.pool.lend(lambda one: self.pool.lend(lambda other: other.rows("SELECT 1")))
        self.assertEqual(self.replaced, 2)

    async def test_what_cannot_be_read_leaves_the_old_one_in_force_and_is_tried_again(self) -> None:
        await apply_text(self.pool, WHOLE)
        await self.snapshot.start()
        said: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            said.append(str(event.get("log_format")))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        await self.pool.query("ALTER TABLE target RENAME TO target_away")
        self.snapshot.refresh()
        await self.until(lambda: any("could not be read" in line for line in said))
        self.assertTrue(self.connector().enabled)
        await self.pool.query("ALTER TABLE target_away RENAME TO target")
        await self.until(lambda: self.replaced == 2)

    async def test_a_follower_that_fails_does_not_keep_the_news_from_the_others(self) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        heard: list[int] = []
        followers = [fail, lambda: heard.append(1)]
        snapshot = DirectorySnapshot(pool=self.pool, reactor=clock, on_change=followers)
        self.addCleanup(snapshot.stop)
        await snapshot.start()
        self.assertEqual(heard, [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_stopping_ends_the_wait_for_a_postgresql_that_is_away(self) -> None:
        nowhere = Pool(dsn="host=/nonexistent", size=1, reactor=clock, statement_timeout=5.0)
        self.addCleanup(nowhere.close)
        nowhere.start()
        snapshot = DirectorySnapshot(pool=nowhere, reactor=clock)
        first = snapshot.start()
        snapshot.stop()
        self.failureResultOf(first, CancelledError)


class HeldCopy(DirectoryCopy):
    """Begins to write only when it is let."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, reactor)
        self.let: Deferred[None] = Deferred()
        self.asked = 0

    def write(self, directory: Directory) -> Deferred[None]:
        self.asked += 1
        write = super().write
        gate: Deferred[None] = Deferred()
        self.let.chainDeferred(gate)
        self.let = Deferred()
        return gate.addCallback(lambda _: write(directory))


class CopyTests(ReactorTest):
    """The same with the copy on disk."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.dsn, self.pool = await migrated_pool(self)
        await apply_text(self.pool, WHOLE)
        self.file = Path(self.mktemp()).absolute()
        self.copy = DirectoryCopy(self.file, reactor)
        self.snapshot = self.made(self.pool, writes_copy=True)

    def made(
        self, pool: Pool, *, writes_copy: bool, changed: Callable[[], object] = list
    ) -> DirectorySnapshot:
        snapshot = DirectorySnapshot(
            pool=pool, reactor=clock, on_change=[changed], copy=self.copy, writes_copy=writes_copy
        )
        self.addCleanup(snapshot.stop)
        return snapshot

    def nowhere(self) -> Pool:
        """A pool whose PostgreSQL is away."""
        pool = Pool(dsn="host=/nonexistent", size=1, reactor=clock, statement_timeout=5.0)
        self.addCleanup(pool.close)
        pool.start()
        return pool

    async def until_written(self, holds: Callable[[Directory], bool]) -> None:
        while True:
            directory = await self.copy.read() if self.file.exists() else None
            if directory is not None and holds(directory):
                return
            await deferLater(clock, 0.01)

    async def test_without_postgresql_the_copy_is_in_force_and_start_still_waits(self) -> None:
        await self.snapshot.start()
        await self.until_written(lambda directory: "49123123" in directory.connectors)
        changes: list[object] = []
        other = self.made(self.nowhere(), writes_copy=False, changed=lambda: changes.append(1))
        first = other.start()
        self.assertEqual((other.loaded, other.stale), (False, False))
        self.assertTrue(await other.use_copy())
        self.assertEqual((other.loaded, other.stale, changes), (True, True, [1]))
        self.assertEqual(other.current().connectors, self.snapshot.current().connectors)
        self.assertNoResult(first)
        other.stop()
        self.failureResultOf(first, CancelledError)

    async def test_what_is_read_from_postgresql_takes_the_place_of_the_copy(self) -> None:
        await self.copy.write(Directory())
        self.assertTrue(await self.snapshot.use_copy())
        self.assertEqual((self.snapshot.current(), self.snapshot.stale), (Directory(), True))
        await self.snapshot.start()
        self.assertEqual(
            (list(self.snapshot.current().connectors), self.snapshot.stale), (["49123123"], False)
        )
        await self.until_written(lambda directory: "49123123" in directory.connectors)

    async def test_what_was_read_from_postgresql_is_not_replaced_by_the_copy(self) -> None:
        await self.copy.write(Directory())
        reader = self.made(self.pool, writes_copy=False)
        await reader.start()
        self.assertFalse(await reader.use_copy())
        self.assertEqual((list(reader.current().connectors), reader.stale), (["49123123"], False))

    async def test_postgresql_wins_also_while_the_copy_is_read(self) -> None:
        many = {
            str(n): Connector(id=n, client_id=1, number="", number_key=str(n), target_id=1)
            for n in range(50_000)
        }
        await self.copy.write(Directory(connectors=many))
        reader = self.made(self.pool, writes_copy=False)
        used = reader.use_copy()
        await reader.start()
        self.assertNoResult(used)
        self.assertFalse(await used)
        self.assertEqual((list(reader.current().connectors), reader.stale), (["49123123"], False))

    async def test_without_a_copy_there_is_nothing_to_use(self) -> None:
        self.assertFalse(await self.snapshot.use_copy())
        self.assertEqual((self.snapshot.loaded, self.snapshot.stale), (False, False))

    async def test_changes_while_the_copy_is_written_come_into_it_by_one_more_writing(self) -> None:
        self.copy = held = HeldCopy(self.file)
        snapshot = self.made(self.pool, writes_copy=True)
        let = held.let
        await snapshot.start()
        for number in ("1", "2", "3"):
            await apply_text(self.pool, f'[[connector]]\nclient = "acme/shop"\nnumber = "{number}"\n')
            snapshot.refresh()
            while number not in snapshot.current().connectors:
                await deferLater(clock, 0.005)
        self.assertEqual(held.asked, 1)
        again = held.let
        let.callback(None)
        await self.until_written(lambda directory: "49123123" in directory.connectors)
        self.assertNotIn("3", (await self.copy.read() or Directory()).connectors)
        again.callback(None)
        await self.until_written(lambda directory: {"1", "2", "3"} <= directory.connectors.keys())
        self.assertEqual(held.asked, 2)

    async def test_what_did_not_change_is_not_written_again(self) -> None:
        await self.snapshot.start()
        await self.until_written(lambda directory: True)
        before = self.file.stat().st_ino
        replaced: list[object] = []
        self.snapshot.follow(lambda: replaced.append(1))
        self.snapshot.refresh()
        while not replaced:
            await deferLater(clock, 0.005)
        await apply_text(self.pool, CONNECTOR_OFF)
        self.assertEqual(self.file.stat().st_ino, before)
        self.snapshot.refresh()
        await self.until_written(lambda directory: not directory.connectors["49123123"].enabled)

    async def test_one_that_is_not_to_write_leaves_the_copy_alone(self) -> None:
        reader = self.made(self.pool, writes_copy=False)
        await reader.start()
        await self.snapshot.start()
        await self.until_written(lambda directory: True)
        self.file.unlink()
        await apply_text(self.pool, CONNECTOR_OFF)
        reader.refresh()
        while reader.current().connectors["49123123"].enabled:
            await deferLater(clock, 0.005)
        await self.pool.query("SELECT 1")
        self.assertFalse(self.file.exists())

    async def test_a_copy_that_cannot_be_written_does_not_matter_to_the_snapshot(self) -> None:
        self.file.mkdir()
        await self.snapshot.start()
        await apply_text(self.pool, CONNECTOR_OFF)
        self.snapshot.refresh()
        while self.snapshot.current().connectors["49123123"].enabled:
            await deferLater(clock, 0.005)
        self.assertFalse(self.snapshot.stale)
