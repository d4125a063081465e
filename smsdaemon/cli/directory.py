"""`smsdaemon apply` and `smsdaemon export`: the directory as a file (contract 4)."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import click

from smsdaemon.cli.session import Failed, Reactor, config_option, read_settings, run, usable_database
from smsdaemon.domain.directory_export import render
from smsdaemon.domain.directory_file import DirectoryFile, parse
from smsdaemon.log import printable
from smsdaemon.providers.catalogue import load as load_profiles
from smsdaemon.store.apply import Applied
from smsdaemon.store.apply import apply as apply_directory
from smsdaemon.store.directory_rows import stored_directory


@click.command()
@config_option
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--prune", is_flag=True, help="Remove what the file does not name.")
@click.option("--force", is_flag=True, help="Remove also what has pending deliveries; these become dead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: each change, then the counts.")
def apply(config: Path | None, file: Path, dry_run: bool, prune: bool, force: bool, as_json: bool) -> None:
    """Make the directory what FILE says: all of it, or, where anything is wrong, nothing."""

    async def work(reactor: Reactor) -> None:
        parsed, settings = _read(file), read_settings(config)
        providers = load_profiles(settings.receiver.profiles)
        async with usable_database(reactor, settings) as pool:
            applied = await apply_directory(
                pool,
                parsed,
                dry_run=dry_run,
                prune=prune,
                force=force,
                now=datetime.now(UTC),
                providers=providers,
            )
        _print(applied, as_json)

    run(work)


def _read(file: Path) -> DirectoryFile:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from error
    return parse(content, str(file))


def _print(applied: Applied, as_json: bool) -> None:
    if not as_json:
        print(*map(printable, applied.lines), applied.counts, sep="\n")
        return
    for line in applied.lines:
        action, _, what = line.partition(" ")
        print(json.dumps({"change": action, "what": what}))
    counts = {"create": applied.created, "update": applied.updated, "unchanged": applied.unchanged}
    if applied.removed is not None:
        counts["remove"] = applied.removed
    print(json.dumps(counts))


@click.command()
@config_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write there, not to standard output.")
def export(config: Path | None, output: Path | None) -> None:
    """Print the directory in the format that apply reads; without secrets, tokens as hashes."""

    async def work(reactor: Reactor) -> None:
        async with usable_database(reactor, read_settings(config)) as pool:
            directory = await stored_directory(pool)
        lines = render(directory)
        if output is None:
            for line in lines:
                print(line, end="")
            return
        try:
            # Token hashes are not for everybody's eyes.
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as stream:
                stream.writelines(lines)
        except OSError as error:
            raise Failed(f"{output} cannot be written: {error.strerror}") from error

    run(work)
