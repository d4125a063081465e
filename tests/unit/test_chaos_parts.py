"""What the checker of `make chaos` sees of concatenated SMS and of forged requests, and what those are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from smsdaemon.errors import SignatureRefused
from smsdaemon.providers.schemes import make_scheme
from tests.chaos import checker, kinds
from tests.chaos.calls import Errand, call
from tests.chaos.history import Attempt, Request, Row
from tests.chaos.plan import (
    FORGERIES,
    PROVIDER_SECRET,
    Conversation,
    Profile,
    composition,
    conversations,
    forgery,
)
from tests.chaos.texts import STRANGE, Said, part_text, read_text, whole_text
from tests.support.cases import UnitTest
from tests.support.chaos_events import CONCATENATION, CheckerTest, attempt, fault, request, row, unanswered
from tests.support.provider_requests import PUBLIC_URL
from tests.support.vectors import wire_request

AWAY = fault(kinds.DATABASE_REFUSED, 0, 10)


def part(piece: int, at: float, *, number: int = 1, total: int = 3, **known: Any) -> Request:
    return request(number, at, part=piece, total=total, **known)


def parts(at: float, pieces: Sequence[int] = (1, 2, 3), **known: Any) -> list[Request]:
    """So many of an SMS of three, 0.1 s apart."""
    return [part(piece, at + 0.1 * n, **known) for n, piece in enumerate(pieces)]


def of_pieces(pieces: Sequence[int], at: float, *, number: int = 1, **known: Any) -> Attempt:
    missing = [piece for piece in (1, 2, 3) if piece not in pieces]
    return attempt(number, at, **{"pieces": pieces, "parts": 3, "missing": missing, **known})


def row_of(pieces: Sequence[int], *, number: int = 1, **known: Any) -> Row:
    return row(number, pieces=tuple(pieces), **known)


class PartsTest(CheckerTest):
    def all_wrong(self, **known: Any) -> dict[str, int]:
        """How much is wrong, by invariant."""
        wrong = checker.check(self.run_of(**known))
        return {name: len(lines) for name, lines in wrong.items() if lines}


class LostTests(PartsTest):
    def test_joined_and_delivered_nothing_is_wrong(self) -> None:
        known = {"attempts": [of_pieces([1, 2, 3], 1)], "rows": [row_of([1, 2, 3])]}
        self.assertEqual(self.all_wrong(requests=parts(0, (3, 1, 2, 1)), **known), {})

    def test_parts_of_which_nothing_is_stored_are_each_lost(self) -> None:
        self.assertEqual(self.all_wrong(requests=parts(0, (1, 3))), {"lost": 2})

    def test_a_part_that_is_not_in_its_sms_is_lost(self) -> None:
        known = {"attempts": [of_pieces([1, 3], 5)], "rows": [row_of([1, 3])]}
        self.assertEqual(self.all_wrong(requests=parts(0), **known), {"lost": 1})
        unheard = [*parts(0, (1, 3)), unanswered(1, 0.3, part=2, total=3)]
        self.assertEqual(self.wrong("lost", requests=unheard, **known), 0)

    def test_the_id_that_a_part_heard_is_that_of_the_sms_it_is_in(self) -> None:
        known = {"attempts": [of_pieces([1, 2, 3], 1)], "rows": [row_of([1, 2, 3])]}
        requests = [*parts(0, (1, 2)), part(3, 0.3, id="other")]
        self.assertEqual(self.all_wrong(requests=requests, **known), {"lost": 1})
        self.assertEqual(self.all_wrong(requests=requests, **known, aliases={"other": "i1"}), {})

    def test_one_that_is_never_given_up_is_lost(self) -> None:
        known = {"attempts": [of_pieces([1, 2, 3], 1)], "rows": [row_of([1, 2, 3])]}
        never = parts(1, (2,), number=2, id="i2")
        self.assertEqual(self.all_wrong(requests=[*parts(0), *never], **known), {"lost": 1})


class StoredTwiceTests(PartsTest):
    rows = (row_of([1, 2, 3]), row_of([2], id="copy"))
    attempts = (of_pieces([1, 2, 3], 1), of_pieces([2], 9, id="copy", delivery="dc"))

    def test_a_repeat_that_begins_another_sms_is_one_too_many(self) -> None:
        requests = [*parts(0), part(2, 5, id="copy")]
        known = {"requests": requests, "rows": self.rows, "attempts": self.attempts}
        self.assertEqual(self.wrong("stored twice", **known), 1)

    def test_a_part_that_is_twice_in_one_sms(self) -> None:
        known = {"attempts": [of_pieces([1, 2, 2, 3], 1)], "rows": [row_of([1, 2, 2, 3])]}
        self.assertEqual(self.all_wrong(requests=parts(0), **known), {"stored twice": 1, "wrongly joined": 1})

    def test_a_part_that_was_never_sent(self) -> None:
        known = {"attempts": [of_pieces([1, 2, 3], 1)], "rows": [row_of([1, 2, 3])]}
        self.assertEqual(self.wrong("stored twice", requests=parts(0, (1, 2)), **known), 1)

    def test_without_ids_one_behind_an_sms_that_was_given_up_makes_another_with_what_came_late(self) -> None:
        late = [
            *parts(0, (1, 2), identified=False),
            part(3, 5, identified=False, id="late"),
            part(1, 5.1, identified=False, id="late"),
        ]
        rows = [row_of([1, 2]), row_of([1, 3], id="late")]
        attempts = [of_pieces([1, 2], 3.5), of_pieces([1, 3], 8.5, id="late", delivery="dl")]
        self.assertEqual(self.all_wrong(requests=late, rows=rows, attempts=attempts), {})
        named = [part(each.part, each.sent, id=each.id) for each in late]
        self.assertEqual(self.all_wrong(requests=named, rows=rows, attempts=attempts), {"stored twice": 1})


class WronglyJoinedTests(PartsTest):
    def apart(self, requests: Sequence[Request], **known: Any) -> int:
        rows = [row_of([1, 2]), row_of([3], id="late")]
        attempts = [of_pieces([1, 2], 20), of_pieces([3], 21, id="late", delivery="dl")]
        return self.wrong("wrongly joined", requests=requests, rows=rows, attempts=attempts, **known)

    def test_parts_that_came_in_time_are_one_sms(self) -> None:
        in_time = [*parts(0, (1, 2)), part(3, CONCATENATION - 0.5, id="late")]
        self.assertEqual(self.apart(in_time), 1)

    def test_one_that_came_after_the_others_were_given_up_is_an_sms_of_its_own(self) -> None:
        self.assertEqual(self.apart([*parts(0, (1, 2)), part(3, CONCATENATION + 0.5, id="late")]), 0)
        self.assertEqual(self.apart([part(3, 0, id="late"), *parts(CONCATENATION + 0.5, (1, 2))]), 0)

    def test_one_that_waited_in_the_journal_may_come_too_late(self) -> None:
        in_time = [*parts(0, (1, 2)), part(3, 1, id="late")]
        self.assertEqual(self.apart(in_time, faults=[AWAY]), 0)
        self.assertEqual(self.apart(in_time, faults=[fault(kinds.DISK_FULL, 0, 10)]), 1)
        self.assertEqual(self.apart([*parts(0, (1, 2)), part(3, 1, takes=0.6, id="late")]), 0)

    def test_a_whole_one_leaves_nothing_over(self) -> None:
        rows = [row_of([1, 2, 3]), row_of([3], id="copy")]
        requests = [*parts(0), part(3, 20, id="copy")]
        self.assertEqual(self.wrong("wrongly joined", requests=requests, rows=rows), 1)

    def told(self, delivered: Attempt, pieces: Sequence[int] = (1, 3)) -> int:
        known = {"attempts": [delivered], "rows": [row_of(delivered.pieces)]}
        return self.wrong("wrongly joined", requests=parts(0, pieces), **known)

    def test_it_says_what_is_missing(self) -> None:
        self.assertEqual(self.told(of_pieces([1, 3], 5)), 0)
        self.assertEqual(self.told(of_pieces([1, 3], 5, missing=[])), 1)
        self.assertEqual(self.told(of_pieces([1, 3], 5, missing=[2, 3])), 1)
        self.assertEqual(self.told(of_pieces([1, 3], 5, parts=2)), 1)

    def test_parts_stand_in_their_order_and_all_are_of_this_sms(self) -> None:
        self.assertEqual(self.told(of_pieces([3, 1], 5)), 1)
        self.assertEqual(self.told(of_pieces([1, STRANGE, 3], 5)), 1)

    def test_what_is_delivered_is_what_is_stored(self) -> None:
        delivered, stored = of_pieces([1], 5), row_of([1, 3])
        known = {"requests": parts(0, (1, 3)), "attempts": [delivered], "rows": [stored]}
        self.assertEqual(self.wrong("wrongly joined", **known), 1)

    def test_nothing_is_given_up_before_its_time(self) -> None:
        self.assertEqual(self.told(of_pieces([1, 3], CONCATENATION + 0.1)), 0)
        self.assertEqual(self.told(of_pieces([1, 3], CONCATENATION - 0.1)), 1)

    def test_what_was_sent_as_a_whole_has_no_parts(self) -> None:
        known = {"requests": [request(1, 0)], "rows": [row(1)]}
        self.assertEqual(self.wrong("wrongly joined", **known, attempts=[attempt(1, 1)]), 0)
        self.assertEqual(self.wrong("wrongly joined", **known, attempts=[attempt(1, 1, missing=[2])]), 1)


class OrderTests(PartsTest):
    def order(self, requests: Sequence[Request], *attempts: Attempt, **known: Any) -> int:
        rows = [row_of(each.pieces, number=each.number, id=each.id) for each in attempts]
        return self.wrong("out of order", requests=requests, attempts=attempts, rows=rows, **known)

    def test_it_takes_its_place_when_it_is_complete(self) -> None:
        """SMS 2 was sent while the last part of 1 was still to come."""
        between = [*parts(0, (1, 2)), request(2, 1), part(3, 2)]
        joined, other = of_pieces([1, 2, 3], 4), attempt(2, 3)
        self.assertEqual(self.order(between, other, joined), 0)
        self.assertEqual(self.order(between, of_pieces([1, 2, 3], 3), attempt(2, 4)), 1)

    def test_what_is_sent_when_it_was_complete_comes_after_it(self) -> None:
        requests = [*parts(0), request(2, 1)]
        self.assertEqual(self.order(requests, of_pieces([1, 2, 3], 3), attempt(2, 4)), 0)
        self.assertEqual(self.order(requests, attempt(2, 3), of_pieces([1, 2, 3], 4)), 1)

    def test_what_overlaps_its_last_part_has_no_order_with_it(self) -> None:
        requests = [*parts(0, (1, 2)), part(3, 1, takes=0.4), request(2, 1.2)]
        self.assertEqual(self.order(requests, attempt(2, 3), of_pieces([1, 2, 3], 4)), 0)
        self.assertEqual(self.order(requests, of_pieces([1, 2, 3], 3), attempt(2, 4)), 0)

    def test_a_repeat_of_its_last_part_does_not_change_its_place(self) -> None:
        requests = [*parts(0), request(2, 1), part(3, 2)]
        self.assertEqual(self.order(requests, attempt(2, 3), of_pieces([1, 2, 3], 4)), 1)

    def test_one_that_is_given_up_comes_after_what_was_accepted_meanwhile(self) -> None:
        requests = [*parts(0, (1, 2)), request(2, 1)]
        self.assertEqual(self.order(requests, attempt(2, 2), of_pieces([1, 2], 4)), 0)
        self.assertEqual(self.order(requests, of_pieces([1, 2], 4), attempt(2, 5)), 1)

    def test_unless_that_was_in_the_journal_when_it_was_given_up(self) -> None:
        requests = [*parts(0, (1, 2)), request(2, 1)]
        attempts = (of_pieces([1, 2], 11), attempt(2, 12))
        self.assertEqual(self.order(requests, *attempts, faults=[AWAY]), 0)
        self.assertEqual(self.order(requests, *attempts, faults=[fault(kinds.DISK_FULL, 0, 10)]), 1)

    def test_what_is_sent_after_it_was_given_up_comes_after_it(self) -> None:
        requests = [*parts(0, (1, 2)), request(2, 5)]
        first = of_pieces([1, 2], 4, status=500)
        again = of_pieces([1, 2], 7, attempt=2)
        self.assertEqual(self.order(requests, first, again, attempt(2, 8)), 0)
        self.assertEqual(self.order(requests, first, attempt(2, 6), again), 1)


class ForgedTests(PartsTest):
    def test_it_is_neither_accepted_nor_stored_nor_delivered(self) -> None:
        refused = request(-1, 0, forged=True, status=401, id=None)
        good = {"attempts": [attempt(1, 1)], "rows": [row(1)]}
        self.assertEqual(self.all_wrong(requests=[refused, request(1, 0.5)], **good), {})
        taken = {"attempts": [attempt(-1, 1)], "rows": [row(-1)]}
        self.assertEqual(self.all_wrong(requests=[refused], **taken), {"forged": 2})
        accepted = request(-1, 0, forged=True)
        self.assertEqual(self.all_wrong(requests=[accepted]), {"forged": 1, "unexpected statuses": 1})

    def test_it_hears_401_also_while_nothing_can_be_stored(self) -> None:
        for status, takes in ((500, 0.1), (0, 0.1), (401, 5.5)):
            heard = request(-1, 5, takes=takes, forged=True, status=status, id=None)
            for kind, excused in ((kinds.WORKER_KILLED, True), (kinds.DISK_FULL, False)):
                wrong = self.wrong("unexpected statuses", requests=[heard], faults=[fault(kind, 4, 3)])
                self.assertEqual(wrong == 0, excused, (status, kind))


class PlanTests(UnitTest):
    def of(self, profile: Profile) -> Conversation:
        return next(each for each in conversations(80) if each.profile == profile and each.identified)

    def test_parts_come_in_any_order_some_again_and_some_never(self) -> None:
        vonage = self.of("vonage")
        planned = [composition(1, vonage, number) for number in range(200)]
        self.assertEqual(planned, [composition(1, vonage, number) for number in range(200)])
        in_parts = [each for each in planned if each is not None]
        self.assertTrue(0 < len(in_parts) < 200)
        for each in in_parts:
            self.assertLessEqual(set(each.sends), set(range(1, each.total + 1)))
        self.assertTrue(any(len(set(each.sends)) < each.total for each in in_parts))
        self.assertTrue(any(len(set(each.sends)) < len(each.sends) for each in in_parts))
        self.assertTrue(any(list(each.sends) != sorted(each.sends) for each in in_parts))
        self.assertTrue(any(each.interlude for each in in_parts))

    def test_only_where_the_profile_has_it(self) -> None:
        for number in range(50):
            self.assertIsNone(composition(1, self.of("twilio"), number))
            self.assertIsNone(forgery(1, self.of("vonage"), number))

    def test_each_forgery_is_one_and_the_genuine_request_is_none(self) -> None:
        twilio = self.of("twilio")
        self.verify(Errand(conversation=twilio, number=1))
        for forged in FORGERIES:
            errand = Errand(conversation=twilio, number=-1, forgery=forged)
            if forged == "another URL":
                self.assertTrue(call(errand).path.startswith("/SMSReceiver?"))
                continue
            with self.assertRaises(SignatureRefused, msg=forged):
                self.verify(errand)

    def verify(self, errand: Errand) -> None:
        made = call(errand)
        sent = wire_request(made.method, PUBLIC_URL + made.path, made.headers, made.body)
        make_scheme("twilio", {}).verify(sent, [PROVIDER_SECRET], datetime.now(UTC))


class TextTests(UnitTest):
    def test_a_text_says_which_sms_it_is_and_of_which_parts(self) -> None:
        self.assertEqual(read_text(whole_text("hasty", "1.2", 3)), Said(conversation="1.2", number=3))
        pieces = [part_text("hasty", "1.2", 3, part, 4) for part in (1, 2, 4)]
        self.assertEqual(read_text("".join(pieces)), Said(conversation="1.2", number=3, pieces=(1, 2, 4)))

    def test_what_is_of_another_is_seen(self) -> None:
        mixed = part_text("hasty", "1.2", 3, 1, 2) + part_text("hasty", "1.2", 4, 2, 2)
        self.assertEqual(read_text(mixed).pieces, (1, STRANGE))
        self.assertEqual(read_text(part_text("hasty", "1.2", 3, 1, 2) + "rest").pieces, (1, STRANGE))
