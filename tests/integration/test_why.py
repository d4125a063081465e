"""What `smsdaemon why` tells, on a real PostgreSQL that the store itself has filled."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from smsdaemon.cli.why import document
from smsdaemon.cli.why_lines import lines
from smsdaemon.domain.ids import of_the_same_time, uuid7
from smsdaemon.domain.model import Dead, Delivered, Postponed
from smsdaemon.store import redelivery
from smsdaemon.store.why import complete, why
from smsdaemon.store.why_queries import OF_ENDED_AT_ONCE
from smsdaemon.store.why_values import AttemptTold
from tests.support.cases import UnitTest
from tests.support.deliveries import target
from tests.support.secrets_in_tests import OTHER_RECEIVER, OTHER_SENDER, RECEIVER, SENDER, TEXT_MARKER, leaks
from tests.support.store import apply_text
from tests.support.stored_sms import HOLDER, StoredSmsTest, utc_now

TEXT = f"{TEXT_MARKER} Grüße"


class WhyTest(StoredSmsTest):
    async def told(self, asked: object, show_text: bool = False) -> dict[str, Any]:
        """The JSON form."""
        told = await why(self.pool, str(asked), 10)
        assert told is not None
        found: dict[str, Any] = json.loads(json.dumps(document(told, show_text)))
        return found

    async def delivery_of(self, asked: object) -> dict[str, Any]:
        [delivery] = (await self.told(asked, show_text=True))["sms"]["deliveries"]
        found: dict[str, Any] = delivery
        return found

    async def lines(self, asked: object, show_text: bool = False, limit: int = 10) -> list[str]:
        """The form for people, with runs of blanks as one."""
        told = await why(self.pool, str(asked), limit)
        assert told is not None
        found = list(lines(told, show_text))
        for line in found:
            self.assertLessEqual(len(line), 100, line)
        if not show_text:
            self.assertEqual(leaks("".join(found).encode()), [])
        return [" ".join(line.split()) for line in found]

    async def sql(self, statement: str, **parameters: object) -> None:
        await self.pool.query(statement, {name: str(value) for name, value in parameters.items()})


class SmsTests(WhyTest):
    async def test_reception_and_decoding(self) -> None:
        id = await self.waiting(
            TEXT, encoding="windows-1252", raw_text=TEXT.encode("cp1252"), provider_message_id="m1", parts=3
        )
        lines = await self.lines(id)
        for expected in (
            f"SMS {id}: pending",
            "to +496…56, a connector of acme/shop",
            "from +491…11",
            "provider generic, id m1",
            f"text {len(TEXT)} characters",
            f"decoded by windows-1252, its {len(TEXT)} bytes kept",
            "parts 3",
        ):
            self.assertIn(expected, lines)
        sms = (await self.told(id, show_text=True))["sms"]
        self.assertEqual((sms["text"], sms["receiver"], sms["sender"]), (TEXT, RECEIVER, SENDER))
        self.assertEqual(
            (sms["connector"], sms["client"], sms["kept_bytes"]), (RECEIVER, "acme/shop", len(TEXT))
        )

    async def test_texts_and_numbers_are_masked_in_both_forms_unless_asked_for(self) -> None:
        outcome = Dead(reason="answered 410")
        delivery = await self.ended(
            outcome, TEXT, keyword=TEXT, status=410, answer=f"no {TEXT}", sender_raw=SENDER[1:]
        )
        for options in ((), ("--json",)):
            done = await self.command("why", str(delivery.sms.id), *options)
            self.assertEqual(leaks(done.out.encode()), [])
            done = await self.command("why", str(delivery.sms.id), "--show-text", *options)
            self.assertEqual(leaks(done.out.encode()), ["a text", "a number"])

    async def test_what_somebody_sent_does_not_steer_the_terminal(self) -> None:
        id = await self.waiting("evil \x1b[2J", provider_message_id="\x1b[1m", sender="\x1b[3m123456")
        self.assertFalse("\x1b" in "".join(await self.lines(id, show_text=True)))

    async def test_every_id_of_it_will_do(self) -> None:
        ended = await self.ended(Delivered(), TEXT, provider_message_id="m-1")
        waiting, alias = await self.waiting(TEXT), uuid7(utc_now())
        await self.sql("INSERT INTO message_alias VALUES (%(alias)s, %(id)s)", alias=alias, id=waiting)
        [(pending,)] = await self.pool.query("SELECT id FROM delivery")
        for asked, id in (
            (ended.sms.id, ended.sms.id),
            (ended.id, ended.sms.id),
            ("m-1", ended.sms.id),
            (str(ended.sms.id).replace("-", "").upper(), ended.sms.id),
            (alias, waiting),
            (pending, waiting),
        ):
            self.assertEqual((await self.told(asked))["sms"]["id"], str(id), asked)
        self.assertIn(f"also known {alias}", await self.lines(waiting))

    async def test_a_deliverys_id_is_found_without_reading_all_history_unless_it_was_sent_on(self) -> None:
        ended = await self.ended(Delivered(), TEXT)
        first, last = map(str, of_the_same_time(ended.id))
        span = {"id": str(ended.id), "first": first, "last": last}
        self.assertEqual(await self.pool.query(OF_ENDED_AT_ONCE, span), [(str(ended.sms.id),)])
        later = uuid7(utc_now() + timedelta(hours=1))
        await self.sql("UPDATE ended_delivery SET id = %(later)s", later=later)
        self.assertEqual((await self.told(later))["sms"]["id"], str(ended.sms.id))

    async def test_of_several_with_one_id_of_the_providers_all_are_named(self) -> None:
        ids = [str(await self.waiting(TEXT, sender=f"+4977{n}", provider_message_id="m1")) for n in range(2)]
        self.assertEqual([row["id"] for row in (await self.told("m1"))["messages"]], ids[::-1])
        self.assertEqual(len(await self.lines("m1")), 2)

    async def test_what_is_unknown_is_said_without_repeating_a_number(self) -> None:
        unknown = uuid7(utc_now())
        for asked, named in ((str(unknown), str(unknown)), (OTHER_SENDER, "+491…22")):
            done = await self.command("why", asked)
            self.assertEqual((done.status, done.err), (1, f"smsdaemon: nothing is known of {named}\n"))


class AttemptTests(WhyTest):
    async def test_each_attempt_is_told_with_what_came_of_it(self) -> None:
        postponed = Postponed(delay_seconds=0, reason="answered 503")
        before = await self.ended(postponed, TEXT, status=503, answer="full")
        [again] = await self.store.claim(1, {}, 1)
        await self.store.settle(again, Delivered(reason="answered 200"), None)
        delivery = await self.delivery_of(before.id)
        self.assertEqual(
            (delivery["state"], delivery["count"], delivery["id"]), ("delivered", 2, str(before.id))
        )
        first, second = delivery["attempts"]
        self.assertEqual(
            [first[key] for key in ("number", "outcome", "reason", "holder", "status", "seconds", "answer")],
            [1, "retry", "answered 503", HOLDER, 503, 0.25, "full"],
        )
        self.assertIsNotNone(first["next_at"])
        self.assertEqual(
            (second["outcome"], second["reason"], second["holder"]), ("delivered", "answered 200", HOLDER)
        )

    async def test_attempts_before_a_redelivery_are_still_told(self) -> None:
        dead = await self.ended(Dead(reason="answered 410"), TEXT, status=410, answer="gone")
        await redelivery.redeliver(self.pool, redelivery.Dead())
        [again] = await self.store.claim(1, {}, 1)
        await self.store.settle(again, Delivered(reason="answered 200"), None)
        delivery = await self.delivery_of(dead.sms.id)
        told = [(a["number"], a["outcome"], a["reason"], a["answer"]) for a in delivery["attempts"]]
        self.assertEqual(told, [(1, "dead", "answered 410", "gone"), (2, "delivered", "answered 200", "")])

    async def test_what_is_under_way_says_by_whom_and_until_when(self) -> None:
        delivery = await self.leased(TEXT)
        lines = await self.lines(delivery.sms.id)
        self.assertIn(f"attempt 1 under way by {HOLDER}", lines)
        self.assertTrue(any(line.startswith("now attempt 1 is under way, leased until ") for line in lines))

    async def test_a_lease_that_ran_out_is_a_lost_attempt(self) -> None:
        delivery = await self.leased(TEXT)
        await self.sql("UPDATE delivery SET leased_until = now() - interval '1 second'")
        lines = await self.lines(delivery.sms.id)
        self.assertIn(f"attempt 1 lost by {HOLDER} its process died or lost its lease", lines)
        self.assertTrue(any(line.startswith("now the lease of attempt 1 ran out ") for line in lines))
        await self.store.claim(1, {}, 1)
        told = await self.delivery_of(delivery.sms.id)
        self.assertEqual([a["outcome"] for a in told["attempts"]], ["lost", "under way"])

    async def test_hops_are_told_in_order(self) -> None:
        onward = target(id=self.targets["support"], client_id=self.client_id)
        first = await self.ended(Delivered(onward=onward), TEXT, target_id=self.targets["survey"])
        told = (await self.told(first.sms.id))["sms"]
        names = [(d["target"]["kind"], d["target"]["name"], d["state"]) for d in told["deliveries"]]
        self.assertEqual(names, [("application", "survey", "delivered"), ("acd_group", "support", "pending")])
        self.assertEqual(told["state"], "pending")


class WaitingTests(WhyTest):
    async def test_behind_another_of_its_conversation(self) -> None:
        head = await self.leased(TEXT)
        await self.waiting(TEXT)
        last = await self.waiting(TEXT)
        lines = await self.lines(last)
        self.assertIn(f"now waits behind SMS {head.sms.id}", lines)
        self.assertIn("of its conversation; 2 ahead of it", lines)
        self.assertIn("attempts none yet", lines)

    async def test_for_its_next_attempt(self) -> None:
        delivery = await self.ended(Postponed(delay_seconds=600, reason="answered 500"), TEXT)
        lines = await self.lines(delivery.sms.id)
        self.assertTrue(any(line.startswith("now attempt 2 is due 20") for line in lines), lines)

    async def test_for_a_target_that_is_disabled_removed_or_left_alone(self) -> None:
        id = await self.waiting(TEXT)
        await self.sql("UPDATE target SET enabled = false")
        self.assertIn("its target is disabled, and so it waits", await self.lines(id))
        await self.sql("UPDATE target SET enabled = true")
        await self.sql(
            "INSERT INTO open_breaker SELECT id, now(), now() + interval '5 s', 'timed out' FROM target"
        )
        lines = await self.lines(id)
        self.assertIn("its target's breaker is open: only probes are made", lines)
        self.assertTrue(any(line.startswith("breaker open since 20") for line in lines))
        self.assertTrue(any(line.endswith("; timed out") for line in lines))
        await self.sql("UPDATE target SET removed_at = now()")
        self.assertIn("its target was removed", await self.lines(id))

    async def test_what_apply_has_ended_has_no_attempt_for_it(self) -> None:
        id = await self.waiting(TEXT)
        keep = '[[reseller]]\nname = "acme"\n[[client]]\nname = "shop"\nreseller = "acme"\n'
        await apply_text(self.pool, keep, prune=True, force=True)
        lines = await self.lines(id)
        self.assertIn("dead connector removed", lines)
        self.assertIn("attempts none", lines)
        self.assertIn("to +496…56, a connector of acme/shop, now removed", lines)


class NumberTests(WhyTest):
    async def test_a_connector_with_its_target_and_what_came_last(self) -> None:
        for n in range(3):
            await self.ended(Delivered(), TEXT, sender=f"+4917712345{n}")
        last = await self.ended(Postponed(delay_seconds=60, reason="answered 500"), TEXT)
        lines = await self.lines(RECEIVER.replace("+", "00"), limit=2)
        self.assertEqual(lines[0], "Number +496…56: a connector of acme/shop")
        self.assertIn("requests would be taken, no token needed", lines)
        self.assertIn("target acd_group acme/shop/support, enabled", lines)
        self.assertIn("pending 1 to it, 0 from it", lines)
        self.assertIn(f"0 under way, 1 wait for another try, oldest {last.sms.id}", lines)
        rows = [line for line in lines if "from +" in line]
        self.assertEqual(len(rows), 2)
        self.assertTrue(rows[0].endswith(f"{last.sms.id} from +491…11 pending 1 attempt"), rows)

    async def test_why_requests_to_it_would_be_refused(self) -> None:
        for change, status, said in (
            ("UPDATE connector SET enabled = false", 502, "the connector is disabled"),
            ("UPDATE client SET enabled = false", 502, "the client or its reseller is disabled"),
            ("UPDATE connector SET target_id = NULL", 502, "neither ACD group nor routing application"),
            ("UPDATE connector SET removed_at = now()", 404, "no connector has this number"),
        ):
            await self.sql(change)
            connector = (await self.told(RECEIVER))["number"]["connector"]
            self.assertEqual(connector["status"], status)
            self.assertIn(said, connector["refusal"])
            await self.sql("UPDATE connector SET enabled = true; UPDATE client SET enabled = true")

    async def test_a_sender_in_any_spelling(self) -> None:
        ids = [str(await self.waiting(TEXT, sender=sender)) for sender in (SENDER, "0155 501 (09)")]
        for asked, id in ((SENDER, ids[0]), (SENDER.replace("+", "00"), ids[0]), ("0155-50109", ids[1])):
            told = (await self.told(asked))["number"]
            self.assertEqual([row["id"] for row in told["messages"]], [id], asked)
            self.assertIsNone(told["connector"])
        self.assertIn("pending 0 to it, 1 from it", await self.lines(SENDER))

    async def test_refused_sms_by_number_and_by_id(self) -> None:
        id = uuid7(utc_now())
        await self.sql(
            "INSERT INTO refused_sms (id, last_at, times, reason, connector_id, receiver, sender, sender_raw,"
            " text, provider, encoding, parts) VALUES (%(id)s, now(), 3, 'the connector is disabled',"
            " %(connector)s, %(receiver)s, %(sender)s, '', %(text)s, 'generic', 'utf-8', 1)",
            id=id, connector=self.connector_id, receiver=RECEIVER, sender=OTHER_SENDER, text=TEXT,
        )  # fmt: skip
        for asked in (RECEIVER, OTHER_SENDER):
            [row] = [line for line in await self.lines(asked) if "refused" in line]
            self.assertTrue(row.endswith(f"{id} from +491…22 refused 3 times"), row)
        lines = await self.lines(id)
        self.assertEqual(lines[0], f"Refused SMS {id}: answered 502")
        self.assertIn("because the connector is disabled", lines)

    async def test_a_number_of_nobody_is_unknown(self) -> None:
        await self.waiting(TEXT)
        self.assertIsNone(await why(self.pool, OTHER_RECEIVER, 10))


class CompleteTests(UnitTest):
    def told(self, count: int, recorded: list[int], last: AttemptTold | None = None) -> list[tuple[int, str]]:
        records = [AttemptTold(number=n, outcome="retry", holder=HOLDER) for n in recorded]
        return [(a.number, a.outcome) for a in complete(count, records, last)]

    def test_what_has_no_record_was_lost(self) -> None:
        last = AttemptTold(number=4, outcome="delivered", holder=HOLDER, ended_at=utc_now())
        told = [(1, "retry"), (2, "lost"), (3, "retry"), (4, "delivered")]
        self.assertEqual(self.told(4, [1, 3], last), told)
        self.assertEqual(self.told(2, [1]), [(1, "retry"), (2, "lost")])

    def test_an_older_smsdaemon_recorded_none(self) -> None:
        last = AttemptTold(number=2, outcome="dead", ended_at=utc_now())
        self.assertEqual(self.told(2, [], last), [(1, "not recorded"), (2, "dead")])

    def test_none_without_attempts(self) -> None:
        self.assertEqual(self.told(0, [], AttemptTold(number=0, outcome="dead", ended_at=utc_now())), [])
