"""What the dispatcher knows of one delivery, from its lease until it was settled."""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from smsdaemon.domain.model import Attempt, Client, Delivery, Outcome, Target
from smsdaemon.leases import Lease


@define(eq=False)
class Run:
    """One delivery in this process, from its lease until it was settled."""

    delivery: Delivery
    claimed: bool
    """The store has looked at the target's breaker; this may be its probe."""
    began_at: float
    lease: Lease = field(init=False)
    chain: Deferred[Any] | None = None
    """None while it waits for a place."""
    ended: bool = False
    """The attempt is over and its place free; only its outcome is to be recorded."""
    lost: bool = False
    """To another, and counted."""

    def cancel(self) -> None:
        """End its chain, if that has begun."""
        if self.chain is not None:
            self.chain.cancel()


@frozen
class Plan:
    run: Run
    target: Target
    client: Client


@frozen
class Ending:
    outcome: Outcome
    attempt: Attempt | None
