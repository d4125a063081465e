"""The directory file: what is taken, what is refused and how, and that an export reads back the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smsdaemon.domain.directory_changes import (
    Changes,
    ClientRow,
    ConnectorRow,
    ResellerRow,
    StoredDirectory,
    TargetRow,
    changes,
)
from smsdaemon.domain.directory_export import render
from smsdaemon.domain.directory_file import DirectoryFile, parse
from smsdaemon.domain.directory_values import quoted, token_hash
from smsdaemon.errors import ConfigurationError
from tests.support.cases import UnitTest
from tests.support.directories import PROVIDERS, SHOP, directories, row_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DEMO = Path(__file__).parents[2] / "etc" / "demo.toml"


def read(text: str) -> DirectoryFile:
    return parse(text.encode(), "test.toml")


class FileTests(UnitTest):
    def problems(self, text: str) -> list[str]:
        problems: list[str] = self.assertRaises(ConfigurationError, read, text).problems
        return problems

    def only_problem(self, text: str) -> str:
        (problem,) = self.problems(text)
        return problem

    def group(self, line: str) -> str:
        return f'[[acd_group]]\nclient = "acme/shop"\nname = "support"\n{line}\n'

    def connector(self, line: str) -> str:
        return f'[[connector]]\nnumber = "+49123123"\n{line}\n'

    def test_what_is_left_out_is_none_and_what_is_given_is_kept(self) -> None:
        (entry,) = read(self.connector('acd_group = ""\nrequire_token = false')).connectors
        self.assertEqual((entry.acd_group, entry.application), ("", None))
        self.assertEqual((entry.require_token, entry.enabled, entry.tokens), (False, None, None))

    def test_the_demo_directory_is_sound(self) -> None:
        file = parse(DEMO.read_bytes(), "demo.toml")
        self.assertEqual([c.number for c in file.connectors], ["+49123123", "+49123124", "+49123125"])
        self.assertEqual(len(file.targets), 2)

    def test_an_empty_file_is_an_empty_directory(self) -> None:
        self.assertEqual(read(""), DirectoryFile(name="test.toml"))

    def test_every_problem_is_told_at_once_with_file_entry_and_key(self) -> None:
        text = (
            '[[reseller]]\nname = "a/b"\nenabled = 1\n[[clients]]\n'
            '[[client]]\nname = "shop"\n'
            '[[connector]]\nnumber = "+49 (123)"\nretention_days = 3\nrequire_token = "yes"\n'
            "[[connector]]\nnumber = 49123\n"
        )
        allowed = (
            "client, number, acd_group, application, require_token, tokens, sender_format, provider,"
            " provider_secrets, unsigned, enabled"
        )
        tables = "[[reseller]], [[client]], [[acd_group]], [[application]], [[connector]]"
        self.assertEqual(
            self.problems(text),
            [
                f'test.toml: unknown table or key "clients"; allowed are {tables}',
                'test.toml: reseller "a/b": name must not contain "/"',
                'test.toml: reseller "a/b": enabled must be true or false',
                "test.toml: client no. 1: reseller is missing",
                f'test.toml: connector "+49 (123)": unknown key "retention_days"; allowed are {allowed}',
                'test.toml: connector "+49 (123)": require_token must be true or false',
                "test.toml: connector no. 2: number must be a string",
            ],
        )

    def test_keys_of_later_versions_are_unknown(self) -> None:
        for key in ("allow_from", "retention_days"):
            self.assertIn(f'unknown key "{key}"', self.only_problem(self.connector(f"{key} = 1")))

    def test_a_table_that_is_no_list_is_refused(self) -> None:
        self.assertIn("write [[reseller]]", self.only_problem('[reseller]\nname = "acme"'))
        self.assertIn("write [[reseller]]", self.only_problem("reseller = [1]"))

    def test_what_is_not_toml_is_one_line_with_the_place(self) -> None:
        self.assertIn("line 2", self.only_problem("[[reseller]]\nname = acme"))
        self.assertEqual(len(self.problems("a = " + "[" * 5000)), 1)
        self.assertEqual(len(self.problems("a = " + "9" * 5000)), 1)
        error = self.assertRaises(ConfigurationError, parse, b'name = "\xff"', "test.toml")
        self.assertEqual(error.problems, ["test.toml: is not UTF-8 at byte 8"])

    def test_names_must_be_one_readable_line(self) -> None:
        for name in ("", "  ", "a/b", "a\\nb", "a\\u0000b", "a\\u2028b", "a\\u0085b", "x" * 256):
            self.assertIn(": name ", self.only_problem(f'[[reseller]]\nname = "{name}"'), name)

    def test_a_client_is_named_with_its_reseller(self) -> None:
        for client in ("shop", "acme/", "/shop", "acme/shop/x", "acme//shop"):
            self.assertIn(
                "client must be written as", self.only_problem(self.connector(f'client = "{client}"'))
            )

    def test_one_thing_has_one_entry(self) -> None:
        reseller = '[[reseller]]\nname = "acme"\n'
        self.assertIn('reseller "acme": is in the file twice', self.only_problem(reseller * 2))
        client = '[[client]]\nname = "shop"\nreseller = "acme"\n'
        self.assertIn('client "acme/shop": is in the file twice', self.only_problem(client * 2))
        self.assertIn('acd_group "acme/shop/support"', self.only_problem(self.group("") * 2))
        other_kind = self.group("").replace("acd_group", "application")
        self.assertEqual(len(read(self.group("") + other_kind).targets), 2)

    def test_two_spellings_of_one_number_are_one_connector(self) -> None:
        text = '[[connector]]\nnumber = "+49 123-123-1"\n[[connector]]\nnumber = "00491231231"\n'
        same = 'twice as "+49 123-123-1", which is the same number'
        self.assertEqual(
            self.only_problem(text),
            f'test.toml: connector "00491231231": is in the file {same}',
        )

    def test_a_number_needs_something_to_compare(self) -> None:
        self.assertIn("number has nothing to compare", self.only_problem('[[connector]]\nnumber = " +"'))
        self.assertIn("at most 64", self.only_problem(f'[[connector]]\nnumber = "{"1" * 65}"'))

    def test_a_connector_has_one_target_at_most(self) -> None:
        both = self.connector('acd_group = "a"\napplication = "b"')
        self.assertIn("acd_group and application are both given", self.only_problem(both))
        (entry,) = read(self.connector('acd_group = "a"\napplication = ""')).connectors
        self.assertEqual(entry.acd_group, "a")

    def test_urls_of_known_backends_are_taken_with_the_scheme_in_lower_case(self) -> None:
        for url in (
            "http://127.0.0.1:9000/sms?a=b",
            "https://acd.example.com",
            "https://[2001:db8::1]:8443/x",
            "log:",
            "log://demo",
            "http://acd_backend:8080/",
            "https://_sms._tcp.a.example./",
            "http://" + "a" * 63 + ".example/",
        ):
            (entry,) = read(self.group(f'url = "{url}"')).targets
            self.assertEqual(entry.url, url)
        (entry,) = read(self.group('url = "HTTPS://A.example/X"')).targets
        self.assertEqual(entry.url, "https://A.example/X")

    def test_urls_that_cannot_be_called_are_refused_without_being_quoted(self) -> None:
        for url in (
            "",
            "acd.example.com",
            "ftp://acd.example.com",
            "http:",
            "http:///sms",
            "https://user:hunter2@acd.example.com/",
            "http://a.example:hunter2/",
            "http://a.example:0/",
            "http://[::1/hunter2",
            "http://a.example/hunter2 b",
            "http://ä.example/hunter2",
            "http://a.example\\\\@hunter2/",
        ):
            problem = self.only_problem(self.group(f'url = "{url}"'))
            self.assertIn("url ", problem)
            self.assertNotIn("hunter2", problem)

    def test_hosts_that_no_resolver_takes_are_refused(self) -> None:
        for host in (
            "a..b",
            ".example",
            ".",
            "-a.example",
            "a-.example",
            "a" * 64 + ".example",
            ".".join(["a" * 63] * 4),
            "a%20b",
            "a!b",
        ):
            for scheme in ("http", "https"):
                problem = self.only_problem(self.group(f'url = "{scheme}://{host}:8080/hunter2"'))
                self.assertIn("url must name a host that can be called", problem, host)
                self.assertNotIn("hunter2", problem)

    def test_link_local_addresses_are_refused_in_every_spelling(self) -> None:
        for host in (
            "169.254.169.254",
            "169.254.0.1.",
            "2852039166",
            "0xa9fea9fe",
            "0251.254.43518",
            "[fe80::1]",
            "[fe80::1%25eth0]",
            "[FEBF::1]",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
        ):
            problem = self.only_problem(self.group(f'url = "http://{host}/latest"'))
            self.assertIn("must not be a link-local address", problem, host)

    def test_other_backends_may_be_named_by_the_caller(self) -> None:
        text = self.group('url = "amqp://broker"').encode()
        self.assertRaises(ConfigurationError, parse, text, "test.toml")
        (entry,) = parse(text, "test.toml", schemes={"amqp"}).targets
        self.assertEqual(entry.url, "amqp://broker")

    def test_a_secret_is_whsec_and_24_to_64_bytes(self) -> None:
        (entry,) = read(self.group(f'secret = "{SECRET}"')).targets
        self.assertEqual(entry.secret, SECRET)
        for secret in (
            "",
            SECRET[6:],
            "whsec_",
            "whsec_c2hvcnQ=",
            SECRET + "!",
            "whsec_" + "A" * 92,
            "whsec_ä",
        ):
            problem = self.only_problem(self.group(f'secret = "{secret}"'))
            self.assertIn("secret must be", problem)
            self.assertNotIn(secret or "!", problem.replace('"whsec_"', ""))

    def test_a_subject_has_three_placeholders_and_other_braces_are_text(self) -> None:
        for subject in ("SMS from {sender} to {receiver} {keyword}", "{ } {} {not one} {{x", ""):
            (entry,) = read(self.group(f'subject = "{subject}"')).targets
            self.assertEqual(entry.subject, subject)
        problem = self.only_problem(self.group('subject = "{sender} {text} {Sender}"'))
        self.assertIn(
            "unknown placeholders (text, Sender); allowed are {sender} {receiver} {keyword}", problem
        )

    def test_tokens_are_hashed_or_hashes(self) -> None:
        hashed = token_hash("t0ken").hex()
        for token in ("t0ken", f"sha256:{hashed}", f"sha256:{hashed.upper()}"):
            (entry,) = read(self.connector(f'tokens = ["{token}"]')).connectors
            self.assertEqual(entry.tokens, {token_hash("t0ken")})

    def test_bad_tokens_are_refused_without_being_quoted(self) -> None:
        for tokens in (
            '"hunter2"',
            '["hunter2", 5]',
            '["hunter2", ""]',
            '["sha256:hunter2"]',
            '[["hunter2"]]',
        ):
            problem = self.only_problem(self.connector(f"tokens = {tokens}"))
            self.assertIn("tokens must ", problem)
            self.assertNotIn("hunter2", problem)

    def test_nothing_secret_is_in_the_repr_of_a_file(self) -> None:
        text = self.group(f'secret = "{SECRET}"\nurl = "http://a/hunter2"') + self.connector(
            'tokens = ["t0ken"]'
        )
        for hidden in (SECRET, "hunter2", repr(token_hash("t0ken"))):
            self.assertNotIn(hidden, repr(read(text)))

    def test_the_sender_format_is_one_of_two(self) -> None:
        self.assertIn('"e164" or "as-is"', self.only_problem(self.connector('sender_format = "E164"')))
        self.assertIn('"e164" or "as-is"', self.only_problem(self.connector("sender_format = []")))


class ChangesTests(UnitTest):
    """What would change; how it is done is tested in integration/test_apply.py."""

    def compare(self, text: str, stored: StoredDirectory = SHOP, prune: bool = False) -> Changes:
        return changes(
            read(text),
            stored,
            prune=prune,
            make_secret=lambda: SECRET,
            show_secrets=True,
            providers=PROVIDERS,
        )

    def lines(self, text: str, stored: StoredDirectory = SHOP) -> list[str]:
        return [change.line for change in self.compare(text, stored).all()]

    def problems(self, text: str, prune: bool = False) -> list[str]:
        problems: list[str] = self.assertRaises(ConfigurationError, self.compare, text, prune=prune).problems
        return problems

    def test_a_change_is_one_line_that_names_the_keys(self) -> None:
        text = (
            '[[reseller]]\nname = "other"\n[[reseller]]\nname = "acme"\n'
            '[[acd_group]]\nclient = "acme/shop"\nname = "sales"\nurl = "log:"\n'
            '[[acd_group]]\nclient = "acme/shop"\nname = "support"\nenabled = false\nsubject = "{sender}"\n'
            '[[connector]]\nnumber = "0049123123"\nacd_group = "sales"\ntokens = ["a"]\n'
        )
        self.assertEqual(
            self.lines(text),
            [
                "create reseller other",
                f"create acd_group acme/shop/sales (secret {SECRET})",
                "update acd_group acme/shop/support: subject, enabled",
                "update connector 0049123123: number, acd_group, tokens",
            ],
        )
        self.assertEqual(self.compare(text).unchanged, 1)

    def test_naming_the_other_kind_replaces_the_target_and_nothing_clears_it(self) -> None:
        connector = '[[connector]]\nnumber = "+49123123"\n'
        self.assertEqual(
            self.lines(connector + 'application = "survey"'), ["update connector +49123123: application"]
        )
        for key in ("acd_group", "application"):
            self.assertEqual(self.lines(connector + f'{key} = ""'), ["update connector +49123123: acd_group"])
        self.assertEqual(self.lines(connector), [])

    def test_a_moved_connector_keeps_its_target_where_none_is_named(self) -> None:
        text = '[[client]]\nname = "b"\nreseller = "acme"\n'
        text += '[[connector]]\nnumber = "+49123123"\nclient = "acme/b"\n'
        self.assertEqual(self.lines(text), ["create client acme/b", "update connector +49123123: client"])
        self.assertEqual(
            self.problems(text + 'acd_group = "support"'),
            ['test.toml: connector "+49123123": acd_group "support" does not exist in client acme/b'],
        )

    def test_every_dangling_name_is_told(self) -> None:
        text = (
            '[[client]]\nname = "x"\nreseller = "nobody"\n'
            '[[acd_group]]\nclient = "acme/nothing"\nname = "g"\nurl = "log:"\n'
            '[[application]]\nclient = "acme/shop"\nname = "new"\n'
            '[[connector]]\nnumber = "1"\nclient = "acme/nothing"\n'
            '[[connector]]\nnumber = "2"\n'
            '[[connector]]\nnumber = "3"\nclient = "acme/shop"\nacd_group = "survey"\n'
        )
        self.assertEqual(
            self.problems(text),
            [
                'test.toml: client "nobody/x": reseller "nobody" does not exist',
                'test.toml: acd_group "acme/nothing/g": client "acme/nothing" does not exist',
                'test.toml: application "acme/shop/new": url is missing',
                'test.toml: connector "1": client "acme/nothing" does not exist',
                'test.toml: connector "2": client is missing',
                'test.toml: connector "3": acd_group "survey" does not exist in client acme/shop',
            ],
        )

    def test_what_is_pruned_may_not_be_named_nor_kept(self) -> None:
        text = '[[reseller]]\nname = "acme"\n[[client]]\nname = "shop"\nreseller = "acme"\n'
        connector = '[[connector]]\nnumber = "+49123123"\n'
        kept = 'keeps acd_group "support" of client acme/shop, which is to be removed'
        self.assertEqual(
            self.problems(text + connector, prune=True), [f'test.toml: connector "+49123123": {kept}']
        )
        self.assertEqual(
            self.problems(text + connector + 'acd_group = "support"', prune=True),
            ['test.toml: connector "+49123123": acd_group "support" does not exist in client acme/shop'],
        )
        self.assertEqual(
            self.problems(connector, prune=True),
            ['test.toml: connector "+49123123": client "acme/shop" does not exist'],
        )
        pruned = self.compare(text + connector + 'acd_group = ""', prune=True)
        self.assertEqual([t.name for t in pruned.removed_targets], ["support", "survey"])
        self.assertEqual(pruned.removed_connectors, [])


class ExportTests(UnitTest):
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.text())
    def test_any_text_survives_quoting_on_one_line(self, text: str) -> None:
        self.assertEqual(len(quoted(text).splitlines()), 1)
        self.assertEqual(tomllib.loads(f"t = {quoted(text)}"), {"t": text})

    # Hypothesis' first use of its table of characters takes a second.
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(directories())
    def test_an_export_holds_what_is_stored(self, stored: StoredDirectory) -> None:
        file = parse("".join(render(stored)).encode(), "export.toml")
        found = changes(
            file, stored, prune=True, make_secret=lambda: SECRET, show_secrets=False, providers=PROVIDERS
        )
        rows = len(stored.resellers) + len(stored.clients) + len(stored.targets) + len(stored.connectors)
        self.assertEqual(found, Changes(unchanged=rows))

    def test_an_export_has_hashes_and_no_secrets_and_no_defaults(self) -> None:
        text = "".join(render(SHOP))
        self.assertIn(f'tokens = ["sha256:{token_hash("t0ken").hex()}"]', text)
        self.assertNotIn("whsec_", text)
        for default in ("enabled", "sender_format", "require_token = false", "subject"):
            self.assertNotIn(default, text)

    def test_an_export_does_not_depend_on_the_order_of_what_is_stored(self) -> None:
        turned = StoredDirectory(
            resellers=dict(reversed(list(SHOP.resellers.items()))),
            clients=dict(reversed(list(SHOP.clients.items()))),
            targets=dict(reversed(list(SHOP.targets.items()))),
            connectors=dict(reversed(list(SHOP.connectors.items()))),
        )
        self.assertEqual(list(render(turned)), list(render(SHOP)))

    def test_a_target_of_another_client_is_left_out_and_so_kept(self) -> None:
        moved = StoredDirectory(
            resellers=row_of(ResellerRow(id=1, name="acme")),
            clients=row_of(
                ClientRow(id=1, reseller="acme", name="a"), ClientRow(id=2, reseller="acme", name="b")
            ),
            targets=row_of(
                TargetRow(id=1, client="acme/a", kind="acd_group", name="g", url="log:", secret=SECRET)
            ),
            connectors=row_of(
                ConnectorRow(
                    id=1, client="acme/b", number="1", number_key="1", target=("acme/a", "acd_group", "g")
                )
            ),
        )
        file = parse("".join(render(moved)).encode(), "export.toml")
        found = changes(
            file, moved, prune=True, make_secret=lambda: SECRET, show_secrets=False, providers=PROVIDERS
        )
        self.assertEqual(found, Changes(unchanged=5))
