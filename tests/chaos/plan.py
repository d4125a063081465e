"""Everything that is decided before a run, by its seed: who sends what where, and what goes wrong when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal

from attrs import frozen

from tests.chaos import kinds
from tests.support.daemon import acd_group, application, client, connector, reseller
from tests.support.secrets_in_tests import RECEIVER, SENDER_PREFIX, TEXT_MARKER

LEASE_SECONDS = 5.0
TIMEOUT_SECONDS = 2.0

Habit = Literal["patient", "forgetful", "hasty"]
HABITS: Sequence[Habit] = ("patient", "forgetful", "hasty")
"""Repeats with its message_id; repeats without one; repeats with one before the answer can have come."""
Character = Literal["quick", "slow", "failing", "hanging", "leaving", "routing"]


@frozen(kw_only=True)
class Target:
    name: str
    character: Character
    onward: str = ""
    """Of a routing application: the ACD group that it names in its answers."""


TARGETS = (
    Target(name="quick", character="quick"),
    Target(name="slow", character="slow"),
    Target(name="failing", character="failing"),
    Target(name="hanging", character="hanging"),
    Target(name="leaving", character="leaving"),
    Target(name="survey", character="routing", onward="routed"),
    Target(name="routed", character="failing"),
)
CONNECTORS = (
    *("quick", "quick", "slow", "slow", "failing"),
    *("failing", "hanging", "leaving", "survey", "survey"),
)
"""The target of each."""


@frozen(kw_only=True)
class Conversation:
    """One sender's SMS through one connector: each is sent when the one before was answered 200."""

    name: str
    receiver: str
    sender: str
    habit: Habit
    chain: Sequence[str]
    """The targets that each of them passes."""

    def text(self, number: int) -> str:
        return f"{TEXT_MARKER} {self.habit} {self.name} {number}"

    @property
    def identified(self) -> bool:
        return self.habit != "forgetful"


def read_text(text: str) -> tuple[str, int]:
    """The conversation and number of an SMS."""
    _, _, name, number = text.split(" ")
    return name, int(number)


def conversations(rate: float) -> list[Conversation]:
    """As many as bring this many SMS a second, each one SMS a second and a half."""
    onward = {target.name: target.onward for target in TARGETS}
    made = []
    for n in range(max(len(CONNECTORS) * len(HABITS), round(rate * PAUSE_SECONDS))):
        line, turn = n % len(CONNECTORS), n // len(CONNECTORS)
        first = CONNECTORS[line]
        made.append(
            Conversation(
                name=f"{line}.{turn}",
                receiver=receiver(line),
                sender=f"{SENDER_PREFIX}{n:05d}",
                habit=HABITS[turn % len(HABITS)],
                chain=(first, onward[first]) if onward[first] else (first,),
            )
        )
    return made


PAUSE_SECONDS = 1.5
"""Between the SMS of a conversation, on average."""


def receiver(line: int) -> str:
    return f"{RECEIVER[:-2]}{line:02d}"


def directory(urls: dict[str, str]) -> str:
    """The directory file; ``urls`` by target."""
    entries = [reseller(), client()]
    for target in TARGETS:
        make = application if target.onward else acd_group
        entries.append(make(target.name, urls[target.name]))
    for line, name in enumerate(CONNECTORS):
        kind = "application" if name == "survey" else "acd_group"
        entries.append(connector(receiver(line), **{kind: name}))
    return "".join(entries)


# --- backends -----------------------------------------------------------------------------------


@frozen(kw_only=True)
class Behaviour:
    """How a backend meets one attempt."""

    delay: float = 0.0
    status: int | None = 200
    """None: it drops the connection instead; after a long delay that means it hangs."""
    retry_after: int | None = None


LATE_SECONDS = TIMEOUT_SECONDS + 0.4
HANGING_SECONDS = 20.0
GONE_EVERY = 12
"""Each so manieth SMS to a failing target is answered 410."""


def behaviour(seed: int, target: Target, conversation: str, number: int, time: int) -> Behaviour:
    """Of the attempt that is this SMS' ``time``-th at the target, counted from 1."""
    random = Random(f"{seed}/{target.name}/{conversation}/{number}/{time}")
    quickly, roll = random.uniform(0.0, 0.02), random.random()
    match target.character:
        case "slow":
            return Behaviour(delay=random.uniform(0.05, 0.4))
        case "failing" if target.name == "failing" and number % GONE_EVERY == GONE_EVERY - 1:
            return Behaviour(delay=quickly, status=410)
        case "failing" if roll < 0.12:
            status = random.choice([500, 503, 404, 302, None])
            return Behaviour(delay=quickly, status=status, retry_after=1 if status == 503 else None)
        case "hanging" if roll < 0.03:
            return Behaviour(delay=HANGING_SECONDS, status=None)
        case "hanging" if roll < 0.06:
            return Behaviour(delay=LATE_SECONDS)
        case "routing" if roll < 0.05:
            return Behaviour(delay=quickly, status=500)
    return Behaviour(delay=quickly)


def absences(seed: int) -> Iterator[tuple[float, float]]:
    """For how long the leaving backend is there, and then for how long its port is closed, and so on."""
    random = Random(f"{seed}/absences")
    while True:
        yield random.uniform(4, 10), random.uniform(2, 5)


# --- faults -------------------------------------------------------------------------------------


@frozen(kw_only=True)
class PlannedFault:
    at: float
    """Seconds after the beginning, at the earliest: in each lane one follows the other."""
    kind: str
    seconds: float
    variant: int
    """For whoever can do it in several ways."""


_SECONDS = {
    kinds.POSTGRES_KILLED: (0.2, 3.0),
    kinds.POSTGRES_STOPPED: (0.2, 3.0),
    kinds.POSTGRES_FROZEN: (1.0, 6.0),
    kinds.COMMIT_CUT: (1.0, 2.0),
    kinds.DATABASE_SILENT: (10.0, 10.0),
    kinds.DATABASE_REFUSED: (1.0, 4.0),
    kinds.WORKER_KILLED: (0.0, 0.0),
    kinds.SUPERVISOR_KILLED: (0.0, 0.5),
    kinds.DAEMON_KILLED: (0.0, 1.5),
    kinds.DAEMON_RESTARTED: (0.0, 1.0),
    kinds.WORKER_FROZEN: (1.0, LEASE_SECONDS + 3.0),
    kinds.SUPERVISOR_FROZEN: (1.0, 4.0),
    kinds.DISK_FULL: (2.0, 6.0),
    kinds.CLOCK_FORWARD: (2.0, 5.0),
    kinds.CLOCK_BACK: (2.0, 5.0),
}
"""How long each takes, without what it takes to recover."""
_GAP_SECONDS, _LATER_GAP_SECONDS = (0.5, 2.5), (1.0, 7.0)
"""Between those of a lane; shorter until each kind has happened once."""
_QUIET_SECONDS = 4.0
"""At the beginning and the end."""


def faults(seed: int, seconds: float, wanted: Sequence[str] = kinds.ALL) -> list[list[PlannedFault]]:
    """For each lane, every wanted kind once, in random order, and so on until the time is over."""
    lanes = [[kind for kind in lane if kind in wanted] for lane in kinds.LANES]
    return [
        list(_lane(Random(f"{seed}/faults/{n}"), lane, seconds, n)) for n, lane in enumerate(lanes) if lane
    ]


def _lane(random: Random, lane: Sequence[str], seconds: float, number: int) -> Iterator[PlannedFault]:
    at, turn = 1.0 + number * random.random(), 0
    while True:
        for kind in random.sample(lane, len(lane)):
            if turn >= len(lane) and at > seconds - _QUIET_SECONDS:
                return
            takes = _length(random, kind, first=turn < len(lane))
            yield PlannedFault(at=at, kind=kind, seconds=takes, variant=random.randrange(1 << 16))
            turn += 1
            at += takes + random.uniform(*(_GAP_SECONDS if turn < len(lane) else _LATER_GAP_SECONDS))


def _length(random: Random, kind: str, first: bool) -> float:
    shortest, longest = _SECONDS[kind]
    if kind == kinds.WORKER_FROZEN and first:
        return longest  # so that every run has one that is longer than the lease
    return random.uniform(shortest, longest)
