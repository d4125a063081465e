"""Requests as providers send them, signed, for any text: what a round trip through a daemon begins with."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_from_bytes, urlencode

from attrs import evolve, frozen
from gsm0338 import Codec  # type: ignore[import-untyped]

from smsdaemon.domain.model import WireRequest
from tests.support.signers import FORM, JSON, SIGNERS, Sent
from tests.support.vectors import wire_request

PUBLIC_URL = "https://sms.example.com"
SECRET = "a-round-tripping-secret"
TOKEN = "a-round-tripping-token"


@frozen(kw_only=True)
class Sms:
    """What somebody has sent."""

    receiver: str
    sender: str
    text: str
    uid: str


Make = Callable[[Sms], WireRequest]


@frozen(kw_only=True)
class Provider:
    """One of them: how its connector is set up, and how it calls."""

    profile: str
    make: Make
    secret: str = ""
    """Of provider_secrets; empty: it signs nothing, and the connector requires TOKEN."""
    tamper: Callable[[WireRequest], WireRequest]
    """What makes a good request a forged one."""

    @property
    def keys(self) -> dict[str, Any]:
        """Of its connector."""
        if self.secret:
            return {"provider": self.profile, "provider_secrets": [self.secret]}
        return {"provider": self.profile, "require_token": True, "tokens": [TOKEN]}


def _url(profile: str, query: str = "") -> str:
    return f"{PUBLIC_URL}/SMSReceiver/{profile}{query}"


def other_body(request: WireRequest) -> WireRequest:
    """The text is another than the one that was signed."""
    changed = request.body.replace(b"Quitte", b"Quatte")
    assert changed != request.body
    return evolve(request, body=changed)


def other_credentials(request: WireRequest) -> WireRequest:
    """For what covers no body."""
    [value] = request.headers["authorization"]
    return evolve(request, headers={**request.headers, "authorization": (f"{value[:-3]}AAA",)})


def other_token(request: WireRequest) -> WireRequest:
    """In the URL's query."""
    changed = request.url.replace(TOKEN, TOKEN[:-1])
    assert changed != request.url
    return evolve(request, url=changed, query=changed.partition("?")[2].encode())


# --- signed -------------------------------------------------------------------------------------


def _signed(
    profile: str,
    signer: str,
    fields: Callable[[Sms], dict[str, Any]],
    *,
    json: bool,
    query: Callable[[Sms], str] = lambda sms: "",
    tamper: Callable[[WireRequest], WireRequest] = other_body,
) -> Provider:
    telnyx = signer == "telnyx"  # its key is public, and fixed

    def make(sms: Sms) -> WireRequest:
        sent = Sent(
            url=_url(profile, query(sms)),
            fields=fields(sms),
            json=json,
            at=int(time.time()),
            secret=SECRET,
            nonce=f"n-{profile}-{sms.uid}",
        )
        return SIGNERS[signer].sign(sent)

    return Provider(
        profile=profile, make=make, secret=SIGNERS[signer].secret if telnyx else SECRET, tamper=tamper
    )


def _telnyx(sms: Sms) -> dict[str, Any]:
    payload = {
        "id": sms.uid,
        "to": [{"phone_number": sms.receiver}],
        "from": {"phone_number": sms.sender},
        "text": sms.text,
        "parts": 1,
    }
    return {"data": {"event_type": "message.received", "payload": payload}}


def _twilio(sms: Sms) -> dict[str, Any]:
    return {"To": sms.receiver, "From": sms.sender, "Body": sms.text, "MessageSid": sms.uid}


def _plivo(sms: Sms) -> dict[str, Any]:
    return {"To": sms.receiver, "From": sms.sender, "Text": sms.text, "MessageUUID": sms.uid, "Units": "1"}


def _vonage(sms: Sms) -> dict[str, Any]:
    return {
        "to": sms.receiver,
        "msisdn": sms.sender,
        "text": sms.text,
        "messageId": sms.uid,
        "type": "unicode",
    }


def _vonage_messages(sms: Sms) -> dict[str, Any]:
    numbers = {"to": sms.receiver, "from": sms.sender}
    return {**numbers, "text": sms.text, "message_uuid": sms.uid, "channel": "sms"}


def _sinch(sms: Sms) -> dict[str, Any]:
    return {"to": sms.receiver, "from": sms.sender, "body": sms.text, "id": sms.uid, "type": "mo_text"}


def _messagebird(sms: Sms) -> dict[str, Any]:
    return {"recipient": sms.receiver, "originator": sms.sender, "body": sms.text, "id": sms.uid}


def _seven(sms: Sms) -> dict[str, Any]:
    data = {"system": sms.receiver, "sender": sms.sender, "text": sms.text, "id": sms.uid}
    return {"webhook_event": "sms_mo", "data": data}


def _httpsms(sms: Sms) -> dict[str, Any]:
    data = {"owner": sms.receiver, "contact": sms.sender, "content": sms.text, "message_id": sms.uid}
    return {"type": "message.phone.received", "data": data}


def _textbee(sms: Sms) -> WireRequest:
    row = {"webhookEvent": "MESSAGE_RECEIVED", "sender": sms.sender, "message": sms.text, "smsId": sms.uid}
    sent = Sent(url=_url("textbee", _receiver(sms)), fields=row, json=True, at=0, secret=SECRET)
    return sent.signed({"X-Signature": sent.mac(sent.body).hex()})


def _android(sms: Sms) -> WireRequest:
    payload = {"messageId": sms.uid, "message": sms.text, "phoneNumber": sms.sender, "simNumber": 1}
    row = {"event": "sms:received", "payload": payload}
    at = int(time.time())
    url = _url("android-sms-gateway", _receiver(sms))
    sent = Sent(url=url, fields=row, json=True, at=at, secret=SECRET)
    signature = sent.mac(sent.body + str(at).encode()).hex()
    return sent.signed({"X-Signature": signature, "X-Timestamp": str(at)})


def _receiver(sms: Sms) -> str:
    return f"?receiver={quote(sms.receiver)}"


def _basic(profile: str, body: Callable[[Sms], object]) -> Provider:
    credentials = f"user:{SECRET}"
    headers = {"Content-Type": JSON, "Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}
    return Provider(
        profile=profile,
        make=lambda sms: wire_request("POST", _url(profile), headers, json.dumps(body(sms)).encode()),
        secret=credentials,
        tamper=other_credentials,
    )


def _bandwidth(sms: Sms) -> object:
    message = {"id": sms.uid, "from": sms.sender, "text": sms.text, "segmentCount": 1}
    return [{"type": "message-received", "to": sms.receiver, "message": message}]


def _infobip(sms: Sms) -> object:
    row = {"messageId": sms.uid, "from": sms.sender, "to": sms.receiver, "text": sms.text, "smsCount": 1}
    return {"results": [row], "messageCount": 1}


# --- not signed ---------------------------------------------------------------------------------


def _jasmin(sms: Sms) -> WireRequest:
    """GSM 03.38 where that can say it, else UCS-2, as bytes in a form."""
    try:
        content, coding = bytes(Codec().encode(sms.text, "strict")[0]), "0"
    except UnicodeEncodeError:
        content, coding = sms.text.encode("utf-16-be"), "8"
    fields = {"id": sms.uid, "from": sms.sender, "to": sms.receiver, "coding": coding}
    body = f"{urlencode(fields)}&content={quote_from_bytes(content)}".encode()
    return wire_request("POST", _url("jasmin", f"?token={TOKEN}"), {"Content-Type": FORM}, body)


def _kannel(sms: Sms) -> WireRequest:
    """post-url: the text is the body, in the charset of the SMS."""
    charset = "iso-8859-1" if _is_latin(sms.text) else "UTF-16BE"
    headers = {
        "Content-Type": f"text/plain; charset={charset}",
        "X-Kannel-From": sms.sender,
        "X-Kannel-To": sms.receiver,
        "X-Kannel-ID": sms.uid,
    }
    return wire_request("POST", _url("kannel", f"?token={TOKEN}"), headers, sms.text.encode(charset))


def _is_latin(text: str) -> bool:
    return all(ord(mark) < 256 for mark in text)


def _46elks(sms: Sms) -> WireRequest:
    row = {
        "direction": "incoming",
        "id": sms.uid,
        "from": sms.sender,
        "to": sms.receiver,
        "message": sms.text,
    }
    url = _url("46elks", f"?token={TOKEN}")
    return wire_request("POST", url, {"Content-Type": FORM}, urlencode(row).encode())


def _clickatell(sms: Sms) -> WireRequest:
    """Percent-encoded bytes of UTF-16 within JSON."""
    row = {"toNumber": sms.receiver, "fromNumber": sms.sender, "replyMessageId": sms.uid}
    text = quote_from_bytes(sms.text.encode("utf-16-be"), safe="")
    body = json.dumps({**row, "text": text, "charset": "UTF-16BE"}).encode()
    return wire_request("POST", _url("clickatell", f"?token={TOKEN}"), {"Content-Type": JSON}, body)


def _with_token(profile: str, make: Make) -> Provider:
    return Provider(profile=profile, make=make, tamper=other_token)


PROVIDERS = (
    _signed("twilio", "twilio", _twilio, json=False),
    _signed("vonage", "vonage sms", _vonage, json=False),
    _signed("vonage-messages", "vonage jwt", _vonage_messages, json=True),
    _signed("telnyx", "telnyx", _telnyx, json=True),
    _signed("plivo", "plivo v3", _plivo, json=False),
    _signed("messagebird", "messagebird jwt", _messagebird, json=False),
    _signed("sinch", "sinch", _sinch, json=True),
    _signed("seven", "seven", _seven, json=True),
    _signed("httpsms", "httpsms", _httpsms, json=True, tamper=other_credentials),
    Provider(profile="textbee", make=_textbee, secret=SECRET, tamper=other_body),
    Provider(profile="android-sms-gateway", make=_android, secret=SECRET, tamper=other_body),
    _basic("bandwidth", _bandwidth),
    _basic("infobip", _infobip),
    _with_token("jasmin", _jasmin),
    _with_token("kannel", _kannel),
    _with_token("46elks", _46elks),
    _with_token("clickatell", _clickatell),
)
"""One connector each."""


def signed_twilio_requests(
    count: int, receiver: str, *, secret: str = SECRET, first: int = 0
) -> list[WireRequest]:
    """So many different SMS from as many senders, signed and ready to be sent: for measurements.

    ``first``: their number begins there; what has another number is another SMS. Each
    costs about 0.1 ms to make, so that a load need not make them while it runs.
    """
    made = []
    url = _url("twilio")
    for n in range(first, first + count):
        fields = {
            "ToCountry": "DE",
            "ToState": "",
            "SmsMessageSid": f"SM{n:032x}",
            "NumMedia": "0",
            "ToCity": "",
            "FromZip": "",
            "SmsSid": f"SM{n:032x}",
            "FromState": "",
            "SmsStatus": "received",
            "FromCity": "",
            "Body": f"Hällo {n}, this is an SMS of the usual length",
            "FromCountry": "DE",
            "To": receiver,
            "ToZip": "",
            "NumSegments": "1",
            "MessageSid": f"SM{n:032x}",
            "AccountSid": "AC00000000000000000000000000000000",
            "From": f"+49155{n % 10_000_000:07d}",
            "ApiVersion": "2010-04-01",
        }
        made.append(SIGNERS["twilio"].sign(Sent(url=url, fields=fields, json=False, at=0, secret=secret)))
    return made
