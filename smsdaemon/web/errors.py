"""The one table that turns an error into a status (contract 3)."""

from __future__ import annotations

from attrs import frozen

from smsdaemon.errors import (
    MalformedRequest,
    NotRoutable,
    RequestRefused,
    SignatureRefused,
    SmsDaemonError,
    TokenRefused,
    UnknownConnector,
    UnsupportedBody,
)


class UrlTooLong(RequestRefused):
    """The request target is longer than this listener takes."""


class MethodNotAllowed(RequestRefused):
    """``/SMSReceiver`` was asked with neither GET nor POST."""


class PageIsReadOnly(MethodNotAllowed):
    """A page that only shows something was asked with neither GET nor HEAD."""


class BodyTooLarge(RequestRefused):
    """The body is larger than this listener takes."""


class NoSuchPage(RequestRefused):
    """The path leads nowhere."""


Header = tuple[bytes, bytes]


@frozen
class Refusal:
    """How a peer is told of an error."""

    status: int
    title: str
    headers: tuple[Header, ...] = ()
    detail: str = ""
    """Said instead of the error's own text, which may name internals; "" where it may not."""


_AGAIN_LATER: tuple[Header, ...] = ((b"Retry-After", b"5"),)
_OUR_SIDE = Refusal(
    500, "Internal Server Error", _AGAIN_LATER, "the SMS was not stored, please send it again"
)

_UNAUTHORIZED = Refusal(401, "Unauthorized", ((b"WWW-Authenticate", b'Token realm="SMSReceiver"'),))

_REFUSALS: dict[type[SmsDaemonError], Refusal] = {
    UrlTooLong: Refusal(414, "URI Too Long"),
    MethodNotAllowed: Refusal(405, "Method Not Allowed", ((b"Allow", b"GET, POST"),)),
    PageIsReadOnly: Refusal(405, "Method Not Allowed", ((b"Allow", b"GET, HEAD"),)),
    BodyTooLarge: Refusal(413, "Content Too Large"),
    UnsupportedBody: Refusal(415, "Unsupported Media Type"),
    MalformedRequest: Refusal(400, "Bad Request"),
    NoSuchPage: Refusal(404, "Not Found"),
    UnknownConnector: Refusal(404, "Not Found"),
    TokenRefused: _UNAUTHORIZED,
    SignatureRefused: _UNAUTHORIZED,
    NotRoutable: Refusal(502, "Bad Gateway"),
    SmsDaemonError: _OUR_SIDE,
}


def refusal(error: BaseException) -> Refusal:
    """What the peer hears of ``error``: the row of its class or of the nearest one above."""
    for kind in type(error).__mro__:
        if row := _REFUSALS.get(kind):
            return row
    return _OUR_SIDE


def detail(error: BaseException, row: Refusal) -> str:
    """One line for the peer."""
    return row.detail or " ".join(str(error).split()) or row.title
