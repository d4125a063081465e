"""Accepting while PostgreSQL goes and comes, with a failure at every await of the journal and its move."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

from tests.support.crash_matrix import CrashMatrixTest
from tests.support.crash_stage import Stage
from tests.support.crashing import How
from tests.support.journaled_process import JournaledStage

# The disk is not what fails here, so nothing is gained by waiting for it.
MEMORY = "/dev/shm"


class JournalTest(CrashMatrixTest):
    ways = tuple(How)

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        await super().setUp()
        folder = mkdtemp(prefix="smsdaemon-test-", dir=MEMORY if Path(MEMORY).is_dir() else None)
        self.addCleanup(shutil.rmtree, folder)
        self.folder = Path(folder) / "journal"

    def stage(self, at: int = 0, how: How | None = None) -> Stage:
        return JournaledStage(self.pool, self.folder, datetime.now(UTC), at, how)


class AwayTests(JournalTest):
    async def test_postgres_goes_away_with_some_on_their_way(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            process.accept(stage.sms("a1", 1, keyed=True))
            for name, conversation in [("a2", 1), ("b1", 2), ("a3", 1)]:
                process.accept(stage.sms(name, conversation))
            await stage.rest()

        await self.matrix("journal, some on their way", play, at_least=5)

    async def test_postgres_is_away_and_comes_back(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            stage.lose_postgres()
            for name, conversation, keyed in [("a1", 1, True), ("b1", 2, False), ("a2", 1, False)]:
                process.accept(stage.sms(name, conversation, keyed=keyed))
            await stage.rest()
            if not process.life.dead:
                process.accept(stage.sms("a3", 1, keyed=True))
            await stage.settle_down()

        await self.matrix("journal and its move", play, at_least=11)

    async def test_others_come_in_while_the_journal_is_moved(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            stage.lose_postgres()
            process.accept(stage.sms("a1", 1, keyed=True))
            await stage.rest()
            await stage.until(lambda: not process.life.away or process.life.dead, "PostgreSQL is back")
            for name, conversation in [("a2", 1), ("b1", 2), ("a3", 1)]:
                if not process.life.dead:
                    process.accept(stage.sms(name, conversation))
            await stage.rest()

        await self.matrix("journal, others held back", play, at_least=10)

    async def test_repeats_of_what_went_unanswered(self) -> None:
        async def play(stage: Stage) -> None:
            process, other = await stage.doomed(), await stage.process()
            first = stage.sms("a1", 1, keyed=True)
            process.accept(first)
            process.accept(stage.sms("b1", 2, keyed=True))
            await stage.until(
                lambda: bool(stage.fate.met) or first.answered is not None, "something happened"
            )
            stage.lose_postgres()
            for anybody in stage.living:
                anybody.accept(first)
                anybody.accept(first)
            other.accept(stage.sms("a2", 1))
            await stage.rest()

        await self.matrix("journal, repeats", play, at_least=6)


class MoveTests(JournalTest):
    async def test_two_processes_with_one_journal(self) -> None:
        async def play(stage: Stage) -> None:
            process, other = await stage.doomed(), await stage.process()
            stage.lose_postgres()
            for n, name in enumerate(["a1", "b1", "a2", "a3", "b2"]):
                (other if n % 2 else process).accept(stage.sms(name, ord(name[0]), keyed=bool(n % 3)))
                await stage.rest()
            for anybody in stage.living:
                anybody.accept(stage.sms(f"a4-{anybody.name}", ord("a")))
            await stage.settle_down()

        await self.matrix("journal of two processes", play, at_least=13)

    async def test_one_that_postgres_refuses_among_others(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            stage.lose_postgres()
            for name, poison in [("a1", False), ("a2", True), ("a3", False)]:
                process.accept(stage.sms(name, 1, keyed=True, poison=poison))
            await stage.settle_down()

        await self.matrix("journal, one refused", play, at_least=13)
