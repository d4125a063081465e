"""What must be true of concatenated SMS, beside what must be of every SMS; pure.

An SMS that is sent in parts is in the end one that is whole, or, where parts did not come in time, one that
says which are missing. Those that came later, and only they, are an SMS of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from tests.chaos.evidence import Run, Sms, name_of, of_part
from tests.chaos.history import NEVER, Attempt, Row

EARLY_SECONDS = 0.05
"""By which two clocks may differ."""


def stored_twice(run: Run, sms: Sms, rows: Sequence[Row]) -> Iterator[str]:
    """Parts of a concatenated SMS that are in more of its rows than their provider can have caused.

    Without an id of the provider's a repeat is recognised too, unless it comes when its SMS was given up
    and a part that came late has begun another.
    """
    given_up = not all(map(run.is_whole, rows))
    for part in {part for row in rows for part in row.pieces}:
        times = sum(row.pieces.count(part) for row in rows)
        requests = run.in_parts[sms].get(part, [])
        caused = 1
        if given_up and requests and not requests[0].identified:
            caused = len(requests)
        if not requests:
            yield f"{of_part(part, sms)} is stored and was never sent"
        elif times > caused:
            yield f"{of_part(part, sms)} is stored {times} times"


def wrongly_joined(run: Run) -> Iterator[str]:
    """What is not one SMS although it could be, or says what it is not, or was given up too early."""
    for sms, rows in run.rows_of.items():
        if sms not in run.in_parts:
            continue
        for one, other in combinations(rows, 2):
            if not (_ended_before(run, one, other) or _ended_before(run, other, one)):
                apart = f"{one.pieces} and {other.pieces}"
                yield f"{name_of(sms)} came apart, into {apart}, although all came in time"
    told: set[str] = set()
    for attempt in run.events.attempts:
        if attempt.id not in told and (wrong := _wrong_with(run, attempt)):
            told.add(attempt.id)
            yield f"{name_of(attempt.sms)} {wrong}"


def _ended_before(run: Run, one: Row, other: Row) -> bool:
    """Whether ``one`` can have been given up before any part of ``other`` was stored.

    Of parts that both have it is not known when they came for the second time.
    """
    if run.is_whole(one):
        return False
    ended, late = _given_up_after(run, one), set(other.pieces) - set(one.pieces)
    return all(_in_postgres_by(run, other.sms, part) >= ended for part in late)


def _in_postgres_by(run: Run, sms: Sms, part: int) -> float:
    requests = run.in_parts[sms].get(part, [])
    return min(map(run.in_postgres_by, requests), default=NEVER)


def _given_up_after(run: Run, what: Row | Attempt) -> float:
    """It waits for so long from when its first part was stored, which is after that was sent."""
    parts = run.in_parts[what.sms]
    sent = [request.sent for piece in what.pieces for request in parts.get(piece, [])]
    return min(sent, default=NEVER) + run.terms.concatenation


def _wrong_with(run: Run, attempt: Attempt) -> str:
    row = run.row_of.get(attempt.id)
    if row is not None and row.pieces != attempt.pieces:
        return f"is stored as {row.pieces} and delivered as {attempt.pieces}"
    if attempt.sms not in run.in_parts:
        whole = (attempt.pieces, attempt.parts, attempt.missing) == ((), 1, ())
        return "" if whole else f"was sent as a whole, and is delivered as {_told(attempt)}"
    total = run.requests_of[attempt.sms][0].total
    pieces = tuple(part for part in range(1, total + 1) if part in attempt.pieces)
    missing = tuple(part for part in range(1, total + 1) if part not in attempt.pieces)
    if (attempt.pieces, attempt.parts, attempt.missing) != (pieces, total, missing):
        return f"has {total} parts, and is delivered as {_told(attempt)}"
    if missing and attempt.began < (until := _given_up_after(run, attempt)) - EARLY_SECONDS:
        return f"was given up {until - attempt.began:.3f} s too early"
    return ""


def _told(attempt: Attempt) -> str:
    return f"{attempt.pieces} of {attempt.parts} without {attempt.missing}"


def figures(run: Run) -> dict[str, int]:
    """What was counted, for the table."""
    rows = [row for sms in run.in_parts for row in run.rows_of.get(sms, [])]
    whole = [row for row in rows if run.is_whole(row)]
    certain = [
        row for row in whole if all(_stored_in_time(run, row.sms, part) for part in run.in_parts[row.sms])
    ]
    return {
        "SMS sent in parts": len(run.in_parts),
        "joined": len(whole),
        "joined, all parts surely in time": len(certain),
        "given up": len(rows) - len(whole),
        "come apart, as parts came late": len(rows) - len({row.sms for row in rows}),
    }


def _stored_in_time(run: Run, sms: Sms, part: int) -> bool:
    first = min(request.sent for request in run.requests_of[sms])
    return _in_postgres_by(run, sms, part) < first + run.terms.concatenation
