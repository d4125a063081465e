"""Settings that are wrong only together, or on this machine: endpoints, certificates, folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL import crypto

from smsdaemon.settings_endpoints import socket_of
from tests.support.authority import Authority
from tests.support.settings import HTTP, SettingsTest

READ = "is not an endpoint that Twisted can read:"
AS_IN = "allowed: as in tcp:8080:interface=127.0.0.1"
LOOPBACK = "allowed: loopback, as in tcp:8081:interface=127.0.0.1, or unix:"


class EndpointTests(SettingsTest):
    def test_what_twisted_cannot_read_is_refused(self) -> None:
        self.assert_problems(
            '[http]\nlisten = ["8080", "tcp", "tcp:http", "tcp:65536", "tcp:-1", "tcp:1:colour=red", ""]\n',
            f"FILE: http.listen: \"8080\" {READ} Unknown endpoint type: '8080'; {AS_IN}",
            f'FILE: http.listen: "tcp" {READ} has too few or unknown arguments; {AS_IN}',
            f"FILE: http.listen: \"tcp:http\" {READ} invalid literal for int() with base 10: 'http'; {AS_IN}",
            f'FILE: http.listen: "tcp:65536" {READ} has port 65536, not one from 0 to 65535; {AS_IN}',
            f'FILE: http.listen: "tcp:-1" {READ} has port -1, not one from 0 to 65535; {AS_IN}',
            f'FILE: http.listen: "tcp:1:colour=red" {READ} has too few or unknown arguments; {AS_IN}',
            f"FILE: http.listen: \"\" {READ} Unknown endpoint type: ''; {AS_IN}",
        )

    def test_wrong_endpoints_are_said_beside_one_that_is_no_string(self) -> None:
        self.assert_problems(
            '[http]\nlisten = [8080, "tcp"]\n',
            "FILE: http.listen[0]: is a whole number, not a string; "
            'allowed: a list of Twisted server endpoints, as in ["tcp:8080:interface=127.0.0.1"]',
            f'FILE: http.listen: "tcp" {READ} has too few or unknown arguments; {AS_IN}',
        )

    def test_tls_is_ours_alone(self) -> None:
        tls = "brings its own TLS; allowed: a tcp: endpoint in [https], with certificate and key beside it"
        self.assert_problems(
            '[http]\nlisten = ["ssl:1:privateKey=k.pem", "stdio:"]\n[https]\nlisten = ["tls:1", "unix:/a"]\n',
            f'FILE: http.listen: "ssl:1:privateKey=k.pem" {tls}',
            'FILE: http.listen: "stdio:" is no place to listen; allowed: tcp: or unix: endpoints',
            f'FILE: https.listen: "tls:1" {tls}',
            'FILE: https.listen: "unix:address=/a" is not a tcp: endpoint; '
            "allowed: tcp: endpoints, as in tcp:8443",
        )

    def test_the_admin_listener_stays_on_this_machine(self) -> None:
        away = ["tcp:1", "tcp:2:interface=0.0.0.0", "tcp:3:interface=192.0.2.1", "tcp6:4", "haproxy:tcp:5"]
        self.assert_problems(
            f"{HTTP}[admin]\nlisten = {json.dumps(away)}\n",
            *(
                f'FILE: admin.listen: "{place}" can be reached from other machines; {LOOPBACK}'
                for place in away
            ),
        )
        near = ["tcp:1:interface=127.0.0.9", "tcp:2:interface=localhost", "tcp6:3:interface=\\:\\:1"]
        near += ["unix:/a", "haproxy:tcp:5:interface=127.0.0.1"]
        self.load(f"{HTTP}[admin]\nlisten = {json.dumps(near)}\n")

    def test_two_listeners_cannot_have_one_place(self) -> None:
        self.assert_problems(
            '[http]\nlisten = ["tcp:1:interface=127.0.0.1", "unix:a"]\n[https]\nlisten = ["tcp:1", "tcp:2"]\n'
            '[admin]\nlisten = ["tcp:2:interface=127.0.0.1", "unix:./a:mode=600"]\n',
            'FILE: https.listen: "tcp:1" is taken by "tcp:1:interface=127.0.0.1" of http.listen; '
            "allowed: a place of its own",
            'FILE: admin.listen: "tcp:2:interface=127.0.0.1" is taken by "tcp:2" of https.listen; '
            "allowed: a place of its own",
            'FILE: admin.listen: "unix:address=FOLDER/a:mode=600" is taken by "unix:address=FOLDER/a" of '
            "http.listen; allowed: a place of its own",
        )

    def test_port_0_other_interfaces_and_other_families_do_not_collide(self) -> None:
        self.load(
            '[http]\nlisten = ["tcp:0", "tcp:0", "tcp:1:interface=127.0.0.1", "tcp:1:interface=127.0.0.2"]\n'
            '[https]\nlisten = ["tcp6:1"]\n'
        )

    def test_reading_an_endpoint_does_not_listen(self) -> None:
        self.assertEqual(socket_of(f"unix:{self.folder}/sock").kind, "unix")
        self.assertEqual(list(self.folder.iterdir()), [])


class CertificateTests(SettingsTest):
    def setUp(self) -> None:
        super().setUp()
        self.certificate, self.key = self.folder / "c.pem", self.folder / "k.pem"
        server = Authority().server(["localhost"])
        self.certificate.write_bytes(server.dump(crypto.FILETYPE_PEM))
        self.key.write_bytes(server.privateKey.dump(crypto.FILETYPE_PEM))
        self.text = '[https]\nlisten = ["tcp:1"]\ncertificate = "c.pem"\nkey = "k.pem"\n'

    def test_a_pair_that_belongs_together_is_taken(self) -> None:
        https = self.load(self.text).https
        assert https is not None
        self.assertEqual((https.certificate, https.key), (self.certificate, self.key))

    def test_one_without_the_other_is_refused(self) -> None:
        end = "allowed: both, or neither for a self-signed one"
        for name, other, file in (("key", "certificate", "c.pem"), ("certificate", "key", "k.pem")):
            self.assert_problems(
                f'[https]\nlisten = ["tcp:1"]\n{other} = "{file}"\n',
                f"FILE: https.{name}: is missing beside https.{other}; {end}",
            )

    def test_files_that_cannot_be_read_are_said_both(self) -> None:
        self.certificate.unlink()
        self.key.unlink()
        self.key.mkdir()
        self.assert_problems(
            self.text,
            "FILE: https.certificate: FOLDER/c.pem cannot be read: No such file or directory; "
            "allowed: a readable PEM file",
            "FILE: https.key: FOLDER/k.pem cannot be read: Is a directory; allowed: a readable PEM file",
        )

    def test_files_that_are_not_pem_are_said_both(self) -> None:
        self.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.key.write_bytes(b"\0\xff")
        self.assert_problems(
            self.text,
            "FILE: https.certificate: FOLDER/c.pem holds no readable certificate; "
            "allowed: PEM, the server's own first, then its chain",
            "FILE: https.key: FOLDER/k.pem holds no readable private key; "
            "allowed: a private key in PEM, without a passphrase",
        )

    def test_swapped_files_are_refused(self) -> None:
        self.text = self.text.replace("c.pem", "x.pem").replace("k.pem", "c.pem").replace("x.pem", "k.pem")
        self.assert_problems(
            self.text,
            "FILE: https.certificate: FOLDER/k.pem holds no readable certificate; "
            "allowed: PEM, the server's own first, then its chain",
            "FILE: https.key: FOLDER/c.pem holds no readable private key; "
            "allowed: a private key in PEM, without a passphrase",
        )

    def test_another_certificates_key_is_refused(self) -> None:
        self._write_key(ec.generate_private_key(ec.SECP256R1()))
        self.assert_problems(
            self.text,
            "FILE: https.key: FOLDER/k.pem is not the key of the certificate in FOLDER/c.pem; "
            "allowed: the two that belong together",
        )

    def test_keys_that_no_server_can_use_are_refused(self) -> None:
        end = "allowed: a private key in PEM, without a passphrase"
        self._write_key(ec.generate_private_key(ec.SECP256R1()), passphrase=b"x")
        self.assert_problems(self.text, f"FILE: https.key: FOLDER/k.pem is encrypted; {end}")
        self._write_key(dsa.generate_private_key(1024))
        self.assert_problems(
            self.text, f"FILE: https.key: FOLDER/k.pem holds no key of a kind that TLS servers have; {end}"
        )

    def test_an_expired_certificate_is_refused(self) -> None:
        server = Authority().server(["localhost"], expired=True)
        self.certificate.write_bytes(server.dump(crypto.FILETYPE_PEM))
        self.key.write_bytes(server.privateKey.dump(crypto.FILETYPE_PEM))
        end = server.original.to_cryptography().not_valid_after_utc
        self.assert_problems(
            self.text,
            f"FILE: https.certificate: FOLDER/c.pem expired at {end:%Y-%m-%dT%H:%M:%SZ}; "
            "allowed: one that is valid now",
        )

    def test_a_command_does_not_look_into_the_files(self) -> None:
        self.certificate.unlink()
        self.load(self.text, serving=False)

    def _write_key(
        self,
        key: ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey | rsa.RSAPrivateKey,
        passphrase: bytes | None = None,
    ) -> None:
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


class StateFolderTests(SettingsTest):
    def test_a_folder_that_can_be_made_is_taken_and_not_yet_made(self) -> None:
        settings = self.load('state_dir = "a/b"\n' + HTTP)
        self.assertEqual(settings.state_dir, self.folder / "a" / "b")
        self.assertFalse((self.folder / "a").exists())

    def test_a_file_in_its_place_or_above_is_refused(self) -> None:
        (self.folder / "a").write_text("")
        for path in ("a", "a/b"):
            self.assert_problems(
                f'state_dir = "{path}"\n{HTTP}',
                "FILE: state_dir: FOLDER/a is not a folder; allowed: the path of a folder",
            )

    def test_a_folder_that_cannot_be_written_is_refused(self) -> None:
        line = (
            "FILE: state_dir: FOLDER cannot be written to; allowed: a folder that this user can write or make"
        )
        self.file.write_text("")
        self.file.chmod(0o666)
        self.folder.chmod(0o555)
        self.folder.parent.chmod(0o755)
        self._be_an_ordinary_user()
        self.assert_problems('state_dir = "a/b"\n' + HTTP, line)
        self.assert_problems('state_dir = "."\n' + HTTP, line)
        self.load('state_dir = "a/b"\n' + HTTP, serving=False)

    def test_the_default_folder_is_checked_too(self) -> None:
        Path(self.cwd, "var").write_text("")
        self.assert_problems(
            HTTP,
            f"built-in defaults: state_dir: {self.cwd}/var is not a folder; allowed: the path of a folder",
        )

    def _be_an_ordinary_user(self) -> None:
        if os.geteuid() == 0:
            os.seteuid(65534)
            self.addCleanup(os.seteuid, 0)
