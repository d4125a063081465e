"""What `smsdaemon messages` finds, on a real PostgreSQL that the store itself has filled."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import psycopg2
from twisted.internet import reactor as _reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import Dead, Delivered, Delivery, InboundSMS, Outcome, Postponed
from smsdaemon.domain.numbers import normalised_sender
from smsdaemon.store import redelivery, support
from smsdaemon.store.selection import Selection
from smsdaemon.store.support import MessageRow
from tests.support.cases import ReactorTest
from tests.support.daemon import Daemon, Ended
from tests.support.deliveries import target
from tests.support.leasing import make_store
from tests.support.store import apply_text, migrated_pool

reactor = cast(Any, _reactor)
DIRECTORY = """
[[reseller]]
name = "acme"
[[client]]
name = "shop"
reseller = "acme"
[[application]]
client = "acme/shop"
name = "survey"
url = "log:"
[[acd_group]]
client = "acme/shop"
name = "support"
url = "log:"
[[connector]]
client = "acme/shop"
number = "+49 123-123"
acd_group = "support"
[[connector]]
client = "acme/shop"
number = "12345"
acd_group = "support"
"""
MINUTE = timedelta(minutes=1)


def utc_now() -> datetime:
    return datetime.now(UTC)


class CommandOnStoreTest(ReactorTest):
    """A store with a directory, and the command on its database."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.dsn, self.pool = await migrated_pool(self, size=4)
        await apply_text(self.pool, DIRECTORY)
        self.store = make_store(self, self.pool)
        rows = await self.pool.query("SELECT name, id, client_id FROM target")
        self.targets = {name: id_ for name, id_, _ in rows}
        self.client_id = rows[0][2]
        self.connectors: dict[str, int] = dict(await self.pool.query("SELECT number, id FROM connector"))

    def sms(self, text: str = "x", at: datetime | None = None, **fields: Any) -> InboundSMS:
        now = at or utc_now()
        receiver = fields.get("receiver", "+49 123-123")
        values: dict[str, Any] = {
            "id": uuid7(now),
            "received_at": now,
            "connector_id": self.connectors[receiver],
            "client_id": self.client_id,
            "target_id": self.targets["support"],
            "receiver": receiver,
            "sender": "+49789789",
            "sender_raw": "49789789",
            "text": text,
        }
        return InboundSMS(**{**values, **fields})

    async def accepted(self, text: str = "x", at: datetime | None = None, **fields: Any) -> UUID:
        """Accept one whose first attempt nobody makes yet."""
        return (await self.store.accept(self.sms(text, at, **fields), None, False)).id

    async def ended(self, outcome: Outcome, text: str = "x", **fields: Any) -> Delivery:
        """Accept one and end its first attempt; its conversation must have nothing pending."""
        receipt = await self.store.accept(self.sms(text, **fields), None, True)
        assert receipt.delivery is not None
        await self.store.settle(receipt.delivery, outcome, None)
        return receipt.delivery

    async def found(self, **selection: Any) -> list[MessageRow]:
        return [row async for page in support.messages(self.pool, Selection(**selection)) for row in page]

    async def texts(self, **selection: Any) -> list[str]:
        return [row.text for row in await self.found(**selection)]

    async def command(self, *arguments: str) -> Ended:
        """Run `smsdaemon` on the test's database."""
        place = Daemon(dsn=self.dsn)
        self.addCleanup(place.remove)
        ended: Ended = await deferToThread(place.command, *arguments)
        return ended


class MessagesTests(CommandOnStoreTest):
    async def test_the_state_is_that_of_the_last_delivery(self) -> None:
        await self.accepted("waits", sender="+491")
        await self.ended(Delivered(), "taken", sender="+492")
        await self.ended(Dead(reason="410"), "refused", sender="+493")
        onward = target(id=self.targets["support"], client_id=self.client_id)
        await self.ended(Delivered(onward=onward), "sent on", sender="+494", target_id=self.targets["survey"])
        await self.ended(Postponed(delay_seconds=60.0, reason="503"), "tried", sender="+495")
        found = {row.text: (row.state, row.attempts, row.target) for row in await self.found()}
        self.assertEqual(
            found,
            {
                "waits": ("pending", 0, "support"),
                "taken": ("delivered", 1, "support"),
                "refused": ("dead", 1, "support"),
                "sent on": ("pending", 1, "support"),
                "tried": ("pending", 1, "support"),
            },
        )
        for state, texts in (
            ("pending", {"waits", "sent on", "tried"}),
            ("delivered", {"taken"}),
            ("dead", {"refused"}),
        ):
            self.assertEqual(set(await self.texts(state=state)), texts, state)
        delivered_at = {row.text: row.delivered_at is not None for row in await self.found()}
        self.assertEqual({text for text, set_ in delivered_at.items() if set_}, {"taken"})

    async def test_attempts_and_target_are_those_of_all_and_of_the_last_delivery(self) -> None:
        onward = target(id=self.targets["support"], client_id=self.client_id)
        await self.ended(Delivered(onward=onward), target_id=self.targets["survey"])
        [delivery] = await self.store.claim(10, {}, 10)
        await self.store.settle(delivery, Dead(reason="410"), None)
        [row] = await self.found()
        self.assertEqual((row.state, row.attempts, row.target), ("dead", 2, "support"))
        self.assertEqual(await self.found(state="delivered"), [])

    async def test_numbers_are_found_in_any_spelling(self) -> None:
        await self.accepted("a", sender="+49789789")
        await self.accepted("b", sender="+49789780", receiver="12345")
        for spelling in ("+49789789", "49789789", "0049789789", "49 789-789", "(+49) 789/789"):
            self.assertEqual(await self.texts(sender=spelling), ["a"], spelling)
        for spelling in ("+49 123-123", "+49123123", "49123123", "0049123123", "49.123.123"):
            self.assertEqual(await self.texts(receiver=spelling), ["a"], spelling)
        self.assertEqual(await self.texts(receiver="12345"), ["b"])
        self.assertEqual(await self.texts(receiver="+49123123", sender="+49789780"), [])

    async def test_senders_that_were_stored_as_they_came_are_found_by_their_matching_form(self) -> None:
        raws = ("0171-123", "+49 (171) 55", "0049 171 1234", "My Shop", "00123", "1\u00a02")
        for raw in raws:
            await self.accepted(raw, sender=normalised_sender(raw, "as-is"))
        for raw, spellings in (
            ("0171-123", ("0171123", "0171/123")),
            ("+49 (171) 55", ("4917155",)),
            ("0049 171 1234", ("491711234", "+491711234")),
            ("My Shop", ("My Shop", "MyShop")),
            ("00123", ("00123",)),
            ("1\u00a02", ("12",)),
        ):
            for spelling in spellings:
                self.assertEqual(await self.texts(sender=spelling), [raw], spelling)

    async def test_oldest_first_with_since_and_limit(self) -> None:
        now = utc_now()
        for minutes in (2, 5, 1, 4, 3):
            await self.accepted(str(minutes), now - minutes * MINUTE)
        self.assertEqual(await self.texts(), ["5", "4", "3", "2", "1"])
        self.assertEqual(await self.texts(limit=2), ["5", "4"])
        self.assertEqual(await self.texts(limit=0), [])
        self.assertEqual(await self.texts(since=now - 3 * MINUTE), ["3", "2", "1"])
        self.assertEqual(await self.texts(since=now - 4 * MINUTE, limit=1), ["4"])

    async def test_pages_lose_and_repeat_nothing(self) -> None:
        self.patch(support, "_PAGE_ROWS", 3)
        now = utc_now()
        texts = [str(n) for n in range(10)]
        for n, text in enumerate(texts):
            await self.accepted(text, now + n * timedelta(milliseconds=2))
        self.assertEqual(await self.texts(), texts)
        self.assertEqual(await self.texts(limit=7), texts[:7])
        self.assertEqual(await self.texts(state="pending", limit=6), texts[:6])

    async def test_json_rows_have_exactly_the_keys_of_the_contract(self) -> None:
        at = datetime(2026, 11, 22, 16, 43, 42, 123456, tzinfo=UTC)
        delivery = await self.ended(Delivered(), "Ä\n\u2028👋", at=at, provider_message_id="m1")
        done = await self.command("messages", "--json")
        self.assertEqual((done.status, done.err), (0, ""))
        [line] = done.out.splitlines()
        row = json.loads(line)
        delivered_at = row.pop("delivered_at")
        self.assertLess(abs(datetime.fromisoformat(delivered_at) - utc_now()), MINUTE)
        self.assertTrue(delivered_at.endswith("Z"))
        self.assertEqual(
            row,
            {
                "id": str(delivery.sms.id),
                "receiver": "+49 123-123",
                "sender": "+49789789",
                "text": "Ä\n\u2028👋",
                "state": "delivered",
                "received_at": "2026-11-22T16:43:42.123456Z",
                "attempts": 1,
                "target": "support",
                "client": "shop",
                "reseller": "acme",
                "provider_message_id": "m1",
            },
        )

    async def test_the_human_form_shows_texts_only_when_asked_and_harmless(self) -> None:
        await self.accepted("evil \x1b[2J text")
        plain = await self.command("messages")
        self.assertNotIn("evil", plain.out)
        shown = await self.command("messages", "--show-text")
        self.assertIn(r"evil \x1b[2J text", shown.out)

    async def test_what_a_sender_holds_forges_no_line_and_steers_no_terminal(self) -> None:
        await self.accepted("x", sender="1\x1b[2J\t\u202e\n2026-11-22T16:43:42Z", sender_raw="1")
        for options in ((), ("--show-text",)):
            [line] = (await self.command("messages", *options)).out.splitlines()
            cells = line.split("\t")
            self.assertEqual(cells[3], r"1\x1b[2J\t\u202e\n2026-11-22T16:43:42Z")
            self.assertEqual(len(cells), 8 + len(options))


class RedeliverTests(CommandOnStoreTest):
    async def dead(self, text: str = "x", **fields: Any) -> Delivery:
        return await self.ended(Dead(reason="410"), text, **fields)

    async def attempts_in_order(self) -> list[str]:
        """The texts in the order in which one process would deliver them; everything is taken."""
        order = []
        due = list(await self.store.claim(100, {}, 100))
        while due:
            delivery = due.pop(0)
            order.append(delivery.sms.text)
            successor = await self.store.settle(delivery, Delivered(), None)
            due += [successor] if successor is not None else []
        return order

    async def test_a_redelivered_one_keeps_its_id_and_count_and_begins_a_new_round(self) -> None:
        before = await self.dead()
        self.assertEqual(
            await redelivery.redeliver(self.pool, redelivery.Dead(message_id=str(before.sms.id))), 1
        )
        [after] = await self.store.claim(10, {}, 10)
        self.assertEqual((after.id, after.sms), (before.id, before.sms))
        self.assertEqual((after.attempt, after.round_attempt), (2, 1))
        self.assertEqual(after.round_seconds, 0)

    async def test_it_takes_its_place_among_what_is_pending(self) -> None:
        await self.dead("1")
        await self.dead("2")
        await self.accepted("3")
        await self.accepted("4")
        # 3 is the head and may be under way; of what waits behind it the oldest goes next.
        self.assertEqual(await redelivery.redeliver(self.pool, redelivery.Dead()), 2)
        self.assertEqual(await self.attempts_in_order(), ["3", "1", "2", "4"])

    async def test_of_several_dead_ones_of_a_conversation_the_oldest_goes_first(self) -> None:
        for text in ("1", "2", "3"):
            await self.dead(text)
        self.assertEqual(await redelivery.redeliver(self.pool, redelivery.Dead()), 3)
        [(heads,)] = await self.pool.query("SELECT count(*) FROM delivery WHERE due_at IS NOT NULL")
        self.assertEqual(heads, 1)
        self.assertEqual(await self.attempts_in_order(), ["1", "2", "3"])

    async def test_target_and_since_choose_and_nothing_else_is_touched(self) -> None:
        now = utc_now()
        await self.dead("old", at=now - 10 * MINUTE, sender="+491")
        await self.dead("survey", target_id=self.targets["survey"], sender="+492")
        await self.dead("new", sender="+493")
        chosen = redelivery.Dead(target="support", since=now - MINUTE)
        self.assertEqual(await redelivery.redeliver(self.pool, chosen), 1)
        self.assertEqual(await self.texts(state="dead"), ["old", "survey"])
        self.assertEqual(await redelivery.redeliver(self.pool, redelivery.Dead(target="acme/shop/survey")), 1)
        self.assertEqual(await redelivery.redeliver(self.pool, redelivery.Dead(target="nobody")), 0)

    async def test_a_head_that_appears_meanwhile_makes_it_try_again_behind_that(self) -> None:
        dead = await self.dead("dead")
        other = psycopg2.connect(self.dsn)
        self.addCleanup(other.close)
        with other.cursor() as cursor:
            cursor.execute(
                "INSERT INTO delivery (id, message_id, connector_id, sender, target_id, due_at)"
                " SELECT gen_random_uuid(), message_id, connector_id, sender, target_id, now()"
                " FROM ended_delivery"
            )
            redelivered = ensureDeferred(redelivery.redeliver(self.pool, redelivery.Dead()))
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
            while not await self.pool.query(waits):
                await deferLater(reactor, 0.01)
        other.commit()
        self.assertEqual(await redelivered, 1)
        rows = await self.pool.query("SELECT id, due_at IS NULL FROM delivery ORDER BY seq")
        self.assertEqual((rows[0], len(rows)), ((str(dead.id), True), 2))

    async def test_redelivering_while_the_store_works_loses_nothing_and_keeps_one_head(self) -> None:
        senders = [f"+4970{n}" for n in range(20)]
        for sender in senders:
            for text in ("1", "2"):
                await self.dead(text, sender=sender)

        async def accept() -> None:
            for text in ("3", "4", "5"):
                for sender in senders:
                    await self.store.accept(self.sms(text, sender=sender), None, False)

        async def deliver() -> list[Delivery]:
            done: list[Delivery] = []
            while len(done) < 5 * len(senders):
                due = list(await self.store.claim(7, {}, 7))
                while due:
                    done.append(due.pop())
                    successor = await self.store.settle(done[-1], Delivered(), None)
                    due += [successor] if successor is not None else []
            return done

        async def redeliver() -> int:
            found = 0
            for sender_id in [row.id for row in await self.found(state="dead")]:
                found += await redelivery.redeliver(self.pool, redelivery.Dead(message_id=sender_id))
            return found

        delivering, redelivering = ensureDeferred(deliver()), ensureDeferred(redeliver())
        await accept()
        done, found = await delivering, await redelivering
        self.assertEqual(found, 2 * len(senders))
        self.assertEqual(len({delivery.id for delivery in done}), 5 * len(senders))
        self.assertEqual(await self.pool.query("SELECT 1 FROM delivery"), [])
        for sender in senders:
            texts = [delivery.sms.text for delivery in done if delivery.sms.sender == sender]
            for pair in (("1", "2"), ("3", "4"), ("4", "5")):
                self.assertLess(texts.index(pair[0]), texts.index(pair[1]), texts)

    async def test_the_command_takes_the_id_of_the_sms_or_of_the_delivery(self) -> None:
        first, second = await self.dead("1"), await self.dead("2")
        for id_ in (first.sms.id, second.id):
            done = await self.command("redeliver", "--id", str(id_))
            self.assertEqual((done.out, done.err, done.status), ("redelivered 1\n", "", 0))
        self.assertEqual(await self.attempts_in_order(), ["1", "2"])

    async def test_the_command_takes_another_id_that_the_provider_heard(self) -> None:
        dead, alias = await self.dead("1"), uuid7(utc_now())
        await self.pool.query(
            "INSERT INTO message_alias VALUES (%(alias)s, %(id)s)",
            {"alias": str(alias), "id": str(dead.sms.id)},
        )
        done = await self.command("redeliver", "--id", str(alias))
        self.assertEqual((done.out, done.err, done.status), ("redelivered 1\n", "", 0))
        self.assertEqual(await self.attempts_in_order(), ["1"])

    async def test_the_command_says_why_nothing_was_redelivered(self) -> None:
        waits = await self.accepted("waits")
        taken = await self.ended(Delivered(), "taken", sender="+491")
        unknown = uuid7(utc_now())
        for id_, why in (
            (waits, f"{waits} is still pending"),
            (taken.sms.id, f"{taken.sms.id} was delivered"),
            (taken.id, f"{taken.id} was delivered"),
            (unknown, f"there is no SMS or delivery {unknown}"),
        ):
            done = await self.command("redeliver", "--id", str(id_))
            self.assertEqual((done.out, done.err, done.status), ("", f"smsdaemon: {why}\n", 1))
        done = await self.command("redeliver", "--state", "dead")
        self.assertEqual((done.err, done.status), ("smsdaemon: nothing is dead that matches\n", 1))

    async def test_what_went_to_a_target_that_was_removed_stays_dead(self) -> None:
        delivery = await self.dead()
        await self.pool.query("UPDATE target SET removed_at = now()")
        done = await self.command("redeliver", "--id", str(delivery.sms.id))
        self.assertEqual(done.status, 1)
        self.assertIn("its target was removed", done.err)
        self.assertEqual(await self.texts(state="dead"), ["x"])
