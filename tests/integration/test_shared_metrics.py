"""Counters of several processes: added up, and never lower than before."""

from __future__ import annotations

import struct
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
EVERY_LABEL = """
import sys
from pathlib import Path
from smsdaemon.metrics import Metrics, count_into
from smsdaemon.providers.catalogue import load
count_into(Path(sys.argv[1]), 1)
metrics = Metrics()
for status in range(200, 600):
    metrics.request_answered(status, 0.002)
for name, loaded in load(None).items():
    profile = loaded.profile
    kinds = {each.name for each in profile.not_sms} | {profile.otherwise, "probe", "empty batch", "handshake"}
    for kind in kinds:
        metrics.not_an_sms(name, kind)
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

    def test_every_label_of_the_shipped_profiles_finds_room_that_the_disk_has_promised(self) -> None:
        make_shared_folder(self.folder)
        subprocess.run([sys.executable, "-c", EVERY_LABEL, str(self.folder)], check=True)
        self.assertEqual(self.value("smsdaemon_not_sms_total", provider="twilio", kind="probe"), 1)
        for file in self.folder.iterdir():
            # What grows is sparse, and on a full disk to write there ends the process.
            self.assertGreaterEqual(file.stat().st_blocks * 512, file.stat().st_size, file.name)
            [used] = struct.unpack_from("i", file.read_bytes())
            self.assertLess(
                used, file.stat().st_size / 4, "as much as that is left for profiles of one's own"
            )

    def test_a_new_daemon_begins_anew(self) -> None:
        make_shared_folder(self.folder)
        self.worker(1, 3)
        make_shared_folder(self.folder)
        self.assertIsNone(self.value("smsdaemon_messages_accepted_total"))
