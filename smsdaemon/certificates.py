"""Reads certificates and keys from PEM files, and says what is wrong with them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL, crypto

from smsdaemon.errors import ConfigurationError

PrivateKey = (
    ed448.Ed448PrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
)
"""The kinds that a TLS server can have."""

_UTC = "%Y-%m-%dT%H:%M:%SZ"


@frozen(kw_only=True)
class Pair:
    """A server's certificate with its chain, and the private key that belongs to it."""

    chain: tuple[x509.Certificate, ...]
    """The server's own first."""
    key: PrivateKey = field(repr=False)

    @property
    def certificate(self) -> x509.Certificate:
        """The server's own."""
        return self.chain[0]


def read_pair(certificate: Path, key: Path) -> Pair:
    """The pair in two PEM files. Raises ConfigurationError with a line for each file at fault."""
    problems: list[str] = []
    chain: tuple[x509.Certificate, ...] = ()
    private: PrivateKey | None = None
    try:
        chain = read_chain(certificate)
    except ConfigurationError as error:
        problems += error.problems
    try:
        private = _read_key(key)
    except ConfigurationError as error:
        problems += error.problems
    if problems or private is None:
        raise ConfigurationError(problems)
    pair = Pair(chain=chain, key=private)
    _refuse_unusable(pair, certificate, key)
    return pair


def read_chain(certificate: Path) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file, in its order; at least one. Raises ConfigurationError."""
    pem = _content(certificate)
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError:
        raise ConfigurationError(
            [
                f"{certificate} holds no readable certificate; "
                "allowed: PEM, the server's own first, then its chain"
            ]
        ) from None


def validity_problem(certificate: x509.Certificate, now: datetime) -> str | None:
    """Why peers would refuse the certificate at this time (aware), or None.

    To be asked of a server's own only: chains in use carry expired ones on purpose, for old peers.
    """
    if certificate.not_valid_after_utc <= now:
        return f"expired at {certificate.not_valid_after_utc:{_UTC}}; allowed: one that is valid now"
    if certificate.not_valid_before_utc > now:
        return (
            f"is not valid before {certificate.not_valid_before_utc:{_UTC}}; allowed: one that is valid now"
        )
    return None


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            [f"{file} cannot be read: {error.strerror}; allowed: a readable PEM file"]
        ) from None


def _read_key(file: Path) -> PrivateKey:
    pem = _content(file)
    what = "holds no key of a kind that TLS servers have"
    try:
        key = load_pem_private_key(pem, None)
        if isinstance(key, PrivateKey):
            return key
    except TypeError:
        what = "is encrypted"
    except (ValueError, UnsupportedAlgorithm):
        what = "holds no readable private key"
    raise ConfigurationError([f"{file} {what}; allowed: a private key in PEM, without a passphrase"])


def _refuse_unusable(pair: Pair, certificate: Path, key: Path) -> None:
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        certified = pair.certificate.public_key().public_bytes(*spki)
        matches = pair.key.public_key().public_bytes(*spki) == certified
    except (ValueError, UnsupportedAlgorithm):
        matches = False
    if not matches:
        raise ConfigurationError(
            [
                f"{key} is not the key of the certificate in {certificate}; "
                "allowed: the two that belong together"
            ]
        )
    try:
        # OpenSSL has its own idea of what is too weak, and tells it only here.
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(pair.certificate)
        context.use_privatekey(crypto.PKey.from_cryptography_key(pair.key))
    except SSL.Error as error:
        why = "; ".join(str(entry[-1]) for entry in error.args[0]) if error.args else "unknown reason"
        raise ConfigurationError(
            [f"{certificate} is refused by OpenSSL ({why}); allowed: what TLS 1.2 and later take"]
        ) from None
