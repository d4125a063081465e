"""What requests look like: the names of their fields, learned, and compared with what comes later."""

from __future__ import annotations

from collections.abc import Collection

from attrs import Factory, define

LEARNING_LOOKS = 20
"""So many requests are looked at before anything is flagged."""
MISSING_LOOKS = 5
"""A field that was in all requests, and not in so many one after the other, is missing."""
NORMAL_LOOKS = 100
"""So many requests of the new shape, and it is the normal one."""
MAX_NAMES, MAX_NEW_NAMES = 100, 20
FALLBACK = "(charset fallback)"
"""Stands among the names where a text was read as windows-1252 for want of UTF-8."""


@define
class Shape:
    """What one connector's requests from one provider look like."""

    number: str
    looks: int = 0
    known: set[str] = Factory(set)
    always: set[str] = Factory(set)
    """Names that were in every request so far."""
    new: dict[str, tuple[int, float]] = Factory(dict)
    """Names that came after the learning: how often they were seen, and since when."""
    absent: dict[str, tuple[int, float]] = Factory(dict)
    """Names of ``always`` that are missing: how often in a row, and since when."""
    seen_at: float = 0.0

    @property
    def learning(self) -> bool:
        return self.looks < LEARNING_LOOKS

    def look(self, names: Collection[str], now: float) -> tuple[list[str], list[str]]:
        """Compare, and learn; names that are now flagged as unknown, and as missing."""
        self.seen_at = now
        self.looks += 1
        if self.looks <= LEARNING_LOOKS:
            self._learn(names)
            return [], []
        return self._unknown(names, now), self._missing(names, now)

    def _learn(self, names: Collection[str]) -> None:
        plain = {name for name in names if name != FALLBACK}
        self.always = plain if self.looks == 1 else self.always & plain
        self.known |= set(names)
        while len(self.known) > MAX_NAMES:
            self.known.pop()
        self.always &= self.known

    def _unknown(self, names: Collection[str], now: float) -> list[str]:
        flagged = []
        for name in sorted(set(names) - self.known):
            count, since = self.new.get(name, (0, now))
            if count == 0:
                if len(self.new) >= MAX_NEW_NAMES:
                    continue
                flagged.append(name)
            self.new[name] = (count + 1, since)
            if count + 1 >= NORMAL_LOOKS:
                del self.new[name]
                if len(self.known) < MAX_NAMES:
                    self.known.add(name)
        return flagged

    def _missing(self, names: Collection[str], now: float) -> list[str]:
        flagged = []
        for name in sorted(self.always):
            count, since = self.absent.get(name, (0, now))
            if name in names:
                if count:
                    del self.absent[name]
                    # Missing now and then is no change; missing for a while and here again is none any more.
                    if count < MISSING_LOOKS:
                        self.always.discard(name)
                continue
            self.absent[name] = (count + 1, since)
            if count + 1 == MISSING_LOOKS:
                flagged.append(name)
            elif count + 1 >= MISSING_LOOKS + NORMAL_LOOKS:
                self.always.discard(name)
                del self.absent[name]
        return flagged

    def missing(self) -> dict[str, float]:
        """Flagged names, and since when."""
        return {name: since for name, (count, since) in self.absent.items() if count >= MISSING_LOOKS}

    def acknowledge(self) -> None:
        """What is new is normal."""
        self.known |= set(list(self.new)[: MAX_NAMES - len(self.known)])
        self.always -= self.absent.keys()
        self.new.clear()
        self.absent.clear()

    def forget(self, before: float) -> None:
        """Names that were new a long time ago, and did not become normal."""
        self.new = {name: found for name, found in self.new.items() if found[1] >= before}
