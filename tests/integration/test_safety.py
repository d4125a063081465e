"""The guarantee in force, as it is read from real servers that keep none, or only a part of it."""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import IReactorTime

from smsdaemon.errors import UnsafeDatabase
from smsdaemon.store.migrate import migrate
from smsdaemon.store.pool import Pool
from smsdaemon.store.safety import Guarantee, GuaranteeInForce, check_guarantee, read_guarantee
from tests.support.cases import ReactorTest
from tests.support.settable_postgres import SettablePostgres
from tests.support.store import migrated_pool

RANGE = "FROM (MINVALUE) TO ('00000000-0000-0000-0000-000000000001')"


class GuaranteeTest(ReactorTest):
    def pool(self, dsn: str) -> Pool:
        from twisted.internet import reactor

        pool = Pool(dsn=dsn, size=1, reactor=cast(IReactorTime, reactor), statement_timeout=5.0)
        self.addCleanup(pool.close)
        pool.start()
        return pool

    async def look(self, dsn: str) -> Guarantee:
        """What a new session finds."""
        pool = self.pool(dsn)
        try:
            return await read_guarantee(pool)
        finally:
            await pool.close()

    def assert_one(self, lines: list[str], begins: str) -> None:
        self.assertEqual([line[: len(begins)] for line in lines], [begins])


class SafeTests(GuaranteeTest):
    async def test_a_safe_server_is_stated_in_one_line(self) -> None:
        _, pool = await migrated_pool(self)
        found = await check_guarantee(pool, allow_unsafe=False)
        self.assertEqual((found.problems, found.warnings), ([], []))
        self.assertEqual(
            found.statement, f"200 means: committed with fsync on PostgreSQL {found.version}; 0 replicas"
        )
        [(version,)] = await pool.query("SHOW server_version")
        self.assertEqual(found.version, str(version).split()[0])

    async def test_every_table_and_sequence_of_ours_is_looked_at(self) -> None:
        _, pool = await migrated_pool(self)
        await pool.query("CREATE UNLOGGED TABLE somebody_elses (id bigint)")
        await pool.query("ALTER TABLE ended_delivery_elsewhen SET UNLOGGED")
        await pool.query("ALTER SEQUENCE delivery_seq_seq SET UNLOGGED")
        await pool.query(f"CREATE UNLOGGED TABLE far PARTITION OF attempt FOR VALUES {RANGE}")
        found = await read_guarantee(pool)
        self.assertEqual(found.unlogged, ("delivery_seq_seq", "ended_delivery_elsewhen", "far"))
        self.assert_one(found.problems, "unlogged: delivery_seq_seq, ended_delivery_elsewhen, far: ")
        with self.assertRaises(UnsafeDatabase):
            await check_guarantee(pool, allow_unsafe=False)


class UnsafeTests(GuaranteeTest):
    async def test_what_is_off_anywhere_is_found_and_refused(self) -> None:
        server = SettablePostgres(self)
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            server.set(**{name: "off"})
            found = await self.look(server.dsn)
            self.assert_one(found.problems, f"{name} is off: ")
            self.assertIn(f"but not safe: {name} is off", found.statement)
            with self.assertRaises(UnsafeDatabase) as refused:
                await check_guarantee(self.pool(server.dsn), allow_unsafe=False)
            self.assertEqual(refused.exception.problems, [f"database: {found.problems[0]}"])
            self.assertEqual(await check_guarantee(self.pool(server.dsn), allow_unsafe=True), found)
            server.set(**{name: ""})
        for where in ("DATABASE smsdaemon", "ROLE smsdaemon", "ROLE smsdaemon IN DATABASE smsdaemon"):
            server.execute(f"ALTER {where} SET synchronous_commit = off")
            self.assert_one((await self.look(server.dsn)).problems, "synchronous_commit is off: ")
            safe = await self.look(f"{server.dsn} options='-c synchronous_commit=on'")
            self.assertEqual(safe.problems, [])
            server.execute(f"ALTER {where} RESET synchronous_commit")
        self.assertEqual((await self.look(server.dsn)).problems, [])
        for encoding in ("LATIN1", "SQL_ASCII"):
            found = await self.look(server.make_database(encoding.lower(), encoding))
            self.assert_one(found.problems, f"the database's encoding is {encoding}: ")

    async def test_what_changes_while_the_daemon_runs_is_told(self) -> None:
        server = SettablePostgres(self)
        pool = self.pool(server.dsn)
        await migrate(pool)
        in_force = GuaranteeInForce(pool=pool, allow_unsafe=False)
        self.assertEqual(in_force.detail(), "not known yet")
        await in_force.check()
        self.assertIn("committed with fsync", in_force.detail())
        server.set(fsync="off")
        # An older session keeps what it had when it began; the next one does not.
        server.execute("ALTER ROLE smsdaemon SET synchronous_commit = 'False'")
        await in_force.look_again()
        self.assertIn("fsync is off, synchronous_commit is off in new connections", in_force.detail())
        server.set(fsync="")
        server.execute("ALTER ROLE smsdaemon RESET synchronous_commit")
        await in_force.look_again()
        self.assertIn("committed with fsync", in_force.detail())
        await pool.close()
        await in_force.look_again()
        self.assertIn("committed with fsync", in_force.detail(), "what is not known anew stays")


class ReplicaTests(GuaranteeTest):
    async def test_a_replica_that_nobody_waits_for_is_a_warning(self) -> None:
        server = SettablePostgres(self)
        server.set(synchronous_standby_names="replica")
        # This would wait for ever with the default.
        found = await self.look(f"{server.dsn} options='-c synchronous_commit=local'")
        self.assert_one(found.warnings, "synchronous_commit is local: no replica is waited for")
        self.assert_one(
            (await self.look(server.dsn)).warnings,
            "synchronous_standby_names is set and no replica is connected: nothing can be committed",
        )
        server.set(synchronous_standby_names="")
        server.add_replica(self)
        found = await self.look(server.dsn)
        self.assertEqual(found.problems, [])
        self.assert_one(found.warnings, "1 replica connected, synchronous_standby_names is empty: a failover")
        self.assertTrue(found.statement.endswith("; 1 replica"), found.statement)
        self.assertIn("warning: 1 replica connected", await self.detail(server))
        server.execute("CREATE ROLE plain")
        found = await self.look(f"{server.dsn} options='-c role=plain'")
        self.assertEqual(found.replicas, 1, "a role without rights finds it too")
        server.set(synchronous_standby_names="replica")
        found = await self.look(server.dsn)
        self.assertEqual(found.warnings, [])
        self.assertTrue(found.statement.endswith("; 1 replica, synchronous by replica"), found.statement)
        found = await self.look(f"{server.dsn} options='-c synchronous_commit=remote_write'")
        self.assert_one(found.warnings, "synchronous_commit is remote_write: ")

    async def detail(self, server: SettablePostgres) -> str:
        in_force = GuaranteeInForce(pool=self.pool(server.dsn), allow_unsafe=False)
        await in_force.check()
        return in_force.detail()
