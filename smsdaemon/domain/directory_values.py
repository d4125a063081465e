"""What one value of the directory file may be; each check returns what is kept of it.

A check raises ValueError with the rest of a sentence that begins with the key. The text never
quotes a value that may hold a secret: tokens, secrets, and URLs, which may carry credentials.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from base64 import b64decode
from collections.abc import Collection
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import inet_aton
from urllib.parse import urlsplit

from smsdaemon.domain.hosts import HOST_RULE, is_host
from smsdaemon.domain.model import SenderFormat

MAX_NAME = 255
MAX_NUMBER = 64
"""As many characters as a request may have in `receiver` (contract 3)."""
MAX_SECRETS = 20
MAX_SECRET = 4096
"""Of a provider; certificates and keys in PEM have their place in it."""
SECRET_PREFIX = "whsec_"
HASH_PREFIX = "sha256:"
PLACEHOLDERS = ("sender", "receiver", "keyword")

_HASH = re.compile(re.escape(HASH_PREFIX) + "([0-9a-fA-F]{64})")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_LINE_ENDS = "\u2028\u2029"


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def string(value: object) -> str:
    """Any text that PostgreSQL can hold."""
    if not isinstance(value, str):
        raise ValueError("must be a string")
    if "\0" in value:
        raise ValueError("must not contain the character U+0000")
    return value


def _one_line(value: object) -> str:
    """Names and numbers are printed one a line, so they may not end one."""
    text = string(value)
    if not text.isprintable() and any(unicodedata.category(c) == "Cc" or c in _LINE_ENDS for c in text):
        raise ValueError("must not contain control characters or line ends")
    return text


def name(value: object) -> str:
    text = _one_line(value)
    if not text.strip():
        raise ValueError("must not be empty")
    if "/" in text:
        raise ValueError('must not contain "/"')
    if len(text) > MAX_NAME:
        raise ValueError(f"must have at most {MAX_NAME} characters")
    return text


def name_or_nothing(value: object) -> str:
    return name(value) if value != "" else ""


def client_path(value: object) -> str:
    """A client as other entries name it: ``reseller/client``."""
    parts = _one_line(value).split("/")
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise ValueError('must be written as "reseller/client"')
    return "/".join(parts)


def number(value: object) -> str:
    text = _one_line(value)
    if len(text) > MAX_NUMBER:
        raise ValueError(f"must have at most {MAX_NUMBER} characters")
    return text


def sender_format(value: object) -> SenderFormat:
    if value not in ("e164", "as-is"):
        raise ValueError('must be "e164" or "as-is"')
    return value


def subject(value: object) -> str:
    """Braces that hold no word are just text."""
    text = string(value)
    unknown = [word for word in _PLACEHOLDER.findall(text) if word not in PLACEHOLDERS]
    if unknown:
        allowed = " ".join(f"{{{word}}}" for word in PLACEHOLDERS)
        raise ValueError(f"has unknown placeholders ({', '.join(unknown)}); allowed are {allowed}")
    return text


def secret(value: object) -> str:
    text = string(value)
    try:
        key = b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    # The range that Standard Webhooks 1.0 gives for a symmetric key.
    if not text.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(f'must be "{SECRET_PREFIX}" and the base64 of 24 to 64 bytes')
    return text


def token_hash(token: str) -> bytes:
    """What is stored of a connector's token."""
    return sha256(token.encode()).digest()


def tokens(value: object) -> frozenset[bytes]:
    """The SHA-256 of each, given as such or as the token itself."""
    if not isinstance(value, list):
        raise ValueError("must be a list of strings")
    return frozenset(_token(token) for token in value)


def _token(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be a list of strings")
    if not value:
        raise ValueError("must not hold an empty token")
    if not value.startswith(HASH_PREFIX):
        return token_hash(value)
    hashed = _HASH.fullmatch(value)
    if hashed is None:
        raise ValueError(f'must have 64 hexadecimal digits after "{HASH_PREFIX}"')
    return bytes.fromhex(hashed[1])


def providers(value: object) -> tuple[str, ...]:
    """One profile or a list of them, without repeats."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("must be the name of a profile, or a list of at least one")
    return tuple(dict.fromkeys(map(_one_line, names)))


def provider_secrets(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(secret, str) for secret in value):
        raise ValueError("must be a list of strings")
    for secret in value:
        string(secret)
        if not secret.strip():
            raise ValueError("must not hold an empty secret")
        if len(secret) > MAX_SECRET:
            raise ValueError(f"must hold secrets of at most {MAX_SECRET} characters")
    if len(value) > MAX_SECRETS:
        raise ValueError(f"must hold at most {MAX_SECRETS} secrets")
    return tuple(dict.fromkeys(value))


def url(value: object, schemes: Collection[str]) -> str:
    """A target's URL, its scheme in lower case, as it names the backend.

    Refuses what would let a directory file reach the machine's own metadata service: link-local
    addresses in any spelling that a resolver takes. Names are looked at when they are called.
    """
    text = string(value)
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("must be ASCII without blanks and backslashes (percent-encode them)")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must begin with one of {', '.join(f'{s}:' for s in sorted(schemes))}")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or password")
    if parts.scheme in ("http", "https") and (not host or port == 0):
        raise ValueError("must name a host, and a port above 0 where it names one")
    if parts.scheme in ("http", "https") and host and not is_host(host):
        raise ValueError(f"must name a host that can be called: {HOST_RULE}")
    if host and _link_local(host):
        raise ValueError("must not be a link-local address")
    return parts.scheme + text[len(parts.scheme) :]


def _link_local(host: str) -> bool:
    address = _literal_address(host.rstrip("."))
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_link_local


def _literal_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(inet_aton(host))  # resolvers also take 2852039166 and 0xa9fea9fe
    except (OSError, ValueError):
        return None


def quoted(text: str) -> str:
    """The text as a TOML basic string, on one line whatever it holds."""
    if text.isprintable():
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
