"""Where Amazon SNS may be called: what its requests point at is believed no further."""

from __future__ import annotations

import re

from attrs import frozen

_ARN = re.compile(
    r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z]{2}(?:-[a-z]{2,10}){1,3}-\d{1,2}):(\d{12}):([\w.-]{1,256})"
)
_HOST = re.compile(r"sns\.[a-z]{2}(?:-[a-z]{2,10}){1,3}-\d{1,2}\.amazonaws\.com(?:\.cn)?")
_CERTIFICATE_PATH = re.compile(r"/[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.pem")
_URL_CHARACTERS = re.compile(r"[\x21-\x7e]{1,2048}")


@frozen
class Topic:
    """What a topic's ARN says."""

    arn: str
    host: str
    """SNS in the topic's region."""


def topic(arn: str) -> Topic | None:
    """None for what is no ARN of a topic."""
    found = _ARN.fullmatch(arn)
    if found is None or not arn.isascii():
        return None
    domain = "amazonaws.com.cn" if found[1] == "aws-cn" else "amazonaws.com"
    return Topic(arn, f"sns.{found[2]}.{domain}")


def is_sns_host(host: str) -> bool:
    """Whether it is the name of SNS in some region."""
    return _HOST.fullmatch(host) is not None


def is_certificate_url(url: str, host: str) -> bool:
    """Whether it is a PEM file on this host, by https, and nothing else is in it."""
    path = _behind_host(url, host)
    return path is not None and _CERTIFICATE_PATH.fullmatch(path) is not None


def is_confirmation_url(url: str, host: str) -> bool:
    """Whether it confirms a subscription on this host, by https."""
    path = _behind_host(url, host)
    return (
        path is not None
        and path.startswith("/?")
        and "#" not in path
        and "Action=ConfirmSubscription" in path
    )


def _behind_host(url: str, host: str) -> str | None:
    # Compared as text from the start: no parser's idea of users, ports or backslashes comes into it.
    origin = f"https://{host}"
    if not _URL_CHARACTERS.fullmatch(url) or "\\" in url or not url.startswith(f"{origin}/"):
        return None
    return url[len(origin) :]
