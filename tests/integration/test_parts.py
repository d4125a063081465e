"""Concatenated SMS on a real PostgreSQL: joined once, in any order, with repeats and gaps."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from smsdaemon.domain.model import Delivered, InboundSMS, Receipt
from smsdaemon.errors import StoreRefused, StoreUnavailable
from smsdaemon.store.concatenations import Patience, forget_concatenations, give_up_overdue
from smsdaemon.store.parts import Arrival, place
from smsdaemon.store.pool import Pool, Run
from tests.support.cases import ReactorTest
from tests.support.leasing import Store, make_store
from tests.support.sms_parts import part, raw_part
from tests.support.store import migrated_pool

reactor = cast(Any, _reactor)
PATIENCE = Patience(seconds=1800, first_delay_seconds=0)


class PartsTest(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.dsn, self.pool = await migrated_pool(self, size=4)
        self.store = make_store(self, self.pool)

    def another_pool(self) -> Pool:
        pool = Pool(dsn=self.dsn, size=4, reactor=reactor, statement_timeout=5.0)
        self.addCleanup(pool.close)
        pool.start()
        return pool

    def another_store(self) -> Store:
        """Of another node, so to say."""
        return make_store(self, self.another_pool(), holder="there:1")

    async def accept(self, sms: InboundSMS, lease: bool = True) -> Receipt:
        return await self.store.accept(sms, None, lease)

    async def stored(self) -> list[tuple[Any, ...]]:
        """Text, parts and missing parts of what is stored, in the order in which it is delivered."""
        return await self.pool.query(
            """SELECT text, parts, parts_missing FROM message m
               LEFT JOIN delivery d ON d.message_id = m.id ORDER BY d.seq"""
        )

    async def waiting(self) -> int:
        [(n,)] = await self.pool.query("SELECT count(*) FROM concatenation WHERE ended_at IS NULL")
        return int(n)

    async def later(self, interval: str) -> None:
        """So much later, as far as parts are concerned."""
        await self.pool.query(
            f"""UPDATE concatenation SET began_at = began_at - interval '{interval}',
                                         ended_at = ended_at - interval '{interval}'"""
        )


class AcceptTests(PartsTest):
    async def test_the_last_part_makes_the_sms_and_gets_its_delivery_leased(self) -> None:
        first = await self.accept(part("Hello ", 1, provider_message_id="p1"))
        self.assertEqual((first.duplicate, first.delivery), (False, None))
        self.assertEqual(await self.stored(), [])
        second = await self.accept(part("world", 2, provider_message_id="p2"))
        assert second.delivery is not None
        self.assertEqual((second.id, second.duplicate), (first.id, False))
        sms = second.delivery.sms
        self.assertEqual((sms.id, sms.text, sms.parts), (first.id, "Hello world", 2))
        self.assertEqual((sms.provider_message_id, sms.parts_missing), ("p1", ()))
        self.assertEqual(await self.stored(), [("Hello world", 2, None)])
        self.assertIsNone(await self.store.settle(second.delivery, Delivered(), None))

    async def test_what_is_claimed_is_the_same(self) -> None:
        await self.accept(part("b", 2, target_id=9), lease=False)
        await self.accept(part("a", 1, target_id=9), lease=False)
        [delivery] = await self.store.claim(10, {}, 10)
        self.assertEqual((delivery.sms.text, delivery.sms.parts, delivery.target_id), ("ab", 2, 9))

    async def test_a_character_split_between_parts_comes_out_right(self) -> None:
        raw = "grüße 👋".encode("utf-16-be")
        for number, piece in [(3, raw[14:]), (1, raw[:5]), (2, raw[5:14])]:
            await self.accept(raw_part(piece, number, 3, charset="utf-16be"))
        rows = await self.pool.query("SELECT text, encoding, raw_text FROM message")
        self.assertEqual([(t, e, bytes(r)) for t, e, r in rows], [("grüße 👋", "utf-16be", raw)])

    async def test_binary_parts_keep_their_bytes(self) -> None:
        raw = b"\xde\xad\xbe\xef"
        for number, piece in [(2, raw[2:]), (1, raw[:2])]:
            await self.accept(part("", number, encoding="binary", raw_text=piece))
        rows = await self.pool.query("SELECT text, encoding, raw_text FROM message")
        self.assertEqual([(t, e, bytes(r)) for t, e, r in rows], [("", "binary", raw)])

    async def test_all_at_once_over_two_nodes(self) -> None:
        other = self.another_store()
        parts = [part(f"{n},", n, 20) for n in range(1, 21)]
        given = [(self.store, other)[n % 2].accept(sms, None, True) for n, sms in enumerate(parts)]
        receipts = await gatherResults(given)
        self.assertEqual(len({receipt.id for receipt in receipts}), 1)
        self.assertEqual(len([receipt for receipt in receipts if receipt.delivery is not None]), 1)
        self.assertEqual(await self.stored(), [("".join(f"{n}," for n in range(1, 21)), 20, None)])

    async def test_a_batch_can_begin_join_and_begin_again(self) -> None:
        texts = [("a", 1), ("b", 2), ("a", 1), ("c", 1), ("d", 2), ("e", 1)]
        receipts = await gatherResults(
            [self.store.accept(part(text, number), None, False) for text, number in texts]
        )
        self.assertEqual(
            [receipt.duplicate for receipt in receipts], [False, False, True, False, False, False]
        )
        self.assertEqual([text for text, *_ in await self.stored()], ["ab", "cd"])
        self.assertEqual(await self.waiting(), 1)

    async def test_a_part_that_postgres_refuses_fails_alone(self) -> None:
        given = [part("a", 1), part("\0", 2), part("b", 2), part("x", 1, sender="+491")]
        outcomes = await gatherResults(
            [self.store.accept(sms, None, False).addErrback(lambda f: f.type) for sms in given]
        )
        self.assertEqual(outcomes[1], StoreRefused)
        self.assertEqual([text for text, *_ in await self.stored()], ["ab"])

    async def test_a_process_that_stops_in_between_keeps_others_waiting_for_a_moment_only(self) -> None:
        stopped = self.another_pool()
        sms = part("a", 1)
        begun: Deferred[None] = Deferred()
        goes_on: Deferred[None] = Deferred()
        self.addCleanup(goes_on.callback, None)

        async def stops(run: Run) -> None:
            await place(run, [Arrival(n=0, sms=sms, delivery_id=sms.id)])
            begun.callback(None)
            await goes_on

        stopped.transaction(stops).addErrback(lambda failure: failure.trap(StoreUnavailable))
        await begun
        began = reactor.seconds()
        receipts = await gatherResults(
            [self.store.accept(part(t, n), None, False) for t, n in [("a", 1), ("b", 2)]]
        )
        self.assertEqual([receipt.duplicate for receipt in receipts], [False, False])
        self.assertLess(reactor.seconds() - began, 2.0)
        self.assertEqual([text for text, *_ in await self.stored()], ["ab"])

    async def test_without_parts_nothing_of_this_is_asked(self) -> None:
        await self.accept(part("x", 1, part=None))
        [(n,)] = await self.pool.query("SELECT count(*) FROM concatenation")
        self.assertEqual(n, 0)


class OrderTests(PartsTest):
    async def test_an_sms_takes_its_place_when_it_is_complete_and_none_waits_for_it(self) -> None:
        await self.accept(part("a", 1), lease=False)
        await self.accept(part("single 1", 1, part=None), lease=False)
        await self.accept(part("b", 2), lease=False)
        await self.accept(part("single 2", 1, part=None), lease=False)
        self.assertEqual([text for text, *_ in await self.stored()], ["single 1", "ab", "single 2"])

    async def test_in_one_batch_too(self) -> None:
        given = [part("a", 1), part("1", 1, part=None), part("b", 2), part("2", 1, part=None)]
        await gatherResults([self.store.accept(sms, None, True) for sms in given])
        self.assertEqual([text for text, *_ in await self.stored()], ["1", "ab", "2"])

    async def test_given_up_in_the_order_of_their_beginnings(self) -> None:
        for reference in "375":
            await self.accept(part(reference, 1, reference=reference))
        await self.later("1 hour")
        self.assertEqual(await give_up_overdue(self.pool, PATIENCE), 3)
        self.assertEqual([text for text, *_ in await self.stored()], ["3", "7", "5"])


class RepeatTests(PartsTest):
    async def test_of_one_that_waits(self) -> None:
        first = await self.accept(part("a", 1))
        again = await self.accept(part("a", 1))
        self.assertEqual((again.id, again.duplicate), (first.id, True))
        await self.accept(part("b", 2))
        self.assertEqual([text for text, *_ in await self.stored()], ["ab"])

    async def test_of_one_that_was_joined(self) -> None:
        first = await self.accept(part("a", 1, provider_message_id="p1"))
        await self.accept(part("b", 2, provider_message_id="p2"))
        for message_id in ("p2", None):
            again = await self.accept(part("b", 2, provider_message_id=message_id))
            self.assertEqual((again.id, again.duplicate, again.delivery), (first.id, True, None))
        await self.later("6 days")
        again = await self.accept(part("b", 2, provider_message_id="p2"))
        self.assertEqual((again.id, again.duplicate), (first.id, True))
        self.assertEqual((len(await self.stored()), await self.waiting()), (1, 0))

    async def test_a_reference_that_comes_again_with_something_else_is_another_sms(self) -> None:
        for text, number in [("a", 1), ("b", 2), ("c", 2), ("d", 1)]:
            await self.accept(part(text, number), lease=False)
        self.assertEqual([text for text, *_ in await self.stored()], ["ab", "dc"])

    async def test_a_part_that_both_have_is_not_missing_from_the_second(self) -> None:
        for text, number in [("a", 1), ("same", 2), ("c", 1), ("same", 2)]:
            await self.accept(part(text, number), lease=False)
        self.assertEqual([text for text, *_ in await self.stored()], ["asame", "csame"])

    async def test_while_the_first_is_not_complete_that_is_given_up_at_once(self) -> None:
        old = await self.accept(part("a", 1))
        new = await self.accept(part("c", 1))
        self.assertNotEqual(old.id, new.id)
        self.assertEqual(await self.stored(), [("a", 2, [2])])
        await self.accept(part("d", 2))
        self.assertEqual([text for text, *_ in await self.stored()], ["a", "cd"])

    async def test_the_same_content_again_is_another_sms_under_other_ids_or_after_a_while(self) -> None:
        for n in range(2):
            await self.accept(part("a", 1, provider_message_id=f"{n}a"), lease=False)
            await self.accept(part("b", 2, provider_message_id=f"{n}b"), lease=False)
        for _ in range(2):
            await self.later("2 hours")
            await self.accept(part("a", 1), lease=False)
            await self.accept(part("b", 2), lease=False)
        self.assertEqual([text for text, *_ in await self.stored()], ["ab"] * 4)

    async def test_what_ended_long_ago_is_forgotten(self) -> None:
        await self.accept(part("a", 1))
        await self.accept(part("b", 2))
        await self.accept(part("c", 1))
        self.assertEqual(await forget_concatenations(self.pool), 0)
        await self.later("8 days")
        self.assertEqual(await forget_concatenations(self.pool, at_once=1), 1)
        rows = await self.pool.query("SELECT c.id, p.text FROM concatenation c JOIN sms_part p ON true")
        self.assertEqual([text for _, text in rows], ["c"])

    async def test_nothing_of_the_text_is_kept_twice(self) -> None:
        await self.accept(part("a", 1, keyword="K", raw_text=b"a"))
        await self.accept(part("b", 2, keyword="K", raw_text=b"b"))
        rows = await self.pool.query("SELECT text, raw_text, keyword FROM sms_part")
        self.assertEqual(rows, [(None, None, None)] * 2)


class GivingUpTests(PartsTest):
    async def test_what_is_there_is_delivered_and_what_is_missing_named(self) -> None:
        first = await self.accept(part("a", 1, 4))
        await self.accept(part("c", 3, 4))
        self.assertEqual(await give_up_overdue(self.pool, PATIENCE), 0)
        await self.later("31 minutes")
        self.assertEqual(await give_up_overdue(self.pool, PATIENCE), 1)
        self.assertEqual(await give_up_overdue(self.pool, PATIENCE), 0)
        [delivery] = await self.store.claim(10, {}, 10)
        sms = delivery.sms
        self.assertEqual((sms.id, sms.text, sms.parts, sms.parts_missing), (first.id, "ac", 4, (2, 4)))

    async def test_the_next_of_its_conversation_has_them_too_when_it_is_leased_by_the_outcome(self) -> None:
        head = await self.accept(part("single", 1, part=None))
        await self.accept(part("a", 1))
        await self.later("31 minutes")
        await give_up_overdue(self.pool, PATIENCE)
        assert head.delivery is not None
        following = await self.store.settle(head.delivery, Delivered(), None)
        assert following is not None
        self.assertEqual((following.sms.text, following.sms.parts_missing), ("a", (2,)))

    async def test_by_many_processes_at_once_and_while_parts_come_in(self) -> None:
        for n in range(120):
            await self.accept(part("a", 1, sender=f"+49{n}"), lease=False)
        await self.later("31 minutes")
        other = self.another_store()
        late = [part("b", 2, sender=f"+49{n}") for n in range(120)]
        work: list[Any] = [ensureDeferred(give_up_overdue(self.pool, PATIENCE)) for _ in range(3)]
        work += [other.accept(sms, None, False) for sms in late]
        await gatherResults(work)
        await give_up_overdue(self.pool, PATIENCE)
        rows = await self.pool.query(
            """SELECT sender, string_agg(text, '' ORDER BY text), count(*) FROM message GROUP BY sender"""
        )
        waiting = {
            sender
            for (sender,) in await self.pool.query("SELECT sender FROM concatenation WHERE ended_at IS NULL")
        }
        self.assertEqual(len(rows), 120)
        for sender, text, count in rows:
            expected = ("a", 1) if sender in waiting else ("ab", 1)
            self.assertEqual((text, count), expected, sender)

    async def test_a_part_that_comes_after_that_is_an_sms_of_which_the_others_are_missing(self) -> None:
        await self.accept(part("a", 1))
        await self.later("31 minutes")
        await give_up_overdue(self.pool, PATIENCE)
        await self.accept(part("b", 2))
        await self.later("31 minutes")
        await give_up_overdue(self.pool, PATIENCE)
        self.assertEqual(await self.stored(), [("a", 2, [2]), ("b", 2, [1])])
