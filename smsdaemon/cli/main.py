"""The admin command, console script ``smsdaemon``: one module for each command."""

from __future__ import annotations

import click

import smsdaemon
from smsdaemon.cli.check import check
from smsdaemon.cli.directory import apply, export
from smsdaemon.cli.messages import messages
from smsdaemon.cli.migrate import migrate
from smsdaemon.cli.provider import provider
from smsdaemon.cli.redecode import redecode
from smsdaemon.cli.redeliver import redeliver
from smsdaemon.cli.refused import refused
from smsdaemon.cli.send import send
from smsdaemon.cli.sink import sink
from smsdaemon.cli.status import status
from smsdaemon.cli.why import why


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(smsdaemon.__version__, prog_name="smsdaemon", message="%(prog)s %(version)s")
def main() -> None:
    """Operate smsdaemon: its directory, its SMS, its database; try it out."""


for _command in (
    apply,
    export,
    messages,
    why,
    redeliver,
    redecode,
    refused,
    status,
    migrate,
    check,
    provider,
    send,
    sink,
):
    main.add_command(_command)
