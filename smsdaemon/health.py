"""How the whole daemon is: for /health/ready, the gauges and the status file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import asdict

from smsdaemon.drift import DriftState, merged, since_text
from smsdaemon.metrics import Gauges
from smsdaemon.store.pool import Pool
from smsdaemon.store.safety import GuaranteeInForce
from smsdaemon.store.support import queue_state
from smsdaemon.web.admin import Condition
from smsdaemon.worker_state import JournalState, LiveWorker


class Crew(Protocol):
    """Who accepts and delivers (workers.Crew)."""

    def workers(self) -> Sequence[LiveWorker]: ...


class DaemonHealth:
    """Implements web.admin.Health."""

    def __init__(
        self,
        *,
        crew: Crew,
        pool: Pool,
        guarantee: GuaranteeInForce,
        gauges: Gauges,
    ) -> None:
        self._crew, self._pool, self._guarantee, self._gauges = crew, pool, guarantee, gauges
        self.stopping = False

    def accepts(self) -> bool:
        return not self.stopping and any(worker.accepts for worker in self._crew.workers())

    def journaled(self) -> bool:
        """Whether the journal may hold what is not in PostgreSQL yet.

        Also while nobody has said anything, or somebody has not opened it or has trouble with it.
        """
        states = [worker.state for worker in self._crew.workers() if worker.state is not None]
        journals = [state.journal for state in states if state.journal is not None]
        return not states or any(not journal.usable or journal.pending for journal in journals)

    # --- for people ---------------------------------------------------------------------------

    def conditions(self) -> Mapping[str, Condition]:
        workers = self._crew.workers()
        states = [worker.state for worker in workers if worker.state is not None and not worker.stalled]
        connected = self._pool.alive > 0 or any(state.database for state in states)
        loaded = any(state.directory for state in states)
        journal = _journal(workers)
        return {
            "workers": Condition(self.accepts(), "stopping" if self.stopping else _counted(workers)),
            "database": _condition(connected, "PostgreSQL is connected", "PostgreSQL is away"),
            "directory": _condition(loaded, "the directory is loaded", "not loaded yet"),
            "journal": Condition(journal is None or journal.usable, _told(journal)),
            "guarantee": Condition(self._is_safe(), self._guarantee.detail()),
        }

    def _is_safe(self) -> bool:
        return self._guarantee.found is not None and not self._guarantee.found.problems

    def document(self) -> dict[str, Any]:
        """For the status file."""
        workers = self._crew.workers()
        journal = _journal(workers)
        return {
            "accepts": self.accepts(),
            "stopping": self.stopping,
            "workers": [_row(worker) for worker in workers],
            "database": self._pool.alive > 0,
            "journal": None if journal is None else asdict(journal),
            "breakers_open": _breakers(workers),
            "drift": [{**asdict(state), "since": since_text(state)} for state in _drift(workers)],
            "guarantee": self._guarantee.detail(),
        }

    # --- for Prometheus -----------------------------------------------------------------------

    def show(self) -> None:
        workers = self._crew.workers()
        journal = _journal(workers)
        if journal is not None:
            self._gauges.journal(pending=journal.pending, aside=journal.aside)
        self._gauges.breakers_open(_breakers(workers))
        self._gauges.drift(Counter((state.provider, state.kind) for state in _drift(workers)))

    async def count(self) -> None:
        queue = await queue_state(self._pool)
        self._gauges.waiting_parts(queue.waiting_parts)
        oldest = queue.oldest_pending
        self._gauges.queue(
            pending=queue.pending - queue.leased,
            leased=queue.leased,
            dead=queue.dead,
            oldest_pending_seconds=0.0 if oldest is None else oldest.total_seconds(),
        )


def _condition(good: bool, yes: str, no: str) -> Condition:
    return Condition(good, yes if good else no)


def _counted(workers: Sequence[LiveWorker]) -> str:
    ready = sum(worker.accepts for worker in workers)
    missing = [
        f"worker {worker.number} {'is stalled' if worker.stalled else 'is not ready'}"
        for worker in workers
        if not worker.accepts
    ]
    return ", ".join([f"{ready} of {len(workers)} ready", *missing])


def _journal(workers: Sequence[LiveWorker]) -> JournalState | None:
    """The journal is one; who has trouble with it, or sees most in it, is believed."""
    seen = [
        worker.state.journal
        for worker in workers
        if worker.state is not None and worker.state.journal is not None and not worker.stalled
    ]
    return max(seen, key=lambda state: (not state.usable, state.pending), default=None)


def _told(journal: JournalState | None) -> str:
    if journal is None:
        return "there is none"
    waiting = f"{journal.pending} SMS wait in it" if journal.pending else "empty"
    aside = f"{journal.aside} set aside" if journal.aside else ""
    return "; ".join(filter(None, [journal.trouble, waiting, aside]))


def _breakers(workers: Sequence[LiveWorker]) -> int:
    return max((worker.state.breakers for worker in workers if worker.state is not None), default=0)


def _drift(workers: Sequence[LiveWorker]) -> list[DriftState]:
    return merged([state for worker in workers if worker.state is not None for state in worker.state.drift])


def _row(worker: LiveWorker) -> dict[str, Any]:
    return {
        "number": worker.number,
        "pid": worker.pid,
        "ready": worker.accepts,
        "stalled": worker.stalled,
        "since": worker.since.isoformat(),
        "restarts": worker.restarts,
        "database": worker.state is not None and worker.state.database,
    }
