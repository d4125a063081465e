"""What goes through the pipes between a supervisor and its workers."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.testing import StringTransport

from smsdaemon.settings import Listener, Settings
from smsdaemon.worker_channel import Charge, Lines, charge_bytes, read_charge, read_report
from smsdaemon.worker_run import Channel
from tests.support.cases import UnitTest


class ChargeTests(UnitTest):
    def setUp(self) -> None:
        self.ours, theirs = os.pipe()
        self.addCleanup(os.close, self.ours)
        self.theirs = os.fdopen(theirs, "wb", buffering=0)
        self.addCleanup(self.theirs.close)

    def test_it_arrives_whole_and_nothing_behind_it_is_taken(self) -> None:
        settings = Settings(state_dir=Path("/x"), workers="auto", http=Listener(listen=("tcp:8080",)))
        charge = Charge(
            number=3,
            supervisor=7,
            settings=settings,
            dsn="dbname=x",
            endpoints=(("http.listen", "tcp:8080"),),
        )
        self.theirs.write(charge_bytes(charge) + b"database\n")
        self.assertEqual(read_charge(self.ours), charge)
        self.assertEqual(os.read(self.ours, 100), b"database\n")

    def test_a_supervisor_that_dies_before_is_noticed(self) -> None:
        self.theirs.write(b"\0\0\1")
        self.theirs.close()
        self.assertRaises(EOFError, read_charge, self.ours)


class LinesTests(UnitTest):
    def test_pieces_become_lines(self) -> None:
        lines = Lines()
        found = [line for piece in (b"a", b"b\nc\n", b"", b"d", b"\n\ne") for line in lines.feed(piece)]
        self.assertEqual(found, [b"ab", b"c", b"d", b""])
        self.assertEqual((lines.rest(), lines.rest()), (b"e", b""))

    def test_a_line_without_an_end_does_not_grow_for_ever(self) -> None:
        lines = Lines()
        for _ in range(40):
            list(lines.feed(b"x" * 100_000))
        self.assertLess(len(lines.rest()), 2_000_000)


class ChannelTests(UnitTest):
    def test_what_the_supervisor_does_not_read_in_time_is_dropped_and_counted(self) -> None:
        channel, pipe = Channel(), StringTransport()
        channel.makeConnection(pipe)
        channel.log({"n": 1})
        channel.pauseProducing()
        for n in range(2, 5):
            channel.log({"n": n})
            channel.report("state", {})
        channel.resumeProducing()
        channel.log({"n": 5})
        heard = [read_report(line) for line in pipe.value().splitlines()]
        self.assertEqual(heard, [("log", {"n": 1}), ("dropped", 3), ("log", {"n": 5})])

    def test_orders_are_passed_on(self) -> None:
        channel = Channel()
        orders: list[bytes] = []
        channel.on_order = orders.append
        channel.makeConnection(StringTransport())
        channel.dataReceived(b"data")
        channel.dataReceived(b"base\nstop\n")
        self.assertEqual(orders, [b"database", b"stop"])
