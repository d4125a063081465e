"""What Prometheus reads."""

from __future__ import annotations

from datetime import datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

from smsdaemon import __version__
from smsdaemon.metrics import Gauges, Metrics
from tests.support.cases import UnitTest
from tests.support.deliveries import RECEIVED_AT as START


class MetricsTests(UnitTest):
    def setUp(self) -> None:
        self.now = START
        self.metrics = Metrics()
        self.gauges = Gauges(self.tell_time, self.metrics.registry)

    def tell_time(self) -> datetime:
        return self.now

    def value(self, name: str, **labels: str) -> float | None:
        exposition = self.gauges.exposition().decode()
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                if (sample.name, sample.labels) == (name, labels):
                    return float(sample.value)
        return None

    def test_requests_are_counted_by_status_and_only_200s_are_timed(self) -> None:
        self.metrics.request_answered(200, 0.002)
        self.metrics.request_answered(200, 0.2)
        self.metrics.request_answered(404, 9)
        self.assertEqual(self.value("smsdaemon_requests_total", status="200"), 2)
        self.assertEqual(self.value("smsdaemon_requests_total", status="404"), 1)
        self.assertEqual(self.value("smsdaemon_accept_seconds_count"), 2)
        self.assertEqual(self.value("smsdaemon_accept_seconds_bucket", le="0.0025"), 1)

    def test_accepted_sms_are_counted(self) -> None:
        self.assertEqual(self.value("smsdaemon_messages_accepted_total"), 0)
        self.metrics.accepted()
        self.assertEqual(self.value("smsdaemon_messages_accepted_total"), 1)

    def test_attempts_are_counted_by_kind_and_outcome_from_zero_on(self) -> None:
        self.metrics.delivery_ended("acd_group", "retry", None)
        self.metrics.delivery_ended("acd_group", "delivered", 61)
        self.metrics.delivery_ended("unknown", "dead", None)
        counted = {
            (kind, outcome): self.value("smsdaemon_deliveries_total", kind=kind, outcome=outcome)
            for kind in ("acd_group", "application", "unknown")
            for outcome in ("delivered", "retry", "dead")
        }
        self.assertEqual({key for key, count in counted.items() if count == 1}, {
            ("acd_group", "retry"), ("acd_group", "delivered"), ("unknown", "dead"),
        })  # fmt: skip
        self.assertEqual(counted["application", "delivered"], 0)
        self.assertEqual(self.value("smsdaemon_delivery_seconds_count"), 1)
        self.assertEqual(self.value("smsdaemon_delivery_seconds_sum"), 61)

    def test_gauges_are_absent_until_they_are_known(self) -> None:
        for name in (
            "smsdaemon_oldest_pending_seconds",
            "smsdaemon_certificate_expiry_seconds",
            "smsdaemon_journal_messages",
            "smsdaemon_journal_set_aside",
            "smsdaemon_breakers_open",
            "smsdaemon_waiting_parts",
        ):
            self.assertIsNone(self.value(name))
        self.assertIsNone(self.value("smsdaemon_queue_messages", state="pending"))

    def test_the_queue_shows_what_was_counted_last(self) -> None:
        self.gauges.queue(pending=9, leased=9, dead=9, oldest_pending_seconds=99)
        self.gauges.queue(pending=3, leased=2, dead=1, oldest_pending_seconds=7.5)
        states = [
            self.value("smsdaemon_queue_messages", state=state) for state in ("pending", "leased", "dead")
        ]
        self.assertEqual(states, [3, 2, 1])
        self.assertEqual(self.value("smsdaemon_oldest_pending_seconds"), 7.5)

    def test_the_certificates_expiry_comes_nearer(self) -> None:
        self.gauges.certificate(START + timedelta(hours=1))
        self.now = START + timedelta(minutes=59)
        self.assertEqual(self.value("smsdaemon_certificate_expiry_seconds"), 60)
        self.now = START + timedelta(hours=2)
        self.assertEqual(self.value("smsdaemon_certificate_expiry_seconds"), -3600)

    def test_the_journal_and_the_breakers_show_what_was_seen_last(self) -> None:
        self.gauges.journal(pending=9, aside=9)
        self.gauges.journal(pending=2, aside=1)
        self.gauges.breakers_open(3)
        self.gauges.waiting_parts(4)
        names = ("journal_messages", "journal_set_aside", "breakers_open", "waiting_parts")
        self.assertEqual([self.value(f"smsdaemon_{name}") for name in names], [2, 1, 3, 4])

    def test_what_happens_rarely_is_counted_from_zero_on(self) -> None:
        names = ("journaled_messages", "journal_failures", "refused_kept", "refused_dropped", "leases_lost")
        totals = [f"smsdaemon_{name}_total" for name in (*names, "worker_restarts")]
        self.assertEqual([self.value(name) for name in totals], [0] * 6)
        self.metrics.journaled(2)
        self.metrics.journal_failed(3)
        self.metrics.refused_kept(4)
        self.metrics.refused_dropped(5)
        self.metrics.lease_lost()
        self.gauges.worker_restarted()
        self.assertEqual([self.value(name) for name in totals], [2, 3, 4, 5, 1, 1])

    def test_two_of_them_count_apart_and_name_the_version(self) -> None:
        Metrics().accepted()
        self.assertEqual(self.value("smsdaemon_messages_accepted_total"), 0)
        self.assertEqual(self.value("smsdaemon_build_info", version=__version__), 1)
