"""Whether a request is authentic for the connectors whose SMS it brings (an intake.Gate)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from hashlib import blake2b

from attrs import frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from smsdaemon.domain.model import Connector, Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import Fetch, NonceStore, PreparedScheme, UtcClock
from smsdaemon.providers.loaded import LoadedProfile

Nonces = Mapping[int, str]
"""By connector's id."""
BySecrets = Mapping[tuple[str, ...], Verified]


@frozen(kw_only=True)
class RequestGate:
    """For one request."""

    profile: LoadedProfile
    request: WireRequest
    nonces: NonceStore
    fetch: Fetch
    utc_now: UtcClock
    on_refused: Callable[[Collection[Connector], str], object]
    """Told whose request was not signed as it should be, and why."""

    def __call__(self, connectors: Collection[Connector], /) -> Nonces | Deferred[Nonces]:
        """Verify it once for each set of secrets.

        A nonce that came with other content before is refused: some signatures do not cover the body.
        With the same content it is a repeat, which the store recognises. Raises SignatureRefused, or
        fails with it, or with FetchFailed where the scheme needs something from the network.
        """
        try:
            nonces = self._nonces([one for one in connectors if self.profile.must_verify(one)])
        except SignatureRefused as refusal:
            self.on_refused(connectors, str(refusal))
            raise
        return nonces.addErrback(self._refused, connectors) if isinstance(nonces, Deferred) else nonces

    def _nonces(self, connectors: Collection[Connector]) -> Nonces | Deferred[Nonces]:
        # Coroutines only where there is something to wait for: they cost as much as most signatures.
        now = self.utc_now()
        if self.profile.prepared is not None:
            return ensureDeferred(self._prepared(self.profile.prepared, connectors, now))
        nonces, verified = self._verified(connectors, now)
        return ensureDeferred(self._seen(nonces, verified)) if nonces else nonces

    async def _prepared(
        self, scheme: PreparedScheme, connectors: Collection[Connector], now: datetime
    ) -> Nonces:
        for secrets in {self.profile.scheme_and_secrets(connector)[1] for connector in connectors}:
            await scheme.prepare(self.request, secrets, now, self.fetch)
        return await self._seen(*self._verified(connectors, now))

    def _verified(self, connectors: Collection[Connector], now: datetime) -> tuple[Nonces, BySecrets]:
        verified: dict[tuple[str, ...], Verified] = {}
        nonces: dict[int, str] = {}
        for connector in connectors:
            scheme, secrets = self.profile.scheme_and_secrets(connector)
            if secrets not in verified:
                verified[secrets] = scheme.verify(self.request, secrets, now)
            nonce = verified[secrets].nonce
            if nonce is not None:
                nonces[connector.id] = nonce
        return nonces, verified

    async def _seen(self, nonces: Nonces, verified: BySecrets) -> Nonces:
        """Kept by secret, not by connector: what is signed for one is signed for all that share it."""
        content = self._content() if nonces else b""
        by_secret = {secret: told for secrets, told in verified.items() for secret in secrets}
        for secret, told in by_secret.items():
            if told.nonce is None:
                continue
            signed_with = self.profile.signed_with(secret)
            if not await self.nonces.see(signed_with, told.nonce, content, told.in_time):
                raise SignatureRefused("the signature was used before, with another request")
        return nonces

    def _refused(self, failure: Failure, connectors: Collection[Connector]) -> Failure:
        if isinstance(failure.value, SignatureRefused):
            self.on_refused(connectors, str(failure.value))
        return failure

    def _content(self) -> bytes:
        digest = blake2b(digest_size=16)
        kind = self.request.content_type.encode("utf-8", "replace")
        for part in (self.request.method.encode(), self.request.query, kind, self.request.body):
            digest.update(b"%d " % len(part))
            digest.update(part)
        return digest.digest()
