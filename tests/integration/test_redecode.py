"""What `smsdaemon redecode` makes of stored SMS, on a real PostgreSQL."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import Dead, Delivered, Delivery, Outcome, Postponed
from smsdaemon.store.redecode import Page, Reread, Rereading, redecode, redeliver_again, under_way
from smsdaemon.store.selection import Selection
from tests.support.deliveries import target
from tests.support.secrets_in_tests import OTHER_SENDER, RECEIVER, SENDER, TEXT_MARKER, leaks
from tests.support.stored_sms import StoredSmsTest, reactor, utc_now

RIGHT = f"{TEXT_MARKER} Grüße für 5 £"
RAW = RIGHT.encode("cp850")
WRONG = RAW.decode("cp1252", "replace")
AS_CP850: Any = {"encoding": "windows-1252", "raw_text": RAW}
"""As received from a provider that sends code page 850 and does not say so."""


class RedecodeTest(StoredSmsTest):
    async def pages(self, *ids: UUID, **rereading: Any) -> list[Page]:
        chosen = ids or Selection(receiver=RECEIVER)
        terms = Rereading(**{"charset": "ibm850", **rereading})
        return [page async for page in redecode(self.pool, chosen, terms)]

    async def reread(self, *ids: UUID, **rereading: Any) -> list[Reread]:
        return [one for page in await self.pages(*ids, **rereading) for one in page.reread]

    async def stored(self, id: UUID) -> tuple[str, str]:
        [(text, encoding)] = await self.pool.query(
            "SELECT text, encoding FROM message WHERE id = %(id)s", {"id": str(id)}
        )
        return text, encoding

    async def next_attempts(self) -> list[Delivery]:
        """What a daemon would attempt now, taken and delivered, in order."""
        order: list[Delivery] = []
        due = list(await self.store.claim(100, {}, 100))
        while due:
            order.append(due.pop(0))
            successor = await self.store.settle(order[-1], Delivered(), None)
            due += [successor] if successor is not None else []
        return order


class RereadTests(RedecodeTest):
    async def test_the_text_is_what_its_bytes_mean_by_the_other_charset(self) -> None:
        id = await self.waiting(WRONG, **AS_CP850)
        [one] = await self.reread(id)
        self.assertEqual(
            (one.result, one.encoding, one.text, one.new_text), ("changed", "windows-1252", WRONG, RIGHT)
        )
        self.assertEqual(await self.stored(id), (RIGHT, "ibm850"))

    async def test_doing_it_again_changes_nothing_and_redelivers_nothing(self) -> None:
        delivery = await self.ended(Delivered(), WRONG, **AS_CP850)
        await self.reread(redeliver=True)
        self.assertEqual([d.id for d in await self.next_attempts()], [delivery.id])
        [one] = await self.reread(redeliver=True)
        self.assertEqual((one.result, one.redelivery), ("unchanged", None))
        self.assertEqual(await self.next_attempts(), [])

    async def test_it_can_be_read_back_by_the_charset_of_before(self) -> None:
        id = await self.waiting(WRONG, **AS_CP850)
        await self.reread(id)
        await self.reread(id, charset="windows-1252", damaged=True)
        self.assertEqual(await self.stored(id), (WRONG, "windows-1252"))

    async def test_what_came_as_ascii_or_without_bytes_stays_as_it_is(self) -> None:
        plain, escaped = await self.waiting("plain"), await self.waiting("für")
        results = {one.id: one.result for one in await self.reread(plain, escaped)}
        self.assertEqual(results, {str(plain): "ascii", str(escaped): "no bytes"})
        self.assertEqual((await self.stored(escaped)), ("für", "utf-8"))

    async def test_what_would_be_damaged_is_left_alone_unless_asked_for(self) -> None:
        id = await self.waiting(WRONG, **AS_CP850)
        [one] = await self.reread(id, charset="utf-8", redeliver=True)
        self.assertEqual((one.result, one.redelivery), ("damaged", None))
        self.assertEqual(await self.stored(id), (WRONG, "windows-1252"))
        [one] = await self.reread(id, charset="utf-8", damaged=True)
        self.assertEqual(one.result, "changed")
        self.assertEqual(await self.stored(id), (RAW.decode("utf-8", "replace"), "utf-8"))

    async def test_a_dry_run_says_the_same_and_changes_nothing(self) -> None:
        await self.ended(Delivered(), WRONG, **AS_CP850)
        before = await self.pool.query("SELECT m.*, m.xmin FROM message m")
        [one] = await self.reread(dry_run=True, redeliver=True)
        self.assertEqual((one.result, one.new_text), ("changed", RIGHT))
        self.assertEqual(await self.pool.query("SELECT m.*, m.xmin FROM message m"), before)
        self.assertEqual(await self.next_attempts(), [])

    async def test_numbers_and_times_choose(self) -> None:
        now = utc_now()
        for minutes, sender in ((5, SENDER), (4, OTHER_SENDER), (3, SENDER), (1, SENDER)):
            at = now - timedelta(minutes=minutes)
            await self.waiting(WRONG, at=at, sender=sender, keyword=str(minutes), **AS_CP850)
        chosen = Selection(
            sender=SENDER, since=now - timedelta(minutes=5), until=now - timedelta(minutes=1), limit=9
        )
        [page] = [page async for page in redecode(self.pool, chosen, Rereading(charset="ibm850"))]
        rows = await self.pool.query("SELECT keyword FROM message WHERE encoding = 'ibm850' ORDER BY id")
        self.assertEqual(([one.result for one in page.reread], rows), (["changed"] * 2, [("5",), ("3",)]))

    async def test_pages_lose_and_repeat_nothing(self) -> None:
        from smsdaemon.store import redecode as module

        self.patch(module, "_PAGE_ROWS", 3)
        for n in range(8):
            await self.waiting(WRONG, at=utc_now() + n * timedelta(milliseconds=2), **AS_CP850)
        self.assertEqual([one.result for one in await self.reread()], ["changed"] * 8)


class RedeliveryTests(RedecodeTest):
    async def test_what_ended_goes_out_again_under_its_webhook_id_and_in_order(self) -> None:
        outcomes: list[Outcome] = [Delivered(), Dead(reason="410"), Delivered()]
        before = [
            await self.ended(outcome, f"{n} {WRONG}", **{**AS_CP850, "raw_text": b"%d " % n + RAW})
            for n, outcome in enumerate(outcomes)
        ]
        await self.ended(Delivered(), "plain")
        self.assertEqual(
            [(one.result, one.redelivery) for one in await self.reread(redeliver=True)],
            [("changed", "redelivered")] * 3 + [("ascii", None)],
        )
        after = await self.next_attempts()
        self.assertEqual([d.id for d in after], [d.id for d in before])
        self.assertEqual([d.sms.text for d in after], [f"{n} {RIGHT}" for n in range(3)])
        self.assertEqual([(d.attempt, d.round_attempt) for d in after], [(2, 1)] * 3)

    async def test_only_the_last_target_hears_it_again(self) -> None:
        onward = target(id=self.targets["support"], client_id=self.client_id)
        await self.ended(Delivered(onward=onward), WRONG, target_id=self.targets["survey"], **AS_CP850)
        [hop] = await self.next_attempts()
        await self.reread(redeliver=True)
        [again] = await self.next_attempts()
        self.assertEqual(
            (again.id, again.target_id, again.sms.text), (hop.id, self.targets["support"], RIGHT)
        )

    async def test_what_is_pending_goes_out_once_with_the_new_text(self) -> None:
        await self.waiting(WRONG, **AS_CP850)
        await self.ended(Postponed(delay_seconds=0, reason="503"), WRONG, sender=OTHER_SENDER, **AS_CP850)
        self.assertEqual([one.redelivery for one in await self.reread(redeliver=True)], ["pending"] * 2)
        self.assertEqual([d.sms.text for d in await self.next_attempts()], [RIGHT] * 2)

    async def test_what_is_under_way_goes_out_again_once_that_attempt_has_ended(self) -> None:
        delivery = await self.leased(WRONG, **AS_CP850)
        [page] = await self.pages(redeliver=True)
        self.assertEqual([one.redelivery for one in page.reread], ["under way"])
        self.assertEqual(await under_way(self.pool, page.leases), page.leases)
        await self.store.settle(delivery, Delivered(), None)
        self.assertEqual(await under_way(self.pool, page.leases), [])
        self.assertEqual(await redeliver_again(self.pool, page.leases), {str(delivery.sms.id)})
        self.assertEqual([(d.id, d.sms.text) for d in await self.next_attempts()], [(delivery.id, RIGHT)])

    async def test_what_went_to_a_target_that_was_removed_is_changed_and_stays(self) -> None:
        await self.ended(Delivered(), WRONG, **AS_CP850)
        await self.pool.query("UPDATE target SET removed_at = now()")
        [one] = await self.reread(redeliver=True)
        self.assertEqual((one.result, one.redelivery), ("changed", "no target"))
        self.assertEqual(await self.pool.query("SELECT 1 FROM delivery"), [])

    async def test_the_record_of_the_attempt_that_ended_it_is_kept(self) -> None:
        await self.ended(Delivered(reason="answered 200"), WRONG, status=200, answer="taken", **AS_CP850)
        [ended] = await self.pool.query(
            "SELECT holder, status, seconds, answer, ended_at FROM ended_delivery"
        )
        await self.reread(redeliver=True)
        rows = await self.pool.query(
            "SELECT holder, status, seconds, answer, ended_at, number, outcome, reason FROM attempt"
        )
        self.assertEqual(rows, [(*ended, 1, "delivered", "answered 200")])
        self.assertEqual(ended[1:4], (200, 0.25, "taken"))


class RedecodeCommandTests(RedecodeTest):
    async def test_texts_are_masked_unless_asked_for(self) -> None:
        id = await self.waiting(WRONG, **AS_CP850)
        done = await self.command("redecode", "--charset", "cp850", "--id", str(id), "--dry-run")
        self.assertEqual((done.status, done.err), (0, ""))
        line, counts = done.out.splitlines()
        size = f"{len(RIGHT)} characters"
        self.assertEqual(line, f"{id}\twindows-1252 > ibm850\tchanged\t{size} > {size}")
        self.assertEqual(counts, "changed 1, unchanged 0; nothing was changed (--dry-run)")
        self.assertEqual(leaks(done.out.encode()), [])
        done = await self.command("redecode", "--charset", "cp850", "--receiver", RECEIVER, "--show-text")
        self.assertIn(f"> {RIGHT}\n", done.out)

    async def test_json_has_a_row_for_each_sms(self) -> None:
        id = await self.waiting(WRONG, **AS_CP850)
        for options, texts in (((), [f"{len(WRONG)} characters"] * 2), (("--show-text",), [WRONG, RIGHT])):
            done = await self.command(
                "redecode", "--json", "--dry-run", "--charset", "cp850", "--id", str(id), *options
            )
            [row] = map(json.loads, done.out.splitlines())
            self.assertEqual([row.pop("text"), row.pop("new_text")], texts)
            expected = {"id": str(id), "from": "windows-1252", "to": "ibm850", "result": "changed"}
            self.assertEqual(row, {**expected, "redelivery": None})

    async def test_an_id_that_only_the_provider_knows_will_do(self) -> None:
        id, alias = await self.waiting(WRONG, **AS_CP850), uuid7(utc_now())
        await self.pool.query(
            "INSERT INTO message_alias VALUES (%(alias)s, %(id)s)", {"alias": str(alias), "id": str(id)}
        )
        done = await self.command("redecode", "--charset", "cp850", "--id", str(alias))
        self.assertEqual(done.status, 0, done.err)
        self.assertEqual(await self.stored(id), (RIGHT, "ibm850"))

    async def test_an_unknown_charset_or_no_choice_is_a_usage_error(self) -> None:
        for arguments, said in (
            (("--charset", "klingon", "--since", "1h"), "utf-8, windows-1250"),
            (("--charset", "utf-8"), "Choose by --id"),
            (("--charset", "utf-8", "--sender", "1"), "Choose by --id"),
            (("--charset", "utf-8", "--id", str(UUID(int=1)), "--limit", "1"), "go with --receiver"),
        ):
            done = await self.command("redecode", *arguments)
            self.assertEqual(done.status, 2)
            self.assertIn(said, " ".join(done.err.split()))

    async def test_what_is_not_there_is_said(self) -> None:
        unknown = uuid7(utc_now())
        done = await self.command("redecode", "--charset", "utf-8", "--id", str(unknown))
        self.assertEqual((done.status, done.err), (1, f"smsdaemon: there is no SMS {unknown}\n"))
        done = await self.command("redecode", "--charset", "utf-8", "--since", "1h")
        self.assertEqual((done.status, done.err), (1, "smsdaemon: no SMS matches\n"))

    async def test_the_command_waits_for_what_is_under_way(self) -> None:
        delivery = await self.leased(WRONG, **AS_CP850)
        running = ensureDeferred(
            self.command("redecode", "--charset", "cp850", "--receiver", RECEIVER, "--redeliver")
        )
        while not running.called and (await self.stored(delivery.sms.id))[1] != "ibm850":
            await deferLater(reactor, 0.05)
        await self.store.settle(delivery, Delivered(), None)
        done = await running
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertIn("waiting for attempts with the former text: 1\n", done.out)
        self.assertTrue(done.out.endswith("changed 1, unchanged 0, redelivered 1\n"), done.out)
        self.assertEqual([(d.id, d.sms.text) for d in await self.next_attempts()], [(delivery.id, RIGHT)])
