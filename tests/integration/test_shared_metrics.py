"""Counters of several processes: added up, and never lower than before."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from smsdaemon.metrics import Gauges, make_shared_folder, summed
from tests.support.cases import UnitTest
from tests.support.deliveries import RECEIVED_AT

WORKER = """
import os, signal, sys
from pathlib import Path
from smsdaemon.metrics import Metrics, count_into
count_into(Path(sys.argv[1]), int(sys.argv[2]))
metrics = Metrics()
for _ in range(int(sys.argv[3])):
    metrics.accepted()
    metrics.request_answered(200, 0.002)
    metrics.delivery_ended("acd_group", "delivered", 0.1)
os.kill(os.getpid(), signal.SIGKILL)
"""


class SharedMetricsTests(UnitTest):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name, "metrics")
        self.gauges = Gauges(lambda: RECEIVED_AT, summed(self.folder))

    def worker(self, number: int, events: int) -> None:
        """Counts so many events and is killed with kill -9."""
        subprocess.run(
            [sys.executable, "-c", WORKER, str(self.folder), str(number), str(events)], check=False
        )

    def value(self, name: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self.gauges.exposition().decode()):
            for sample in family.samples:
                if (sample.name, sample.labels) == (name, labels):
                    return float(sample.value)
        return None

    def test_what_workers_counted_is_summed_though_they_were_killed_and_a_successor_goes_on(self) -> None:
        self.assertIsNone(self.value("smsdaemon_messages_accepted_total"), "nobody has counted yet")
        make_shared_folder(self.folder)
        self.worker(1, 3)
        self.worker(2, 4)
        self.assertEqual(self.value("smsdaemon_messages_accepted_total"), 7)
        self.worker(1, 5)
        self.assertEqual(self.value("smsdaemon_messages_accepted_total"), 12)
        self.assertEqual(self.value("smsdaemon_requests_total", status="200"), 12)
        self.assertEqual(self.value("smsdaemon_accept_seconds_count"), 12)
        self.assertEqual(self.value("smsdaemon_accept_seconds_bucket", le="0.0025"), 12)
        self.assertEqual(self.value("smsdaemon_deliveries_total", kind="acd_group", outcome="delivered"), 12)
        self.assertEqual(self.value("smsdaemon_deliveries_total", kind="acd_group", outcome="dead"), 0)
        self.assertEqual(len(list(self.folder.iterdir())), 4, "a file for each death would add up")

    def test_a_new_daemon_begins_anew(self) -> None:
        make_shared_folder(self.folder)
        self.worker(1, 3)
        make_shared_folder(self.folder)
        self.assertIsNone(self.value("smsdaemon_messages_accepted_total"))
