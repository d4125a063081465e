"""Why a target could not be reached, in words that hold no secret: classes of failure, never their texts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.python.failure import Failure
from twisted.web.client import RequestGenerationFailed, RequestTransmissionFailed, ResponseFailed

_PLAIN: Sequence[tuple[type[Exception], str]] = (
    # The first class that fits counts, so the narrower ones come first.
    (VerificationError, "TLS: the certificate does not match the host name"),
    (DNSLookupError, "the name does not resolve"),
    (ConnectionRefusedError, "connection refused"),
    (TCPTimedOutError, "timed out connecting"),
    (TimeoutError, "timed out connecting"),
    (NoRouteError, "no route to the host"),
    (ConnectionClosed, "the connection was closed before the answer was complete"),
)


def reason(error: BaseException) -> str | None:
    """What went wrong on the wire, or None where ``error`` is none of the wire's."""
    if isinstance(error, ResponseFailed | RequestTransmissionFailed | RequestGenerationFailed):
        known = (reason(inner) for inner in _reasons(error))
        # Whatever else the parser of the answer stumbled over.
        return next((text for text in known if text), "the answer is not HTTP")
    if isinstance(error, SSL.Error):
        return f"TLS: {_openssl_words(error)}"
    for kind, text in _PLAIN:
        if isinstance(error, kind):
            return text
    if isinstance(error, ConnectError):
        return f"cannot connect: {os.strerror(error.osError)}" if error.osError else "cannot connect"
    return None


def is_cancelled(error: BaseException) -> bool:
    """Whether ``error`` is what a cancelled connection attempt or request fails with."""
    if isinstance(error, CancelledError | ConnectingCancelledError):
        return True
    return any(is_cancelled(inner) for inner in _reasons(error))


def _reasons(error: BaseException) -> Sequence[BaseException]:
    reasons: Sequence[Failure] = getattr(error, "reasons", ())
    return [inner.value for inner in reasons if inner.value is not None]


def _openssl_words(error: SSL.Error) -> str:
    """OpenSSL's own words, which come from a fixed table; the last of its errors is the outermost."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    words = str(entries[-1][-1]) if entries else ""
    if words == "certificate verify failed":
        return f"{words}: no trusted authority signed it, or it is not valid now"
    return words or "the connection failed"
