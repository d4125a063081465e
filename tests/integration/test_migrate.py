"""Bringing the schema up to date, alone and in competition."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults

from smsdaemon.errors import SchemaMismatch, StoreRefused
from smsdaemon.store.migrate import Migration, migrate, migrations
from smsdaemon.store.pool import Pool, Run
from tests.support.cases import ReactorTest, UnitTest
from tests.support.postgres import fresh_database

reactor = cast(Any, _reactor)


class MigrateTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        dsn = await fresh_database(self)
        self.pool = Pool(dsn=dsn, size=4, reactor=reactor, statement_timeout=5.0)
        self.addCleanup(self.pool.close)
        self.pool.start()

    async def test_an_empty_database_gets_everything_and_a_second_run_does_nothing(self) -> None:
        known = [m.name for m in migrations()]
        self.assertEqual(await migrate(self.pool), known)
        self.assertEqual(await migrate(self.pool), [])
        rows = await self.pool.query("SELECT number FROM schema_version")
        self.assertEqual(rows, [(len(known),)])

    async def test_of_four_at_once_one_migrates_and_the_others_find_it_done(self) -> None:
        done = await gatherResults([migrate(self.pool) for _ in range(4)])
        self.assertEqual(sorted(len(names) for names in done), [0, 0, 0, len(migrations())])

    async def test_a_step_that_fails_leaves_the_database_as_it_was(self) -> None:
        broken = [*migrations(), Migration(99, "0099_broken.sql", "CREATE TABLE x (); SELECT 1/0", 99)]
        await self.assertFailure(migrate(self.pool, broken), StoreRefused)
        self.assertEqual(
            await self.pool.query("SELECT to_regclass('message'), to_regclass('x')"), [(None, None)]
        )

    async def test_older_code_that_can_no_longer_run_refuses_and_says_what_is_needed(self) -> None:
        newer = [*migrations(), Migration(50, "0050_x.sql", "CREATE TABLE x ()", 50)]
        await migrate(self.pool, newer)
        error = await self.assertFailure(migrate(self.pool), SchemaMismatch)
        self.assertIn("schema 50", str(error))

    async def test_older_code_runs_on_a_newer_schema_that_says_it_may(self) -> None:
        newer = [*migrations(), Migration(50, "0050_x.sql", "CREATE TABLE x ()", oldest_code=1)]
        await migrate(self.pool, newer)
        self.assertEqual(await migrate(self.pool), [])
        self.assertEqual(await self.pool.query("SELECT number FROM schema_version"), [(50,)])

    async def test_the_partitions_of_this_month_and_the_next_are_there(self) -> None:
        await migrate(self.pool)
        rows = await self.pool.query(
            "SELECT to_regclass(p || to_char(now() AT TIME ZONE 'UTC' + m * interval '1 month', '_YYYYMM'))"
            " IS NOT NULL FROM (VALUES ('message'), ('ended_delivery')) p(p), (VALUES (0), (1)) m(m)"
        )
        self.assertEqual(rows, [(True,)] * 4)

    async def test_a_backup_does_not_keep_sms_from_being_stored_while_a_partition_is_due(self) -> None:
        await migrate(self.pool)
        await self.pool.query("DO $$ DECLARE p text; BEGIN" + _DROP_NEXT_MONTH + "END $$")
        reading: Deferred[None] = Deferred()
        read: Deferred[None] = Deferred()

        async def backup(run: Run) -> None:
            await run("SELECT count(*) FROM message")  # holds what pg_dump holds until it ends
            reading.callback(None)
            await read

        dump = self.pool.transaction(backup)
        await reading
        began = reactor.seconds()
        self.assertEqual(await migrate(self.pool), [])
        await self.pool.query(_STORE_ONE)
        self.assertLess(reactor.seconds() - began, 3.0)
        self.assertEqual(await self.pool.query(_NEXT_MONTH), [(False,)])
        read.callback(None)
        await dump
        await migrate(self.pool)
        self.assertEqual(await self.pool.query(_NEXT_MONTH), [(True,)])


_NEXT_MONTH = """
SELECT to_regclass('message' || to_char(now() AT TIME ZONE 'UTC' + interval '1 month', '_YYYYMM')) IS NOT NULL
"""
_DROP_NEXT_MONTH = """
    FOREACH p IN ARRAY ARRAY['message', 'ended_delivery', 'attempt'] LOOP
        EXECUTE 'DROP TABLE ' || p || to_char(now() AT TIME ZONE 'UTC' + interval '1 month', '_YYYYMM');
    END LOOP;
"""
_STORE_ONE = """
INSERT INTO message (id, received_at, connector_id, client_id, receiver, sender, sender_raw, text, provider,
                     encoding, parts)
VALUES (gen_random_uuid(), now(), 1, 1, '1', '2', '2', '', 'generic', 'utf-8', 1)
"""


class MigrationFileTests(UnitTest):
    def test_the_files_are_numbered_without_gaps_and_say_which_code_may_run(self) -> None:
        found = migrations()
        self.assertEqual([m.number for m in found], list(range(1, len(found) + 1)))
        for migration in found:
            self.assertLessEqual(migration.oldest_code, migration.number)
