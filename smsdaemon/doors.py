"""What listens: the public site with the TLS around it, and the admin site."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.server import Site

from smsdaemon.deferreds import InFlight
from smsdaemon.descriptors import PeerRoom
from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import RawRequest, Receipt, Submission
from smsdaemon.domain.numbers import matching_key
from smsdaemon.domain.reading import GENERIC
from smsdaemon.drift import DriftWatch
from smsdaemon.errors import ConfigurationError
from smsdaemon.intake import Receiver
from smsdaemon.listening import Listening, Opening
from smsdaemon.metrics import Gauges, Metrics
from smsdaemon.ports import DirectorySource, MessageStore, NonceStore, Outlet, RefusalObserver
from smsdaemon.profile_desk import Checks, ProfileDesk
from smsdaemon.providers.field_names import fell_back, field_names
from smsdaemon.providers.generic import GenericProvider
from smsdaemon.providers.https_fetch import HttpsFetch
from smsdaemon.providers.loaded import LoadedProfile
from smsdaemon.settings import Settings
from smsdaemon.web import profile_pages, tls
from smsdaemon.web.admin import Health, admin_resource
from smsdaemon.web.bounded import BoundedSite, Bounds
from smsdaemon.web.profile_pages import Surroundings
from smsdaemon.web.receiver import ReceiverPages
from smsdaemon.web.routes import Page
from smsdaemon.web.waiting import Waiting

RECEIVER_PATH = "/SMSReceiver"
HTTP, HTTPS, ADMIN = "http.listen", "https.listen", "admin.listen"
"""The settings' keys that ask for listeners."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def openings(
    settings: Settings, public: Mapping[str, IProtocolFactory], admin: IProtocolFactory
) -> list[Opening]:
    """Everything that is to be listened on. ``public``: by HTTP and HTTPS, who takes the connections."""
    wanted = (
        (HTTP, settings.http, public.get(HTTP), "http", RECEIVER_PATH),
        (HTTPS, settings.https, public.get(HTTPS), "https", RECEIVER_PATH),
        (ADMIN, settings.admin, admin, "http", "/"),
    )
    return [
        Opening(key=key, endpoint=endpoint, factory=factory, scheme=scheme, path=path)
        for key, listener, factory, scheme, path in wanted
        if listener is not None and factory is not None
        for endpoint in listener.listen
    ]


def certificate_pair(settings: Settings) -> tuple[Path, Path] | None:
    """Certificate and key of [https], self-signed ones made where none are named; None: there is no TLS.

    Raises ConfigurationError.
    """
    if settings.https is None:
        return None
    certificate, key = settings.https.certificate, settings.https.key
    if certificate is None or key is None:
        names = ["localhost", socket.gethostname()]
        folder = settings.state_dir / "tls"
        try:
            return tls.ensure_self_signed(folder, utc_now(), names)
        except OSError as error:
            where = error.filename2 or error.filename or folder  # of a rename, the second is in its place
            problem = f"state_dir: no self-signed certificate can be made: {where}: {error.strerror}"
            raise ConfigurationError([problem]) from error
    return certificate, key


# --- for providers ----------------------------------------------------------------------------


class Core(Protocol):
    """The parts that stand behind the public door (worker.WorkerParts)."""

    @property
    def directory(self) -> DirectorySource: ...
    @property
    def messages(self) -> MessageStore: ...
    @property
    def nonces(self) -> NonceStore: ...
    @property
    def dispatcher(self) -> Outlet: ...
    @property
    def refusals(self) -> RefusalObserver: ...
    @property
    def requests(self) -> InFlight: ...
    @property
    def drift(self) -> DriftWatch: ...


@frozen
class _Counted:
    """A receiver whose requests under way are known, so that an ordered stop can wait for them."""

    receiver: Receiver
    in_flight: InFlight

    def receive(self, submission: Submission) -> Deferred[Receipt]:
        return self.in_flight.add(self.receiver.receive(submission))


@frozen
class _GenericWatch:
    """Has the drift watch hear of generic requests."""

    directory: DirectorySource
    drift: DriftWatch

    def __call__(self, raw: RawRequest, submission: Submission, accepted: bool) -> None:
        connector = self.directory.current().connectors.get(matching_key(submission.receiver))
        if connector is None:
            return
        if not accepted:
            self.drift.refused((connector,), GENERIC, "the token is missing, or wrong")
        elif self.drift.due(connector, GENERIC):
            names = field_names(raw.query, raw.content_type, raw.body)
            self.drift.look(connector, GENERIC, names, fell_back(submission.encoding, raw.content_type))


class PublicDoor:
    """The site that providers call. Makes it, with TLS where that is spoken; raises ConfigurationError."""

    def __init__(
        self,
        *,
        settings: Settings,
        core: Core,
        profiles: Mapping[str, LoadedProfile],
        metrics: Metrics,
        ready: Callable[[], bool],
        room: PeerRoom,
        reactor: Any,
    ) -> None:
        receiver = _receiver(core, metrics)
        pages = ReceiverPages(
            receiver=_Counted(receiver, core.requests),
            provider=GenericProvider(),
            observe=metrics.request_answered,
            ready=ready,
            clock=reactor,
            watch=_GenericWatch(core.directory, core.drift),
            profile_pages=_profile_pages(settings, core, receiver, profiles, metrics, reactor),
        )
        self._site = BoundedSite(
            pages.resource(),
            clock=reactor,
            bounds=_bounds(settings, room),
            observe=metrics.request_answered,
        )
        self.factories: dict[str, IProtocolFactory] = {HTTP: self._site}
        """Who takes the connections of HTTP and HTTPS."""
        pair = certificate_pair(settings)
        if pair is not None:
            self.factories[HTTPS] = TLSMemoryBIOFactory(tls.server_context(*pair), False, self._site)

    def wind_down(self) -> None:
        """Have every further answer close its connection."""
        self._site.winding_down = True


def _receiver(core: Core, metrics: Metrics) -> Receiver:
    return Receiver(
        directory=core.directory,
        store=core.messages,
        outlet=core.dispatcher,
        refusals=core.refusals,
        utc_now=utc_now,
        new_id=uuid7,
        on_accepted=metrics.accepted,
    )


def _profile_pages(
    settings: Settings,
    core: Core,
    receiver: Receiver,
    profiles: Mapping[str, LoadedProfile],
    metrics: Metrics,
    reactor: Any,
) -> Mapping[bytes, Page]:
    desk = ProfileDesk(
        profiles=profiles,
        receiver=receiver,
        directory=core.directory,
        checks=Checks(nonces=core.nonces, fetch=HttpsFetch(reactor=reactor), utc_now=utc_now),
        in_flight=core.requests,
        count=metrics.not_an_sms,
        drift=core.drift,
    )
    surroundings = Surroundings(
        desk=desk,
        public_url=settings.receiver.public_url,
        observe=metrics.request_answered,
        waiting=Waiting(reactor),
    )
    return profile_pages.pages(list(profiles.values()), surroundings, RECEIVER_PATH)


def _bounds(settings: Settings, room: PeerRoom) -> Bounds:
    return Bounds(
        max_body_bytes=settings.receiver.max_body_bytes,
        max_url_bytes=settings.receiver.max_url_bytes,
        connections=room.connections,
        told_connections=room.told_connections,
    )


# --- for operators ----------------------------------------------------------------------------


class AdminDoor:
    """The site of metrics and health."""

    def __init__(self, *, gauges: Gauges, health: Health, reactor: Any) -> None:
        self._hosts: set[str] = set()
        self.factory = _QuietSite(  # type: ignore[no-untyped-call]
            admin_resource(gauges=gauges, health=health, hosts=self._hosts, timer=reactor)
        )

    def bound(self, listening: Listening) -> None:
        """The ports are known now: the site may be called by their addresses."""
        self._hosts.update(listening.hosts(ADMIN))


class _QuietSite(Site):
    """Without access log and tracebacks."""

    displayTracebacks = False

    def log(self, request: object) -> None:
        """Nothing."""
