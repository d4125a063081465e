"""TLS of the listeners: real handshakes on loopback, and the certificate that is made where there is none."""

from __future__ import annotations

import concurrent.futures
import os
import socket
import ssl
import stat
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from OpenSSL import SSL, crypto
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from smsdaemon.certificates import read_pair
from smsdaemon.errors import ConfigurationError
from smsdaemon.web.tls import ensure_self_signed, expiry, server_context
from tests.support.authority import Authority
from tests.support.cases import ReactorTest, UnitTest
from tests.support.peers import listen

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


class Greeting(Protocol):
    """Says something, so that a handshake is over for both sides."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")


class HandshakeTests(ReactorTest):
    def setUp(self) -> None:
        self.folder = _folder(self)
        self.authority = Authority()

    async def test_tls_1_2_and_1_3_are_spoken(self) -> None:
        port, trusted = self._serve()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            spoken = await deferToThread(_call, port, "localhost", _client(trusted, version))
            self.assertEqual(spoken, version.name.replace("_", "."))

    async def test_older_versions_are_refused(self) -> None:
        port, trusted = self._serve(ciphers=b"DEFAULT:@SECLEVEL=0")
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            client = _client(trusted, version)
            # Without this, and the same above, it would be OpenSSL's defaults that refuse.
            client.set_ciphers("DEFAULT:@SECLEVEL=0")
            with self.assertRaises(ssl.SSLError) as caught:
                await deferToThread(_call, port, "localhost", client)
            self.assertEqual(caught.exception.reason, "TLSV1_ALERT_PROTOCOL_VERSION")

    async def test_the_chain_is_sent(self) -> None:
        port, _ = self._serve()
        self.assertEqual(await deferToThread(_chain_length, port), 2)

    async def test_a_self_signed_certificate_is_good_for_this_machine(self) -> None:
        certificate, key = ensure_self_signed(self.folder / "tls", NOW, ["sms.example.com", "Größe", ""])
        port = listen(self, Factory.forProtocol(Greeting), server_context(certificate, key))
        for name in ("localhost", "127.0.0.1", "::1", "sms.example.com"):
            client = _client(certificate, ssl.TLSVersion.TLSv1_3)
            # What Python 3.13 asks for by itself.
            client.verify_flags |= ssl.VERIFY_X509_STRICT
            self.assertEqual(await deferToThread(_call, port, name, client), "TLSv1.3")
        with self.assertRaises(ssl.SSLCertVerificationError):
            await deferToThread(_call, port, "example.org", _client(certificate, ssl.TLSVersion.TLSv1_3))

    def _serve(self, ciphers: bytes | None = None) -> tuple[int, Path]:
        """Port, and what its peers are to trust."""
        server = self.authority.server(["localhost"])
        certificate, key = self.folder / "c.pem", self.folder / "k.pem"
        root = self.folder / "root.pem"
        root.write_bytes(self.authority.pem())
        certificate.write_bytes(server.dump(crypto.FILETYPE_PEM) + self.authority.pem())
        key.write_bytes(server.privateKey.dump(crypto.FILETYPE_PEM))
        context = server_context(certificate, key)
        if ciphers is not None:
            context.getContext().set_cipher_list(ciphers)
        return listen(self, Factory.forProtocol(Greeting), context), root


class SelfSignedTests(UnitTest):
    def setUp(self) -> None:
        self.folder = _folder(self) / "state" / "tls"

    def test_it_lasts_for_397_days_and_serves_at_once(self) -> None:
        certificate, _ = ensure_self_signed(self.folder, NOW, [])
        self.assertEqual(expiry(certificate), NOW + 397 * DAY - timedelta(hours=1))
        self.assertLess(
            read_pair(*ensure_self_signed(self.folder, NOW, [])).certificate.not_valid_before_utc, NOW
        )

    def test_nobody_else_can_read_the_key(self) -> None:
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        _, key = ensure_self_signed(self.folder, NOW, [])
        self.assertEqual(stat.S_IMODE(key.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

    def test_it_is_kept_until_30_days_before_its_end(self) -> None:
        first = ensure_self_signed(self.folder, NOW, [])
        before = _contents(first)
        self.assertEqual(ensure_self_signed(self.folder, NOW + 366 * DAY, []), first)
        self.assertEqual(_contents(first), before)
        ensure_self_signed(self.folder, NOW + 367 * DAY, [])
        self.assertNotEqual(_contents(first), before)
        self.assertEqual(expiry(first[0]), NOW + (367 + 397) * DAY - timedelta(hours=1))

    def test_one_of_the_future_or_broken_or_half_of_one_is_replaced(self) -> None:
        certificate, key = pair = ensure_self_signed(self.folder, NOW, [])
        for spoil in (
            lambda: key.unlink(),
            lambda: certificate.write_text("x"),
            lambda: key.write_bytes(_other_key(self)),
            lambda: ensure_self_signed(self.folder, NOW + 800 * DAY, []),
        ):
            spoil()
            before = _contents(pair)
            ensure_self_signed(self.folder, NOW, [])
            self.assertNotEqual(_contents(pair), before)
            self.assertLessEqual(read_pair(certificate, key).certificate.not_valid_before_utc, NOW)

    def test_what_a_crash_left_is_no_hindrance(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / ".key.pem.new").write_text("half")
        certificate, key = ensure_self_signed(self.folder, NOW, [])
        read_pair(certificate, key)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["certificate.pem", "key.pem"])

    def test_several_that_start_at_once_get_one_pair(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            futures = [threads.submit(_made, self.folder) for _ in range(16)]
            self.assertEqual(len({future.result() for future in futures}), 1)

    def test_a_context_of_unusable_files_is_refused_in_one_line(self) -> None:
        certificate, key = ensure_self_signed(self.folder, NOW, [])
        key.write_bytes(_other_key(self))
        with self.assertRaises(ConfigurationError) as caught:
            server_context(certificate, key)
        self.assertEqual(
            caught.exception.problems,
            [
                f"{key} is not the key of the certificate in {certificate}; "
                "allowed: the two that belong together"
            ],
        )


def _folder(test: ReactorTest | UnitTest) -> Path:
    scratch = tempfile.TemporaryDirectory()
    test.addCleanup(scratch.cleanup)
    return Path(scratch.name)


def _contents(pair: tuple[Path, Path]) -> list[bytes]:
    return [file.read_bytes() if file.exists() else b"" for file in pair]


def _other_key(test: UnitTest) -> bytes:
    return ensure_self_signed(_folder(test), NOW, [])[1].read_bytes()


def _made(folder: Path) -> bytes:
    """The certificate's content, once its key is known to belong to it."""
    certificate, key = ensure_self_signed(folder, NOW, [])
    read_pair(certificate, key)
    return certificate.read_bytes()


# --- a client that is not Twisted's, to be run in a thread --------------------------------------


def _client(trusted: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(trusted)
    client.minimum_version = client.maximum_version = version
    return client


def _call(port: int, name: str, client: ssl.SSLContext) -> str | None:
    """The version that was spoken, once something has been read."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        with client.wrap_socket(plain, server_hostname=name) as secure:
            assert secure.recv(5)
            return secure.version()


def _chain_length(port: int) -> int:
    """How many certificates the server sends; Python's own ssl tells from 3.13 on only."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        plain.settimeout(None)
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), plain)
        connection.set_connect_state()
        connection.do_handshake()
        return len(connection.get_peer_cert_chain() or ())
