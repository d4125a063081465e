"""What status, why, messages and the gauge say of SMS that wait for parts."""

from __future__ import annotations

import json

from smsdaemon.domain.model import InboundSMS, Part
from smsdaemon.store.concatenations import Patience, give_up_overdue
from smsdaemon.store.support import queue_state
from tests.integration.test_why import WhyTest
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER


class ToldTest(WhyTest):
    async def part(self, number: int, total: int = 3, **fields: object) -> InboundSMS:
        """Accept one."""
        part = Part(reference="r7", number=number, total=total)
        sms = self.sms(f"{TEXT_MARKER} {number}", part=part, **fields)
        await self.received.accept(sms, None, False)
        return sms

    async def given_up(self) -> None:
        await self.pool.query("UPDATE concatenation SET began_at = began_at - interval '1 hour'")
        await give_up_overdue(self.pool, Patience(seconds=1800, first_delay_seconds=0))


class WhyPartsTests(ToldTest):
    async def test_an_sms_that_waits_tells_which_parts_came_and_which_are_missing(self) -> None:
        first = await self.part(1, 9, provider_message_id="p1")
        for number in (2, 3, 7):
            await self.part(number, 9)
        lines = await self.lines(first.id)
        for expected in (
            f"SMS {first.id}: incomplete, not delivered yet",
            "to +496…56, a connector of acme/shop",
            "provider generic, reference r7",
            "parts 4 of 9 came: 1-3, 7",
            "missing 4-6, 8-9",
        ):
            self.assertIn(expected, lines)
        self.assertEqual(await self.lines("p1"), lines)
        told = await self.told(first.id)
        self.assertEqual(list(told), ["incomplete"])
        self.assertEqual(
            (told["incomplete"]["came"], told["incomplete"]["missing"]), ([1, 2, 3, 7], [4, 5, 6, 8, 9])
        )

    async def test_every_id_of_a_part_will_do(self) -> None:
        first, second = await self.part(1), await self.part(2)
        self.assertEqual(await self.lines(second.id), await self.lines(first.id))

    async def test_both_numbers_tell_of_it(self) -> None:
        first = await self.part(1)
        for number in (SENDER, RECEIVER):
            found = [line for line in await self.lines(number) if str(first.id) in line]
            self.assertEqual(len(found), 1)
            self.assertRegex(found[0], r"incomplete 1 of 3\Z")

    async def test_once_it_was_given_up_the_sms_tells_what_is_missing(self) -> None:
        first = await self.part(1)
        await self.part(3)
        await self.given_up()
        lines = await self.lines(first.id)
        self.assertIn("parts 3, given up without 2", lines)
        self.assertEqual((await self.told(first.id))["sms"]["parts_missing"], [2])


class CountedTests(ToldTest):
    async def test_parts_that_wait_are_counted_and_are_no_messages(self) -> None:
        await self.part(1)
        await self.part(2)
        await self.part(1, 2, sender=f"{SENDER}1")
        queue = await queue_state(self.pool)
        self.assertEqual((queue.incomplete, queue.waiting_parts, queue.pending), (2, 3, 0))
        await self.part(3)
        queue = await queue_state(self.pool)
        self.assertEqual((queue.incomplete, queue.waiting_parts, queue.pending), (1, 1, 1))

    async def test_the_commands_say_so(self) -> None:
        first = await self.part(1)
        status = await self.command("status")
        self.assertIn("incomplete   1 SMS wait for parts, 1 parts are there\n", status.out)
        found = json.loads((await self.command("status", "--json")).out)
        self.assertEqual((found["incomplete"], found["waiting_parts"]), (1, 1))
        self.assertEqual((await self.command("messages", "--json")).out.strip(), "")
        why = await self.command("why", str(first.id))
        self.assertIn("missing    2-3\n", why.out)
        await self.given_up()
        [row] = [json.loads(line) for line in (await self.command("messages", "--json")).out.splitlines()]
        self.assertEqual(row["id"], str(first.id))
        self.assertNotIn("incomplete", (await self.command("status")).out)
