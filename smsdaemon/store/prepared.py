"""Statements that a connection plans once in a while, and not each time that it runs them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

PLANNED_FOR_SECONDS = 5.0
"""Planning a batch costs as much as running it (docs/performance.md). A plan for good would be that of an
empty table: what is pending grows by thousands in a second, and statistics come a minute later."""

SLOW_SECONDS = 0.02
"""What takes longer is planned anew: a plan for the empty table that `delivery` is after a quiet minute read
all of it, so that fifty acceptances took 64 ms of PostgreSQL's time beside 6,000 pending, and 1 ms after."""
PLANNED_AT_LEAST_FOR_SECONDS = 0.1
"""On a machine that is slow for other reasons planning would not help."""

_COMMENT = re.compile(r"--[^\n]*")
_PARAMETER = re.compile(r"%\((\w+)\)s")


class Prepared(str):
    """The text of one or several statements that are one transaction; the last one has the result.

    Parameters are written ``%(name)s``, as in any other statement, so that it can be run like any other
    where planning it does not matter.
    """

    name: str
    prepare: str
    execute: str
    """With parameters, as the driver takes them."""
    forget: str

    def __new__(cls, sql: str, *, name: str, types: Mapping[str, str]) -> Self:
        """``types``: the SQL type of each parameter."""
        self = super().__new__(cls, sql)
        steps = [step.strip() for step in _COMMENT.sub("", sql).split(";") if step.strip()]
        named = [(f"{name}_{n}", step) for n, step in enumerate(steps)]
        self.name = name
        self.prepare = ";".join(_prepare(name, step, types) for name, step in named)
        self.execute = ";".join(_execute(name, step) for name, step in named)
        self.forget = ";".join(f"DEALLOCATE {name}" for name, _ in named)
        return self


def _parameters(step: str) -> list[str]:
    """Each once, in the order in which they come first."""
    return list(dict.fromkeys(_PARAMETER.findall(step)))


def _prepare(name: str, step: str, types: Mapping[str, str]) -> str:
    parameters = _parameters(step)
    numbers = {parameter: f"${n}" for n, parameter in enumerate(parameters, 1)}
    declared = ", ".join(types[parameter] for parameter in parameters)
    return f"PREPARE {name} ({declared}) AS {_PARAMETER.sub(lambda found: numbers[found[1]], step)}"


def _execute(name: str, step: str) -> str:
    return f"EXECUTE {name} ({', '.join(f'%({parameter})s' for parameter in _parameters(step))})"
