"""One run of chaos: a daemon, its PostgreSQL, providers, backends and an adversary, and what came of it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from tests.chaos import checker, kinds
from tests.chaos.adversary import START_SECONDS, Adversary, World
from tests.chaos.backends import Backend
from tests.chaos.broken import WITHOUT_JOURNAL
from tests.chaos.disk import Disk
from tests.chaos.evidence import Run, Terms
from tests.chaos.faketime import NO_CLOCK, Clock
from tests.chaos.history import Events, History, Row, read
from tests.chaos.plan import (
    CONCATENATION_SECONDS,
    LEASE_SECONDS,
    TARGETS,
    TIMEOUT_SECONDS,
    conversations,
    directory,
    faults,
)
from tests.chaos.postgres import PostgresUnderFire
from tests.chaos.processes import Daemon, free_port, send
from tests.chaos.providers import Providers, Wire
from tests.chaos.proxy import Proxy
from tests.chaos.report import Outcome, counted
from tests.chaos.texts import read_text
from tests.support.daemon import ask
from tests.support.provider_requests import PUBLIC_URL
from tests.support.secrets_in_tests import leaks

QUIET_SECONDS = 2.0
"""Of sending before the first fault and after the last."""
ANSWERS_SECONDS = 20.0
DRAIN_SECONDS = 60.0
_POLL_SECONDS = 0.5
_ALIASES = "SELECT id::text, message_id::text FROM message_alias"
_ASKED_ALIASES = 4
_TRACEBACK = re.compile(
    r"^(?P<in> *)Traceback \(most recent call last\):\n"
    r"(?:(?P=in) +.*\n)*"
    r"(?P=in)(?P<error>\S.*)$",
    re.MULTILINE,
)
_CRASH = "Fatal Python error"
_SETTINGS = """\
state_dir = "state"
workers = {workers}
shutdown_seconds = 5
[http]
listen = ["tcp:{port}:interface=127.0.0.1"]
[admin]
listen = ["tcp:{admin}:interface=127.0.0.1"]
[database]
dsn = "{dsn}"
[receiver]
journal = {journal}
journal_after = 0.5
public_url = "{public_url}"
concatenation_timeout = {concatenation:g}
[routing]
retry_schedule = [0, 0.3, 1, 2]
give_up_after = 86400
timeout = {timeout}
lease = {lease}
breaker_failures = 5
breaker_probe = 1
"""


@frozen(kw_only=True)
class Options:
    """What a run is asked to be."""

    seconds: float
    seed: int
    workers: int
    rate: float
    """SMS a second, about."""
    kinds: Sequence[str]
    """What goes wrong."""
    broken: str = ""


class ChaosRun:
    """Made before the reactor runs, since PostgreSQL is to end with this thread, and mounts are its own."""

    def __init__(self, options: Options, folder: Path, postgres: PostgresUnderFire, reactor: Any) -> None:
        """``postgres`` runs."""
        self._options, self._folder, self._reactor = options, folder, reactor
        self._began = time.monotonic()
        self.history = History(folder / "history.jsonl")
        self._conversations = conversations(options.rate)
        self._clock = Clock(folder)
        self._disk = Disk(folder / "state", lambda: self.daemon.processes())
        self._proxy = Proxy(reactor, postgres.socket)
        self._port = free_port()
        settings = _SETTINGS.format(
            workers=options.workers,
            journal=str(options.broken != WITHOUT_JOURNAL).lower(),
            port=self._port,
            admin=free_port(),
            dsn=postgres.dsn_by(self._proxy.listen()),
            public_url=PUBLIC_URL,
            concatenation=CONCATENATION_SECONDS,
            timeout=TIMEOUT_SECONDS,
            lease=LEASE_SECONDS,
        )
        self.daemon = Daemon(
            reactor=reactor,
            folder=folder,
            settings=settings,
            environment=self._clock.environment,
            broken=options.broken,
        )
        self._backends = [
            Backend(target=target, reactor=reactor, history=self.history, seed=options.seed)
            for target in TARGETS
        ]
        self._world = World(
            reactor=reactor,
            daemon=self.daemon,
            postgres=postgres,
            proxy=self._proxy,
            disk=self._disk,
            clock=self._clock,
            history=self.history,
            workers=options.workers,
        )
        self._adversary = Adversary(self._world)
        self._worst_lag = 0.0

    async def run(self) -> Outcome:
        """Everything from the first start to the last check."""
        await self._start()
        seconds = await self._be_hurt()
        left = await self._drain()
        rows, aliases = await self._stored(), await self._aliases()
        await self._stop()
        self.history.close()
        return self._outcome(seconds, left, rows, aliases)

    async def _start(self) -> None:
        for backend in self._backends:
            backend.start()
        path = self._folder / "directory.toml"
        path.write_text(directory({backend.target.name: backend.url for backend in self._backends}))
        status, _, complaints = await self.daemon.command("apply", str(path))
        assert status == 0, f"the directory was refused: {complaints}"
        self.daemon.start()
        await self._until(lambda: self.daemon.is_ready or not self.daemon.runs, START_SECONDS)
        assert self.daemon.is_ready, f"the daemon does not start: {self.daemon.log()[-2000:]}"

    async def _be_hurt(self) -> float:
        """Send, and let go wrong what is to; gives the seconds that it took."""
        began = self._reactor.seconds()
        watching = LoopingCall(self._watch_lag)
        watching.clock = self._reactor
        watching.start(0.05, now=False)
        wire = Wire(reactor=self._reactor, url=f"http://127.0.0.1:{self._port}", history=self.history)
        providers = Providers(wire, self._conversations, self._options.seed)
        providers.start()
        await self._pause(QUIET_SECONDS)
        lanes = faults(self._options.seed, self._options.seconds - 2 * QUIET_SECONDS, self._options.kinds)
        await self._adversary.run(lanes)
        await self._pause(max(QUIET_SECONDS, began + self._options.seconds - self._reactor.seconds()))
        seconds: float = self._reactor.seconds() - began
        for backend in self._backends:
            await backend.stay()
        await providers.stop(ANSWERS_SECONDS)
        watching.stop()
        return seconds

    async def _drain(self) -> int:
        """Wait until nothing is pending, and no part waits; gives what still does after a while."""
        patience = DRAIN_SECONDS / (4 if self._options.broken else 1)
        ends = self._reactor.seconds() + patience
        while (left := await self._pending()) and self._reactor.seconds() < ends:
            await self._pause(_POLL_SECONDS)
        return left

    async def _pending(self) -> int:
        [status] = await self.daemon.rows("status")
        return int(status["pending"]) + int(status["incomplete"])

    async def _stored(self) -> list[Row]:
        return [
            Row(
                id=row["id"],
                conversation=said.conversation,
                number=said.number,
                pieces=said.pieces,
                state=row["state"],
                attempts=row["attempts"],
            )
            for row in await self.daemon.rows("messages")
            for said in [read_text(row["text"])]
        ]

    async def _aliases(self) -> dict[str, str]:
        """What the other ids name. There may be thousands, so the public command is asked for some only."""
        known = dict(await deferToThread(ask, self._world.postgres.dsn, _ALIASES))
        for id in sorted(known)[:: max(1, len(known) // _ASKED_ALIASES)]:
            status, out, complaints = await self.daemon.command("why", "--json", id)
            assert status == 0, f"smsdaemon why does not know an alias: {complaints}"
            assert known[id] in out, "smsdaemon why takes an id for that of another SMS"
        return known

    async def _stop(self) -> None:
        ended = self.daemon.expect_its_end()
        send(signal.SIGTERM, self.daemon.processes()[:1])
        await self._until(lambda: bool(ended.called), START_SECONDS)
        for backend in self._backends:
            await backend.close()

    def _outcome(self, seconds: float, left: int, rows: list[Row], aliases: dict[str, str]) -> Outcome:
        with open(self._folder / "history.jsonl", encoding="utf-8") as lines:
            events = read(lines)
        chains = {conversation.name: conversation.chain for conversation in self._conversations}
        terms = Terms(
            lease=LEASE_SECONDS, timeout=TIMEOUT_SECONDS, concatenation=CONCATENATION_SECONDS, chains=chains
        )
        run = Run(events=events, rows=rows, terms=terms, aliases=aliases)
        wrong = {
            **checker.check(run),
            "faults that never happened": self._missing(events),
            "not recovered": self._not_recovered(left),
            "bugs in the log": self._bugs(),
            "secrets in the log": leaks(self.daemon.log().encode()),
        }
        return Outcome(
            seed=self._options.seed,
            seconds=seconds,
            took=time.monotonic() - self._began,
            workers=self._options.workers,
            broken=self._options.broken,
            figures={**checker.figures(run), "worst lag of this program": round(self._worst_lag, 3)},
            faults=counted(events),
            wrong=wrong,
        )

    def _missing(self, events: Events) -> list[str]:
        why = "" if self._clock.can_step else f": {NO_CLOCK}"
        return [
            kind + (why if kind in (kinds.CLOCK_BACK, kinds.CLOCK_FORWARD) else "")
            for kind in checker.missing_kinds(events, self._options.kinds)
        ]

    def _not_recovered(self, left: int) -> list[str]:
        found = [
            *self._adversary.too_late,
            *(f"the daemon ended: {how}" for how in self.daemon.ended_by_itself),
        ]
        if left:
            found.append(f"{left} SMS were pending or incomplete {DRAIN_SECONDS:g} s after the last fault")
        if self.daemon.runs:
            found.append("the daemon did not stop")
        return found

    def _bugs(self) -> list[str]:
        """The last line of each traceback; what chaos does may look like no bug."""
        log = self.daemon.log()
        crashes = [line.partition(_CRASH)[1:] for line in log.splitlines() if _CRASH in line]
        return [found["error"] for found in _TRACEBACK.finditer(log)] + ["".join(line) for line in crashes]

    def _watch_lag(self) -> None:
        now = time.monotonic()
        self._worst_lag = max(self._worst_lag, now - getattr(self, "_watched", now) - 0.05)
        self._watched = now

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        ends = self._reactor.seconds() + seconds
        while not condition() and self._reactor.seconds() < ends:
            await self._pause(0.05)

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds)

    def end(self) -> None:
        """Leave nothing behind, however the run went."""
        send(signal.SIGCONT, self.daemon.processes())
        send(signal.SIGKILL, self.daemon.processes())
        self.daemon.forget()
