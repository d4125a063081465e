"""The use case behind the pages of provider profiles: authentic requests are stored, handshakes answered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred, ensureDeferred

from smsdaemon.deferreds import InFlight
from smsdaemon.domain.model import Connector, Receipt, Submission, WireRequest
from smsdaemon.domain.numbers import matching_key
from smsdaemon.domain.reading import ProviderAnswer
from smsdaemon.drift import DriftWatch
from smsdaemon.intake import Receiver
from smsdaemon.ports import DirectorySource, Fetch, NonceStore, UtcClock
from smsdaemon.providers.field_names import fell_back, field_names
from smsdaemon.providers.fields import Names, first_not_blank
from smsdaemon.providers.form import read_form
from smsdaemon.providers.gate import RequestGate
from smsdaemon.providers.handshaking import HandshakeDesk, recognised
from smsdaemon.providers.loaded import LoadedProfile

_RECEIVER = Names("receiver")


@frozen(kw_only=True)
class Checks:
    """What it takes to tell whether a request is authentic."""

    nonces: NonceStore
    fetch: Fetch
    utc_now: UtcClock


class ProfileDesk:
    """Implements web.profile_pages.Desk."""

    def __init__(
        self,
        *,
        profiles: Mapping[str, LoadedProfile],
        receiver: Receiver,
        directory: DirectorySource,
        checks: Checks,
        in_flight: InFlight,
        count: Callable[[str, str], object],
        drift: DriftWatch,
    ) -> None:
        """``count``: told provider and kind of what was no SMS."""
        self._profiles, self._receiver, self._directory = profiles, receiver, directory
        self._checks, self._in_flight, self._count = checks, in_flight, count
        self._drift = drift
        self._listing: dict[str, tuple[object, list[Connector]]] = {}

    def receive(
        self, profile: str, request: WireRequest, submissions: Sequence[Submission]
    ) -> Deferred[list[Receipt]]:
        """Fires when all that the request has brought is durable; fails as Receiver.receive_all()."""
        gate = RequestGate(
            profile=self._profiles[profile],
            request=request,
            nonces=self._checks.nonces,
            fetch=self._checks.fetch,
            utc_now=self._checks.utc_now,
            on_refused=lambda connectors, why: self._drift.refused(connectors, profile, why),
        )
        stored = self._receiver.receive_all(submissions, gate)
        return self._in_flight.add(stored).addCallback(self._look, profile, request, submissions[0])

    def _look(
        self, receipts: list[Receipt], profile: str, request: WireRequest, submission: Submission
    ) -> list[Receipt]:
        """Whether the request, which was accepted, looks like those before it."""
        connector = self._directory.current().connectors.get(matching_key(submission.receiver))
        if connector is not None and self._drift.due(connector, profile):
            kind = request.content_type
            names = field_names(request.query, kind, request.body)
            charset = self._profiles[profile].profile.request.charset
            fallback = charset is None and fell_back(submission.encoding, kind)
            self._drift.look(connector, profile, names, fallback)
        return receipts

    def unreadable(self, profile: str, why: str) -> None:
        """A request could not be read; ``why`` names fields and no values."""
        self._drift.unreadable(profile, why)

    def handshake(self, profile: str, request: WireRequest) -> Deferred[ProviderAnswer] | None:
        """What to answer to a handshake; None where the request is none."""
        loaded = self._profiles[profile]
        if not recognised(loaded, request):
            return None
        desk = HandshakeDesk(
            profile=loaded, request=request, fetch=self._checks.fetch, utc_now=self._checks.utc_now
        )
        return self._in_flight.add(ensureDeferred(desk.answer(self._meant(profile, request))))

    def not_an_sms(self, profile: str, kind: str) -> None:
        """Something was no SMS, and is only counted."""
        self._count(profile, kind)

    def _meant(self, profile: str, request: WireRequest) -> Collection[Connector]:
        """The connector that the URL names, or all of the profile."""
        directory = self._directory.current()
        values, _ = read_form(request.query, (b"receiver",), None)
        receiver = first_not_blank(_RECEIVER, (values,))
        if receiver is not None:
            connector = directory.connectors.get(matching_key(receiver))
            return [connector] if connector is not None and profile in connector.providers else []
        # Looked for once for each snapshot: handshakes are rare, but whoever sends them need not be.
        known = self._listing.get(profile)
        if known is None or known[0] is not directory:
            found = [c for c in directory.connectors.values() if profile in c.providers]
            known = self._listing[profile] = (directory, found)
        return known[1]
