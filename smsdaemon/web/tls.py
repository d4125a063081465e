"""TLS for our listeners: contexts from PEM files, and a self-signed certificate where there is none."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto
from twisted.internet.ssl import CertificateOptions, TLSVersion

from smsdaemon.certificates import read_chain, read_pair
from smsdaemon.errors import ConfigurationError

VALIDITY = timedelta(days=397)
"""The longest that browsers take."""
RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(hours=1)

_OTHER_USAGES = (
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def server_context(certificate: Path, key: Path) -> CertificateOptions:
    """TLS 1.2 and later with the pair of PEM files, the chain included. Raises ConfigurationError."""
    pair = read_pair(certificate, key)
    own, *chain = (crypto.X509.from_cryptography(each) for each in pair.chain)
    return CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(pair.key),
        certificate=own,
        extraCertChain=chain,
        raiseMinimumTo=TLSVersion.TLSv1_2,
        acceptableProtocols=[b"http/1.1"],
    )


def expiry(certificate: Path) -> datetime:
    """When the server's own certificate in the PEM file expires, aware. Raises ConfigurationError."""
    return read_chain(certificate)[0].not_valid_after_utc


def ensure_self_signed(folder: Path, now: datetime, hostnames: Iterable[str]) -> tuple[Path, Path]:
    """Certificate and key in the folder, made or renewed where needed; for localhost and these names.

    ``now`` is aware. Several processes may ask at once and get the same pair. Raises OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    with _locked(folder):
        if not _lasts(certificate, key, now):
            private = ec.generate_private_key(ec.SECP256R1())
            signed = _self_signed(private, now, hostnames)
            pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _replace(key, pem, 0o600)
            _replace(certificate, signed.public_bytes(Encoding.PEM), 0o644)
            _sync(folder)
    return certificate, key


def _lasts(certificate: Path, key: Path, now: datetime) -> bool:
    try:
        own = read_pair(certificate, key).certificate
    except ConfigurationError:
        return False
    return own.not_valid_before_utc <= now < own.not_valid_after_utc - RENEW_BEFORE


def _self_signed(
    key: ec.EllipticCurvePrivateKey, now: datetime, hostnames: Iterable[str]
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    usage = dict.fromkeys(_OTHER_USAGES, False)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now - CLOCK_SKEW + VALIDITY)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(hostnames)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def _alternative_names(hostnames: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys(["localhost", "127.0.0.1", "::1", *hostnames]):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if name and name.isascii():  # a name that DNS cannot hold is of no use to a peer
                names.append(x509.DNSName(name))
    return names


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(file: Path, content: bytes, mode: int) -> None:
    """Put the content in place in one step; nobody sees it half written or with another mode."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    new.rename(file)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
