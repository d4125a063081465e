"""The journal: what is appended is on disk, in one order, and leaves it once moved."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, gatherResults, succeed

from smsdaemon.errors import StoreOverloaded, StoreUnavailable
from smsdaemon.store.journal import Journal
from tests.support.cases import ReactorTest
from tests.support.journals import entries, entry, everything, lines_said, move, numbers, opened
from tests.support.secrets_in_tests import TEXT_MARKER


class JournalTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.folder = Path(self.mktemp())
        self.journal = await opened(self, self.folder)

    async def again(self) -> Journal:
        """As after a restart."""
        await self.journal.close()
        self.journal = await opened(self, self.folder)
        return self.journal

    async def test_what_was_appended_is_there_in_order_also_after_a_restart(self) -> None:
        ids = [await self.journal.append(entries(n, n + 3)) for n in range(0, 30, 3)]
        self.assertEqual([id_ for batch in ids for id_ in batch], [one.id for one in entries(0, 30)])
        for begin in (lambda: succeed(self.journal), self.again):
            journal = await begin()
            found = await everything(journal)
            self.assertEqual(
                [(one.id, one.row) for one in found], [(one.id, one.row) for one in entries(0, 30)]
            )
            positions = [one.n for one in found]
            self.assertEqual(positions, sorted(set(positions)))
            self.assertEqual((journal.pending, journal.trouble), (30, None))

    async def test_any_text_comes_back_as_it_was(self) -> None:
        texts = ["", "\0", "\ud800", "𝄞" * 300, "x" * 60_000, '"\\\n\u2028']
        await self.journal.append([entry(n, more=text) for n, text in enumerate(texts)])
        found = await everything(await self.again())
        self.assertEqual(
            [one.row for one in found], [entry(n, more=text).row for n, text in enumerate(texts)]
        )

    async def test_a_repeat_is_stored_once_and_named_as_the_first(self) -> None:
        first, second, third = entry(1, key=b"k" * 32), entry(2, key=b"k" * 32), entry(3, key=b"l" * 32)
        self.assertEqual(await self.journal.append([first]), [first.id])
        self.assertEqual(await self.journal.append([second, third]), [first.id, third.id])
        await self.again()
        self.assertEqual(await self.journal.append([second]), [first.id])
        self.assertEqual([one.key for one in await everything(self.journal)], [first.key, third.key])

    async def test_a_repeat_within_one_append_is_stored_once(self) -> None:
        first, second = entry(1, key=b"k"), entry(2, key=b"k")
        self.assertEqual(await self.journal.append([first, second]), [first.id, first.id])
        self.assertEqual((self.journal.pending, self.journal.appended), (1, 1))

    async def test_without_a_key_nothing_is_a_repeat(self) -> None:
        await self.journal.append([entry(1), entry(2)])
        self.assertEqual(self.journal.pending, 2)

    async def test_appends_that_are_asked_at_once_are_stored_in_the_order_of_asking(self) -> None:
        await gatherResults([self.journal.append([entry(n)]) for n in range(50)])
        self.assertEqual(numbers(await everything(self.journal)), list(range(50)))

    async def test_an_append_that_is_cancelled_early_is_not_stored_and_harms_no_other(self) -> None:
        first = self.journal.append(entries(0, 500))
        second = self.journal.append([entry(500)])
        second.cancel()
        await first
        self.failureResultOf(second, CancelledError)
        await self.journal.append([entry(501)])
        self.assertEqual(numbers(await everything(self.journal)), [*range(500), 501])

    async def test_what_was_moved_does_not_come_again_and_positions_are_not_given_twice(self) -> None:
        await self.journal.append(entries(0, 500))
        moved = await move(self.journal)
        self.assertEqual((numbers(moved), self.journal.pending), (list(range(500)), 0))
        await self.again()
        self.assertEqual((await everything(self.journal), self.journal.pending), ([], 0))
        await self.journal.append([entry(500)])
        (found,) = await everything(self.journal)
        self.assertGreater(found.n, moved[-1].n)

    async def test_oldest_gives_what_is_behind_a_position(self) -> None:
        await self.journal.append(entries(0, 10))
        first = await self.journal.oldest(4)
        self.assertEqual(numbers(first), [0, 1, 2, 3])
        self.assertEqual(numbers(await self.journal.oldest(3, after=first[-1].n)), [4, 5, 6])

    async def test_what_postgresql_refuses_is_out_of_the_way_counted_and_said(self) -> None:
        said = lines_said(self)
        await self.journal.append(entries(0, 3))
        refused = (await everything(self.journal))[1]
        await self.journal.set_aside(refused, "out of range")
        self.assertEqual(numbers(await everything(self.journal)), [0, 2])
        self.assertEqual((self.journal.pending, self.journal.aside), (2, 1))
        self.assertTrue(any(str(refused.id) in line and "out of range" in line for line in said))
        await self.again()
        self.assertEqual((self.journal.pending, self.journal.aside), (2, 1))

    async def test_no_text_is_left_on_disk_once_it_is_moved(self) -> None:
        await self.journal.append(entries(0, 2000, more="x" * 500))
        marker = TEXT_MARKER.encode()
        self.assertTrue(any(marker in path.read_bytes() for path in self.folder.iterdir()))
        await move(self.journal)
        for path in self.folder.iterdir():
            self.assertNotIn(marker, path.read_bytes(), path.name)

    async def test_a_journal_that_was_large_gives_its_room_back(self) -> None:
        await self.journal.append(entries(0, 300, more="x" * 60_000))
        await self.journal.set_aside((await self.journal.oldest(1))[0], "refused")
        self.assertGreater((self.folder / "journal").stat().st_size, 17_000_000)
        await move(self.journal)
        self.assertLess((self.folder / "journal").stat().st_size, 200_000)
        await self.journal.append([entry(300)])
        self.assertEqual(numbers(await everything(await self.again())), [300])
        self.assertEqual(self.journal.aside, 1)

    async def test_nobody_else_may_read_it(self) -> None:
        await self.journal.append([entry(1)])
        self.assertTrue(self.journal.begin_moving())
        modes = {stat.S_IMODE(path.stat().st_mode) for path in self.folder.iterdir()}
        self.assertEqual((stat.S_IMODE(self.folder.stat().st_mode), modes), (0o700, {0o600}))

    async def test_past_its_bound_it_takes_nothing_until_something_is_moved(self) -> None:
        await self.journal.close()
        journal = await opened(self, self.folder, max_entries=10)
        await journal.append(entries(0, 8))
        await self.assertFailure(journal.append(entries(8, 11)), StoreOverloaded)
        self.assertIn("full", str(journal.trouble))
        self.assertEqual((journal.failures, journal.pending), (3, 8))
        await journal.append(entries(8, 10))
        self.assertIsNone(journal.trouble)
        await move(journal)
        await journal.append(entries(10, 20))
        self.assertEqual((numbers(await everything(journal)), journal.appended), (list(range(10, 20)), 20))

    async def test_the_same_trouble_is_said_once(self) -> None:
        said = lines_said(self)
        await self.journal.close()
        (self.folder / "journal").unlink()
        (self.folder / "journal").mkdir()
        journal = await opened(self, self.folder)
        for n in range(20):
            await self.assertFailure(journal.append([entry(n)]), StoreUnavailable)
        self.assertEqual(len(said), 1, said)
        self.assertEqual((journal.pending, journal.usable), (0, True))

    async def test_closed_it_takes_nothing(self) -> None:
        self.assertTrue(self.journal.usable)
        await self.journal.close()
        self.assertFalse(self.journal.usable)
        await self.assertFailure(self.journal.append([entry(1)]), StoreUnavailable)
        await self.assertFailure(self.journal.oldest(1), StoreUnavailable)

    async def test_what_was_asked_before_closing_is_done(self) -> None:
        d: Any = self.journal.append(entries(0, 100))
        await self.journal.close()
        self.assertEqual(self.successResultOf(d), [one.id for one in entries(0, 100)])
