"""Parts of SMS, with a failure at every await: each is durable once it is answered, and joined once."""

from __future__ import annotations

from tests.faults.test_crash_matrix_journal import JournalTest
from tests.support.crash_matrix import CrashMatrixTest
from tests.support.crash_stage import Stage


class PartsTests(CrashMatrixTest):
    async def test_parts_of_two_sms_among_others(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            process.accept(stage.part("a1", 2, 3, 1))
            process.accept(stage.sms("a2", 1))
            process.accept(stage.part("b1", 1, 2, 2, keyed=False))
            await stage.rest()
            if not process.life.dead:
                for whole, number, total, conversation in [("a1", 1, 3, 1), ("b1", 2, 2, 2), ("a1", 3, 3, 1)]:
                    process.accept(stage.part(whole, number, total, conversation))
                process.accept(stage.sms("a3", 1, keyed=True))
            await stage.rest()

        await self.matrix("parts", play, at_least=20)

    async def test_the_last_two_parts_come_to_two_processes(self) -> None:
        async def play(stage: Stage) -> None:
            doomed, other = await stage.doomed(), await stage.process()
            other.accept(stage.part("a1", 2, 3, 1))
            await stage.rest()
            doomed.accept(stage.part("a1", 1, 3, 1))
            other.accept(stage.part("a1", 3, 3, 1))
            other.accept(stage.sms("a2", 1, keyed=True))
            await stage.rest()
            other.accept(stage.part("b1", 1, 2, 2))
            if not doomed.life.dead:
                doomed.accept(stage.part("b1", 2, 2, 2))
            await stage.rest()

        await self.matrix("parts in two processes", play, at_least=14)

    async def test_repeats_of_parts_before_and_after_they_are_joined(self) -> None:
        async def play(stage: Stage) -> None:
            doomed, other = await stage.doomed(), await stage.process()
            first, second = stage.part("a1", 1, 2, 1), stage.part("a1", 2, 2, 1)
            doomed.accept(first)
            doomed.accept(first)
            await stage.rest()
            for anybody in stage.living:
                anybody.accept(second)
                anybody.accept(first)
            await stage.rest()
            other.accept(second)
            await stage.rest()

        await self.matrix("parts repeated", play, at_least=14)

    async def test_given_up_while_another_gives_up_and_a_part_comes_in(self) -> None:
        async def play(stage: Stage) -> None:
            other = await stage.process()
            other.accept(stage.part("a1", 1, 2, 1))
            other.accept(stage.part("b1", 2, 2, 2))
            other.accept(stage.sms("a2", 1))
            await stage.rest()
            doomed = await stage.doomed()
            doomed.give_up()
            other.accept(stage.part("a1", 2, 2, 1))
            other.give_up()
            await stage.rest()
            doomed.give_up()
            await stage.rest()

        await self.matrix("parts given up", play, at_least=10)


class JournaledPartsTests(JournalTest):
    async def test_postgres_goes_away_between_parts_and_comes_back(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            process.accept(stage.part("a1", 1, 3, 1))
            await stage.rest()
            stage.lose_postgres()
            if not process.life.dead:
                process.accept(stage.part("a1", 3, 3, 1, keyed=False))
                process.accept(stage.sms("a2", 1, keyed=True))
                process.accept(stage.part("a1", 2, 3, 1))
            await stage.settle_down()

        await self.matrix("journal, parts", play, at_least=15)

    async def test_repeats_of_parts_that_went_unanswered(self) -> None:
        async def play(stage: Stage) -> None:
            process, other = await stage.doomed(), await stage.process()
            first, second = stage.part("a1", 1, 2, 1), stage.part("a1", 2, 2, 1)
            process.accept(first)
            process.accept(second)
            await stage.until(
                lambda: bool(stage.fate.met) or second.answered is not None, "something happened"
            )
            stage.lose_postgres()
            for anybody in stage.living:
                anybody.accept(second)
                anybody.accept(first)
            other.accept(stage.sms("a2", 1))
            await stage.settle_down()

        await self.matrix("journal, parts repeated", play, at_least=15)

    async def test_given_up_while_a_part_is_in_the_journal(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            process.accept(stage.part("a1", 1, 2, 1))
            await stage.rest()
            stage.lose_postgres()
            if not process.life.dead:
                process.accept(stage.part("a1", 2, 2, 1))
            await stage.rest()
            other = await stage.process()
            other.give_up()
            await stage.settle_down()

        await self.matrix("journal, parts given up", play, at_least=8)
