"""Reads a provider's requests as its profile says (contract 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve

from smsdaemon.domain.forms import pair_count
from smsdaemon.domain.model import Submission, WireRequest
from smsdaemon.domain.reading import ProviderAnswer, Reading, Step
from smsdaemon.domain.text import worth_keeping
from smsdaemon.errors import MalformedRequest, UnsupportedBody
from smsdaemon.providers.answering import rendered
from smsdaemon.providers.content_type import NO_TYPE, ContentType, content_type
from smsdaemon.providers.documents import Document, Pairs, read_json, read_pairs, read_xml, values_of
from smsdaemon.providers.fields import Value, Values, check_count
from smsdaemon.providers.multipart_form import read_multipart
from smsdaemon.providers.part_rules import part_and_count
from smsdaemon.providers.profile import Alternatives, NotAnSms, Profile, TextRule
from smsdaemon.providers.scope import Scope
from smsdaemon.providers.selectors import Selector, selector
from smsdaemon.providers.text_rules import text_of
from smsdaemon.providers.times import time_of

MAX_NUMBER, MAX_ID, MAX_TOKEN = 64, 256, 256
"""Characters, as in contract 3."""
_NOTHING: Values = {}
_QUERY_RECEIVER, _QUERY_TOKEN = selector("query:receiver"), selector("query:token")
_EMPTY: Value = ("", "utf-8", None)


class ProfileReader:
    """One profile, ready to read; whatever a request holds, it costs bounded time and memory."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        request = profile.request
        self._separator = request.separator
        # Most profiles need neither, and then a request need not be looked at for them.
        self._plain = request.batch is None and request.inner is None and not profile.not_sms
        said = profile.answers.success
        self._always = rendered(said, 200, lambda _: "") if said.constant else None
        # Of JSON and XML: what the query says is no SMS then, as no signature of the body covers it.
        self._needs_body = bool(request.formats) and set(request.formats.values()) <= {"json", "xml"}
        scheme = profile.authentication.scheme if profile.authentication else None
        self._reads_query = "always" if scheme is None else scheme.reads_query
        self._body_signed = scheme is not None and (scheme.covers_body or scheme.reads_query != "always")
        self._several = any(a.selector is not None and a.selector.several for a in profile.fields.receiver)

    def read(self, request: WireRequest, trace: list[Step] | None = None) -> Reading:
        """Say what the request says. ``trace`` gets the steps that lead there, also of what is refused.

        A receiver or token that the profile's fields do not give may stand in the URL's query. Raises
        MalformedRequest or UnsupportedBody, whose text names fields and never values.
        """
        if request.method == "HEAD":
            rules = self.profile.answers
            answer = rendered(rules.not_an_sms or rules.success, 200, lambda _: "")
            return Reading(kind="not_an_sms", name="probe", answer=answer)
        scope = self._whole(request, trace)
        found = self._read(scope, trace)
        return found if trace is None else evolve(found, steps=tuple(trace))

    def _read(self, scope: Scope, trace: list[Step] | None) -> Reading:
        if self._plain:
            if not scope.all_hold(self.profile.is_sms):
                return self._not_an_sms([self.profile.otherwise], None, scope, trace)
            return Reading(kind="messages", submissions=tuple(self._submissions(scope, trace)))
        entries = self._entries(scope)
        if entries is None:
            control = self._control(scope)
            if control is None:
                raise MalformedRequest("the list of SMS is missing")
            return self._not_an_sms([control.name], control, scope, trace)
        submissions: list[Submission] = []
        ignored: list[tuple[str, NotAnSms | None, Scope]] = []
        for entry in entries:
            control = self._control(entry)
            if control is not None:
                ignored.append((control.name, control, entry))
            elif not entry.all_hold(self.profile.is_sms):
                ignored.append((self.profile.otherwise, None, entry))
            else:
                submissions += self._submissions(entry, trace)
        names = [name for name, _, _ in ignored]
        if submissions:
            return Reading(kind="messages", submissions=tuple(submissions), ignored=tuple(names))
        if not ignored:
            return self._not_an_sms(["empty batch"], None, scope, trace)
        _, control, entry = next((one for one in ignored if one[1] is not None), ignored[0])
        return self._not_an_sms(names, control, entry, trace)

    def _control(self, scope: Scope) -> NotAnSms | None:
        return next((rule for rule in self.profile.not_sms if scope.all_hold(rule.when)), None)

    def _not_an_sms(
        self, names: list[str], control: NotAnSms | None, scope: Scope, trace: list[Step] | None
    ) -> Reading:
        rules = self.profile.answers
        rule = (control.answer if control else None) or rules.not_an_sms or rules.success
        answer = rendered(rule, 200, scope.text)
        if trace is not None:
            trace.append(Step(what="not an SMS", found=names[0]))
        return Reading(kind="not_an_sms", name=names[0], ignored=tuple(names[1:]), answer=answer)

    def success(self, request: WireRequest, reading: Reading, id: str, duplicate: bool) -> ProviderAnswer:
        """What the provider hears of what was stored, or was before; ``id``: ours, of the first SMS."""
        rules = self.profile.answers
        rule = rules.duplicate if duplicate and rules.duplicate is not None else rules.success
        if self._always is not None and rule is rules.success:
            return self._always
        first = reading.submissions[0]
        names = {
            "id": id,
            "message_id": first.message_id or "",
            "receiver": first.receiver,
            "sender": first.sender.strip(),
        }

        def look(wanted: Selector) -> str:
            named = names.get(wanted.text)
            return named if named is not None else self._whole(request, None).text(wanted)

        return rendered(rule, 200, look)

    def refusal(self, status: int, detail: str) -> ProviderAnswer | None:
        """How an error is said; None where the profile does not mind."""
        rules = self.profile.answers
        rule = rules.by_status.get(status) or rules.errors
        if rule is None:
            return None
        return rendered(rule, status, lambda wanted: detail if wanted.text == "detail" else "", detail)

    # --- taking the request apart ---------------------------------------------------------------

    def _whole(self, request: WireRequest, trace: list[Step] | None) -> Scope:
        declared = content_type(request.content_type) if request.content_type else NO_TYPE
        rules = self.profile.request
        charset = rules.charset or declared.charset
        if rules.charset_from is not None:
            charset = self._named_charset(request, declared) or charset
        query, count = read_pairs(
            request.query,
            self.profile.wanted,
            charset if rules.charset or rules.charset_from or not request.body else None,
            self._separator,
        )
        has_body = bool(request.body) and request.method != "GET"
        kind = rules.formats.get(declared.type) if has_body else None
        if has_body and kind is None and request.body.strip():
            allowed = ", ".join(sorted(filter(None, rules.formats))) or "empty"
            raise UnsupportedBody(f"the body must be {allowed}")
        if kind is None and self._needs_body and request.method != "GET":
            raise MalformedRequest("the body is empty")
        if self._body_signed and request.body and not has_body:
            raise MalformedRequest("a GET has no body")
        document: Document
        if kind == "json" or kind == "xml":
            if self._body_signed:
                # Its type is not: in some charsets a quote or a bracket of its would be none.
                charset = rules.charset
            document = (read_json if kind == "json" else read_xml)(request.body, charset)
        else:
            form, form_count = self._form(kind, request, declared, charset)
            check_count(count + form_count)
            if self._reads_query == "always":
                sources: tuple[Values, ...] = (form, query) if form else (query,)
            else:
                sources = self._covered(request, form, query)
            document = Pairs(sources, last=rules.last_value)
        if trace is not None:
            trace.append(Step(what="body", found=kind or "none"))
            trace.append(Step(what="charset", found=charset or "not named"))
        return Scope(request=request, query=query, whole=document, entry=document, charset=charset)

    def _covered(self, request: WireRequest, form: Values, query: Values) -> tuple[Values, ...]:
        """Form and query, as far as the signature covers them."""
        if request.body:
            return (form,)
        return (query,) if self._reads_query == "without a body" else ()

    def _form(
        self, kind: str | None, request: WireRequest, declared: ContentType, charset: str | None
    ) -> tuple[Values, int]:
        if kind == "form":
            if self._separator != b"&":
                return read_pairs(request.body, self.profile.wanted, charset, self._separator)
            count = pair_count(request.body)
            check_count(count)
            return values_of(request.form, self.profile.wanted, charset), count
        if kind == "multipart":
            # It compares names in lower case.
            wanted = {name.lower() for name in self.profile.wanted}
            values, count = read_multipart(request.body, declared.boundary, wanted, charset)
            return {
                name: values[name.lower()] for name in self.profile.wanted if name.lower() in values
            }, count
        return _NOTHING, 0

    def _named_charset(self, request: WireRequest, declared: ContentType) -> str | None:
        wanted = self.profile.request.charset_from
        assert wanted is not None
        if wanted.place == "header":
            return request.header(wanted.name) or None
        kind = self.profile.request.formats.get(declared.type)
        for raw in (request.body if kind == "form" else b"", request.query):
            values, _ = read_pairs(raw, (wanted.wire,), None, self._separator)
            if found := values.get(wanted.wire):
                return found[-1][0].strip() or None
        return None

    def _entries(self, scope: Scope) -> list[Scope] | None:
        rules = self.profile.request
        document = scope.whole
        if rules.inner is not None:
            inner = scope.value(rules.inner.field)
            if inner is None:
                return None
            document = self._inner_document(inner, scope.charset)
        if rules.batch is None:
            return [evolve(scope, entry=document)]
        entries = document.entries(rules.batch)
        return None if entries is None else [evolve(scope, entry=entry) for entry in entries]

    def _inner_document(self, value: Value, charset: str | None) -> Document:
        assert self.profile.request.inner is not None
        raw = value[2] if value[2] is not None else value[0].encode()
        kind = self.profile.request.inner.format
        if kind == "json":
            return read_json(raw, "utf-8" if value[2] is None else value[1])
        if kind == "xml":
            return read_xml(raw, "utf-8" if value[2] is None else None)
        return Pairs((read_pairs(raw, self.profile.wanted, charset, b"&")[0],), last=False)

    # --- one SMS ---------------------------------------------------------------------------------

    def _submissions(self, scope: Scope, trace: list[Step] | None) -> Iterator[Submission]:
        """One, or one for each of several receivers."""
        fields = self.profile.fields
        text = self._text(scope)
        sender = self._number(scope, fields.sender)
        if sender is None or text is None:
            missing = [name for name, found in (("sender", sender), ("text", text)) if found is None]
            raise MalformedRequest("missing: " + ", ".join(missing))
        content, encoding, raw = text
        part, count = None, 1
        if self.profile.parts:
            part, count = part_and_count(self.profile.parts, scope)
        token = self._bounded(scope, fields.token, "token", MAX_TOKEN) or scope.query_text(_QUERY_TOKEN)
        if token is not None and len(token) > MAX_TOKEN:
            raise MalformedRequest(f"token is longer than {MAX_TOKEN} characters")
        for receiver in self._receivers(scope):
            found = Submission(
                receiver=receiver,
                sender=sender,
                text=content,
                keyword=self._bounded(scope, fields.keyword, "keyword", MAX_NUMBER)
                if fields.keyword
                else None,
                token=token,
                message_id=self._bounded(scope, fields.message_id, "message_id", MAX_ID),
                encoding=encoding,
                raw_text=worth_keeping(raw, content),
                part=part,
                parts=count,
                provider=self.profile.name,
            )
            if trace is not None:
                trace.extend(self._steps(found, scope))
            yield found

    def _receivers(self, scope: Scope) -> Sequence[str]:
        if self._several and (found := self._each_receiver(scope)):
            return found
        receiver = self._number(scope, self.profile.fields.receiver)
        if receiver is None:
            receiver = scope.query_text(_QUERY_RECEIVER)
            if receiver is None:
                raise MalformedRequest("missing: receiver")
            self._check_length(receiver, "receiver", MAX_NUMBER)
        return (receiver.strip(),)

    def _each_receiver(self, scope: Scope) -> list[str]:
        for alternative in self.profile.fields.receiver:
            wanted = alternative.selector
            if wanted is not None and wanted.several and scope.all_hold(alternative.when):
                found = [self._stripped(text).strip() for text, _, _ in scope.every_value(wanted)]
                for receiver in found:
                    self._check_length(receiver, "receiver", MAX_NUMBER)
                return list(dict.fromkeys(filter(None, found)))
        return []

    def _number(self, scope: Scope, alternatives: Alternatives) -> str | None:
        """As it came, without the prefixes."""
        found = scope.first_not_blank(alternatives)
        if found is None:
            return None
        self._check_length(found.strip(), "a number", MAX_NUMBER)
        return self._stripped(found)

    def _stripped(self, number: str) -> str:
        for prefix in self.profile.request.strip_prefixes:
            if number.lstrip().startswith(prefix):
                return number.lstrip()[len(prefix) :]
        return number

    def _bounded(self, scope: Scope, alternatives: Alternatives, name: str, most: int) -> str | None:
        found = scope.first_not_blank(alternatives) if alternatives else None
        if found is None:
            return None
        found = found.strip()
        self._check_length(found, name, most)
        return found

    def _check_length(self, value: str, name: str, most: int) -> None:
        if len(value) > most:
            raise MalformedRequest(f"{name} is longer than {most} characters")

    def _text(self, scope: Scope) -> Value | None:
        rules = self.profile.text
        rule = next((rule for rule in rules.rules if scope.all_hold(rule.when)), None)
        alternatives = self.profile.fields.text
        if rule is not None and rule.alternatives is not None:
            alternatives = rule.alternatives
        value = scope.first_not_empty(alternatives)
        if value is None:
            return _EMPTY if rules.may_be_missing else None
        if rule is not None and value[0]:
            value = text_of(value, rule.wrapping, self._rule_charset(rule, scope))
        if not value[0] and not rules.may_be_empty:
            raise MalformedRequest("the text is empty")
        return value

    def _rule_charset(self, rule: TextRule, scope: Scope) -> str | None:
        if rule.charset_from is not None and (named := scope.text(rule.charset_from).strip()):
            return named
        return rule.charset

    # --- for people ------------------------------------------------------------------------------

    def _steps(self, found: Submission, scope: Scope) -> Iterator[Step]:
        fields = self.profile.fields
        for name, value, alternatives in (
            ("receiver", found.receiver, fields.receiver),
            ("sender", found.sender, fields.sender),
            ("text", found.text, fields.text),
            ("message_id", found.message_id, fields.message_id),
            ("keyword", found.keyword, fields.keyword),
        ):
            if value is not None:
                where = scope.place_of(alternatives)
                yield Step(what=f"{name} ({where})" if where else name, found=value)
        yield Step(what="encoding", found=found.encoding)
        if found.part is not None:
            part = found.part
            yield Step(what="part", found=f"{part.number} of {part.total}, reference {part.reference}")
        if self.profile.time is not None:
            text = scope.first_not_blank(self.profile.time.found) or ""
            at = time_of(text, self.profile.time.formats, self.profile.time.zone)
            yield Step(what="time", found="not read" if at is None else at.isoformat())
