"""Nonces on a real PostgreSQL: seen once by all processes, whatever happens in between."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults

from smsdaemon.store.nonces import PostgresNonces, forget_nonces
from smsdaemon.store.pool import Pool
from tests.integration.test_journaled import Gate
from tests.support.cases import ReactorTest
from tests.support.store import migrated_pool

reactor = cast(Any, _reactor)


class NonceTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.pool: Pool
        _, self.pool = await migrated_pool(self, size=3)
        self.gate, self.one = self.process()
        _, self.other = self.process()

    def process(self) -> tuple[Gate, PostgresNonces]:
        gate = Gate(self.pool)
        nonces = PostgresNonces(pool=cast(Pool, gate), timer=reactor)
        self.addCleanup(nonces.close)
        self.addCleanup(gate.open)
        return gate, nonces

    async def test_the_same_content_is_a_repeat_and_any_other_is_refused_by_every_process(self) -> None:
        self.assertTrue(await self.one.see(1, "n", b"a", True))
        for nonces in (self.one, self.other):
            self.assertTrue(await nonces.see(1, "n", b"a", True))
            self.assertFalse(await nonces.see(1, "n", b"b", True))
            self.assertFalse(await nonces.see(1, "n", b"b", True))
            self.assertTrue(await nonces.see(2, "n", b"b", True))

    async def test_of_many_at_once_one_content_wins(self) -> None:
        asked: list[Deferred[bool]] = [
            nonces.see(1, "n", bytes([k]), True) for k in range(20) for nonces in (self.one, self.other)
        ]
        results = await gatherResults(asked)
        self.assertLessEqual(results.count(True), 2)
        self.assertGreaterEqual(results.count(True), 1)

    async def test_while_postgres_is_away_memory_has_to_do_and_is_written_down_later(self) -> None:
        for state in ("gone", "hangs"):
            self.gate.shut(state)
            self.assertTrue(await self.one.see(1, state, b"a", True))
            self.assertTrue(await self.one.see(1, state, b"a", True))
            self.assertFalse(await self.one.see(1, state, b"b", True))
            self.gate.open()
            self.assertTrue(await self.one.see(1, f"next {state}", b"a", True))
            self.assertFalse(await self.other.see(1, state, b"b", True))

    async def test_they_are_forgotten_after_a_day(self) -> None:
        await self.one.see(1, "old", b"a", True)
        await self.pool.query("UPDATE provider_nonce SET seen_at = now() - interval '25 hours'")
        await self.one.see(1, "new", b"a", True)
        self.assertEqual(await forget_nonces(self.pool, at_once=1), 1)
        self.assertTrue(await self.other.see(1, "old", b"b", True))

    async def test_those_of_signatures_without_a_time_last_a_month(self) -> None:
        long_ago = "UPDATE provider_nonce SET seen_at = seen_at - interval '29 days'"
        await self.one.see(-(2**63), "n", b"a", False)
        await self.pool.query(long_ago)
        self.assertEqual(await forget_nonces(self.pool), 0)
        self.assertFalse(await self.other.see(-(2**63), "n", b"b", False))
        await self.pool.query("UPDATE provider_nonce SET seen_at = seen_at - interval '2 days'")
        self.assertEqual(await forget_nonces(self.pool), 1)
