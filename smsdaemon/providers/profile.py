"""A provider profile as a value: everything that a TOML file of profiles/ can say, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Literal

from attrs import Factory, field, frozen

from smsdaemon.ports import Handshake, Scheme
from smsdaemon.providers.selectors import PathStep, Selector
from smsdaemon.providers.templates import Template
from smsdaemon.providers.text_rules import Wrapping

BodyFormat = Literal["form", "multipart", "json", "xml", "raw"]

Condition = tuple[Selector, bool | frozenset[str]]
"""True: it is there and not blank; False: it is not; else: its text is one of these."""


@frozen(kw_only=True)
class Alternative:
    """One of the places where a field may be found."""

    selector: Selector | None = None
    constant: str | None = None
    when: tuple[Condition, ...] = ()


Alternatives = tuple[Alternative, ...]


@frozen(kw_only=True)
class Inner:
    """A document inside a field of the request; the batch and the fields are in it."""

    field: Selector
    format: Literal["json", "xml", "form"]


@frozen(kw_only=True)
class RequestRules:
    """How the request is taken apart."""

    formats: Mapping[str, BodyFormat]
    """By Content-Type in lower case, "" for none."""
    separator: bytes = b"&"
    charset: str | None = None
    """Of form and query, whatever the Content-Type says."""
    charset_from: Selector | None = None
    """A field that names it."""
    last_value: bool = False
    batch: tuple[PathStep, ...] | None = None
    """The path to the list of SMS, () where the body is one."""
    inner: Inner | None = None
    strip_prefixes: tuple[str, ...] = ()


@frozen(kw_only=True)
class AnswerRule:
    """What a provider wants to hear."""

    status: int | None = None
    """None: the one it would be otherwise."""
    content_type: str = "text/plain; charset=utf-8"
    body: Template | None = None
    """None: for an error, the line that says what is wrong."""
    headers: tuple[tuple[str, Template], ...] = ()

    @property
    def constant(self) -> bool:
        """Whether it says the same of every SMS."""
        return all(one is None or one.constant for one in (self.body, *(value for _, value in self.headers)))


@frozen(kw_only=True)
class NotAnSms:
    """A request, or an entry of a batch, that is acknowledged and not stored."""

    name: str
    when: tuple[Condition, ...]
    answer: AnswerRule | None = None


@frozen(kw_only=True)
class Fields:
    """Where the parts of a Submission are found."""

    receiver: Alternatives = ()
    sender: Alternatives = ()
    text: Alternatives = ()
    message_id: Alternatives = ()
    keyword: Alternatives = ()
    token: Alternatives = ()


@frozen(kw_only=True)
class TextRule:
    """How the text is written, where the conditions hold."""

    when: tuple[Condition, ...] = ()
    alternatives: Alternatives | None = None
    """Where it is found; None: where it is otherwise."""
    wrapping: Wrapping = "text"
    charset: str | None = None
    charset_from: Selector | None = None


@frozen(kw_only=True)
class TextRules:
    """The first rule whose conditions hold is used; without any the text is taken as it is decoded."""

    rules: tuple[TextRule, ...] = ()
    may_be_missing: bool = False
    """True: without the field the text is empty."""
    may_be_empty: bool = True


@frozen(kw_only=True)
class PartRules:
    """How a part of a concatenated SMS is recognised where the conditions hold: by three fields or a UDH."""

    when: tuple[Condition, ...] = ()
    reference: Alternatives = ()
    number: Alternatives = ()
    total: Alternatives = ()
    udh: Alternatives = ()
    udh_format: Literal["hex", "bytes", "base64"] = "hex"
    count: Alternatives = ()
    """How many parts the provider has joined."""
    refuse_invalid: bool = False
    """False: what says something impossible counts as not said."""


@frozen(kw_only=True)
class TimeRule:
    """When the provider says that the SMS was sent or received; for people only."""

    found: Alternatives
    formats: tuple[str, ...]
    zone: tzinfo


@frozen(kw_only=True)
class Authentication:
    """How requests are signed."""

    scheme: Scheme
    required: bool = True
    """False: without secrets of the connector, requests are taken as they come."""


@frozen(kw_only=True)
class Answers:
    """What the provider wants to hear."""

    success: AnswerRule = AnswerRule(status=200)
    duplicate: AnswerRule | None = None
    not_an_sms: AnswerRule | None = None
    errors: AnswerRule | None = None
    """Of all errors without one of their own."""
    by_status: Mapping[int, AnswerRule] = Factory(dict)


@frozen(kw_only=True)
class About:
    """For people: docs/providers.md is made of it."""

    description: str
    setup: str = ""
    """What to enter where."""
    repeats: str = ""
    """What it sends again, when and how often."""
    quirks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@frozen(kw_only=True)
class Profile:
    """A provider's wire format, authentication and answers."""

    name: str
    about: About
    origin: str
    """The file it is of."""
    replaces: bool = False
    """It stands for the shipped one of its name."""
    methods: tuple[str, ...] = ("POST",)
    request: RequestRules
    is_sms: tuple[Condition, ...] = ()
    otherwise: str = "something else"
    """The name of what is no SMS for that reason."""
    not_sms: tuple[NotAnSms, ...] = ()
    fields: Fields
    text: TextRules = TextRules()
    parts: tuple[PartRules, ...] = ()
    """The first whose conditions hold is used."""
    time: TimeRule | None = None
    authentication: Authentication | None = None
    handshake: Handshake | None = None
    answers: Answers = Answers()
    wanted: frozenset[bytes] = field(default=frozenset(), repr=False)
    """The names of form and query that are looked at."""

    @property
    def signs(self) -> bool:
        """Whether its requests must be signed."""
        return self.authentication is not None and self.authentication.required


def all_selectors(value: Any) -> set[Selector]:
    """Every selector in a profile's values."""
    if isinstance(value, Selector):
        return {value}
    if isinstance(value, tuple | list):
        return set().union(*map(all_selectors, value)) if value else set()
    if isinstance(value, Mapping):
        return all_selectors(list(value.values()))
    if isinstance(value, Authentication) or not hasattr(value, "__attrs_attrs__"):
        return set()
    return all_selectors([getattr(value, a.name) for a in value.__attrs_attrs__])
