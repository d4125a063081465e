"""Recorded requests of providers (tests/providers/vectors.jsonl), and what signed them."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from smsdaemon.domain.model import WireRequest

PATH = Path(__file__).parent.parent / "providers" / "vectors.jsonl"
BASE_URL = "https://sms.example.com"

Vector = Mapping[str, Any]


def vectors() -> list[Vector]:
    """All of them, in the file's order."""
    return [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]


def signed_vectors() -> list[Vector]:
    """Those that carry a signature, a token or the like."""
    return [vector for vector in vectors() if vector.get("scheme")]


def request_of(vector: Vector) -> WireRequest:
    """As it came in; its URL is the one that was signed."""
    url = vector.get("url") or vector.get("signed_url") or BASE_URL + vector["path_query"]
    body = b64decode(vector["body_b64"]) if "body_b64" in vector else (vector.get("body") or "").encode()
    return wire_request(vector["method"], url, vector["headers"], body)


def wire_request(
    method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> WireRequest:
    """With the query of the URL, and each header once."""
    return WireRequest(
        method=method,
        url=url,
        query=url.partition("?")[2].encode(),
        headers={name.lower(): (value,) for name, value in (headers or {}).items()},
        body=body,
    )


def clock_of(vector: Vector) -> datetime:
    """The time by which it is to be judged: when it was signed, where the vector does not say."""
    return datetime.fromtimestamp(vector.get("clock") or _signed_at(vector), UTC)


def _signed_at(vector: Vector) -> float:
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    for name, value in headers.items():
        if name.endswith("timestamp"):
            return float(value)
    body = vector.get("body") or ""
    if headers.get("authorization", "").startswith("Bearer ey"):
        payload = headers["authorization"].split(".")[1]
        claims = json.loads(b64decode(payload.translate({45: "+", 95: "/"}) + "=="))
        return float(claims["iat"])
    query = parse_qs(urlsplit(vector["path_query"]).query)
    if "timestamp" in query:
        return float(query["timestamp"][0])
    if body.startswith("{"):
        document = json.loads(body)
        if "timestamp" in document and str(document["timestamp"]).isdigit():
            return float(document["timestamp"])
        if "Timestamp" in document:
            return datetime.fromisoformat(document["Timestamp"]).timestamp()
    return 1_700_000_000.0
