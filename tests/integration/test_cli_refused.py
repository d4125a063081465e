"""`smsdaemon refused` and `smsdaemon refused retry` as processes, on refused SMS of a real store."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from twisted.internet.threads import deferToThread

from smsdaemon.domain.ids import uuid7
from tests.integration.test_refused import MENDED, RefusedTest, utc_now
from tests.support.daemon import Daemon, Ended
from tests.support.postgres import drop_database, make_database
from tests.support.secrets_in_tests import OTHER_RECEIVER, RECEIVER, SENDER, TEXT_MARKER, leaks


class RefusedCommandTest(RefusedTest):
    async def command(self, *arguments: str) -> Ended:
        place = Daemon(dsn=self.dsn)
        self.addCleanup(place.remove)
        ended: Ended = await deferToThread(place.command, *arguments)
        return ended

    async def json(self, *arguments: str, status: int = 0) -> list[dict[str, Any]]:
        done = await self.command(*arguments, "--json")
        self.assertEqual(done.status, status, done.err)
        return [json.loads(line) for line in done.out.splitlines()]


class ListTests(RefusedCommandTest):
    async def test_json_rows_carry_everything(self) -> None:
        for _ in range(3):
            self.refuse("Ä\n\u2028👋", message_id="m1")
        await self.until_counted(3)
        [row] = await self.json("refused")
        [expected] = await self.rows()
        self.assertEqual(row, expected._asdict())
        self.assertEqual((row["times"], row["text"]), (3, f"{TEXT_MARKER} Ä\n\u2028👋"))
        names = "id received_at last_at times receiver sender reason provider_message_id text"
        self.assertEqual(list(row), names.split())

    async def test_the_human_form_masks_texts_and_numbers_until_asked_and_is_harmless(self) -> None:
        self.refuse("evil \x1b[2J", message_id="m1")
        await self.until_counted(1)
        plain = await self.command("refused")
        self.assertEqual((plain.status, leaks(plain.out.encode())), (0, []))
        [row] = await self.rows()
        for part in (row.id, "m1", row.reason, f"{len(row.text)} characters", f"{SENDER[:4]}…{SENDER[-2:]}"):
            self.assertIn(part, plain.out)
        shown = await self.command("refused", "--show-text")
        for part in (RECEIVER, SENDER, rf"{TEXT_MARKER} evil \x1b[2J"):
            self.assertIn(part, shown.out)

    async def test_receiver_since_and_limit_choose(self) -> None:
        now = utc_now()
        for minutes, receiver in ((3, RECEIVER), (2, OTHER_RECEIVER), (1, RECEIVER)):
            self.now = now - timedelta(minutes=minutes)
            self.refuse(str(minutes), receiver=receiver)
        await self.until_counted(3)
        for options, texts in (
            (("--receiver", RECEIVER.replace("+", "00")), ["3", "1"]),
            (("--since", "150s"), ["2", "1"]),
            (("--limit", "1"), ["3"]),
        ):
            rows = await self.json("refused", *options)
            self.assertEqual([row["text"].removeprefix(f"{TEXT_MARKER} ") for row in rows], texts, options)


class RetryCommandTests(RefusedCommandTest):
    async def test_a_line_for_each_and_the_counts_and_status_1_while_one_is_refused(self) -> None:
        self.refuse("1", message_id="m1")
        self.refuse("2")
        self.refuse("3", receiver=OTHER_RECEIVER)
        await self.until_counted(3)
        await self.apply(MENDED)
        receipt = await self.accept("1", message_id="m1")
        ids = {row.text.removeprefix(f"{TEXT_MARKER} "): row.id for row in await self.rows()}
        lines = {
            f"already accepted\t{ids['1']}\tas {receipt.id}",
            f"accepted\t{ids['2']}",
            f"still refused\t{ids['3']}\tthe connector is disabled",
        }
        dry = await self.command("refused", "retry", "--all", "--dry-run")
        self.assertEqual((dry.status, set(dry.out.splitlines()[:-1])), (1, lines))
        counts = "accepted 1, already accepted 1, still refused 1"
        self.assertEqual(dry.out.splitlines()[-1], f"dry run, nothing changed: {counts}")
        done = await self.command("refused", "retry", "--all")
        self.assertEqual((done.status, set(done.out.splitlines())), (1, lines | {counts}))
        self.assertEqual(done.err, "smsdaemon: 1 still refused\n")
        rows = await self.json("refused", "retry", "--id", ids["3"], status=1)
        reason = "the connector is disabled"
        self.assertEqual(
            rows, [{"id": ids["3"], "result": "still refused", "message_id": None, "reason": reason}]
        )

    async def test_status_0_where_all_are_accepted_and_1_where_none_matches(self) -> None:
        self.refuse()
        await self.until_counted(1)
        await self.apply(MENDED)
        [row] = await self.json("refused", "retry", "--receiver", RECEIVER)
        self.assertEqual((row["result"], row["id"]), ("accepted", row["message_id"]))
        for options in (("--all",), ("--id", str(uuid7(utc_now()))), ("--receiver", RECEIVER)):
            done = await self.command("refused", "retry", *options)
            self.assertEqual((done.status, done.err), (1, "smsdaemon: nothing is refused that matches\n"))

    async def test_wrong_usage_is_status_2(self) -> None:
        for arguments in (
            ("retry",),
            ("retry", "--all", "--receiver", RECEIVER),
            ("--receiver", RECEIVER, "retry", "--all"),
            ("retry", "--id", "x"),
        ):
            self.assertEqual((await self.command("refused", *arguments)).status, 2, arguments)

    async def test_the_first_delay_of_the_schedule_holds_for_them_too(self) -> None:
        self.refuse()
        await self.until_counted(1)
        await self.apply(MENDED)
        place = Daemon("[routing]\nretry_schedule = [3600]\n", dsn=self.dsn)
        self.addCleanup(place.remove)
        done: Ended = await deferToThread(place.command, "refused", "retry", "--all")
        self.assertEqual(done.status, 0, done.err)
        due = "SELECT due_at - now() BETWEEN interval '59 minutes' AND interval '1 hour' FROM delivery"
        self.assertEqual(await self.pool.query(due), [(True,)])

    async def test_config_may_stand_before_retry_or_behind_it(self) -> None:
        dsn = make_database()
        self.addCleanup(drop_database, dsn)
        self.refuse()
        await self.until_counted(1)
        place = Daemon(dsn=dsn)
        self.addCleanup(place.remove)
        behind: Ended = await deferToThread(
            place.command, "refused", "retry", "--config", str(place.config), "--all"
        )
        self.assertEqual(behind.err, "smsdaemon: nothing is refused that matches\n")
