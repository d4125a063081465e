"""What is refused, in which order, and what an accepted SMS is made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed

from smsdaemon.domain.ids import time_of, uuid7
from smsdaemon.domain.model import Client, Connector, Directory, InboundSMS, Part, Receipt, Submission
from smsdaemon.domain.refused import RefusedSMS
from smsdaemon.errors import (
    NotRoutable,
    RequestRefused,
    SignatureRefused,
    StoreUnavailable,
    TokenRefused,
    UnknownConnector,
)
from smsdaemon.intake import Receiver, provider_key
from smsdaemon.ports import Offer
from tests.support.cases import UnitTest
from tests.support.deliveries import delivery, sms, target

NOW = datetime(2026, 11, 22, 16, 43, 42, tzinfo=UTC)
TOKEN = "t0ken"
CONNECTOR = Connector(id=1, client_id=1, number="+49 123123", number_key="49123123", target_id=1)


class RecordingStore:
    """Keeps what it is given; leases where the test says so."""

    def __init__(self) -> None:
        self.accepted: list[tuple[InboundSMS, bytes | None, bool]] = []
        self.leases = True
        self.duplicate = False
        self.down = False
        self.together = 0

    def accept(self, message: InboundSMS, key: bytes | None, lease: bool) -> Deferred[Receipt]:
        if self.down:
            return fail(StoreUnavailable("down"))
        self.accepted.append((message, key, lease))
        leased = delivery(sms=message) if lease and self.leases and not self.duplicate else None
        return succeed(Receipt(id=message.id, duplicate=self.duplicate, delivery=leased))

    def accept_all(self, batch: Sequence[Offer]) -> Deferred[list[Receipt]]:
        if self.down:
            return fail(StoreUnavailable("down"))
        self.together += 1
        return succeed([self.successful(self.accept(*offer)) for offer in batch])

    def successful(self, d: Deferred[Receipt]) -> Receipt:
        found: list[Receipt] = []
        d.addCallback(found.append)
        return found[0]

    def settle(self, *args: Any) -> Any:
        raise AssertionError("intake settles nothing")

    claim = settle


class CountingOutlet:
    """Has as many places as the test says, and counts what became of them."""

    def __init__(self) -> None:
        self.places = 1
        self.taken: list[Any] = []
        self.waiting: list[int] = []

    def reserve(self, target_id: int, connector_id: int) -> bool:
        self.places -= 1
        return self.places >= 0

    def release(self, target_id: int, connector_id: int) -> None:
        self.places += 1

    def queued(self, target_id: int) -> None:
        self.waiting.append(target_id)

    def take(self, taken: Any) -> None:
        self.taken.append(taken)


class RecordingRefusals:
    """Keeps what it hears of."""

    def __init__(self) -> None:
        self.turned: list[tuple[type[RequestRefused], Submission]] = []
        self.kept: list[RefusedSMS] = []

    def turned_away(self, refusal: RequestRefused, submission: Submission) -> None:
        self.turned.append((type(refusal), submission))

    def not_routable(self, sms: RefusedSMS) -> None:
        self.kept.append(sms)


class StillDirectory:
    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    def current(self) -> Directory:
        return self.directory


class ReceiverTest(UnitTest):
    def setUp(self) -> None:
        self.store, self.outlet, self.count = RecordingStore(), CountingOutlet(), 0
        self.refusals = RecordingRefusals()
        self.directory = StillDirectory(
            Directory(
                connectors={"49123123": CONNECTOR},
                targets={1: target()},
                clients={1: Client(id=1, reseller="acme", name="shop")},
            )
        )

    def receive(self, **fields: Any) -> Deferred[Receipt]:
        def accepted() -> None:
            self.count += 1

        receiver = Receiver(
            directory=self.directory,
            store=self.store,
            outlet=self.outlet,
            refusals=self.refusals,
            utc_now=lambda: NOW,
            new_id=uuid7,
            on_accepted=accepted,
        )
        values = {"receiver": "49123123", "sender": "49789789", "text": "x", **fields}
        return receiver.receive(Submission(**values))

    def change(self, **fields: Any) -> None:
        self.directory.directory = evolve(self.directory.directory, **fields)

    def change_connector(self, **fields: Any) -> None:
        self.change(connectors={"49123123": evolve(CONNECTOR, **fields)})


class AcceptedTests(ReceiverTest):
    def test_an_sms_carries_the_directorys_number_and_the_normalised_sender(self) -> None:
        receipt = self.successResultOf(self.receive(receiver="+49 (123) 123", keyword="K", message_id="m"))
        [(message, _, _)] = self.store.accepted
        self.assertEqual(
            (message.receiver, message.sender, message.sender_raw), ("+49 123123", "+49789789", "49789789")
        )
        self.assertEqual((message.keyword, message.provider_message_id), ("K", "m"))
        self.assertEqual((receipt.id, message.received_at), (message.id, NOW))
        self.assertEqual(time_of(message.id), NOW)

    def test_a_leased_delivery_goes_to_the_outlet_at_once(self) -> None:
        self.successResultOf(self.receive())
        self.assertEqual([d.sms.text for d in self.outlet.taken], ["x"])
        self.assertEqual((self.outlet.places, self.count), (0, 1))

    def test_a_place_that_is_not_needed_is_given_back(self) -> None:
        self.store.leases = False
        self.successResultOf(self.receive())
        self.assertEqual((self.outlet.places, self.outlet.waiting), (1, []))

    def test_a_repeat_is_acknowledged_not_counted_and_its_place_given_back(self) -> None:
        self.store.duplicate = True
        self.assertTrue(self.successResultOf(self.receive()).duplicate)
        self.assertEqual((self.outlet.places, self.outlet.taken, self.count), (1, [], 0))

    def test_without_a_place_the_outlet_hears_that_something_waits(self) -> None:
        self.outlet.places = 0
        self.successResultOf(self.receive())
        self.assertEqual(self.outlet.waiting, [1])
        self.assertFalse(self.store.accepted[0][2])

    def test_a_store_that_is_down_fails_the_request_and_gives_the_place_back(self) -> None:
        self.store.down = True
        self.failureResultOf(self.receive(), StoreUnavailable)
        self.assertEqual((self.outlet.places, self.count), (1, 0))


class RefusalTests(ReceiverTest):
    def tearDown(self) -> None:
        self.assertEqual(self.store.accepted, [])
        self.assertEqual(self.outlet.places, 1)

    def test_a_receiver_without_connector_is_unknown(self) -> None:
        for receiver in ("49999999", "()", "+"):
            self.failureResultOf(self.receive(receiver=receiver), UnknownConnector)

    def test_a_missing_or_wrong_token_is_refused_before_anything_is_said_of_routing(self) -> None:
        self.change_connector(
            require_token=True, token_hashes=frozenset([sha256(TOKEN.encode()).digest()]), enabled=False
        )
        for token in (None, "wrong", "", "\ud800"):
            self.failureResultOf(self.receive(token=token), TokenRefused)
        self.failureResultOf(self.receive(token=TOKEN), NotRoutable)

    def test_a_connector_that_requires_a_token_and_has_none_takes_nothing(self) -> None:
        self.change_connector(require_token=True)
        self.failureResultOf(self.receive(token=TOKEN), TokenRefused)

    def test_what_is_disabled_missing_or_of_another_client_is_not_routable(self) -> None:
        shop = Client(id=1, reseller="acme", name="shop", enabled=False)
        changes: list[tuple[str, Any]] = [
            ("the connector is disabled", lambda: self.change_connector(enabled=False)),
            ("neither", lambda: self.change_connector(target_id=None)),
            ("of another client", lambda: self.change(targets={1: target(client_id=2)})),
            ("disabled", lambda: self.change(targets={1: target(enabled=False)})),
            ("client or its reseller", lambda: self.change(clients={1: shop})),
        ]
        for words, change in changes:
            self.setUp()
            change()
            failure = self.failureResultOf(self.receive(), NotRoutable)
            self.assertIn(words, str(failure.value))
            self.assertEqual([kept.reason for kept in self.refusals.kept], [str(failure.value)])

    def test_what_has_no_connector_or_no_token_is_told_of_and_not_kept(self) -> None:
        self.change_connector(require_token=True)
        self.failureResultOf(self.receive(receiver="49999999"), UnknownConnector)
        self.failureResultOf(self.receive(token=TOKEN), TokenRefused)
        self.assertEqual([kind for kind, _ in self.refusals.turned], [UnknownConnector, TokenRefused])
        self.assertEqual(self.refusals.kept, [])

    def test_what_is_not_routable_is_kept_as_the_sms_it_would_have_been_without_its_token(self) -> None:
        fields = {"text": "x", "message_id": "m", "keyword": "K", "encoding": "latin-1", "raw_text": b"x"}
        self.change_connector(target_id=None)
        self.failureResultOf(self.receive(token=TOKEN, **fields), NotRoutable)
        [kept] = self.refusals.kept
        self.assertEqual((kept.connector_id, kept.receiver, kept.sender), (1, "+49 123123", "+49789789"))
        self.assertEqual((kept.received_at, time_of(kept.id)), (NOW, NOW))
        self.assertEqual(kept.submission, Submission(receiver="49123123", sender="49789789", **fields))  # type: ignore[arg-type]
        self.change_connector()
        would_be = sms(connector_id=1, provider_message_id="m", sender="+49789789", text="x")
        self.assertEqual(kept.provider_key, provider_key(would_be))
        self.assertEqual(self.refusals.turned, [])

    def test_a_refused_sms_cannot_be_made_with_its_token(self) -> None:
        self.change_connector(target_id=None)
        self.failureResultOf(self.receive(), NotRoutable)
        [kept] = self.refusals.kept
        with self.assertRaises(ValueError):
            evolve(kept, submission=evolve(kept.submission, token=TOKEN))


class TokenTests(ReceiverTest):
    def test_every_token_of_a_rotation_is_taken(self) -> None:
        hashes = frozenset(sha256(token.encode()).digest() for token in ("old", "new"))
        self.change_connector(require_token=True, token_hashes=hashes)
        self.outlet.places = 2
        for token in ("old", "new"):
            self.successResultOf(self.receive(token=token))

    def test_a_part_is_stored_as_such_and_one_that_cannot_be_one_as_a_whole(self) -> None:
        good, bad = Part(reference="7", number=1, total=2), Part(reference="7", number=3, total=2)
        for part in (good, bad):
            self.successResultOf(self.receive(part=part))
        self.assertEqual([message.part for message, *_ in self.store.accepted], [good, None])

    def test_a_token_that_is_not_required_may_be_anything(self) -> None:
        self.successResultOf(self.receive(token="whatever"))


class ProviderKeyTests(UnitTest):
    def test_it_is_shared_exactly_by_requests_that_bring_the_same_sms(self) -> None:
        first = sms(provider_message_id="m")
        self.assertEqual(provider_key(first), provider_key(evolve(first, id=uuid7(NOW), keyword="K")))
        others = [
            evolve(first, text="other"),
            evolve(first, sender="+1"),
            evolve(first, connector_id=2),
            evolve(first, provider_message_id="n"),
            evolve(first, connector_id=11, provider_message_id="m"),
        ]
        keys = {provider_key(first), *map(provider_key, others)}
        self.assertEqual(len(keys), 6)

    def test_parts_of_one_sms_are_no_repeats_of_each_other(self) -> None:
        parts = [Part(reference="7", number=n, total=3) for n in (1, 2, 3)]
        keys = {provider_key(sms(provider_message_id="m", part=part)) for part in (None, *parts)}
        self.assertEqual(len(keys), 4)

    def test_without_an_id_of_the_provider_nothing_is_a_repeat(self) -> None:
        self.assertIsNone(provider_key(sms(provider_message_id=None)))


class TogetherTests(ReceiverTest):
    """What one request has brought."""

    def receive_all(self, *submissions: Submission, nonces: dict[int, str] | None = None) -> Deferred[Any]:
        def gate(connectors: Any) -> dict[int, str] | Deferred[Any]:
            self.asked.append([connector.id for connector in connectors])
            if self.refuses:
                if self.waits:
                    return fail(SignatureRefused("wrong"))
                raise SignatureRefused("wrong")
            return succeed(nonces or {}) if self.waits else nonces or {}

        self.asked: list[list[int]] = []
        receiver = Receiver(
            directory=self.directory,
            store=self.store,
            outlet=self.outlet,
            refusals=self.refusals,
            utc_now=lambda: NOW,
            new_id=uuid7,
            on_accepted=lambda: None,
        )
        return receiver.receive_all(submissions, gate)

    refuses = waits = False

    def one(self, **fields: Any) -> Submission:
        return Submission(**{"receiver": "49123123", "sender": "1", "text": "x", **fields})

    def test_all_are_stored_in_one_step_and_the_gate_is_asked_once_for_each_connector(self) -> None:
        receipts = self.successResultOf(self.receive_all(self.one(text="a"), self.one(text="b")))
        self.assertEqual(self.store.together, 1)
        self.assertEqual([m.text for m, _, _ in self.store.accepted], ["a", "b"])
        self.assertEqual([r.id for r in receipts], [m.id for m, _, _ in self.store.accepted])
        self.assertEqual(self.asked, [[1]])

    def test_an_unknown_number_comes_before_a_wrong_signature_and_that_before_a_target(self) -> None:
        self.refuses = True
        self.change_connector(enabled=False)
        self.failureResultOf(self.receive_all(self.one(), self.one(receiver="9")), UnknownConnector)
        self.failureResultOf(self.receive_all(self.one()), SignatureRefused)
        self.refuses = False
        self.failureResultOf(self.receive_all(self.one()), NotRoutable)
        self.assertEqual(self.store.accepted, [])

    def test_a_gate_that_has_to_wait_decides_the_same(self) -> None:
        self.waits = True
        self.assertEqual(len(self.successResultOf(self.receive_all(self.one(), self.one()))), 2)
        self.refuses = True
        before = list(self.store.accepted)
        self.failureResultOf(self.receive_all(self.one()), SignatureRefused)
        self.assertEqual(self.store.accepted, before)
        self.assertEqual([kind for kind, _ in self.refusals.turned], [SignatureRefused])

    def test_a_token_is_asked_for_as_ever(self) -> None:
        self.change_connector(require_token=True, token_hashes=frozenset({sha256(TOKEN.encode()).digest()}))
        self.failureResultOf(self.receive_all(self.one(token=TOKEN), self.one()), TokenRefused)
        self.successResultOf(self.receive_all(self.one(token=TOKEN)))

    def test_another_providers_requests_are_refused_on_every_way(self) -> None:
        self.change_connector(providers=("twilio",))
        self.failureResultOf(self.receive(), SignatureRefused)
        self.failureResultOf(self.receive_all(self.one(provider="vonage")), SignatureRefused)
        self.successResultOf(self.receive_all(self.one(provider="twilio")))

    def test_a_nonce_is_the_repeats_key_where_there_is_no_id(self) -> None:
        for nonces in ({1: "n"}, {1: "n"}, {1: "other"}, {}):
            self.successResultOf(self.receive_all(self.one(), self.one(), nonces=nonces))
        keys = [key for _, key, _ in self.store.accepted]
        self.assertEqual(keys[:2], keys[2:4])
        self.assertEqual(len({*keys[:2], *keys[4:6]}), 4)
        self.assertEqual(keys[6:], [None, None])

    def test_places_that_were_reserved_are_given_back_where_nothing_is_stored(self) -> None:
        self.store.down, self.outlet.places = True, 2
        self.failureResultOf(self.receive_all(self.one(), self.one()), StoreUnavailable)
        self.assertEqual(self.outlet.places, 2)
