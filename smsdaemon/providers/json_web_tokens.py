"""JSON Web Tokens that are signed with a shared secret."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from datetime import datetime

import jwt

from smsdaemon.errors import SignatureRefused
from smsdaemon.providers.signatures import MAX_HEADER_LENGTH, MAX_NONCE_LENGTH, keys

# How long a secret is, its provider decides; a line for each kind of request helps nobody.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)

Claims = dict[str, object]

_JWS = jwt.PyJWS(algorithms=["HS256", "HS384", "HS512"])


def signed_claims(token: str, secrets: Sequence[str], algorithms: Sequence[str]) -> Claims:
    """What the token says, if one of the secrets signed it with one of the algorithms.

    Its claims are not looked at; the library's own look would be by a clock that tests cannot set.
    Raises SignatureRefused.
    """
    if not token.isascii() or len(token) > MAX_HEADER_LENGTH:
        raise SignatureRefused("the token is too long, or not ASCII")
    payload: bytes | None = None
    for key in keys(secrets):
        try:
            payload = _JWS.decode(token, key, algorithms=list(algorithms))
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            continue
    if payload is None:
        raise SignatureRefused("the token is malformed, or its signature or algorithm is wrong")
    try:
        claims = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise SignatureRefused("the token holds no JSON") from error
    if not isinstance(claims, dict):
        raise SignatureRefused("the token holds no JSON object")
    return claims


def check_times(claims: Claims, now: datetime, leeway: int, required: Sequence[str] = ()) -> None:
    """Raises SignatureRefused before ``nbf`` and after ``exp``, and where a required one is missing."""
    for name in required:
        if name not in claims:
            raise SignatureRefused(f"the token has no {name}")
    at = now.timestamp()
    if "exp" in claims and at >= time_claim(claims, "exp") + leeway:
        raise SignatureRefused("the token has expired")
    if "nbf" in claims and at < time_claim(claims, "nbf") - leeway:
        raise SignatureRefused("the token is not valid yet")


def time_claim(claims: Claims, name: str) -> float:
    """A claim that must be a time in seconds since 1970."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SignatureRefused(f"the token's {name} is no time")
    try:
        at = float(value)
    except OverflowError:
        at = math.inf
    if not math.isfinite(at):
        raise SignatureRefused(f"the token's {name} is no time")
    return at


def text_claim(claims: Claims, name: str) -> str:
    """A claim as text; "" where it is missing or something else."""
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def token_id(claims: Claims) -> str | None:
    """The claim ``jti``, if it has one of a sane length."""
    value = text_claim(claims, "jti")
    return value if 0 < len(value) <= MAX_NONCE_LENGTH and value.isprintable() else None
