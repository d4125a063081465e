"""What the use cases need from the outside; adapters implement it, tests fake it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from twisted.internet.defer import Deferred

from smsdaemon.domain.model import (
    Answer,
    Client,
    Delivery,
    Directory,
    InboundSMS,
    Outcome,
    RawRequest,
    Receipt,
    Submission,
    Target,
)


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


class DirectorySource(Protocol):
    """Where the current snapshot of the directory is found."""

    def current(self) -> Directory: ...


class MessageStore(Protocol):
    """Where accepted SMS live. Cancelling a returned Deferred never undoes a write."""

    def accept(self, sms: InboundSMS, provider_key: bytes | None, lease: bool) -> Deferred[Receipt]:
        """Make the SMS and its delivery durable.

        ``provider_key``: digest that two requests share exactly if they are one SMS (contract 3,
        Repeats), or None. ``lease``: the caller would attempt the delivery now; it gets it where
        nothing of the conversation is pending. Fails with StoreUnavailable or StoreRefused.
        """
        ...

    def settle(self, delivery: Delivery, outcome: Outcome) -> Deferred[Delivery | None]:
        """Record how an attempt ended and free its conversation.

        Fires with the conversation's next delivery, leased to this process, where one is due.
        An outcome of a lease that was lost changes nothing. Fails with StoreUnavailable.
        """
        ...

    def claim(self, limit: int, room: Mapping[int, int], room_elsewhere: int) -> Deferred[Sequence[Delivery]]:
        """Lease up to ``limit`` deliveries that are due, also what a dead process left.

        ``room``: how many each of these targets (by id) takes; ``room_elsewhere``: any other.
        """
        ...


class Outlet(Protocol):
    """Where accepted SMS go on: the dispatcher, as the intake sees it."""

    def reserve(self, target_id: int) -> bool:
        """Whether an attempt could start now; if so its place is kept until take() or release()."""
        ...

    def release(self, target_id: int) -> None:
        """Give back a place that was reserved."""
        ...

    def queued(self, target_id: int) -> None:
        """A delivery was stored without a lease, for want of a place."""
        ...

    def take(self, delivery: Delivery) -> None:
        """Begin the attempt of a delivery that was leased in a reserved place."""
        ...


class DeliveryObserver(Protocol):
    """Counts what becomes of attempts."""

    def delivery_ended(self, kind: str, outcome: str, seconds: float | None) -> None:
        """``outcome``: delivered, retry or dead; ``seconds``: from acceptance to a 2xx."""
        ...


class Backend(Protocol):
    """What carries a delivery to a target; chosen by the scheme of the target's URL."""

    schemes: Sequence[str]

    def deliver(self, delivery: Delivery, target: Target, client: Client) -> Deferred[Answer]:
        """Make one attempt. Fails with TargetUnreachable, also when it takes too long."""
        ...
