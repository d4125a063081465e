"""A process that owns an embedded PostgreSQL, for tests that end owners or need another user.

``python -m tests.support.embedded_owner STATE_DIR SYSTEM_DIR [USER_ID PATH]`` says on its standard
error ``started``, then ``accepting DSN``; a line on its standard input lets it stop the server, and
it says ``stopped``.
With USER_ID it becomes that user first, with PATH in front of where packages are looked for.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO

from smsdaemon.store.embedded import EmbeddedPostgres


class _FirstLine(Protocol):
    """Fires ``came`` when something is typed, or nobody can type any more."""

    def __init__(self) -> None:
        self.came: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._fire()

    def connectionLost(self, reason: object = None) -> None:
        self._fire()

    def _fire(self) -> None:
        if not self.came.called:
            self.came.callback(None)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


async def _own(state_dir: Path, system_dir: Path) -> None:
    typed = _FirstLine()
    StandardIO(typed)
    _say("started")
    embedded = EmbeddedPostgres(state_dir=state_dir, system_dir=system_dir, reactor=reactor)
    try:
        await embedded.start(30)
        _say(f"accepting {embedded.dsn}")
        await typed.came
    except BaseException as error:
        _say(f"failed {error}")
        raise
    finally:
        await embedded.stop()
        _say("stopped")


def main() -> None:
    arguments = sys.argv[1:]
    if len(arguments) > 2:
        # After the imports above: the new user may have no access to the modules' folders.
        os.setgroups([])
        os.setgid(int(arguments[2]))
        os.setuid(int(arguments[2]))
        sys.path.insert(0, arguments[3])
        importlib.invalidate_caches()  # looked up with the former rights
    owning = Deferred.fromCoroutine(_own(Path(arguments[0]), Path(arguments[1])))
    owning.addBoth(lambda _: reactor.stop())
    reactor.run()


if __name__ == "__main__":
    main()
