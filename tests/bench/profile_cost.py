"""What reading and checking a provider's own requests costs: accepted/s, in turns with generic ones.

``python -m tests.bench.profile_cost twilio``. The generic requests are of the same size and have as many
fields, so that what differs is the profile: reading by it, the signature, the gate. Beside them, for
comparison, the generic request of three fields that the other benchmarks send.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.bench.forms import FORMS, GENERIC, connector
from tests.bench.machine import busy, machine
from tests.bench.rig import NUMBER, VAR, apply, daemon, set_up, sink, state_folder
from tests.bench.rig import main as run_command
from tests.bench.runs import Shape, run
from tests.support.provider_requests import PUBLIC_URL

SIGNED_NUMBER = "+49123124"
THREE_FIELDS = "three fields"
_MORE = """\
[[connector]]
client = "bench/bench"
number = "{number}"
acd_group = "sink"
{keys}
"""


def measured(folder: Path, profile: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Accepted/s of each round, by form."""
    rates: dict[str, list[float]] = {THREE_FIELDS: [], GENERIC: [], profile: []}
    with sink(folder) as sink_port:
        http = set_up(folder, sink_port, options.workers)
        _take_profile(folder, profile)
        apply(folder)
        with daemon(folder):
            first = 0
            for number in range(options.rounds + 1):
                for form in rates:
                    shape = _shape(form, options.seconds, first)
                    done = run(folder, http, sink_port, shape)
                    first += 1_000_000
                    if number:  # the first warms up
                        rates[form].append(done.accepted_per_second())
    return rates


def _shape(form: str, seconds: float, first: int) -> Shape:
    if form == THREE_FIELDS:
        return Shape(seconds=seconds)
    return Shape(
        seconds=seconds, receivers=NUMBER if form == GENERIC else SIGNED_NUMBER, form=form, first=first
    )


def _share(rates: list[float], others: list[float]) -> float:
    """Of each round by itself, as the machine may be another one in the next; their median."""
    return statistics.median(ours / theirs for ours, theirs in zip(rates, others, strict=True))


def _take_profile(folder: Path, profile: str) -> None:
    settings = folder / "smsdaemon.toml"
    settings.write_text(settings.read_text() + f'[receiver]\npublic_url = "{PUBLIC_URL}"\n')
    directory = folder / "directory.toml"
    more = _MORE.format(number=SIGNED_NUMBER, keys=connector(profile))
    directory.write_text(directory.read_text() + more)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile_cost", description=__doc__)
    parser.add_argument("profile", choices=sorted(FORMS.keys() - {GENERIC}))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=VAR / "bench-profile-cost.json")
    options = parser.parse_args()

    def measure() -> None:
        sys.stderr.write(busy())
        with state_folder() as folder:
            rates = measured(folder, options.profile, options)
        medians = {form: statistics.median(of) for form, of in rates.items()}
        shares = {form: _share(rates[options.profile], rates[form]) for form in (GENERIC, THREE_FIELDS)}
        document: dict[str, Any] = {"machine": machine(), "accepted_per_second": rates, "shares": shares}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(document, indent=2) + "\n")
        for form, rate in medians.items():
            sys.stdout.write(f"{form:12} {rate:8.0f} accepted/s, median of {options.rounds}\n")
        for form, share in shares.items():
            sys.stdout.write(f"{options.profile} against {form}: {share:.2f}, median of the rounds\n")

    return run_command("profile_cost", measure)


if __name__ == "__main__":
    raise SystemExit(main())
