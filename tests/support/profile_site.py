"""The public site with provider profiles, over a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail

from smsdaemon.deferreds import InFlight
from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import Directory
from smsdaemon.domain.refused import RefusedSMS
from smsdaemon.drift import DriftWatch
from smsdaemon.errors import FetchFailed
from smsdaemon.intake import Receiver
from smsdaemon.ports import MessageStore
from smsdaemon.profile_desk import Checks, ProfileDesk
from smsdaemon.providers.catalogue import load
from smsdaemon.providers.generic import GenericProvider
from smsdaemon.providers.loaded import LoadedProfile
from smsdaemon.refusals import Refusals
from smsdaemon.samples import Samples
from smsdaemon.store.directory import read_snapshot
from smsdaemon.store.messages import LeaseTerms, PostgresMessages
from smsdaemon.store.nonces import PostgresNonces
from smsdaemon.store.pool import Pool
from smsdaemon.web import profile_pages
from smsdaemon.web.bounded import BoundedSite, Bounds
from smsdaemon.web.profile_pages import Surroundings
from smsdaemon.web.receiver import ReceiverPages
from smsdaemon.web.waiting import Waiting
from tests.support.cases import ReactorTest
from tests.support.peers import listen
from tests.support.raw_peer import RawPeer, Response
from tests.support.store import apply_text, migrated_pool

reactor = cast(Any, _reactor)
PUBLIC_URL = "https://sms.example.com"
DIRECTORY = """
[[reseller]]
name = "acme"
[[client]]
name = "shop"
reseller = "acme"
[[acd_group]]
client = "acme/shop"
name = "support"
url = "log:"
"""


def connector(number: str, **keys: object) -> str:
    """An entry of the directory file; its target is the group of DIRECTORY."""
    values = {"client": "acme/shop", "acd_group": "support", "number": number, **keys}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    return f"[[connector]]\n{lines}"


def utc_now() -> datetime:
    return datetime.now(UTC)


class NoOutlet:
    """Never has a place."""

    def reserve(self, target_id: int, connector_id: int) -> bool:
        return False

    def release(self, target_id: int, connector_id: int) -> None:
        """Nothing."""

    def queued(self, target_id: int) -> None:
        """Nothing."""

    def take(self, delivery: object) -> None:
        """Nothing."""


class RecordingSink:
    """Keeps what was refused."""

    def __init__(self) -> None:
        self.kept: list[RefusedSMS] = []

    def keep(self, sms: RefusedSMS) -> None:
        self.kept.append(sms)


class FailingFetch:
    """There is no network."""

    def __call__(self, url: str) -> Deferred[bytes]:
        return fail(FetchFailed("there is no network"))


class ProfileSite:
    """Everything from the socket to the table."""

    def __init__(self, test: ReactorTest, pool: Pool, profiles: Mapping[str, LoadedProfile]) -> None:
        self.pool, self.profiles = pool, profiles
        self.directory = Directory()
        self.now: datetime | None = None
        self.not_sms: list[tuple[str, str]] = []
        self.statuses: list[int] = []
        self.refused = RecordingSink()
        self.drift = DriftWatch(seconds=reactor.seconds, utc_now=utc_now)
        messages = PostgresMessages(
            pool=pool,
            timer=reactor,
            utc_now=utc_now,
            terms=LeaseTerms(seconds=60, first_delay_seconds=0, holder="test"),
        )
        self.messages: MessageStore = messages
        self.nonces = PostgresNonces(pool=pool, timer=reactor)
        test.addCleanup(messages.close)
        test.addCleanup(self.nonces.close)
        self._test = test

    def current(self) -> Directory:
        return self.directory

    async def apply(self, text: str) -> None:
        """Have the directory say so."""
        await apply_text(self.pool, DIRECTORY + text, providers=self.profiles)
        self.directory = await self.pool.transaction(lambda run: read_snapshot(run, Directory()))

    def serve(self, *, public_url: str = PUBLIC_URL) -> None:
        """Listen until the test ends."""
        receiver = Receiver(
            directory=self,
            store=self.messages,
            outlet=NoOutlet(),
            refusals=Refusals(samples=Samples(reactor.seconds), kept=self.refused),
            utc_now=utc_now,
            new_id=uuid7,
            on_accepted=lambda: None,
        )
        desk = ProfileDesk(
            profiles=self.profiles,
            receiver=receiver,
            directory=self,
            checks=Checks(nonces=self.nonces, fetch=FailingFetch(), utc_now=lambda: self.now or utc_now()),
            in_flight=InFlight(),
            count=lambda provider, kind: self.not_sms.append((provider, kind)),
            drift=self.drift,
        )
        surroundings = Surroundings(
            desk=desk,
            public_url=public_url,
            observe=lambda status, _: self.statuses.append(status),
            waiting=Waiting(reactor),
        )
        pages = ReceiverPages(
            receiver=receiver,
            provider=GenericProvider(),
            observe=lambda status, _: self.statuses.append(status),
            ready=lambda: True,
            clock=reactor,
            watch=lambda *_: None,
            profile_pages=profile_pages.pages(list(self.profiles.values()), surroundings, "/SMSReceiver"),
        )
        site = BoundedSite(pages.resource(), clock=reactor, bounds=Bounds(), observe=lambda *_: None)
        self._port = listen(self._test, site, None)

    async def ask(self, request: bytes) -> Response:
        """One request, on a connection of its own."""
        peer = await RawPeer.connect(self._port)
        try:
            return await peer.ask(request)
        finally:
            peer.close()

    async def stored(self) -> list[tuple[Any, ...]]:
        """Receiver, sender, text, provider and the provider's id of all SMS, in order."""
        rows = await self.pool.query(
            "SELECT receiver, sender, text, provider, provider_message_id FROM message ORDER BY id"
        )
        return list(rows)


async def profile_site(test: ReactorTest, folder: Path | None = None) -> ProfileSite:
    """With the shipped profiles, and those of a folder."""
    _, pool = await migrated_pool(test)
    return ProfileSite(test, pool, load(folder))
