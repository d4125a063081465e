"""The journal on a disk that is full or cannot be written to; on real ones where the tests may mount."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from unittest import SkipTest

from twisted.internet.threads import deferToThread

from smsdaemon.errors import StoreUnavailable
from smsdaemon.store.journal import Journal
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

READ_ONLY = "the journal cannot be written to: it or its folder is read-only"


def works(journal: Journal) -> bool:
    return journal.trouble is None


class LimitedProcessTests(ReactorTest):
    """For everybody: a process that may not write further than so far into any file."""

    async def test_past_a_limit_appends_fail_and_what_was_answered_is_there(self) -> None:
        folder = Path(self.mktemp()).absolute()
        journal = await opened(self, folder)
        limited = OtherProcess(self, "append", str(folder), "a", "5", "100000", "300000")
        said = await deferToThread(limited.lines)
        answered = int(said[-3])
        self.assertGreater(answered, 50)
        self.assertEqual(said[-1], f"found {answered} True")
        self.assertRegex(said[-2], "failed the journal cannot be used: (disk I/O error|the disk is full)")
        # Only that process is limited.
        await journal.append(entries(0, 5, of="here"))
        self.assertEqual(len(await everything(journal)), answered + 5)
        self.assertEqual(journal.pending, answered + 5)


class MountedTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.said = lines_said(self)
        self.disk = Path(self.mktemp()).absolute()
        self.disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(self.disk)]
        if os.geteuid() or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
            raise SkipTest("needs root, and the right to mount")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.disk)], check=True)
        self.folder = self.disk / "journal"

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.disk)], check=True)

    async def fill(self, journal: Journal) -> int:
        """Append until it fails; how many went in."""
        for n in range(0, 100_000, 5):
            try:
                await journal.append(entries(n, n + 5, more="x" * 200))
            except StoreUnavailable:
                return n
        raise AssertionError("the disk is never full")

    async def test_a_full_disk_is_told_and_once_there_is_room_it_goes_on(self) -> None:
        journal = await opened(self, self.folder)
        (self.disk / "ballast").write_bytes(bytes(400_000))
        stored = await self.fill(journal)
        self.assertGreater(stored, 100)
        self.assertEqual(
            (journal.trouble, journal.failures), ("the journal cannot be used: the disk is full", 5)
        )
        self.assertEqual(
            self.said, ["nothing can be stored in the journal: the journal cannot be used: the disk is full"]
        )
        self.assertEqual((numbers(await everything(journal)), journal.pending), (list(range(stored)), stored))
        (self.disk / "ballast").unlink()
        await journal.append([entry(stored)])
        self.assertIsNone(journal.trouble)
        self.assertEqual(numbers(await move(journal)), list(range(stored + 1)))

    async def test_a_full_disk_does_not_keep_what_is_in_it_from_being_moved(self) -> None:
        journal = await opened(self, self.folder)
        other = await opened(self, self.folder)
        stored = await self.fill(journal)
        with (self.disk / "ballast").open("wb", buffering=0) as ballast:
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(512))
        self.assertEqual(numbers(await move(journal)), list(range(stored)))
        self.assertEqual((journal.pending, other.pending), (0, 0))
        (self.disk / "ballast").unlink()
        self.assertEqual((await everything(other), await everything(journal)), ([], []))
        await other.append([entry(1)])
        self.assertEqual((numbers(await everything(journal)), journal.pending), ([1], 1))

    async def test_a_full_disk_at_the_start_is_told_and_noticed_when_it_has_passed(self) -> None:
        self.folder.mkdir()
        ballast = self.disk / "ballast"
        with contextlib.suppress(OSError):
            ballast.write_bytes(bytes(2_000_000))
        journal = await opened(self, self.folder, probe_seconds=0.2)
        self.assertEqual(
            (journal.trouble, journal.pending), ("the journal cannot be used: the disk is full", 0)
        )
        await self.assertFailure(journal.append([entry(1)]), StoreUnavailable)
        ballast.unlink()
        await until(lambda: journal.trouble is None)
        await journal.append([entry(1)])

    async def test_who_comes_to_a_full_disk_knows_what_others_have_in_the_journal_and_can_move_it(
        self,
    ) -> None:
        """Otherwise it would take PostgreSQL's word alone, and what is new would overtake what waits."""
        journal = await opened(self, self.folder)
        stored = await self.fill(journal)
        with (self.disk / "ballast").open("wb", buffering=0) as ballast:
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(512))
        newcomer = await opened(self, self.folder)
        self.assertEqual(newcomer.pending, stored)
        self.assertIn("the disk is full", newcomer.trouble or "")
        self.assertEqual(numbers(await move(newcomer)), list(range(stored)))
        self.assertEqual(newcomer.pending, 0)

    async def test_who_came_to_a_full_disk_sees_what_others_append_once_there_is_room(self) -> None:
        journal = await opened(self, self.folder)
        with (self.disk / "ballast").open("wb", buffering=0) as ballast:
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(512))
        newcomer = await opened(self, self.folder, probe_seconds=60)
        self.assertIn("the disk is full", newcomer.trouble or "")
        (self.disk / "ballast").unlink()
        await journal.append([entry(1)])
        self.assertEqual(newcomer.pending, 1)

    async def test_on_a_read_only_disk_what_is_there_is_read_and_moved_once(self) -> None:
        """After a clean end; after a kill, with and without the file that SQLite would need."""
        for name in ("clean", "killed", "without-shm"):
            self.remount("rw")
            folder = self.disk / name
            journal = await opened(self, folder)
            await journal.append(entries(0, 300))
            await journal.remove(await journal.oldest(10))
            if name == "clean":
                await journal.close()
            else:
                shutil.copytree(folder, self.disk / "copy")
                await journal.close()
                shutil.rmtree(folder)
                (self.disk / "copy").rename(folder)
            if name == "without-shm":
                (folder / "journal-shm").unlink()
            self.said.clear()
            self.remount("ro")
            journal = await opened(self, folder, probe_seconds=0.2)
            self.assertEqual(journal.trouble, READ_ONLY)
            self.assertEqual((journal.pending, journal.aside), (290, 0))
            await self.assertFailure(journal.append([entry(300)]), StoreUnavailable)
            self.assertTrue(journal.begin_moving())
            self.assertEqual(numbers(await move(journal)), list(range(10, 300)))
            self.assertEqual((await everything(journal), journal.pending), ([], 0))
            self.assertEqual(len([line for line in self.said if "cannot be taken out" in line]), 1, self.said)
            self.remount("rw")
            await until(partial(works, journal))
            await journal.append([entry(300)])
            self.assertEqual((numbers(await everything(journal)), journal.pending), ([300], 1))
            await journal.close()
            journal = await opened(self, folder)
            self.assertEqual(numbers(await everything(journal)), [300])
            await journal.close()
            shutil.rmtree(folder)

    async def test_a_read_only_disk_without_a_journal_is_told(self) -> None:
        self.remount("ro")
        journal = await opened(self, self.folder)
        self.assertEqual(journal.trouble, "the journal cannot be used: it cannot be written to: read-only")
        self.assertEqual(journal.pending, 0)
        await self.assertFailure(journal.append([entry(1)]), StoreUnavailable)
        self.remount("rw")
        await journal.append([entry(1)])
        self.assertIsNone(journal.trouble)


class UnprivilegedTests(ReactorTest):
    async def test_a_folder_that_may_not_be_written_to_is_read_and_moved_once(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        user = os.geteuid() or 65534
        os.chown(folder, user, -1)
        other = OtherProcess(self, "locked-out", str(folder), str(user))
        said = await deferToThread(other.lines)
        self.assertEqual(said, [READ_ONLY, "20 pending", "found 20 True", "0 pending", "None", "1 pending"])
