"""How workers are, as the daemon shows it: values that go through pipes and files as JSON."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from smsdaemon.drift import DriftState


@frozen(kw_only=True)
class JournalState:
    """The journal, as one worker sees it; it is the same for all."""

    usable: bool
    pending: int
    """SMS that are not in PostgreSQL yet."""
    aside: int
    """What PostgreSQL will not take, kept for people to look at."""
    trouble: str
    """Why it cannot be used, or what was wrong with it; empty: nothing."""


@frozen(kw_only=True)
class WorkerState:
    """What a worker says of itself."""

    accepts: bool
    database: bool
    """Whether it is connected to PostgreSQL."""
    directory: bool
    """Whether its directory is loaded."""
    journal: JournalState | None
    """None: there is none (``[receiver] journal``)."""
    breakers: int
    """How many targets are left alone, as far as it knows."""
    drift: tuple[DriftState, ...] = ()
    """Whose requests are not what they were, as far as it has seen."""


@frozen(kw_only=True)
class LiveWorker:
    """A worker as its supervisor sees it."""

    number: int
    pid: int | None
    """None: it ended and is about to be started again."""
    since: datetime
    """When it was started (aware)."""
    restarts: int
    silent_seconds: float
    stalled: bool
    state: WorkerState | None
    """As it said last; None: nothing yet."""

    @property
    def accepts(self) -> bool:
        return self.state is not None and self.state.accepts and not self.stalled
