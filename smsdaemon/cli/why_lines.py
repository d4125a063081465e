"""What is told of an SMS or a number, in lines for people; times are UTC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from attrs import frozen

from smsdaemon.domain.masking import masked_number, masked_text
from smsdaemon.domain.numbers import matching_key
from smsdaemon.log import printable
from smsdaemon.store.support import MessageRow
from smsdaemon.store.why_values import (
    AttemptTold,
    ConnectorStanding,
    DeliveryTold,
    IncompleteTold,
    NumberTold,
    RefusedTold,
    SmsTold,
    TargetStanding,
    Told,
    Waiting,
)

_RUNS = 8
"""Of numbers in a line."""


def rfc3339(at: datetime) -> str:
    """To the millisecond."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def lines(told: Told, show_text: bool) -> Iterator[str]:
    """Everything, in the order in which it happened."""
    # Of whole lines: what somebody sent, in whatever field, neither forges one nor steers the terminal.
    return map(printable, _lines(told, _Form(show_text)))


def _lines(told: Told, form: _Form) -> Iterator[str]:
    if told.refused is not None:
        yield from form.refused(told.refused)
    if told.incomplete is not None:
        yield from form.incomplete(told.incomplete)
    if told.sms is not None:
        yield from form.sms(told.sms)
    if told.number is not None:
        yield from form.number_told(told.number)
    for row in told.messages:
        yield form.message(row, f"to {form.number(row.receiver)}")


def _row(name: str, what: str) -> str:
    return f"  {name:<10} {what}"


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


@frozen
class _Form:
    """How much may be seen."""

    show_text: bool

    def number(self, number: str) -> str:
        return number if self.show_text else masked_number(number)

    def text(self, text: str) -> str:
        return text if self.show_text else masked_text(text)

    # --- an SMS -------------------------------------------------------------------------------

    def sms(self, sms: SmsTold) -> Iterator[str]:
        yield f"SMS {sms.id}: {sms.state}"
        whose = f"a connector of {sms.client}" + (", now removed" if sms.connector_removed else "")
        yield _row("received", rfc3339(sms.received_at))
        yield _row("to", f"{self.number(sms.receiver)}, {whose}")
        came = "" if sms.sender_raw == sms.sender else f", which came as {self.number(sms.sender_raw)}"
        yield _row("from", self.number(sms.sender) + came)
        yield from self._content(sms)
        yield _row("parts", _parts(sms))
        if sms.keyword is not None:
            yield _row("keyword", self.text(sms.keyword))
        for alias in sms.aliases:
            yield _row("also known", alias)
        for delivery in sms.deliveries:
            yield from self._delivery(delivery)

    def _content(self, sms: SmsTold | RefusedTold) -> Iterator[str]:
        id = "no id" if sms.provider_message_id is None else f"id {sms.provider_message_id}"
        yield _row("provider", f"{sms.provider}, {id}")
        kept = "no bytes kept" if sms.kept_bytes is None else f"its {_some(sms.kept_bytes, 'byte')} kept"
        yield _row("text", self.text(sms.text))
        yield _row("decoded", f"by {sms.encoding}, {kept}")

    def _delivery(self, told: DeliveryTold) -> Iterator[str]:
        ended = "" if told.ended_at is None else f" {rfc3339(told.ended_at)}"
        yield f"Delivery {told.id}: {told.state}{ended}"
        yield from self._target(told.target)
        if told.hops:
            yield _row("after", ", ".join(f"{hop['kind']} {hop['name']}" for hop in told.hops))
        if not told.attempts:
            yield _row("attempts", "none yet" if told.waiting else "none")
        for attempt in told.attempts:
            yield from self._attempt(attempt)
        if told.waiting is not None:
            for name, line in zip(("now", "", ""), _standing(told, told.waiting), strict=False):
                yield _row(name, line)
        elif not told.attempts or told.attempts[-1].reason != told.reason:
            yield _row(told.state, told.reason)

    def _target(self, target: TargetStanding) -> Iterator[str]:
        state = "removed" if target.removed else "enabled" if target.enabled else "disabled"
        yield _row("target", f"{target.kind} {target.client}/{target.name}, {state}")
        if target.breaker_opened_at is not None and target.probe_at is not None:
            yield _row("breaker", f"open since {rfc3339(target.breaker_opened_at)}")
            yield _row("", f"next probe {rfc3339(target.probe_at)}; {target.breaker_reason or ''}")

    def _attempt(self, attempt: AttemptTold) -> Iterator[str]:
        facts = [f"{attempt.outcome:<9}"]
        facts += [rfc3339(attempt.ended_at)] if attempt.ended_at is not None else []
        facts += [f"status {attempt.status}"] if attempt.status is not None else []
        facts += [f"{attempt.seconds:.3f} s"] if attempt.seconds is not None else []
        facts += [f"by {attempt.holder}"] if attempt.holder else []
        if attempt.outcome == "lost" and not attempt.ended_at:
            facts.append("its process died or lost its lease")
        yield _row(f"attempt {attempt.number}", "  ".join(facts).rstrip())
        if attempt.reason:
            yield _row("", attempt.reason)
        if attempt.answer:
            yield _row("", f"answer: {self.text(attempt.answer)}")
        if attempt.next_at is not None:
            yield _row("", f"next attempt due {rfc3339(attempt.next_at)}")

    def refused(self, told: RefusedTold) -> Iterator[str]:
        yield f"Refused SMS {told.id}: answered 502"
        yield _row("came", f"{_some(told.times, 'time')}, last {rfc3339(told.last_at)}")
        yield _row("because", told.reason)
        yield _row("to", f"{self.number(told.receiver)}, a connector of {told.client}")
        yield _row("from", self.number(told.sender))
        yield from self._content(told)
        yield _row("mend", "the directory, then smsdaemon refused retry")

    def incomplete(self, told: IncompleteTold) -> Iterator[str]:
        yield f"SMS {told.id}: incomplete, not delivered yet"
        yield _row("since", rfc3339(told.began_at))
        yield _row("to", f"{self.number(told.receiver)}, a connector of {told.client}")
        yield _row("from", self.number(told.sender))
        yield _row("provider", f"{told.provider}, reference {told.reference}")
        yield _row("parts", f"{len(told.came)} of {told.parts} came: {_numbers(told.came)}")
        yield _row("missing", _numbers(told.missing))

    # --- a number -----------------------------------------------------------------------------

    def number_told(self, told: NumberTold) -> Iterator[str]:
        if told.connector is None:
            yield f"Number {self.number(told.number)}: no connector"
        else:
            yield from self._connector(told.connector)
        pending = told.pending
        yield _row("pending", f"{pending.as_receiver} to it, {pending.as_sender} from it")
        if pending.oldest is not None:
            waits = f"{pending.leased} under way, {pending.waiting_for_retry} wait for another try"
            yield _row("", f"{waits}, oldest {pending.oldest}")
        key = matching_key(told.number)
        for row in told.messages:
            to_it = matching_key(row.receiver) == key
            other = f"from {self.number(row.sender)}" if to_it else f"to {self.number(row.receiver)}"
            yield self.message(row, other)
        for one in told.incomplete:
            sender, came = self.number(one.sender), f"{len(one.came)} of {one.parts}"
            yield f"{rfc3339(one.began_at)}  {one.id}  from {sender}  incomplete  {came}"
            yield _row("", f"missing {_numbers(one.missing)}")
        for refused in told.refused:
            other = f"from {self.number(refused.sender)}"
            times = _some(refused.times, "time")
            yield f"{rfc3339(refused.last_at)}  {refused.id}  {other}  refused  {times}"
            yield _row("", refused.reason)

    def _connector(self, connector: ConnectorStanding) -> Iterator[str]:
        yield f"Number {self.number(connector.number)}: a connector of {connector.client}"
        if connector.refusal is None:
            token = "with a valid token, else 401" if connector.require_token else "no token needed"
            yield _row("requests", f"would be taken, {token}")
        else:
            yield _row("requests", f"would be answered {connector.status}: {connector.refusal}")
        if connector.removed_at is not None:
            yield _row("removed", rfc3339(connector.removed_at))
        if connector.target is None:
            yield _row("target", "none")
        else:
            yield from self._target(connector.target)

    def message(self, row: MessageRow, other: str) -> str:
        """One SMS of many."""
        received = rfc3339(datetime.fromisoformat(row.received_at))
        return f"{received}  {row.id}  {other}  {row.state}  {_some(row.attempts, 'attempt')}"


def _parts(sms: SmsTold) -> str:
    if not sms.parts_missing:
        return str(sms.parts)
    return f"{sms.parts}, given up without {_numbers(sms.parts_missing)}"


def _numbers(numbers: Sequence[int]) -> str:
    """As ``1-3, 7``, and no longer than a line."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join([*shown[:_RUNS], "…"] if len(shown) > _RUNS else shown) or "none"


def _standing(told: DeliveryTold, waiting: Waiting) -> Iterator[str]:
    """Where a pending delivery stands, and what holds it."""
    if waiting.due_at is None:
        behind = "another SMS" if waiting.behind is None else f"SMS {waiting.behind}"
        yield f"waits behind {behind}"
        yield f"of its conversation; {waiting.ahead} ahead of it"
    elif waiting.leased_until is not None:
        ends = rfc3339(waiting.leased_until)
        if waiting.leased_until >= waiting.now:
            yield f"attempt {told.count} is under way, leased until {ends}"
        else:
            yield f"the lease of attempt {told.count} ran out {ends}; it will be attempted again"
    elif waiting.due_at > waiting.now:
        yield f"attempt {told.count + 1} is due {rfc3339(waiting.due_at)}"
    else:
        yield f"attempt {told.count + 1} has been due since {rfc3339(waiting.due_at)}"
    if told.target.removed:
        yield "its target was removed"
    elif not told.target.enabled:
        yield "its target is disabled, and so it waits"
    elif told.target.breaker_opened_at is not None:
        yield "its target's breaker is open: only probes are made"
