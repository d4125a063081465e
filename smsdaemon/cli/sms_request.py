"""Builds the bytes of an SMS provider's HTTP request, as contract 3 lets it be written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Literal, get_args
from urllib.parse import quote, urlencode, urlsplit

import idna
from attrs import frozen

Method = Literal["get", "post", "json", "multipart"]
METHODS: tuple[Method, ...] = get_args(Method)

_COUNTER = "{n}"
_AS_GIVEN = "surrogateescape"
"""An argument that is not UTF-8 goes out as the bytes it is, so that any encoding can be tried."""
_ADDRESS = re.compile(r"[0-9.]+|[0-9a-f:.]+:[0-9a-f:.]*(?:%[\w.-]+)?", re.ASCII)
_BOUNDARY = "smsdaemon-9f1c6a52"
_CONTENT_TYPES: Mapping[Method, str] = {
    "post": "application/x-www-form-urlencoded",
    "json": "application/json",
    "multipart": f"multipart/form-data; boundary={_BOUNDARY}",
}


@frozen
class ReceiverUrl:
    """Where an SMS is sent: the daemon's /SMSReceiver."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str
    """With the query, if the URL has one."""

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_url(text: str) -> ReceiverUrl:
    """Read an http or https URL; without a path it is /SMSReceiver. Raises ValueError."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is not an http:// or https:// URL")
    path = quote(parts.path.rstrip("/") or "/SMSReceiver", safe="/%~!$&'()*+,;=:@", errors=_AS_GIVEN)
    if parts.query:
        path += "?" + quote(parts.query, safe="/%~!$&'()*+,;=:@?", errors=_AS_GIVEN)
    scheme: Literal["http", "https"] = "http" if parts.scheme == "http" else "https"
    port = {"http": 80, "https": 443}[scheme] if parts.port is None else parts.port
    if port == 0:
        raise ValueError("nobody can be called at port 0")
    return ReceiverUrl(scheme, _host(parts.hostname), port, path)


def _host(name: str) -> str:
    """An address, or a name as DNS and a Host header have it. Raises ValueError."""
    if _ADDRESS.fullmatch(name):
        ip_address(name)
        return name
    try:
        return idna.encode(name).decode("ascii")
    except UnicodeError:
        raise ValueError(f"{name!r} is no name that a host can have") from None


def request_maker(
    url: ReceiverUrl, method: Method, fields: Mapping[str, str], senders: int | None = None
) -> Callable[[int], bytes]:
    """Make the function that writes request number n.

    ``{n}`` in a value is replaced by n; in the sender by n modulo ``senders``, where given. The
    rest is encoded once: at thousands of requests a second that is most of a request's cost.
    """
    cycle = [senders if senders and name == "sender" else 1 << 62 for name in fields]
    wraps = [
        wrap for wrap, value in zip(cycle, fields.values(), strict=True) for _ in range(value.count(_COUNTER))
    ]
    template = _template(method, fields)
    common = f"Host: {url.authority}\r\nUser-Agent: smsdaemon-send\r\n"

    def filled(n: int) -> bytes:
        return template % tuple([n % wrap for wrap in wraps])

    if method == "get":
        joint = "&" if "?" in url.path else "?"
        before = f"GET {url.path}{joint}".encode("ascii")
        after = f" HTTP/1.1\r\n{common}\r\n".encode("ascii")
        return lambda n: before + filled(n) + after
    head = (
        f"POST {url.path} HTTP/1.1\r\n{common}Content-Type: {_CONTENT_TYPES[method]}\r\nContent-Length: "
    ).encode("ascii")

    def post(n: int) -> bytes:
        body = filled(n)
        return b"%b%d\r\n\r\n%b" % (head, len(body), body)

    return post


def _template(method: Method, fields: Mapping[str, str]) -> bytes:
    """The encoded fields as a format with one %d for each counter."""
    counter = _COUNTER
    if method in ("get", "post"):
        text, counter = urlencode(fields, quote_via=quote, errors=_AS_GIVEN), quote(_COUNTER)
    elif method == "json":
        text = json.dumps(dict(fields), ensure_ascii=False)
    else:
        text = "".join(
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        text += f"--{_BOUNDARY}--\r\n"
    text = text.replace("%", "%%").replace(counter.replace("%", "%%"), "%d")
    return text.encode("utf-8", _AS_GIVEN)
