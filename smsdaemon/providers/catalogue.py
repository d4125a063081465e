"""All profiles of an installation: those shipped, and those of ``[receiver] profiles``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from smsdaemon.errors import ConfigurationError
from smsdaemon.providers.loaded import LoadedProfile
from smsdaemon.providers.profile import Profile
from smsdaemon.providers.profile_file import parse

MAX_BYTES = 1 << 20
_SUFFIX = ".toml"


def load(folder: Path | None) -> Mapping[str, LoadedProfile]:
    """By name, in the order of names. Raises ConfigurationError with every problem of every file."""
    problems: list[str] = []
    shipped = {profile.name: profile for profile in _profiles(_shipped(), problems)}
    own = {} if folder is None else {p.name: p for p in _profiles(_own(folder, problems), problems)}
    problems += [
        f'{profile.origin}: name: "{name}" is the name of a profile that is shipped; allowed: another one,'
        " or replaces = true beside it"
        for name, profile in own.items()
        if name in shipped and not profile.replaces
    ]
    if problems:
        raise ConfigurationError(problems)
    loaded: dict[str, LoadedProfile] = {}
    for name, profile in sorted((shipped | own).items()):
        loaded[name] = LoadedProfile(profile, loaded)
    return loaded


def _profiles(found: Iterator[tuple[str, str, bytes]], problems: list[str]) -> Iterator[Profile]:
    for name, file, content in found:
        try:
            yield parse(content, name, file)
        except ConfigurationError as error:
            problems += error.problems


def _shipped() -> Iterator[tuple[str, str, bytes]]:
    """Name, file as messages call it, content."""
    folder = files("smsdaemon.providers").joinpath("profiles")
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(_SUFFIX):
            yield entry.name.removesuffix(_SUFFIX), f"profiles/{entry.name}", entry.read_bytes()


def _own(folder: Path, problems: list[str]) -> Iterator[tuple[str, str, bytes]]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        problems.append(f"receiver.profiles: {folder} cannot be read: {error.strerror}")
        return
    for entry in entries:
        if entry.suffix != _SUFFIX or entry.name.startswith("."):
            continue
        try:
            content = entry.read_bytes() if entry.stat().st_size <= MAX_BYTES else None
        except OSError as error:
            problems.append(f"{entry}: cannot be read: {error.strerror}; allowed: a readable TOML file")
            continue
        if content is None:
            problems.append(f"{entry}: is larger than {MAX_BYTES} bytes")
        else:
            yield entry.stem, str(entry), content
