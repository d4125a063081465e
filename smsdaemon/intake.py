"""The first use case: what a provider said becomes a durable SMS, or is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b, sha256
from hmac import compare_digest
from uuid import UUID

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from smsdaemon.domain.concatenation import sound
from smsdaemon.domain.model import Connector, Directory, InboundSMS, Part, Receipt, Submission
from smsdaemon.domain.numbers import matching_key, normalised_sender
from smsdaemon.domain.refused import RefusedSMS
from smsdaemon.errors import NotRoutable, RequestRefused, TokenRefused, UnknownConnector
from smsdaemon.ports import DirectorySource, IdMaker, MessageStore, Outlet, RefusalObserver, UtcClock


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
            sms = self._attribute(submission)
        except RequestRefused:
            return fail(Failure())
        reserved = self._outlet.reserve(sms.target_id, sms.connector_id)
        d = self._store.accept(sms, provider_key(sms), lease=reserved)
        return d.addCallbacks(
            self._accepted, self._not_stored, callbackArgs=(sms, reserved), errbackArgs=(sms, reserved)
        )

    def _attribute(self, submission: Submission) -> InboundSMS:
        directory = self._directory.current()
        try:
            connector = _known_connector(directory, submission)
        except RequestRefused as refusal:
            self._refusals.turned_away(refusal, submission)
            raise
        now = self._utc_now()
        id = self._new_id(now)
        try:
            return attributed(submission, connector, directory, id=id, received_at=now)
        except NotRoutable as refusal:
            self._refusals.not_routable(_refused(submission, connector, str(refusal), id=id, received_at=now))
            raise

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
    """The connector that the submission may use; raises UnknownConnector or TokenRefused."""
    connector = directory.connectors.get(matching_key(submission.receiver))
    if connector is None:
        raise UnknownConnector("no connector has this receiver")
    check_token(connector, submission.token)
    return connector


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
