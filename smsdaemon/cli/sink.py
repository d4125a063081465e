"""`smsdaemon sink`: plays an ACD or an application, prints and verifies what it is sent."""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import click
from attrs import asdict
from standardwebhooks.webhooks import Webhook
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.server import Site

from smsdaemon.cli.backend_site import Attempt, BackendResource, Behaviour, Counts, webhook
from smsdaemon.cli.given import Confidential, Finite
from smsdaemon.cli.session import Failed, Reactor, config_option, json_option, run
from smsdaemon.domain.masking import masked_number
from smsdaemon.log import printable


class _Secret(Confidential):
    """A secret that can verify signatures."""

    name = "whsec_…|@file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        secret = super().convert(value, param, ctx)
        try:
            webhook(secret)
        except ValueError as error:
            self.fail(f"the secret is {error}", param, ctx)
        return secret


@click.command()
@config_option
@click.option(
    "--listen", default="tcp:9000:interface=127.0.0.1", show_default=True, help="A Twisted endpoint."
)
@click.option("--secret", "secrets", multiple=True, type=_Secret(), help="Verify signatures; repeatable.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.IntRange(200, 599),
    default=(200,),
    help="The answer; repeated: those one after the other, then the last one always.",
)
@click.option("--delay", type=Finite(0, 86400), default=0.0, help="Seconds before each answer.")
@click.option("--fail-rate", type=Finite(0, 1), default=0.0, help="Share that is answered 503.")
@click.option("--retry-after", help="The header Retry-After of all answers but 2xx.")
@click.option("--route-acd-group", metavar="NAME", help="Answer as an application: route to this ACD group.")
@click.option("--route-application", metavar="NAME", help="The same, to this application.")
@click.option("--count", type=click.IntRange(min=1), help="Exit after so many answers.")
@click.option("--show-text", is_flag=True, help="Show texts, and numbers in full.")
@json_option
def sink(
    config: object,
    listen: str,
    secrets: tuple[str, ...],
    statuses: tuple[int, ...],
    delay: float,
    fail_rate: float,
    retry_after: str | None,
    route_acd_group: str | None,
    route_application: str | None,
    count: int | None,
    show_text: bool,
    as_json: bool,
) -> None:
    """Play a backend: answer deliveries, and print and verify them."""
    if route_acd_group is not None and route_application is not None:
        raise click.UsageError("Give --route-acd-group or --route-application, not both.")
    if retry_after is not None and not (retry_after.isascii() and retry_after.isprintable()):
        raise click.BadParameter("no header can have this value", param_hint="--retry-after")
    route = {"acd_group": route_acd_group, "application": route_application}
    chosen = {kind: name for kind, name in route.items() if name is not None}
    behaviour = Behaviour(
        statuses=_last_repeated(statuses),
        fails=lambda: random.random() < fail_rate,
        delay=delay,
        retry_after=retry_after,
        route=chosen or None,
    )
    printer = _Printer(as_json=as_json, show_text=show_text)

    async def work(reactor: Reactor) -> None:
        await _serve(reactor, listen, behaviour, [webhook(secret) for secret in secrets], printer, count)

    run(work)


def _last_repeated(statuses: tuple[int, ...]) -> Iterator[int]:
    return itertools.chain(statuses, itertools.repeat(statuses[-1]))


# --- serving ----------------------------------------------------------------------------------


class _Open(WrappingFactory):
    """Knows the connections that are open, so that the last answer is not cut off by the exit."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._closed: Deferred[None] | None = None

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        if self._closed is not None and not self.protocols:
            self._closed.callback(None)

    def close(self) -> Deferred[None]:
        """Hang up on all once what was written to them is sent."""
        self._closed = Deferred()
        for protocol in list(self.protocols):
            protocol.loseConnection()
        if not self.protocols:
            self._closed.callback(None)
        return self._closed


async def _serve(
    reactor: Reactor,
    listen: str,
    behaviour: Behaviour,
    secrets: list[Webhook],
    printer: _Printer,
    count: int | None,
) -> None:
    enough: Deferred[None] = Deferred()

    def on_attempt(attempt: Attempt) -> None:
        if enough.called:
            return  # answered while the others are being closed
        try:
            printer.attempt(attempt)
        except BrokenPipeError as error:
            enough.errback(error)
        else:
            if resource.record.counts.attempts == count:
                # After this answer is written.
                reactor.callLater(0, enough.callback, None)

    resource = BackendResource(
        behaviour=behaviour,
        secrets=secrets,
        clock=reactor,
        now=lambda: datetime.now(UTC),
        on_attempt=on_attempt,
    )
    factory = _Open(Site(resource))
    port = await _listen(reactor, listen, factory)
    try:
        printer.listening(port)
        await enough
        await maybeDeferred(port.stopListening)
        await factory.close()
    finally:
        printer.summary(resource.record.counts)


async def _listen(reactor: Reactor, listen: str, factory: _Open) -> IListeningPort:
    try:
        return cast(IListeningPort, await serverFromString(reactor, listen).listen(factory))
    except CannotListenError as error:
        raise Failed(f"--listen {listen}: {error.socketError.strerror}") from error
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise Failed(f"--listen {listen}: {error}") from error


# --- printing ---------------------------------------------------------------------------------


class _Printer:
    def __init__(self, *, as_json: bool, show_text: bool) -> None:
        self._as_json, self._show_text = as_json, show_text

    def listening(self, port: IListeningPort) -> None:
        address = port.getHost()
        where = getattr(address, "host", None)
        url = f"http://{where}:{address.port}/" if where is not None else str(address)  # type: ignore[attr-defined]
        print(f"listening on {url}", file=sys.stderr if self._as_json else sys.stdout, flush=True)

    def attempt(self, attempt: Attempt) -> None:
        print(self._json(attempt) if self._as_json else self._line(attempt), flush=True)

    def summary(self, counts: Counts) -> None:
        """Goes to stderr: it is said at Ctrl-C too."""
        print(
            f"{counts.attempts} attempts: {counts.delivered} delivered, {counts.duplicates} duplicates,"
            f" {counts.late} out of order, {counts.wrong} with a wrong signature",
            file=sys.stderr,
            flush=True,
        )

    def _json(self, attempt: Attempt) -> str:
        row = asdict(attempt) | {"at": attempt.at.isoformat().replace("+00:00", "Z")}
        row["attempt"] = row.pop("number")
        if not self._show_text:
            del row["text"]
        row |= {"receiver": self._number(attempt.receiver), "sender": self._number(attempt.sender)}
        return json.dumps(row)

    def _line(self, attempt: Attempt) -> str:
        signature = {None: "", True: " signature ok", False: " signature WRONG"}[attempt.signature_ok]
        receiver, sender = self._number(attempt.receiver), self._number(attempt.sender)
        line = (
            f"{attempt.at:%H:%M:%S.%f} {attempt.status} id {attempt.id} delivery {attempt.delivery}"
            f" attempt {attempt.number} to {attempt.target!r} for {receiver} from {sender}{signature}"
        )
        line += " DUPLICATE" if attempt.duplicate else ""
        line += " OUT OF ORDER" if attempt.late else ""
        # Whoever can connect could have sent it.
        return printable(f"{line} {attempt.text!r}" if self._show_text else line)

    def _number(self, number: str) -> str:
        return number if self._show_text else masked_number(number)
