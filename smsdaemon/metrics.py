"""What is counted, in the form Prometheus reads (contract 7).

Each process counts its own events in Metrics; several workers count into files, which survive them, and
whoever answers /metrics adds these up. Gauges tell of the installation and are kept in one place, Gauges.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from attrs import frozen
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from twisted.logger import Logger

from smsdaemon import __version__
from smsdaemon.ports import UtcClock

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_ACCEPT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_DELIVERY_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
_KINDS = ("acd_group", "application")
_OUTCOMES = ("delivered", "retry", "dead")
_FILES = ("counter", "histogram")
"""The kinds of metrics that workers have; prometheus_client names its files by them."""
_FILE_BYTES = 1 << 20
"""So that the files need not grow, which would be without the disk's promise. Each provider and kind of
smsdaemon_not_sms takes 240 bytes; there are as many as the loaded profiles name: 314 of the shipped."""
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client looks for the folder of files."""


# --- several processes ------------------------------------------------------------------------


def shared_folder(state_dir: Path) -> Path:
    """Where the workers of a daemon count."""
    return state_dir / "metrics"


def make_shared_folder(folder: Path) -> None:
    """An empty one, as counters begin anew with the daemon. Raises OSError."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)


def count_into(folder: Path, number: int) -> None:
    """From now on this process' counters live in files of that folder; to be called before any is made.

    ``number`` belongs to one living process at a time. A successor with the same one goes on where the
    last has stopped, so that the sums never fall. Where the disk is full it counts for itself alone.
    """
    try:
        for kind in _FILES:
            _allocate(folder / f"{kind}_{number}.db")
    except OSError as error:
        log = Logger(namespace="smsdaemon")
        log.error("the metrics of this worker are missing: {why}", why=error.strerror)
        return
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


def _allocate(file: Path) -> None:
    """Have the disk's blocks before the file is mapped: to write where there are none ends the process."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _FILE_BYTES)
    finally:
        os.close(descriptor)


def summed(folder: Path) -> CollectorRegistry:
    """The events of all processes that count into the folder, which need not be there yet."""
    registry = CollectorRegistry()
    registry.register(_Sum(folder))
    return registry


@frozen
class _Sum(Collector):
    folder: Path

    def collect(self) -> Iterable[Metric]:
        if not self.folder.is_dir():
            return []
        found: Iterable[Metric] = MultiProcessCollector(None, str(self.folder)).collect()  # type: ignore[no-untyped-call]
        return found


# --- events -----------------------------------------------------------------------------------


class Metrics:
    """Counters and histograms of one process; its methods are named by what happened."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "smsdaemon_requests", "Answers on the receiving listeners.", ["status"], registry=registry
        )
        self._requests_of: dict[int, Counter] = {}
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

        def counter(what: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"smsdaemon_{what}", text, labels, registry=registry)

        self._accepted = counter("messages_accepted", "SMS made durable, repeats not counted.")
        self._journaled = counter(
            "journaled_messages", "SMS that were answered 200 from the journal, PostgreSQL being away."
        )
        self._journal_failures = counter("journal_failures", "SMS that the journal could not take.")
        self._refused_kept = counter("refused_kept", "Refused SMS (502) that were kept.")
        self._refused_dropped = counter("refused_dropped", "Refused SMS (502) that were not, or not longer.")
        said = "Providers' requests that brought no SMS: status reports, probes, handshakes."
        self._not_sms = counter("not_sms", said, ["provider", "kind"])
        self._leases_lost = counter(
            "leases_lost", "Outcomes that came too late: another process had the delivery by then."
        )

    def request_answered(self, status: int, seconds: float) -> None:
        """A receiving listener answered; ``seconds``: since the request's arrival."""
        child = self._requests_of.get(status)
        if child is None:
            child = self._requests_of[status] = self._requests.labels(str(status))
        child.inc()
        if status == 200:
            self._accept_seconds.observe(seconds)

    def not_an_sms(self, provider: str, kind: str) -> None:
        """A provider's request, or an entry of its batch, was no SMS."""
        self._not_sms.labels(provider, kind).inc()

    def accepted(self) -> None:
        """A new SMS is durable."""
        self._accepted.inc()

    def journaled(self, n: int = 1) -> None:
        """So many SMS are durable in the journal."""
        self._journaled.inc(n)

    def journal_failed(self, n: int = 1) -> None:
        """So many SMS could not be written into the journal."""
        self._journal_failures.inc(n)

    def refused_kept(self, n: int) -> None:
        """Implements ports.RefusedCounter."""
        self._refused_kept.inc(n)

    def refused_dropped(self, n: int) -> None:
        """Implements ports.RefusedCounter."""
        self._refused_dropped.inc(n)

    def lease_lost(self) -> None:
        """An outcome was not recorded, since another process has the delivery."""
        self._leases_lost.inc()

    def delivery_ended(self, kind: str, outcome: str, seconds: float | None) -> None:
        """Implements ports.DeliveryObserver."""
        child = self._deliveries_of.get((kind, outcome))
        if child is None:
            child = self._deliveries_of[kind, outcome] = self._deliveries.labels(kind, outcome)
        child.inc()
        if outcome == "delivered" and seconds is not None:
            self._delivery_seconds.observe(seconds)


def _seconds(what: str, text: str, buckets: Sequence[float], registry: CollectorRegistry) -> Histogram:
    return Histogram(f"smsdaemon_{what}_seconds", text, buckets=buckets, registry=registry)


# --- states -----------------------------------------------------------------------------------


class Gauges:
    """How the installation stands, beside the events that are counted elsewhere.

    Gauges that nobody has set yet are left out, since 0 would be a statement.
    """

    def __init__(self, now: UtcClock, events: CollectorRegistry) -> None:
        """``events``: of Metrics, or summed()."""
        self._now, self._events = now, events
        self._registry = registry = CollectorRegistry()
        Info("smsdaemon_build", "The program.", registry=registry).info({"version": __version__})
        self._worker_restarts = Counter(
            "smsdaemon_worker_restarts", "Workers that ended and were started again.", registry=registry
        )
        self._queue = Gauge(
            "smsdaemon_queue_messages",
            "Deliveries by state: waiting, being attempted, given up.",
            ["state"],
            registry=registry,
        )
        self._oldest_pending = _unset(
            "oldest_pending_seconds", "How long the oldest delivery that has not ended has been waiting."
        )
        self._certificate_expiry = _unset(
            "certificate_expiry_seconds", "Until the certificate of [https] expires."
        )
        self._journal = _unset("journal_messages", "SMS in the journal that PostgreSQL does not have yet.")
        self._aside = _unset("journal_set_aside", "What PostgreSQL will not take from the journal.")
        self._breakers = _unset("breakers_open", "Targets that are left alone.")
        self._waiting_parts = _unset("waiting_parts", "Parts of SMS whose other parts have not come yet.")
        self._drift = Gauge(
            "smsdaemon_drift",
            "Connectors whose requests are not what they were, by provider and kind of change.",
            ["provider", "kind"],
            registry=registry,
        )
        self._drifting: set[tuple[str, str]] = set()
        self._certificate_not_after: datetime | None = None
        self._shown: set[Gauge] = set()

    def worker_restarted(self) -> None:
        """A worker ended and is started again."""
        self._worker_restarts.inc()

    def queue(self, *, pending: int, leased: int, dead: int, oldest_pending_seconds: float) -> None:
        """The queue was counted; the four belong to one moment. Nothing pending: 0 seconds."""
        for state, count in (("pending", pending), ("leased", leased), ("dead", dead)):
            self._queue.labels(state).set(count)
        self._show(self._oldest_pending, oldest_pending_seconds)

    def journal(self, *, pending: int, aside: int) -> None:
        """So many SMS are in the journal; so many entries will stay there."""
        self._show(self._journal, pending)
        self._show(self._aside, aside)

    def breakers_open(self, count: int) -> None:
        """So many targets are left alone."""
        self._show(self._breakers, count)

    def waiting_parts(self, count: int) -> None:
        """So many parts are stored that make no SMS yet."""
        self._show(self._waiting_parts, count)

    def drift(self, counts: Mapping[tuple[str, str], int]) -> None:
        """By provider and kind, of what is flagged. What was flagged once is told as 0 afterwards."""
        self._drifting |= counts.keys()
        for key in self._drifting:
            self._drift.labels(*key).set(counts.get(key, 0))

    def certificate(self, not_after: datetime) -> None:
        """A certificate was loaded that is valid until then (aware)."""
        self._certificate_not_after = not_after

    def _show(self, gauge: Gauge, value: float) -> None:
        """Set a gauge, which is part of the exposition from its first value on."""
        gauge.set(value)
        if gauge not in self._shown:
            self._shown.add(gauge)
            self._registry.register(gauge)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format 0.0.4."""
        if self._certificate_not_after is not None:
            left = self._certificate_not_after - self._now()
            self._show(self._certificate_expiry, left.total_seconds())
        return generate_latest(self._registry) + generate_latest(self._events)


def _unset(what: str, text: str) -> Gauge:
    """A gauge that is registered with its first value."""
    return Gauge(f"smsdaemon_{what}", text, registry=None)
