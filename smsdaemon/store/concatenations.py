"""Concatenated SMS that wait: those whose time is over are given up, and those that ended are forgotten."""

from __future__ import annotations

import json
from functools import partial

from attrs import frozen

from smsdaemon.domain.concatenation import joined
from smsdaemon.domain.ids import uuid7
from smsdaemon.errors import StoreConflict
from smsdaemon.store import part_queries as queries
from smsdaemon.store.batch import MAX_REPEATS
from smsdaemon.store.message_queries import ACCEPT
from smsdaemon.store.messages import Acceptance, row
from smsdaemon.store.parts import LOCK_CLASS, Whole, lock_number, note_missing, read_waiting
from smsdaemon.store.pool import Pool, Run

AT_ONCE = 50


@frozen(kw_only=True)
class Patience:
    """How long parts are waited for, and what becomes of their SMS then."""

    seconds: float
    """From the first part that was stored, by the database's clock."""
    first_delay_seconds: float
    """From then to the first attempt, usually 0."""


async def give_up_overdue(pool: Pool, patience: Patience) -> int:
    """Store and queue what is there of SMS that were waited for long enough; returns how many.

    Any number of processes may do this at once, and while parts come in.
    """
    total = 0
    while True:
        found, given_up = await _once(pool, patience)
        total += given_up
        if found < AT_ONCE or not given_up:  # what others are at is theirs
            return total


async def _once(pool: Pool, patience: Patience) -> tuple[int, int]:
    """How many are overdue, at most AT_ONCE, and how many of them were given up."""
    steps = partial(_give_up, patience=patience)
    for _ in range(MAX_REPEATS - 1):
        try:
            return await pool.transaction(steps)
        except StoreConflict:
            continue  # another process made an SMS the head of the same conversation
    return await pool.transaction(steps)


async def _give_up(run: Run, patience: Patience) -> tuple[int, int]:
    overdue = {"timeout": patience.seconds, "at_once": AT_ONCE}
    keys = {lock_number(bytes(key)): bytes(key) for (key,) in await run(queries.OVERDUE, overdue)}
    if not keys:
        return 0, 0
    await run(queries.BOUND)
    locked = await run(queries.TRY_LOCK, {"class": LOCK_CLASS, "locks": list(keys)})
    mine = {"keys": [keys[lock] for (lock,) in locked], "timeout": patience.seconds}
    waiting = read_waiting(await run(queries.OVERDUE_NOW, mine)).values() if locked else []
    wholes = []
    for n, one in enumerate(waiting):
        sms = joined(one)
        wholes.append(Whole(n=n, sms=sms, delivery_id=uuid7(sms.received_at), completed=False))
    if wholes:
        ended = [str(whole.sms.id) for whole in wholes]
        await run(queries.STORE, {"ended": ended, "begun": "[]", "parts": "[]"})
        await _queue(run, wholes, patience)
    return len(keys), len(wholes)


async def _queue(run: Run, wholes: list[Whole], patience: Patience) -> None:
    parameters = {
        "rows": json.dumps(
            [
                {"n": whole.n, **row(Acceptance(whole.sms, None, False, whole.delivery_id))}
                for whole in wholes
            ],
            ensure_ascii=False,
        ),
        "lease": None,  # whoever claims it next has it
        "lease_seconds": 0,
        "first_delay": patience.first_delay_seconds,
        "holder": None,
    }
    await run(ACCEPT, parameters)
    await note_missing(run, wholes)
    await run(queries.NOTIFY)


async def forget_concatenations(pool: Pool, at_once: int = 1000) -> int:
    """Forget those that ended too long ago for their parts to be repeated; returns how many."""
    total = 0
    while True:
        [(count,)] = await pool.query(queries.FORGET, {"at_once": at_once})
        total += int(count)
        if count < at_once:
            return total
