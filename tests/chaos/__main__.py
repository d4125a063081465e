"""`make chaos`: python -m tests.chaos --help."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from tests.chaos import kinds
from tests.chaos.broken import BROKEN
from tests.chaos.postgres import PostgresUnderFire
from tests.chaos.report import Outcome
from tests.chaos.run import ChaosRun, Options
from tests.chaos.say import say
from tests.support.postgres import reachable_folder

KEPT = Path("var")
BESIDE_SECONDS = 180
"""Far more than starting, draining and checking take; then the run has failed."""


def main(arguments: list[str]) -> int:
    """0 where everything is as promised."""
    options, result = _options(arguments)
    say(f"chaos: seed {options.seed}, {options.seconds:g} s, {options.workers} workers")
    outcome, folder = perform(options)
    if outcome is None:
        say(f"FAILED (errors=1); see {folder}")
        return 2
    result.parent.mkdir(exist_ok=True)
    result.write_text(json.dumps(outcome.document(), indent=1) + "\n")
    say(outcome)
    if not outcome.passed and not options.broken:
        say(f"\nhistory and logs are in {folder}; again: make chaos SEED={outcome.seed}")
    say(f"\n{outcome.verdict()}")
    return 0 if outcome.passed else 1


def perform(options: Options) -> tuple[Outcome | None, Path]:
    """Make a run; gives its outcome, and where its history and logs are kept unless all is well."""
    from twisted.internet import reactor

    folder, kept = reachable_folder(), KEPT / f"chaos-{options.seed}"
    postgres = PostgresUnderFire(reachable_folder())
    found: list[Outcome] = []
    signal.alarm(int(options.seconds) + BESIDE_SECONDS)  # the last resort; ends everything with this
    try:
        postgres.start()
        run = ChaosRun(options, folder, postgres, reactor)
        try:
            _react(reactor, run, options.seconds + BESIDE_SECONDS - 20, found)
        finally:
            run.end()
    finally:
        postgres.thaw()
        postgres.remove()
        if not found or not (found[0].passed or options.broken):
            _keep(folder, kept)
        shutil.rmtree(folder, ignore_errors=True)
        signal.alarm(0)
    return (found[0] if found else None), kept


def _react(reactor: Any, run: ChaosRun, seconds: float, found: list[Outcome]) -> None:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    def ended(result: Any) -> None:
        if isinstance(result, Failure):
            result.printTraceback(sys.stdout)
        else:
            found.append(result)
        if reactor.running:
            reactor.stop()

    def begin() -> None:
        running = Deferred.fromCoroutine(run.run())
        running.addTimeout(seconds, reactor)
        running.addBoth(ended)

    reactor.callWhenRunning(begin)
    reactor.run()


def _keep(folder: Path, kept: Path) -> None:
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for name in ("history.jsonl", "smsdaemon.log", "smsdaemon.toml", "directory.toml"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, kept / name)


def _options(arguments: list[str]) -> tuple[Options, Path]:
    """What is asked for, and where the outcome goes as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=80, help="SMS a second, about")
    parser.add_argument("--broken", default="", choices=["", *BROKEN], help="what is broken on purpose")
    parser.add_argument("--json", type=Path, default=KEPT / "chaos.json", help="where the outcome goes")
    parser.add_argument("--only", default="", help="kinds of faults, separated by commas")
    given = parser.parse_args(arguments)
    only = [kind.strip() for kind in given.only.split(",") if kind.strip()]
    if unknown := set(only) - set(kinds.ALL):
        parser.error(f"no kind of fault: {', '.join(sorted(unknown))}; there are {', '.join(kinds.ALL)}")
    kinds_of_broken = BROKEN[given.broken].kinds if given.broken else kinds.ALL
    options = Options(
        seconds=given.seconds,
        seed=secrets.randbelow(1_000_000) if given.seed is None else given.seed,
        workers=1 if given.broken else given.workers,
        rate=given.rate,
        kinds=only or kinds_of_broken,
        broken=given.broken,
    )
    return options, given.json


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[2])
    sys.exit(main(sys.argv[1:]))
