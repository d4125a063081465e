"""Claiming and settling, with a failure at every await: in order, one at a time, nothing left lying."""

from __future__ import annotations

from smsdaemon.domain.model import Delivered, Delivery, Hop, Outcome
from tests.support.crash_ledger import name_in
from tests.support.crash_matrix import CrashMatrixTest
from tests.support.crash_stage import Stage, StoreProcess, dead, delivered, postponed
from tests.support.deliveries import target

SURVEY = 2


async def pending(stage: Stage, *names: str, target_id: int = 1) -> StoreProcess:
    """A process that has stored these and stalled; the first letter of a name is its conversation."""
    former = await stage.process()
    former.stalled = []
    for name in names:
        former.accept(stage.sms(name, ord(name[0]), keyed=True, target_id=target_id))
    await stage.rest()
    return former


def onward(delivery: Delivery) -> Outcome:
    """From the application on to the group, once."""
    if delivery.target_id != SURVEY:
        return delivered(delivery)
    return Delivered(
        onward=target(id=1),
        onward_hops=(Hop(kind="application", name="survey"),),
        reason=str(delivery.lease),
    )


class ClaimTests(CrashMatrixTest):
    async def test_what_a_dead_process_left(self) -> None:
        async def play(stage: Stage) -> None:
            await pending(stage, "a1", "a2", "b1")
            await stage.leases_run_out()
            doomed = await stage.doomed()
            doomed.claim()
            await stage.rest()
            doomed.claim()
            await stage.rest()

        await self.matrix("claim what was left", play, at_least=4)

    async def test_little_by_little_in_two_processes(self) -> None:
        async def play(stage: Stage) -> None:
            await pending(stage, "a1", "a2", "b1", "c1", "c2")
            await stage.leases_run_out()
            processes = [await stage.doomed(), await stage.process()]
            for _ in range(2):
                for process in processes:
                    if not process.life.dead:
                        process.claim(limit=1)
                await stage.rest()

        await self.matrix("claim in two processes", play, at_least=6)

    async def test_again_while_attempts_are_under_way(self) -> None:
        async def play(stage: Stage) -> None:
            await pending(stage, "a1", "a2", "b1")
            await stage.leases_run_out()
            doomed = await stage.doomed()
            doomed.stalled = []
            for _ in range(3):
                if not doomed.life.dead:
                    doomed.claim()
                    await stage.rest()
            under_way, doomed.stalled = doomed.stalled, None
            for delivery in under_way:
                if not doomed.life.dead:
                    doomed.attempt(delivery)
            await stage.rest()

        await self.matrix("claim during attempts", play, at_least=5)

    async def test_an_outcome_that_comes_after_the_lease(self) -> None:
        async def play(stage: Stage) -> None:
            former = await pending(stage, "a1", "a2", "b1")
            await stage.leases_run_out()
            doomed = await stage.doomed()
            doomed.script = postponed
            doomed.claim()
            stalled, former.stalled = former.stalled, None
            assert stalled
            for delivery in stalled:
                former.attempt(delivery)  # began before, and is told now: SIGSTOP and SIGCONT
            await stage.rest()
            await stage.leases_run_out()
            former.claim()
            await stage.rest()

        await self.matrix("claim what another settles", play, at_least=3)


class SettleTests(CrashMatrixTest):
    async def test_every_outcome_with_successors(self) -> None:
        outcomes = {"a1": delivered, "b1": postponed, "c1": dead, "a2": dead}

        async def play(stage: Stage) -> None:
            await pending(stage, "a1", "a2", "a3", "b1", "b2", "c1", "c2", "d1")
            await stage.leases_run_out()
            doomed = await stage.doomed()
            doomed.script = lambda d: outcomes.get(name_in(d.sms.text), delivered)(d)
            doomed.claim()
            await stage.rest()

        await self.matrix("settle every outcome", play, at_least=4)

    async def test_behind_a_head_that_ends(self) -> None:
        """What comes in at that moment must be found as the successor, or it waits for ever."""

        async def play(stage: Stage) -> None:
            former = await pending(stage, "a1", "b1")
            stalled, former.stalled = former.stalled, None
            doomed = await stage.doomed()
            for name in ("a2", "b2"):
                doomed.accept(stage.sms(name, ord(name[0]), keyed=True))
            for delivery in stalled or []:
                former.attempt(delivery)
            await stage.rest()

        await self.matrix("settle while others come in", play, at_least=2)

    async def test_while_another_settles_late(self) -> None:
        async def play(stage: Stage) -> None:
            await pending(stage, "a1", "a2", "b1")
            await stage.leases_run_out()
            doomed, other = await stage.doomed(), await stage.process()
            doomed.claim()
            await stage.rest()
            await stage.leases_run_out()
            other.claim()
            for name in ("a3", "b2"):
                other.accept(stage.sms(name, ord(name[0])))
            await stage.rest()

        await self.matrix("settle and accept elsewhere", play, at_least=3)

    async def test_onward_to_another_target(self) -> None:
        async def play(stage: Stage) -> None:
            await pending(stage, "a1", "b1")  # at the group already
            await pending(stage, "a2", "a3", "b2", "c1", "c2", target_id=SURVEY)
            await stage.leases_run_out()
            doomed, other = await stage.doomed(), await stage.process()
            for process in (doomed, other):
                process.script = onward
            doomed.claim(limit=3)
            other.claim(limit=3)
            await stage.rest()
            for process in stage.living:
                process.claim()
            await stage.rest()

        await self.matrix("settle with a hop onward", play, at_least=5)
