"""The checker of `make chaos`: what it must see, and what it must not take for a fault."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos import checker, kinds
from tests.chaos.history import NEVER, Attempt, Fault, Request, read
from tests.support.cases import UnitTest
from tests.support.chaos_events import LEASE, TIMEOUT, CheckerTest, attempt, fault, request, row, unanswered


class WholeRunTests(CheckerTest):
    def test_a_run_in_which_all_went_well_has_nothing_wrong(self) -> None:
        run = self.run_of(
            [request(1, 0), request(2, 1)], [attempt(1, 0.1), attempt(2, 1.1)], [row(1), row(2)]
        )
        self.assertEqual(checker.check(run), {name: [] for name in checker.INVARIANTS})
        self.assertEqual(checker.figures(run)["delivered"], 2)

    def test_a_kind_of_fault_that_did_not_happen_is_named(self) -> None:
        in_vain = Fault(kind=kinds.COMMIT_CUT, began=0, ended=5, happened=False)
        events = self.run_of(faults=[fault(kinds.DISK_FULL, 0), in_vain]).events
        self.assertEqual(
            checker.missing_kinds(events, [kinds.DISK_FULL, kinds.COMMIT_CUT, kinds.CLOCK_BACK]),
            [kinds.COMMIT_CUT, kinds.CLOCK_BACK],
        )


class LostTests(CheckerTest):
    def test_what_was_answered_200_and_is_not_stored_is_lost(self) -> None:
        self.assertEqual(self.wrong("lost", requests=[request(1, 0)]), 1)

    def test_what_was_not_answered_200_need_not_be_stored(self) -> None:
        refused = request(2, 1, status=500, id=None)
        self.assertEqual(self.wrong("lost", requests=[unanswered(1, 0), refused]), 0)

    def test_an_id_that_names_nothing_is_a_loss(self) -> None:
        parts = {"requests": [request(1, 0, id="other")], "attempts": [attempt(1, 1)], "rows": [row(1)]}
        self.assertEqual(self.wrong("lost", **parts), 1)
        self.assertEqual(self.wrong("lost", **parts, aliases={"other": "i1"}), 0)

    def test_what_is_still_pending_is_lost(self) -> None:
        rows = [row(1, state="pending")]
        self.assertEqual(self.wrong("lost", requests=[request(1, 0)], rows=rows), 1)

    def test_delivered_says_nothing_unless_the_target_took_it(self) -> None:
        refused = attempt(1, 1, status=500)
        parts = {"requests": [request(1, 0)], "rows": [row(1)]}
        self.assertEqual(self.wrong("lost", **parts, attempts=[refused]), 1)
        self.assertEqual(self.wrong("lost", **parts, attempts=[attempt(1, 1, end="closed")]), 1)
        self.assertEqual(self.wrong("lost", **parts, attempts=[refused, attempt(1, 2, attempt=2)]), 0)

    def test_it_must_come_to_every_target_of_its_chain(self) -> None:
        parts = {"requests": [request(1, 0)], "rows": [row(1)], "chain": ("t", "u")}
        self.assertEqual(self.wrong("lost", **parts, attempts=[attempt(1, 1)]), 1)
        both = [attempt(1, 1), attempt(1, 2, target="u", delivery="e1")]
        self.assertEqual(self.wrong("lost", **parts, attempts=both), 0)

    def test_dead_is_a_loss_unless_its_target_said_that_it_is_gone(self) -> None:
        parts = {"requests": [request(1, 0)], "rows": [row(1, state="dead")]}
        self.assertEqual(self.wrong("lost", **parts, attempts=[attempt(1, 1, status=500)]), 1)
        self.assertEqual(self.wrong("lost", **parts, attempts=[attempt(1, 1, status=410)]), 0)

    def test_a_copy_that_nobody_heard_of_must_be_delivered_too(self) -> None:
        parts = {"requests": [request(1, 0)], "attempts": [attempt(1, 1)]}
        self.assertEqual(self.wrong("lost", **parts, rows=[row(1), row(1, id="copy", state="pending")]), 1)


class StoredTwiceTests(CheckerTest):
    def test_two_rows_of_one_message_id_are_one_too_many(self) -> None:
        rows = [row(1), row(1, id="copy")]
        requests = [unanswered(1, 0), request(1, 1)]
        self.assertEqual(self.wrong("stored twice", requests=requests, rows=rows), 1)

    def test_without_a_message_id_there_may_be_one_for_each_request_without_200(self) -> None:
        requests = [unanswered(1, 0, identified=False), request(1, 1, identified=False)]
        rows = [row(1), row(1, id="copy"), row(1, id="another")]
        self.assertEqual(self.wrong("stored twice", requests=requests, rows=rows[:2]), 0)
        self.assertEqual(self.wrong("stored twice", requests=requests, rows=rows), 1)
        self.assertEqual(self.wrong("stored twice", requests=requests[1:], rows=rows[:2]), 1)

    def test_what_nobody_sent_is_not_stored(self) -> None:
        self.assertEqual(self.wrong("stored twice", rows=[row(1)]), 1)

    def test_two_ids_for_one_message_id_need_postgresql_to_be_away(self) -> None:
        parts = {"requests": [request(1, 1), request(1, 2, id="other")], "rows": [row(1)]}
        self.assertEqual(self.wrong("stored twice", **parts), 1)
        away = [fault(kinds.DATABASE_REFUSED, 0)]
        self.assertEqual(self.wrong("stored twice", **parts, faults=away), 0)
        slow = [request(1, 1, takes=0.6), request(1, 2, id="other")]
        self.assertEqual(self.wrong("stored twice", requests=slow, rows=[row(1)]), 0)


class OrderTests(CheckerTest):
    def order(self, *attempts: Attempt, faults: Sequence[Fault] = (), overlapping: int = 0) -> int:
        requests = [request(1, 0), request(2, 1)]
        parts = {"requests": requests, "attempts": attempts, "rows": [row(1), row(2)], "faults": faults}
        self.assertEqual(self.wrong("overlapping", **parts), overlapping)
        return self.wrong("out of order", **parts)

    def test_the_later_one_first_is_out_of_order(self) -> None:
        self.assertEqual(self.order(attempt(2, 1), attempt(1, 2)), 1)

    def test_a_retry_of_the_earlier_after_the_later_began_is_out_of_order(self) -> None:
        retry = attempt(1, 3, attempt=2)
        self.assertEqual(self.order(attempt(1, 1, status=500), attempt(2, 2), retry), 1)
        self.assertEqual(self.order(attempt(1, 1, status=500), attempt(1, 2, attempt=2), attempt(2, 3)), 0)

    def test_targets_do_not_wait_for_each_other(self) -> None:
        self.assertEqual(self.order(attempt(2, 1), attempt(1, 2, target="u")), 0)

    def test_a_copy_that_no_provider_heard_of_has_no_place_in_the_order(self) -> None:
        copy = attempt(1, 3, id="copy", delivery="dc")
        self.assertEqual(self.order(attempt(1, 1), attempt(2, 2), copy), 0)

    def test_what_a_process_sends_that_woke_up_after_its_lease_is_no_attempt_any_more(self) -> None:
        taken_over = [attempt(1, 5, attempt=2), attempt(2, 6)]
        woken = attempt(1, 7.2, attempt=1)
        freeze = fault(kinds.WORKER_FROZEN, 0.5, 6.6)
        self.assertEqual(self.order(*taken_over, woken, faults=[freeze]), 0)
        self.assertEqual(self.order(*taken_over, woken), 1)
        self.assertEqual(self.order(*taken_over, woken, faults=[fault(kinds.POSTGRES_FROZEN, 0.5, 6.6)]), 1)

    def test_a_retry_of_its_own_after_waking_up_is_out_of_order(self) -> None:
        freeze = fault(kinds.WORKER_FROZEN, 0.5, 6.6)
        settled_twice = [attempt(1, 5, attempt=2), attempt(2, 6), attempt(1, 7.2, attempt=3)]
        self.assertEqual(self.order(*settled_twice, faults=[freeze]), 1)


class OverlapTests(CheckerTest):
    def overlaps(self, *attempts: Attempt, faults: Sequence[Fault] = ()) -> int:
        requests = [request(1, 0), request(2, 1)]
        rows = [row(1), row(2)]
        return self.wrong("overlapping", requests=requests, attempts=attempts, rows=rows, faults=faults)

    def test_one_that_begins_before_the_answer_of_the_other_overlaps(self) -> None:
        self.assertEqual(self.overlaps(attempt(1, 1, takes=0.5), attempt(2, 1.4)), 1)
        self.assertEqual(self.overlaps(attempt(1, 1, takes=0.5), attempt(2, 1.6)), 0)

    def test_one_that_overlaps_two_is_seen_twice(self) -> None:
        three = [attempt(1, 1, takes=2), attempt(1, 1.1, takes=2, attempt=2), attempt(2, 1.2)]
        self.assertEqual(self.overlaps(*three), 3)

    def test_the_end_of_a_connection_may_be_seen_a_little_late(self) -> None:
        timed_out = attempt(1, 1, takes=1.52, end="closed")
        self.assertEqual(self.overlaps(timed_out, attempt(1, 2.5, attempt=2)), 0)
        self.assertEqual(self.overlaps(timed_out, attempt(1, 2.3, attempt=2)), 1)

    def test_what_a_stopped_process_left_open_ends_with_its_lease(self) -> None:
        left_open = attempt(1, 1, takes=NEVER, end="open")
        self.assertEqual(self.overlaps(left_open, attempt(1, 1 + LEASE, attempt=2)), 0)
        self.assertEqual(self.overlaps(left_open, attempt(1, LEASE - 1, attempt=2)), 1)

    def test_what_a_process_does_when_it_wakes_up_was_leased_before_it_was_stopped(self) -> None:
        """It was stopped between its claim and its attempt, and woke up as the lease ended."""
        woken = attempt(1, 5.0, takes=0.5)
        taken_over = attempt(1, 5.2, attempt=2)
        self.assertEqual(self.overlaps(woken, taken_over, faults=[fault(kinds.WORKER_FROZEN, 1, 4)]), 0)
        self.assertEqual(self.overlaps(woken, taken_over, faults=[fault(kinds.WORKER_FROZEN, 4, 1)]), 1)
        self.assertEqual(self.overlaps(woken, taken_over), 1)


class EndlessRedeliveryTests(CheckerTest):
    def again(self, *attempts: Attempt, faults: Sequence[Fault] = ()) -> int:
        parts = {"requests": [request(1, 0)], "rows": [row(1)], "attempts": attempts, "faults": faults}
        return self.wrong("endless redelivery", **parts)

    def test_after_a_2xx_each_attempt_but_one_needs_a_fault_of_its_own(self) -> None:
        thrice = [attempt(1, 1), attempt(1, 6, attempt=2), attempt(1, 11, attempt=3)]
        self.assertEqual(self.again(*thrice[:2]), 0)
        self.assertEqual(self.again(*thrice), 1)
        self.assertEqual(self.again(*thrice, faults=[fault(kinds.POSTGRES_KILLED, 1)]), 0)
        self.assertEqual(self.again(*thrice, faults=[fault(kinds.DAEMON_RESTARTED, 1)]), 1)
        self.assertEqual(self.again(*thrice, faults=[fault(kinds.POSTGRES_KILLED, 12)]), 1)
        more = [*thrice, attempt(1, 16, attempt=4)]
        self.assertEqual(self.again(*more, faults=[fault(kinds.POSTGRES_FROZEN, 0, 20)]), 1)

    def test_a_410_ends_it_too(self) -> None:
        gone = [attempt(1, at, attempt=at, status=410) for at in (1, 6, 11)]
        self.assertEqual(self.again(*gone), 1)

    def test_failures_and_answers_that_come_too_late_are_repeated(self) -> None:
        late = [attempt(1, at, attempt=at, takes=TIMEOUT) for at in (1, 6, 11)]
        failed = [attempt(1, at, attempt=at, status=500) for at in (16, 18, 20)]
        self.assertEqual(self.again(*late, *failed, attempt(1, 22, attempt=22)), 0)


class UnexpectedStatusTests(CheckerTest):
    def unexpected(self, request: Request, *faults: Fault) -> int:
        return self.wrong("unexpected statuses", requests=[request], faults=faults)

    def test_while_only_postgresql_is_down_there_is_nothing_but_200(self) -> None:
        away = fault(kinds.POSTGRES_STOPPED, 0, 10)
        self.assertEqual(self.unexpected(request(1, 5, status=500, id=None), away), 1)
        self.assertEqual(self.unexpected(unanswered(1, 5), away), 1)
        self.assertEqual(self.unexpected(request(1, 5), away), 0)

    def test_500_while_the_journals_disk_is_full(self) -> None:
        full = fault(kinds.DISK_FULL, 4, 3)
        self.assertEqual(self.unexpected(request(1, 5, status=500, id=None), full), 0)
        self.assertEqual(self.unexpected(unanswered(1, 5), full), 1)

    def test_no_answer_and_500_while_the_daemon_is_hurt(self) -> None:
        killed = fault(kinds.WORKER_KILLED, 4, 3)
        late = request(1, 0, takes=8, status=500, id=None)
        refused = request(1, 5, status=500, id=None)
        for hurt in (unanswered(1, 3, takes=2), refused, request(1, 0, takes=8), late):
            self.assertEqual(self.unexpected(hurt, killed), 0)
            self.assertEqual(self.unexpected(hurt), 1)

    def test_a_clock_that_steps_excuses_nothing(self) -> None:
        self.assertEqual(
            self.unexpected(request(1, 5, status=500, id=None), fault(kinds.CLOCK_BACK, 4, 3)), 1
        )

    def test_no_other_status_is_ever_excused(self) -> None:
        every = [fault(kind, 4, 3) for kind in kinds.ALL]
        self.assertEqual(self.unexpected(request(1, 5, status=404, id=None), *every), 1)
        self.assertEqual(self.unexpected(request(1, 5, status=503, id=None), *every), 1)

    def test_a_200_after_more_than_five_seconds_hung(self) -> None:
        self.assertEqual(self.unexpected(request(1, 5, takes=5.5), fault(kinds.POSTGRES_FROZEN, 4, 8)), 1)


class HistoryTests(UnitTest):
    def test_ends_are_joined_to_what_they_end(self) -> None:
        events = read(
            [
                '{"at": 1, "begins": "fault", "n": 1, "kind": "disk full"}',
                '{"at": 2, "begins": "request", "n": 2, "conversation": "c", "number": 1,'
                ' "identified": true}',
                '{"at": 3, "ends": 2, "status": 200, "id": "i"}',
                '{"at": 4, "ends": 1, "happened": true}',
                '{"at": 5, "begins": "attempt", "n": 3, "target": "t", "delivery": "d", "id": "i",'
                ' "conversation": "c", "number": 1, "attempt": 1}',
            ]
        )
        self.assertEqual(events.faults, [Fault(kind="disk full", began=1, ended=4)])
        [heard] = events.requests
        self.assertEqual((heard.sent, heard.ended, heard.status, heard.id), (2, 3, 200, "i"))
        [under_way] = events.attempts
        self.assertEqual((under_way.end, under_way.ended, under_way.taken), ("open", NEVER, False))

    def test_what_ends_twice_ended_the_first_time(self) -> None:
        lines = [
            '{"at": 1, "begins": "attempt", "n": 1, "target": "t", "delivery": "d", "id": "i",'
            ' "conversation": "c", "number": 1, "attempt": 1}',
            '{"at": 2, "ends": 1, "end": "answered", "status": 200}',
            '{"at": 3, "ends": 1, "end": "closed"}',
        ]
        [answered] = read(lines).attempts
        self.assertEqual((answered.end, answered.ended), ("answered", 2))
