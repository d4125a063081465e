"""`make chaos-broken`: breaks each promise in turn, and says whether the checker sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.broken import BROKEN
from tests.chaos.say import say

SECONDS = 15
SEED = 1


def main(names: list[str]) -> int:
    """0 where every fault that was put in was seen; without names all of them."""
    missed = [name for name in names or BROKEN if not _is_seen(name)]
    say(f"{len(names or BROKEN) - len(missed)} passed, {len(missed)} failed")
    return 1 if missed else 0


def _is_seen(name: str) -> bool:
    invariant = BROKEN[name].invariant
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "chaos.json")
        command = [sys.executable, "-m", "tests.chaos", "--broken", name, "--json", str(found)]
        done = subprocess.run(
            [*command, "--seconds", str(SECONDS), "--seed", str(SEED)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        wrong = json.loads(found.read_text())["wrong"] if found.exists() else {}
    times = wrong.get(invariant, 0)
    others = ", ".join(f"{other} {count}" for other, count in wrong.items() if count and other != invariant)
    said = f"caught, {times} times" if times else "NOT CAUGHT"
    say(f"{name:<32}{invariant:<22}{said:<22}{others and f'also: {others}'}")
    if not times:
        say(done.stdout.decode())
    return bool(times)


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[2])
    sys.exit(main(sys.argv[1:]))
