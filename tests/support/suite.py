"""`make test`: runs trial, searches what was printed for secrets, and says how many tests passed.

    python -m tests.support.suite [what trial is to run, by default everything]

Everything goes in four runs side by side, since tests wait more than they compute: what starts daemons,
what makes something fail, and the rest in two. Beside them runs a minute of chaos (tests/chaos), each of
whose invariants counts as a test. The search is a run of its own, so that it also sees the others' ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.support.trial_counts import Counts, counts

TESTS = Path("tests")
LONG = [["tests.e2e"], ["tests.faults"]]
"""Runs of their own; as long as each other and as each half of the rest, more or less."""
SEARCH = "tests.support.output_search"
CHAOS = ["tests.chaos", "--seconds", "60"]
PRINTED_IN = "TRIAL_PRINTED_IN"
"""Environment variable that tells the search in which folders to look, one a line."""


def main(arguments: list[str]) -> int:
    runs = [arguments] if arguments else [*LONG, *_halves_of_all_others()]
    beside = [] if arguments else [CHAOS]
    # Who runs this in the background has it ignore Ctrl-C, and with it every process that tests start
    # and stop like that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        counted = _side_by_side(runs, beside)
    except KeyboardInterrupt:
        return 130
    print(counted)
    return 1 if counted.failed else 0


def _halves_of_all_others() -> list[list[str]]:
    """By turns, so that neighbours, which are often as slow as each other, are in different ones."""
    modules = (".".join(path.with_suffix("").parts) for path in sorted(TESTS.rglob("test_*.py")))
    others = [name for name in modules if not any(name.startswith(f"{package}.") for [package] in LONG)]
    return [others[::2], others[1::2]]


def _side_by_side(runs: Sequence[list[str]], beside: Sequence[list[str]]) -> Counts:
    """Run them at once, show their output one after the other, search it, and count.

    ``beside``: modules with their arguments, which search for secrets themselves.
    """
    started = [_Trial(Path("_trial_temp" + "_2" * n), tests) for n, tests in enumerate(runs)]
    others = [_Run(Path("_trial_temp" + "_3" * n), module) for n, module in enumerate(beside, 1)]
    counted = [run.follow() for run in [*started, *others]]
    folders = "\n".join(str(trial.folder.absolute()) for trial in started)
    search = _Trial(Path("_trial_temp_search"), [SEARCH], {PRINTED_IN: folders})
    return sum(counted, search.follow())


class _Run:
    """A module of ours, run at once as a process that prints like trial."""

    def __init__(self, folder: Path, module: list[str], environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (read while it is written)
        self._process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )

    def follow(self) -> Counts:
        """Show what it prints until it ends, and keep that in its folder for the search."""
        printed = bytearray()
        while True:
            ended = self._process.poll() is not None
            piece = os.pread(self._printed.fileno(), 1 << 20, len(printed))
            printed += piece
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
            if ended and not piece:
                break
            if not piece:
                self._wait_a_moment()
        if self.folder.is_dir():
            (self.folder / "printed.log").write_bytes(printed)
        return counts(printed.decode(errors="replace"), self._process.returncode)

    def _wait_a_moment(self) -> None:
        try:
            self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            return


class _Trial(_Run):
    """A run of trial."""

    def __init__(self, folder: Path, tests: list[str], environment: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, ["twisted.trial", f"--temp-directory={folder}", *tests], environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
