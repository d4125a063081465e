"""The values everything else speaks of; frozen, checked when made (docs/architecture.md, "Words")."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Literal
from uuid import UUID

from attrs import Factory, field, frozen, validators

from smsdaemon.domain.forms import FormPairs, form_pairs

TargetKind = Literal["acd_group", "application"]
SenderFormat = Literal["e164", "as-is"]

MAX_HOPS = 5
"""How many targets an SMS may have passed before its current one (contract 5)."""


def _aware(_instance: object, attribute: object, value: datetime) -> None:
    if value.tzinfo is None:
        raise ValueError(f"{getattr(attribute, 'name', 'time')} must be an aware datetime")


# --- the directory ---------------------------------------------------------------------------


@frozen(kw_only=True)
class Target:
    """An ACD group or a routing application of one client; ``url``'s scheme names its backend."""

    id: int
    client_id: int
    kind: TargetKind
    name: str
    url: str
    secret: str = field(repr=False)
    """``whsec_`` + base64; signs deliveries."""
    subject: str = ""
    enabled: bool = True


@frozen(kw_only=True)
class Connector:
    """A number of a client through which SMS come in."""

    id: int
    client_id: int
    number: str
    """As written in the directory; forwarded and stored like this."""
    number_key: str
    """As compared: domain.numbers.matching_key(number); unique in the installation."""
    target_id: int | None
    require_token: bool = False
    token_hashes: frozenset[bytes] = field(default=frozenset(), repr=False)
    """SHA-256 digests, 32 bytes each; several are valid during rotation."""
    sender_format: SenderFormat = "e164"
    providers: tuple[str, ...] = ("generic",)
    """The profiles whose requests it takes; of all others it takes none."""
    provider_secrets: tuple[str, ...] = field(default=(), repr=False)
    """What their signatures are checked with; several are valid during rotation."""
    unsigned: bool = False
    """Signatures are not checked."""
    enabled: bool = True


@frozen(kw_only=True)
class Client:
    """A customer of a reseller; never an HTTP client."""

    id: int
    reseller: str
    name: str
    enabled: bool = True
    """False also where the reseller is disabled."""


@frozen(kw_only=True)
class Directory:
    """One immutable snapshot of all resellers' clients, targets and connectors."""

    connectors: dict[str, Connector] = Factory(dict)
    """By ``number_key``."""
    targets: dict[int, Target] = Factory(dict)
    clients: dict[int, Client] = Factory(dict)

    def target_named(self, client_id: int, kind: str, name: str) -> Target | None:
        """The client's target of that kind and name; rare enough to be a search."""
        for target in self.targets.values():
            if (target.client_id, target.kind, target.name) == (client_id, kind, name):
                return target
        return None


# --- one SMS ---------------------------------------------------------------------------------


@frozen(kw_only=True)
class RawRequest:
    """A provider's request as read; nothing in it is believed."""

    method: str
    query: bytes = field(repr=False)
    """Still percent-encoded, without the question mark."""
    content_type: str
    """The header as sent, "" where there is none."""
    body: bytes = field(repr=False)


@frozen(kw_only=True)
class WireRequest:
    """A provider's request with all that a signature may cover; nothing in it is believed."""

    method: str
    """Upper case."""
    url: str = field(repr=False)
    """As the provider called it: public_url (or scheme and Host), path and query, as sent."""
    query: bytes = field(repr=False)
    """Still percent-encoded, without the question mark."""
    headers: Mapping[str, tuple[str, ...]] = field(repr=False)
    """Names in lower case; values decoded as latin-1, in the order of the request."""
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The first such header, "" where there is none."""
        return self.header("content-type")

    def header(self, name: str) -> str:
        """The first of that name, which is in lower case; "" where there is none."""
        values = self.headers.get(name)
        return values[0] if values else ""

    @cached_property
    def form(self) -> FormPairs:
        """The body's pairs, where it is a form. Taken apart once: what is signed is what is read."""
        return form_pairs(self.body)


@frozen(kw_only=True)
class Verified:
    """What a good signature says beyond that it is good."""

    nonce: str | None = field(default=None, repr=False)
    """What comes once only (a nonce, a jti or the like); None where the scheme has none. Who repeats a
    request may sign it anew or not, so a nonce that was seen means a repeat, and no attack by itself."""
    in_time: bool = True
    """Whether the signature is refused by its age too; if not, its nonce alone keeps it from coming again."""


@frozen(kw_only=True)
class Part:
    """Which part of a concatenated SMS this is."""

    reference: str
    """What all parts share, at most 64 characters."""
    number: int
    """From 1."""
    total: int
    """2 to 255."""


@frozen(kw_only=True)
class Submission:
    """What a request says in the provider's wire format: decoded and bounded, not yet attributed."""

    receiver: str
    sender: str
    text: str = field(repr=False)
    keyword: str | None = None
    token: str | None = field(default=None, repr=False)
    message_id: str | None = None
    encoding: str = "utf-8"
    """The charset the text was decoded with, in lower case."""
    raw_text: bytes | None = field(default=None, repr=False)
    """The text's bytes as they came, where decoding them again could give something else; else None."""
    part: Part | None = None
    parts: int = 1
    """As counted by the provider, where it has joined them itself."""
    provider: str = "generic"


@frozen(kw_only=True)
class InboundSMS:
    """An SMS that is valid and belongs to a connector."""

    id: UUID = field(validator=validators.instance_of(UUID))
    """UUIDv7; its time is ``received_at``, which places the SMS in a partition of the history."""
    received_at: datetime = field(validator=_aware)
    connector_id: int
    client_id: int
    target_id: int
    receiver: str
    sender: str
    sender_raw: str
    text: str = field(repr=False)
    keyword: str | None = None
    provider: str = "generic"
    provider_message_id: str | None = None
    encoding: str = "utf-8"
    raw_text: bytes | None = field(default=None, repr=False)
    """As in Submission; not read back with a delivery."""
    part: Part | None = None
    parts: int = 1
    parts_missing: tuple[int, ...] = ()
    """Numbers of the parts that did not come in time."""


# --- deliveries ------------------------------------------------------------------------------


@frozen(kw_only=True)
class Hop:
    """A target that an SMS has passed."""

    kind: TargetKind
    name: str


@frozen(kw_only=True)
class Delivery:
    """One SMS on its way to one target, leased to this process."""

    id: UUID
    """The ``webhook-id``: the same in every attempt and redelivery."""
    sms: InboundSMS
    target_id: int
    lease: UUID
    """Fencing token: the store takes an outcome only from the holder of the current lease."""
    attempt: int
    """Number of this attempt among all that were made, from 1."""
    round_attempt: int
    """The same since the delivery was last made pending (acceptance or redelivery)."""
    round_seconds: float
    """From the first attempt of this round to this lease, by the database's clock, which does not step
    when this machine's does; giving up counts from the first attempt."""
    hops: tuple[Hop, ...] = ()
    leased_at: float | None = None
    """This process' ports.Timer just before the statement was sent that leased it, so that the lease
    surely lasts from then; None where nobody took the time."""

    @property
    def conversation(self) -> tuple[int, str, int]:
        """Deliveries that share this go one after the other: connector, sender, target."""
        return (self.sms.connector_id, self.sms.sender, self.target_id)


@frozen(kw_only=True)
class Delivered:
    """The target took the SMS; ``onward`` is where a routing application sends it next."""

    onward: Target | None = None
    onward_hops: tuple[Hop, ...] = ()
    """The targets that the SMS has passed when it comes to ``onward``."""
    reason: str = ""


@frozen(kw_only=True)
class Postponed:
    """The attempt failed (or was not made) and is to be repeated after a while.

    A span, not a time: the database adds it to its own clock, the only one that nodes share.
    """

    delay_seconds: float
    reason: str
    attempted: bool = True
    """False: the lease is given back without an attempt having been made."""


@frozen(kw_only=True)
class Dead:
    """No further attempt will be made unless somebody redelivers."""

    reason: str


Outcome = Delivered | Postponed | Dead


@frozen(kw_only=True)
class Attempt:
    """How one attempt went, for whoever asks later what happened (`smsdaemon why`)."""

    seconds: float
    """From its beginning to its end."""
    status: int | None = None
    """Of the target's answer; None where there was none."""
    answer: str = field(default="", repr=False)
    """The first 200 characters of the answer's body, storable (domain.text.storable)."""


@frozen(kw_only=True)
class Receipt:
    """What became of an accepted SMS."""

    id: UUID
    """The SMS' own id, or, for a repeat, that of the SMS it repeats."""
    duplicate: bool
    delivery: Delivery | None = None
    """Set where the accepting process was given the lease at once."""


@frozen(kw_only=True)
class Answer:
    """What a target said to one attempt."""

    status: int
    body: bytes = field(default=b"", repr=False)
    retry_after: str | None = None
    """The header as sent."""
