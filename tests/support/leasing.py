"""A process' side of the store: what accepts and what delivers, with the same leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from attrs import frozen
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

from smsdaemon.domain.model import Attempt, Delivery, InboundSMS, Outcome, Receipt
from smsdaemon.store.deliveries import PostgresDeliveries
from smsdaemon.store.messages import LeaseTerms, PostgresMessages
from smsdaemon.store.pool import Pool
from tests.support.cases import ReactorTest

reactor = cast(Any, _reactor)


@frozen
class Store:
    """Both halves in one, for tests that use both."""

    messages: PostgresMessages
    deliveries: PostgresDeliveries

    def accept(self, sms: InboundSMS, provider_key: bytes | None, lease: bool) -> Deferred[Receipt]:
        return self.messages.accept(sms, provider_key, lease)

    def settle(
        self, delivery: Delivery, outcome: Outcome, attempt: Attempt | None
    ) -> Deferred[Delivery | None]:
        return self.deliveries.settle(delivery, outcome, attempt)

    def claim(self, limit: int, room: Mapping[int, int], elsewhere: int) -> Deferred[Sequence[Delivery]]:
        return self.deliveries.claim(limit, room, elsewhere)


def make_store(
    test: ReactorTest,
    pool: Pool,
    lease_seconds: float = 60.0,
    first_delay: float = 0,
    holder: str = "here:1",
    probe_seconds: float = 5.0,
) -> Store:
    """As one process has it; closed after the test."""
    terms = LeaseTerms(seconds=lease_seconds, first_delay_seconds=first_delay, holder=holder)
    values: dict[str, Any] = {"pool": pool, "timer": reactor, "terms": terms}
    values["utc_now"] = lambda: datetime.now(UTC)
    store = Store(PostgresMessages(**values), PostgresDeliveries(**values, probe_seconds=probe_seconds))
    test.addCleanup(store.messages.close)
    test.addCleanup(store.deliveries.close)
    return store
