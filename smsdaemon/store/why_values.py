"""What can be told of an SMS and of a number; times are aware and in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from attrs import field, frozen

from smsdaemon.store.support import MessageRow

AttemptOutcome = Literal["retry", "lost", "delivered", "dead", "under way", "not recorded"]


@frozen(kw_only=True)
class TargetStanding:
    """Where a delivery goes, as it is now."""

    kind: str
    name: str
    client: str
    """reseller/client"""
    enabled: bool
    """False also where its client or reseller is disabled."""
    removed: bool
    breaker_opened_at: datetime | None
    probe_at: datetime | None
    breaker_reason: str | None


@frozen(kw_only=True)
class AttemptTold:
    """One attempt."""

    number: int
    outcome: AttemptOutcome
    """lost: nothing was recorded, its process died or lost its lease; not recorded: by an older
    smsdaemon, which did not."""
    reason: str = ""
    ended_at: datetime | None = None
    holder: str | None = None
    """host:process"""
    status: int | None = None
    seconds: float | None = None
    answer: str = field(default="", repr=False)
    next_at: datetime | None = None


@frozen(kw_only=True)
class Waiting:
    """Where a pending delivery stands."""

    now: datetime
    """The database's, at which all of this is true."""
    due_at: datetime | None
    leased_until: datetime | None
    behind: str | None
    """The SMS at the head of its conversation, where that is another one."""
    ahead: int | None
    """How many of its conversation come before it."""


@frozen(kw_only=True)
class DeliveryTold:
    """An SMS on its way to one target."""

    id: str
    state: str
    """pending, delivered or dead"""
    reason: str
    """Of the last failure, or of the end."""
    count: int
    """Attempts so far, with one that is under way."""
    hops: list[dict[str, str]]
    target: TargetStanding
    attempts: list[AttemptTold]
    ended_at: datetime | None
    waiting: Waiting | None
    """Set where it is pending."""


@frozen(kw_only=True)
class SmsTold:
    """One SMS from its reception on."""

    id: str
    received_at: datetime
    receiver: str
    sender: str
    sender_raw: str
    text: str = field(repr=False)
    keyword: str | None = field(repr=False)
    provider: str
    provider_message_id: str | None
    encoding: str
    kept_bytes: int | None
    """How long the text's own bytes are; None where they can only mean this text."""
    parts: int
    parts_missing: list[int]
    """Numbers of those that did not come in time."""
    connector: str | None
    """Its number as the directory has it."""
    connector_removed: bool
    client: str | None
    """reseller/client"""
    aliases: list[str]
    deliveries: list[DeliveryTold]
    """In the order of hops."""

    @property
    def state(self) -> str:
        """As in `smsdaemon messages`."""
        pending = not self.deliveries or any(told.state == "pending" for told in self.deliveries)
        return "pending" if pending else self.deliveries[-1].state


@frozen(kw_only=True)
class RefusedTold:
    """An SMS that was answered 502 and is kept."""

    id: str
    last_at: datetime
    times: int
    reason: str
    receiver: str
    sender: str
    text: str = field(repr=False)
    provider: str
    provider_message_id: str | None
    encoding: str
    kept_bytes: int | None
    client: str | None


@frozen(kw_only=True)
class IncompleteTold:
    """A concatenated SMS that waits for parts."""

    id: str
    """Which the SMS will have."""
    began_at: datetime
    """When the first of its parts was stored."""
    receiver: str
    sender: str
    provider: str
    reference: str
    parts: int
    came: list[int]
    """Numbers of the parts that are there."""
    missing: list[int]
    client: str | None


@frozen(kw_only=True)
class ConnectorStanding:
    """A number of ours, as the directory has it."""

    number: str
    client: str
    require_token: bool
    target: TargetStanding | None
    removed_at: datetime | None
    refusal: str | None
    """Why an SMS to it would be refused now, as its provider hears it; None: it would be taken."""

    @property
    def status(self) -> int:
        """What an SMS to it would be answered, but for its token."""
        return 404 if self.removed_at is not None else 200 if self.refusal is None else 502


@frozen(kw_only=True)
class PendingCounts:
    """Deliveries that have not ended."""

    as_receiver: int
    as_sender: int
    leased: int
    waiting_for_retry: int
    oldest: str | None
    """The SMS."""


@frozen(kw_only=True)
class NumberTold:
    """What a number is, and what it had to do with."""

    number: str
    connector: ConnectorStanding | None
    pending: PendingCounts
    messages: list[MessageRow]
    """Newest first."""
    refused: list[RefusedTold]
    """Newest first."""
    incomplete: list[IncompleteTold]
    """Oldest first."""


@frozen(kw_only=True)
class Told:
    """The answer; one of these, or, where an id names two things, two."""

    sms: SmsTold | None = None
    refused: RefusedTold | None = None
    incomplete: IncompleteTold | None = None
    number: NumberTold | None = None
    messages: Sequence[MessageRow] = ()
    """Several SMS with one id of the provider's, newest first."""
