"""Many providers at one daemon: signed, posted over HTTPS, stored, and delivered with the right text."""

from __future__ import annotations

from urllib.parse import urlsplit

from smsdaemon.domain.model import WireRequest
from smsdaemon.providers.catalogue import load
from tests.support.backend import backend
from tests.support.daemon import QUICK_RETRIES, acd_group, client, connector, daemon, reseller
from tests.support.processes import ProcessTest
from tests.support.provider_requests import PROVIDERS, PUBLIC_URL, Provider, Sms
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER
from tests.support.sms_peers import Answer, Peer

SETTINGS = f'{QUICK_RETRIES}[receiver]\npublic_url = "{PUBLIC_URL}"\n'
TEXTS = {
    "umlauts": f"{TEXT_MARKER} äöü ÄÖÜ ß Ñ",
    "GSM extension": f"{TEXT_MARKER} [brackets] {{braces}} ~^|\\ €",
    "UCS-2": f"{TEXT_MARKER} Привет 你好 & = + %41",
    "emoji": f"{TEXT_MARKER} 😀👩‍👩‍👧 ",
}


def number(place: int) -> str:
    return f"{RECEIVER}{place:02d}"


class RoundTripTests(ProcessTest):
    def test_what_a_dozen_providers_send_is_delivered_and_what_was_forged_is_not(self) -> None:
        target = backend(self)
        entries = [
            connector(number(place), acd_group="group", **provider.keys)
            for place, provider in enumerate(PROVIDERS)
        ]
        directory = reseller() + client() + acd_group("group", target.url()) + "".join(entries)
        running = daemon(self, directory, SETTINGS)
        peer = running.tls_peer()
        self.addCleanup(peer.close)
        profiles = load(None)
        expected = {}
        for place, provider in enumerate(PROVIDERS):
            forged = provider.tamper(provider.make(self.sms(place, "umlauts")))
            refusal = profiles[provider.profile].refusal(401, "")
            self.assertEqual(ask(peer, forged).status, refusal.status if refusal else 401, provider.profile)
            for kind in TEXTS:
                sms = self.sms(place, kind)
                request = provider.make(sms)
                answer = ask(peer, request)
                self.assertEqual(answer.status, 200, (provider.profile, kind, answer.body))
                self.assertEqual(answer.body, self.wanted(provider, request, answer))
                expected[answer.id] = (number(place), sms.text, provider.profile, sms.uid)
        target.await_attempts(len(expected))
        found = {
            a.data["id"]: (
                a.data["receiver"],
                a.data["text"],
                a.data["provider"],
                a.data["provider_message_id"],
            )
            for a in target.attempts
        }
        self.assertEqual(found, expected)
        self.assertEqual({a.data["sender"] for a in target.attempts}, {SENDER})
        [(stored,)] = running.ask("SELECT count(*) FROM message")
        self.assertEqual(stored, len(expected))
        self.assertGreaterEqual(len({provider.profile for provider in PROVIDERS}), 12)

    def sms(self, place: int, kind: str) -> Sms:
        return Sms(receiver=number(place), sender=SENDER, text=TEXTS[kind], uid=f"{place}-{kind}")

    def wanted(self, provider: Provider, request: WireRequest, answer: Answer) -> bytes:
        """What the profile says that the provider wants to hear."""
        loaded = load(None)[provider.profile]
        return loaded.success(request, loaded.read(request), answer.id, False).body


def ask(peer: Peer, request: WireRequest) -> Answer:
    """Send it, to the daemon instead of where its URL leads."""
    parts = urlsplit(request.url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    headers = {name: values[0] for name, values in request.headers.items()}
    return peer.ask(request.method, target, request.body, headers)
