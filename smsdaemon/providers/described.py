"""Profiles told to people (`smsdaemon provider show`, docs/providers.md): how they sign, what they answer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from smsdaemon.domain.reading import ProviderAnswer
from smsdaemon.ports import Scheme
from smsdaemon.providers.answering import rendered
from smsdaemon.providers.any_scheme import AnyScheme
from smsdaemon.providers.profile import AnswerRule, Profile

SIGNED_IN = {
    "basic": "the header Authorization: Basic",
    "httpsms": "the header Authorization: Bearer (a JWT)",
    "messagebird_hmac": "the headers MessageBird-Signature and MessageBird-Request-Timestamp",
    "plivo": "the headers X-Plivo-Signature-V3 and -V3-Nonce, or those of V2",
    "seven": "the headers X-Signature, X-Nonce and X-Timestamp",
    "sinch": "the headers x-sinch-webhook-signature, -nonce, -timestamp and -algorithm",
    "sns": "the members Signature, SignatureVersion and SigningCertURL of the body",
    "telnyx": "the headers telnyx-signature-ed25519 and telnyx-timestamp",
    "vonage_jwt": "the header Authorization: Bearer (a JWT)",
    "vonage_sms": "the field sig, with timestamp and nonce",
}
"""Of schemes whose names are not parameters."""
COVERS_URL = frozenset({"twilio", "plivo", "messagebird_jwt", "messagebird_hmac", "seven", "httpsms"})
"""Schemes whose signature covers the URL, or a part of it."""

Rows = list[tuple[str, str]]


@frozen(kw_only=True)
class Signature:
    """One way in which requests are signed."""

    scheme: str
    place: str
    """Which header or field signs."""
    covers: str
    """The first paragraph of the scheme's docstring."""


@frozen(kw_only=True)
class Told:
    """A profile in words."""

    name: str
    description: str
    path: str
    methods: tuple[str, ...]
    body: str
    signatures: tuple[Signature, ...]
    """One of them is enough; empty: the provider signs nothing."""
    secrets: str
    """What provider_secrets holds; empty: nothing."""
    required: bool
    """Whether requests must be signed."""
    covers_url: bool
    receiver_in_url: bool
    """The requests carry no receiver, so that it stands in the URL's query."""
    setup: str
    repeats: str
    parts: str
    not_sms: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]
    """What it hears, where that is not what the table of the API says."""
    quirks: tuple[str, ...]
    sources: tuple[str, ...]


def told(profile: Profile) -> Told:
    """Everything that an operator needs."""
    authentication, about = profile.authentication, profile.about
    scheme = authentication.scheme if authentication else None
    schemes = scheme.schemes if isinstance(scheme, AnyScheme) else (scheme,) if scheme else ()
    return Told(
        name=profile.name,
        description=about.description,
        path=f"/SMSReceiver/{profile.name}" + ("" if profile.fields.receiver else "?receiver=NUMBER"),
        methods=profile.methods,
        body=_body(profile),
        signatures=tuple(map(signature, schemes)),
        secrets=scheme.takes if scheme else "",
        required=profile.signs,
        covers_url=any(one.name in COVERS_URL for one in schemes),
        receiver_in_url=not profile.fields.receiver,
        setup=_line(about.setup),
        repeats=_line(about.repeats),
        parts=_parts(profile),
        not_sms=_not_sms(profile),
        answers=tuple(_answers(profile)),
        quirks=tuple(map(_line, about.quirks)),
        sources=about.sources,
    )


def signature(scheme: Scheme) -> Signature:
    """How a request is signed, in words."""
    paragraph = _line((inspect.getdoc(type(scheme)) or "").split("\n\n")[0]).replace("``", "")
    signs = getattr(scheme, "signs", "")
    covers = f"HMAC of {signs}, in {scheme.encoding}" if signs else paragraph  # type: ignore[attr-defined]
    return Signature(scheme=scheme.name, place=_place(scheme), covers=covers)


def _place(scheme: Scheme) -> str:
    header, parameter = getattr(scheme, "header", ""), getattr(scheme, "parameter", "")
    if header:
        others = [getattr(scheme, name, "") for name in ("timestamp_header", "nonce_header")]
        names = [header, *filter(None, others)]
        return f"the header{'s' if len(names) > 1 else ''} {' and '.join(names)}"
    if parameter:
        return f"the parameter {parameter} of URL or form"
    return SIGNED_IN.get(scheme.name, "")


def _line(text: str) -> str:
    return " ".join(text.split())


def _body(profile: Profile) -> str:
    formats = list(dict.fromkeys(profile.request.formats.values()))
    found = ", ".join(formats) if formats else "none"
    if profile.request.inner is not None:
        found += f" with {profile.request.inner.format} in {profile.request.inner.field.text}"
    return found + (", several SMS at once" if profile.request.batch is not None else "")


def _parts(profile: Profile) -> str:
    found = []
    for parts in profile.parts:
        if parts.reference:
            names = ", ".join(_first(a) for a in (parts.reference, parts.number, parts.total))
            udh = f" or the UDH in {_first(parts.udh)}" if parts.udh else ""
            found.append(f"joined here, by {names}{udh}")
        elif parts.udh:
            found.append(f"joined here, by the UDH in {_first(parts.udh)}")
        elif parts.count:
            found.append(f"joined by the provider; {_first(parts.count)} says how many there were")
    return "; or ".join(dict.fromkeys(found))


def _first(alternatives: Sequence[Any]) -> str:
    return next((a.selector.text for a in alternatives if a.selector is not None), "a constant")


def _not_sms(profile: Profile) -> tuple[str, ...]:
    names = [rule.name for rule in profile.not_sms]
    if profile.is_sms:
        names.append(profile.otherwise)
    return tuple(dict.fromkeys(names))


# --- answers ----------------------------------------------------------------------------------


def _answers(profile: Profile) -> list[tuple[str, str]]:
    rules = profile.answers
    found = [("success", _hears(rules.success, 200))]
    if rules.duplicate is not None:
        found.append(("a repeat", _hears(rules.duplicate, 200)))
    if rules.not_an_sms is not None:
        found.append(("no SMS", _hears(rules.not_an_sms, 200)))
    found += [(rule.name, _hears(rule.answer, 200)) for rule in profile.not_sms if rule.answer is not None]
    for status, rule in sorted(rules.by_status.items()):
        found.append((f"{status}", _hears(rule, status)))
    if rules.errors is not None:
        found.append(("other errors" if rules.by_status else "errors", _hears(rules.errors, None)))
    return found


def _hears(rule: AnswerRule, status: int | None) -> str:
    answer: ProviderAnswer = rendered(rule, status or 500, lambda wanted: f"{{{wanted.text}}}", "{detail}")
    body = answer.body.decode()
    if status is not None and rule.body is None and status < 300:
        body = ""
    number = f"{answer.status}, " if status is not None or rule.status is not None else ""
    if not body:
        return f"{number}no body"
    said = f"{number}{answer.content_type.partition(';')[0]}: {_line(body)}"
    headers = ", ".join(f"{name}: {value}" for name, value in answer.headers)
    return f"{said} ({headers})" if headers else said
