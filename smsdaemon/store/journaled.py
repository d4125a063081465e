"""Accepting whatever PostgreSQL does: by its commits, and by the journal while there are none.

An SMS goes one of three ways:

- PostgreSQL is well and the journal is empty: straight to PostgreSQL.
- PostgreSQL has committed nothing for a while although something waits: into the journal. What was on
  its way to PostgreSQL goes first, under the ids that it was sent with, since it may be stored already.
- PostgreSQL is well again and the journal is not empty yet: it is held until the journal is. Otherwise
  it could be stored before what was accepted earlier. Where that takes long, into the journal as well.

The journal is one for all workers of a daemon, and so is its order: all this holds whichever of them a
conversation comes to. What is in it is moved by journal_mover.Mover.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.domain.model import InboundSMS, Receipt
from smsdaemon.errors import StoreOverloaded, StoreUnavailable
from smsdaemon.ports import Offer
from smsdaemon.store.batch import Batcher
from smsdaemon.store.journal import Journal, JournalEntry
from smsdaemon.store.journal_mover import Mover
from smsdaemon.store.messages import MAX_WAITING, Acceptance, PostgresMessages, row
from smsdaemon.store.parts import journal_fields

LOOK_SECONDS = 0.05
"""How often it is looked whether PostgreSQL commits, and whether the journal is empty."""
HELD_AT_MOST = 1000
"""Moving more than this takes longer than a peer should be kept waiting for it."""
HELD_SECONDS = 3.0
"""Where the journal cannot be written to; after this a peer hears 500."""
_APPEND_SECONDS = 3.0


@define(eq=False)
class _Accepting:
    """What waits for its 200: one SMS, or several that go together."""

    entries: list[Acceptance]
    since: float
    done: Deferred[Any]
    """Fires with a receipt, or, of several, with a list of them."""
    together: bool = False
    stored: Deferred[Any] | None = None
    """While it is on its way to PostgreSQL."""


class JournaledMessages:
    """Implements ports.MessageStore."""

    def __init__(
        self,
        *,
        messages: PostgresMessages,
        journal: Journal,
        mover: Mover,
        timer: IReactorTime,
        journal_after: float,
    ) -> None:
        """``journal_after``: seconds without a commit until the journal is used."""
        self._messages, self._journal, self._mover = messages, journal, mover
        self._timer, self._journal_after = timer, journal_after
        self._log = Logger(namespace="smsdaemon.journal")
        self._sent: deque[_Accepting] = deque()
        self._held: deque[_Accepting] = deque()
        self._progress_at = 0.0
        self._away = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = timer
        self._appends: Batcher[JournalEntry, UUID] = Batcher(
            lend=lambda use: use(None),
            send=lambda _, entries: journal.append(entries),
            timer=timer,
            max_waiting=MAX_WAITING,
            patience=_APPEND_SECONDS,
        )

    @property
    def away(self) -> bool:
        """Whether PostgreSQL is taken to be away."""
        return self._away

    def start(self) -> None:
        """Begin to look after PostgreSQL and the journal, also what is in it from before."""
        self._mover.follow(self._answered)
        self._looking.start(LOOK_SECONDS, now=False).addErrback(self._stopped_looking)

    async def close(self) -> None:
        """Take nothing more; what waits fails, and what was accepted stays where it is."""
        if self._looking.running:
            self._looking.stop()
        self._messages.close()
        self._appends.close()
        while self._held:
            self._held.popleft().done.errback(StoreUnavailable("the store is closed"))
        await self._mover.close()

    def accept(self, sms: InboundSMS, provider_key: bytes | None, lease: bool) -> Deferred[Receipt]:
        if len(self._sent) + len(self._held) >= MAX_WAITING:
            return fail(StoreOverloaded("too many are waiting for the database"))
        entry = self._messages.acceptance(sms, provider_key, lease)
        done: Deferred[Receipt] = Deferred()
        self._accept(_Accepting([entry], self._timer.seconds(), done))
        return done

    def accept_all(self, batch: Sequence[Offer]) -> Deferred[list[Receipt]]:
        if len(self._sent) + len(self._held) >= MAX_WAITING:
            return fail(StoreOverloaded("too many are waiting for the database"))
        entries = [self._messages.acceptance(*offer) for offer in batch]
        done: Deferred[list[Receipt]] = Deferred()
        self._accept(_Accepting(entries, self._timer.seconds(), done, together=True))
        return done

    def _accept(self, waiting: _Accepting) -> None:
        if self._away and self._journal.usable:
            self._append([waiting])
        elif self._held or self._journal.pending:
            self._held.append(waiting)
            if self._journal.pending > HELD_AT_MOST and self._journal.usable:
                self._append_held()
        else:
            self._send(waiting)

    # --- straight to PostgreSQL ---------------------------------------------------------------

    def _send(self, waiting: _Accepting) -> None:
        if not self._sent:
            self._progress_at = self._timer.seconds()
        self._sent.append(waiting)
        stored: Deferred[Any]
        if waiting.together:
            stored = self._messages.send_all(waiting.entries)
        else:
            stored = self._messages.send(waiting.entries[0])
        waiting.stored = stored
        stored.addCallbacks(self._stored, self._not_stored, callbackArgs=(waiting,), errbackArgs=(waiting,))

    def _stored(self, receipts: Any, waiting: _Accepting) -> None:
        self._progress_at = self._timer.seconds()
        waiting.stored = None
        self._forget_sent()
        waiting.done.callback(receipts)

    def _not_stored(self, failure: Failure, waiting: _Accepting) -> None:
        waiting.stored = None
        if failure.check(CancelledError):
            return  # by _go_away: the journal has it
        if failure.check(StoreUnavailable) and not failure.check(StoreOverloaded) and self._journal.usable:
            # It may have been stored for all we know, and so may those that were sent with it.
            self._go_away(str(failure.value), also=waiting)
            return
        self._forget_sent()
        waiting.done.errback(failure)

    def _forget_sent(self) -> None:
        while self._sent and self._sent[0].stored is None:
            self._sent.popleft()

    # --- the journal --------------------------------------------------------------------------

    def _go_away(self, why: str, also: _Accepting | None = None) -> None:
        """From now on the journal; first what PostgreSQL has not answered, in its order."""
        if not self._away:
            self._log.warn("PostgreSQL commits nothing, SMS go into the journal: {why}", why=why)
        self._away = True
        unanswered = [sent for sent in self._sent if sent.stored is not None or sent is also]
        self._sent.clear()
        for sent in unanswered:
            stored, sent.stored = sent.stored, None
            if stored is not None:
                stored.cancel()
        self._append(unanswered)
        self._append_held()

    def _append_held(self) -> None:
        held, self._held = self._held, deque()
        self._append(held)

    def _append(self, all_waiting: Iterable[_Accepting]) -> None:
        for waiting in all_waiting:
            d = self._appends.add_all([_journal_entry(entry) for entry in waiting.entries])
            d.addCallbacks(self._appended, waiting.done.errback, callbackArgs=(waiting,))

    def _appended(self, named: list[UUID], waiting: _Accepting) -> None:
        pairs = zip(named, waiting.entries, strict=True)
        receipts = [Receipt(id=id, duplicate=id != entry.sms.id) for id, entry in pairs]
        waiting.done.callback(receipts if waiting.together else receipts[0])

    # --- looking after both -------------------------------------------------------------------

    def _look(self) -> None:
        late = self._timer.seconds() - self._journal_after
        self._forget_sent()
        # Where the journal is in trouble, a PostgreSQL that is merely slow is the better hope.
        if self._sent and self._progress_at <= late and self._journal.trouble is None:
            self._go_away(f"nothing within {self._journal_after:g} s")
        if self._away or self._journal.pending:
            self._mover.wake()
        if self._held and not self._away and not self._journal.pending:
            held, self._held = self._held, deque()
            for waiting in held:
                self._send(waiting)
        elif self._held and (self._away or self._held[0].since <= late) and self._journal.usable:
            self._append_held()
        elif self._held and self._held[0].since <= self._timer.seconds() - HELD_SECONDS:
            self._held.popleft().done.errback(StoreUnavailable("the journal cannot be used"))

    def _answered(self) -> None:
        """PostgreSQL has: as far as anybody knows it is well again."""
        if self._away:
            self._log.info("PostgreSQL answers again")
        self._away = False

    def _stopped_looking(self, failure: Failure) -> None:
        self._log.failure("the journal is not looked after any more", failure=failure)


def _journal_entry(entry: Acceptance) -> JournalEntry:
    lost = None if entry.sent_under is None else str(entry.sent_under)
    return JournalEntry(
        id=entry.sms.id,
        key=entry.provider_key,
        row={**row(entry), **journal_fields(entry.sms), "wants_lease": False, "lost_lease": lost},
    )
