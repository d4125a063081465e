"""A journal that is damaged is replaced, with everything that can still be read of it, in its order."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from smsdaemon.errors import StoreUnavailable
from smsdaemon.store.journal import Journal
from smsdaemon.store.journal_pages import PAGE_BYTES, DamagedFile, write_ahead_log
from smsdaemon.store.journal_rows import unpacked
from tests.support.cases import ReactorTest
from tests.support.journals import entries, entry, everything, lines_said, move, numbers, opened

FRAME_BYTES = PAGE_BYTES + 24
ON_ONE_PAGE = 20
"""More entries than fit on a page, as these tests make them."""


def overwrite(path: Path, *starts: int, length: int = 1000) -> None:
    """Put garbage there, the same each time."""
    with path.open("r+b") as file:
        for start in starts:
            file.seek(start)
            file.write(random.Random(start).randbytes(length))


class DamageTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.said = lines_said(self)
        self.folder = Path(self.mktemp())

    async def filled(self) -> Journal:
        """A journal of 400 entries of which 100 were moved; the longest take pages of their own."""
        journal = await opened(self, self.folder)
        for n in range(0, 400, 5):
            await journal.append(
                [entry(m, key=b"%d" % m, more="x" * (9000 if m % 50 == 7 else 100)) for m in range(n, n + 5)]
            )
        await journal.remove(await journal.oldest(100))
        return journal

    def as_after_power_loss(self, name: str) -> Path:
        """A copy of the folder as it is on disk now."""
        copy = Path(f"{self.folder}.{name}")
        shutil.copytree(self.folder, copy)
        for path in copy.glob("*-shm"):
            path.unlink()
        return copy

    async def rescued(self, folder: Path) -> list[int]:
        """Which entries are left; checks that they are sound, in order, and that the journal goes on."""
        journal = await opened(self, folder)
        found = await everything(journal)
        self.assertEqual((journal.trouble, journal.pending), (None, len(found)))
        left = numbers(found)
        self.assertEqual(left, sorted(set(left)))
        for one in found:
            n = one.row["number"]
            self.assertEqual(one.row, entry(n, more="x" * (9000 if n % 50 == 7 else 100)).row)
        await journal.append([entry(400)])
        self.assertEqual(numbers(await everything(journal)), [*left, 400])
        self.assertEqual(numbers(await move(journal)), [*left, 400])
        await journal.close()
        return left

    async def test_without_damage_everything_is_found_page_by_page(self) -> None:
        await self.filled()
        for folder in (self.folder, self.as_after_power_loss("x")):
            log = write_ahead_log(folder / "journal-wal")
            file = DamagedFile(folder / "journal", log)
            self.addCleanup(file.close)
            found = [unpacked((row[0], *row[2:])) for row in file.rows()]
            left = sorted(one.row["number"] for one in found if one is not None)
            self.assertEqual((left, log.damaged), (list(range(100, 400)), False))

    async def test_whatever_page_is_garbage_all_others_are_read(self) -> None:
        journal = await self.filled()
        await journal.close()
        pages = (self.folder / "journal").stat().st_size // PAGE_BYTES
        in_all = 0
        for page in range(pages):
            folder = self.as_after_power_loss(str(page))
            overwrite(folder / "journal", page * PAGE_BYTES, length=PAGE_BYTES)
            lost = set(range(100, 400)) - set(await self.rescued(folder))
            self.assertLessEqual(len(lost), ON_ONE_PAGE, page)
            in_all += len(lost)
            if lost:
                self.assertEqual(max(lost) - min(lost), len(lost) - 1, "what is lost was side by side")
        # Each is on one page, or on that and on those that its length takes: nothing else goes with it.
        self.assertGreaterEqual(in_all, 300)
        self.assertLess(in_all, 300 + 6 * 10)

    async def test_whatever_part_of_the_log_is_garbage_the_rest_is_read(self) -> None:
        await self.filled()
        frames = ((self.folder / "journal-wal").stat().st_size - 32) // FRAME_BYTES
        self.assertGreater(frames, 100)
        for frame in range(0, frames - 20, max(1, frames // 25)):
            folder = self.as_after_power_loss(str(frame))
            overwrite(folder / "journal-wal", 32 + frame * FRAME_BYTES + 30, length=3000)
            lost = set(range(100, 400)) - set(await self.rescued(folder))
            self.assertLessEqual(len(lost), ON_ONE_PAGE, frame)
        self.assertTrue(all("its log is damaged" in line for line in self.said), self.said)

    async def test_a_log_whose_beginning_is_garbage_is_read(self) -> None:
        await self.filled()
        folder = self.as_after_power_loss("x")
        overwrite(folder / "journal-wal", 0, length=40)
        self.assertLessEqual(set(range(100, 400)), set(await self.rescued(folder)))

    async def test_what_a_loss_of_power_cut_off_is_no_damage(self) -> None:
        journal = await self.filled()
        folder = self.as_after_power_loss("x")
        await journal.append(entries(400, 401, more="x" * 9000))
        later = self.as_after_power_loss("later")
        end = (folder / "journal-wal").stat().st_size
        torn = (later / "journal-wal").read_bytes()[: end + FRAME_BYTES + 1000]
        (folder / "journal-wal").write_bytes(torn)
        self.assertEqual(await self.rescued(folder), list(range(100, 400)))
        self.assertEqual((self.said, list(folder.glob("*corrupt*"))), ([], []))

    async def test_what_a_killed_process_did_not_finish_is_no_damage(self) -> None:
        """The end of its transaction is found behind what was written over the beginning."""
        journal = await self.filled()
        before = self.as_after_power_loss("before")
        await journal.append(entries(500, 600))
        unfinished = (self.folder / "journal-wal").read_bytes()
        await (await opened(self, before)).append([entry(400)])
        folder = Path(f"{self.folder}.x")
        shutil.copytree(before, folder)
        log = folder / "journal-wal"
        self.assertLess(log.stat().st_size, len(unfinished) - 3 * FRAME_BYTES)
        log.write_bytes(log.read_bytes() + unfinished[log.stat().st_size :])
        found = numbers(await everything(await opened(self, folder)))
        self.assertEqual((found, self.said), (list(range(100, 401)), []))

    async def test_damage_of_any_other_kind(self) -> None:
        """The kind, and how many of 300 entries must be left."""
        journal = await self.filled()
        await journal.close()
        size = (self.folder / "journal").stat().st_size
        kinds: dict[str, tuple[Callable[[Path], object], int]] = {
            "header": (lambda path: overwrite(path, 0, length=100), 300),
            "zeros": (lambda path: path.write_bytes(bytes(size)), 0),
            "cut": (lambda path: os.truncate(path, size // 2 + 1000), 50),
            "empty": (lambda path: path.write_bytes(b""), 0),
            "text": (lambda path: path.write_text("hello"), 0),
            "scattered": (lambda path: overwrite(path, *range(0, size, size // 5)), 200),
        }
        for name, (damage, least) in kinds.items():
            folder = self.as_after_power_loss(name)
            damage(folder / "journal")
            self.assertGreaterEqual(len(await self.rescued(folder)), least, name)

    async def test_a_lost_file_beside_its_log_is_read_from_that(self) -> None:
        await self.filled()
        for name, lose in {"gone": Path.unlink, "empty": lambda path: os.truncate(path, 0)}.items():
            folder = self.as_after_power_loss(name)
            lose(folder / "journal")
            self.assertEqual(await self.rescued(folder), list(range(100, 400)))

    async def test_the_damaged_file_is_kept_and_the_loss_is_told_in_numbers(self) -> None:
        await (await self.filled()).close()
        overwrite(self.folder / "journal", 40 * PAGE_BYTES, length=PAGE_BYTES)
        before = (self.folder / "journal").read_bytes()
        left = await self.rescued(self.folder)
        (kept,) = self.folder.glob("journal.corrupt-*")
        self.assertEqual((kept.read_bytes(), kept.stat().st_mode & 0o777), (before, 0o600))
        (line,) = self.said
        self.assertIn(
            f"{len(left)} SMS were read from it, {300 - len(left)} of those counted are missing", line
        )
        self.assertIn(kept.name, line)

    async def test_damage_under_running_processes_is_seen_by_one_and_followed_by_the_others(self) -> None:
        journal = await self.filled()
        other = await opened(self, self.folder)
        await other.append([entry(400)])
        with closing(sqlite3.connect(self.folder / "journal")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = (self.folder / "journal").stat().st_size // PAGE_BYTES
        overwrite(self.folder / "journal", PAGE_BYTES, length=(pages - 30) * PAGE_BYTES)
        third = await opened(self, self.folder)
        left = numbers(await everything(third))
        self.assertIn(400, left)
        for n, process in enumerate((journal, other, third), 401):
            await process.append([entry(n)])
            left.append(n)
            self.assertEqual((numbers(await everything(process)), process.pending), (left, len(left)))
        self.assertEqual(len(list(self.folder.glob("journal.corrupt-*Z"))), 1)
        # Closing those that had the old file open leaves the new one's log alone.
        await journal.close()
        await other.close()
        self.assertEqual(numbers(await everything(third)), left)
        copy = self.as_after_power_loss("x")
        self.assertEqual(numbers(await everything(await opened(self, copy))), left)

    async def test_damage_is_survived_by_what_is_appended_to_it(self) -> None:
        journal = await self.filled()
        with closing(sqlite3.connect(self.folder / "journal")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        overwrite(self.folder / "journal", 0, length=(self.folder / "journal").stat().st_size)
        (self.folder / "journal-shm").write_bytes(bytes(32768))
        await journal.append([entry(400)])
        self.assertEqual(numbers(await everything(journal))[-1:], [400])

    async def test_a_rescue_that_was_killed_is_finished_or_repeated(self) -> None:
        await (await self.filled()).close()
        overwrite(self.folder / "journal", 40 * PAGE_BYTES, length=PAGE_BYTES)
        half = self.as_after_power_loss("half")
        (half / "journal.making").write_bytes(b"x" * 5000)
        done = self.as_after_power_loss("done")
        left = await self.rescued(half)
        # Killed when the rescued one was ready, and the damaged one not yet moved away with its log.
        source = await opened(self, self.folder)
        await source.close()
        (self.folder / "journal").rename(done / "journal.rescued-20261122T164342.000000Z")
        (done / "journal-wal").write_bytes(b"y" * 5000)
        self.assertEqual(await self.rescued(done), left)
        self.assertTrue((done / "journal.corrupt-20261122T164342.000000Z").exists())

    async def test_a_rescue_that_was_killed_with_no_file_in_place_is_finished(self) -> None:
        await (await self.filled()).close()
        (self.folder / "journal").rename(self.folder / "journal.rescued-20261122T164342.000000Z")
        self.assertEqual(await self.rescued(self.folder), list(range(100, 400)))

    async def test_one_row_that_is_not_as_it_was_written_is_set_aside_with_its_bytes(self) -> None:
        await (await self.filled()).close()
        with closing(sqlite3.connect(self.folder / "journal", isolation_level=None)) as db:
            n, row = db.execute("SELECT n, row FROM entry ORDER BY n LIMIT 1 OFFSET 20").fetchone()
            db.execute("UPDATE entry SET row = ? WHERE n = ?", (row.replace(b"120", b"121"), n))
        journal = await opened(self, self.folder)
        self.assertEqual(numbers(await everything(journal)), [n for n in range(100, 400) if n != 120])
        self.assertEqual((journal.pending, journal.aside), (299, 1))
        self.assertEqual(self.said, [f"the SMS at position {n} of the journal is damaged, set aside"])
        with closing(sqlite3.connect(self.folder / "journal")) as db:
            kept = db.execute("SELECT n, why, row FROM aside").fetchall()
        self.assertEqual(kept, [(n, "damaged", row.replace(b"120", b"121"))])

    async def test_what_was_set_aside_survives_damage_too(self) -> None:
        journal = await self.filled()
        await journal.set_aside((await journal.oldest(1))[0], "refused")
        await journal.close()
        overwrite(self.folder / "journal", 0, length=100)
        self.assertEqual(len(await self.rescued(self.folder)), 299)
        again = await opened(self, self.folder)
        self.assertEqual(again.aside, 1)

    async def test_a_file_of_a_later_version_is_left_alone(self) -> None:
        await (await self.filled()).close()
        with closing(sqlite3.connect(self.folder / "journal")) as db:
            db.execute("PRAGMA user_version = 2")
        before = (self.folder / "journal").read_bytes()
        journal = await opened(self, self.folder)
        self.assertIn("later version", str(journal.trouble))
        await self.assertFailure(journal.append([entry(1)]), StoreUnavailable)
        self.assertEqual((self.folder / "journal").read_bytes(), before)
