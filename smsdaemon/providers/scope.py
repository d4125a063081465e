"""What a profile's selectors can see: an entry, the whole request around it, headers and query."""

from __future__ import annotations

from attrs import frozen

from smsdaemon.domain.model import WireRequest
from smsdaemon.domain.text import storable
from smsdaemon.providers.documents import Document
from smsdaemon.providers.fields import Value, Values
from smsdaemon.providers.profile import Alternatives, Condition
from smsdaemon.providers.selectors import Selector
from smsdaemon.providers.text_rules import decoded


@frozen(kw_only=True)
class Scope:
    """One SMS as it stands in a request."""

    request: WireRequest
    query: Values
    whole: Document
    entry: Document
    """The same where there is no batch."""
    charset: str | None

    def value(self, wanted: Selector) -> Value | None:
        """The value; None where there is none."""
        place = wanted.place
        if place == "entry":
            return self.entry.value(wanted)
        if place == "request":
            return self.whole.value(wanted)
        if place == "query":
            values = self.query.get(wanted.wire)
            return values[-1] if values else None
        if place == "body":
            return decoded(self.request.body, self.charset)
        headers = self.request.headers.get(wanted.name)
        return (
            (storable(headers[0]), "iso-8859-1", headers[0].encode("latin-1", "replace")) if headers else None
        )

    def every_value(self, wanted: Selector) -> list[Value]:
        """All that ``[*]`` means."""
        return (self.whole if wanted.place == "request" else self.entry).every_value(wanted)

    def text(self, wanted: Selector) -> str:
        """The value's text, "" where there is none."""
        value = self.value(wanted)
        return "" if value is None else value[0]

    def query_text(self, wanted: Selector) -> str | None:
        """A field of the URL that is not blank, stripped."""
        values = self.query.get(wanted.wire)
        return (values[-1][0].strip() or None) if values else None

    def all_hold(self, conditions: tuple[Condition, ...]) -> bool:
        """Whether all conditions are fulfilled."""
        for wanted, expected in conditions:
            text = self.text(wanted)
            if (
                (text not in expected)
                if isinstance(expected, frozenset)
                else (bool(text.strip()) != expected)
            ):
                return False
        return True

    def first_not_blank(self, alternatives: Alternatives) -> str | None:
        """The first that has more than blanks in it, as it came."""
        for alternative in alternatives:
            if alternative.when and not self.all_hold(alternative.when):
                continue
            if alternative.selector is None:
                return alternative.constant
            value = self.value(alternative.selector)
            if value is not None and value[0].strip():
                return value[0]
        return None

    def first_not_empty(self, alternatives: Alternatives) -> Value | None:
        """The first of at least one character, else the first that is there."""
        empty = None
        for alternative in alternatives:
            if alternative.when and not self.all_hold(alternative.when):
                continue
            if alternative.selector is None:
                return (alternative.constant or "", "utf-8", None)
            value = self.value(alternative.selector)
            if value is not None:
                if value[0]:
                    return value
                empty = empty or value
        return empty

    def place_of(self, alternatives: Alternatives) -> str:
        """Which of them it was, as the profile writes it."""
        for alternative in alternatives:
            if self.all_hold(alternative.when):
                if alternative.selector is None:
                    return "constant"
                if self.text(alternative.selector):
                    return alternative.selector.text
        return ""
