"""Several schemes in one profile: a provider that signs in one of several ways."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import field, frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead, Scheme

_STRICTEST: tuple[QueryRead, ...] = ("never", "without a body", "always")


@frozen(kw_only=True)
class AnyScheme:
    """A request is authentic if one of the schemes says so, each with the secrets that it can use.

    As strong as the weakest of them. A scheme that needs the network first cannot be one of them.
    """

    schemes: tuple[Scheme, ...]
    name: str = field(init=False)
    takes: str = field(init=False)
    covers_body: bool = field(init=False)
    reads_query: QueryRead = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "name", " or ".join(scheme.name for scheme in self.schemes))
        object.__setattr__(self, "takes", "; or ".join(dict.fromkeys(s.takes for s in self.schemes)))
        object.__setattr__(self, "covers_body", all(scheme.covers_body for scheme in self.schemes))
        reads = min((scheme.reads_query for scheme in self.schemes), key=_STRICTEST.index)
        object.__setattr__(self, "reads_query", reads)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises what the first scheme says where none of them is content."""
        refusal: SignatureRefused | None = None
        for scheme in self.schemes:
            usable = [
                secret
                for secret in secrets
                if _is_usable(scheme, secret) and (scheme.is_public(secret) or not self.is_public(secret))
            ]
            if not usable:
                continue
            try:
                return scheme.verify(request, usable, now)
            except SignatureRefused as error:
                refusal = refusal or error
        raise refusal or SignatureRefused("there is no secret to check signatures with")

    def check_secret(self, secret: str) -> None:
        """Raises ValueError where none of the schemes can use it."""
        for scheme in self.schemes:
            if _is_usable(scheme, secret):
                return
        self.schemes[0].check_secret(secret)

    def is_public(self, secret: str) -> bool:
        """Whether it is for one of the schemes, which then is the only one that uses it."""
        return any(scheme.is_public(secret) for scheme in self.schemes)


def _is_usable(scheme: Scheme, secret: str) -> bool:
    try:
        scheme.check_secret(secret)
    except ValueError:
        return False
    return True
