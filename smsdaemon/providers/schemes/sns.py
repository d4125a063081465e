"""The signature of Amazon SNS, which carries AWS' two-way SMS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import Fetch, QueryRead
from smsdaemon.providers.amazon import Topic, is_certificate_url, topic
from smsdaemon.providers.certificates import SigningCertificates
from smsdaemon.providers.signatures import (
    MAX_NONCE_LENGTH,
    SKEW_SECONDS,
    as_bytes,
    check_window,
    from_base64,
    is_one_of,
    iso_time,
    keys,
    seconds,
    some_of,
)
from smsdaemon.providers.signed_json import signed_object

_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SUBSCRIPTION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED = {
    "Notification": _NOTIFICATION,
    "SubscriptionConfirmation": _SUBSCRIPTION,
    "UnsubscribeConfirmation": _SUBSCRIPTION,
}


@frozen(kw_only=True)
class Sns:
    """RSA of some of the envelope's members, with a certificate that the envelope names.

    Amazon signs for everybody's topics with the same key: that the topic is the connector's own is what
    keeps strangers out. The certificate is taken from SNS in that topic's region only.
    Source: aws/aws-js-sns-message-validator:index.js.
    """

    name: ClassVar[str] = "sns"
    takes: ClassVar[str] = "the topic's ARN (arn:aws:sns:REGION:ACCOUNT:NAME)"
    covers_body: ClassVar[bool] = True
    reads_query: ClassVar[QueryRead] = "never"

    versions: tuple[str, ...] = some_of(("1", "2"), ("1", "2"))
    """SignatureVersion: 1 is SHA-1, and what topics have by default; 2 is SHA-256."""
    tolerance_seconds: int = seconds(3900)
    """SNS repeats for an hour at most, with the timestamp of the first time."""
    skew_seconds: int = seconds(SKEW_SECONDS)
    certificates: SigningCertificates = field(init=False, factory=SigningCertificates, eq=False, repr=False)

    async def prepare(
        self, request: WireRequest, secrets: Sequence[str], now: datetime, fetch: Fetch
    ) -> None:
        """Fetch the certificate, if it is not here yet; of one of the topics only."""
        url = _certificate_url(*self._envelope(request, secrets))
        if self.certificates.key(url, now) is None:
            await self.certificates.get(url, now, fetch)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless SNS signed it for one of the topics, not long ago."""
        envelope, its_topic = self._envelope(request, secrets)
        key = self.certificates.key(_certificate_url(envelope, its_topic), now)
        if key is None:
            raise SignatureRefused("the certificate of the signature is not here")
        at = iso_time(envelope.get("Timestamp"))
        version = envelope.get("SignatureVersion")
        if version not in self.versions:
            raise SignatureRefused("the SignatureVersion is none that is taken")
        signed = from_base64(_text(envelope, "Signature"), "the Signature")
        try:
            key.verify(signed, _message(envelope), PKCS1v15(), SHA1() if version == "1" else SHA256())
        except InvalidSignature as error:
            raise SignatureRefused("the signature is wrong") from error
        check_window(at, now, self.tolerance_seconds, self.skew_seconds)
        message_id = _text(envelope, "MessageId")
        return Verified(nonce=message_id if len(message_id) <= MAX_NONCE_LENGTH else None)

    def check_secret(self, secret: str) -> None:
        """Raises ValueError where it is no topic's ARN."""
        if topic(secret) is None:
            raise ValueError("it is no topic's ARN")

    def is_public(self, secret: str) -> bool:
        """Whether it is an ARN, which is in each of the topic's requests."""
        return topic(secret) is not None

    def _envelope(self, request: WireRequest, secrets: Sequence[str]) -> tuple[Mapping[str, object], Topic]:
        expected = keys(secrets)
        envelope = signed_object(request.body)
        # Not all members are signed: one that differs by case could be taken for one that is.
        if len({name.lower() for name in envelope}) != len(envelope):
            raise SignatureRefused("a member of the envelope comes twice")
        if _text(envelope, "Type") not in _SIGNED:
            raise SignatureRefused("the Type is none of SNS")
        arn = _text(envelope, "TopicArn")
        found = topic(arn)
        if found is None or not is_one_of(arn, expected):
            raise SignatureRefused("the TopicArn is none of this connector's")
        return envelope, found


def _certificate_url(envelope: Mapping[str, object], its_topic: Topic) -> str:
    url = _text(envelope, "SigningCertURL")
    if not is_certificate_url(url, its_topic.host):
        raise SignatureRefused("the SigningCertURL is not of SNS in the topic's region")
    return url


def _message(envelope: Mapping[str, object]) -> bytes:
    lines: list[str] = []
    for name in _SIGNED[_text(envelope, "Type")]:
        if name == "Subject" and envelope.get(name) is None:
            continue
        lines += (name, _text(envelope, name))
    return as_bytes("\n".join(lines) + "\n")


def _text(envelope: Mapping[str, object], name: str) -> str:
    value = envelope.get(name)
    if not isinstance(value, str):
        raise SignatureRefused(f"the member {name} is missing, or no text")
    return value
