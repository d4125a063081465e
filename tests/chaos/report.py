"""Says what came of a run: a table, examples of what was wrong, and the same as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from tests.chaos import kinds
from tests.chaos.history import Events

_EXAMPLES = 10


@frozen(kw_only=True)
class Outcome:
    """Of one run."""

    seed: int
    seconds: float
    """How long SMS were sent and faults happened."""
    took: float
    """From the first process to the last."""
    workers: int
    broken: str
    figures: Mapping[str, float | int]
    faults: Mapping[str, int]
    """How often each kind happened."""
    wrong: Mapping[str, Sequence[str]] = field()
    """By invariant; each is there, with nothing in it where all is well."""

    @property
    def passed(self) -> bool:
        return not any(self.wrong.values())

    def document(self) -> dict[str, object]:
        """For var/chaos.json."""
        return {
            "passed": self.passed,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "took": round(self.took, 1),
            "workers": self.workers,
            "broken": self.broken,
            **{name.replace(" ", "_"): number for name, number in self.figures.items()},
            "wrong": {name: len(lines) for name, lines in self.wrong.items()},
            "faults": dict(self.faults),
            "examples": {name: list(lines[:_EXAMPLES]) for name, lines in self.wrong.items() if lines},
        }

    def __str__(self) -> str:
        rows: list[tuple[str, object]] = [
            ("seed", self.seed),
            ("seconds of faults", f"{self.seconds:.1f}"),
            ("seconds in all", f"{self.took:.1f}"),
            ("workers", self.workers),
            *self.figures.items(),
            *((name, len(lines)) for name, lines in self.wrong.items()),
            ("faults", sum(self.faults.values())),
            *((f"  {kind}", times) for kind, times in self.faults.items()),
        ]
        if self.broken:
            rows.insert(0, ("broken on purpose", self.broken))
        lines = [f"{name:<42}{value:>14}" for name, value in rows]
        for name, wrong in self.wrong.items():
            lines += [f"{name}: {line}" for line in wrong[:_EXAMPLES]]
            if len(wrong) > _EXAMPLES:
                lines.append(f"{name}: … and {len(wrong) - _EXAMPLES} more")
        return "\n".join(lines)

    def verdict(self) -> str:
        """The last line, as trial writes it: each invariant counts as a test."""
        failed = sum(1 for lines in self.wrong.values() if lines)
        passed = len(self.wrong) - failed
        if failed:
            return f"FAILED (failures={failed}, successes={passed})"
        return f"PASSED (successes={passed})"


def counted(events: Events) -> dict[str, int]:
    """How often each kind of fault happened."""
    happened = Counter(fault.kind for fault in events.faults if fault.happened)
    return {kind: happened[kind] for kind in kinds.ALL}
