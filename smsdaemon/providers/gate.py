"""Whether a request is authentic for the connectors whose SMS it brings (an intake.Gate)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from hashlib import blake2b

from attrs import frozen

from smsdaemon.domain.model import Connector, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import Fetch, NonceStore, UtcClock
from smsdaemon.providers.loaded import LoadedProfile


@frozen(kw_only=True)
class RequestGate:
    """For one request."""

    profile: LoadedProfile
    request: WireRequest
    nonces: NonceStore
    fetch: Fetch
    utc_now: UtcClock

    async def __call__(self, connectors: Collection[Connector], /) -> Mapping[int, str]:
        """Verify it once for each set of secrets; the nonces by connector.

        A nonce that came with other content before is refused: some signatures do not cover the body.
        With the same content it is a repeat, which the store recognises. Raises SignatureRefused, and
        FetchFailed where the scheme needs something from the network.
        """
        verified: dict[tuple[str, ...], str | None] = {}
        nonces: dict[int, str] = {}
        for connector in connectors:
            if not self.profile.must_verify(connector):
                continue
            secrets = connector.provider_secrets
            if secrets not in verified:
                verified[secrets] = await self._verify(connector)
            nonce = verified[secrets]
            if nonce is not None:
                nonces[connector.id] = nonce
        if nonces:
            content = self._content()
            for connector_id, nonce in nonces.items():
                if not await self.nonces.see(connector_id, nonce, content):
                    raise SignatureRefused("the signature was used before, with another request")
        return nonces

    async def _verify(self, connector: Connector) -> str | None:
        scheme, secrets = self.profile.scheme_and_secrets(connector)
        now = self.utc_now()
        if self.profile.prepared is not None:
            await self.profile.prepared.prepare(self.request, secrets, now, self.fetch)
        return scheme.verify(self.request, secrets, now).nonce

    def _content(self) -> bytes:
        digest = blake2b(digest_size=16)
        for part in (self.request.method.encode(), self.request.query, self.request.body):
            digest.update(b"%d " % len(part))
            digest.update(part)
        return digest.digest()
