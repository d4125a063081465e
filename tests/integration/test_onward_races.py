"""An SMS goes on to a conversation whose head changes at that very moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import Delivered, Delivery
from smsdaemon.store.prepared import Prepared
from smsdaemon.store.queries import SETTLE
from tests.integration.test_store import StoreTest, sms, utc_now

reactor = cast(Any, _reactor)
Run = Callable[..., Any]


class OnwardRaceTests(StoreTest):
    GROUP = 2

    async def test_an_onward_sms_is_not_left_behind_when_the_head_it_waits_for_is_replaced_and_ends(
        self,
    ) -> None:
        first = await self.leased(sms(text="first", target_id=self.GROUP))
        await self.accept(sms(text="second", target_id=self.GROUP))
        routed = await self.leased(sms(text="onward"))
        gates: list[Deferred[None]] = [Deferred() for _ in range(4)]
        first_locked, end_first, onward_added, commit_onward = gates

        async def ends_the_first(run: Run) -> None:
            await run("SELECT 1 FROM delivery WHERE id = %(id)s FOR UPDATE", {"id": str(first.id)})
            first_locked.callback(None)
            await end_first
            await self.settle_in(run, first)

        async def adds_the_onward_one(run: Run) -> None:
            await self.settle_in(run, routed, onward=self.GROUP)
            onward_added.callback(None)
            await commit_onward

        ending = self.pool.transaction(ends_the_first)
        await first_locked
        adding = self.pool.transaction(adds_the_onward_one)
        await self.until_one_waits(adding)
        end_first.callback(None)
        await ending
        await onward_added
        # Between its two statements the second one became the head, leased by nobody that is here any more.
        await self.pool.query(
            "UPDATE delivery SET leased_until = now() WHERE lease IS NOT NULL AND target_id = 2"
        )
        [second] = await self.claim()
        self.assertEqual(second.sms.text, "second")
        settled = self.store.settle(second, Delivered(), None)
        await self.until_one_waits(settled)
        commit_onward.callback(None)
        await adding
        following = await settled or (await self.claim())[0]
        self.assertEqual(following.sms.text, "onward")

    async def settle_in(self, run: Run, delivery: Delivery, onward: int | None = None) -> None:
        """What PostgresDeliveries.settle() does, within a transaction that goes on."""
        row: dict[str, Any] = {"n": 0, "id": str(delivery.id), "lease": str(delivery.lease), "reason": ""}
        row |= {"state": "delivered"}
        there: list[dict[str, Any]] = []
        if onward is not None:
            row |= {"onward_id": str(uuid7(utc_now())), "onward_target": onward, "onward_hops": []}
            there = [{"onward_target": onward, "connector_id": 1, "sender": delivery.sms.sender}]
        lease = {"lease": str(uuid4()), "lease_seconds": 60, "first_delay": 0, "holder": "gone"}
        params = {"rows": json.dumps([row]), "ids": f"{{{delivery.id}}}", "onward": json.dumps(there)}
        for statement in steps(SETTLE):
            await run(statement, {**params, **lease})

    async def until_one_waits(self, done: Deferred[Any]) -> None:
        """For a lock, or ``done`` has fired without."""
        while not done.called:
            [(waiting,)] = await self.pool.query(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            )
            if waiting:
                return
            await deferLater(reactor, 0.005, lambda: None)


def steps(statement: Prepared) -> list[str]:
    """Each as a statement of its own."""
    return [step for step in statement.split(";") if step.strip()]
