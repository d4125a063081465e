"""Times as people give them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from smsdaemon.cli.since import read_since
from tests.support.cases import UnitTest

NOW = datetime(2026, 11, 22, 16, 43, 42, tzinfo=UTC)


class SinceTests(UnitTest):
    def test_spans_count_back_from_now(self) -> None:
        for text, span in (
            ("30m", timedelta(minutes=30)),
            ("2h", timedelta(hours=2)),
            ("7d", timedelta(days=7)),
        ):
            self.assertEqual(read_since(text, NOW), NOW - span)

    def test_rfc_3339_is_read_with_its_zone_and_as_utc_without(self) -> None:
        at = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
        for text in ("2026-11-22T10:00:00Z", "2026-11-22T11:00:00+01:00", "2026-11-22 10:00"):
            self.assertEqual(read_since(text, NOW), at)

    def test_a_time_before_all_ids_means_all(self) -> None:
        for text in ("999999w", "0001-01-01T00:00:00Z"):
            self.assertEqual(read_since(text, NOW), datetime(1970, 1, 1, tzinfo=UTC))

    def test_anything_else_is_refused(self) -> None:
        for text in ("", "yesterday", "-2h", "2 parsecs", "2026-13-01"):
            self.assertRaises(ValueError, read_since, text, NOW)
