"""What a target's answers make of a delivery (contract 5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import count, pairwise

from tests.support.backend import Answer, Attempt, Backend, Reply
from tests.support.daemon import (
    Daemon,
    acd_group,
    application,
    client,
    connector,
    daemon,
    reseller,
    shared_daemon,
)
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SECRET, SENDER, TEXT_MARKER

_numbers = count()


def in_turn(*replies: Reply) -> Answer:
    """These answers one after the other; the last one repeats."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@cache
def closed_port() -> str:
    """A URL where nobody listens."""
    gone = Backend()
    gone.close()
    return gone.url()


class AttemptTest(ProcessTest):
    """Each test has a client of its own in the run's daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.path = f"attempts-{next(_numbers)}"
        self.client = f"acme/{self.path}"
        self.number = f"{RECEIVER}{500 + int(self.path.rpartition('-')[2])}"
        self.target = Backend()
        self.addCleanup(self.target.close)
        self.daemon = shared_daemon()

    def with_group(self, answer: Answer, running: Daemon | None = None) -> str:
        """Have an ACD group answer like this; the id of an SMS to it."""
        self.target.answer = answer
        self.daemon = running or self.daemon
        self.daemon.apply(
            self.group(self.target.url()) + connector(self.number, self.client, acd_group="group")
        )
        return self.send()

    def group(self, url: str, **keys: object) -> str:
        return reseller() + client(self.path) + acd_group("group", url, self.client, secret=SECRET, **keys)

    def send(self, number: str | None = None) -> str:
        peer = self.daemon.peer()
        self.addCleanup(peer.close)
        answer = peer.post_form(receiver=number or self.number, sender=SENDER, message=TEXT_MARKER)
        self.assertEqual(answer.status, 200)
        return answer.id

    def ended(self, id: str) -> Sequence[tuple[str, int]]:
        """State and attempts of its deliveries, once all have ended."""
        until(
            lambda: not self.daemon.ask("SELECT 1 FROM delivery WHERE message_id = %s", [id]),
            "the end of all",
        )
        found = self.daemon.ask(
            "SELECT state, attempts FROM ended_delivery WHERE message_id = %s ORDER BY seq", [id]
        )
        return [(str(state), int(attempts)) for state, attempts in found]

    def reason(self, id: str) -> str:
        """Why its last delivery ended as it did."""
        found = self.daemon.ask(
            "SELECT reason FROM ended_delivery WHERE message_id = %s ORDER BY seq DESC LIMIT 1", [id]
        )
        return str(found[0][0])

    def messages(self, id: str) -> dict[str, object]:
        """The row that `smsdaemon messages --json` has for it."""
        done = self.daemon.command("messages", "--json", "--receiver", self.number)
        self.assertEqual((done.status, done.err), (0, ""))
        [row] = [row for row in map(json.loads, done.out.splitlines()) if row["id"] == id]
        found: dict[str, object] = row
        return found


class AnswerTests(AttemptTest):
    def test_errors_are_retried_under_one_webhook_id_until_a_2xx(self) -> None:
        answers = [Reply(status) for status in (500, 503, 400, 404, 429, 301)]
        id = self.with_group(in_turn(*answers, Reply(204)))
        self.assertEqual(self.ended(id), [("delivered", 7)])
        attempts = self.target.attempts
        self.assertEqual([attempt.data["attempt"] for attempt in attempts], [1, 2, 3, 4, 5, 6, 7])
        self.assertEqual(len({attempt.webhook_id for attempt in attempts}), 1)
        for attempt in attempts:
            self.assertEqual(attempt.verify(SECRET)["data"]["delivery"], attempt.webhook_id)
        row = self.messages(id)
        self.assertEqual((row["state"], row["attempts"], row["target"]), ("delivered", 7, "group"))

    def test_the_delays_are_those_of_the_schedule(self) -> None:
        running = daemon(self, settings="[routing]\nretry_schedule = [0, 0.2, 0.5]\n")
        id = self.with_group(in_turn(Reply(500), Reply(500), Reply(500), Reply()), running)
        self.assertEqual(self.ended(id), [("delivered", 4)])
        for delay, wait in zip((0.2, 0.5, 0.5), self.waits(), strict=True):
            self.assertGreaterEqual(wait, delay * 0.8)

    def waits(self) -> list[float]:
        """Seconds from the end of each attempt to the begin of the next."""
        attempts = self.target.attempts
        return [after.began - (before.ended or 0) for before, after in pairwise(attempts)]

    def test_429_and_503_honour_retry_after(self) -> None:
        wait = {"Retry-After": "1"}
        id = self.with_group(in_turn(Reply(503, headers=wait), Reply(429, headers=wait), Reply()))
        self.assertEqual(self.ended(id), [("delivered", 3)])
        for seconds in self.waits():
            self.assertGreaterEqual(seconds, 1.0)

    def test_410_is_dead_at_once(self) -> None:
        id = self.with_group(in_turn(Reply(410)))
        self.assertEqual(self.ended(id), [("dead", 1)])
        row = self.messages(id)
        self.assertEqual((row["state"], row["attempts"], row["delivered_at"]), ("dead", 1, None))

    def test_dead_after_give_up_after_and_redelivered_by_the_command(self) -> None:
        running = daemon(self, settings="[routing]\nretry_schedule = [0, 0.1]\ngive_up_after = 0.5\n")
        id = self.with_group(in_turn(Reply(500)), running)
        [(state, attempts)] = self.ended(id)
        self.assertEqual(state, "dead")
        self.assertGreater(attempts, 2)
        self.assertIn("given up", self.reason(id))
        self.target.answer = in_turn(Reply())
        done = running.command("redeliver", "--id", id)
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertEqual(self.ended(id), [("delivered", attempts + 1)])
        self.assertEqual(len({attempt.webhook_id for attempt in self.target.attempts}), 1)
        self.assertEqual(self.target.attempts[-1].data["attempt"], attempts + 1)

    def test_never_dead_without_one_attempt(self) -> None:
        running = daemon(self, settings="[routing]\nretry_schedule = [0.2, 5]\ngive_up_after = 0\n")
        id = self.with_group(in_turn(Reply(500)), running)
        self.assertEqual(self.ended(id), [("dead", 1)])

    def test_all_that_is_dead_is_redelivered_by_one_command(self) -> None:
        id = self.with_group(in_turn(Reply(410)))
        other = self.send()
        self.assertEqual((self.ended(id), self.ended(other)), ([("dead", 1)], [("dead", 1)]))
        self.target.answer = in_turn(Reply())
        done = self.daemon.command("redeliver", "--state", "dead", "--target", f"{self.client}/group")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertEqual((self.ended(id), self.ended(other)), ([("delivered", 2)], [("delivered", 2)]))
        self.assertEqual([attempt.data["id"] for attempt in self.target.attempts[2:]], [id, other])

    def test_a_timeout_is_a_failed_attempt(self) -> None:
        running = daemon(self, settings="[routing]\nretry_schedule = [0, 0.05]\ntimeout = 0.3\n")
        asked: list[Attempt] = []

        def silent_once(attempt: Attempt) -> Reply:
            asked.append(attempt)
            if len(asked) == 1:
                until(lambda: len(asked) > 1, "the next attempt")
            return Reply()

        id = self.with_group(silent_once, running)
        self.assertEqual(self.ended(id), [("delivered", 2)])

    def test_a_redirect_is_not_followed(self) -> None:
        elsewhere = Backend()
        self.addCleanup(elsewhere.close)
        to = {"Location": elsewhere.url()}
        redirects = [Reply(status, headers=to) for status in (301, 302, 303, 307, 308)]
        id = self.with_group(in_turn(*redirects, Reply()))
        self.assertEqual(self.ended(id), [("delivered", 6)])
        self.assertEqual(elsewhere.attempts, [])

    def test_an_attempt_goes_to_the_url_that_the_target_has_by_then(self) -> None:
        self.daemon.apply(self.group(closed_port()) + connector(self.number, self.client, acd_group="group"))
        id = self.send()
        until(lambda: self.pending_attempts(id) > 1, "attempts at the first URL")
        self.daemon.apply(self.group(self.target.url()))
        [(state, _)] = self.ended(id)
        self.assertEqual((state, self.target.ids()), ("delivered", {id}))

    def pending_attempts(self, id: str) -> int:
        [(attempts,)] = self.daemon.ask("SELECT attempts FROM delivery WHERE message_id = %s", [id])
        return int(attempts)

    def test_a_disabled_target_waits_and_goes_on_when_it_is_enabled(self) -> None:
        id = self.with_group(in_turn(Reply(500)))
        self.target.await_attempts(2)
        self.daemon.apply(self.group(self.target.url(), enabled=False))
        until(lambda: self.not_leased(id), "the end of the last attempt")
        made, self.target.answer = len(self.target.attempts), in_turn(Reply())
        self.another_target_is_retried_for_a_while()
        self.assertEqual(len(self.target.attempts), made)
        self.assertEqual(self.messages(id)["state"], "pending")
        self.daemon.apply(self.group(self.target.url(), enabled=True))
        self.assertEqual(self.ended(id)[0][0], "delivered")

    def not_leased(self, id: str) -> bool:
        return self.daemon.ask("SELECT lease FROM delivery WHERE message_id = %s", [id]) == [(None,)]

    def another_target_is_retried_for_a_while(self) -> None:
        """What takes attempts, retries and a sweep: anything else that was due came up, too."""
        other = Backend(in_turn(Reply(503, headers={"Retry-After": "2"}), Reply()))
        self.addCleanup(other.close)
        self.daemon.apply(
            acd_group("other", other.url(), self.client)
            + connector(f"{self.number}9", self.client, acd_group="other")
        )
        self.assertEqual(self.ended(self.send(f"{self.number}9")), [("delivered", 2)])

    def test_a_log_target_is_delivered_without_text_or_whole_numbers_in_the_log(self) -> None:
        self.daemon.apply(self.group("log:") + connector(self.number, self.client, acd_group="group"))
        id = self.send()
        self.assertEqual(self.ended(id), [("delivered", 1)])
        until(lambda: f"message {id} from" in self.daemon.log(), "the log line")
        for hidden in (TEXT_MARKER, SENDER[1:], self.number[1:]):
            self.assertFalse(hidden in self.daemon.log())


class RouteTests(AttemptTest):
    """``{"route": …}`` in the answers of routing applications."""

    def with_applications(self, routes: dict[str, object], entry: str = "app-0") -> str:
        """Applications that answer with these routes, one that takes all, a group; sends to ``entry``."""

        def answer(attempt: Attempt) -> Reply:
            route = routes.get(attempt.path.removeprefix("/"))
            return Reply(body=b"" if route is None else json.dumps({"route": route}).encode())

        self.target.answer = answer
        entries = reseller() + client(self.path)
        for name in {*routes, "last-app"}:
            entries += application(name, self.target.url(f"/{name}"), self.client, secret=SECRET)
        entries += acd_group("group", self.target.url("/group"), self.client, secret=SECRET)
        entries += acd_group("closed", self.target.url("/closed"), self.client, enabled=False)
        self.daemon.apply(entries + connector(self.number, self.client, application=entry))
        return self.send()

    def test_an_application_sends_an_sms_on_to_a_group(self) -> None:
        id = self.with_applications({"app-0": {"acd_group": "group"}})
        self.assertEqual(self.ended(id), [("delivered", 1), ("delivered", 1)])
        first, second = self.target.attempts
        self.assertEqual((first.path, second.path), ("/app-0", "/group"))
        self.assertEqual(
            (first.data["hops"], second.data["hops"]), ([], [{"kind": "application", "name": "app-0"}])
        )
        self.assertNotEqual(first.webhook_id, second.webhook_id)
        self.assertEqual(second.verify(SECRET)["data"]["id"], id)
        self.assertEqual(second.data["target"]["kind"], "acd_group")
        row = self.messages(id)
        self.assertEqual((row["state"], row["attempts"], row["target"]), ("delivered", 2, "group"))

    def test_five_hops_are_gone(self) -> None:
        routes: dict[str, object] = {f"app-{n}": {"application": f"app-{n + 1}"} for n in range(4)}
        routes["app-4"] = {"acd_group": "group"}
        id = self.with_applications(routes)
        self.assertEqual(self.ended(id), [("delivered", 1)] * 6)
        last = self.target.attempts[-1]
        self.assertEqual(last.path, "/group")
        self.assertEqual([hop["name"] for hop in last.data["hops"]], [f"app-{n}" for n in range(5)])

    def test_the_sixth_hop_is_dead_with_the_reason(self) -> None:
        id = self.with_applications({"app-0": {"application": "app-0"}})
        self.assertEqual(self.ended(id), [("delivered", 1)] * 5 + [("dead", 1)])
        self.assertIn("hop 6", self.reason(id))
        self.assertEqual(self.messages(id)["state"], "dead")

    def test_a_route_that_leads_nowhere_is_dead_and_redeliverable(self) -> None:
        for route in (
            {"acd_group": "unknown"},
            {"application": "group"},
            {"acd_group": "closed"},
            {"acd_group": "group", "application": "last-app"},
            {},
            "group",
        ):
            routes: dict[str, object] = {"app-0": route}
            id = self.with_applications(routes)
            self.assertEqual(self.ended(id), [("dead", 1)])
            self.assertIn("route", self.reason(id))
        routes["app-0"] = {"acd_group": "group"}
        self.assertEqual(self.daemon.command("redeliver", "--id", id).status, 0)
        self.assertEqual(self.ended(id), [("delivered", 2), ("delivered", 1)])

    def test_any_other_body_means_nothing(self) -> None:
        self.with_applications({}, entry="last-app")
        for body in (b"OK", b"[]", b'{"routes": 1}', b'{"route": null}', b"\xff", b"{" * 100_000):
            self.target.answer = in_turn(Reply(body=body))
            self.assertEqual(self.ended(self.send()), [("delivered", 1)])

    def test_a_groups_answer_routes_nothing(self) -> None:
        id = self.with_group(in_turn(Reply(body=b'{"route": {"acd_group": "group"}}')))
        self.assertEqual(self.ended(id), [("delivered", 1)])
