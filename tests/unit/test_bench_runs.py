"""The arithmetic of the benchmark's figures."""

from __future__ import annotations

from pathlib import Path

from smsdaemon.domain.directory_file import parse
from tests.bench.bench import table
from tests.bench.load_process import numbers
from tests.bench.rig import CLIENTS, NUMBER, directory, file_system, nth_number
from tests.bench.runs import bearable, milliseconds
from tests.support.cases import UnitTest

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vdb /tmp/on\\040disk xfs rw 0 0
"""


def figures(workers: int, *, bears: float = 500.0) -> dict[str, dict[str, object]]:
    told = {"workers": workers, "cores": 2, "postgresql": "18.6", "fsync": "on", "stored_rows": 7, "sms": 10}
    latencies = {"p50_ms": 1.5, "p99_ms": 2.5, "per_second": 3000.0}
    steady = {"steady_p50_ms": 1.0, "steady_p99_ms": 2.0, "steady_per_second": 1000.0}
    return {
        "accepted": {**told, **latencies, **steady, "steady_wanted": 1000.0},
        "end_to_end": {**told, **latencies, "latencies_at_per_second": bears, "latencies_wanted_at": 500.0},
    }


class FiguresTests(UnitTest):
    def test_a_percentile_is_a_span_that_was_measured(self) -> None:
        spans = [n / 1000 for n in range(100, 0, -1)]
        self.assertEqual(milliseconds(spans, 0.5), 50.0)
        self.assertEqual(milliseconds(spans, 0.99), 99.0)
        self.assertEqual(milliseconds(spans, 1.0), 100.0)
        self.assertEqual(milliseconds([0.007], 0.5), 7.0)
        self.assertEqual(milliseconds([], 0.99), 0.0)

    def test_a_steady_rate_is_lower_where_the_machine_would_be_at_its_end(self) -> None:
        self.assertEqual(bearable(500.0, 625.0), 500.0)
        self.assertEqual(bearable(500.0, 624.0), 370.0)
        self.assertEqual(bearable(1000.0, 499.0), 290.0)
        self.assertEqual(bearable(1000.0, 1.0), 10.0)

    def test_the_table_says_where_a_rate_is_lower(self) -> None:
        self.assertNotIn("does not bear", table([figures(1), figures(2)]))
        self.assertIn("end-to-end latencies at 290 SMS/s", table([figures(1, bears=290.0)]))

    def test_the_table_has_all_four_rows_for_each_number_of_workers(self) -> None:
        lines = table([figures(1), figures(2)]).splitlines()[1:9]
        names = ["accepted", "accepted, steady", "end-to-end", "end-to-end, steady"]
        self.assertEqual([line[:24].rstrip() for line in lines], names * 2)
        self.assertEqual([line[24:32].strip() for line in lines], ["1"] * 4 + ["2"] * 4)


class RigTests(UnitTest):
    def test_a_folder_is_on_the_file_system_of_the_nearest_mount(self) -> None:
        self.assertEqual(file_system(Path("/home/x"), MOUNTS), "ext4")
        self.assertEqual(file_system(Path("/tmp/x"), MOUNTS), "tmpfs")
        self.assertEqual(file_system(Path("/tmp/on disk/x"), MOUNTS), "xfs")
        self.assertEqual(file_system(Path("/tmpx"), MOUNTS), "ext4")

    def test_a_directory_has_as_many_connectors_as_were_asked_for(self) -> None:
        for count in (1, 2, CLIENTS + 5):
            file = parse(directory(9, count).encode(), "directory.toml")
            found = {connector.number for connector in file.connectors}
            self.assertEqual(len(found), count)
            self.assertIn(NUMBER, found)

    def test_receivers_are_listed_or_counted_from_the_first(self) -> None:
        self.assertEqual(numbers("+49301,+49302"), ["+49301", "+49302"])
        self.assertEqual(numbers(f"{nth_number(0)}:3"), [nth_number(0), nth_number(1), nth_number(2)])
