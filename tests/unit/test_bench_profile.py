"""CPU accounts, what py-spy has seen, memory and growth: the arithmetic."""

from __future__ import annotations

from tests.bench.cpu import Account, Times, read_stat
from tests.bench.growth import ratios
from tests.bench.memory import per_million
from tests.bench.peers import medians
from tests.bench.peers import table as peers_table
from tests.bench.stacks import INTERPRETER, WAITING, shares
from tests.support.cases import UnitTest

SITE = "/x/.venv/lib/site-packages"
REACTOR = f"run (/x/smsdaemon/worker_run.py:58);ReactorBase.mainLoop ({SITE}/twisted/base.py:6)"
STAT = "4711 (a) b (c)) S 1 4711 4711 0 -1 4194560 100 0 0 0 150 50 30 20 20 0 1 0 100 0 0"


class AccountTests(UnitTest):
    def test_a_process_may_have_any_name(self) -> None:
        self.assertEqual(read_stat(STAT, ticks=100), Times(user=1.8, system=0.7))

    def test_what_has_ended_is_in_its_parents_account(self) -> None:
        kinds = {"PostgreSQL": [1, 2]}
        times = {1: Times(user=1.0, system=0.5), 2: Times(user=3.0, system=0.5)}
        account = Account(lambda: kinds, times.get)
        kinds["PostgreSQL"] = [1, 3]
        del times[2]
        times[1] = Times(user=1.0 + 3.5, system=1.0)  # with what 2 had used until its end
        times[3] = Times(user=0.25, system=0.0)
        self.assertEqual(account.used(), {"PostgreSQL": Times(user=0.75, system=0.0)})


class SharesTests(UnitTest):
    def test_the_interpreters_own_counts_for_whoever_called_it(self) -> None:
        found = shares(
            [
                f"{REACTOR};Batcher.add (/x/smsdaemon/store/batch.py:1);dumps (/usr/lib/json/a.py:2) 3",
                f"{REACTOR};EPollReactor.doPoll ({SITE}/twisted/epollreactor.py:9) 6",
                f"{REACTOR};feed (/x/.venv/lib/site-packages/httptools/parser.py:9) 1",
                "_bootstrap (/usr/lib/python3.11/threading.py:1);work (/x/smsdaemon/store/journal.py:2) 99",
            ]
        )
        self.assertEqual(found.samples, 10)
        self.assertEqual(found.innermost, {"smsdaemon/store/batch.py": 3, WAITING: 6, "httptools": 1})
        self.assertEqual(found.inclusive["smsdaemon/store/batch.py"], 3)
        self.assertEqual(found.inclusive["twisted"], 4)
        self.assertEqual(found.inclusive[INTERPRETER], 3)
        self.assertEqual(found.percent(6), 60.0)

    def test_a_library_is_none_of_ours_whatever_the_checkout_is_called(self) -> None:
        stack = f"{REACTOR};write (/x/smsdaemon/.venv/lib/python3.11/site-packages/twisted/a.py:1) 2"
        self.assertEqual(shares([stack]).innermost, {"twisted": 2})

    def test_what_is_no_stack_is_passed_over(self) -> None:
        self.assertEqual(shares(["", "py-spy> sampling", f"{REACTOR} x"]).samples, 0)


class GrowthTests(UnitTest):
    def test_memory_grows_by_what_it_gains_over_the_second_half(self) -> None:
        self.assertEqual(per_million([0, 500_000, 750_000, 1_000_000], [50.0, 90.0, 90.0, 90.0]), 0.0)
        self.assertEqual(per_million([0, 500_000, 750_000, 1_000_000], [50.0, 60.0, 65.0, 70.0]), 20.0)
        self.assertEqual(per_million([0], [50.0]), 0.0)

    def test_the_fullest_stage_is_compared_with_the_empty_ones_before_and_after(self) -> None:
        stages = [
            {"accepted_per_second": accepted, "end_to_end_per_second": 100.0}
            for accepted in (1000.0, 900.0, 810.0, 800.0)
        ]
        self.assertEqual(ratios(stages), {"accepted_per_second": 0.9, "end_to_end_per_second": 1.0})


class PeersTests(UnitTest):
    def test_the_median_of_speed_and_the_worst_of_losses_are_told(self) -> None:
        def row(speed: float, lost: float) -> dict[str, float]:
            times = {"p50_ms": 1.0, "p99_ms": 2.0}
            return {"accepted_per_s": speed, "end_to_end_per_s": speed, "lost": lost, "errors": 0, **times}

        found = medians({"smsdaemon": [row(1, 0), row(9, 2), row(2, 0)], "kannel": [row(1, 0)] * 3})
        self.assertEqual((found["smsdaemon"]["accepted_per_s"], found["smsdaemon"]["lost"]), (2.0, 2.0))
        self.assertIn("smsdaemon / kannel: accepted x2.00, end-to-end x2.00", peers_table(found, 3))
