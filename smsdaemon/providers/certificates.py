"""The certificates that a provider's requests name, fetched once and kept for a while."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from smsdaemon.errors import FetchFailed
from smsdaemon.ports import Fetch

MAX_KEPT = 32
MAX_FAILED = 1000
MAX_UNDER_WAY = 4
"""Of each host, of URLs that have never had a certificate: anybody can make up as many as he likes."""
_KEPT_SECONDS = 86400
_FAILED_SECONDS = 10
_MIN_KEY_BITS = 2048


@frozen
class _Kept:
    key: RSAPublicKey
    until: float


class SigningCertificates:
    """Public keys by the URL of their certificate.

    Who asks for one that is under way waits with the others. One that did not come is not asked for
    again for a few seconds, so that a provider's repeats do not pile up. Whose requests name URLs that
    are none cannot push out a key, nor keep one from being fetched again.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._failed: OrderedDict[str, float] = OrderedDict()
        """Until when they are not asked for again."""
        self._waiting: dict[str, list[Deferred[None]]] = {}

    def key(self, url: str, now: datetime) -> RSAPublicKey | None:
        """The key, where it was fetched and may still be used."""
        kept = self._kept.get(url)
        return kept.key if kept is not None and now.timestamp() < kept.until else None

    def get(self, url: str, now: datetime, fetch: Fetch) -> Deferred[None]:
        """Fires when key() knows it; fails with FetchFailed. Cancelling it ends no fetch."""
        if self.key(url, now) is not None:
            self._kept.move_to_end(url)
            return succeed(None)
        if now.timestamp() < self._failed.get(url, 0):
            return _failed("the certificate could not be fetched a moment ago")
        waiter: Deferred[None] = Deferred()
        if url in self._waiting:
            self._waiting[url].append(waiter)
            return waiter
        if url not in self._kept and self._strange(url) >= MAX_UNDER_WAY:
            return _failed("too many certificates are being fetched")
        self._waiting[url] = [waiter]
        read = fetch(url).addCallback(_public_key, now)
        read.addBoth(self._arrived, url, now)
        return waiter

    def _strange(self, url: str) -> int:
        """How many URLs without a key are being fetched from this one's host."""
        host = urlsplit(url).netloc
        return sum(urlsplit(other).netloc == host for other in self._waiting if other not in self._kept)

    def _arrived(self, result: tuple[RSAPublicKey, float] | Failure, url: str, now: datetime) -> None:
        if isinstance(result, Failure):
            self._failed[url] = now.timestamp() + _FAILED_SECONDS
            _bound(self._failed, url, MAX_FAILED)
        else:
            key, expires = result
            self._kept[url] = _Kept(key, min(expires, now.timestamp() + _KEPT_SECONDS))
            _bound(self._kept, url, MAX_KEPT)
            self._failed.pop(url, None)
        for waiter in self._waiting.pop(url):
            if waiter.called:
                continue  # cancelled
            if isinstance(result, Failure):
                error = FetchFailed("the certificate could not be fetched, or is none")
                error.__cause__ = result.value
                waiter.errback(error)
            else:
                waiter.callback(None)


def _bound(known: OrderedDict[str, Any], newest: str, most: int) -> None:
    known.move_to_end(newest)
    while len(known) > most:
        known.popitem(last=False)


def _public_key(pem: bytes, now: datetime) -> tuple[RSAPublicKey, float]:
    certificate = x509.load_pem_x509_certificate(pem)
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size < _MIN_KEY_BITS:
        raise FetchFailed("the certificate has no RSA key of a sane length")
    expires = certificate.not_valid_after_utc.timestamp()
    if expires <= now.timestamp():
        raise FetchFailed("the certificate has expired")
    return key, expires


def _failed(why: str) -> Deferred[None]:
    failed: Deferred[None] = Deferred()
    failed.errback(FetchFailed(why))
    return failed
