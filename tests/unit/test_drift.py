"""Requests that are not what they were: what is flagged, when it is normal, and what is never kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cattrs
from twisted.internet.task import Clock

from smsdaemon.domain.model import Connector
from smsdaemon.domain.shapes import LEARNING_LOOKS, MISSING_LOOKS, NORMAL_LOOKS
from smsdaemon.drift import FAILURES, LOOKS_PER_SECOND, MAX_WATCHED, DriftState, DriftWatch, merged
from smsdaemon.drift_keeper import DriftKeeper, acknowledge
from smsdaemon.providers.field_names import fell_back, field_names
from smsdaemon.worker_channel import read_report, report_line
from smsdaemon.worker_state import WorkerState
from tests.support.cases import UnitTest

START = datetime(2026, 11, 22, tzinfo=UTC)
FORM = "application/x-www-form-urlencoded"
USUAL = frozenset({"To", "From", "Body"})


def connector(id: int = 1) -> Connector:
    return Connector(id=id, client_id=1, number=f"+4912345{id}", number_key=f"4912345{id}", target_id=1)


class DriftTest(UnitTest):
    def setUp(self) -> None:
        self.clock = Clock()
        self.watch = self.made()

    def made(self) -> DriftWatch:
        return DriftWatch(seconds=self.clock.seconds, utc_now=self.now)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.clock.seconds())

    def requests(self, names: frozenset[str], count: int = 1, *, fallback: bool = False, id: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(0.25)
            self.assertTrue(self.watch.due(connector(id), "twilio"))
            self.watch.look(connector(id), "twilio", names, fallback)

    def learn(self) -> None:
        self.requests(USUAL, LEARNING_LOOKS)

    def flagged(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(state.kind, state.names) for state in self.watch.states()]


class ShapeTests(DriftTest):
    def test_nothing_is_flagged_while_a_connector_is_learned(self) -> None:
        for n in range(LEARNING_LOOKS):
            self.requests(frozenset({"To", f"field{n}"}))
        self.requests(frozenset({"To", "field3"}))
        self.assertEqual(self.flagged(), [])

    def test_a_new_field_is_flagged_at_once_and_normal_after_a_while(self) -> None:
        self.learn()
        self.requests(USUAL | {"Fresh"})
        self.requests(USUAL)
        [state] = self.watch.states()
        self.assertEqual(
            (state.kind, state.names, state.connector), ("unknown field", ("Fresh",), "+49123451")
        )
        self.requests(USUAL | {"Fresh"}, NORMAL_LOOKS - 1)
        self.assertEqual(self.flagged(), [])
        self.requests(USUAL | {"Fresh"})
        self.assertEqual(self.flagged(), [])

    def test_a_field_that_vanished_is_flagged_until_it_is_back_or_that_is_normal(self) -> None:
        self.learn()
        self.requests(USUAL - {"Body"}, MISSING_LOOKS - 1)
        self.assertEqual(self.flagged(), [])
        self.requests(USUAL - {"Body"})
        self.assertEqual(self.flagged(), [("missing field", ("Body",))])
        self.requests(USUAL)
        self.assertEqual(self.flagged(), [])
        self.requests(USUAL - {"Body"}, MISSING_LOOKS)
        self.assertEqual(self.flagged(), [("missing field", ("Body",))])
        self.requests(USUAL - {"Body"}, NORMAL_LOOKS)
        self.assertEqual(self.flagged(), [])

    def test_a_field_that_is_missing_now_and_then_is_no_change(self) -> None:
        self.learn()
        self.requests(USUAL - {"Body"}, MISSING_LOOKS - 1)
        self.requests(USUAL)
        self.requests(USUAL - {"Body"}, MISSING_LOOKS + 1)
        self.assertEqual(self.flagged(), [])

    def test_a_text_that_is_no_utf_8_any_more_is_flagged_and_its_end_is_not(self) -> None:
        self.requests(USUAL, LEARNING_LOOKS, fallback=True, id=2)
        self.requests(USUAL, 2 * MISSING_LOOKS, id=2)
        self.learn()
        self.requests(USUAL, fallback=True)
        self.assertEqual(self.flagged(), [("charset", ("text that is not UTF-8",))])

    def test_what_is_acknowledged_is_normal(self) -> None:
        self.learn()
        changed = frozenset({"To", "From", "Text"})
        self.requests(changed, MISSING_LOOKS)
        self.assertEqual(len(self.flagged()), 2)
        self.watch.acknowledge()
        self.requests(changed, MISSING_LOOKS + 1)
        self.assertEqual(self.flagged(), [])


class FailureTests(DriftTest):
    def test_signatures_that_are_wrong_in_a_row_are_flagged_until_a_good_one(self) -> None:
        for _ in range(FAILURES):
            self.assertEqual(self.flagged(), [])
            self.watch.refused([connector()], "twilio", "the signature is wrong")
        self.assertEqual(self.flagged(), [("signature", ("the signature is wrong",))])
        self.watch.due(connector(2), "twilio")
        self.assertEqual(len(self.flagged()), 1)
        self.watch.due(connector(), "twilio")
        self.assertEqual(self.flagged(), [])

    def test_requests_that_cannot_be_read_in_a_row_are_flagged_for_the_provider(self) -> None:
        for _ in range(FAILURES):
            self.watch.unreadable("twilio", "missing: text")
        [state] = self.watch.states()
        self.assertEqual((state.kind, state.connector, state.names), ("unreadable", "", ("missing: text",)))
        self.watch.due(connector(), "infobip")
        self.assertEqual(len(self.flagged()), 1)
        self.watch.due(connector(), "twilio")
        self.assertEqual(self.flagged(), [])


class CostTests(DriftTest):
    def test_a_known_connector_is_looked_at_now_and_then_only(self) -> None:
        self.learn()
        self.assertFalse(self.watch.due(connector(), "twilio"))
        self.clock.advance(0.25)
        self.assertTrue(self.watch.due(connector(), "twilio"))

    def test_all_connectors_together_are_looked_at_so_often_only(self) -> None:
        due = [self.watch.due(connector(n), "twilio") for n in range(1, 2 * LOOKS_PER_SECOND)]
        self.assertEqual(sum(due), LOOKS_PER_SECOND)

    def test_memory_is_bounded_whatever_comes(self) -> None:
        for n in range(MAX_WATCHED + 100):
            self.clock.advance(0.25)
            if self.watch.due(connector(n + 1), "twilio"):
                self.watch.look(connector(n + 1), "twilio", USUAL, False)
            self.watch.refused([connector(n + 1)], "twilio", "no")
        self.assertEqual(len(self.watch.memory()), MAX_WATCHED)
        self.learn()
        for n in range(500):
            self.requests(frozenset({f"name{n}"}))
        self.assertLess(len(json.dumps(self.watch.memory()[0])), 10_000)
        self.assertLessEqual(len(self.watch.states()), 100)

    def test_what_was_not_seen_for_a_week_is_forgotten(self) -> None:
        self.learn()
        self.requests(USUAL | {"Fresh"})
        self.clock.advance(7 * 86400 + 1)
        self.requests(USUAL)
        self.watch.forget()
        self.assertEqual(self.flagged(), [])
        self.assertEqual(len(self.watch.memory()), 1)
        memory = json.loads(json.dumps(self.watch.memory()))
        self.clock.advance(7 * 86400 + 1)
        self.watch.forget()
        self.assertEqual(self.watch.memory(), [])
        self.watch.remember(memory)
        self.watch.forget()
        self.assertEqual(len(self.watch.memory()), 1)


class KeeperTests(DriftTest):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def keeper(self) -> DriftKeeper:
        keeper = DriftKeeper(watch=self.watch, state_dir=self.folder, number=1, reactor=self.clock)
        keeper.start()
        return keeper

    def test_what_is_known_outlives_a_restart(self) -> None:
        keeper = self.keeper()
        self.learn()
        self.requests(USUAL | {"Fresh"})
        keeper.stop()
        self.watch = self.made()
        self.keeper().stop()
        self.assertEqual(self.flagged(), [("unknown field", ("Fresh",))])
        self.requests(USUAL | {"Other"})
        self.assertEqual(self.flagged(), [("unknown field", ("Fresh", "Other"))])

    def test_a_file_that_makes_no_sense_is_learned_anew(self) -> None:
        for content in ("", "[]", '{"shapes": [{}]}', '{"shapes": 7, "acknowledged": null}'):
            (self.folder / "drift-1.json").write_text(content)
            self.keeper().stop()
            self.assertEqual(self.watch.memory(), [])

    def test_an_acknowledgement_in_the_state_folder_is_heard_within_a_second_and_once(self) -> None:
        keeper = self.keeper()
        self.learn()
        self.requests(USUAL | {"Fresh"})
        acknowledge(self.folder)
        self.clock.advance(1)
        self.assertEqual(self.flagged(), [])
        self.requests(USUAL | {"Fresh", "Other"})
        keeper.stop()
        self.watch = self.made()
        self.keeper().stop()
        self.assertEqual(self.flagged(), [("unknown field", ("Other",))])


class MergeTests(UnitTest):
    def test_workers_can_tell_it_through_a_pipe(self) -> None:
        state = DriftState(connector="1", provider="twilio", kind="charset", names=("a", "b"), since=1.5)
        told = WorkerState(
            accepts=True, database=True, directory=True, journal=None, breakers=0, drift=(state,)
        )
        line = report_line("state", cattrs.unstructure(told))
        self.assertEqual(cattrs.structure(read_report(line)[1], WorkerState), told)

    def test_what_several_workers_tell_is_told_once(self) -> None:
        def state(names: tuple[str, ...], since: float, connector: str = "1") -> DriftState:
            return DriftState(
                connector=connector, provider="twilio", kind="unknown field", names=names, since=since
            )

        self.assertEqual(
            merged([state(("b",), 5), state(("a",), 3), state(("c",), 4, "2")]),
            [state(("a", "b"), 3), state(("c",), 4, "2")],
        )


class NameTests(UnitTest):
    def names(self, kind: str, body: str, query: str = "") -> list[str]:
        return sorted(field_names(query.encode(), kind, body.encode()))

    def test_names_of_all_kinds_of_bodies(self) -> None:
        part = 'x\r\nContent-Disposition: form-data; name="to"\r\n\r\n1\r\n'
        document = {"data": {"to": [{"number": "1"}, {"number": "2"}], "text": None}, "n": 1}
        for kind, body, expected in (
            (FORM, "To=%2B49&From=1&msg%6Cong.id=2", ["From", "To", "msglong.id"]),
            ("", "a=1", ["a"]),
            ("application/json; charset=utf-8", json.dumps(document), ["data.text", "data.to[].number", "n"]),
            ("text/plain", json.dumps([{"to": 1}]), ["to"]),
            ("text/xml", '<m id="1"><to>1</to><b xmlns="urn:x"><c/></b></m>', ["@id", "b.c", "to"]),
            ("multipart/form-data; boundary=x", f"--{part}--x--", ["to"]),
            ("image/png", "a=b", []),
        ):
            self.assertEqual(self.names(kind, body), expected)
            self.assertEqual(self.names(kind, body, "key=1"), sorted([*expected, "key"]))

    def test_nothing_that_could_be_a_text_or_a_number_is_a_name(self) -> None:
        body = "text=Fish & chips&good=1&491234567=x&x491234567=y&Hello there=1&Ünï=1&" + "n" * 65 + "=1"
        self.assertEqual(self.names(FORM, body), ["good", "text"])

    def test_hostile_bodies_have_few_names_and_take_no_time(self) -> None:
        bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>'
        for kind, body in (
            ("application/json", "[" * 10_000),
            ("application/json", json.dumps({f"n{n}": 1 for n in range(5000)})),
            ("application/json", json.dumps([{"a": [[1] * 100] * 100}] * 100)),
            ("text/xml", bomb),
            ("text/xml", "<x>" * 5000 + "</x>" * 5000),
            (FORM, "&".join(f"n{n}=1" for n in range(5000))),
        ):
            self.assertLessEqual(len(self.names(kind, body)), 100)

    def test_a_charset_that_was_declared_is_no_fallback(self) -> None:
        self.assertTrue(fell_back("windows-1252", FORM))
        self.assertTrue(fell_back("windows-1252", ""))
        self.assertTrue(fell_back("windows-1252", "text/plain; charset=utf-8"))
        self.assertFalse(fell_back("windows-1252", f"{FORM}; charset=cp1252"))
        self.assertFalse(fell_back("utf-8", FORM))
