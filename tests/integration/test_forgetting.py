"""What is forgotten for its age is not what somebody renews at that moment."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater

from smsdaemon.store.messages import forget_repeats
from smsdaemon.store.nonces import forget_nonces
from smsdaemon.store.pool import Run
from smsdaemon.store.refused import forget_refused
from tests.support.cases import ReactorTest
from tests.support.store import migrated_pool

reactor = cast(Any, _reactor)

OLD = {"id": str(UUID(int=1)), "age": "10 days"}


class ForgettingTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        _, self.pool = await migrated_pool(self, size=3)

    async def is_kept(self, old: str, renewal: str, forgetting: Any) -> None:
        """``renewal`` of the row that ``old`` makes is committed while ``forgetting`` waits for it."""
        await self.pool.query(old, OLD)
        renewed: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()

        async def renew(run: Run) -> None:
            await run(renewal)
            renewed.callback(None)
            await go_on

        commit = self.pool.transaction(renew)
        await renewed
        forgotten = ensureDeferred(forgetting(self.pool))
        while not await self.pool.query(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            await deferLater(reactor, 0.01)
        go_on.callback(None)
        await commit
        self.assertEqual(await forgotten, 0)

    async def test_a_repeat_key_that_a_new_sms_takes_over(self) -> None:
        await self.is_kept(
            "INSERT INTO provider_repeat (key, message_id, seen_at)"
            " VALUES ('k', %(id)s, now() - %(age)s::interval)",
            "UPDATE provider_repeat SET seen_at = now()",
            forget_repeats,
        )

    async def test_a_nonce_that_comes_again(self) -> None:
        await self.is_kept(
            "INSERT INTO provider_nonce (connector_id, nonce, content, seen_at)"
            " VALUES (1, 'n', 'c', now() - %(age)s::interval)",
            "UPDATE provider_nonce SET seen_at = now()",
            forget_nonces,
        )

    async def test_a_refused_sms_that_is_sent_again(self) -> None:
        await self.is_kept(
            "INSERT INTO refused_sms (id, last_at, times, reason, connector_id, receiver, sender, sender_raw,"
            " text, provider, encoding, parts)"
            " VALUES (%(id)s, now() - %(age)s::interval, 1, '', 1, '', '', '', '', '', '', 1)",
            "UPDATE refused_sms SET last_at = now(), times = 2",
            forget_refused,
        )
