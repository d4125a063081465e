"""Leases on a real PostgreSQL: who has one, who lost one, and what is recorded of attempts."""

from __future__ import annotations

import random
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from smsdaemon.domain.model import Attempt, Dead, Delivered, Delivery, Outcome, Postponed
from smsdaemon.errors import LeaseLost, StoreUnavailable
from smsdaemon.leases import SURE
from smsdaemon.store.pool import Pool
from tests.integration.test_store import sms
from tests.support.cases import ReactorTest
from tests.support.cutting_proxy import CuttingProxy
from tests.support.leasing import Store, make_store
from tests.support.store import migrated_pool

reactor = cast(Any, _reactor)
BUSY = Postponed(delay_seconds=0, reason="answered 503")
FAILED = Attempt(seconds=1.5, status=503, answer="no \ufffd 👋")


class LeaseTest(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.dsn, self.pool = await migrated_pool(self, size=4)
        self.here = make_store(self, self.pool)

    def process(self, name: str, lease_seconds: float = 60.0, dsn: str | None = None) -> Store:
        """Another process' store."""
        pool = Pool(dsn=dsn or self.dsn, size=4, reactor=reactor, statement_timeout=5.0)
        self.addCleanup(pool.close)
        pool.start()
        return make_store(self, pool, lease_seconds, holder=name)

    async def leased(self, store: Store | None = None, **fields: Any) -> Delivery:
        receipt = await (store or self.here).accept(sms(**fields), None, True)
        assert receipt.delivery is not None
        return receipt.delivery

    async def claim(self, store: Store | None = None) -> list[Delivery]:
        return list(await (store or self.here).claim(100, {}, 100))

    async def leases_run_out(self) -> None:
        await self.pool.query(
            "UPDATE delivery SET leased_until = now() - interval '1 ms' WHERE lease IS NOT NULL"
        )


class RecordTests(LeaseTest):
    async def test_delivered_at_the_first_attempt_is_told_with_the_delivery_alone(self) -> None:
        there = self.process("there:2")
        await there.settle(
            await self.leased(there),
            Delivered(reason="answered 200"),
            Attempt(seconds=0.5, status=200, answer="OK"),
        )
        rows = await self.pool.query("SELECT holder, status, seconds, answer, attempts FROM ended_delivery")
        self.assertEqual(rows, [("there:2", 200, 0.5, "OK", 1)])
        self.assertEqual(await self.pool.query("SELECT * FROM attempt"), [])

    async def test_each_attempt_that_is_repeated_has_a_row_with_the_time_of_the_next(self) -> None:
        there = self.process("there:2")
        await there.settle(await self.leased(there), BUSY, FAILED)
        [again] = await self.claim()
        await self.here.settle(again, Postponed(delay_seconds=60, reason="timed out"), Attempt(seconds=10))
        rows = await self.pool.query(
            "SELECT delivery_id, number, holder, outcome, reason, status, seconds, answer,"
            " extract(epoch FROM next_at - ended_at)::integer FROM attempt ORDER BY number"
        )
        first = (1, "there:2", "retry", "answered 503", 503, 1.5, "no \ufffd 👋", 0)
        second = (2, "here:1", "retry", "timed out", None, 10.0, None, 60)
        self.assertEqual(rows, [(str(again.id), *first), (str(again.id), *second)])

    async def test_attempts_that_were_lost_are_recorded_with_who_lost_them(self) -> None:
        lost = await self.leased(self.process("gone:3"))
        await self.leases_run_out()
        [again] = await self.claim()
        await self.leases_run_out()
        [third] = await self.claim()  # lost by the very same
        self.assertEqual((again.attempt, third.attempt), (2, 3))
        rows = await self.pool.query(
            "SELECT delivery_id, number, holder, outcome FROM attempt ORDER BY number"
        )
        self.assertEqual(rows, [(str(lost.id), 1, "gone:3", "lost"), (str(lost.id), 2, "here:1", "lost")])

    async def test_dead_and_unattempted_are_told_apart(self) -> None:
        await self.here.settle(await self.leased(), Dead(reason="no backend"), None)
        await self.here.settle(
            await self.leased(sender="+2"), Dead(reason="answered 410"), Attempt(seconds=1, status=410)
        )
        rows = await self.pool.query(
            "SELECT reason, status, seconds, answer FROM ended_delivery ORDER BY seq"
        )
        self.assertEqual(rows, [("no backend", None, None, None), ("answered 410", 410, 1.0, None)])


class KeepTests(LeaseTest):
    async def test_what_is_kept_lasts_its_whole_time_again(self) -> None:
        there = self.process("there:2", lease_seconds=0.4)
        delivery = await self.leased(there)
        for _ in range(4):
            await self.pool.query("SELECT pg_sleep(0.2)")
            self.assertEqual(await there.deliveries.keep([delivery]), {delivery.id})
            self.assertEqual(await self.claim(), [])
        await self.pool.query("SELECT pg_sleep(0.45)")
        self.assertEqual(len(await self.claim()), 1)

    async def test_only_what_is_still_held_is_kept_and_named(self) -> None:
        kept, lost, ended = [await self.leased(sender=f"+{n}") for n in range(3)]
        await self.here.settle(ended, Delivered(), None)
        await self.pool.query("UPDATE delivery SET leased_until = now() WHERE id = %s", (str(lost.id),))
        [taken] = await self.claim(self.process("there:2"))
        self.assertEqual(taken.id, lost.id)
        self.assertEqual(await self.here.deliveries.keep([kept, lost, ended]), {kept.id})

    async def test_what_ran_out_and_nobody_took_is_ours_again(self) -> None:
        delivery = await self.leased()
        await self.leases_run_out()
        self.assertEqual(await self.here.deliveries.keep([delivery]), {delivery.id})
        self.assertEqual(await self.claim(), [])

    async def test_a_lease_is_dated_from_before_it_was_asked_for(self) -> None:
        before = reactor.seconds()
        await self.here.accept(sms(), None, False)
        [claimed] = await self.claim()
        await self.here.accept(sms(), None, False)
        following = await self.here.settle(claimed, Delivered(), None)
        for delivery in (claimed, following):
            assert delivery is not None
            assert delivery.leased_at is not None
            self.assertGreaterEqual(delivery.leased_at, before)
            self.assertLessEqual(delivery.leased_at, reactor.seconds())


class UnansweredTests(LeaseTest):
    """A statement that was committed and never answered has leased what nobody attempts."""

    async def cut(self, proxy: CuttingProxy, statement: bytes, asked: Any) -> None:
        proxy.cut_when_asked = statement
        await self.assertFailure(asked(), StoreUnavailable)
        self.assertEqual(proxy.cuts, 1)

    async def test_the_successor_of_such_an_outcome_does_not_wait_for_the_end_of_the_lease(self) -> None:
        proxy = CuttingProxy(self, self.dsn)
        there = self.process("there:2", dsn=proxy.dsn)
        head = await self.leased(there, text="1")
        await there.accept(sms(text="2"), None, True)
        await self.cut(proxy, b"EXECUTE settle", lambda: there.settle(head, Delivered(), None))
        self.assertEqual(await self.claim(), [])  # nobody else can know
        [following] = await self.claim(there)
        self.assertEqual((following.sms.text, following.attempt), ("2", 1))
        self.assertEqual(await self.pool.query("SELECT * FROM attempt"), [])
        await self.assertFailure(there.settle(head, Delivered(), None), LeaseLost)

    async def test_what_such_a_claim_took_is_claimed_again_at_once_in_its_first_attempt(self) -> None:
        proxy = CuttingProxy(self, self.dsn)
        there = self.process("there:2", dsn=proxy.dsn)
        await there.accept(sms(), None, False)
        await self.cut(proxy, b"EXECUTE claim", lambda: there.claim(100, {}, 100))
        [claimed] = await self.claim(there)
        self.assertEqual((claimed.attempt, claimed.round_attempt), (1, 1))


class Conversations:
    """What happens to many conversations, seen from all processes at once."""

    def __init__(self, test: ReactorTest) -> None:
        self._test = test
        self.under_way: dict[str, float] = {}
        """The conversation's attempt, and until when at the latest it may go on."""
        self.ended: dict[str, int] = {}
        self.attempts = self.lost = 0

    def begin(self, delivery: Delivery, until: float) -> None:
        sender, now = delivery.sms.sender, reactor.seconds()
        self._test.assertLessEqual(self.under_way.get(sender, now), now, "two attempts at once")
        self._test.assertEqual(int(delivery.sms.text), self.ended.get(sender, 0), "out of order")
        self.under_way[sender] = until
        self.attempts += 1

    def end(self, delivery: Delivery) -> None:
        self.under_way.pop(delivery.sms.sender, None)

    def recorded(self, delivery: Delivery, outcome: Outcome) -> None:
        if not isinstance(outcome, Postponed):
            self.ended[delivery.sms.sender] = int(delivery.sms.text) + 1


class OrderUnderFailureTests(LeaseTest):
    attempts: list[Deferred[None]]
    SENDERS, EACH, LEASE = 24, 4, 0.2

    async def test_processes_that_fail_stall_and_give_back_keep_every_conversation_in_order(
        self,
    ) -> None:
        seed = random.randrange(2**32)
        self.random = random.Random(seed)
        self.seen, self.attempts = Conversations(self), []
        self.stores = [self.process(f"host:{n}", self.LEASE) for n in range(3)]
        providing = [ensureDeferred(self.provide(n)) for n in range(self.SENDERS)]
        working = [ensureDeferred(self.work(store)) for store in self.stores]
        try:
            await gatherResults([*providing, *working], consumeErrors=True)
            await gatherResults(self.attempts, consumeErrors=True)
        except Exception as error:
            raise AssertionError(f"with seed {seed}: {getattr(error, 'subFailure', error)}") from error
        self.assertEqual(self.seen.ended, {f"+{n}": self.EACH for n in range(self.SENDERS)})
        [(pending, ended)] = await self.pool.query(
            "SELECT (SELECT count(*) FROM delivery), (SELECT count(*) FROM ended_delivery)"
        )
        self.assertEqual((pending, ended), (0, self.SENDERS * self.EACH))
        self.assertGreater(self.seen.lost, 0)  # else nothing was tested

    async def provide(self, sender: int) -> None:
        for n in range(self.EACH):
            store = self.random.choice(self.stores)
            await store.accept(sms(sender=f"+{sender}", text=str(n)), None, False)

    async def work(self, store: Store) -> None:
        while sum(self.seen.ended.values()) < self.SENDERS * self.EACH and not self.failed():
            claimed = list(await store.claim(12, {}, 12))
            for delivery in claimed:
                self.attempts.append(ensureDeferred(self.attempt(store, delivery)))
            await deferLater(reactor, 0.01)

    def failed(self) -> bool:
        return any(d.called and isinstance(d.result, Failure) for d in self.attempts)

    async def attempt(self, store: Store, first: Delivery) -> None:
        delivery: Delivery | None = first
        while delivery is not None:
            if self.random.random() < 0.1:  # between the lease and the attempt
                await deferLater(reactor, self.LEASE * self.random.uniform(0, 1.5))
            assert delivery.leased_at is not None
            until = delivery.leased_at + self.LEASE * SURE
            outcome: Outcome = Postponed(delay_seconds=0, reason="", attempted=False)
            if reactor.seconds() < until:  # the dispatcher's own fence
                self.seen.begin(delivery, until)
                outcome = await self.call(store, delivery, until)
                if reactor.seconds() < until:
                    self.seen.end(delivery)
            delivery = await self.settle(store, delivery, outcome)

    async def call(self, store: Store, delivery: Delivery, until: float) -> Outcome:
        """Many take a little longer than the lease, and so end while another process is at it."""
        stalls = self.random.random() < 0.3
        await deferLater(reactor, self.LEASE * self.random.uniform(*((0.8, 1.6) if stalls else (0, 0.4))))
        outcomes: list[Outcome] = [
            Delivered(),
            Delivered(),
            Dead(reason="answered 410"),
            Postponed(delay_seconds=self.random.choice([0, 0.03]), reason="answered 500"),
            Postponed(delay_seconds=0, reason="", attempted=False),
        ]
        return self.random.choice(outcomes)

    async def settle(self, store: Store, delivery: Delivery, outcome: Outcome) -> Delivery | None:
        d = store.settle(delivery, outcome, Attempt(seconds=0.1))
        # Before anybody can be given the next: the answer of this one may come after that.
        try:
            following = await d
        except LeaseLost:
            self.seen.lost += 1
            return None
        self.seen.recorded(delivery, outcome)
        return following
