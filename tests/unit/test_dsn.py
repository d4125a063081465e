"""Which names of a DSN are looked up, and what becomes of their addresses."""

from __future__ import annotations

from smsdaemon.store.dsn import names_in, with_addresses
from tests.support.cases import UnitTest


class HostsTests(UnitTest):
    def test_only_names_are_looked_up_each_once(self) -> None:
        self.assertEqual(names_in({"host": "db1,127.0.0.1,::1,/run/pg,@pg,,db2,db1"}, {}), ["db1", "db2"])

    def test_a_name_may_come_from_the_environment(self) -> None:
        self.assertEqual(names_in({}, {"PGHOST": "db"}), ["db"])
        self.assertEqual(names_in({"host": "/run/pg"}, {"PGHOST": "db"}), [])
        self.assertEqual(names_in({}, {}), [])

    def test_given_addresses_and_service_files_are_left_alone(self) -> None:
        for given, environment in (
            ({"host": "db", "hostaddr": "127.0.0.1"}, {}),
            ({"host": "db"}, {"PGHOSTADDR": "127.0.0.1"}),
            ({"host": "db", "service": "sms"}, {}),
            ({"host": "db"}, {"PGSERVICE": "sms"}),
        ):
            self.assertEqual(names_in(given, environment), [])

    def test_each_address_is_a_host_of_its_own_with_its_name_and_port(self) -> None:
        given = {"host": "db1,/run/pg,192.0.2.9,db2", "port": "1,2,3,", "target_session_attrs": "read-write"}
        found = {"db1": ["192.0.2.1", "2001:db8::1"], "db2": ["192.0.2.2"]}
        self.assertEqual(
            with_addresses(given, {}, found),
            {
                "host": "db1,db1,/run/pg,192.0.2.9,db2",
                "hostaddr": "192.0.2.1,2001:db8::1,,,192.0.2.2",
                "port": "1,1,2,3,",
                "target_session_attrs": "read-write",
            },
        )

    def test_one_port_is_that_of_all(self) -> None:
        found = {"db": ["192.0.2.1", "192.0.2.2"]}
        located = with_addresses({"host": "db"}, {"PGPORT": "5433"}, found)
        self.assertEqual(located, {"host": "db,db", "hostaddr": "192.0.2.1,192.0.2.2", "port": "5433,5433"})

    def test_a_name_that_was_not_found_is_left_out_and_without_any_there_is_no_way(self) -> None:
        located = with_addresses({"host": "a,b"}, {}, {"b": ["192.0.2.1"]})
        self.assertEqual(located, {"host": "b", "hostaddr": "192.0.2.1", "port": ""})
        self.assertIsNone(with_addresses({"host": "a,b"}, {}, {}))
