"""Everything that is decided before a run, by its seed: who sends what where, and what goes wrong when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, Literal

from attrs import frozen

from tests.chaos import kinds
from tests.support.daemon import acd_group, application, client, connector, reseller
from tests.support.secrets_in_tests import RECEIVER, SECRET, SENDER_PREFIX

LEASE_SECONDS = 5.0
TIMEOUT_SECONDS = 2.0
CONCATENATION_SECONDS = 3.0
"""Long enough for parts that are repeated once or twice, and shorter than PostgreSQL is away."""

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
Profile = Literal["generic", "twilio", "vonage"]
"""vonage brings long SMS in parts. Neither of the others does; twilio signs."""


@frozen(kw_only=True)
class Connector:
    target: str
    profile: Profile


def _connectors(profile: Profile, *targets: str) -> list[Connector]:
    return [Connector(target=target, profile=profile) for target in targets]


CONNECTORS = (
    *_connectors("generic", "quick", "quick", "slow", "slow", "failing"),
    *_connectors("generic", "failing", "hanging", "leaving", "survey", "survey"),
    *_connectors("twilio", "quick", "failing"),
    *_connectors("vonage", "quick", "slow", "failing", "survey"),
)
PROVIDER_SECRET = SECRET
"""What twilio signs with; the log is searched for it."""
_OF_PROFILE: Mapping[Profile, dict[str, Any]] = {
    "generic": {},
    "twilio": {"provider": "twilio", "provider_secrets": [PROVIDER_SECRET]},
    # Unsigned: its signatures bear a time, and the daemon's clock is stepped.
    "vonage": {"provider": "vonage", "unsigned": True},
}


@frozen(kw_only=True)
class Conversation:
    """One sender's SMS through one connector: each is sent when the one before was answered 200.

    Of one in parts all that are ever sent; another may come between these.
    """

    name: str
    receiver: str
    sender: str
    habit: Habit
    profile: Profile
    chain: Sequence[str]
    """The targets that each of them passes."""

    @property
    def identified(self) -> bool:
        return self.habit != "forgetful"

    @property
    def pause(self) -> float:
        """Between its SMS, on average; where they come in parts each is several requests."""
        return PAUSE_SECONDS * (2 if self.profile == "vonage" else 1)


def conversations(rate: float) -> list[Conversation]:
    """As many as bring this many SMS a second, each one SMS a second and a half (of vonage half as many)."""
    onward = {target.name: target.onward for target in TARGETS}
    made = []
    for n in range(max(len(CONNECTORS) * len(HABITS), round(rate * PAUSE_SECONDS))):
        line, turn = n % len(CONNECTORS), n // len(CONNECTORS)
        first, profile = CONNECTORS[line].target, CONNECTORS[line].profile
        made.append(
            Conversation(
                name=f"{line}.{turn}",
                receiver=receiver(line),
                sender=f"{SENDER_PREFIX}{n:05d}",
                habit=HABITS[turn % len(HABITS)],
                profile=profile,
                chain=(first, onward[first]) if onward[first] else (first,),
            )
        )
    return made


PAUSE_SECONDS = 1.5
"""Between the SMS of a conversation, on average; see Conversation.pause."""


def receiver(line: int) -> str:
    return f"{RECEIVER[:-2]}{line:02d}"


def directory(urls: dict[str, str]) -> str:
    """The directory file; ``urls`` by target."""
    entries = [reseller(), client()]
    for target in TARGETS:
        make = application if target.onward else acd_group
        entries.append(make(target.name, urls[target.name]))
    for line, each in enumerate(CONNECTORS):
        kind = "application" if each.target == "survey" else "acd_group"
        entries.append(connector(receiver(line), **{kind: each.target}, **_OF_PROFILE[each.profile]))
    return "".join(entries)


# --- SMS in parts, and forged ones ---------------------------------------------------------------


@frozen(kw_only=True)
class Composition:
    """How a concatenated SMS is sent."""

    total: int
    sends: Sequence[int]
    """The parts in the order in which they are sent, those that are repeated too; some may be missing."""
    interlude: int | None
    """Before this one of the sends another SMS of the conversation is sent, and answered."""


_IN_PARTS, _WITH_A_GAP, _WITH_AN_INTERLUDE, _REPEATED = 0.65, 0.25, 0.3, 0.3
"""How many: of vonage's SMS; of those in parts; likewise; of the parts."""


def composition(seed: int, conversation: Conversation, number: int) -> Composition | None:
    """Of this SMS of the conversation; None: it is not in parts."""
    random = Random(f"{seed}/parts/{conversation.name}/{number}")
    if conversation.profile != "vonage" or random.random() >= _IN_PARTS:
        return None
    total = random.choice([2, 2, 3, 3, 4, 5])
    sent = random.sample(range(1, total + 1), total)
    if random.random() < _WITH_A_GAP:
        sent = sent[: random.randrange(1, total)]
    sends = list(sent)
    for part in sent:
        if random.random() < _REPEATED:
            sends.insert(random.randint(sends.index(part) + 1, len(sends)), part)
    interlude = random.randrange(1, len(sends)) if len(sends) > 1 else None
    return Composition(
        total=total, sends=sends, interlude=interlude if random.random() < _WITH_AN_INTERLUDE else None
    )


Forgery = Literal["another secret", "another text", "no signature", "another URL"]
FORGERIES: Sequence[Forgery] = ("another secret", "another text", "no signature", "another URL")
_FORGED = 0.25


def forgery(seed: int, conversation: Conversation, number: int) -> Forgery | None:
    """What somebody else sends before this SMS in its sender's name; None: nothing."""
    random = Random(f"{seed}/forged/{conversation.name}/{number}")
    if conversation.profile != "twilio" or random.random() >= _FORGED:
        return None
    return random.choice(FORGERIES)


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
