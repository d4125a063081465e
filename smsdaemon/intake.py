"""The first use case: what a provider said becomes a durable SMS, or is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b, sha256
from hmac import compare_digest
from typing import Any, Protocol
from uuid import UUID

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from smsdaemon.domain.concatenation import sound
from smsdaemon.domain.model import Connector, Directory, InboundSMS, Part, Receipt, Submission
from smsdaemon.domain.numbers import matching_key, normalised_sender
from smsdaemon.domain.refused import RefusedSMS
from smsdaemon.errors import (
    NotRoutable,
    RequestRefused,
    SignatureRefused,
    TokenRefused,
    UnknownConnector,
)
from smsdaemon.ports import DirectorySource, IdMaker, MessageStore, Offer, Outlet, RefusalObserver, UtcClock

Nonces = Mapping[int, str]
"""By connector's id what a request's signature says to come once only."""


class Gate(Protocol):
    """Looks whether a request is authentic for the connectors whose SMS it brings."""

    def __call__(self, connectors: Collection[Connector], /) -> Nonces | Deferred[Nonces]:
        """Raises SignatureRefused. A Deferred, which may fail, where there is something to wait for."""
        ...


class Receiver:
    """Attributes a submission to its connector, checks its token and stores it."""

    def __init__(
        self,
        *,
        directory: DirectorySource,
        store: MessageStore,
        outlet: Outlet,
        refusals: RefusalObserver,
        utc_now: UtcClock,
        new_id: IdMaker,
        on_accepted: Callable[[], object],
    ) -> None:
        """``on_accepted`` is called once for every SMS that was stored (not for repeats)."""
        self._directory, self._store, self._outlet, self._refusals = directory, store, outlet, refusals
        self._utc_now, self._new_id, self._on_accepted = utc_now, new_id, on_accepted

    def receive(self, submission: Submission) -> Deferred[Receipt]:
        """Fires once the SMS is durable.

        Fails with UnknownConnector, TokenRefused, NotRoutable, StoreUnavailable or StoreRefused; in
        the first three cases nothing was accepted.
        """
        try:
            connector = _known_connector(self._directory.current(), submission)
            check_provider(connector, submission.provider)
            check_token(connector, submission.token)
        except RequestRefused as refusal:
            return self._turned_away(refusal, submission)
        try:
            (sms,) = self._attribute_all((submission,), (connector,))
        except NotRoutable:
            return fail(Failure())
        return self._stored(sms, provider_key(sms))

    def receive_all(self, submissions: Sequence[Submission], gate: Gate) -> Deferred[list[Receipt]]:
        """As receive(), for what one request has brought: all is stored, or nothing.

        What is wrong with any of them is wrong with the request, by the order of contract 3: unknown
        numbers before signatures, and those before targets. Also fails with what the gate fails with.
        """
        directory, connectors = self._directory.current(), []
        submission = submissions[0]
        try:
            for submission in submissions:
                connectors.append(_known_connector(directory, submission))
            for submission, connector in zip(submissions, connectors, strict=True):
                check_provider(connector, submission.provider)
            nonces = gate({connector.id: connector for connector in connectors}.values())
        except RequestRefused as refusal:
            return self._turned_away(refusal, submission)
        if isinstance(nonces, Deferred):
            nonces.addErrback(self._not_authentic, submission)
            return nonces.addCallback(lambda found: self._let_in(submissions, connectors, found))
        return self._let_in(submissions, connectors, nonces)

    def _let_in(
        self, submissions: Sequence[Submission], connectors: Sequence[Connector], nonces: Nonces
    ) -> Deferred[list[Receipt]]:
        submission = submissions[0]
        try:
            for submission, connector in zip(submissions, connectors, strict=True):
                check_token(connector, submission.token)
        except TokenRefused as refusal:
            return self._turned_away(refusal, submission)
        try:
            all_sms = self._attribute_all(submissions, connectors)
        except NotRoutable:
            return fail(Failure())
        keyed = [
            (sms, provider_key(sms) or nonce_key(sms, nonces.get(sms.connector_id), place))
            for place, sms in enumerate(all_sms)
        ]
        return self._stored_all(keyed) if len(keyed) > 1 else self._stored(*keyed[0]).addCallback(_alone)

    def _turned_away(self, refusal: RequestRefused, submission: Submission) -> Deferred[Any]:
        self._refusals.turned_away(refusal, submission)
        return fail(refusal)

    def _not_authentic(self, failure: Failure, submission: Submission) -> Failure:
        if isinstance(failure.value, SignatureRefused):
            self._refusals.turned_away(failure.value, submission)
        return failure

    def _attribute_all(
        self, submissions: Sequence[Submission], connectors: Sequence[Connector]
    ) -> list[InboundSMS]:
        """Raises NotRoutable, and then all are kept as refused: its neighbours would be lost as well."""
        directory, now = self._directory.current(), self._utc_now()
        found: list[InboundSMS] = []
        refusal: NotRoutable | None = None
        ids = sorted(self._new_id(now) for _ in submissions)  # of one moment, but in their order
        for submission, connector, id in zip(submissions, connectors, ids, strict=True):
            try:
                found.append(attributed(submission, connector, directory, id=id, received_at=now))
            except NotRoutable as error:
                refusal = refusal or error
        if refusal is None:
            return found
        for submission, connector, id in zip(submissions, connectors, ids, strict=True):
            sms = _refused(submission, connector, str(refusal), id=id, received_at=now)
            self._refusals.not_routable(sms)
        raise refusal

    # --- storing --------------------------------------------------------------------------------

    def _stored(self, sms: InboundSMS, key: bytes | None) -> Deferred[Receipt]:
        reserved = self._outlet.reserve(sms.target_id, sms.connector_id)
        return self._store.accept(sms, key, reserved).addCallbacks(
            self._accepted, self._not_stored, callbackArgs=(sms, reserved), errbackArgs=(sms, reserved)
        )

    def _stored_all(self, keyed: Sequence[tuple[InboundSMS, bytes | None]]) -> Deferred[list[Receipt]]:
        offers: list[Offer] = []
        for sms, key in keyed:
            offers.append((sms, key, self._outlet.reserve(sms.target_id, sms.connector_id)))

        def accepted(receipts: list[Receipt]) -> list[Receipt]:
            pairs = zip(receipts, offers, strict=True)
            return [self._accepted(receipt, sms, reserved) for receipt, (sms, _, reserved) in pairs]

        def not_stored(failure: Failure) -> Failure:
            for sms, _, reserved in offers:
                self._not_stored(failure, sms, reserved)
            return failure

        return self._store.accept_all(offers).addCallbacks(accepted, not_stored)

    def _accepted(self, receipt: Receipt, sms: InboundSMS, reserved: bool) -> Receipt:
        if not receipt.duplicate:
            self._on_accepted()
        if receipt.delivery is not None:
            self._outlet.take(receipt.delivery)
        elif reserved:  # a repeat, or behind another of its conversation, whose end takes it along
            self._outlet.release(sms.target_id, sms.connector_id)
        elif not receipt.duplicate:
            self._outlet.queued(sms.target_id)
        return receipt

    def _not_stored(self, failure: Failure, sms: InboundSMS, reserved: bool) -> Failure:
        if reserved:
            self._outlet.release(sms.target_id, sms.connector_id)
        return failure


def _alone(receipt: Receipt) -> list[Receipt]:
    return [receipt]


def attributed(
    submission: Submission, connector: Connector, directory: Directory, *, id: UUID, received_at: datetime
) -> InboundSMS:
    """The submission as an SMS of the connector; raises NotRoutable."""
    return InboundSMS(
        id=id,
        received_at=received_at,
        connector_id=connector.id,
        client_id=connector.client_id,
        target_id=routable_target(directory, connector),
        receiver=connector.number,
        sender=normalised_sender(submission.sender, connector.sender_format),
        sender_raw=submission.sender,
        text=submission.text,
        keyword=submission.keyword,
        provider=submission.provider,
        provider_message_id=submission.message_id,
        encoding=submission.encoding,
        raw_text=submission.raw_text,
        part=sound(submission.part),
        parts=submission.parts,
    )


def _refused(
    submission: Submission, connector: Connector, reason: str, *, id: UUID, received_at: datetime
) -> RefusedSMS:
    sender = normalised_sender(submission.sender, connector.sender_format)
    return RefusedSMS(
        id=id,
        received_at=received_at,
        reason=reason,
        connector_id=connector.id,
        receiver=connector.number,
        sender=sender,
        provider_key=_repeat_key(
            connector.id, submission.message_id, sender, submission.text, sound(submission.part)
        ),
        submission=evolve(submission, token=None),
    )


def _known_connector(directory: Directory, submission: Submission) -> Connector:
    """The connector of the submission's number; raises UnknownConnector."""
    connector = directory.connectors.get(matching_key(submission.receiver))
    if connector is None:
        raise UnknownConnector("no connector has this receiver")
    return connector


def check_provider(connector: Connector, provider: str) -> None:
    """Raises SignatureRefused unless the connector takes requests of this provider's profile.

    Otherwise a signature could be walked round by the URL of a profile that has none.
    """
    if provider not in connector.providers:
        raise SignatureRefused("this receiver takes the requests of another provider")


def check_token(connector: Connector, token: str | None) -> None:
    """Raises TokenRefused unless the connector takes requests with this token, or without any."""
    if not connector.require_token:
        return
    if token is None:
        raise TokenRefused("this receiver requires a token, and none was given")
    given = sha256(token.encode("utf-8", "surrogatepass")).digest()
    # Every hash is compared, so that the time taken tells nothing about which one was near.
    matches = [compare_digest(given, valid) for valid in connector.token_hashes]
    if not any(matches):
        raise TokenRefused("the token is not valid for this receiver")


def routable_target(directory: Directory, connector: Connector) -> int:
    """The id of the target that the connector's SMS go to; raises NotRoutable with the reason."""
    client = directory.clients.get(connector.client_id)
    target = None if connector.target_id is None else directory.targets.get(connector.target_id)
    if not connector.enabled:
        why = "the connector is disabled"
    elif client is None or not client.enabled:
        why = "the client or its reseller is disabled"
    elif target is None:
        why = "the connector has neither ACD group nor routing application"
    elif target.client_id != connector.client_id:
        why = "the connector's ACD group or routing application is of another client"
    elif not target.enabled:
        why = "the connector's ACD group or routing application is disabled"
    else:
        return target.id
    raise NotRoutable(why)


def provider_key(sms: InboundSMS) -> bytes | None:
    """What two requests have in common exactly if they bring the same SMS (contract 3, Repeats).

    16 bytes over the provider's message id, connector, sender, text and which part it is; None where
    the provider gives no id, since then a repeat cannot be told from the same text sent twice.
    """
    return _repeat_key(sms.connector_id, sms.provider_message_id, sms.sender, sms.text, sms.part)


def nonce_key(sms: InboundSMS, nonce: str | None, place: int) -> bytes | None:
    """As provider_key() where the provider gives no id, but its signature something that comes once only.

    ``place``: of the SMS among those of its request, which share the nonce.
    """
    if nonce is None:
        return None
    return _repeat_key(sms.connector_id, f"nonce {place} {nonce}", sms.sender, sms.text, sms.part)


def _repeat_key(
    connector_id: int, message_id: str | None, sender: str, text: str, part: Part | None
) -> bytes | None:
    if message_id is None:
        return None
    digest = blake2b(digest_size=16)
    if part is not None:
        digest.update(f"{part.number}/{part.total} {part.reference}\0".encode())
    for value in (str(connector_id), message_id, sender, text):
        digest.update(value.encode())
        digest.update(b"\0")  # no value can contain it: providers' NULs became U+FFFD
    return digest.digest()
