"""`smsdaemon send`: plays an SMS provider against a running daemon, with one SMS or many."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from attrs import frozen
from OpenSSL import SSL
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.internet.task import LoopingCall
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from smsdaemon.cli.given import Confidential, Finite
from smsdaemon.cli.load import Load, Plan, Tally, message_id
from smsdaemon.cli.own_listeners import authorities
from smsdaemon.cli.session import Failed, Reactor, config_option, read_settings, run
from smsdaemon.cli.sms_request import METHODS, Method, ReceiverUrl, parse_url, request_maker
from smsdaemon.errors import ConfigurationError
from smsdaemon.log import printable
from smsdaemon.settings import Settings

SHOW_SECONDS = 0.1


@click.command(epilog="{n} in --sender, --text and --message-id is replaced by a counter that begins at 0.")
@config_option
@click.option("--receiver", required=True, help="The connector's number.")
@click.option("--sender", required=True, help="Whom the SMS comes from.")
@click.option("--text", required=True, help="The message; may be empty.")
@click.option("--token", type=Confidential(), help="The connector's; @FILE keeps it out of `ps`.")
@click.option("--message-id", help="The provider's own id of the SMS.")
@click.option("--keyword", help="The field keyword.")
@click.option("--url", help="The receiver's URL; by default the first listener of the settings.")
@click.option("--method", type=click.Choice(METHODS), default="get", show_default=True)
@click.option("--count", type=click.IntRange(min=1), help="How many SMS; 1 unless --rate is given.")
@click.option("--rate", type=Finite(1e-6, 1e6), help="SMS a second, whatever the answers.")
@click.option("--senders", type=click.IntRange(min=1), help="How many senders: {n} in --sender starts again.")
@click.option("--connections", type=click.IntRange(1, 10_000), default=64, show_default=True)
@click.option("--timeout", type=Finite(0, 86400, min_open=True), default=10.0, show_default=True)
@click.option("--insecure", is_flag=True, help="Take any TLS certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def send(
    config: Path | None,
    url: str | None,
    method: Method,
    count: int | None,
    rate: float | None,
    senders: int | None,
    connections: int,
    timeout: float,
    insecure: bool,
    as_json: bool,
    **fields: str | None,
) -> None:
    """Send an SMS to a running daemon, as a provider does.

    With --rate (open loop) request i goes out at start + i/rate whatever became of the others, and
    a late answer counts from when its request was due. With --count alone (closed loop) each
    connection sends its next SMS when it has an answer.
    """
    parsed = _parse(url) if url is not None else None
    given = _fields(fields)

    async def work(reactor: Reactor) -> None:
        where = parsed or default_url(read_settings(config))
        one = count is None and rate is None
        plan = Plan(
            request=request_maker(where, method, given, senders),
            count=1 if one else count,
            rate=rate,
            connections=connections,
            timeout=timeout,
        )
        endpoint = client_endpoint(reactor, where, insecure, timeout)
        if one:
            await _send_one(_Sender(reactor, endpoint, plan), as_json)
        else:
            await _send_many(_Sender(reactor, endpoint, plan), as_json)

    run(work)


# --- where to, and what -----------------------------------------------------------------------


def _parse(url: str) -> ReceiverUrl:
    try:
        return parse_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error


def _fields(given: dict[str, str | None]) -> dict[str, str]:
    """The request's fields in the names of contract 3."""
    names = {"text": "message"}
    return {names.get(name, name): value for name, value in given.items() if value is not None}


def default_url(settings: Settings) -> ReceiverUrl:
    """/SMSReceiver of the daemon with these settings, by the first listener one can connect to."""
    for scheme, listener in (("http", settings.http), ("https", settings.https)):
        for authority in authorities(listener):
            return parse_url(f"{scheme}://{authority}/SMSReceiver")
    raise ConfigurationError(["the settings have no [http] or [https] listener on a fixed port: give --url"])


@implementer(IOpenSSLClientConnectionCreator)
class _AnyCertificate:
    """TLS that takes any certificate, for --insecure."""

    def __init__(self, host: str) -> None:
        self._host = host.encode("ascii", "replace")
        self._context = CertificateOptions(verify=False).getContext()

    def clientConnectionForTLS(self, _protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_tlsext_host_name(self._host)
        return connection


def client_endpoint(
    reactor: Reactor, url: ReceiverUrl, insecure: bool, timeout: float
) -> IStreamClientEndpoint:
    """How to connect to the receiver; its certificate is verified unless ``insecure``."""
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, url.host, url.port, timeout=timeout)
    if url.scheme == "http":
        return endpoint
    creator = _AnyCertificate(url.host) if insecure else optionsForClientTLS(url.host)
    return wrapClientTLS(creator, endpoint)


# --- one SMS ----------------------------------------------------------------------------------


@frozen
class _Sender:
    """Everything to send by."""

    reactor: Reactor
    endpoint: IStreamClientEndpoint
    plan: Plan

    def load(self, seen: Callable[[int, float, float, int, bytes], None] | None = None) -> Load:
        return Load(
            plan=self.plan, endpoint=self.endpoint, reactor=self.reactor, clock=time.monotonic, seen=seen
        )


async def _send_one(sender: _Sender, as_json: bool) -> None:
    answers: list[tuple[int, bytes]] = []
    tally = await sender.load(lambda _n, _due, _at, status, answer: answers.append((status, answer))).run()
    if not answers:
        raise Failed(f"no answer: {next(iter(tally.errors))}")
    [(status, answer)] = answers
    body = answer.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").strip()
    if as_json:
        print(json.dumps({"status": status, "body": body, "id": message_id(answer)}))
    else:
        print(f"{status} {printable(body)}")
        id = message_id(answer)
        if id is not None:
            print(f"SMS-Message-Id: {printable(id)}")
    if status != 200:
        raise SystemExit(1)


# --- many SMS ---------------------------------------------------------------------------------


async def _send_many(sender: _Sender, as_json: bool) -> None:
    load = sender.load()
    console = Console(file=sys.stderr)
    if console.is_terminal and not as_json:
        with _progress(console) as progress:
            tally = await _shown(sender, load.run(), load.tally, progress)
    else:
        tally = await load.run()
    if as_json:
        print(json.dumps(tally.summary()))
    else:
        _print(tally)
    if set(tally.statuses) != {200} or tally.errors:
        raise SystemExit(1)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("sending"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,
        transient=True,
    )


async def _shown(sender: _Sender, running: Deferred[Tally], tally: Tally, progress: Progress) -> Tally:
    task = progress.add_task("", total=sender.plan.count, rate=0.0)

    def show() -> None:
        seconds = max(time.monotonic() - tally.started_at, 0.001)
        progress.update(task, completed=tally.finished, rate=tally.finished / seconds, refresh=True)

    # Not rich's own thread: it would take the interpreter from the load ten times a second.
    call = LoopingCall(show)
    call.clock = sender.reactor
    call.start(SHOW_SECONDS)
    try:
        return await running
    finally:
        call.stop()


def _print(tally: Tally) -> None:
    summary = tally.summary()
    statuses = ", ".join(f"{status}: {n}" for status, n in sorted(tally.statuses.items())) or "none"
    latencies = {name: summary[f"{name}_ms"] for name in ("p50", "p90", "p99", "max")}
    rows = [
        ("sent", f"{tally.sent}"),
        ("answers", statuses),
        ("errors", printable(", ".join(f"{why}: {n}" for why, n in tally.errors.most_common())) or "none"),
        ("answered/s", f"{summary['rate']} over {summary['seconds']} s"),
        (
            "latency",
            ", ".join(f"{name} {ms} ms" for name, ms in latencies.items() if ms is not None) or "none",
        ),
    ]
    if not sys.stdout.isatty():
        print("; ".join(f"{name} {value}" for name, value in rows))
        return
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(name, Text(value))
    Console().print(table)
