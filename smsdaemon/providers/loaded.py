"""A profile at work: reads, verifies, answers."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from smsdaemon.domain.model import Connector, WireRequest
from smsdaemon.domain.providers import NO_PROVIDERS, ProviderTerms, secrets_for
from smsdaemon.domain.reading import ProviderAnswer, Reading, Step
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import PreparedScheme, Scheme
from smsdaemon.providers.profile import Profile
from smsdaemon.providers.reader import ProfileReader

_KNOWN_SECRETS = 10_000


class LoadedProfile:
    """Also a domain.providers.ProviderTerms."""

    def __init__(self, profile: Profile, others: Mapping[str, ProviderTerms] = NO_PROVIDERS) -> None:
        """``others``: all profiles that are loaded, of which a connector may list some beside this one."""
        self.profile, self._others = profile, others
        self.name, self.methods, self.signs = profile.name, profile.methods, profile.signs
        scheme = profile.authentication.scheme if profile.authentication else None
        # Looked at once: asking whether something is of a Protocol takes longer than most signatures.
        self.prepared = scheme if isinstance(scheme, PreparedScheme) else None
        """Its scheme, if that has to be prepared for a request."""
        self._reader = ProfileReader(profile)
        self._usable: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[str, ...]] = {}

    # --- for requests ---------------------------------------------------------------------------

    def read(self, request: WireRequest) -> Reading:
        return self._reader.read(request)

    def explained(self, request: WireRequest, trace: list[Step] | None = None) -> Reading:
        """As read(), with the steps that led there; ``trace`` has them also where it is refused."""
        return self._reader.read(request, [] if trace is None else trace)

    def must_verify(self, connector: Connector) -> bool:
        """Whether the connector takes the request only if it is authentic."""
        authentication = self.profile.authentication
        if authentication is None or connector.unsigned:
            return False
        return authentication.required or bool(connector.provider_secrets)

    def scheme_and_secrets(self, connector: Connector) -> tuple[Scheme, tuple[str, ...]]:
        """What to verify with; only the secrets that are of this profile's scheme.

        Raises SignatureRefused where there is none.
        """
        assert self.profile.authentication is not None
        known = (connector.providers, connector.provider_secrets)
        secrets = self._usable.get(known)
        if secrets is None:
            secrets = self._find_usable(*known)
        if not secrets:
            raise SignatureRefused("this receiver has no secret to check signatures with")
        return self.profile.authentication.scheme, secrets

    def _find_usable(self, names: tuple[str, ...], secrets: tuple[str, ...]) -> tuple[str, ...]:
        """A connector may have several profiles, and so secrets for several schemes."""
        if len(self._usable) > _KNOWN_SECRETS:
            self._usable.clear()
        listed = {name: self._others[name] for name in names if name in self._others} | {self.name: self}
        found = self._usable[names, secrets] = secrets_for(self.name, secrets, listed)
        return found

    def signed_with(self, secret: str) -> int:
        """What names profile and secret where nonces are kept."""
        digest = blake2b(f"{self.name}\0{secret}".encode(errors="replace"), digest_size=8).digest()
        return int.from_bytes(digest, signed=True)

    def success(self, request: WireRequest, reading: Reading, id: str, duplicate: bool) -> ProviderAnswer:
        return self._reader.success(request, reading, id, duplicate)

    def refusal(self, status: int, detail: str) -> ProviderAnswer | None:
        return self._reader.refusal(status, detail)

    # --- for the directory ----------------------------------------------------------------------

    @property
    def has_scheme(self) -> bool:
        """Whether secrets are of any use."""
        return self.profile.authentication is not None

    def check_secret(self, secret: str) -> None:
        """Raises ValueError where it cannot be used; the text does not repeat it."""
        if self.profile.authentication is not None:
            self.profile.authentication.scheme.check_secret(secret)

    def is_public(self, secret: str) -> bool:
        """Whether its scheme would use it as something that anybody may know."""
        authentication = self.profile.authentication
        return authentication is not None and authentication.scheme.is_public(secret)
