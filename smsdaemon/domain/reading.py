"""What a provider's request turns out to be, and what the provider is to hear; see providers/reader.py."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from smsdaemon.domain.model import Submission

GENERIC = "generic"
"""The profile of ``/SMSReceiver`` itself."""
MAX_ENTRIES = 1000
"""SMS that one request may bring."""

ReadingKind = Literal["messages", "not_an_sms", "handshake"]


@frozen(kw_only=True)
class ProviderAnswer:
    """A whole response, as a provider wants it."""

    status: int
    content_type: str
    body: bytes = field(default=b"", repr=False)
    headers: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class Step:
    """One step of reading a request, for people (`smsdaemon provider try`)."""

    what: str
    found: str = field(repr=False)
    """May hold the text and numbers of the SMS."""


@frozen(kw_only=True)
class Reading:
    """A request as its profile reads it; nothing is believed or attributed yet."""

    kind: ReadingKind
    submissions: tuple[Submission, ...] = ()
    """Of kind ``messages``: at least one, several for a batch."""
    name: str = ""
    """What it is if it is no SMS: status report, probe; the handshake's name."""
    ignored: tuple[str, ...] = ()
    """The names of what came along in a batch and is no SMS."""
    answer: ProviderAnswer | None = field(default=None, repr=False)
    """Of what is no SMS: what the provider wants to hear."""
    steps: tuple[Step, ...] = field(default=(), repr=False)
    """Only if they were asked for."""
