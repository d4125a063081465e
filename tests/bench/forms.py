"""Requests in a provider's format, made and signed before the load begins, as bytes to be sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve

from smsdaemon.domain.model import WireRequest
from tests.support.provider_requests import PUBLIC_URL, SECRET, signed_twilio_requests

Form = Callable[[str, int, int], list[bytes]]
"""Receiver, number of the first, how many."""

GENERIC = "as-twilio"


def _twilio(receiver: str, first: int, count: int) -> list[bytes]:
    return [_as_bytes(one) for one in signed_twilio_requests(count, receiver, secret=SECRET, first=first)]


def _generic_in_twilios_size(receiver: str, first: int, count: int) -> list[bytes]:
    """What Twilio sends, with the three fields that matter under the generic profile's names."""
    made = []
    for one in signed_twilio_requests(count, receiver, secret=SECRET, first=first):
        body = one.body
        for name, ours in ((b"To=", b"receiver="), (b"From=", b"sender="), (b"Body=", b"message=")):
            body = body.replace(b"&" + name, b"&" + ours, 1)
        body = body.replace(b"&MessageSid=", b"&message_id=", 1)
        url = f"{PUBLIC_URL}/SMSReceiver"
        made.append(_as_bytes(evolve(one, url=url, body=body)))
    return made


def _as_bytes(request: WireRequest) -> bytes:
    headers = {name: values[0] for name, values in request.headers.items()}
    headers |= {"host": PUBLIC_URL.partition("://")[2], "content-length": str(len(request.body))}
    lines = [f"{request.method} {request.url.removeprefix(PUBLIC_URL)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + request.body


def connector(profile: str) -> str:
    """The keys of a connector that takes a profile's requests, beside client, number and group."""
    if profile == GENERIC:
        return ""
    return "\n".join(f"{key} = {value}" for key, value in _KEYS[profile].items())


_KEYS: Mapping[str, Mapping[str, str]] = {
    "twilio": {"provider": '"twilio"', "provider_secrets": f'["{SECRET}"]'},
}

FORMS: Mapping[str, Form] = {"twilio": _twilio, GENERIC: _generic_in_twilios_size}
