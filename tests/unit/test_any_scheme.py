"""A profile with several schemes: one that is content is enough."""

from __future__ import annotations

import hmac
from base64 import b64encode
from datetime import UTC, datetime

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import ConfigurationError, SignatureRefused
from smsdaemon.providers.any_scheme import AnyScheme
from smsdaemon.providers.profile import Profile
from smsdaemon.providers.profile_file import parse
from tests.support.cases import UnitTest
from tests.support.vectors import wire_request

NOW = datetime(2026, 11, 26, tzinfo=UTC)
GOOD = 'name = "x"\ndescription = "X"\n[fields]\nsender = "from"\ntext = "text"\n'
HMAC = '[[authentication]]\nscheme = "hmac_body"\n'
BASIC = '[[authentication]]\nscheme = "basic"\n'
SECRETS = ("signing", "user:password")


def profile(text: str) -> Profile:
    return parse((GOOD + text).encode(), "x", "x.toml")


def request(**headers: str) -> WireRequest:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return wire_request("POST", "https://x/SMSReceiver/x", given, b"body")


class AnySchemeTests(UnitTest):
    def setUp(self) -> None:
        authentication = profile(HMAC + BASIC).authentication
        assert authentication is not None
        assert isinstance(authentication.scheme, AnyScheme)
        self.scheme = authentication.scheme

    def verify(self, **headers: str) -> Verified:
        return self.scheme.verify(request(**headers), SECRETS, NOW)

    def test_either_is_enough(self) -> None:
        self.verify(x_signature=hmac.digest(b"signing", b"body", "sha256").hex())
        self.verify(authorization="Basic " + b64encode(b"user:password").decode())

    def test_neither_is_refused_as_the_first_says(self) -> None:
        with self.assertRaisesRegex(SignatureRefused, "x-signature"):
            self.verify()
        with self.assertRaises(SignatureRefused):
            self.verify(x_signature="00", authorization="Basic " + b64encode(b"user:other").decode())

    def test_each_takes_only_secrets_that_it_can_use(self) -> None:
        with self.assertRaises(SignatureRefused):
            self.scheme.verify(request(authorization="Basic " + b64encode(b"signing").decode()), SECRETS, NOW)
        with self.assertRaises(SignatureRefused):
            self.scheme.verify(request(), (), NOW)
        self.scheme.check_secret("signing")
        with self.assertRaises(ValueError):
            self.scheme.check_secret("")

    def test_it_covers_the_body_if_all_do(self) -> None:
        self.assertFalse(self.scheme.covers_body)
        self.assertEqual(self.scheme.reads_query, "never")
        self.assertEqual(self.scheme.name, "hmac_body or basic")
        self.assertIn("; or user:password", self.scheme.takes)

    def test_signatures_are_required_unless_a_table_says_otherwise(self) -> None:
        self.assertTrue(profile(HMAC + BASIC).signs)
        self.assertFalse(profile(HMAC + BASIC + "required = false\n").signs)

    def test_one_that_needs_the_network_stands_alone(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            profile(HMAC + '[[authentication]]\nscheme = "sns"\n')
        self.assertIn("needs no network", caught.exception.problems[0])
        with self.assertRaises(ConfigurationError) as caught:
            profile(HMAC + '[[authentication]]\nscheme = "trust"\n')
        self.assertIn("x.toml: authentication[1]: there is no scheme trust", caught.exception.problems[0])
