"""Every row of the status table (contract 3), by requests to a real daemon."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import combinations
from uuid import UUID

from attrs import frozen

from tests.support.daemon import (
    Daemon,
    acd_group,
    application,
    client,
    connector,
    reseller,
    shared_daemon,
)
from tests.support.processes import ProcessTest
from tests.support.secrets_in_tests import OTHER_TOKEN, RECEIVER, SENDER, TEXT_MARKER, TOKEN
from tests.support.sms_peers import FORM, PATH, Answer, Peer, query

CLIENT = "acme/statuses"
WRONG_TOKEN = TOKEN[:-1] + "0"
ALIASES = {
    "receiver": ("receiver", "ziel", "system"),
    "sender": ("sender", "absender"),
    "message": ("message", "data", "smstext"),
    "message_id": ("message_id", "messageid", "msgid"),
}
TAKEN, GUARDED = f"{RECEIVER}01", f"{RECEIVER}02"
GUARDED_AND_BARE = f"{RECEIVER}03"
UNKNOWN = f"{RECEIVER}99"
NOT_ROUTABLE = {
    f"{RECEIVER}11": "a disabled connector",
    f"{RECEIVER}12": "a disabled target",
    f"{RECEIVER}13": "a disabled client",
    f"{RECEIVER}14": "a disabled reseller",
    f"{RECEIVER}15": "neither ACD group nor routing application",
    f"{RECEIVER}16": "a target of another client",
}
LONG_URL = 16384 + 1
LARGE_BODY = 65536 + 1


def directory() -> str:
    guarded = {"require_token": True, "tokens": [TOKEN, OTHER_TOKEN]}
    there = list(NOT_ROUTABLE)
    return (
        reseller()
        + reseller("closed", enabled=False)
        + client("statuses")
        + client("closed", enabled=False)
        + client("statuses", "closed")
        + acd_group("group", "log:", CLIENT)
        + application("off", "log:", CLIENT, enabled=False)
        + acd_group("group", "log:", "acme/closed")
        + acd_group("group", "log:", "closed/statuses")
        + connector(TAKEN, CLIENT, acd_group="group")
        + connector(GUARDED, CLIENT, acd_group="group", **guarded)
        + connector(GUARDED_AND_BARE, CLIENT, **guarded)
        + connector(there[0], CLIENT, acd_group="group", enabled=False)
        + connector(there[1], CLIENT, application="off")
        + connector(there[2], "acme/closed", acd_group="group")
        + connector(there[3], "closed/statuses", acd_group="group")
        + connector(there[4], CLIENT)
        + connector(there[5], CLIENT, acd_group="group")
    )


@cache
def scene() -> Daemon:
    """The run's daemon with a connector for each row of the table."""
    daemon = shared_daemon()
    daemon.apply(directory())
    # Moved without its target: a key that is left out keeps what is stored.
    daemon.apply(client("elsewhere") + connector(list(NOT_ROUTABLE)[5], "acme/elsewhere"))
    return daemon


@frozen
class Request:
    """One that can be given every fault at once."""

    method: str = "POST"
    url_length: int = 0
    body_length: int = 0
    content_type: str = FORM
    fields: Mapping[str, str] = {}


class StatusTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.daemon = scene()
        self.peer = self.daemon.peer()
        self.addCleanup(self.peer.close)
        self.before = self.stored()

    def stored(self) -> int:
        [(count,)] = self.daemon.ask("SELECT count(*) FROM message WHERE receiver LIKE %s", [f"{RECEIVER}%"])
        return int(count)

    def refused(self, answer: Answer, status: int) -> None:
        """One line of plain text, and nothing stored."""
        self.assertEqual(answer.status, status)
        self.assertEqual(answer.headers["content-type"].partition(";")[0], "text/plain")
        self.assertEqual(len(answer.body.decode().splitlines()), 1)
        self.assertNotIn("sms-message-id", answer.headers)
        self.assertEqual(self.stored(), self.before)

    # --- 200 -------------------------------------------------------------------------------------

    def test_200_for_every_alias_in_a_query_and_in_each_body(self) -> None:
        sent = 0
        for receiver in ALIASES["receiver"]:
            for sender in ALIASES["sender"]:
                for message in ALIASES["message"]:
                    fields = {receiver: TAKEN, sender: SENDER, message: TEXT_MARKER}
                    shouted = {name.upper(): value for name, value in fields.items()}
                    for answer in (
                        self.peer.get(**fields),
                        self.peer.get(**shouted),
                        self.peer.post_form(**fields),
                        self.peer.post_multipart(**fields),
                        self.peer.post_json(**fields),
                    ):
                        sent += 1
                        self.assertEqual((answer.status, answer.body.strip()), (200, b"OK"))
                        UUID(answer.id)
        self.assertEqual(self.stored(), self.before + sent)

    def test_each_alias_of_the_providers_own_id_makes_a_repeat_one(self) -> None:
        ids = {
            self.peer.get(receiver=TAKEN, sender=SENDER, message=TEXT_MARKER, **{alias: "alias-1"}).id
            for alias in ALIASES["message_id"]
        }
        self.assertEqual(len(ids), 1)

    def test_every_answer_bears_the_time_of_day(self) -> None:
        for receiver in (TAKEN, UNKNOWN):
            answer = self.peer.get(receiver=receiver, sender=SENDER, message="")
            told = parsedate_to_datetime(answer.headers["date"])
            self.assertLess(abs((datetime.now(UTC) - told).total_seconds()), 60)

    def test_200_for_an_empty_message(self) -> None:
        self.assertEqual(self.peer.get(receiver=TAKEN, sender=SENDER, message="").status, 200)

    def test_200_for_each_token_that_is_valid(self) -> None:
        for token in (TOKEN, OTHER_TOKEN):
            answer = self.peer.post_form(receiver=GUARDED, sender=SENDER, message=TEXT_MARKER, token=token)
            self.assertEqual(answer.status, 200)

    def test_200_in_json_for_those_who_prefer_it(self) -> None:
        fields = query({"receiver": TAKEN, "sender": SENDER, "message": TEXT_MARKER})
        answer = self.peer.ask("GET", f"{PATH}?{fields}", headers={"Accept": "application/json"})
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(json.loads(answer.body), {"status": "OK", "id": answer.id})

    # --- what is refused ---------------------------------------------------------------------------

    def test_400_where_a_field_is_missing_under_every_name(self) -> None:
        complete = {"receiver": TAKEN, "sender": SENDER, "message": TEXT_MARKER}
        for missing in complete:
            rest = {name: value for name, value in complete.items() if name != missing}
            for answer in (
                self.peer.get(**rest),
                self.peer.post_form(**rest),
                self.peer.post_multipart(**rest),
                self.peer.post_json(**rest),
                self.peer.post_json(**rest, **{missing: None}),
            ):
                self.refused(answer, 400)
                self.assertIn(missing.encode(), answer.body)

    def test_400_where_a_number_is_blank_under_every_alias(self) -> None:
        for field in ("receiver", "sender"):
            for alias in ALIASES[field]:
                fields = {"receiver": TAKEN, "sender": SENDER, "message": TEXT_MARKER}
                del fields[field]
                self.refused(self.peer.get(**fields, **{alias: "  "}), 400)

    def test_400_where_a_field_is_too_long(self) -> None:
        fields = {"receiver": TAKEN, "sender": SENDER, "message": TEXT_MARKER}
        for name, most in (("receiver", 64), ("sender", 64), ("keyword", 64), ("message_id", 256)):
            self.refused(self.peer.post_form(**{**fields, name: "1" * (most + 1)}), 400)
        many = {f"x{n}": "" for n in range(98)}
        self.refused(self.peer.post_form(**fields, **many), 400)

    def test_400_for_a_body_that_cannot_be_parsed(self) -> None:
        for content_type, body in (
            ("application/json", b"{"),
            ("application/json", b"[1]"),
            ("application/json", b'{"receiver": {}}'),
            ("multipart/form-data", b"--x"),
            ("multipart/form-data; boundary=x", b"--x\r\n"),
        ):
            self.refused(self.peer.ask("POST", PATH, body, {"Content-Type": content_type}), 400)

    def test_401_where_the_token_is_missing_or_wrong(self) -> None:
        fields = {"receiver": GUARDED, "sender": SENDER, "message": TEXT_MARKER}
        for more in ({}, {"token": ""}, {"token": WRONG_TOKEN}):
            for answer in (
                self.peer.get(**fields, **more),
                self.peer.post_form(**fields, **more),
                self.peer.post_multipart(**fields, **more),
                self.peer.post_json(**fields, **more),
            ):
                self.refused(answer, 401)
                self.assertIn("www-authenticate", answer.headers)

    def test_404_where_no_connector_has_the_number_under_every_alias(self) -> None:
        for alias in ALIASES["receiver"]:
            answer = self.peer.get(**{alias: UNKNOWN}, sender=SENDER, message=TEXT_MARKER)
            self.refused(answer, 404)

    def test_405_for_other_methods_which_store_nothing(self) -> None:
        fields = query({"receiver": TAKEN, "sender": SENDER, "message": TEXT_MARKER})
        for method in ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            answer = self.peer.ask(method, f"{PATH}?{fields}")
            self.assertEqual(answer.status, 405)
            self.assertEqual(set(answer.headers["allow"].replace(" ", "").split(",")), {"GET", "POST"})
        self.assertEqual(self.stored(), self.before)

    def test_413_and_414_only_beyond_the_limit(self) -> None:
        at_limit = Request(body_length=LARGE_BODY - 1, fields=self.good())
        self.assertEqual(self.send(at_limit).status, 200)
        at_limit = Request(method="GET", url_length=LONG_URL - 1, fields=self.good())
        self.assertEqual(self.send(at_limit).status, 200)
        self.before += 2
        self.refused(self.send(Request(body_length=LARGE_BODY, fields=self.good())), 413)
        self.refused(self.send(Request(method="GET", url_length=LONG_URL, fields=self.good())), 414)

    def test_415_for_an_unknown_type_of_body(self) -> None:
        for content_type in ("text/plain", "application/xml", "application/x-www-form", "nonsense"):
            self.refused(self.send(Request(content_type=content_type, fields=self.good())), 415)

    def test_502_for_each_reason(self) -> None:
        for number in NOT_ROUTABLE:
            answer = self.peer.get(receiver=number, sender=SENDER, message=TEXT_MARKER)
            self.refused(answer, 502)

    def test_errors_in_json_for_those_who_prefer_it(self) -> None:
        answer = self.peer.ask(
            "GET", f"{PATH}?receiver={UNKNOWN[1:]}", headers={"Accept": "application/json"}
        )
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.headers["content-type"], "application/problem+json")
        problem = json.loads(answer.body)
        self.assertEqual(problem["status"], 400)
        self.assertTrue(problem["title"])

    # --- precedence --------------------------------------------------------------------------------

    def test_of_two_faults_the_one_that_is_checked_first_is_answered(self) -> None:
        for faults in combinations(ORDER, 2):
            request = with_faults(self.good(), faults)
            self.assertEqual((faults, self.send(request).status), (faults, min(faults, key=ORDER.index)))
        self.assertEqual(self.stored(), self.before)

    def test_all_faults_at_once_are_answered_one_by_one_as_they_are_mended(self) -> None:
        for n, first in enumerate(ORDER):
            self.assertEqual(self.send(with_faults(self.good(), ORDER[n:])).status, first)
        self.assertEqual(self.stored(), self.before)
        self.assertEqual(self.send(with_faults(self.good(), ())).status, 200)

    def good(self) -> Mapping[str, str]:
        return {"receiver": TAKEN, "sender": SENDER, "message": TEXT_MARKER}

    def send(self, request: Request) -> Answer:
        """POSTs have their fields in the body, others in the URL; both are filled up to a length."""
        fields = query(request.fields)
        in_body = request.method == "POST" and not request.url_length
        target = PATH if in_body else f"{PATH}?{fields}"
        if request.url_length:
            target += "&x=" + "x" * (request.url_length - len(target) - 3)
        body = fields.encode() if in_body else b""
        if request.body_length:
            body += b"&x=" + b"x" * (request.body_length - len(body) - 3)
        peer = Peer(self.daemon.port())
        try:
            return peer.ask(request.method, target, body or None, {"Content-Type": request.content_type})
        finally:
            peer.close()


ORDER: Sequence[int] = (414, 405, 413, 415, 400, 404, 401, 502)


def with_faults(fields: Mapping[str, str], faults: Sequence[int]) -> Request:
    """A request that each of these statuses would be right for, were it not for the others."""
    fields = dict(fields)
    if 404 in faults:
        fields["receiver"] = UNKNOWN
    elif 401 in faults and 502 in faults:
        fields["receiver"] = GUARDED_AND_BARE
    elif 401 in faults:
        fields["receiver"] = GUARDED
    elif 502 in faults:
        fields["receiver"] = next(iter(NOT_ROUTABLE))
    if 400 in faults:
        del fields["sender"]
    return Request(
        method="PUT" if 405 in faults else "POST",
        url_length=LONG_URL if 414 in faults else 0,
        body_length=LARGE_BODY if 413 in faults else 0,
        content_type="text/plain" if 415 in faults else FORM,
        fields=fields,
    )
