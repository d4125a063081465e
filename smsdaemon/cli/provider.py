"""`smsdaemon provider`: the profiles there are, all of one, and how it reads a recorded request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
from attrs import asdict

from smsdaemon.cli.provider_try import named, provider_try
from smsdaemon.cli.session import Reactor, config_option, given_outside, json_option, read_settings, run
from smsdaemon.log import printable
from smsdaemon.providers.catalogue import load
from smsdaemon.providers.described import Told, told

GENERIC = "the format of /SMSReceiver itself, as the README tells"


@click.group()
@config_option
@json_option
def provider(config: Path | None, as_json: bool) -> None:
    """Show the provider profiles, and try them on recorded requests."""


@provider.command("list")
@config_option
@json_option
@click.pass_context
def list_(context: click.Context, config: Path | None, as_json: bool) -> None:
    """List the profiles: name, scheme of their signatures, description."""
    config, as_json = given_outside(context, config, as_json)

    async def work(_: Reactor) -> None:
        rows = [("generic", "token", GENERIC)]
        for profile in load(read_settings(config).receiver.profiles).values():
            described = told(profile.profile)
            rows.append((described.name, _schemes(described), described.description))
        width, schemes = (max(len(row[column]) for row in rows) for column in (0, 1))
        for name, scheme, description in rows:
            if as_json:
                print(json.dumps({"name": name, "scheme": scheme, "description": description}))
            else:
                print(printable(f"{name:{width}}  {scheme:{schemes}}  {description}"))

    run(work)


@provider.command()
@config_option
@click.argument("name")
@json_option
@click.pass_context
def show(context: click.Context, config: Path | None, name: str, as_json: bool) -> None:
    """Show what an operator needs of a profile: what to enter where, what signs, repeats, quirks, answers."""
    config, as_json = given_outside(context, config, as_json)

    async def work(_: Reactor) -> None:
        settings = read_settings(config)
        profile = named(settings, name)
        described = told(profile.profile)
        url = (settings.receiver.public_url.rstrip("/") or "https://HOST") + described.path
        if as_json:
            print(json.dumps({**asdict(described), "url": url}))
            return
        for line in _lines(described, url):
            print(printable(line))

    run(work)


def _lines(described: Told, url: str) -> Iterator[str]:
    for name, text in (
        ("profile", f"{described.name}: {described.description}"),
        ("URL", url),
        ("methods", ", ".join(described.methods)),
        ("body", described.body),
        ("set-up", described.setup),
        ("secrets", described.secrets and f"provider_secrets: {described.secrets}"),
        ("public_url", "must be as the provider calls it" if described.covers_url else ""),
        ("long SMS", described.parts),
        ("repeats", described.repeats),
        ("no SMS", ", ".join(described.not_sms)),
    ):
        if text:
            yield f"{name:12}{text}"
    for text in signature_texts(described):
        yield f"{'signature':12}{text}"
    for what, answer in described.answers:
        yield f"{'hears':12}{what}: {answer}"
    for kind, texts in (("quirk", described.quirks), ("source", described.sources)):
        for text in texts:
            yield f"{kind:12}{text}"


def signature_texts(described: Told) -> Iterator[str]:
    """A line for each way to sign, or one that says that there is none."""
    if not described.signatures:
        yield "none: whoever knows the URL can send; require a token and put it into the URL's query"
    for signature in described.signatures:
        yield f"{signature.scheme}, in {signature.place}: {signature.covers}"
    if described.signatures and not described.required:
        yield "only checked where the connector has provider_secrets"


def _schemes(described: Told) -> str:
    return " or ".join(signature.scheme for signature in described.signatures) or "none"


provider.add_command(provider_try)
