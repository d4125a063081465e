"""Base classes that refuse tests which would never run."""

from __future__ import annotations

import inspect

from twisted.trial.unittest import SynchronousTestCase, TestCase


class UnitTest(SynchronousTestCase):
    """No reactor, no socket; refuses tests that would never be awaited."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, member in vars(cls).items():
            if name.startswith("test") and (
                inspect.iscoroutinefunction(member) or inspect.isgeneratorfunction(member)
            ):
                raise TypeError(f"{cls.__qualname__}.{name} would never be awaited")


class ReactorTest(TestCase):
    """Runs on the real reactor; trial awaits ``async def test_…`` and coroutine set-ups here."""

    timeout = 60

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, member in vars(cls).items():
            if name.startswith("test") and inspect.isgeneratorfunction(member):
                raise TypeError(f"{cls.__qualname__}.{name} would never be run")
