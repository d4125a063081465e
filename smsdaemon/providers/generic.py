"""The wire format of ``/SMSReceiver`` itself (contract 3)."""

from __future__ import annotations

from smsdaemon.domain.model import RawRequest, Submission
from smsdaemon.domain.text import worth_keeping
from smsdaemon.errors import MalformedRequest, UnsupportedBody
from smsdaemon.providers.content_type import NO_TYPE, ContentType, content_type
from smsdaemon.providers.fields import Names, Values, check_count, first_not_blank, first_not_empty
from smsdaemon.providers.form import read_form
from smsdaemon.providers.json_object import read_json
from smsdaemon.providers.multipart_form import read_multipart

RECEIVER = Names("receiver", ("ziel", "system"), max_length=64)
SENDER = Names("sender", ("absender",), max_length=64)
MESSAGE = Names("message", ("data", "smstext"))
KEYWORD = Names("keyword", max_length=64)
TOKEN = Names("token", max_length=256)
MESSAGE_ID = Names("message_id", ("messageid", "msgid"), max_length=256)

_WANTED = frozenset(
    name for names in (RECEIVER, SENDER, MESSAGE, KEYWORD, TOKEN, MESSAGE_ID) for name in names.wire
)


class GenericProvider:
    """Reads fields by name from the body and from the query, in any of four encodings."""

    name = "generic"

    def read(self, raw: RawRequest) -> Submission:
        """Say what the request says.

        The sender is given as it came, with its blanks; receiver, keyword, token and message_id are
        stripped. The body of a GET is not looked at. Raises MalformedRequest or UnsupportedBody,
        whose text names fields and never values.
        """
        body: Values = {}
        count = 0
        declared = content_type(raw.content_type) if raw.content_type else NO_TYPE
        if raw.body and raw.method == "POST":
            body, count = _read_body(raw.body, declared)
        # The charset is that of the body; where there is none, it can only mean the query.
        query, query_count = read_form(raw.query, _WANTED, None if raw.body else declared.charset)
        check_count(count + query_count)
        return self._submission((body, query) if body else (query,))

    def _submission(self, sources: tuple[Values, ...]) -> Submission:
        receiver = first_not_blank(RECEIVER, sources)
        sender = first_not_blank(SENDER, sources)
        message = first_not_empty(MESSAGE, sources)
        if receiver is None or sender is None or message is None:
            found = {RECEIVER: receiver, SENDER: sender, MESSAGE: message}
            raise MalformedRequest("missing: " + ", ".join(str(n) for n, v in found.items() if v is None))
        text, encoding, raw = message
        return Submission(
            receiver=receiver.strip(),
            sender=sender,
            text=text,
            keyword=_stripped(first_not_blank(KEYWORD, sources)),
            token=_stripped(first_not_blank(TOKEN, sources)),
            message_id=_stripped(first_not_blank(MESSAGE_ID, sources)),
            encoding=encoding,
            raw_text=worth_keeping(raw, text),
            provider=self.name,
        )


def _read_body(body: bytes, declared: ContentType) -> tuple[Values, int]:
    if declared.type in ("", "application/x-www-form-urlencoded"):
        return read_form(body, _WANTED, declared.charset)
    if declared.type == "multipart/form-data":
        return read_multipart(body, declared.boundary, _WANTED, declared.charset)
    if declared.type == "application/json":
        return read_json(body, _WANTED, declared.charset)
    raise UnsupportedBody(
        "the body must be application/x-www-form-urlencoded, multipart/form-data or application/json"
    )


def _stripped(value: str | None) -> str | None:
    return None if value is None else value.strip()
