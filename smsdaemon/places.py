"""How many attempts are in flight to each target, and whether more of a target's are waiting."""

from __future__ import annotations

from collections import Counter


class Places:
    """Bounds attempts per target and in all; pure bookkeeping, no input or output."""

    def __init__(self, *, per_target: int, in_all: int) -> None:
        self._per_target, self._in_all = per_target, in_all
        self._taken: Counter[int] = Counter()
        self._total = 0
        self._more: set[int] = set()

    @property
    def total(self) -> int:
        """Attempts in flight, with places reserved for some."""
        return self._total

    def reserve(self, target_id: int) -> bool:
        """Take a place if there is one."""
        if self._taken[target_id] >= self._per_target or self._total >= self._in_all:
            self._more.add(target_id)
            return False
        self.take(target_id)
        return True

    def take(self, target_id: int) -> None:
        """Take a place even beyond the bound (what was claimed must be attempted)."""
        self._taken[target_id] += 1
        self._total += 1

    def free(self, target_id: int) -> None:
        self._total -= 1
        self._taken[target_id] -= 1
        if not self._taken[target_id]:
            del self._taken[target_id]

    def room(self) -> dict[int, int]:
        """How many more each target that has any in flight may take."""
        return {target: max(0, self._per_target - taken) for target, taken in self._taken.items()}

    def room_in_all(self) -> int:
        return max(0, self._in_all - self._total)

    def waits(self, target_id: int) -> None:
        """Note that the target has more pending than was taken."""
        self._more.add(target_id)

    def worth_a_look(self, target_id: int) -> bool:
        """Whether more are waiting for the target and enough places are free to ask for them.

        A quarter of them at least: asking the store for every single one would cost more than the
        attempts.
        """
        return target_id in self._more and self._taken[target_id] * 4 <= self._per_target * 3

    def claimed(self, asked: dict[int, int], elsewhere: int, got: Counter[int], cut: bool) -> None:
        """Learn from an answer of the store: who filled all its room probably has more.

        ``asked``: the room that was offered; ``cut``: the answer was bounded in all.
        """
        if not cut:
            self._more -= {target for target in self._more if asked.get(target, elsewhere) > got[target]}
        for target, count in got.items():
            if count >= asked.get(target, elsewhere):
                self._more.add(target)
