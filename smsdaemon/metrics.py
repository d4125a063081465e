"""What this process counts, in the form Prometheus reads (contract 7)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from smsdaemon import __version__
from smsdaemon.ports import UtcClock

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_ACCEPT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_DELIVERY_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
_KINDS = ("acd_group", "application")
_OUTCOMES = ("delivered", "retry", "dead")


def _seconds(what: str, text: str, buckets: Sequence[float], registry: CollectorRegistry) -> Histogram:
    return Histogram(f"smsdaemon_{what}_seconds", text, buckets=buckets, registry=registry)


def _unset(what: str, text: str) -> Gauge:
    """A gauge that is registered with its first value."""
    return Gauge(f"smsdaemon_{what}_seconds", text, registry=None)


class Metrics:
    """Counters and gauges of a registry of their own; its methods are named by what happened.

    Gauges that nobody has set yet are left out, since 0 would be a statement.
    """

    def __init__(self, now: UtcClock) -> None:
        self._now = now
        self._registry = registry = CollectorRegistry()
        Info("smsdaemon_build", "The program.", registry=registry).info({"version": __version__})
        self._requests = Counter(
            "smsdaemon_requests", "Answers on the receiving listeners.", ["status"], registry=registry
        )
        self._requests_of: dict[int, Counter] = {}
        self._accepted = Counter(
            "smsdaemon_messages_accepted", "SMS made durable, repeats not counted.", registry=registry
        )
        self._deliveries = Counter(
            "smsdaemon_deliveries",
            "Attempts, by the kind of their target and how they ended.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._deliveries_of = {
            (kind, outcome): self._deliveries.labels(kind, outcome)
            for kind in _KINDS
            for outcome in _OUTCOMES
        }
        self._accept_seconds = _seconds(
            "accept", "From a request's arrival to its 200.", _ACCEPT_BUCKETS, registry
        )
        self._delivery_seconds = _seconds(
            "delivery", "From an SMS' acceptance to its target's 2xx.", _DELIVERY_BUCKETS, registry
        )
        self._queue = Gauge(
            "smsdaemon_queue_messages",
            "Deliveries by state: waiting, being attempted, given up.",
            ["state"],
            registry=registry,
        )
        self._oldest_pending = _unset(
            "oldest_pending", "How long the oldest delivery that has not ended has been waiting."
        )
        self._certificate_expiry = _unset("certificate_expiry", "Until the certificate of [https] expires.")
        self._certificate_not_after: datetime | None = None
        self._shown: set[Gauge] = set()

    # --- events -------------------------------------------------------------------------------

    def request_answered(self, status: int, seconds: float) -> None:
        """A receiving listener answered; ``seconds``: since the request's arrival."""
        child = self._requests_of.get(status)
        if child is None:
            child = self._requests_of[status] = self._requests.labels(str(status))
        child.inc()
        if status == 200:
            self._accept_seconds.observe(seconds)

    def accepted(self) -> None:
        """A new SMS is durable."""
        self._accepted.inc()

    def delivery_ended(self, kind: str, outcome: str, seconds: float | None) -> None:
        """Implements ports.DeliveryObserver."""
        child = self._deliveries_of.get((kind, outcome))
        if child is None:
            child = self._deliveries_of[kind, outcome] = self._deliveries.labels(kind, outcome)
        child.inc()
        if outcome == "delivered" and seconds is not None:
            self._delivery_seconds.observe(seconds)

    # --- states -------------------------------------------------------------------------------

    def queue(self, *, pending: int, leased: int, dead: int, oldest_pending_seconds: float) -> None:
        """The queue was counted; the four belong to one moment. Nothing pending: 0 seconds."""
        for state, count in (("pending", pending), ("leased", leased), ("dead", dead)):
            self._queue.labels(state).set(count)
        self._oldest_pending.set(oldest_pending_seconds)
        self._show(self._oldest_pending)

    def certificate(self, not_after: datetime) -> None:
        """A certificate was loaded that is valid until then (aware)."""
        self._certificate_not_after = not_after
        self._show(self._certificate_expiry)

    def _show(self, gauge: Gauge) -> None:
        """Make a gauge part of the exposition, from its first value on."""
        if gauge not in self._shown:
            self._shown.add(gauge)
            self._registry.register(gauge)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format 0.0.4."""
        if self._certificate_not_after is not None:
            left = self._certificate_not_after - self._now()
            self._certificate_expiry.set(left.total_seconds())
        return generate_latest(self._registry)
