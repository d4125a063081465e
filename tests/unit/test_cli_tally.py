"""The figures that `smsdaemon send` prints."""

from __future__ import annotations

from array import array
from collections import Counter

from smsdaemon.cli.load import Tally, message_id, percentile
from tests.support.cases import UnitTest


class TallyTests(UnitTest):
    def test_percentiles_are_values_that_were_measured(self) -> None:
        values = [float(n) for n in range(1, 101)]
        for share, value in ((0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (1.0, 100.0)):
            self.assertEqual(percentile(values, share), value)
        self.assertEqual(percentile([7.0], 0.5), 7.0)
        self.assertIsNone(percentile([], 0.5))

    def test_the_summary_counts_answers_and_errors_apart(self) -> None:
        tally = Tally(
            sent=4,
            statuses=Counter({200: 2, 404: 1}),
            errors=Counter({"timeout": 1}),
            latencies=array("d", [0.001, 0.002, 0.003]),
            started_at=10.0,
            ended_at=12.0,
        )
        self.assertEqual(
            tally.summary(),
            {
                "sent": 4,
                "statuses": {"200": 2, "404": 1},
                "errors": {"timeout": 1},
                "seconds": 2.0,
                "rate": 1.5,
                "p50_ms": 2.0,
                "p90_ms": 3.0,
                "p99_ms": 3.0,
                "max_ms": 3.0,
            },
        )

    def test_where_nothing_was_answered_there_are_no_latencies(self) -> None:
        self.assertIsNone(Tally(sent=1, errors=Counter({"timeout": 1})).summary()["p50_ms"])

    def test_the_id_is_read_from_an_answer(self) -> None:
        id_ = "01a204b0-9a3e-7113-a3ba-95894d2d41a6"
        answer = f"HTTP/1.1 200 OK\r\nSMS-Message-Id: {id_}\r\nContent-Length: 2\r\n\r\nOK".encode()
        self.assertEqual(message_id(answer), id_)
        self.assertIsNone(message_id(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
