"""Profile files: what is wrong with them is told with file, key and what is allowed, all at once."""

from __future__ import annotations

from pathlib import Path

from smsdaemon.errors import ConfigurationError
from smsdaemon.providers import catalogue
from smsdaemon.providers.profile_file import parse
from smsdaemon.providers.selectors import selector
from tests.support.cases import UnitTest

GOOD = """name = "x"
description = "X"
[fields]
receiver = "to"
sender = "from"
text = "text"
"""


def problems_of(text: str, name: str = "x") -> list[str]:
    try:
        parse(text.encode(), name, "x.toml")
    except ConfigurationError as error:
        return error.problems
    return []


class ProfileFileTests(UnitTest):
    def test_a_good_one_has_no_problems(self) -> None:
        self.assertEqual(problems_of(GOOD), [])

    def test_every_problem_is_told_at_once_with_its_dotted_key(self) -> None:
        text = """
name = "y"
description = 1
colour = "red"
methods = ["BREW"]
[request]
body = ["yaml"]
separator = "|"
charset = "klingon"
batch = "a[[b"
document = { format = "json" }
[fields]
receiver = { path = "to", constant = "1" }
sender = 5
text = "text[*]"
tset = "text"
[[text.rules]]
written = "rot13"
[[not_sms]]
name = "A"
[parts]
reference = "r"
[time]
formats = ["soon"]
zone = "Mars/Olympus"
[authentication]
scheme = "trust"
[answers.success]
status = 500
[answers.500]
status = 404
[answers.418]
body = "teapot"
"""
        found = problems_of(text)
        for start in (
            'x.toml: name: "y" is not allowed',
            "x.toml: description: is a whole number; allowed: a string",
            "x.toml: colour: unknown key; allowed: answers, authentication",
            "x.toml: methods: allowed: a list of GET, POST, PUT, HEAD",
            "x.toml: request.body: allowed: a list of form, multipart, json, xml, raw",
            'x.toml: request.separator: "|" is not allowed; allowed: "&", ";"',
            'x.toml: request.charset: "klingon" is not known',
            'x.toml: request.batch: "a[[b" is no path at character 2',
            "x.toml: request.document.field: is missing",
            "x.toml: fields.receiver: allowed: either path or constant",
            "x.toml: fields.sender: is neither string nor table",
            "x.toml: fields.text: must not have [*]",
            "x.toml: fields.tset: unknown key",
            'x.toml: text.rules[0].written: "rot13" is not allowed',
            "x.toml: not_sms[0].name: allowed: small letters",
            "x.toml: not_sms[0].when: is missing",
            "x.toml: parts: reference, number and total belong together",
            'x.toml: time.formats: "soon" is not allowed',
            'x.toml: time.zone: "Mars/Olympus" is no time zone',
            "x.toml: authentication: there is no scheme trust",
            "x.toml: answers.success.status: allowed: 200 to 299",
            "x.toml: answers.500.status: allowed: 500 to 599",
            "x.toml: answers.418: is no status of ours",
        ):
            self.assertTrue(any(line.startswith(start) for line in found), f"{start}\nnot in {found}")

    def test_what_a_scheme_or_handshake_does_not_know_is_refused(self) -> None:
        for text in (
            '[authentication]\nscheme = "token"\nparam = "x"\n',
            '[authentication]\nscheme = "token"\nparameter = 5\n',
            '[handshake]\nname = "wave"\n',
            '[handshake]\nname = "echo_header"\nhaeder = "x"\n',
        ):
            self.assertEqual(len(problems_of(GOOD + text)), 1, text)

    def test_what_is_no_toml_is_one_line(self) -> None:
        self.assertEqual(len(problems_of("name = x")), 1)
        self.assertEqual(len(problems_of("a = " + "[" * 5000)), 1)

    def test_a_profile_without_a_text_is_refused_unless_it_may_be_missing(self) -> None:
        text = GOOD.replace('text = "text"\n', "")
        self.assertEqual(len(problems_of(text)), 1)
        self.assertEqual(problems_of(text + "[text]\nmay_be_missing = true\n"), [])

    def test_what_would_load_and_never_read_a_request_right_is_refused(self) -> None:
        xml, both = '[request]\nbody = ["xml"]\n', '[request]\nbody = ["json", "xml"]\n'
        json, get = '[request]\nbody = ["json"]\n', 'methods = ["GET"]\n[request]\n'
        inner = '[request]\ndocument = { field = "x", format = "%s" }\nbatch = "a"\n'
        for more, problem in (
            ('[request]\ncharset = "gsm0338"\n', 'request.charset: "gsm0338" is not known, which texts can'),
            ('[request]\ncharset = "binary"\n', 'request.charset: "binary" is not known, which texts can'),
            (f'{json}batch = "a[*].b"\n', "request.batch: must not have [*]"),
            (f'{both}batch = "a[*]"\n', "request.batch: must not have [*]"),
            (f'{xml}batch = "$"\n', "request.batch: leads to no list"),
            (f'{xml}batch = "a[0]"\n', "request.batch: leads to no list"),
            (f'{json}batch = "a@b"\n', "request.batch: leads to no list"),
            (f'{json}batch = "a[b=c]"\n', "request.batch: leads to no list"),
            (inner % "form", "request.batch: only with"),
            (f'{get}body = ["json"]\n', "request.body: is not read of GET"),
            (
                f'{get}body = ["form"]\ncontent_types = {{ "a/b" = "xml" }}\n',
                "request.body: is not read of GET",
            ),
            ('[time]\nfield = "t"\nformats = ["%Q"]\n', 'time.formats: "%Q" is not allowed'),
            ('[time]\nfield = "t"\nformats = ["%d %d"]\n', 'time.formats: "%d %d" is not allowed'),
            ('[time]\nfield = "t"\nformats = ["%H:%"]\n', 'time.formats: "%H:%" is not allowed'),
            ('[answers.success.headers]\n"X\\nY" = "a"\n', 'answers.success.headers: "X\\nY" is no name'),
            ('[answers.success.headers]\nX = "a\\nb"\n', "answers.success.headers.X: must be of printable"),
            ('[is_sms]\nwhen = { "header:X\\nY" = true }\n', "is_sms.when.header:X"),
        ):
            text = GOOD.replace("[fields]", f"{more}[fields]")
            found = problems_of(text)
            self.assertEqual(len(found), 1, more)
            self.assertTrue(found[0].startswith(f"x.toml: {problem}"), found)
        for more in (
            f'{both}batch = "$"\n',
            f'{json}batch = "$"\n',
            inner % "xml",
            f'{get}body = ["form"]\n',
        ):
            text = GOOD.replace("[fields]", f"{more}[fields]")
            self.assertEqual(problems_of(text), [], more)

    def test_selectors_that_lead_nowhere_are_refused(self) -> None:
        for text in ("", "a..b", "a[", "a[x", ".a", "header:", "a.", "a" * 201, "//", ".".join("a" * 17)):
            with self.assertRaises(ValueError, msg=text):
                selector(text)


class CatalogueTests(UnitTest):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.toml").write_text(text)

    def problems(self) -> list[str]:
        with self.assertRaises(ConfigurationError) as caught:
            catalogue.load(self.folder)
        return list(caught.exception.problems)

    def test_the_shipped_ones_are_sound_and_say_how_to_set_them_up(self) -> None:
        for name, loaded in catalogue.load(None).items():
            about = loaded.profile.about
            self.assertTrue(about.setup.strip() and about.repeats.strip() and about.sources, name)
            self.assertIn(f"/SMSReceiver/{name}", about.setup)

    def test_own_ones_come_besides(self) -> None:
        self.write("x", GOOD)
        self.write(".hidden", "x")
        (self.folder / "notes.txt").write_text("x")
        self.assertIn("x", catalogue.load(self.folder))
        self.assertIn("twilio", catalogue.load(self.folder))

    def test_a_shipped_name_needs_to_be_replaced_on_purpose(self) -> None:
        self.write("twilio", GOOD.replace('"x"', '"twilio"'))
        self.assertIn("replaces = true", self.problems()[0])
        self.write("twilio", "replaces = true\n" + GOOD.replace('"x"', '"twilio"'))
        self.assertFalse(catalogue.load(self.folder)["twilio"].signs)

    def test_problems_of_all_files_are_told_and_a_folder_must_be_there(self) -> None:
        self.write("a", "x = 1")
        self.write("b", "name =")
        self.assertEqual({line.partition(": ")[0][-6:] for line in self.problems()}, {"a.toml", "b.toml"})
        self.folder /= "none"
        self.assertIn("receiver.profiles", self.problems()[0])
