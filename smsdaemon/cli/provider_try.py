"""`smsdaemon provider try`: a recorded request, read step by step, and its signature checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import click
from attrs import field, frozen

from smsdaemon.cli.recorded_request import Recorded, recorded
from smsdaemon.cli.session import (
    Failed,
    Reactor,
    config_option,
    given_outside,
    json_option,
    read_settings,
    run,
)
from smsdaemon.cli.since import read_since
from smsdaemon.domain.model import WireRequest
from smsdaemon.domain.reading import ProviderAnswer, Reading, Step
from smsdaemon.errors import FetchFailed, RequestRefused, SignatureRefused, UnsupportedBody
from smsdaemon.log import printable
from smsdaemon.ports import PreparedScheme
from smsdaemon.providers.catalogue import load
from smsdaemon.providers.field_names import field_names
from smsdaemon.providers.handshaking import recognised
from smsdaemon.providers.https_fetch import HttpsFetch
from smsdaemon.providers.loaded import LoadedProfile
from smsdaemon.settings import Settings

OUR_ID = "00000000-0000-7000-8000-000000000000"
"""In place of the id that an SMS would get."""


class _Moment(click.ParamType[datetime]):
    """The click type of --at."""

    name = "time"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if value.strip().isdecimal():
                return datetime.fromtimestamp(int(value), UTC)
            return read_since(value, datetime.now(UTC))
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is neither seconds since 1970 nor RFC 3339 nor like 2h, 30m", param, ctx)


@frozen(kw_only=True)
class Trial:
    """What the options say."""

    request: Path
    id: str | None
    secret_file: Path | None
    secret_prompt: bool
    url: str
    at: datetime | None
    as_json: bool


@frozen
class _Printer:
    as_json: bool

    def __call__(self, what: str, found: str) -> None:
        if self.as_json:
            print(json.dumps({"step": what, "found": found}))
        else:
            print(f"{what:24}{printable(found)}")


@frozen(kw_only=True)
class _Tried:
    """A request that is being tried."""

    profile: LoadedProfile
    wire: WireRequest
    secrets: Sequence[str] = field(repr=False)
    at: datetime
    say: _Printer


@click.command("try")
@config_option
@click.argument("name")
@click.option(
    "--request",
    "request_file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A raw HTTP request, or a line of JSON; - for standard input.",
)
@click.option("--id", help="Which of several JSON lines.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="provider_secrets, one a line: check the signature with them.",
)
@click.option("--ask-secret", is_flag=True, help="Ask for a secret on the terminal.")
@click.option("--url", default="", help="As the provider has called it, from https:// on.")
@click.option("--at", type=_Moment(), help="When it came: RFC 3339, seconds since 1970, or like 2h ago.")
@json_option
@click.pass_context
def provider_try(
    context: click.Context,
    config: Path | None,
    name: str,
    request_file: Path,
    id: str | None,
    secret_file: Path | None,
    ask_secret: bool,
    url: str,
    at: datetime | None,
    as_json: bool,
) -> None:
    """Read a recorded request as a profile does, step by step; nothing is sent or stored.

    The text and the numbers of the request are shown. Exit status 1 where the request is refused, or its
    signature is wrong. A file is a raw HTTP request as captured: request line, headers, an empty line,
    body; or JSON with method, path_query, headers and body (or body_b64).
    """
    config, as_json = given_outside(context, config, as_json)
    if url and "://" not in url:
        raise click.BadParameter("must begin with https:// or http://", param_hint="--url")
    trial = Trial(
        request=request_file,
        id=id,
        secret_file=secret_file,
        secret_prompt=ask_secret,
        url=url,
        at=at,
        as_json=as_json,
    )

    async def work(reactor: Reactor) -> None:
        settings = read_settings(config)
        if not await _try(named(settings, name), trial, settings.receiver.public_url, reactor):
            raise SystemExit(1)

    run(work)


def named(settings: Settings, name: str) -> LoadedProfile:
    """The profile of that name; raises Failed where there is none."""
    profile = load(settings.receiver.profiles).get(name)
    if profile is None:
        raise Failed(f"there is no profile {printable(name)}; smsdaemon provider list shows those there are")
    return profile


async def _try(profile: LoadedProfile, trial: Trial, public_url: str, reactor: Reactor) -> bool:
    """Whether it would be accepted, as far as can be seen without a directory."""
    say = _Printer(trial.as_json)
    found = recorded(_content(trial.request), trial.id)
    wire = _wire(found, trial, public_url)
    tried = _Tried(
        profile=profile,
        wire=wire,
        secrets=_secrets(trial, found),
        at=trial.at or found.at or datetime.now(UTC),
        say=say,
    )
    if found.remark:
        say("WARNING", found.remark)
    say("request", f"{wire.method} {wire.url}")
    kind = wire.content_type
    say("fields", ", ".join(sorted(field_names(wire.query, kind, wire.body))) or "none")
    readable = _read(tried)
    return await _check_signature(tried, reactor) and readable


def _read(tried: _Tried) -> bool:
    profile, wire, say = tried.profile, tried.wire, tried.say
    if wire.method not in (*profile.methods, "HEAD"):
        say("REFUSED", f"405: the profile takes {', '.join(profile.methods)}")
        return False
    if recognised(profile, wire):
        say("handshake", "it asks whether the URL is meant; the daemon answers, and stores nothing")
        return True
    steps: list[Step] = []
    refusal: RequestRefused | None = None
    reading: Reading | None = None
    try:
        reading = profile.explained(wire, steps)
    except RequestRefused as error:
        refusal = error
    for step in steps:
        say(step.what, step.found)
    if reading is None:
        say("REFUSED", f"{415 if isinstance(refusal, UnsupportedBody) else 400}: {refusal}")
        return False
    for name in reading.ignored:
        say("not an SMS", name)
    if reading.answer is not None:
        say("answer", _answer(reading.answer))
    else:
        say("SMS", str(len(reading.submissions)))
        say("answer", _answer(profile.success(wire, reading, OUR_ID, False)))
    return True


def _answer(answer: ProviderAnswer) -> str:
    body = answer.body.decode("utf-8", "replace")
    return f"{answer.status} {answer.content_type}: {body}" if body else f"{answer.status}, no body"


async def _check_signature(tried: _Tried, reactor: Reactor) -> bool:
    authentication, say = tried.profile.profile.authentication, tried.say
    if authentication is None:
        say("signature", "none: this profile has no scheme")
        return True
    if not tried.secrets:
        say("signature", f"not checked: give {authentication.scheme.takes} with --secret-file")
        return True
    scheme = authentication.scheme
    for place, secret in enumerate(tried.secrets, 1):
        try:
            scheme.check_secret(secret)
        except ValueError as error:
            raise Failed(f"secret no. {place} cannot be used: {error}") from None
    try:
        if isinstance(scheme, PreparedScheme):
            await scheme.prepare(tried.wire, tried.secrets, tried.at, HttpsFetch(reactor=cast(Any, reactor)))
        verified = scheme.verify(tried.wire, tried.secrets, tried.at)
    except (SignatureRefused, FetchFailed) as error:
        say("signature", f"WRONG ({scheme.name}, at {tried.at:%Y-%m-%dT%H:%M:%SZ}): {error}")
        return False
    once = f"; comes once only: {verified.nonce}" if verified.nonce else ""
    say("signature", f"right ({scheme.name}){once}")
    return True


# --- what was given -----------------------------------------------------------------------------


def _content(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from None


def _wire(found: Recorded, trial: Trial, public_url: str) -> WireRequest:
    if not trial.url:
        return found.wire(public_url)
    wire = found.wire("")
    # With a path of its own it is the whole URL; without, it stands before the request's.
    whole = "/" in trial.url.partition("://")[2].rstrip("/")
    return WireRequest(
        method=wire.method,
        url=trial.url if whole else trial.url.rstrip("/") + found.target,
        query=wire.query,
        headers=wire.headers,
        body=wire.body,
    )


def _secrets(trial: Trial, found: Recorded) -> Sequence[str]:
    secrets: list[str] = []
    if trial.secret_file is not None:
        try:
            lines = trial.secret_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(f"{trial.secret_file}: {getattr(error, 'strerror', None) or 'no UTF-8'}") from None
        secrets = [line.strip() for line in lines if line.strip()]
        if not secrets:
            raise Failed(f"{trial.secret_file}: there is no secret in it")
    if trial.secret_prompt:
        secrets.append(click.prompt("secret", hide_input=True, err=True))
    return secrets or found.secrets
