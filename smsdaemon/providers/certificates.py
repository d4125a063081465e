"""The certificates that a provider's requests name, fetched once and kept for a while."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from smsdaemon.errors import FetchFailed
from smsdaemon.ports import Fetch

MAX_KEPT = 32
MAX_UNDER_WAY = 4
_KEPT_SECONDS = 86400
_FAILED_SECONDS = 10
_MIN_KEY_BITS = 2048


@frozen
class _Kept:
    key: RSAPublicKey | None
    """None: it could not be had."""
    until: float


class SigningCertificates:
    """Public keys by the URL of their certificate.

    Who asks for one that is under way waits with the others. One that did not come is not asked for
    again for a few seconds, so that a provider's repeats do not pile up.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._waiting: dict[str, list[Deferred[None]]] = {}

    def key(self, url: str, now: datetime) -> RSAPublicKey | None:
        """The key, where it was fetched and may still be used."""
        kept = self._kept.get(url)
        return kept.key if kept is not None and now.timestamp() < kept.until else None

    def get(self, url: str, now: datetime, fetch: Fetch) -> Deferred[None]:
        """Fires when key() knows it; fails with FetchFailed. Cancelling it ends no fetch."""
        kept = self._kept.get(url)
        if kept is not None and now.timestamp() < kept.until:
            if kept.key is not None:
                self._kept.move_to_end(url)
                return succeed(None)
            return _failed("the certificate could not be fetched a moment ago")
        waiter: Deferred[None] = Deferred()
        if url in self._waiting:
            self._waiting[url].append(waiter)
            return waiter
        if len(self._waiting) >= MAX_UNDER_WAY:
            return _failed("too many certificates are being fetched")
        self._waiting[url] = [waiter]
        read = fetch(url).addCallback(_public_key, now)
        read.addBoth(self._arrived, url, now)
        return waiter

    def _arrived(self, result: tuple[RSAPublicKey, float] | Failure, url: str, now: datetime) -> None:
        if isinstance(result, Failure):
            kept = _Kept(None, now.timestamp() + _FAILED_SECONDS)
        else:
            key, expires = result
            kept = _Kept(key, min(expires, now.timestamp() + _KEPT_SECONDS))
        self._kept[url] = kept
        self._kept.move_to_end(url)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        for waiter in self._waiting.pop(url):
            if waiter.called:
                continue  # cancelled
            if isinstance(result, Failure):
                error = FetchFailed("the certificate could not be fetched, or is none")
                error.__cause__ = result.value
                waiter.errback(error)
            else:
                waiter.callback(None)


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
