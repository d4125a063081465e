"""Several processes have one journal: its order, its count, and what comes of one that dies or stops."""

from __future__ import annotations

import os
import signal
import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel

from smsdaemon.errors import StoreUnavailable
from tests.support.cases import ReactorTest
from tests.support.journals import (
    OtherProcess,
    entries,
    entry,
    everything,
    lines_said,
    move,
    numbers,
    opened,
    until,
)


class ProcessesTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.folder = Path(self.mktemp()).absolute()
        self.journal = await opened(self, self.folder, probe_seconds=0.2)

    def other(self, *arguments: str) -> OtherProcess:
        return OtherProcess(self, *arguments)

    async def test_each_sees_at_once_what_another_was_answered(self) -> None:
        other = self.other("append", str(self.folder), "a", "7", "7")
        self.assertEqual(await deferToThread(other.line), "7")
        self.assertEqual(self.journal.pending, 7)
        self.assertEqual(numbers(await everything(self.journal)), list(range(7)))
        await move(self.journal)
        self.assertEqual(self.journal.pending, 0)

    async def test_four_that_append_at_once_lose_nothing_and_have_one_order(self) -> None:
        names = ("a", "b", "c")
        others = [self.other("append", str(self.folder), name, "10", "1500") for name in names]
        for n in range(0, 1500, 10):
            await self.journal.append(entries(n, n + 10, of="here"))
        for other in others:
            said = await deferToThread(other.lines)
            self.assertEqual(said[-1], "found 1500 True")
        found = await everything(self.journal)
        self.assertEqual(self.journal.pending, 6000)
        for name in (*names, "here"):
            self.assertEqual([one.row["number"] for one in found if one.row["of"] == name], list(range(1500)))

    async def test_one_that_is_killed_leaves_all_it_was_answered(self) -> None:
        in_all = 0
        for kill in range(5):
            other = self.other("append", str(self.folder), str(kill), "3", "1000000")
            for _ in range(20 + kill * 7):
                answered = int(await deferToThread(other.line))
            other.process.send_signal(signal.SIGKILL)
            answered = max([answered, *map(int, await deferToThread(other.lines))])
            found = [
                one.row["number"] for one in await everything(self.journal) if one.row["of"] == str(kill)
            ]
            self.assertEqual(found, list(range(len(found))))
            # The one that was on its way may be there; its batch is whole then.
            self.assertIn(len(found), (answered, answered + 3))
            await self.journal.append([entry(kill, of="here")])
            in_all += len(found) + 1
        self.assertEqual([path.name for path in self.folder.glob("*corrupt*")], [])
        self.assertEqual(len(await move(self.journal)), in_all)
        self.assertEqual((await everything(self.journal), self.journal.pending), ([], 0))

    async def test_a_count_that_was_left_too_high_is_put_right_when_nothing_is_found(self) -> None:
        await self.journal.append(entries(0, 3))
        # As one leaves it that is killed between the count and the commit.
        (self.folder / "pending").write_bytes(struct.pack("=3q", 5, 5, 0))
        self.assertEqual(self.journal.pending, 5)
        await move(self.journal)
        self.assertEqual(await self.journal.oldest(10), [])
        self.assertEqual(self.journal.pending, 0)

    async def test_a_count_that_did_not_survive_a_loss_of_power_is_put_right_at_the_start(self) -> None:
        await self.journal.append(entries(0, 3))
        await self.journal.close()
        for left in (struct.pack("=3q", 0, 0, 0), b"", struct.pack("=3q", 9, 9, 9)):
            (self.folder / "pending").write_bytes(left)
            journal = await opened(self, self.folder)
            self.assertEqual((journal.pending, journal.aside), (3, 0))
            await journal.close()

    async def test_a_count_that_was_half_written_is_not_taken_for_none(self) -> None:
        (self.folder / "pending").write_bytes(struct.pack("=3q", 0, 256, 0))
        self.assertEqual(self.journal.pending, 256)

    async def test_before_it_could_be_opened_nobody_says_that_it_is_empty(self) -> None:
        await self.journal.append([entry(1)])
        holder = self.other("hold", str(self.folder))
        await deferToThread(holder.line)
        (self.folder / "pending").write_bytes(bytes(24))
        journal = await opened(self, self.folder)
        self.assertEqual(journal.pending, 1)
        self.assertIn("another process has it", str(journal.trouble))
        holder.kill()
        self.assertEqual(numbers(await everything(journal)), [1])

    async def test_one_that_is_stopped_with_the_journal_in_hand_makes_the_others_fail_soon(self) -> None:
        await self.journal.append([entry(1)])
        holder = self.other("hold", str(self.folder))
        self.assertEqual(await deferToThread(holder.line), "held")
        holder.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        waiting = [self.journal.append([entry(n)]) for n in range(2, 6)]
        for d in waiting:
            await self.assertFailure(d, StoreUnavailable)
        self.assertLess(time.monotonic() - began, 2.5)
        self.assertEqual((self.journal.failures, self.journal.pending), (4, 1))
        self.assertRegex(str(self.journal.trouble), "another process has it|it is busy")
        holder.kill()
        await self.journal.append([entry(6)])
        self.assertIsNone(self.journal.trouble)
        # What was answered by a failure is not stored later after all.
        self.assertEqual(numbers(await everything(self.journal)), [1, 6])

    async def test_an_append_that_was_given_up_before_its_turn_is_not_stored_later(self) -> None:
        holder = self.other("hold", str(self.folder))
        await deferToThread(holder.line)
        # These are in front of it in this process, and wait for the other one.
        reading = [self.journal.oldest(1) for _ in range(3)]
        await self.assertFailure(self.journal.append([entry(1)]), StoreUnavailable)
        holder.kill()
        for d in reading[:1]:
            await self.assertFailure(d, StoreUnavailable)
        self.assertEqual(await reading[-1], [])
        await self.journal.append([entry(2)])
        self.assertEqual(numbers(await everything(self.journal)), [2])

    async def test_a_removal_that_finds_the_journal_taken_fails_and_is_repeated(self) -> None:
        await self.journal.append([entry(1)])
        found = await everything(self.journal)
        holder = self.other("hold", str(self.folder))
        await deferToThread(holder.line)
        await self.assertFailure(self.journal.remove(found), StoreUnavailable)
        self.assertEqual(self.journal.pending, 1)
        holder.kill()
        self.assertEqual(numbers(await move(self.journal)), [1])

    async def test_another_program_that_has_it_locked_makes_an_append_fail_soon(self) -> None:
        with closing(sqlite3.connect(self.folder / "journal", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            await self.assertFailure(self.journal.append([entry(1)]), StoreUnavailable)
            self.assertLess(time.monotonic() - began, 2.5)
            db.execute("ROLLBACK")
        await self.journal.append([entry(2)])
        self.assertEqual(numbers(await everything(self.journal)), [2])

    async def test_one_process_moves_at_a_time_and_its_death_frees_the_turn(self) -> None:
        await self.journal.append([entry(1)])
        mover = self.other("move", str(self.folder))
        self.assertEqual(await deferToThread(mover.line), "True 1")
        self.assertFalse(self.journal.begin_moving())
        mover.kill()
        self.assertTrue(self.journal.begin_moving())
        self.journal.end_moving()
        next_one = self.other("move", str(self.folder))
        self.assertEqual(await deferToThread(next_one.line), "True 1")

    async def test_trouble_that_has_passed_is_noticed_without_an_append(self) -> None:
        said = lines_said(self, LogLevel.info)
        holder = self.other("hold", str(self.folder))
        await deferToThread(holder.line)
        await self.assertFailure(self.journal.append([entry(1)]), StoreUnavailable)
        holder.kill()
        await until(lambda: self.journal.trouble is None)
        self.assertEqual(said, ["the journal works again"])

    async def test_a_folder_that_was_removed_is_begun_anew(self) -> None:
        said = lines_said(self)
        await self.journal.append([entry(1)])
        os.rename(self.folder, f"{self.folder}.away")
        await self.journal.append([entry(2)])
        self.assertEqual((numbers(await everything(self.journal)), self.journal.pending), ([2], 1))
        self.assertTrue(any("is gone" in line for line in said))
