"""Host names of the DSN are looked up beside the reactor, by look-ups that hang, fail and answer."""

from __future__ import annotations

import threading
from typing import Any, cast

from psycopg2 import extensions
from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater

from smsdaemon.store.driver import Connection, Lifeline
from smsdaemon.store.host_names import HostNames
from smsdaemon.store.pool import Pool
from tests.support.cases import ReactorTest
from tests.support.cutting_proxy import CuttingProxy
from tests.support.journals import until
from tests.support.postgres import fresh_database

reactor = cast(Any, _reactor)


class LookUp:
    """One that hangs until it is let go."""

    def __init__(self, test: ReactorTest, *addresses: str) -> None:
        self.addresses, self.asked = list(addresses), 0
        self.go_on = threading.Event()
        test.addCleanup(self.go_on.set)

    def __call__(self, name: str) -> list[str]:
        self.asked += 1
        self.go_on.wait()
        if not self.addresses:
            raise OSError(-2, "Name or service not known")
        return self.addresses


class HostNamesTests(ReactorTest):
    def names(self, look_up: LookUp, seconds: float = 0.05) -> HostNames:
        made = HostNames(reactor, look_up, seconds)
        self.addCleanup(made.close)
        return made

    async def test_a_look_up_that_hangs_has_one_thread_however_often_it_is_asked_for(self) -> None:
        look_up = LookUp(self, "192.0.2.1")
        names = self.names(look_up)
        why = [(await names.find(["db"])).trouble for _ in range(5)]
        self.assertEqual(why[0], "the address of db was not found in time")
        self.assertEqual(why[-1], "the address of db was not found: the look-up of its name hangs")
        self.assertEqual(look_up.asked, 1)

    async def test_an_answer_that_comes_when_nobody_waits_any_more_is_for_who_asks_next(self) -> None:
        look_up = LookUp(self, "192.0.2.1")
        names = self.names(look_up)
        await names.find(["db"])
        look_up.go_on.set()
        while not (found := await names.find(["db"])).addresses:
            await deferLater(reactor, 0.005)
        self.assertEqual((found.addresses, look_up.asked), ({"db": ["192.0.2.1"]}, 1))

    async def test_what_fails_is_told_and_asked_for_again(self) -> None:
        look_up = LookUp(self)
        look_up.go_on.set()
        names = self.names(look_up, 5)
        told = "the address of db was not found: the name does not resolve: Name or service not known"
        for asked in (1, 2):
            self.assertEqual((await names.find(["db"])).trouble, told)
            self.assertEqual(look_up.asked, asked)


class ConnectingTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        proxy = CuttingProxy(self, await fresh_database(self), tcp=True)
        self.dsn = extensions.make_dsn(proxy.dsn, host="localhost")

    def lifeline(self, look_up: LookUp, seconds: float) -> Lifeline:
        self.up: list[Connection] = []
        self.down: list[str] = []
        line = Lifeline(
            dsn=self.dsn,
            reactor=reactor,
            names=HostNames(reactor, look_up, seconds=seconds),
            on_up=self.up.append,
            on_down=self.down.append,
            on_unfit=lambda why: None,
        )
        self.addCleanup(line.close)
        line.start()
        return line

    async def test_while_it_hangs_the_reactor_goes_on_and_it_connects_once_it_is_answered(self) -> None:
        look_up = LookUp(self, "127.0.0.1")
        self.lifeline(look_up, 0.05)
        await until(lambda: self.down)
        self.assertEqual(self.down, ["the address of localhost was not found in time"])
        look_up.go_on.set()
        await until(lambda: self.up)
        self.assertEqual(await self.up[0].rows("SELECT 1"), [(1,)])

    async def test_closed_while_it_hangs_it_never_connects(self) -> None:
        look_up = LookUp(self, "127.0.0.1")
        line = self.lifeline(look_up, 5)
        await until(lambda: look_up.asked)
        line.close()
        look_up.go_on.set()
        await deferLater(reactor, 0.1)
        self.assertEqual((self.up, self.down, line.connection.pollable()), ([], [], None))

    async def test_the_driver_is_given_addresses_and_keeps_the_name(self) -> None:
        pool = Pool(dsn=self.dsn, size=1, reactor=reactor, statement_timeout=5.0)
        self.addCleanup(pool.close)
        pool.start()
        self.assertEqual(await pool.query("SELECT 1"), [(1,)])
        [line] = pool._lifelines
        used = line.connection.pollable().info.dsn_parameters
        self.assertEqual(set(used["host"].split(",")), {"localhost"})
        self.assertIn("127.0.0.1", used["hostaddr"].split(","))
