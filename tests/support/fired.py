"""What a Deferred without a reactor has come to."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

_T = TypeVar("_T")


def outcome(awaitable: Deferred[_T] | Coroutine[Any, Any, _T]) -> _T:
    """Its result; raises what it has failed with, and AssertionError where it has not fired yet."""
    d: Deferred[Any] = awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)
    results: list[Any] = []
    d.addBoth(results.append)
    assert results, "it has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    result: _T = results[0]
    return result
