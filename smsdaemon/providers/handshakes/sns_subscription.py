"""Amazon SNS asks whether a topic's notifications are wanted here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from attrs import field, frozen

from smsdaemon.domain.model import WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import Fetch, HandshakeAnswer
from smsdaemon.providers.amazon import is_confirmation_url, topic
from smsdaemon.providers.schemes.sns import Sns
from smsdaemon.providers.signed_json import signed_object

_TYPES = ("SubscriptionConfirmation", "UnsubscribeConfirmation")


@frozen(kw_only=True)
class SnsSubscription:
    """Confirmed by a GET of the URL it brings, for topics that are a connector's own.

    The signature is verified here, so that the URL is surely Amazon's; it is called on no other host than
    SNS in the topic's region. That a subscription has ended is only acknowledged: whoever ended it may.
    """

    name: ClassVar[str] = "sns_subscription"
    signed: ClassVar[bool] = False
    """It verifies the signature itself, since nobody else has an SNS that is no SMS."""

    scheme: Sns = field(init=False, factory=Sns, repr=False)

    def recognise(self, request: WireRequest, document: object) -> bool:
        """By the envelope's Type."""
        return isinstance(document, dict) and document.get("Type") in _TYPES

    async def answer(
        self,
        request: WireRequest,
        document: object,
        *,
        secrets: Sequence[str],
        now: datetime,
        fetch: Fetch,
    ) -> HandshakeAnswer:
        """Raises SignatureRefused for another topic or a wrong signature, FetchFailed where SNS fails us."""
        await self.scheme.prepare(request, secrets, now, fetch)
        self.scheme.verify(request, secrets, now)
        # Read once more as it was verified, whatever read ``document``.
        envelope = signed_object(request.body)
        if envelope["Type"] == "SubscriptionConfirmation":
            found = topic(str(envelope["TopicArn"]))
            url = str(envelope["SubscribeURL"])
            if found is None or not is_confirmation_url(url, found.host):
                raise SignatureRefused("the SubscribeURL is not of SNS in the topic's region")
            await fetch(url)
        return HandshakeAnswer(200, "text/plain; charset=utf-8", b"OK", {})
