"""A real store with a directory, filled by the store itself, and the command on its database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import Attempt, Delivery, InboundSMS, Outcome
from smsdaemon.store.deliveries import PostgresDeliveries
from smsdaemon.store.messages import LeaseTerms, PostgresMessages
from tests.support.cases import ReactorTest
from tests.support.daemon import Daemon, Ended
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER
from tests.support.store import apply_text, migrated_pool

reactor = cast(Any, _reactor)
HOLDER = "host:4711"
DIRECTORY = f"""
[[reseller]]
name = "acme"
[[client]]
name = "shop"
reseller = "acme"
[[application]]
client = "acme/shop"
name = "survey"
url = "log:"
[[acd_group]]
client = "acme/shop"
name = "support"
url = "log:"
[[connector]]
client = "acme/shop"
number = "{RECEIVER}"
acd_group = "support"
"""


def utc_now() -> datetime:
    return datetime.now(UTC)


class StoredSmsTest(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.dsn, self.pool = await migrated_pool(self, size=4)
        await apply_text(self.pool, DIRECTORY)
        terms = LeaseTerms(seconds=60.0, first_delay_seconds=0, holder=HOLDER)
        self.received = PostgresMessages(pool=self.pool, timer=reactor, utc_now=utc_now, terms=terms)
        self.store = PostgresDeliveries(pool=self.pool, timer=reactor, utc_now=utc_now, terms=terms)
        self.addCleanup(self.received.close)
        self.addCleanup(self.store.close)
        rows = await self.pool.query("SELECT name, id, client_id FROM target")
        self.targets = {name: id_ for name, id_, _ in rows}
        self.client_id = rows[0][2]
        [(self.connector_id,)] = await self.pool.query("SELECT id FROM connector")

    def sms(self, text: str = TEXT_MARKER, **fields: Any) -> InboundSMS:
        now = fields.pop("at", None) or utc_now()
        values: dict[str, Any] = {
            "id": uuid7(now),
            "received_at": now,
            "connector_id": self.connector_id,
            "client_id": self.client_id,
            "target_id": self.targets["support"],
            "receiver": RECEIVER,
            "sender": SENDER,
            "sender_raw": SENDER,
            "text": text,
        }
        return InboundSMS(**{**values, **fields})

    async def waiting(self, text: str = TEXT_MARKER, **fields: Any) -> UUID:
        """Accept one that nobody attempts yet."""
        return (await self.received.accept(self.sms(text, **fields), None, False)).id

    async def leased(self, text: str = TEXT_MARKER, **fields: Any) -> Delivery:
        """Accept one whose first attempt is under way; its conversation must have nothing pending."""
        receipt = await self.received.accept(self.sms(text, **fields), None, True)
        assert receipt.delivery is not None
        return receipt.delivery

    async def ended(self, outcome: Outcome, text: str = TEXT_MARKER, **fields: Any) -> Delivery:
        """Accept one and end its first attempt, with status and answer if the fields name them."""
        told = Attempt(seconds=0.25, status=fields.pop("status", None), answer=fields.pop("answer", ""))
        delivery = await self.leased(text, **fields)
        await self.store.settle(delivery, outcome, told)
        return delivery

    async def command(self, *arguments: str) -> Ended:
        """Run `smsdaemon` on the test's database."""
        place = Daemon(dsn=self.dsn)
        self.addCleanup(place.remove)
        ended: Ended = await deferToThread(place.command, *arguments)
        return ended
