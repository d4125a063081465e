"""What the use cases need from the outside; adapters implement it, tests fake it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from twisted.internet.defer import Deferred

from smsdaemon.domain.model import (
    Answer,
    Attempt,
    Client,
    Delivery,
    Directory,
    InboundSMS,
    Outcome,
    RawRequest,
    Receipt,
    Submission,
    Target,
    Verified,
    WireRequest,
)
from smsdaemon.domain.refused import RefusedSMS
from smsdaemon.errors import RequestRefused


class Timer(Protocol):
    """The part of a reactor that keeps time; twisted.internet.task.Clock has it too."""

    def seconds(self) -> float: ...
    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> object: ...


class UtcClock(Protocol):
    """Tells the time of day."""

    def __call__(self) -> datetime:
        """Now, as an aware UTC datetime."""
        ...


class IdMaker(Protocol):
    """Makes UUIDv7 values."""

    def __call__(self, at: datetime) -> UUID: ...


class Provider(Protocol):
    """An SMS vendor's wire format."""

    name: str

    def read(self, raw: RawRequest) -> Submission:
        """Say what the request says; raises MalformedRequest or UnsupportedBody."""
        ...


class Fetch(Protocol):
    """Gets what a provider's request points at; calls hosts it was made for, and no other."""

    def __call__(self, url: str) -> Deferred[bytes]:
        """The body of a 200; fails with FetchFailed, also when it takes too long or is too much."""
        ...


QueryRead = Literal["always", "without a body", "never"]
"""When an SMS' fields may stand in the URL's query: where the signature covers that, or covers no SMS at all.
What is verified is what is read."""


class Scheme(Protocol):
    """A way of signing requests; its attributes are the keys of a profile's ``[authentication]``."""

    @property
    def name(self) -> str: ...

    @property
    def takes(self) -> str:
        """One line for people: what a connector's ``provider_secrets`` holds."""
        ...

    @property
    def covers_body(self) -> bool:
        """Whether a request with another body is refused."""
        ...

    @property
    def reads_query(self) -> QueryRead:
        """Whether fields may be read from the query; receiver and token of the URL always may."""
        ...

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless one of the secrets signed it, and in time; nothing else."""
        ...

    def check_secret(self, secret: str) -> None:
        """Raises ValueError where the scheme cannot use it; the text does not repeat it."""
        ...

    def is_public(self, secret: str) -> bool:
        """Whether it would use it as something that anybody may know, such as a public key."""
        ...


@runtime_checkable
class PreparedScheme(Protocol):
    """A scheme that needs the network before it can verify."""

    async def prepare(
        self, request: WireRequest, secrets: Sequence[str], now: datetime, fetch: Fetch
    ) -> None:
        """Get ready to verify this request; to be awaited before verify() is called with the same.

        Raises SignatureRefused where nothing needs to be fetched to see that it is refused, and
        FetchFailed (our side: 500, so that the provider repeats it) where the network does not help.
        """
        ...


class HandshakeAnswer(NamedTuple):
    """What a provider wants to hear."""

    status: int
    content_type: str
    """The header, "" for none."""
    body: bytes
    headers: Mapping[str, str]
    """Further ones."""


class Handshake(Protocol):
    """How a provider makes sure that a URL is meant to hear from it; nothing of it is an SMS."""

    name: ClassVar[str]
    signed: ClassVar[bool]
    """Whether such a request is signed as an SMS is, so that the profile's scheme comes first."""

    def recognise(self, request: WireRequest, document: object) -> bool:
        """Whether it is one; ``document``: the body's JSON, None where it is none."""
        ...

    async def answer(
        self,
        request: WireRequest,
        document: object,
        *,
        secrets: Sequence[str],
        now: datetime,
        fetch: Fetch,
    ) -> HandshakeAnswer:
        """What to answer. ``secrets``: of the connector it is for, or of all that list the profile.

        Raises MalformedRequest, SignatureRefused or FetchFailed.
        """
        ...


class DirectorySource(Protocol):
    """Where the current snapshot of the directory is found."""

    def current(self) -> Directory: ...


Offer = tuple[InboundSMS, bytes | None, bool]
"""What MessageStore.accept() takes."""


class MessageStore(Protocol):
    """Where accepted SMS are made durable. Cancelling a returned Deferred never undoes a write."""

    def accept(self, sms: InboundSMS, provider_key: bytes | None, lease: bool) -> Deferred[Receipt]:
        """Make the SMS and its delivery durable.

        ``provider_key``: digest that two requests share exactly if they are one SMS (contract 3,
        Repeats), or None. ``lease``: the caller would attempt the delivery now; it gets it where
        nothing of the conversation is pending. Fails with StoreUnavailable or StoreRefused.
        """
        ...

    def accept_all(self, batch: Sequence[Offer]) -> Deferred[list[Receipt]]:
        """As accept() for each, in this order, all in one transaction or none; a receipt for each."""
        ...


class NonceStore(Protocol):
    """Remembers what signatures say to come once only."""

    def see(self, signed_with: int, nonce: str, content: bytes, in_time: bool) -> Deferred[bool]:
        """Whether it is new, or came with the same content before; never fails.

        ``signed_with``: a digest of 64 bits with sign of profile and secret: a signature is good for all
        connectors that share them. ``content``: a digest of what it came with. ``in_time``: whether a day is
        enough, as the signature is refused by its age then.
        """
        ...


class RefusalObserver(Protocol):
    """Hears of what is not accepted; never waits, and never raises."""

    def turned_away(self, refusal: RequestRefused, submission: Submission) -> None:
        """Nobody's number (UnknownConnector), or without the token it takes (TokenRefused)."""
        ...

    def not_routable(self, sms: RefusedSMS) -> None:
        """Good, but its connector cannot pass it on."""
        ...


class RefusedSink(Protocol):
    """Where refused SMS are kept for a while."""

    def keep(self, sms: RefusedSMS) -> None:
        """Keep it if there is room; never waits, and never raises."""
        ...


class RefusedCounter(Protocol):
    """Counts what becomes of refused SMS."""

    def refused_kept(self, n: int) -> None:
        """So many more are kept; one that came again counts again."""
        ...

    def refused_dropped(self, n: int) -> None:
        """So many more are not kept (any longer), for want of room or of a database."""
        ...


class DeliveryStore(Protocol):
    """Where deliveries wait. Cancelling a returned Deferred never undoes a write."""

    def settle(
        self, delivery: Delivery, outcome: Outcome, attempt: Attempt | None
    ) -> Deferred[Delivery | None]:
        """Record how an attempt ended (None: none was made) and free its conversation.

        Fires with the conversation's next delivery, leased to this process, where one is due. Fails
        with LeaseLost, and changes nothing, where the delivery is another's by now; with
        StoreUnavailable or StoreRefused.
        """
        ...

    def claim(self, limit: int, room: Mapping[int, int], room_elsewhere: int) -> Deferred[Sequence[Delivery]]:
        """Lease up to ``limit`` deliveries that are due, also what a dead process left.

        ``room``: how many each of these targets (by id) takes; ``room_elsewhere``: any other. Of a
        target whose breaker is open it is one, as a probe, if a probe is due; else none.
        """
        ...

    def keep(self, deliveries: Sequence[Delivery]) -> Deferred[set[UUID]]:
        """Have the leases last for their whole time again, from now; fires with the ids still held."""
        ...

    def open_breaker(self, target_id: int, reason: str) -> Deferred[None]:
        """Have the target left alone by all processes; nothing happens where it is, or was removed."""
        ...

    def close_breaker(self, target_id: int) -> Deferred[None]:
        """Let all processes call the target again."""
        ...

    def open_breakers(self) -> Deferred[frozenset[int]]:
        """The targets that are left alone now."""
        ...


class Outlet(Protocol):
    """Where accepted SMS go on: the dispatcher, as the intake sees it."""

    def reserve(self, target_id: int, connector_id: int) -> bool:
        """Whether an attempt could start now or soon; if so its room is kept until take() or release()."""
        ...

    def release(self, target_id: int, connector_id: int) -> None:
        """Give back what was reserved."""
        ...

    def queued(self, target_id: int) -> None:
        """A delivery was stored without a lease, for want of a place."""
        ...

    def take(self, delivery: Delivery) -> None:
        """Attempt a delivery that was leased in reserved room."""
        ...


class DeliveryObserver(Protocol):
    """Counts what becomes of attempts."""

    def delivery_ended(self, kind: str, outcome: str, seconds: float | None) -> None:
        """``outcome``: delivered, retry or dead; ``seconds``: from acceptance to a 2xx."""
        ...

    def lease_lost(self) -> None:
        """A delivery was given up, or its outcome not recorded, since it was another's by then."""
        ...


class Backend(Protocol):
    """What carries a delivery to a target; chosen by the scheme of the target's URL."""

    schemes: Sequence[str]

    def deliver(
        self, delivery: Delivery, target: Target, client: Client, check_lease: Callable[[], None]
    ) -> Deferred[Answer]:
        """Make one attempt. Fails with TargetUnreachable, also when it takes too long.

        ``check_lease`` raises LeaseLost where the delivery may be another's by now. It is called just
        before the target hears anything, and its error is what the Deferred then fails with.
        """
        ...
