"""Group commit: what gathers, what is repeated, and what fails alone."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from smsdaemon.errors import StoreConflict, StoreRefused, StoreUnavailable
from smsdaemon.store.batch import Batcher
from tests.support.cases import UnitTest

Use = Callable[[object], Deferred[None]]


class Bench:
    """Lends connections when told to, and answers batches in the way the test wants."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.lent: list[tuple[Use, Deferred[None]]] = []
        self.batches: list[list[str]] = []
        self.answer: Callable[[list[str]], Deferred[list[str]]] = lambda rows: succeed(
            [row.upper() for row in rows]
        )

    def batcher(self, **kwargs: float) -> Batcher[str, str]:
        terms: dict[str, float] = {"under_way": 1, "max_rows": 100, "max_waiting": 1000, "patience": 2.0}
        terms |= kwargs
        return Batcher(lend=lambda use: self.lend(use), send=self.send, timer=self.clock, **terms)  # type: ignore[arg-type]

    def lend(self, use: Use) -> Deferred[None]:
        d: Deferred[None] = Deferred()
        self.lent.append((use, d))
        return d

    def free_a_connection(self) -> None:
        use, d = self.lent.pop(0)
        use(object()).chainDeferred(d)

    def send(self, connection: object, rows: list[str]) -> Deferred[list[str]]:
        self.batches.append(rows)
        return self.answer(rows)


class BatcherTests(UnitTest):
    def setUp(self) -> None:
        self.bench = Bench()

    def test_rows_that_come_while_a_batch_is_under_way_go_together_in_the_next(self) -> None:
        batcher = self.bench.batcher()
        under_way: Deferred[list[str]] = Deferred()
        self.bench.answer = lambda rows: under_way
        first = batcher.add("a")
        self.bench.free_a_connection()
        later = [batcher.add(row) for row in "bcd"]
        self.bench.answer = lambda rows: succeed([row.upper() for row in rows])
        under_way.callback(["A"])
        self.bench.free_a_connection()
        self.assertEqual(self.bench.batches, [["a"], ["b", "c", "d"]])
        self.assertEqual([self.successResultOf(d) for d in [first, *later]], ["A", "B", "C", "D"])

    def test_rows_that_come_before_a_connection_is_free_go_in_one_batch(self) -> None:
        batcher = self.bench.batcher()
        results = [batcher.add(row) for row in "abc"]
        self.bench.free_a_connection()
        self.assertEqual(self.bench.batches, [["a", "b", "c"]])
        self.assertEqual([self.successResultOf(d) for d in results], ["A", "B", "C"])

    def test_where_no_connection_will_ever_come_all_that_wait_fail_at_once(self) -> None:
        batcher = self.bench.batcher(max_waiting=5000)
        results = [batcher.add(str(n)) for n in range(2000)]
        self.bench.lend = lambda use: fail(StoreUnavailable("closed"))  # type: ignore[method-assign]
        _, asked = self.bench.lent.pop()
        asked.errback(StoreUnavailable("closed"))
        for d in [*results, batcher.add("late")]:
            self.failureResultOf(d, StoreUnavailable)

    def test_what_is_cancelled_is_not_sent_and_not_sent_again(self) -> None:
        batcher = self.bench.batcher()
        first, second, third = [batcher.add(row) for row in "abc"]
        first.addErrback(lambda _: None)
        first.cancel()
        conflict: Deferred[list[str]] = Deferred()
        self.bench.answer = lambda rows: conflict
        self.bench.free_a_connection()
        second.addErrback(lambda _: None)
        second.cancel()
        self.bench.answer = lambda rows: succeed([row.upper() for row in rows])
        conflict.errback(StoreConflict())
        self.assertEqual(self.bench.batches, [["b", "c"], ["c"]])
        self.assertEqual(self.successResultOf(third), "C")

    def test_after_the_end_nothing_is_taken(self) -> None:
        batcher = self.bench.batcher()
        batcher.close()
        self.failureResultOf(batcher.add("a"), StoreUnavailable)
        self.assertEqual(self.bench.lent, [])

    def test_a_batch_holds_at_most_max_rows(self) -> None:
        batcher = self.bench.batcher(max_rows=2)
        results = [batcher.add(row) for row in "abc"]
        self.bench.free_a_connection()
        self.bench.free_a_connection()
        self.assertEqual(self.bench.batches, [["a", "b"], ["c"]])
        self.assertEqual([self.successResultOf(d) for d in results], ["A", "B", "C"])

    def test_a_bad_row_does_not_fail_its_neighbours(self) -> None:
        def refuse_b(rows: list[str]) -> Deferred[list[str]]:
            return fail(StoreRefused("b")) if "b" in rows else succeed([row.upper() for row in rows])

        self.bench.answer = refuse_b
        batcher = self.bench.batcher()
        a, b, c = (batcher.add(row) for row in "abc")
        self.bench.free_a_connection()
        self.assertEqual((self.successResultOf(a), self.successResultOf(c)), ("A", "C"))
        self.failureResultOf(b, StoreRefused)

    def test_a_batch_that_met_another_process_is_repeated_whole(self) -> None:
        answers = [fail(StoreConflict("23505")), succeed(["A", "B"])]
        self.bench.answer = lambda rows: answers.pop(0)
        batcher = self.bench.batcher()
        results = [batcher.add(row) for row in "ab"]
        self.bench.free_a_connection()
        self.assertEqual(self.bench.batches, [["a", "b"], ["a", "b"]])
        self.assertEqual([self.successResultOf(d) for d in results], ["A", "B"])

    def test_a_conflict_without_end_fails_instead_of_going_round_for_ever(self) -> None:
        self.bench.answer = lambda rows: fail(StoreConflict("23505"))
        result = self.bench.batcher().add("a")
        self.bench.free_a_connection()
        self.failureResultOf(result, StoreConflict)

    def test_an_unavailable_store_fails_all_rows_and_the_next_batch_is_tried(self) -> None:
        answers = [fail(StoreUnavailable("gone")), succeed(["C"])]
        self.bench.answer = lambda rows: answers.pop(0)
        batcher = self.bench.batcher()
        a, b = batcher.add("a"), batcher.add("b")
        self.bench.free_a_connection()
        self.failureResultOf(a, StoreUnavailable)
        self.failureResultOf(b, StoreUnavailable)
        c = batcher.add("c")
        self.bench.free_a_connection()
        self.assertEqual(self.successResultOf(c), "C")

    def test_a_row_that_found_no_connection_in_time_is_withdrawn_and_never_sent(self) -> None:
        batcher = self.bench.batcher()
        early = batcher.add("early")
        self.bench.clock.advance(1.5)
        late = batcher.add("late")
        self.bench.clock.advance(0.6)
        self.failureResultOf(early, StoreUnavailable)
        self.assertNoResult(late)
        self.bench.free_a_connection()
        self.assertEqual(self.bench.batches, [["late"]])
        self.assertEqual(self.successResultOf(late), "LATE")

    def test_a_row_whose_batch_is_under_way_is_not_withdrawn(self) -> None:
        under_way: Deferred[list[str]] = Deferred()
        self.bench.answer = lambda rows: under_way
        result = self.bench.batcher().add("a")
        self.bench.free_a_connection()
        self.bench.clock.advance(60)
        self.assertNoResult(result)
        under_way.callback(["A"])
        self.assertEqual(self.successResultOf(result), "A")

    def test_beyond_the_bound_a_row_is_refused_at_once(self) -> None:
        batcher = self.bench.batcher(max_waiting=2)
        kept = [batcher.add(row) for row in "ab"]
        self.failureResultOf(batcher.add("c"), StoreUnavailable)
        self.bench.free_a_connection()
        self.assertEqual([self.successResultOf(d) for d in kept], ["A", "B"])

    def test_closing_withdraws_what_was_not_sent_and_leaves_no_timer(self) -> None:
        batcher = self.bench.batcher()
        result = batcher.add("a")
        batcher.close()
        self.failureResultOf(result, StoreUnavailable)
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])


class TogetherTests(UnitTest):
    def setUp(self) -> None:
        self.bench = Bench()

    def test_rows_that_belong_together_go_in_one_batch_whatever_its_bound(self) -> None:
        batcher = self.bench.batcher(max_rows=2)
        one, some, other = batcher.add("a"), batcher.add_all(["b", "c", "d"]), batcher.add("e")
        self.bench.free_a_connection()
        self.bench.free_a_connection()
        self.assertEqual(self.bench.batches, [["a", "b", "c", "d"], ["e"]])
        self.assertEqual(self.successResultOf(some), ["B", "C", "D"])
        self.assertEqual([self.successResultOf(one), self.successResultOf(other)], ["A", "E"])

    def test_rows_count_towards_the_bound_of_a_batch_and_not_entries(self) -> None:
        batcher = self.bench.batcher(max_rows=3)
        for rows in ("ab", "cd", "ef"):
            batcher.add_all(list(rows))
        self.bench.free_a_connection()
        self.bench.free_a_connection()
        self.assertEqual(self.bench.batches, [list("abcd"), list("ef")])

    def test_where_one_of_them_is_refused_all_are_and_the_others_are_not(self) -> None:
        def answer(rows: list[str]) -> Deferred[list[str]]:
            return fail(StoreRefused("22021")) if "x" in rows else succeed([row.upper() for row in rows])

        self.bench.answer = answer
        batcher = self.bench.batcher()
        good, bad, single = batcher.add_all(["a", "b"]), batcher.add_all(["c", "x"]), batcher.add("d")
        self.bench.free_a_connection()
        self.assertEqual(self.successResultOf(good), ["A", "B"])
        self.failureResultOf(bad, StoreRefused)
        self.assertEqual(self.successResultOf(single), "D")
        self.assertNotIn(["c"], self.bench.batches)

    def test_what_is_cancelled_or_closed_is_never_sent_in_part(self) -> None:
        batcher = self.bench.batcher()
        gone = batcher.add_all(["a", "b"])
        gone.addErrback(lambda _: None)
        gone.cancel()
        closed = batcher.add_all(["c", "d"])
        batcher.close()
        self.failureResultOf(closed, StoreUnavailable)
        self.bench.free_a_connection()
        self.assertEqual(self.bench.batches, [])
