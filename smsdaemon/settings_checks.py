"""Checks what spans several keys or depends on this machine: endpoints, certificates, the state folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from datetime import datetime
from pathlib import Path
from typing import Any

from smsdaemon.certificates import read_chain, read_pair, validity_problem
from smsdaemon.errors import ConfigurationError
from smsdaemon.settings_endpoints import Socket, socket_of

Problem = tuple[str, str]
"""Key, and what is wrong with its value."""

LISTENERS = ("http", "https", "admin")


def problems(sound: Mapping[str, Any], tables: Set[str], serving: bool, now: datetime) -> Iterator[Problem]:
    """What is wrong with values each of which is in order by itself.

    ``sound``: by key, without those that are wrong already. ``tables``: those that are there.
    ``serving``: also look into files and folders that only a daemon needs. ``now`` is aware.
    """
    if not tables & {"http", "https"}:
        yield "http, https", "both tables are missing; allowed: one of them or both"
    yield from _endpoint_problems(sound, serving)
    yield from _certificate_problems(sound, serving, now)
    if serving and "state_dir" in sound:
        yield from _folder_problems(sound["state_dir"])


def _certificate_problems(sound: Mapping[str, Any], serving: bool, now: datetime) -> Iterator[Problem]:
    if not {"https.certificate", "https.key"} <= sound.keys():
        return
    certificate, key = sound["https.certificate"], sound["https.key"]
    for name, given, other in (("certificate", certificate, "key"), ("key", key, "certificate")):
        if given is None and (certificate or key):
            yield (
                f"https.{name}",
                f"is missing beside https.{other}; allowed: both, or neither for a self-signed one",
            )
    if not (serving and certificate and key):
        return
    try:
        read_pair(certificate, key)
    except ConfigurationError as error:
        for problem in error.problems:
            # The file at fault stands first in the line.
            yield ("https.key" if problem.startswith(f"{key} ") else "https.certificate"), problem
    try:
        invalid = validity_problem(read_chain(certificate)[0], now)
    except ConfigurationError:
        return  # read_pair has said it
    if invalid:
        yield "https.certificate", f"{certificate} {invalid}"


def _folder_problems(folder: Path) -> Iterator[Problem]:
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        yield "state_dir", f"{existing} is not a folder; allowed: the path of a folder"
    elif not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        yield (
            "state_dir",
            f"{existing} cannot be written to; allowed: a folder that this user can write or make",
        )


# --- endpoints ---------------------------------------------------------------------------------


def _endpoint_problems(sound: Mapping[str, Any], serving: bool) -> Iterator[Problem]:
    taken: list[tuple[str, str, Socket]] = []
    for key in (f"{listener}.listen" for listener in LISTENERS):
        for endpoint in sound.get(key, ()):
            refusal = _refusal(key, endpoint, serving)
            if refusal:
                yield key, f'"{endpoint}" {refusal}'
                continue
            place = socket_of(endpoint, serving=serving)
            for other_key, other, other_place in taken:
                if place.overlaps(other_place):
                    yield (
                        key,
                        f'"{endpoint}" is taken by "{other}" of {other_key}; allowed: a place of its own',
                    )
            taken.append((key, endpoint, place))


def _refusal(key: str, endpoint: str, serving: bool) -> str | None:
    """Why the endpoint cannot be a listener's, or None."""
    kind = endpoint.partition(":")[0].lower()
    if kind in ("ssl", "tls"):
        return "brings its own TLS; allowed: a tcp: endpoint in [https], with certificate and key beside it"
    if kind == "stdio":
        return "is no place to listen; allowed: tcp: or unix: endpoints"
    if key == "https.listen" and kind not in ("tcp", "tcp6", "systemd"):
        return "is not a tcp: endpoint; allowed: tcp: endpoints, as in tcp:8443"
    try:
        place = socket_of(endpoint, serving=serving)
    except ValueError as error:
        return (
            f"is not an endpoint that Twisted can read: {error}; allowed: as in tcp:8080:interface=127.0.0.1"
        )
    if key == "admin.listen" and not place.is_private():
        return (
            "can be reached from other machines; "
            "allowed: loopback, as in tcp:8081:interface=127.0.0.1, or unix:"
        )
    return None
