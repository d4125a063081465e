"""What providers send: the HTTP request that brings an SMS, or a part of one, in its profile's format."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from attrs import evolve, field, frozen

from smsdaemon.domain.model import WireRequest
from tests.chaos.plan import PROVIDER_SECRET, Conversation, Forgery
from tests.chaos.texts import part_text, whole_text
from tests.support.provider_requests import PUBLIC_URL
from tests.support.signers import SIGNERS, Sent


@frozen(kw_only=True)
class Errand:
    """One SMS, or one part of one, that is to be brought."""

    conversation: Conversation
    number: int
    part: int = 0
    total: int = 0
    forgery: Forgery | None = None

    @property
    def text(self) -> str:
        numbered = (self.conversation.habit, self.conversation.name, self.number)
        if self.part:
            return part_text(*numbered, self.part, self.total)
        return whole_text(*numbered)

    @property
    def message_id(self) -> str | None:
        """The provider's; every part has its own. A forged request bears that of the SMS it comes before."""
        if not self.conversation.identified:
            return None
        return f"{self.conversation.name}/{abs(self.number)}" + (f"/{self.part}" if self.part else "")

    def known(self) -> dict[str, object]:
        """For the history."""
        return {
            "conversation": self.conversation.name,
            "number": self.number,
            "part": self.part,
            "total": self.total,
            "identified": self.conversation.identified,
            "profile": self.conversation.profile,
            "forged": self.forgery is not None,
        }


@frozen(kw_only=True)
class Call:
    """An HTTP request; the path with its query."""

    method: str
    path: str
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""


def call(errand: Errand) -> Call:
    """The request that the provider makes, or somebody in its place."""
    match errand.conversation.profile:
        case "twilio":
            return _forged(errand) if errand.forgery else _posted(_signed(errand))
        case "vonage":
            return _vonage(errand)
    return _generic(errand)


def _generic(errand: Errand) -> Call:
    fields = {
        "receiver": errand.conversation.receiver,
        "sender": errand.conversation.sender,
        "message": errand.text,
    }
    return Call(method="GET", path=f"/SMSReceiver?{urlencode(_named(errand, fields, 'message_id'))}")


def _vonage(errand: Errand) -> Call:
    fields = {
        "to": errand.conversation.receiver,
        "msisdn": errand.conversation.sender.lstrip("+"),
        "text": errand.text,
    }
    if errand.part:
        fields["concat"] = "true"
        fields["concat-ref"] = str(errand.number % 256)
        fields["concat-part"], fields["concat-total"] = str(errand.part), str(errand.total)
    return Call(method="GET", path=f"/SMSReceiver/vonage?{urlencode(_named(errand, fields, 'messageId'))}")


def _named(errand: Errand, fields: Mapping[str, str], name: str) -> Mapping[str, str]:
    return fields if errand.message_id is None else {**fields, name: errand.message_id}


# --- twilio -------------------------------------------------------------------------------------


def _signed(errand: Errand, secret: str = PROVIDER_SECRET) -> WireRequest:
    fields = {
        "To": errand.conversation.receiver,
        "From": errand.conversation.sender,
        "Body": errand.text,
        "NumMedia": "0",
    }
    named = _named(errand, fields, "MessageSid")
    url = f"{PUBLIC_URL}/SMSReceiver/twilio"
    return SIGNERS["twilio"].sign(Sent(url=url, fields=named, json=False, at=0, secret=secret))


def _forged(errand: Errand) -> Call:
    match errand.forgery:
        case "another URL":  # walks round the signature, by the profile that has none
            return _generic(errand)
        case "another secret":
            return _posted(_signed(errand, secret=PROVIDER_SECRET[:-1]))
        case "no signature":
            called = _posted(_signed(errand))
            kept = {name: value for name, value in called.headers.items() if "signature" not in name.lower()}
            return evolve(called, headers=kept)
    # A good signature, of the SMS that is sent next.
    told = _posted(_signed(evolve(errand, number=abs(errand.number))))
    return evolve(told, body=_posted(_signed(errand)).body)


def _posted(request: WireRequest) -> Call:
    return Call(
        method=request.method,
        path=request.url.removeprefix(PUBLIC_URL),
        headers={name: values[0] for name, values in request.headers.items()},
        body=request.body,
    )
