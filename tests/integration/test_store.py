"""The message store on a real PostgreSQL: durability, repeats, order, leases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import ensureDeferred, gatherResults

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import (
    Dead,
    Delivered,
    Delivery,
    Hop,
    InboundSMS,
    Postponed,
    Receipt,
)
from smsdaemon.errors import LeaseLost, StoreRefused
from smsdaemon.store.messages import forget_repeats
from smsdaemon.store.pool import Pool
from smsdaemon.store.support import queue_state
from tests.support.cases import ReactorTest
from tests.support.deliveries import target
from tests.support.leasing import Store, make_store
from tests.support.store import migrated_pool

reactor = cast(Any, _reactor)


def utc_now() -> datetime:
    return datetime.now(UTC)


def sms(sender: str = "+49789789", text: str = "x", target_id: int = 1, **fields: Any) -> InboundSMS:
    now = utc_now()
    values: dict[str, Any] = {"id": uuid7(now), "received_at": now, "connector_id": 1, "client_id": 1}
    values |= {"receiver": "+49123123", "sender_raw": sender, "sender": sender, "text": text}
    return InboundSMS(**{**values, "target_id": target_id, **fields})


class StoreTest(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.dsn, self.pool = await migrated_pool(self, size=4)
        self.store = self.make_store(self.pool)

    def make_store(
        self, pool: Pool, lease_seconds: float = 60.0, first_delay: float = 0, holder: str = "here:1"
    ) -> Store:
        return make_store(self, pool, lease_seconds, first_delay, holder)

    def another_pool(self) -> Pool:
        """Of another process, so to say."""
        pool = Pool(dsn=self.dsn, size=4, reactor=reactor, statement_timeout=5.0)
        self.addCleanup(pool.close)
        pool.start()
        return pool

    async def accept(self, message: InboundSMS, key: bytes | None = None, lease: bool = True) -> Receipt:
        return await self.store.accept(message, key, lease)

    async def leased(self, message: InboundSMS) -> Delivery:
        receipt = await self.accept(message)
        assert receipt.delivery is not None
        return receipt.delivery

    async def count(self, table: str) -> int:
        [(n,)] = await self.pool.query(f"SELECT count(*) FROM {table}")
        return int(n)

    async def claim(self, room: dict[int, int] | None = None, limit: int = 100) -> list[Delivery]:
        return list(await self.store.claim(limit, room or {}, 32))


class AcceptTests(StoreTest):
    async def test_an_accepted_sms_is_stored_as_it_came_with_a_leased_delivery(self) -> None:
        message = sms(text="Grüße 👋 \\ ' \"", keyword="INFO", provider_message_id="m1")
        delivery = await self.leased(message)
        self.assertEqual(delivery.sms, message)
        rows = await self.pool.query(
            "SELECT id, received_at, text, keyword, provider_message_id, sender, receiver FROM message"
        )
        expected = (str(message.id), message.received_at, message.text, "INFO", "m1")
        self.assertEqual(rows, [(*expected, message.sender, message.receiver)])
        self.assertEqual(await self.pool.query("SELECT id FROM delivery"), [(str(delivery.id),)])

    async def test_without_a_place_the_delivery_is_due_but_not_leased(self) -> None:
        receipt = await self.accept(sms(), lease=False)
        self.assertIsNone(receipt.delivery)
        [claimed] = await self.claim()
        self.assertEqual(claimed.sms.id, receipt.id)

    async def test_with_a_delay_before_the_first_attempt_nothing_is_leased_or_due_yet(self) -> None:
        store = self.make_store(self.pool, first_delay=3600)
        receipt = await store.accept(sms(), None, True)
        self.assertIsNone(receipt.delivery)
        self.assertEqual(await self.claim(), [])

    async def test_many_at_once_are_all_stored_in_few_transactions(self) -> None:
        [(before,)] = await self.pool.query("SELECT txid_current()")
        messages = [sms(sender=f"+49{n}") for n in range(300)]
        receipts = await gatherResults([self.store.accept(m, None, True) for m in messages])
        [(after,)] = await self.pool.query("SELECT txid_current()")
        self.assertEqual([r.id for r in receipts], [m.id for m in messages])
        self.assertEqual(await self.count("message"), 300)
        self.assertLess(after - before, 30)

    async def test_a_row_that_the_database_refuses_fails_alone(self) -> None:
        good, bad, other = sms(sender="+1"), sms(sender="+2", text="a\0b"), sms(sender="+3")
        results = [self.store.accept(m, None, True) for m in (sms(sender="+0"), good, bad, other)]
        refused = self.assertFailure(results.pop(2), StoreRefused)
        receipts = await gatherResults(results)
        await refused
        self.assertEqual([r.id for r in receipts[1:]], [good.id, other.id])
        self.assertEqual(await self.count("message"), 3)


class RepeatTests(StoreTest):
    async def test_a_repeat_names_the_first_sms_and_stores_nothing(self) -> None:
        first = await self.accept(sms(), b"k")
        again = await self.accept(sms(), b"k")
        self.assertEqual((again.id, again.duplicate, again.delivery), (first.id, True, None))
        self.assertEqual((await self.count("message"), await self.count("delivery")), (1, 1))

    async def test_repeats_in_one_batch_and_over_two_processes_become_one_sms(self) -> None:
        other = self.make_store(self.another_pool())
        stores = [self.store, other]
        receipts = await gatherResults(
            [stores[n % 2].accept(sms(sender=f"+{n}"), b"same", True) for n in range(50)]
        )
        self.assertEqual(len({r.id for r in receipts}), 1)
        self.assertEqual([r.duplicate for r in receipts].count(False), 1)
        self.assertEqual((await self.count("message"), await self.count("delivery")), (1, 1))

    async def test_after_seven_days_the_same_is_a_new_sms(self) -> None:
        first = await self.accept(sms(), b"k")
        await self.pool.query("UPDATE provider_repeat SET seen_at = seen_at - interval '8 days'")
        again = await self.accept(sms(), b"k")
        self.assertFalse(again.duplicate)
        self.assertNotEqual(again.id, first.id)
        third = await self.accept(sms(), b"k")
        self.assertEqual((third.id, third.duplicate), (again.id, True))

    async def test_only_old_repeats_are_forgotten(self) -> None:
        await self.accept(sms(), b"old")
        await self.pool.query("UPDATE provider_repeat SET seen_at = seen_at - interval '8 days'")
        await self.accept(sms(), b"new")
        self.assertEqual(await forget_repeats(self.pool), 1)
        self.assertEqual(
            await self.pool.query("SELECT encode(key, 'escape') FROM provider_repeat"), [("new",)]
        )

    async def test_all_old_repeats_are_forgotten_however_many_they_are(self) -> None:
        for n in range(5):
            await self.accept(sms(), str(n).encode())
        await self.pool.query("UPDATE provider_repeat SET seen_at = seen_at - interval '8 days'")
        self.assertEqual(await forget_repeats(self.pool, at_once=2), 5)
        self.assertEqual(await self.count("provider_repeat"), 0)


class OrderTests(StoreTest):
    async def test_behind_a_pending_one_of_its_conversation_an_sms_is_not_leased(self) -> None:
        await self.leased(sms(text="1"))
        self.assertIsNone((await self.accept(sms(text="2"))).delivery)
        self.assertEqual(await self.claim(), [])

    async def test_other_senders_and_other_targets_do_not_wait(self) -> None:
        await self.leased(sms(sender="+1"))
        self.assertIsNotNone((await self.accept(sms(sender="+2"))).delivery)
        self.assertIsNotNone((await self.accept(sms(sender="+1", target_id=2))).delivery)

    async def test_of_many_at_once_only_the_first_of_a_conversation_is_leased(self) -> None:
        receipts = await gatherResults([self.store.accept(sms(text=str(n)), None, True) for n in range(50)])
        self.assertEqual([r.delivery is not None for r in receipts], [True] + [False] * 49)

    async def test_what_a_process_accepts_is_ordered_as_it_came(self) -> None:
        await gatherResults([self.store.accept(sms(text=str(n)), None, True) for n in range(500)])
        rows = await self.pool.query(
            "SELECT m.text FROM delivery d JOIN message m ON m.id = d.message_id ORDER BY d.seq"
        )
        self.assertEqual(rows, [(str(n),) for n in range(500)])

    async def test_settling_hands_over_the_next_of_the_conversation_until_none_is_left(self) -> None:
        delivery: Delivery | None = await self.leased(sms(text="0"))
        for n in range(1, 5):
            await self.accept(sms(text=str(n)))
        seen = []
        while delivery is not None:
            seen.append(delivery.sms.text)
            delivery = await self.store.settle(delivery, Delivered(), None)
        self.assertEqual(seen, ["0", "1", "2", "3", "4"])
        self.assertEqual((await self.count("delivery"), await self.count("ended_delivery")), (0, 5))

    async def test_a_postponed_head_keeps_the_others_waiting_and_a_dead_one_lets_them_go(self) -> None:
        head = await self.leased(sms(text="1"))
        await self.accept(sms(text="2"))
        self.assertIsNone(await self.store.settle(head, Postponed(delay_seconds=0, reason="busy"), None))
        [again] = await self.claim()
        self.assertEqual((again.sms.text, again.attempt, again.round_attempt), ("1", 2, 2))
        following = await self.store.settle(again, Dead(reason="410"), None)
        assert following is not None
        self.assertEqual(following.sms.text, "2")

    async def test_a_postponed_delivery_is_not_due_before_its_time(self) -> None:
        await self.store.settle(await self.leased(sms()), Postponed(delay_seconds=3600, reason="busy"), None)
        self.assertEqual(await self.claim(), [])

    async def test_a_lease_given_back_unused_counts_as_no_attempt(self) -> None:
        unused = Postponed(delay_seconds=0, reason="", attempted=False)
        await self.store.settle(await self.leased(sms()), unused, None)
        [again] = await self.claim()
        self.assertEqual((again.attempt, again.round_attempt), (1, 1))

    async def test_conversations_stay_whole_while_two_processes_accept_and_settle_at_once(self) -> None:
        """The race of a newcomer behind a head with the end of that head: nobody is left behind."""
        stores = [self.store, self.make_store(self.another_pool())]
        in_flight: dict[str, str] = {}
        seen: dict[str, list[int]] = {f"+{s}": [] for s in range(4)}

        async def deliver(store: Store, delivery: Delivery | None) -> None:
            while delivery is not None:
                sender = delivery.sms.sender
                self.assertNotIn(sender, in_flight)
                in_flight[sender] = delivery.sms.text
                seen[sender].append(int(delivery.sms.text))
                del in_flight[sender]
                delivery = await store.settle(delivery, Delivered(), None)

        async def provide(sender: str) -> None:
            for n in range(60):
                store = stores[n % 2]
                receipt = await store.accept(sms(sender=sender, text=str(n)), None, True)
                if receipt.delivery is not None:
                    deliveries.append(ensureDeferred(deliver(store, receipt.delivery)))

        deliveries: list[Any] = []
        await gatherResults([ensureDeferred(provide(sender)) for sender in seen])
        await gatherResults(deliveries)
        self.assertEqual(seen, {sender: list(range(60)) for sender in seen})
        self.assertEqual(await self.count("delivery"), 0)


class LeaseTests(StoreTest):
    async def test_what_is_leased_is_not_claimed_by_another_until_the_lease_is_over(self) -> None:
        short = self.make_store(self.pool, lease_seconds=0.2)
        receipt = await short.accept(sms(), None, True)
        self.assertEqual(await self.claim(), [])
        await self.pool.query("SELECT pg_sleep(0.25)")
        [claimed] = await self.claim()
        self.assertEqual((claimed.sms.id, claimed.attempt), (receipt.id, 2))

    async def test_an_outcome_of_a_lost_lease_changes_nothing(self) -> None:
        short = self.make_store(self.pool, lease_seconds=0.05)
        receipt = await short.accept(sms(), None, True)
        assert receipt.delivery is not None
        await self.pool.query("SELECT pg_sleep(0.1)")
        [current] = await self.claim()
        await self.assertFailure(short.settle(receipt.delivery, Dead(reason="late"), None), LeaseLost)
        self.assertEqual((await self.count("delivery"), await self.count("ended_delivery")), (1, 0))
        await self.store.settle(current, Delivered(), None)
        self.assertEqual((await self.count("delivery"), await self.count("ended_delivery")), (0, 1))

    async def test_two_claims_at_once_never_get_the_same_delivery(self) -> None:
        for n in range(100):
            await self.accept(sms(sender=f"+{n}"), lease=False)
        claims = await gatherResults([self.store.claim(30, {}, 100) for _ in range(8)])
        ids = [delivery.id for claim in claims for delivery in claim]
        self.assertEqual(len(ids), len(set(ids)))
        rest = await self.claim(limit=1000, room={1: 1000})
        self.assertEqual(len(ids) + len(rest), 100)

    async def test_a_claim_keeps_to_the_room_of_each_target(self) -> None:
        for target_id in (1, 2, 3):
            for n in range(5):
                await self.accept(sms(sender=f"+{n}", target_id=target_id), lease=False)
        claimed = await self.store.claim(100, {1: 2, 2: 0}, 4)
        counts = {t: sum(d.target_id == t for d in claimed) for t in (1, 2, 3)}
        self.assertEqual(counts, {1: 2, 2: 0, 3: 4})


class BothEndsTests(StoreTest):
    """Half of what is claimed for a target is what has waited longest, half is what came last."""

    async def backlog(self, count: int, target_id: int = 1) -> None:
        """Due for a while, the first for longest; texts are numbers."""
        await gatherResults(
            [
                self.store.accept(sms(sender=f"+{n:03}", text=str(n), target_id=target_id), None, False)
                for n in range(count)
            ]
        )
        await self.pool.query(
            "UPDATE delivery SET due_at = now() - (%s - seq) * interval '1 second'", (count * 10,)
        )

    async def claimed(self, room: int) -> list[int]:
        claimed = await self.store.claim(100, {1: room}, 0)
        self.assertEqual(len({delivery.id for delivery in claimed}), len(claimed))
        return sorted(int(delivery.sms.text) for delivery in claimed)

    async def test_a_mountain_that_has_piled_up_starves_neither_its_oldest_nor_what_is_new(self) -> None:
        await self.backlog(100)
        self.assertEqual(await self.claimed(10), [*range(5), *range(95, 100)])
        self.assertEqual(await self.claimed(5), [5, 6, 7, 93, 94])

    async def test_few_are_all_claimed_and_each_once(self) -> None:
        for count in (1, 4, 5, 6, 9, 10):
            await self.pool.query("TRUNCATE delivery")
            await self.backlog(count)
            self.assertEqual(await self.claimed(10), list(range(count)))

    async def test_one_place_goes_to_the_oldest(self) -> None:
        await self.backlog(10)
        self.assertEqual(await self.claimed(1), [0])

    async def test_two_processes_share_a_mountain_without_any_doubles(self) -> None:
        await self.backlog(200)
        other = self.make_store(self.another_pool())
        claims = await gatherResults(
            [store.claim(100, {1: 20}, 0) for _ in range(4) for store in (self.store, other)]
        )
        ids = [delivery.id for claim in claims for delivery in claim]
        self.assertEqual(len(ids), len(set(ids)))

    async def test_where_the_answer_is_bounded_in_all_every_target_gets_its_turn(self) -> None:
        for target_id in range(1, 6):
            await self.backlog(20, target_id)
        served: set[int] = set()
        for _ in range(60):
            for delivery in await self.store.claim(5, {}, 10):
                served.add(delivery.target_id)
                await self.store.settle(
                    delivery, Postponed(delay_seconds=0, reason="", attempted=False), None
                )
        self.assertEqual(served, {1, 2, 3, 4, 5})


class OnwardTests(StoreTest):
    GROUP = target(id=2)
    HOPS = (Hop(kind="application", name="survey"),)

    def onward(self) -> Delivered:
        return Delivered(onward=self.GROUP, onward_hops=self.HOPS)

    async def test_an_onward_sms_is_due_at_its_next_target_with_its_hops(self) -> None:
        first = await self.leased(sms())
        await self.store.settle(first, self.onward(), None)
        [onward] = await self.claim()
        self.assertEqual((onward.target_id, onward.hops, onward.sms.id), (2, self.HOPS, first.sms.id))
        self.assertNotEqual(onward.id, first.id)
        self.assertEqual(onward.attempt, 1)

    async def test_it_waits_behind_what_is_pending_there(self) -> None:
        there = await self.leased(sms(text="there", target_id=2))
        await self.store.settle(await self.leased(sms(text="onward")), self.onward(), None)
        self.assertEqual(await self.claim(), [])
        following = await self.store.settle(there, Delivered(), None)
        assert following is not None
        self.assertEqual(following.sms.text, "onward")

    async def test_it_arrives_where_the_last_of_the_conversation_ends_in_the_same_batch(self) -> None:
        there = await self.leased(sms(text="there", target_id=2))
        here = await self.leased(sms(text="onward"))
        await self.settle_together((there, Delivered()), (here, self.onward()))
        [onward] = await self.claim()
        self.assertEqual(onward.sms.text, "onward")

    async def test_it_queues_up_where_a_successor_takes_over_in_the_same_batch(self) -> None:
        there = await self.leased(sms(text="there", target_id=2))
        await self.accept(sms(text="successor", target_id=2))
        here = await self.leased(sms(text="onward"))
        [successor, _] = await self.settle_together((there, Delivered()), (here, self.onward()))
        assert successor is not None
        self.assertEqual(successor.sms.text, "successor")
        following = await self.store.settle(successor, Delivered(), None)
        assert following is not None
        self.assertEqual(following.sms.text, "onward")

    async def settle_together(self, *pairs: tuple[Delivery, Any]) -> list[Delivery | None]:
        """Both in one statement: they are added before a connection is free."""
        await self.pool.query("SELECT 1")
        busy = [self.pool.query("SELECT pg_sleep(0.1)") for _ in range(4)]
        results = await gatherResults([self.store.settle(d, outcome, None) for d, outcome in pairs])
        await gatherResults(busy)
        return results


class QueueTests(StoreTest):
    async def test_the_queue_counts_pending_leased_and_dead_and_knows_the_oldest(self) -> None:
        first = await self.leased(sms(sender="+1"))
        await self.accept(sms(sender="+2"), lease=False)
        await self.store.settle(await self.leased(sms(sender="+3")), Dead(reason="x"), None)
        queue = await queue_state(self.pool)
        self.assertEqual((queue.leased, queue.pending, queue.dead), (1, 2, 1))
        assert queue.oldest_pending is not None
        waiting = utc_now() - first.sms.received_at
        self.assertLess(abs(queue.oldest_pending - waiting), timedelta(seconds=1))

    async def test_an_sms_of_a_time_without_partition_is_stored_all_the_same(self) -> None:
        for at in (datetime(1999, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)):
            message = sms(sender=str(at.year), id=uuid7(at), received_at=at)
            delivery = await self.leased(message)
            await self.store.settle(delivery, Delivered(), None)
        self.assertEqual((await self.count("message"), await self.count("ended_delivery")), (2, 2))

    async def test_sms_of_a_clock_that_was_ahead_do_not_hinder_when_their_month_comes(self) -> None:
        at = datetime(2099, 1, 10, tzinfo=UTC)
        ahead = sms(id=uuid7(at), received_at=at)
        await self.store.settle(await self.leased(ahead), Delivered(), None)
        await self.pool.query("SELECT make_partitions('2099-01-01T00:00Z')")
        later = sms(sender="+2", id=uuid7(at), received_at=at)
        await self.store.settle(await self.leased(later), Delivered(), None)
        rows = await self.pool.query("SELECT id FROM message ORDER BY id")
        self.assertEqual(rows, sorted([(str(ahead.id),), (str(later.id),)]))

    async def test_ids_of_the_present_land_in_the_partition_of_their_month(self) -> None:
        await self.leased(sms())
        month = utc_now().strftime("%Y%m")
        [(n,)] = await self.pool.query(f"SELECT count(*) FROM message_{month}")
        self.assertEqual(n, 1)
