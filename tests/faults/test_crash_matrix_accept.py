"""Accepting, with a failure at every await: nothing answered is lost, nothing is stored twice."""

from __future__ import annotations

from tests.support.crash_matrix import CrashMatrixTest
from tests.support.crash_stage import Stage


class AcceptTests(CrashMatrixTest):
    async def test_one_sms(self) -> None:
        async def play(stage: Stage) -> None:
            (await stage.doomed()).accept(stage.sms("a1", 1, keyed=True))
            await stage.rest()

        await self.matrix("accept one", play, at_least=2)

    async def test_several_conversations_in_batches(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            given = [("a1", 1, True), ("b1", 2, False), ("a2", 1, True), ("a3", 1, False), ("b2", 2, True)]
            for name, conversation, keyed in given:
                process.accept(stage.sms(name, conversation, keyed=keyed))
            await stage.rest()

        await self.matrix("accept several", play, at_least=6)

    async def test_repeats_at_the_same_time_and_later(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            first, second = stage.sms("a1", 1, keyed=True), stage.sms("b1", 2, keyed=True)
            for sent in (first, first, second, first):
                process.accept(sent)
            await stage.rest()
            other = await stage.process()
            for anybody in stage.living:
                anybody.accept(first)
            other.accept(second)
            await stage.rest()

        await self.matrix("accept repeats", play, at_least=5)

    async def test_one_that_postgres_refuses_among_others(self) -> None:
        async def play(stage: Stage) -> None:
            process = await stage.doomed()
            process.accept(stage.sms("a1", 1, keyed=True))
            for name, poison in [("a2", False), ("a3", True), ("b1", False), ("a4", False)]:
                process.accept(stage.sms(name, 2 if name == "b1" else 1, keyed=True, poison=poison))
            await stage.rest()

        await self.matrix("accept one refused among others", play, at_least=10)

    async def test_two_processes_in_one_conversation(self) -> None:
        async def play(stage: Stage) -> None:
            doomed, other = await stage.doomed(), await stage.process()
            doomed.accept(stage.sms("a1", 1))
            other.accept(stage.sms("a2", 1))
            doomed.accept(stage.sms("a3", 1, keyed=True))
            other.accept(stage.sms("b1", 2, keyed=True))
            await stage.rest()
            for anybody in stage.living:
                anybody.accept(stage.sms(f"a4-{anybody.name}", 1))
            await stage.rest()

        await self.matrix("accept in two processes", play, at_least=8)
