"""Processes, providers and a backend round one database: what a scenario of the crash matrix plays with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import (
    Attempt,
    Dead,
    Delivered,
    Delivery,
    InboundSMS,
    Outcome,
    Part,
    Postponed,
    Receipt,
)
from smsdaemon.errors import LeaseLost, StoreRefused, StoreUnavailable
from smsdaemon.ports import MessageStore
from smsdaemon.store.concatenations import Patience, give_up_overdue
from smsdaemon.store.deliveries import PostgresDeliveries
from smsdaemon.store.messages import LeaseTerms, PostgresMessages
from smsdaemon.store.pool import Pool
from tests.support.crash_ledger import Ledger, Sent, Try
from tests.support.crashing import How, Life, Server, quiet
from tests.support.crashing_pool import CrashingPool
from tests.support.secrets_in_tests import RECEIVER, SENDER_PREFIX, TEXT_MARKER

STEP_SECONDS = 0.05
PATIENCE_SECONDS = 30.0
"""By the processes' clocks."""
AGAIN_SECONDS = 0.5
AT_ONCE = Patience(seconds=0, first_delay_seconds=0)

Script = Callable[[Delivery], Outcome]


def delivered(delivery: Delivery) -> Outcome:
    return Delivered(reason=str(delivery.lease))


def postponed(delivery: Delivery) -> Outcome:
    return Postponed(delay_seconds=60, reason=str(delivery.lease))


def dead(delivery: Delivery) -> Outcome:
    return Dead(reason=str(delivery.lease))


class StoreProcess:
    """What one process of the daemon does with the store: accepts, claims, attempts, settles."""

    def __init__(self, *, name: str, pool: Pool, life: Life, ledger: Ledger, start: datetime) -> None:
        self.name, self.life, self._ledger, self._start = name, life, ledger, start
        self.pool = CrashingPool(pool, life)
        terms = LeaseTerms(seconds=60, first_delay_seconds=0, holder=name)
        clock: Any = life.clock
        self.postgres = PostgresMessages(pool=self.pool, timer=clock, utc_now=self.utc_now, terms=terms)
        self.messages: MessageStore = self.postgres
        self.deliveries = PostgresDeliveries(pool=self.pool, timer=clock, utc_now=self.utc_now, terms=terms)
        self.script: Script = delivered
        self.stalled: list[Delivery] | None = None
        """Where it is a list, deliveries stay in it and are not attempted."""
        self.under_way = 0
        """Requests, claims and attempts."""

    async def begin(self) -> None:
        """Where something is to be opened."""

    @property
    def settled(self) -> bool:
        """Whether nothing will happen that nobody asks for."""
        return not self.under_way

    async def end(self) -> None:
        """Give everything back."""
        await self.life.bury()

    def utc_now(self) -> datetime:
        return self._start + timedelta(seconds=self.life.clock.seconds())

    # --- a provider's request ----------------------------------------------------------------------

    def accept(self, sent: Sent) -> None:
        """Its provider hears what comes of it, if it lives."""
        # Behind each other, texts of parts are to be told apart.
        marker = TEXT_MARKER if sent.part is None or sent.part.number == 1 else ""
        text = f"{marker}{chr(0) if sent.poison else ''} {sent.name}"
        now = self.utc_now()
        sms = InboundSMS(
            id=uuid7(now),
            received_at=now,
            connector_id=1,
            client_id=1,
            target_id=sent.target_id,
            receiver=RECEIVER,
            sender=sent.sender,
            sender_raw=sent.sender,
            text=text,
            provider_message_id=None if sent.key is None else sent.key.hex(),
            part=sent.part,
        )
        one = Try(sms.id, self.name, self._ledger.now())
        sent.tries.append(one)
        self.under_way += 1
        d = self.messages.accept(sms, sent.key, True)
        d.addCallbacks(self._accepted, self._not_accepted, callbackArgs=(one,), errbackArgs=(one,))

    def _accepted(self, receipt: Receipt, one: Try) -> None:
        self.under_way -= 1
        one.receipt, one.answered = receipt, self._ledger.now()
        if receipt.delivery is not None:
            self.attempt(receipt.delivery)

    def _not_accepted(self, failure: Failure, one: Try) -> None:
        failure.trap(StoreUnavailable, StoreRefused)
        self.under_way -= 1
        one.failed, one.answered = type(failure.value).__name__, self._ledger.now()

    def give_up(self) -> None:
        """Deliver what is there of SMS that wait for parts; another time, where that fails."""
        self.under_way += 1
        ensureDeferred(give_up_overdue(self.pool, AT_ONCE)).addCallbacks(self._gave_up, self._not_claimed)

    def _gave_up(self, _: int) -> None:
        self.under_way -= 1

    # --- attempts ----------------------------------------------------------------------------------

    def claim(self, limit: int = 100) -> None:
        self.under_way += 1
        self.deliveries.claim(limit, {}, limit).addCallbacks(self._claimed, self._not_claimed)

    def _claimed(self, claimed: Sequence[Delivery]) -> None:
        self.under_way -= 1
        for delivery in claimed:
            self.attempt(delivery)

    def _not_claimed(self, failure: Failure) -> None:
        failure.trap(StoreUnavailable)
        self.under_way -= 1

    def attempt(self, delivery: Delivery) -> None:
        """Call the backend and settle what comes of it; the next of the conversation follows."""
        self._ledger.heard.add(str(delivery.lease))
        if self.stalled is not None:
            self.stalled.append(delivery)
            return
        outcome = self.script(delivery)
        self._ledger.calls(delivery, self.name, not isinstance(outcome, Postponed))
        self.under_way += 1
        self.settle(delivery, outcome, tries=3)

    def settle(self, delivery: Delivery, outcome: Outcome, tries: int) -> None:
        made = Attempt(seconds=0.1, status=200, answer="")
        d: Deferred[Any] = self.deliveries.settle(delivery, outcome, made)
        d.addCallbacks(self._settled, self._not_settled, errbackArgs=(delivery, outcome, tries - 1))

    def _settled(self, next_one: Delivery | None) -> None:
        self.under_way -= 1
        if next_one is not None:
            self.attempt(next_one)

    def _not_settled(self, failure: Failure, delivery: Delivery, outcome: Outcome, tries: int) -> None:
        failure.trap(StoreUnavailable, LeaseLost)
        if tries and not failure.check(LeaseLost):
            self.life.clock.callLater(AGAIN_SECONDS, self.settle, delivery, outcome, tries)
        else:
            self.under_way -= 1  # another has it, or will have it when the lease has run out


class Stage:
    """One run of a scenario."""

    def __init__(self, pool: Pool, start: datetime, at: int = 0, how: How | None = None) -> None:
        """The first process that play() makes meets its fate at the await of number ``at``."""
        self.pool, self._start = pool, start
        self.server = Server(pool)
        self.ledger = Ledger()
        self.fate = Life(self.server, at, how)
        self.processes: list[StoreProcess] = []

    # --- who plays ---------------------------------------------------------------------------------

    async def process(self, life: Life | None = None) -> StoreProcess:
        """A new process, which nothing happens to unless it has that life."""
        life = life or Life(self.server)
        life.clock.advance(self.server.clock.seconds())
        name = f"host:{len(self.processes) + 1}"
        made = self.make(name, life)
        await made.begin()
        self.processes.append(made)
        return made

    def make(self, name: str, life: Life) -> StoreProcess:
        return StoreProcess(name=name, pool=self.pool, life=life, ledger=self.ledger, start=self._start)

    async def doomed(self) -> StoreProcess:
        """The process that the run is about."""
        return await self.process(self.fate)

    @property
    def living(self) -> list[StoreProcess]:
        return [process for process in self.processes if not process.life.dead]

    def sms(self, name: str, conversation: int, *, keyed: bool = False, **fields: Any) -> Sent:
        """An SMS that a provider has to send; ``keyed``: with an id of its own."""
        key = UUID(int=len(self.ledger.sent) + 1).bytes if keyed else None
        sent = Sent(name=name, sender=f"{SENDER_PREFIX}{conversation:05d}", key=key, **fields)
        self.ledger.sent[name] = sent
        return sent

    def part(self, whole: str, number: int, total: int, conversation: int, *, keyed: bool = True) -> Sent:
        """A part of an SMS, which its provider has to send."""
        part = Part(reference=whole, number=number, total=total)
        return self.sms(f"{whole}/{number}", conversation, keyed=keyed, part=part)

    # --- time --------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let everything happen, and the clocks go on, until it is true."""
        steps = round(PATIENCE_SECONDS / STEP_SECONDS)
        for _ in range(steps):
            await quiet([process.life for process in self.living], self.server)
            if condition():
                return
            self.server.clock.advance(STEP_SECONDS)
            for process in self.living:
                process.life.clock.advance(STEP_SECONDS)
        raise AssertionError(f"waited in vain: {what}")

    async def rest(self) -> None:
        """Until nobody living has anything under way."""
        await self.until(lambda: not any(p.under_way for p in self.living), "nothing under way")

    def lose_postgres(self) -> None:
        """For a while, from all."""
        for process in self.living:
            process.life.lose_postgres()

    async def leases_run_out(self) -> None:
        """As if their time was over, which only the server's clock can tell."""
        await self.pool.query(_LEASES_RUN_OUT)

    # --- the end -----------------------------------------------------------------------------------

    async def settle_down(self) -> None:
        """Until nothing happens any more that nobody asks for."""
        await self.until(
            lambda: not self.server.open and all(process.settled for process in self.living),
            "everybody settled",
        )

    async def heal(self) -> StoreProcess:
        """A process that nothing happens to: the one that survived, or a new one."""
        await self.settle_down()
        process = self.living[0] if self.living else await self.process()
        await self.settle_down()
        return process

    async def come_to_an_end(self) -> StoreProcess:
        """Providers repeat what was not answered, and everything is delivered."""
        self.fate.spare()
        process = await self.heal()
        for sent in self.ledger.sent.values():
            if sent.answered is None and not sent.poison:
                process.accept(sent)
        await self.rest()
        if any(sent.part is not None for sent in self.ledger.sent.values()):
            process.give_up()
            await self.rest()
        process.script, process.stalled = delivered, None
        for _ in range(50):
            await self.pool.query(_ALL_IS_DUE)
            process.claim()
            await self.rest()
            if not (await self.pool.query("SELECT count(*) FROM delivery WHERE due_at IS NOT NULL"))[0][0]:
                return process
        raise AssertionError("deliveries without end")

    async def faults(self) -> list[str]:
        """What is not as promised, now that everything is delivered."""
        return await self.ledger.faults(self.pool)

    async def clear(self) -> None:
        """Nobody has anything open any more."""
        for process in self.living:
            await process.end()


# What a transaction holds that has not ended is left to it.
_LEASES_RUN_OUT = """
    UPDATE delivery SET leased_until = now() - interval '1 second'
    WHERE id IN (SELECT id FROM delivery WHERE lease IS NOT NULL FOR UPDATE SKIP LOCKED)
"""
_ALL_IS_DUE = """
    UPDATE delivery SET due_at = least(due_at, now()),
        leased_until = CASE WHEN lease IS NOT NULL THEN now() - interval '1 second' END
    WHERE due_at IS NOT NULL
"""
