"""From a peer's bytes to text that PostgreSQL can hold (contract 3)."""

from __future__ import annotations

import re
from encodings.aliases import aliases

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_IN_NAMES = re.compile("[^a-z0-9]+")

# Python's codec name -> the name that we report, by which the same bytes mean the same again. What is
# missing here is no text encoding (idna, hex, unicode_escape), switches by escape sequences (iso-2022-*,
# hz) or hides text in ASCII (utf-7): a peer that names one of those is treated as if it had named none.
_LABELS = {
    "utf-8": "utf-8",
    "utf-16": "utf-16",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "utf-32": "utf-32",
    "utf-32-le": "utf-32le",
    "utf-32-be": "utf-32be",
    "ascii": "us-ascii",
    **{f"iso8859-{part}": f"iso-8859-{part}" for part in (*range(1, 12), *range(13, 17))},
    **{f"cp{page}": f"windows-{page}" for page in range(1250, 1259)},
    **{f"cp{page}": f"ibm{page}" for page in (437, 850, 852, 855, 858, 866)},
    "cp874": "windows-874",
    "cp932": "windows-31j",
    "cp949": "windows-949",
    "cp950": "windows-950",
    "koi8-r": "koi8-r",
    "koi8-u": "koi8-u",
    "big5": "big5",
    "big5hkscs": "big5-hkscs",
    "gb2312": "gb2312",
    "gbk": "gbk",
    "gb18030": "gb18030",
    "shift_jis": "shift_jis",
    "euc_jp": "euc-jp",
    "euc_kr": "euc-kr",
    "tis-620": "tis-620",
    "mac-roman": "macintosh",
}


def _plain_name(charset: str) -> str:
    return _NOT_IN_NAMES.sub("_", charset.strip(" \t'\"").lower())


def _charsets() -> dict[str, tuple[str, str]]:
    """Every name of the charsets above -> Python's codec and our label."""
    names = {_plain_name(label): codec for codec, label in _LABELS.items()}
    names |= {_plain_name(codec): codec for codec in _LABELS}
    modules = {aliases.get(name, name): codec for name, codec in names.items()}
    names |= modules | {alias: modules[module] for alias, module in aliases.items() if module in modules}
    return {name: (codec, _LABELS[codec]) for name, codec in names.items()}


# A table of our own, because codecs.lookup() keeps every name that it does not know for ever, and looks
# for a module of that name each time: nothing to let a peer choose.
_CHARSETS = _charsets()


def storable(text: str) -> str:
    """The text with NUL and lone surrogates, which PostgreSQL cannot hold, as U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text)
    return text


def decode(raw: bytes, charset: str | None) -> tuple[str, str]:
    """Storable text, and the lower-case name of the charset it was decoded with.

    ``charset`` as a peer named it; None, unknown or no text encoding: UTF-8, or windows-1252 where
    the bytes are not UTF-8. Bytes that mean nothing become U+FFFD; this never fails.
    """
    if charset is not None and (known := _known_charset(charset)):
        codec, label = known
        return storable(raw.decode(codec, "replace")), label
    try:
        return storable(raw.decode()), "utf-8"
    except UnicodeDecodeError:
        return storable(raw.decode("cp1252", "replace")), "windows-1252"


def decode_reversibly(raw: bytes, charset: str | None) -> tuple[str, str]:
    """As decode(), for what is taken apart afterwards; the result is not storable yet.

    A byte that means nothing becomes a lone surrogate (PEP 383), of which bytes_again() makes that
    byte, so that nothing is lost where a peer names the wrong charset.
    """
    known = None if charset is None else _known_charset(charset)
    if known is None:
        try:
            return raw.decode(), "utf-8"
        except UnicodeDecodeError:
            known = ("cp1252", "windows-1252")
    codec, label = known
    try:
        return raw.decode(codec, "surrogateescape"), label
    except UnicodeDecodeError:  # there is no such way back in units of 2 or 4 bytes
        return raw.decode(codec, "replace"), label


def bytes_again(text: str, label: str) -> bytes | None:
    """The bytes that decode_reversibly() makes this text of, by the charset it has reported.

    None where there are none: a JSON string can name characters that its body's charset lacks.
    """
    codec, _ = _CHARSETS[_plain_name(label)]
    try:
        raw = text.encode(codec, "surrogateescape")
        return raw if raw.decode(codec, "surrogateescape") == text else None
    except UnicodeError:
        return None


def worth_keeping(raw: bytes | None, text: str) -> bytes | None:
    """The bytes of a text, where decoding them again could give something else; else None."""
    if raw is None or (text.isascii() and raw == text.encode("ascii")):
        return None
    return raw


def charset_label(charset: str) -> str | None:
    """Our name of a charset that goes by any of its names; None for an unknown one."""
    known = _known_charset(charset)
    return None if known is None else known[1]


def charset_labels() -> list[str]:
    """Our names of all charsets that are known, sorted."""
    return sorted(_LABELS.values())


def _known_charset(charset: str) -> tuple[str, str] | None:
    """Python's codec and our label for a charset by any of its names."""
    return _CHARSETS.get(_plain_name(charset))
