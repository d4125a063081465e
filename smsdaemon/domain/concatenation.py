"""Concatenated SMS: which parts belong together, which are repeats, and what they say when joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import groupby
from uuid import UUID

from attrs import evolve, frozen

from smsdaemon.domain.model import InboundSMS, Part
from smsdaemon.domain.text import charset_label, decode, storable, worth_keeping

_MOST_PARTS = 255
_UTF_8, _FALLBACK = "utf-8", "windows-1252"
"""What domain.text.decode() reports where nobody has named a charset."""
_MARKED = frozenset({"utf-16", "utf-32"})
"""Charsets in which each part may begin with a byte order mark of its own."""


def sound(part: Part | None) -> Part | None:
    """The part if it can be one of an SMS; None for one that stands alone, whatever its provider says."""
    if part is None or not 2 <= part.total <= _MOST_PARTS or not 1 <= part.number <= part.total:
        return None
    return evolve(part, reference=storable(part.reference))


def part_of(sms: InboundSMS) -> Part:
    """Its part; only for what is one."""
    if sms.part is None:
        raise ValueError("not a part of a concatenated SMS")
    return sms.part


def key_of(sms: InboundSMS) -> bytes:
    """16 bytes that the parts of one SMS have in common; a reference may come again for another SMS."""
    part = part_of(sms)
    return _digest(str(sms.connector_id), sms.sender, sms.receiver, part.reference, str(part.total))


def digest_of(sms: InboundSMS) -> bytes:
    """16 bytes that two parts have in common exactly if one can be a repeat of the other."""
    content = sms.text.encode() if sms.raw_text is None else sms.raw_text
    return _digest(key_of(sms), str(part_of(sms).number), sms.encoding, content)


def _digest(*values: str | bytes) -> bytes:
    digest = blake2b(digest_size=16)
    for value in values:
        raw = value.encode() if isinstance(value, str) else value
        digest.update(b"%d " % len(raw) + raw)
    return digest.digest()


# --- what is there already --------------------------------------------------------------------


@frozen(kw_only=True)
class Concatenation:
    """A concatenated SMS that waits for its parts."""

    id: UUID
    """That of the part which came first; every part hears it, and the joined SMS has it."""
    parts: Mapping[int, InboundSMS]
    """By number; never empty."""

    @property
    def total(self) -> int:
        return part_of(self.first).total

    @property
    def first(self) -> InboundSMS:
        """Of those that are there, the one with the lowest number."""
        return self.parts[min(self.parts)]

    @property
    def missing(self) -> tuple[int, ...]:
        return missing(self.parts, self.total)

    def has(self, sms: InboundSMS) -> bool:
        """Whether a part of this number has come."""
        return part_of(sms).number in self.parts

    def with_part(self, sms: InboundSMS) -> Concatenation:
        return evolve(self, parts={**self.parts, part_of(sms).number: sms})


def begun(sms: InboundSMS) -> Concatenation:
    return Concatenation(id=sms.id, parts={part_of(sms).number: sms})


def missing(numbers: Iterable[int], total: int) -> tuple[int, ...]:
    """The numbers of the parts that have not come."""
    there = set(numbers)
    return tuple(number for number in range(1, total + 1) if number not in there)


@frozen(kw_only=True)
class PastPart:
    """A part of an SMS that was joined or given up, with the same digest as one that comes now."""

    id: UUID
    """Of the request that brought it."""
    concatenation_id: UUID
    provider_message_id: str | None
    recent: bool
    """It ended a short while ago, so that the same without an id of the provider's is a repeat."""


def repeated(sms: InboundSMS, waiting: Concatenation | None, past: Sequence[PastPart]) -> UUID | None:
    """The concatenation that has this part already; None: it is new.

    References come again: the same content under another id of the provider's is a repeat only of what
    waits, and where it is missing from that, it is rather a part of it than a repeat of what has ended.
    """
    named = sms.provider_message_id is not None
    for other in past:
        if other.id == sms.id or (named and sms.provider_message_id == other.provider_message_id):
            return other.concatenation_id
    if waiting is not None:
        same = waiting.parts.get(part_of(sms).number)
        return waiting.id if same is not None and digest_of(same) == digest_of(sms) else None
    unnamed = (other for other in past if not (named and other.provider_message_id is not None))
    return next((other.concatenation_id for other in unnamed if other.recent), None)


# --- joining ----------------------------------------------------------------------------------


def joined(whole: Concatenation, last: InboundSMS | None = None) -> InboundSMS:
    """The SMS that the parts make, also where some are missing.

    It is of the time when the first of them came, as its id is, and goes where the ``last`` of them would
    go; None: the one that came last by its time.
    """
    parts = [whole.parts[number] for number in sorted(whole.parts)]
    last = last or max(parts, key=lambda part: part.received_at)
    text, encoding, raw_text = _content(parts)
    return evolve(
        whole.first,
        id=whole.id,
        received_at=next(part.received_at for part in parts if part.id == whole.id),
        client_id=last.client_id,
        target_id=last.target_id,
        text=text,
        encoding=encoding,
        raw_text=raw_text,
        part=None,
        parts=whole.total,
        parts_missing=whole.missing,
    )


def _content(parts: Sequence[InboundSMS]) -> tuple[str, str, bytes | None]:
    """Text, encoding and raw bytes of these parts, which are in order.

    Bytes are joined before they are decoded, as a character may be split between two parts; where some
    part's bytes are not known, or not of the same charset, there are only texts to join. What no charset
    of ours decodes (binary, GSM 03.38) has its text from its provider's profile, and keeps its bytes.
    """
    raw = [_bytes_of(part) for part in parts]
    known = [value for value in raw if value is not None]
    encoding = _encoding(parts, known) if len(known) == len(parts) else None
    if encoding is None:
        text, label = "".join(part.text for part in parts), _one({part.encoding for part in parts})
        whole = len(known) == len(parts) and label is not None and charset_label(label) is None
        return text, parts[0].encoding, worth_keeping(b"".join(known), text) if whole else None
    by_number = {part_of(part).number: value for part, value in zip(parts, known, strict=True)}
    text = "".join(decode(run, encoding)[0] for run in _runs(by_number))
    return text, encoding, worth_keeping(b"".join(known), text)


def _runs(by_number: Mapping[int, bytes]) -> Iterator[bytes]:
    """The bytes of parts that follow each other: over a gap, two halves do not make a character."""
    numbers = sorted(by_number)
    for _, run in groupby(enumerate(numbers), key=lambda item: item[1] - item[0]):
        yield b"".join(by_number[number] for _, number in run)


def _bytes_of(part: InboundSMS) -> bytes | None:
    """The part's text as it came; None where that is not known."""
    if part.raw_text is not None:
        return part.raw_text
    # What is ASCII in bytes and in text is not kept (domain.text.worth_keeping).
    if not part.text.isascii():
        return None
    raw = part.text.encode("ascii")
    if charset_label(part.encoding) is None:
        return raw
    return raw if decode(raw, part.encoding)[0] == part.text else None


def _encoding(parts: Sequence[InboundSMS], raw: Sequence[bytes]) -> str | None:
    """The charset of all these bytes; None where they cannot be joined."""
    labels = {part.encoding for part in parts}
    if _FALLBACK in labels <= {_UTF_8, _FALLBACK}:
        # A part that ends within a character is no UTF-8, and so counts as windows-1252 where nobody has
        # named a charset. One that would be UTF-8 by itself was named so.
        guessed = [value for part, value in zip(parts, raw, strict=True) if part.encoding == _FALLBACK]
        by_number = {part_of(part).number: value for part, value in zip(parts, raw, strict=True)}
        if not any(map(_is_utf_8, guessed)) and all(map(_is_utf_8, _runs(by_number))):
            return _UTF_8
    label = _one(labels)
    if label in _MARKED and any(map(_has_mark, raw[1:])):
        return None
    return label if label is not None and charset_label(label) is not None else None


def _one(labels: set[str]) -> str | None:
    return next(iter(labels)) if len(labels) == 1 else None


def _is_utf_8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_mark(raw: bytes) -> bool:
    return raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff"))
