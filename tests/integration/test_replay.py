"""What comes out of the journal is stored once each and in order, whatever was stored before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import InboundSMS
from smsdaemon.store.messages import Acceptance, LeaseTerms, PostgresMessages, row
from smsdaemon.store.pool import Run
from tests.support.cases import ReactorTest
from tests.support.deliveries import sms as _sms
from tests.support.store import migrated_pool

reactor = cast(Any, _reactor)
KEY = bytes(range(16))


def utc_now() -> datetime:
    return datetime.now(UTC)


def sms(sender: str = "+49789789", **fields: Any) -> InboundSMS:
    now = utc_now()
    return _sms(**{"id": uuid7(now), "received_at": now, "sender": sender, **fields})


class ReplayTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.dsn, self.pool = await migrated_pool(self, size=3)
        terms = LeaseTerms(seconds=60, first_delay_seconds=0, holder="here:1")
        self.messages = PostgresMessages(pool=self.pool, timer=reactor, utc_now=utc_now, terms=terms)
        self.addCleanup(self.messages.close)

    def journaled(self, message: InboundSMS, key: bytes | None = None) -> dict[str, Any]:
        """As the journal has it, of an SMS that was never sent."""
        return _journaled(self.messages.acceptance(message, key, True))

    async def stored(self) -> list[str]:
        return [id_ for (id_,) in await self.pool.query("SELECT message_id FROM delivery ORDER BY seq")]

    async def test_stored_in_order_and_only_the_first_of_a_conversation_is_due(self) -> None:
        messages = [sms(), sms(), sms(sender="+4930"), sms()]
        self.assertEqual(await self.messages.replay([self.journaled(m) for m in messages]), [None] * 4)
        conversation = [str(m.id) for m in messages if m.sender == messages[0].sender]
        self.assertEqual([id_ for id_ in await self.stored() if id_ in conversation], conversation)
        self.assertEqual(len(await self.stored()), 4)
        due = await self.pool.query("SELECT message_id FROM delivery WHERE due_at IS NOT NULL")
        self.assertEqual(set(due), {(str(messages[0].id),), (str(messages[2].id),)})
        self.assertEqual(
            await self.pool.query("SELECT count(*) FROM delivery WHERE lease IS NOT NULL"), [(0,)]
        )

    async def test_replayed_twice_it_is_stored_once(self) -> None:
        rows = [self.journaled(sms()), self.journaled(sms(), KEY)]
        await self.messages.replay(rows)
        self.assertEqual(await self.messages.replay([*rows, third := self.journaled(sms())]), [None] * 3)
        self.assertEqual(await self.stored(), [rows[0]["id"], rows[1]["id"], third["id"]])

    async def test_what_had_ended_already_when_it_is_replayed_is_not_delivered_again(self) -> None:
        first = self.journaled(sms())
        await self.messages.replay([first])
        await self.pool.query("DELETE FROM delivery")
        await self.messages.replay([first])
        self.assertEqual(await self.stored(), [])

    async def test_a_commit_that_went_unanswered_is_recognised_and_its_lease_given_back(self) -> None:
        entry = self.messages.acceptance(sms(), KEY, True)
        await self.messages.send(entry)
        self.assertEqual(
            await self.pool.query("SELECT attempts FROM delivery WHERE lease IS NOT NULL"), [(1,)]
        )
        await self.messages.replay([_journaled(entry)])
        found = await self.pool.query("SELECT message_id, lease, attempts, round_attempts FROM delivery")
        self.assertEqual(found, [(str(entry.sms.id), None, 0, 0)])

    async def test_the_lease_of_another_is_left_alone(self) -> None:
        entry = self.messages.acceptance(sms(), KEY, True)
        await self.messages.send(entry)
        other = str(uuid7(utc_now()))
        await self.pool.query("UPDATE delivery SET lease = %(lease)s", {"lease": other})
        await self.messages.replay([_journaled(entry)])
        self.assertEqual(await self.pool.query("SELECT lease, attempts FROM delivery"), [(other, 1)])

    async def test_it_waits_for_a_commit_that_is_still_on_its_way(self) -> None:
        message = sms()
        go_on: Deferred[None] = Deferred()
        inserted: Deferred[None] = Deferred()

        async def on_its_way(run: Run) -> None:
            await run(
                "INSERT INTO message (id, received_at, connector_id, client_id, receiver, sender,"
                " sender_raw, text, provider, encoding, parts)"
                " VALUES (%(id)s, now(), 1, 1, '', '', '', '', '', '', 1)",
                {"id": str(message.id)},
            )
            inserted.callback(None)
            await go_on

        commit = self.pool.transaction(on_its_way)
        await inserted
        replayed = ensureDeferred(self.messages.replay([self.journaled(message)]))
        while not await self.pool.query("SELECT FROM pg_locks WHERE NOT granted"):
            await deferLater(reactor, 0.01)
        go_on.callback(None)
        await commit
        self.assertEqual(await replayed, [None])
        self.assertEqual(await self.stored(), [])

    async def test_a_repeat_that_heard_another_id_becomes_an_alias_of_the_first(self) -> None:
        first, repeat = sms(), sms()
        await self.messages.accept(first, KEY, False)
        await self.messages.replay([self.journaled(repeat, KEY), self.journaled(repeat, KEY)])
        self.assertEqual(await self.stored(), [str(first.id)])
        aliases = await self.pool.query("SELECT id, message_id FROM message_alias")
        self.assertEqual(aliases, [(str(repeat.id), str(first.id))])

    async def test_what_postgres_refuses_is_named_and_keeps_nobody_else_out(self) -> None:
        rows = [self.journaled(m) for m in (sms(), sms(text="a\0b"), sms())]
        self.assertEqual(
            [outcome is None for outcome in await self.messages.replay(rows)], [True, False, True]
        )
        self.assertEqual(await self.stored(), [rows[0]["id"], rows[2]["id"]])

    async def test_behind_what_is_pending_already(self) -> None:
        first = sms()
        await self.messages.accept(first, None, True)
        await self.messages.replay([self.journaled(later := sms())])
        heads = await self.pool.query("SELECT message_id, due_at IS NULL FROM delivery ORDER BY seq")
        self.assertEqual(heads, [(str(first.id), False), (str(later.id), True)])


def _journaled(entry: Acceptance) -> dict[str, Any]:
    lost = entry.sent_under
    assert lost is None or isinstance(lost, UUID)
    return {**row(entry), "wants_lease": False, "lost_lease": None if lost is None else str(lost)}
