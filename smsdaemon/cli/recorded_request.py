"""Requests of providers as somebody has recorded them, for `smsdaemon provider try`.

Either a raw HTTP/1.1 request (request line, headers, an empty line, the body; lines may end in CR LF or LF),
or JSON, one object a line: ``method``, ``path_query``, ``headers``, ``body`` or ``body_b64``, and, where
known, ``id``, ``url`` (as it was signed), ``secret`` and ``clock`` (seconds since 1970).
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from smsdaemon.cli.session import Failed
from smsdaemon.domain.model import WireRequest

MAX_BYTES = 1 << 24
_MOST_DIGITS = 20
"""Of a Content-Length."""


@frozen(kw_only=True)
class Recorded:
    """A request, and what its file says beside it."""

    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, tuple[str, ...]]
    body: bytes
    url: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    at: datetime | None = None
    remark: str = ""

    def wire(self, base: str) -> WireRequest:
        """As it would have come in; ``base``: what stands before the path where the file names no URL."""
        host = self.headers.get("host", ("localhost",))[0]
        url = self.url or (base.rstrip("/") or f"https://{host}") + self.target
        return WireRequest(
            method=self.method,
            url=url,
            query=self.target.partition("?")[2].encode("latin-1", "replace"),
            headers=self.headers,
            body=self.body,
        )


def recorded(content: bytes, id: str | None) -> Recorded:
    """Read a file; ``id``: which of several JSON lines. Raises Failed, in words for people."""
    if len(content) > MAX_BYTES:
        raise Failed(f"it is larger than {MAX_BYTES} bytes")
    if content.lstrip()[:1] == b"{":
        return _from_json(_line(content, id))
    if id is not None:
        raise Failed("--id chooses among JSON lines, and this is a raw request")
    return _from_raw(content)


def _line(content: bytes, id: str | None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Failed(f"line {number} is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise Failed(f"line {number} is no JSON object")
        rows.append(row)
    chosen = rows if id is None else [row for row in rows if row.get("id") == id]
    if not chosen:
        raise Failed(f"no line has the id {id}")
    if len(chosen) > 1:
        raise Failed(f"there are {len(chosen)} requests in it: choose one with --id")
    return chosen[0]


def _from_json(row: Mapping[str, Any]) -> Recorded:
    try:
        body = b64decode(row["body_b64"]) if row.get("body_b64") else str(row.get("body") or "").encode()
        secret, clock = row.get("secret"), row.get("clock")
        return Recorded(
            method=str(row["method"]).upper(),
            target=str(row["path_query"]),
            headers={str(name).lower(): (str(value),) for name, value in dict(row["headers"]).items()},
            body=body,
            url=str(row.get("url") or row.get("signed_url") or ""),
            secrets=(secret,) if isinstance(secret, str) and secret else (),
            at=None if clock is None else _moment(clock),
        )
    except KeyError as error:
        raise Failed(f"the JSON object has no {error.args[0]}") from None
    except (ValueError, TypeError) as error:
        raise Failed(f"the JSON object is no request: {error}") from None


def _moment(clock: Any) -> datetime:
    try:
        return datetime.fromtimestamp(float(clock), UTC)
    except (ValueError, OverflowError, OSError):
        raise Failed("the clock of the JSON object is not in seconds since 1970") from None


def _from_raw(content: bytes) -> Recorded:
    head, body = _head_and_body(content)
    first, *lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    method, _, rest = first.strip().partition(" ")
    target, _, version = rest.strip().rpartition(" ")
    if not version.startswith("HTTP/"):
        target = rest.strip()
    if not method.isalpha() or not target:
        raise Failed('the first line is no request line, as in "POST /SMSReceiver/twilio HTTP/1.1"')
    headers: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 2):
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or " " in name.strip():
            raise Failed(f'line {number} is no header, as in "Content-Type: application/json"')
        name = name.strip().lower()
        headers[name] = (*headers.get(name, ()), value.strip())
    if headers.get("transfer-encoding", ("identity",))[0].lower() != "identity":
        raise Failed("the body is chunked: record it without Transfer-Encoding")
    body, remark = _cut(body, headers.get("content-length", ("",))[0])
    url = ""
    if "://" in target:
        url, target = target, "/" + target.partition("://")[2].partition("/")[2]
    return Recorded(method=method.upper(), target=target, headers=headers, body=body, url=url, remark=remark)


def _head_and_body(content: bytes) -> tuple[bytes, bytes]:
    content = content.lstrip(b"\r\n")
    ends = [(at, mark) for mark in (b"\r\n\r\n", b"\n\n") if (at := content.find(mark)) >= 0]
    if not ends:
        return content.rstrip(b"\r\n"), b""
    at, mark = min(ends)
    return content[:at], content[at + len(mark) :]


def _cut(body: bytes, length: str) -> tuple[bytes, str]:
    """By Content-Length; without it the line break at the end, which editors add, is left off."""
    if not length.isdecimal() or len(length) > _MOST_DIGITS:
        return body.removesuffix(b"\n").removesuffix(b"\r"), ""
    wanted = int(length)
    if len(body) < wanted:
        return body, f"its body has {len(body)} bytes, and Content-Length says {wanted}"
    return body[:wanted], ""
