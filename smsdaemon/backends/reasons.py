"""Why a target could not be reached, in words that hold no secret: classes of failure, never their texts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
    TimeoutError,
)

from smsdaemon.backends.wire import GoneBeforeAnswer, NotHttp

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
    if isinstance(error, GoneBeforeAnswer) and error.__cause__ is not None:
        return reason(error.__cause__)
    if isinstance(error, NotHttp):
        return "the answer is not HTTP"
    if isinstance(error, SSL.Error):
        return f"TLS: {_openssl_words(error)}"
    for kind, text in _PLAIN:
        if isinstance(error, kind):
            return text
    if isinstance(error, ConnectError):
        return f"cannot connect: {os.strerror(error.osError)}" if error.osError else "cannot connect"
    return None


def _openssl_words(error: SSL.Error) -> str:
    """OpenSSL's own words, which come from a fixed table; the last of its errors is the outermost."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    words = str(entries[-1][-1]) if entries else ""
    if words == "certificate verify failed":
        return f"{words}: no trusted authority signed it, or it is not valid now"
    return words or "the connection failed"
