"""Answers a provider that asks whether a URL is meant to hear from it."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from attrs import frozen

from smsdaemon.domain.model import Connector, WireRequest
from smsdaemon.domain.reading import ProviderAnswer
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import Fetch, PreparedScheme, UtcClock
from smsdaemon.providers.loaded import LoadedProfile


def recognised(profile: LoadedProfile, request: WireRequest) -> bool:
    """Whether the request is a handshake of the profile's."""
    handshake = profile.profile.handshake
    return handshake is not None and handshake.recognise(request, _document(request))


@frozen(kw_only=True)
class HandshakeDesk:
    """For one request that was recognised."""

    profile: LoadedProfile
    request: WireRequest
    fetch: Fetch
    utc_now: UtcClock

    async def answer(self, connectors: Collection[Connector]) -> ProviderAnswer:
        """``connectors``: the one it is for, or all that list the profile.

        Raises MalformedRequest, SignatureRefused or FetchFailed.
        """
        handshake = self.profile.profile.handshake
        assert handshake is not None
        secrets = self._secrets(connectors)
        if handshake.signed:
            await self._verify(connectors, secrets)
        found = await handshake.answer(
            self.request,
            _document(self.request),
            secrets=secrets,
            now=self.utc_now(),
            fetch=self.fetch,
        )
        return ProviderAnswer(
            status=found.status,
            content_type=found.content_type or "text/plain; charset=utf-8",
            body=found.body,
            headers=tuple(found.headers.items()),
        )

    def _secrets(self, connectors: Collection[Connector]) -> list[str]:
        """What the profile's scheme may use of all of them."""
        found: dict[str, None] = {}
        for connector in connectors:
            if self.profile.has_scheme and connector.provider_secrets:
                with suppress(SignatureRefused):
                    found |= dict.fromkeys(self.profile.scheme_and_secrets(connector)[1])
        return list(found)

    async def _verify(self, connectors: Collection[Connector], secrets: list[str]) -> None:
        authentication = self.profile.profile.authentication
        if authentication is None or any(not self.profile.must_verify(c) for c in connectors):
            return
        if not secrets:
            raise SignatureRefused("no connector of this provider has a secret to check signatures with")
        now = self.utc_now()
        if isinstance(authentication.scheme, PreparedScheme):
            await authentication.scheme.prepare(self.request, secrets, now, self.fetch)
        authentication.scheme.verify(self.request, secrets, now)


def _document(request: WireRequest) -> Any:
    """The body's JSON, None where it is none."""
    try:
        return json.loads(request.body) if request.body else None
    except (ValueError, RecursionError):
        return None
