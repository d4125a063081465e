"""Reads what py-spy has seen: which module was at work, and for how much of the time.

py-spy's format ``raw`` is that of flame graphs: a line for each different stack, ``frame;frame;… count``,
the outermost first, each frame ``function (file:line)``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from attrs import frozen

_FRAME = re.compile(r"(?P<function>.*) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)\Z")
_OF_REACTOR = "mainLoop"
WAITING = "waiting in epoll"
INTERPRETER = "Python's own"


@frozen
class Frame:
    """One function in a stack."""

    function: str
    """Without the class or function that it is in."""
    file: str

    @property
    def module(self) -> str:
        """Ours by its file, a library by its name, all of Python's own as one."""
        # In this order: the environment is in the checkout, which may be called smsdaemon too.
        _, found, library = self.file.rpartition("site-packages/")
        if found:
            return library.partition("/")[0].removesuffix(".py")
        _, found, ours = f"/{self.file}".rpartition("/smsdaemon/")
        if found:
            return f"smsdaemon/{ours}"
        return INTERPRETER


@frozen
class Shares:
    """Of the samples of the reactor's thread, by module."""

    samples: int
    innermost: Counter[str]
    """Where it was at work; all of Python's own counts for whoever of ours or of a library called it."""
    inclusive: Counter[str]
    """Where it was at work, or in something that was called from there."""

    def percent(self, count: int) -> float:
        return round(100 * count / self.samples, 1) if self.samples else 0.0


def shares(lines: Iterable[str]) -> Shares:
    """Add up what py-spy has written; other threads than the reactor's are left out."""
    innermost: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for frames, count in _stacks(lines):
        if not any(frame.function == _OF_REACTOR for frame in frames):
            continue
        if frames[-1].function == "doPoll":
            innermost[WAITING] += count
            continue
        modules = [frame.module for frame in frames]
        inclusive.update(dict.fromkeys(modules, count))
        at_work = (module for module in reversed(modules) if module != INTERPRETER)
        innermost[next(at_work, INTERPRETER)] += count
    return Shares(innermost.total(), innermost, inclusive)


def _stacks(lines: Iterable[str]) -> Iterator[tuple[list[Frame], int]]:
    for line in lines:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        if stack and count.isdecimal():
            yield [_frame(text) for text in stack.split(";")], int(count)


def _frame(text: str) -> Frame:
    found = _FRAME.fullmatch(text)
    return Frame(text, "") if found is None else Frame(found["function"].rpartition(".")[2], found["file"])
