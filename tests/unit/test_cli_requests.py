"""The bytes `smsdaemon send` writes, read again by parsers that are not ours."""

from __future__ import annotations

import json
from http.client import parse_headers
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st
from multipart import MultipartParser, parse_options_header  # type: ignore[import-untyped]

from smsdaemon.cli.send import default_url
from smsdaemon.cli.sms_request import METHODS, Method, parse_url, request_maker
from smsdaemon.settings import Listener, Settings, TlsListener
from tests.support.cases import UnitTest

URL = parse_url("http://127.0.0.1:8080")
# What a command line can hold, less what the counter would change and what multipart cannot carry.
_values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0{}\r"))


def fields_of(method: Method, request: bytes) -> dict[str, str]:
    """The fields as a server would read them."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, _, rest = head.partition(b"\r\n")
    headers = parse_headers(BytesIO(rest + b"\r\n\r\n"))
    if method == "get":
        target = line.split(b" ")[1].decode("ascii")
        return dict(parse_qsl(target.partition("?")[2], keep_blank_values=True, strict_parsing=True))
    assert int(headers["Content-Length"]) == len(body)
    if method == "post":
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True))
    if method == "json":
        found: dict[str, str] = json.loads(body)
        return found
    boundary = parse_options_header(headers["Content-Type"])[1]["boundary"]
    return {part.name: part.value for part in MultipartParser(BytesIO(body), boundary)}


class RequestTests(UnitTest):
    @given(sender=_values, text=_values)
    def test_every_method_carries_any_text_unchanged(self, sender: str, text: str) -> None:
        fields = {"receiver": "+49123123", "sender": sender, "message": text}
        for method in METHODS:
            self.assertEqual(fields_of(method, request_maker(URL, method, fields)(0)), fields)

    def test_the_counter_replaces_n_wherever_it_stands(self) -> None:
        fields = {
            "receiver": "1",
            "sender": "+49{n}",
            "message": "{n} of 100 %d {x} {n}",
            "message_id": "m{n}",
        }
        for method in METHODS:
            make = request_maker(URL, method, fields)
            self.assertEqual(
                fields_of(method, make(42)),
                {"receiver": "1", "sender": "+4942", "message": "42 of 100 %d {x} 42", "message_id": "m42"},
            )

    def test_only_the_senders_counter_starts_again(self) -> None:
        make = request_maker(URL, "get", {"sender": "{n}", "message": "{n}"}, senders=5)
        self.assertEqual(fields_of("get", make(12)), {"sender": "2", "message": "12"})

    def test_an_argument_that_is_not_utf8_goes_out_as_the_bytes_it_is(self) -> None:
        given = b"Gr\xfc\xdfe".decode("utf-8", "surrogateescape")
        self.assertIn(b"message=Gr%FC%DFe", request_maker(URL, "get", {"message": given})(0))
        self.assertIn(b'"Gr\xfc\xdfe"', request_maker(URL, "json", {"message": given})(0))

    def test_a_query_in_the_url_is_kept(self) -> None:
        url = parse_url("http://localhost/SMSReceiver?receiver=1")
        self.assertTrue(
            request_maker(url, "get", {"a": "b"})(0).startswith(
                b"GET /SMSReceiver?receiver=1&a=b HTTP/1.1\r\n"
            )
        )


class UrlTests(UnitTest):
    def test_what_a_url_leaves_out_is_filled_in(self) -> None:
        for text, port, path, authority in (
            ("http://sms.example.com", 80, "/SMSReceiver", "sms.example.com:80"),
            ("https://sms.example.com/", 443, "/SMSReceiver", "sms.example.com:443"),
            ("http://[::1]:8080/a b", 8080, "/a%20b", "[::1]:8080"),
        ):
            url = parse_url(text)
            self.assertEqual((url.port, url.path, url.authority), (port, path, authority))

    def test_what_is_no_url_of_a_receiver_is_refused(self) -> None:
        for text in (
            "",
            "sms.example.com",
            "ftp://sms.example.com/",
            "http://",
            "http://a:b",
            "http://a:99999",
            "https://a_b.test/",
            "http://a b/",
            "http://a..b/",
            "http://" + "a" * 64 + "/",
            "http://" + "a." * 128 + "/",
            "http://\udcff/",
            "http://[fe80::1%a b]/",
            "http://-a.test/",
            "http://\u00ad/",
            "http://a:0/",
        ):
            self.assertRaises(ValueError, parse_url, text)

    def test_a_name_that_is_not_ascii_goes_out_as_dns_has_it(self) -> None:
        for text, host in (
            ("http://exämple.test/", "xn--exmple-cua.test"),
            ("http://EXAMPLE.test./", "example.test."),
            ("http://127.0.0.1/", "127.0.0.1"),
            ("http://[::1]/", "::1"),
            ("http://[fe80::1%eth0]/", "fe80::1%eth0"),
            ("http://localhost/", "localhost"),
        ):
            url = parse_url(text)
            self.assertEqual(url.host, host)
            request_maker(url, "get", {})(0)

    def test_a_path_that_is_not_ascii_is_escaped(self) -> None:
        self.assertEqual(parse_url("http://a/ü?ö=\udcff").path, "/%C3%BC?%C3%B6=%FF")


class DefaultUrlTests(UnitTest):
    def settings(self, *endpoints: str) -> Settings:
        return Settings(
            state_dir=Path("/nowhere"),
            http=Listener(listen=endpoints),
            https=TlsListener(listen=("tcp:8443:interface=127.0.0.1",)),
        )

    def test_it_is_the_first_listener_that_can_be_connected_to(self) -> None:
        self.assertEqual(default_url(self.settings("tcp:0", "tcp:8080")).authority, "127.0.0.1:8080")

    def test_sockets_that_only_the_daemon_has_are_passed_over(self) -> None:
        for endpoint in ("systemd:domain=INET:index=0", "unix:/run/x", "haproxy:systemd:domain=INET:index=0"):
            self.assertEqual(default_url(self.settings(endpoint)).authority, "127.0.0.1:8443", endpoint)
