"""A profile at work: reads, verifies, answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from smsdaemon.domain.model import Connector, WireRequest
from smsdaemon.domain.reading import ProviderAnswer, Reading
from smsdaemon.errors import SignatureRefused
from smsdaemon.providers.profile import Profile
from smsdaemon.providers.reader import ProfileReader


class LoadedProfile:
    """Implements ports.ProviderProfile and domain.providers.ProviderTerms."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.name, self.methods, self.signs = profile.name, profile.methods, profile.signs
        self._reader = ProfileReader(profile)
        self._usable: dict[tuple[str, ...], Sequence[str]] = {}

    # --- for requests ---------------------------------------------------------------------------

    def read(self, request: WireRequest) -> Reading:
        return self._reader.read(request)

    def explained(self, request: WireRequest) -> Reading:
        """As read(), with the steps that led there."""
        return self._reader.read(request, steps=True)

    def verify(self, request: WireRequest, connector: Connector, now: datetime) -> str | None:
        """Raises SignatureRefused unless the connector may take the request; the nonce, if it has one."""
        authentication = self.profile.authentication
        if authentication is None or connector.unsigned:
            return None
        if not connector.provider_secrets:
            if not authentication.required:
                return None
            raise SignatureRefused("this receiver has no secret to check signatures with")
        secrets = self._usable_secrets(connector.provider_secrets)
        return authentication.scheme.verify(request, secrets, now).nonce

    def _usable_secrets(self, secrets: tuple[str, ...]) -> Sequence[str]:
        """Those of this profile's scheme: a connector may have several profiles."""
        found = self._usable.get(secrets)
        if found is None:
            if len(self._usable) > 10_000:
                self._usable.clear()
            found = self._usable[secrets] = [secret for secret in secrets if self.accepts_secret(secret)]
        return found

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

    def accepts_secret(self, secret: str) -> bool:
        """Whether check_secret() would let it pass."""
        try:
            self.check_secret(secret)
        except ValueError:
            return False
        return True
