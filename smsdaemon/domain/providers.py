"""What the directory must know of providers' profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from smsdaemon.domain.reading import GENERIC


class ProviderTerms(Protocol):
    """A profile, as far as a connector that names it is concerned."""

    @property
    def signs(self) -> bool:
        """Whether its requests must be signed."""
        ...

    @property
    def has_scheme(self) -> bool:
        """Whether secrets are of any use."""
        ...

    def check_secret(self, secret: str) -> None:
        """Raises ValueError where it cannot be used; the text does not repeat it."""
        ...

    def is_public(self, secret: str) -> bool:
        """Whether it would be used as something that anybody may know, such as a public key."""
        ...


Providers = Mapping[str, ProviderTerms]
"""By name, without the generic one."""
NO_PROVIDERS: Providers = {}
_ONLY_GENERIC = (GENERIC,)


def problems(names: Sequence[str], secrets: Sequence[str], unsigned: bool, known: Providers) -> list[str]:
    """Why a connector cannot have these; each begins with the key and shows no secret."""
    if names == _ONLY_GENERIC and not secrets:
        return []  # nearly all, and a directory may have 100,000
    unknown = [name for name in names if name != GENERIC and name not in known]
    if unknown:
        allowed = ", ".join([GENERIC, *known])
        return [f'provider "{name}" does not exist; allowed are {allowed}' for name in unknown]
    terms = {name: known[name] for name in names if name != GENERIC}
    found = []
    signing = [name for name, profile in terms.items() if profile.signs]
    using = {name: profile for name, profile in terms.items() if profile.has_scheme}
    if signing and not secrets and not unsigned:
        found.append(
            f"provider_secrets is missing, and {', '.join(signing)} signs; give what it takes,"
            " or say unsigned = true"
        )
    takers = list(using.values())
    if secrets and not takers:
        found.append("provider_secrets is of no use: none of its providers signs")
    for place, secret in enumerate(secrets, 1):
        why = [text for profile in takers if (text := _refusal(profile, secret))]
        if takers and len(why) == len(takers):
            found.append(f"provider_secrets: no. {place} cannot be used: {why[0]}")
    if secrets and not unsigned and not found:
        found = [_none_left(name, secrets, using) for name in using if not secrets_for(name, secrets, using)]
    return found


def secrets_for(name: str, secrets: Sequence[str], listed: Providers) -> tuple[str, ...]:
    """Those of a connector's secrets that one of its profiles may check signatures with.

    What another of them takes as public is none: whoever knows it could sign. ``listed``: the connector's
    profiles.
    """
    return tuple(secret for secret in secrets if not _why_not(name, secret, listed))


def _why_not(name: str, secret: str, listed: Providers) -> str:
    own = listed[name]
    if why := _refusal(own, secret):
        return why
    if not own.is_public(secret):
        for other, profile in listed.items():
            if other != name and profile.is_public(secret):
                return f"it is what {other} takes, and no secret"
    return ""


def _none_left(name: str, secrets: Sequence[str], using: Providers) -> str:
    why = "; ".join(f"no. {n}: {_why_not(name, secret, using)}" for n, secret in enumerate(secrets, 1))
    return f"provider_secrets has none for {name} ({why}); give what it takes too"


def _refusal(profile: ProviderTerms, secret: str) -> str:
    try:
        profile.check_secret(secret)
    except ValueError as error:
        return str(error) or "cannot be used"
    return ""
