"""`make test`: runs trial, searches what was printed for secrets, and says how many tests passed.

    python -m tests.support.suite [what trial is to run, "tests" by default]

The search is a second run of trial, so that it also sees the end of the first one's output.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.trial_counts import Counts, counts

FOLDER = Path("_trial_temp")
SEARCH = "tests.support.output_search"
PRINTED_IN = "TRIAL_PRINTED_IN"
"""Environment variable that tells the search where to look."""


def main(arguments: list[str]) -> int:
    try:
        counted = _tests(arguments or ["tests"]) + _search()
    except KeyboardInterrupt:
        return 130
    print(counted)
    return 1 if counted.failed else 0


def _tests(arguments: list[str]) -> Counts:
    status, printed = _trial(FOLDER, arguments, {})
    if FOLDER.is_dir():
        (FOLDER / "printed.log").write_bytes(printed)
    return counts(printed.decode(errors="replace"), status)


def _search() -> Counts:
    environment = {PRINTED_IN: str(FOLDER.absolute())}
    status, printed = _trial(FOLDER.with_name("_trial_temp_search"), [SEARCH], environment)
    return counts(printed.decode(errors="replace"), status)


def _trial(folder: Path, arguments: list[str], environment: Mapping[str, str]) -> tuple[int, bytes]:
    """Run trial, and pass on what it prints; its exit status and that."""
    command = [sys.executable, "-m", "twisted.trial", f"--temp-directory={folder}", *arguments]
    printed = bytearray()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    ) as trial:
        assert trial.stdout is not None
        while piece := os.read(trial.stdout.fileno(), 65536):
            printed += piece
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
    return trial.returncode, bytes(printed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
