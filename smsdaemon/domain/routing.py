"""What a target's answer means for a delivery."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from attrs import frozen

from smsdaemon.domain.model import (
    MAX_HOPS,
    Answer,
    Dead,
    Delivered,
    Delivery,
    Directory,
    Hop,
    Target,
    TargetKind,
)
from smsdaemon.domain.text import storable
from smsdaemon.errors import NoRoute

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a target's longer wish is cut to this (contract 5)."""

_GONE = 410
_HONOUR_RETRY_AFTER = (429, 503)
_KINDS: tuple[TargetKind, ...] = ("acd_group", "application")
_SHOWN_CHARACTERS = 80
_KEPT_CHARACTERS = 200


@frozen(kw_only=True)
class TryAgain:
    """The attempt failed in a way that may pass; RetryPolicy says when to try again, if at all."""

    reason: str
    retry_after: float | None = None
    """Seconds the target asked to be left alone for."""


def read_answer(
    answer: Answer, delivery: Delivery, target: Target, directory: Directory, now: datetime
) -> Delivered | Dead | TryAgain:
    """Say what ``target``'s answer makes of ``delivery``; ``directory`` is where it may go on to."""
    reason = f"answered {answer.status}"
    if 200 <= answer.status < 300:
        try:
            onward = _onward(answer.body, delivery, target, directory)
        except NoRoute as error:
            return Dead(reason=str(error))
        hops = () if onward is None else (*delivery.hops, Hop(kind=target.kind, name=target.name))
        return Delivered(onward=onward, onward_hops=hops, reason=reason)
    if answer.status == _GONE:
        return Dead(reason=reason)
    if 300 <= answer.status < 400:
        return TryAgain(reason=f"{reason}; redirects are not followed")
    if answer.status in _HONOUR_RETRY_AFTER:
        return TryAgain(reason=reason, retry_after=retry_after_seconds(answer.retry_after, now))
    return TryAgain(reason=reason)


def excerpt(body: bytes) -> str:
    """The first 200 characters of an answer's body, storable, whatever its charset."""
    # No character of UTF-8 has more than four bytes; a cut one would be behind the 200.
    beginning = body[: 4 * _KEPT_CHARACTERS].decode(errors="replace")
    return storable(beginning[:_KEPT_CHARACTERS])


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """The seconds a Retry-After header asks for, at most an hour; None where it says nothing.

    RFC 9110, section 10.2.3: a count of seconds or a date.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        # More digits than any sensible wait has: int() of thousands of them raises.
        return min(float(int(text)), LONGEST_RETRY_AFTER) if len(text) < 10 else LONGEST_RETRY_AFTER
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    if at.tzinfo is None:  # "-0000", by RFC 5322 a time in UTC from who knows where
        at = at.replace(tzinfo=UTC)
    return min(max((at - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def _onward(body: bytes, delivery: Delivery, target: Target, directory: Directory) -> Target | None:
    """Where a routing application sends the SMS on to; raises NoRoute for a route that leads nowhere."""
    if target.kind != "application" or not body:
        return None
    route = _route(body)
    if route is None:
        return None
    kind, name = _destination(route)
    onward = directory.target_named(target.client_id, kind, name)
    if onward is None:
        raise NoRoute(f"the route names no {_described(kind, name)} of this client")
    if not onward.enabled:
        raise NoRoute(f"the route names the {_described(kind, name)}, which is disabled")
    if len(delivery.hops) + 1 > MAX_HOPS:
        raise NoRoute(f"the route would be hop {len(delivery.hops) + 1}; {MAX_HOPS} are allowed")
    return onward


def _route(body: bytes) -> object | None:
    """What the body has as its route; None where it has none, as in every body that is not our JSON."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # RecursionError: nested deeper than the parser follows
        return None
    return document.get("route") if isinstance(document, dict) else None


def _destination(route: object) -> tuple[TargetKind, str]:
    """The kind and name a route gives; null counts as absent, as in requests (contract 3)."""
    if not isinstance(route, dict):
        raise NoRoute("the route is not an object")
    named = [(kind, route[kind]) for kind in _KINDS if route.get(kind) is not None]
    if not named:
        raise NoRoute("the route names neither an acd_group nor an application")
    if len(named) > 1:
        raise NoRoute("the route names both an acd_group and an application")
    kind, name = named[0]
    if not isinstance(name, str):
        raise NoRoute(f"the route's {kind} is not a text")
    return kind, name


def _described(kind: TargetKind, name: str) -> str:
    """Fit for a log line and a text column, whatever the application sent as a name."""
    shown = name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "…"
    return f"{kind} {shown!r}"
