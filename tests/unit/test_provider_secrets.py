"""Which of a connector's secrets a profile may check signatures with."""

from __future__ import annotations

from functools import cache

from smsdaemon.domain.model import Connector
from smsdaemon.domain.providers import problems
from smsdaemon.errors import SignatureRefused
from smsdaemon.providers.any_scheme import AnyScheme
from smsdaemon.providers.catalogue import load
from smsdaemon.providers.loaded import LoadedProfile
from smsdaemon.providers.schemes import make_scheme
from tests.support.cases import UnitTest
from tests.support.signers import SIGNERS, Sent
from tests.unit.schemes.test_schemes import NOW

KEY, TOKEN = SIGNERS["telnyx"].secret, "an-auth-token"
ARN = "arn:aws:sns:eu-central-1:123456789012:mo"


@cache
def profiles() -> dict[str, LoadedProfile]:
    return dict(load(None))


def connector(providers: tuple[str, ...], secrets: tuple[str, ...]) -> Connector:
    return Connector(
        id=1,
        client_id=1,
        number="+491",
        number_key="491",
        target_id=1,
        providers=providers,
        provider_secrets=secrets,
    )


class SecretTests(UnitTest):
    def used(self, name: str, providers: tuple[str, ...], *secrets: str) -> tuple[str, ...]:
        try:
            return profiles()[name].scheme_and_secrets(connector(providers, secrets))[1]
        except SignatureRefused:
            return ()

    def test_what_one_profile_takes_as_public_is_no_secret_of_another(self) -> None:
        for other, public in (("telnyx", KEY), ("aws-sns", ARN)):
            for name in ("twilio", "smssync", "plivo"):
                both = (other, name)
                self.assertEqual(self.used(name, both, public, TOKEN), (TOKEN,))
                self.assertEqual(self.used(name, both, public), ())
                self.assertEqual(self.used(other, both, public, TOKEN), (public,))
        # Where nobody takes it as public it may be a secret that looks like that.
        self.assertEqual(self.used("twilio", ("twilio", "generic"), KEY), (KEY,))

    def test_apply_wants_one_that_is_left_for_each_profile(self) -> None:
        for names, secrets, why in (
            (("telnyx", "twilio"), (KEY,), "none for twilio (no. 1: it is what telnyx takes, and no secret)"),
            (("aws-sns", "smssync"), (ARN,), "none for smssync (no. 1: it is what aws-sns takes"),
            (("twilio", "bandwidth"), ("tok",), "none for bandwidth (no. 1: it has no colon"),
            (("twilio", "telnyx"), (TOKEN,), "none for telnyx (no. 1: it is not the base64"),
        ):
            [problem] = problems(names, secrets, False, profiles())
            self.assertIn(f"provider_secrets has {why}", problem)
            self.assertNotIn(secrets[0], problem)
            self.assertEqual(problems(names, secrets, True, profiles()), [])
        self.assertEqual(problems(("telnyx", "twilio"), (KEY, TOKEN), False, profiles()), [])
        self.assertEqual(problems(("twilio", "plivo"), (TOKEN,), False, profiles()), [])

    def test_within_a_profile_too(self) -> None:
        signer = SIGNERS["hmac_body"]
        scheme = AnyScheme(schemes=(make_scheme("telnyx", {}), signer.scheme))
        for secret, good in ((KEY, False), (TOKEN, True)):
            request = signer.sign(Sent(url="https://x/", fields={"a": "b"}, json=True, at=0, secret=secret))
            if good:
                scheme.verify(request, [KEY, secret], NOW)
            else:
                with self.assertRaises(SignatureRefused):
                    scheme.verify(request, [secret, TOKEN], NOW)
