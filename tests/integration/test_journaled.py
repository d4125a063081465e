"""Accepting while PostgreSQL comes and goes: real PostgreSQL, real journal, and a gate between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import LogLevel

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import InboundSMS
from smsdaemon.errors import StoreUnavailable
from smsdaemon.store.journal import Journal
from smsdaemon.store.journal_mover import Mover
from smsdaemon.store.journaled import JournaledMessages
from smsdaemon.store.messages import LeaseTerms, PostgresMessages
from smsdaemon.store.pool import Pool
from tests.support.cases import ReactorTest
from tests.support.deliveries import sms as _sms
from tests.support.journals import lines_said
from tests.support.store import migrated_pool

reactor = cast(Any, _reactor)
AFTER = 0.1
KEY = bytes(range(16))


def utc_now() -> datetime:
    return datetime.now(UTC)


def sms(**fields: Any) -> InboundSMS:
    now = utc_now()
    return _sms(**{"id": uuid7(now), "received_at": now, **fields})


class Gate:
    """A pool's front: PostgreSQL is reachable, or hangs, or answers nothing, or is gone."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._state = "open"
        self._hanging: list[Deferred[None]] = []

    @property
    def alive(self) -> int:
        return 0 if self._state == "gone" else self._pool.alive

    def shut(self, state: str) -> None:
        """``hangs``: nothing gets through; ``unanswered``: it does, and no answer comes back; ``gone``."""
        self._state = state

    def open(self, *, lost: bool = False) -> None:
        """Let everything through again; what hangs goes on, or is told that its connection is lost."""
        self._state = "open"
        hanging, self._hanging = self._hanging, []
        for d in hanging:
            if lost:
                d.errback(StoreUnavailable("the connection to PostgreSQL was lost"))
            else:
                d.callback(None)

    def lend(self, use: Callable[[Any], Deferred[Any]]) -> Deferred[Any]:
        return maybeDeferred(use, _GatedConnection(self))

    def query(self, sql: str, params: object = None) -> Deferred[Any]:
        return self.rows(sql, params)

    def rows(self, sql: str, params: object) -> Deferred[Any]:
        if self._state == "open":
            return self._pool.query(sql, params)
        if self._state == "gone":
            return fail(StoreUnavailable("the connection to PostgreSQL was lost"))
        told: Deferred[Any] = Deferred()
        self._hanging.append(told)
        if self._state == "hangs":
            return told.addCallback(lambda _: self._pool.query(sql, params))
        done = self._pool.query(sql, params)
        return told.addCallback(lambda _: done)


class _GatedConnection:
    def __init__(self, gate: Gate) -> None:
        self.rows = gate.rows


class Side:
    """One process' way into the store."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.gate = Gate(pool)
        terms = LeaseTerms(seconds=60, first_delay_seconds=0, holder="here:1")
        postgres = PostgresMessages(pool=cast(Pool, self.gate), timer=reactor, utc_now=utc_now, terms=terms)
        self.journal = Journal(folder=folder, reactor=reactor)
        mover = Mover(
            journal=self.journal,
            messages=postgres,
            pool=cast(Pool, self.gate),
            timer=reactor,
            on_moved=lambda: None,
        )
        self.messages = JournaledMessages(
            messages=postgres, journal=self.journal, mover=mover, timer=reactor, journal_after=AFTER
        )

    async def start(self) -> None:
        await self.journal.start()
        self.messages.start()

    async def close(self) -> None:
        self.gate.open()
        await self.messages.close()
        await self.journal.close()


class JournaledTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        _, self.pool = await migrated_pool(self, size=3)
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.side = await self.make_side()

    async def make_side(self) -> Side:
        side = Side(self.pool, self.folder / "journal")
        self.addCleanup(side.close)
        await side.start()
        await self.until(lambda: side.journal.pending == 0)
        return side

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # trial's own timeout ends a wait in vain
            await deferLater(reactor, 0.005)

    async def stored(self) -> list[str]:
        return [id_ for (id_,) in await self.pool.query("SELECT message_id FROM delivery ORDER BY seq")]

    async def moved(self, side: Side | None = None) -> None:
        await self.until(lambda: (side or self.side).journal.pending == 0)

    async def test_while_postgres_is_well_nothing_comes_into_the_journal(self) -> None:
        receipt = await self.side.messages.accept(sms(), None, True)
        self.assertIsNotNone(receipt.delivery)
        self.assertEqual(self.side.journal.appended, 0)

    async def test_what_hangs_is_journaled_in_its_order_and_moved_when_postgres_goes_on(self) -> None:
        self.side.gate.shut("hangs")
        messages = [sms(text=str(n)) for n in range(5)]
        receipts = await gatherResults([self.side.messages.accept(m, None, True) for m in messages])
        self.assertEqual([(r.id, r.delivery) for r in receipts], [(m.id, None) for m in messages])
        self.assertEqual(await self.stored(), [])
        self.side.gate.open()
        await self.moved()
        self.assertEqual(await self.stored(), [str(m.id) for m in messages])

    async def test_a_commit_that_goes_unanswered_keeps_its_id_and_is_stored_once_without_a_lease(
        self,
    ) -> None:
        self.side.gate.shut("unanswered")
        message = sms()
        receipt = await self.side.messages.accept(message, KEY, True)
        self.assertEqual(receipt.id, message.id)
        self.assertEqual(self.side.journal.pending, 1)
        self.side.gate.open(lost=True)
        await self.moved()
        found = await self.pool.query("SELECT message_id, lease, attempts FROM delivery")
        self.assertEqual(found, [(str(message.id), None, 0)])

    async def test_with_postgres_gone_it_does_not_wait_until_the_journal_is_due(self) -> None:
        self.side.gate.shut("gone")
        first = await self.side.messages.accept(sms(), None, True)
        began = reactor.seconds()
        second = await self.side.messages.accept(sms(), None, True)
        self.assertLess(reactor.seconds() - began, AFTER * 5)
        self.side.gate.open()
        await self.moved()
        self.assertEqual(await self.stored(), [str(first.id), str(second.id)])

    async def test_behind_what_is_in_the_journal_of_another_process_it_is_held(self) -> None:
        other = await self.make_side()
        self.side.gate.shut("gone")
        other.gate.shut("hangs")
        first = await self.side.messages.accept(sms(text="first"), None, True)
        second = other.messages.accept(sms(text="second"), None, True)
        self.assertNoResult(second)
        self.side.gate.open()
        other.gate.open()
        receipt = await second
        await self.moved()
        self.assertEqual(await self.stored(), [str(first.id), str(receipt.id)])

    async def test_a_repeat_hears_the_same_id_while_postgres_is_away_and_after(self) -> None:
        self.side.gate.shut("gone")
        first = await self.side.messages.accept(sms(), KEY, True)
        repeat = await self.side.messages.accept(sms(), KEY, True)
        self.side.gate.open()
        await self.moved()
        later = await self.side.messages.accept(sms(), KEY, True)
        self.assertEqual([repeat.id, later.id], [first.id, first.id])
        self.assertEqual([first.duplicate, repeat.duplicate, later.duplicate], [False, True, True])
        self.assertEqual(await self.stored(), [str(first.id)])

    async def test_a_repeat_of_what_postgres_has_hears_another_id_which_becomes_an_alias(self) -> None:
        first = await self.side.messages.accept(sms(), KEY, True)
        self.side.gate.shut("gone")
        repeat = await self.side.messages.accept(sms(), KEY, True)
        self.assertNotEqual(repeat.id, first.id)
        self.side.gate.open()
        await self.moved()
        self.assertEqual(await self.stored(), [str(first.id)])
        aliases = await self.pool.query("SELECT id, message_id FROM message_alias")
        self.assertEqual(aliases, [(str(repeat.id), str(first.id))])

    async def test_where_the_journal_cannot_be_used_either_it_is_refused(self) -> None:
        self.side.gate.shut("gone")
        await self.side.journal.close()
        await self.assertFailure(self.side.messages.accept(sms(), None, True), StoreUnavailable)
        self.side.gate.open()
        receipt = await self.side.messages.accept(sms(), None, True)
        self.assertEqual(await self.stored(), [str(receipt.id)])

    async def test_what_belongs_together_is_journaled_together_and_moved(self) -> None:
        self.side.gate.shut("gone")
        some = [sms(text=f"{n}") for n in range(300)]
        receipts = await self.side.messages.accept_all([(one, None, False) for one in some])
        self.assertEqual([receipt.id for receipt in receipts], [one.id for one in some])
        self.assertEqual(self.side.journal.pending, 300)
        self.side.gate.open()
        await self.moved()
        self.assertEqual(await self.stored(), [str(one.id) for one in some])

    async def test_what_belongs_together_and_hangs_is_stored_once(self) -> None:
        self.side.gate.shut("unanswered")
        some = [sms(text=f"{n}") for n in range(3)]
        receipts = await self.side.messages.accept_all([(one, None, False) for one in some])
        self.assertEqual([receipt.duplicate for receipt in receipts], [False] * 3)
        self.side.gate.open(lost=True)
        await self.moved()
        self.assertEqual(await self.stored(), [str(one.id) for one in some])

    async def test_while_tables_are_missing_it_is_journaled_and_nothing_is_set_aside(self) -> None:
        """As while a database is restored: it can be reached before everything is there."""
        await self.pool.query("ALTER TABLE message RENAME TO not_yet")
        said = lines_said(self, LogLevel.warn)
        messages = [sms(text=str(n)) for n in range(3)]
        receipts = [await self.side.messages.accept(m, None, True) for m in messages]
        self.assertEqual([r.id for r in receipts], [m.id for m in messages])
        await self.until(lambda: any("could not be moved yet" in line for line in said))
        self.assertEqual((self.side.journal.pending, self.side.journal.aside), (3, 0))
        await self.pool.query("ALTER TABLE not_yet RENAME TO message")
        await self.moved()
        self.assertEqual(await self.stored(), [str(m.id) for m in messages])
        self.assertEqual(self.side.journal.aside, 0)
