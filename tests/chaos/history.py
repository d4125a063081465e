"""What happened, one event a line, as providers, backends and the adversary saw it.

All times are seconds of CLOCK_MONOTONIC, which is one clock for all processes of a machine and is
never faked. The file is only appended to; ``read`` joins the events of each request, attempt and fault.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import evolve, field, frozen

NO_ANSWER = 0
"""In place of a status."""
NEVER = float("inf")

End = Literal["answered", "dropped", "closed", "open"]
"""By its answer; by the backend, without one; by the daemon; not at all while the history was written."""


@frozen(kw_only=True)
class Request:
    """One request of a provider."""

    conversation: str
    number: int
    """Of the SMS in its conversation, from 1."""
    identified: bool
    """Whether it bears a message_id."""
    part: int = 0
    """Its number, where the SMS is sent in parts."""
    total: int = 0
    """The number of parts."""
    profile: str = "generic"
    forged: bool = False
    """Not by the provider: with a wrong signature. Its number is that of no other SMS."""
    sent: float
    ended: float = NEVER
    """When the answer was there, or it was given up."""
    status: int = NO_ANSWER
    id: str | None = None
    """The SMS-Message-Id of a 200."""
    error: str = ""

    @property
    def sms(self) -> tuple[str, int]:
        return self.conversation, self.number


@frozen(kw_only=True)
class Attempt:
    """One POST that came to a backend."""

    target: str
    delivery: str
    """The webhook-id."""
    id: str
    """Of the SMS."""
    conversation: str
    number: int
    pieces: tuple[int, ...] = field(default=(), converter=tuple)
    """The parts that its text is made of, as they stand there; see tests.chaos.texts."""
    parts: int = 1
    missing: tuple[int, ...] = field(default=(), converter=tuple)
    """parts and parts_missing of the payload."""
    attempt: int
    """As the daemon counts them, from 1."""
    began: float
    ended: float = NEVER
    end: End = "open"
    status: int = NO_ANSWER

    @property
    def sms(self) -> tuple[str, int]:
        return self.conversation, self.number

    @property
    def taken(self) -> bool:
        """Whether the backend wrote a 2xx."""
        return self.end == "answered" and 200 <= self.status < 300


@frozen(kw_only=True)
class Fault:
    """Something that the adversary did, until it was undone and had been recovered from."""

    kind: str
    began: float
    ended: float = NEVER
    happened: bool = True
    """False: tried, but it came to nothing."""


@frozen(kw_only=True)
class Row:
    """An SMS as `smsdaemon messages --json` has it."""

    id: str
    conversation: str
    number: int
    pieces: tuple[int, ...] = ()
    """As of an attempt."""
    state: str
    attempts: int

    @property
    def sms(self) -> tuple[str, int]:
        return self.conversation, self.number


@frozen(kw_only=True)
class Events:
    """The whole of a run."""

    requests: list[Request]
    attempts: list[Attempt]
    faults: list[Fault]


class History:
    """Appends to the file; every event is in it before what it tells of goes on."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (for the run's time)
        self._count = 0

    def begin(self, what: str, **known: object) -> int:
        """A request, an attempt or a fault began; gives the number by which its end is told."""
        self._count += 1
        self._write({"at": time.monotonic(), "begins": what, "n": self._count, **known})
        return self._count

    def end(self, number: int, **known: object) -> None:
        self._write({"at": time.monotonic(), "ends": number, **known})

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Mapping[str, object]) -> None:
        self._file.write(json.dumps(event) + "\n")


def read(lines: Iterable[str]) -> Events:
    """Join the events of a history."""
    begun: dict[int, Request | Attempt | Fault] = {}
    for line in lines:
        event: dict[str, Any] = json.loads(line)
        at = event.pop("at")
        if "begins" in event:
            what, n = event.pop("begins"), event.pop("n")
            begun[n] = _BEGINNINGS[what](at, event)
        else:
            n = event.pop("ends")
            # What is undone after it was over, as the whole is tidied up, is over once.
            if begun[n].ended == NEVER:
                begun[n] = evolve(begun[n], ended=at, **event)
    return Events(
        requests=[item for item in begun.values() if isinstance(item, Request)],
        attempts=[item for item in begun.values() if isinstance(item, Attempt)],
        faults=[item for item in begun.values() if isinstance(item, Fault)],
    )


_BEGINNINGS: Mapping[str, Any] = {
    "request": lambda at, event: Request(sent=at, **event),
    "attempt": lambda at, event: Attempt(began=at, **event),
    "fault": lambda at, event: Fault(began=at, **event),
}
