"""Targets that are left alone, over all processes, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults

from smsdaemon.domain.model import Delivered, Delivery, Postponed
from smsdaemon.store.breakers import CHANNEL
from smsdaemon.store.pool import Listener, Pool
from tests.integration.test_store import sms
from tests.support.cases import ReactorTest
from tests.support.leasing import Store, make_store
from tests.support.store import apply_text, migrated_pool

reactor = cast(Any, _reactor)
DIRECTORY = """
[[reseller]]
name = "acme"
[[client]]
name = "shop"
reseller = "acme"
"""
GROUP = """
[[acd_group]]
client = "acme/shop"
name = "support"
url = "log:"
"""
GIVEN_BACK = Postponed(delay_seconds=0, reason="", attempted=False)


class BreakerTest(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.dsn, self.pool = await migrated_pool(self, size=4)
        await apply_text(self.pool, DIRECTORY + GROUP)
        [(self.target,)] = await self.pool.query("SELECT id FROM target")
        self.here, self.there = self.make(self.pool), self.make(self.another_pool())

    def make(self, pool: Pool, probe_seconds: float = 3600) -> Store:
        return make_store(self, pool, probe_seconds=probe_seconds)

    def another_pool(self) -> Pool:
        pool = Pool(dsn=self.dsn, size=4, reactor=reactor, statement_timeout=5.0)
        self.addCleanup(pool.close)
        pool.start()
        return pool

    async def accept(self, sender: str, target: int | None = None) -> None:
        await self.here.accept(sms(sender=sender, target_id=target or self.target), None, False)

    async def claim(self, store: Store | None = None) -> list[str]:
        """The senders of what is claimed."""
        claimed: Sequence[Delivery] = await (store or self.here).claim(100, {}, 100)
        return [delivery.sms.sender for delivery in claimed]

    async def probe_is_due(self) -> None:
        await self.pool.query("UPDATE open_breaker SET probe_at = now()")


class OpenBreakerTests(BreakerTest):
    async def test_every_process_reads_what_one_has_opened_or_closed(self) -> None:
        await self.here.deliveries.open_breaker(self.target, "answered 500")
        self.assertEqual(await self.there.deliveries.open_breakers(), {self.target})
        await self.there.deliveries.close_breaker(self.target)
        self.assertEqual(await self.here.deliveries.open_breakers(), frozenset())

    async def test_every_process_is_told_once_of_a_change_and_of_nothing_else(self) -> None:
        heard: list[None] = []
        listening: Deferred[None] = Deferred()
        listener = Listener(
            dsn=self.dsn,
            channels={CHANNEL: lambda: heard.append(None)},
            on_listening=lambda: listening.callback(None),
            reactor=reactor,
        )
        self.addCleanup(listener.close)
        listener.start()
        await listening
        for _ in range(3):
            await self.here.deliveries.open_breaker(self.target, "answered 500")
        for _ in range(3):
            await self.there.deliveries.close_breaker(self.target)
        while len(heard) < 2:
            await self.pool.query("SELECT pg_sleep(0.01)")
        self.assertEqual(len(heard), 2)

    async def test_nothing_of_the_target_is_claimed_and_all_of_others(self) -> None:
        await self.here.deliveries.open_breaker(self.target, "answered 500")
        for n in range(3):
            await self.accept(f"+{n}")
            await self.accept(f"+1{n}", target=99)
        self.assertEqual(sorted(await self.claim(self.there)), ["+10", "+11", "+12"])

    async def test_when_it_is_closed_all_that_waited_is_claimed_at_once_in_its_first_attempt(self) -> None:
        await self.here.deliveries.open_breaker(self.target, "answered 500")
        for n in range(20):
            await self.accept(f"+{n}")
        self.assertEqual(await self.claim(), [])
        await self.here.deliveries.close_breaker(self.target)
        claimed = await self.there.claim(100, {}, 100)
        self.assertEqual(len(claimed), 20)
        self.assertEqual({(delivery.attempt, delivery.round_attempt) for delivery in claimed}, {(1, 1)})

    async def test_a_removed_targets_breaker_disappears_and_none_is_opened_for_it(self) -> None:
        await self.here.deliveries.open_breaker(self.target, "answered 500")
        await apply_text(self.pool, DIRECTORY, prune=True)
        self.assertEqual(await self.there.deliveries.open_breakers(), frozenset())
        await self.here.deliveries.open_breaker(self.target, "answered 500")
        self.assertEqual(await self.pool.query("SELECT * FROM open_breaker"), [])


class ProbeTests(BreakerTest):
    async def test_of_all_processes_together_one_gets_one_delivery_when_a_probe_is_due(self) -> None:
        await self.here.deliveries.open_breaker(self.target, "answered 500")
        for n in range(20):
            await self.accept(f"+{n}")
        for _ in range(5):
            await self.probe_is_due()
            claims = await gatherResults(
                [store.claim(100, {}, 100) for _ in range(4) for store in (self.here, self.there)]
            )
            self.assertEqual(sum(len(claimed) for claimed in claims), 1)

    async def test_probes_come_at_their_pace(self) -> None:
        store = self.make(self.pool, probe_seconds=0.2)
        await store.deliveries.open_breaker(self.target, "answered 500")
        for n in range(20):
            await self.accept(f"+{n}")
        probes: list[float] = []
        while len(probes) < 4:
            [(at,)] = await self.pool.query("SELECT extract(epoch FROM now())::float8")
            probes += [at] * len(await self.claim(store))
        self.assertGreater(probes[3] - probes[0], 3 * 0.2 - 0.05)

    async def test_a_probe_is_the_newest_so_that_the_oldest_holds_up_nobody(self) -> None:
        await self.here.deliveries.open_breaker(self.target, "answered 500")
        for n in range(5):
            await self.accept(f"+{n}")
        await self.probe_is_due()
        self.assertEqual(await self.claim(), ["+4"])

    async def test_a_probe_waits_until_something_is_due_and_there_is_room_for_it(self) -> None:
        await self.here.deliveries.open_breaker(self.target, "answered 500")
        await self.probe_is_due()
        self.assertEqual(await self.claim(), [])
        await self.accept("+1")
        self.assertEqual(list(await self.here.claim(100, {self.target: 0}, 100)), [])
        self.assertEqual(await self.claim(), ["+1"])

    async def test_a_failed_probe_uses_an_attempt_of_its_delivery_and_of_no_other(self) -> None:
        await self.here.deliveries.open_breaker(self.target, "answered 500")
        for n in range(3):
            await self.accept(f"+{n}")
        await self.probe_is_due()
        [probe] = await self.here.claim(100, {}, 100)
        await self.here.settle(probe, Postponed(delay_seconds=0, reason="answered 500"), None)
        rows = await self.pool.query("SELECT sender, attempts FROM delivery ORDER BY sender")
        self.assertEqual(rows, [("+0", 0), ("+1", 0), ("+2", 1)])


class GivenBackTests(BreakerTest):
    async def test_what_was_leased_is_given_back_as_if_it_had_never_been(self) -> None:
        receipt = await self.here.accept(sms(target_id=self.target), None, True)
        assert receipt.delivery is not None
        before = await self.pool.query("SELECT due_at FROM delivery")
        await self.here.settle(receipt.delivery, GIVEN_BACK, None)
        self.assertEqual(await self.pool.query("SELECT due_at FROM delivery"), before)
        # A round that has not begun is not given up, however long it waits.
        self.assertEqual(
            await self.pool.query("SELECT attempts, round_started_at FROM delivery"), [(0, None)]
        )
        self.assertEqual(await self.pool.query("SELECT * FROM attempt"), [])
        [again] = await self.there.claim(100, {}, 100)
        self.assertEqual((again.attempt, again.round_attempt, again.round_seconds), (1, 1, 0))

    async def test_a_successor_that_is_given_back_stays_before_what_came_later(self) -> None:
        first = await self.here.accept(sms(text="1", target_id=self.target), None, True)
        for text in ("2", "3"):
            await self.here.accept(sms(text=text, target_id=self.target), None, True)
        assert first.delivery is not None
        second = await self.here.settle(first.delivery, Delivered(), None)
        assert second is not None
        self.assertIsNone(await self.here.settle(second, GIVEN_BACK, None))
        [again] = await self.there.claim(100, {}, 100)
        self.assertEqual(again.sms.text, "2")
