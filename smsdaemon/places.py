"""How many attempts are in flight to each target, and whether more of a target's are waiting."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

K = TypeVar("K")


class Places:
    """Bounds attempts per target, per connector and in all; pure bookkeeping, no input or output.

    - A target may have ``per_target``, and fewer and fewer, down to one, from when less than half of
      ``in_all`` is free. So it takes hundreds of targets that hang to leave none to the others.
    - A connector may hold three quarters of a target's where others have used that target recently.
      The rest is for what these send, whatever waits of the one.
    """

    def __init__(self, *, per_target: int, in_all: int) -> None:
        """``in_all``: at least twice ``per_target``, or no target can have that many."""
        self._per_target, self._in_all = per_target, in_all
        self._three_quarters = max(1, per_target * 3 // 4)
        self._taken: Counter[int] = Counter()
        self._taken_of: Counter[tuple[int, int]] = Counter()
        """By target and connector."""
        self._total = 0
        self._more: Counter[int] = Counter()
        """By target: how many are known, or thought, to be pending and not taken."""
        self._users: dict[int, set[int]] = {}
        self._users_before: dict[int, set[int]] = {}
        """Connectors of each target, two at most: who is alone need not be known by name."""

    @property
    def total(self) -> int:
        """Attempts in flight, with places reserved for some."""
        return self._total

    def reserve(self, target_id: int, connector_id: int) -> bool:
        """Take a place if there is one."""
        self._note_user(target_id, connector_id)
        taken = self._taken[target_id]
        if taken >= self._share() or (
            self._taken_of[target_id, connector_id] >= self._three_quarters
            and self._users_of(target_id) - {connector_id}
        ):
            return False
        self.take(target_id, connector_id)
        return True

    def take(self, target_id: int, connector_id: int) -> None:
        """Take a place even beyond the bounds (what is given back needs no more than a moment)."""
        self._taken[target_id] += 1
        self._taken_of[target_id, connector_id] += 1
        self._total += 1

    def has_one(self, target_id: int) -> bool:
        """Whether a place is free for what was claimed. Who has none in flight always gets one."""
        taken = self._taken[target_id]
        return taken < min(self._bound(target_id), self._share()) or not taken

    def free(self, target_id: int, connector_id: int) -> None:
        self._total -= 1
        one_less(self._taken, target_id)
        one_less(self._taken_of, (target_id, connector_id))

    def forget_users(self) -> None:
        """What was not used since the call before this one counts no more as used recently."""
        self._users_before, self._users = self._users, {}

    # --- what may be claimed ------------------------------------------------------------------

    def room(self) -> dict[int, int]:
        """How many more each target that has any in flight may take."""
        share = self._share()
        return {
            target: max(0, min(self._bound(target), share) - taken) for target, taken in self._taken.items()
        }

    def room_elsewhere(self) -> int:
        """The same of any other target."""
        return min(self._three_quarters, self._share())

    def room_in_all(self) -> int:
        return max(0, self._in_all - self._total)

    def _share(self) -> int:
        """How many a target may have now."""
        free = self.room_in_all()
        if 2 * free >= self._in_all:
            return self._per_target
        left = 2 * free / self._in_all
        return max(min(1, free), int(self._per_target * left * left))

    def refused(self, target_id: int) -> None:
        """Note that something will be pending for the target which was not taken."""
        self._more.setdefault(target_id, 1)

    def waits(self, target_id: int) -> None:
        """Note that one more is pending for the target which was not taken."""
        self._more[target_id] += 1

    def worth_a_look(self, target_id: int, may_wait: int = 0, wait: int = 0) -> bool:
        """Whether enough are pending for the target, and there is room enough, to ask for them.

        ``may_wait``: how many may be claimed beyond its places; ``wait``: how many of them are there.
        Asking the store for every single one would cost more than the attempts. So a quarter of the
        places are free, or a quarter of all that could be claimed is known to wait.
        """
        more = self._more.get(target_id)
        if not more:
            return False
        taken, bound = self._taken[target_id], self._bound(target_id)
        if taken * 4 <= bound * 3:
            return taken < self._share()
        return more * 4 >= bound + may_wait and wait * 2 < may_wait

    def claimed(self, asked: dict[int, int], elsewhere: int, got: Counter[int], cut: bool) -> None:
        """Learn from an answer of the store: who filled all its room probably has as many more.

        ``asked``: the room that was offered; ``cut``: the answer was bounded in all.
        """
        if not cut:
            for target in [target for target in self._more if asked.get(target, elsewhere) > got[target]]:
                del self._more[target]
        for target, count in got.items():
            if count >= asked.get(target, elsewhere):
                self._more[target] = max(count, self._more[target] - count)

    # --- who uses a target --------------------------------------------------------------------

    def _bound(self, target_id: int) -> int:
        """How many may be claimed for the target: where several use it, a quarter stays for what comes."""
        return self._three_quarters if len(self._users_of(target_id)) > 1 else self._per_target

    def _note_user(self, target_id: int, connector_id: int) -> None:
        users = self._users.setdefault(target_id, set())
        if len(users) < 2:
            users.add(connector_id)

    def _users_of(self, target_id: int) -> set[int]:
        return self._users.get(target_id, set()) | self._users_before.get(target_id, set())


def one_less(counts: Counter[K], key: K) -> None:
    """What is down to nothing is forgotten, or every target ever would be remembered."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
