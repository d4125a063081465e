"""The benchmark's filled rows are what the daemon would have written, on a real PostgreSQL."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from smsdaemon.domain.ids import time_of, uuid7
from smsdaemon.domain.model import Attempt, Dead, Delivered, Postponed
from smsdaemon.intake import provider_key
from smsdaemon.store.pool import Pool
from tests.bench.filling import CHUNK, fill
from tests.support.stored_sms import StoredSmsTest, reactor, utc_now

ROWS = 4000
_IDS = "SELECT id::text, received_at, tableoid::regclass::text FROM message ORDER BY id"
_ENDED = """
SELECT m.id::text, e.tableoid::regclass::text, e.ended_at - m.received_at, e.id::text, e.seq, e.state,
       e.attempts, e.connector_id = m.connector_id AND e.sender = m.sender,
       (SELECT count(*) FROM attempt a WHERE a.message_id = m.id AND a.delivery_id = e.id)
FROM message m JOIN ended_delivery e ON e.message_id = m.id ORDER BY e.seq
"""


class FilledTests(StoredSmsTest):
    async def filled(self, total: int = ROWS, **more: Any) -> int:
        """``fill`` on one connection, as its temporary table wants."""
        pool = Pool(dsn=self.dsn, size=1, reactor=reactor, statement_timeout=0)
        pool.start()
        try:
            return await fill(pool, total, **more)
        finally:
            await pool.close()

    async def test_ids_are_of_the_time_of_receipt_and_in_its_partition(self) -> None:
        self.assertEqual(await self.filled(), ROWS)
        rows = await self.pool.query(_IDS)
        self.assertEqual(len({id_ for id_, *_ in rows}), ROWS)
        for text, at, partition in rows:
            ours = uuid7(at)
            id_ = UUID(text)
            self.assertEqual(time_of(id_), time_of(ours))
            self.assertEqual((id_.version, id_.variant), (ours.version, ours.variant))
            self.assertEqual(partition, f"message_{at:%Y%m}")
        times = [at for _, at, _ in rows]
        self.assertEqual(times, sorted(times))
        self.assertLess(timedelta(days=179), times[-1] - times[0])
        self.assertLess(times[-1], utc_now())
        self.assertGreaterEqual(len({partition for *_, partition in rows}), 6)

    async def test_each_has_one_end_in_the_same_partition(self) -> None:
        await self.filled()
        rows = await self.pool.query(_ENDED)
        self.assertEqual(len(rows), ROWS)
        self.assertEqual(len({seq for _, _, _, _, seq, *_ in rows}), ROWS)
        self.assertEqual([row[0] for row in rows], sorted(row[0] for row in rows))
        for id_, partition, took, delivery, _, state, attempts, same, recorded in rows:
            self.assertEqual(time_of(UUID(id_)), time_of(UUID(delivery)))
            self.assertEqual(partition, f"ended_delivery_{time_of(UUID(id_)):%Y%m}")
            self.assertLess(timedelta(0), took)
            self.assertTrue(same)
            self.assertEqual(recorded, attempts - 1)
            self.assertIn(state, ("delivered", "dead"))
        self.assertEqual(sum(row[5] == "dead" for row in rows), ROWS // 1000)
        self.assertEqual(sum(row[6] == 2 for row in rows), ROWS // 200)

    async def test_a_column_is_null_where_the_daemon_writes_null(self) -> None:
        await self.ended(Delivered(reason="answered 200"), text="x", status=200, provider_message_id="p")
        await self.ended(Dead(reason="answered 410"), text="x", status=410)
        tried = await self.leased("x")
        again = Postponed(delay_seconds=0, reason="answered 503")
        await self.store.settle(tried, again, Attempt(seconds=0.25, status=503))
        await self.store.claim(1, {}, 1)
        written = {table: await self.kinds(table) for table in ("message", "ended_delivery", "attempt")}
        for table in written:
            await self.pool.query(f"DELETE FROM {table}")
        await self.filled()
        for table, kinds in written.items():
            self.assertEqual(await self.kinds(table), kinds, table)

    async def kinds(self, table: str) -> set[str]:
        """Which columns are NULL together, and of which JSON type the others are."""
        rows = await self.pool.query(
            f"SELECT DISTINCT (SELECT json_object_agg(key, jsonb_typeof(value))::text"
            f" FROM jsonb_each(to_jsonb(t))) FROM {table} t"
        )
        return {json.dumps(json.loads(row[0]), sort_keys=True) for row in rows}

    async def test_more_are_added_to_what_is_there(self) -> None:
        await self.filled(1000)
        await self.waiting()
        self.assertEqual(await self.filled(3000), 3000)
        self.assertEqual(await self.filled(2000), 3000)
        last = (await self.pool.query("SELECT max(seq) FROM ended_delivery"))[0][0]
        [(following,)] = await self.pool.query("SELECT nextval('delivery_seq_seq')")
        self.assertGreater(following, last)

    async def test_it_ends_in_time(self) -> None:
        self.assertLessEqual(await self.filled(10 * CHUNK, seconds=0.0), CHUNK)

    async def test_a_repeat_of_a_filled_sms_is_recognised(self) -> None:
        await self.filled()
        [(id_, sender, text, message_id)] = await self.pool.query(
            "SELECT id::text, sender, text, provider_message_id FROM message"
            " WHERE provider_message_id IS NOT NULL ORDER BY id DESC LIMIT 1"
        )
        again = self.sms(text, sender=sender, provider_message_id=message_id)
        receipt = await self.received.accept(again, provider_key(again), False)
        self.assertEqual((str(receipt.id), receipt.duplicate), (id_, True))
        [(oldest,)] = await self.pool.query("SELECT min(seen_at) FROM provider_repeat")
        self.assertLess(utc_now() - oldest, timedelta(days=7))

    async def test_the_commands_work_on_filled_rows(self) -> None:
        await self.filled()
        listed = await self.command("messages", "--json", "--limit", "5")
        self.assertEqual(len(listed.out.splitlines()), 5)
        [row] = await self.pool.query(
            "SELECT m.id::text, m.provider_message_id FROM message m JOIN attempt a ON a.message_id = m.id"
            " ORDER BY m.id DESC LIMIT 1"
        )
        told = json.loads((await self.command("why", "--json", row[0])).out)["sms"]
        [delivery] = told["deliveries"]
        self.assertEqual([a["outcome"] for a in delivery["attempts"]], ["retry", "delivered"])
        [(named,)] = await self.pool.query(
            "SELECT provider_message_id FROM message WHERE provider_message_id IS NOT NULL LIMIT 1"
        )
        self.assertEqual((await self.command("why", named)).status, 0)
        status = json.loads((await self.command("status", "--json")).out)
        self.assertEqual((status["pending"], status["dead"]), (0, ROWS // 1000))
