"""What tests of the journal share: entries, opened journals, and other processes that have the same one.

Run as a program it is such a process: ``python -m tests.support.journals append|hold|move FOLDER …``.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Any
from uuid import UUID, uuid5

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from smsdaemon.errors import StoreUnavailable
from smsdaemon.store.journal import Journal, JournalEntry
from smsdaemon.store.journal_place import JournalPlace
from tests.support.cases import ReactorTest
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER, keep

_IDS = UUID("6a4ac1a4-5a4b-4a8e-9f0e-0a5f6f0c7d11")
ROOT = Path(__file__).resolve().parents[2]


def entry(n: int, *, of: str = "", key: bytes | None = None, more: str = "") -> JournalEntry:
    """The n-th SMS of a process; the same each time it is made."""
    id_ = uuid5(_IDS, f"{of}-{n}")
    row = {"id": str(id_), "sender": SENDER, "receiver": RECEIVER, "text": f"{TEXT_MARKER} {n} ä€😀 {more}"}
    return JournalEntry(id=id_, key=key, row={**row, "keyword": None, "number": n, "of": of})


def entries(first: int, last: int, **more: Any) -> list[JournalEntry]:
    """From the first to the one before the last."""
    return [entry(n, **more) for n in range(first, last)]


def numbers(found: Sequence[JournalEntry]) -> list[int]:
    """Which of entry() they are."""
    return [one.row["number"] for one in found]


async def opened(test: ReactorTest, folder: Path, **settings: Any) -> Journal:
    """A journal that is closed after the test."""
    journal = Journal(folder=folder, reactor=reactor, **settings)
    test.addCleanup(journal.close)
    await journal.start()
    return journal


async def everything(journal: Journal) -> list[JournalEntry]:
    """All that is in it."""
    return await journal.oldest(1_000_000)


async def move(journal: Journal, at_once: int = 200) -> list[JournalEntry]:
    """Take out everything, as the mover does."""
    moved: list[JournalEntry] = []
    while some := await journal.oldest(at_once):
        moved += some
        await journal.remove(some)
    return moved


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for it without blocking the reactor."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        await deferLater(reactor, 0.005)


def lines_said(
    test: ReactorTest, level: Any = LogLevel.critical, namespace: str = "smsdaemon.journal"
) -> list[str]:
    """A list that the log's lines of the level come into."""
    said: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == namespace and event["log_level"] is level:
            said.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    test.addCleanup(globalLogPublisher.removeObserver, observe)
    return said


# --- other processes -------------------------------------------------------------------------------


class OtherProcess:
    """One that has the journal too; killed after the test."""

    def __init__(self, test: ReactorTest, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.support.journals", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe)
        test.addCleanup(self.kill)

    def line(self) -> str:
        """The next one that it prints; blocks."""
        return _stream(self.process.stdout).readline().decode().strip()

    def lines(self) -> list[str]:
        """All that it still prints until it ends."""
        return _stream(self.process.stdout).read().decode().splitlines()

    def kill(self) -> None:
        """At once, by SIGKILL."""
        self.process.kill()
        self.process.wait()
        if not _stream(self.process.stderr).closed:
            keep("journals", _stream(self.process.stderr).read())
        for stream in (self.process.stdin, self.process.stderr):
            _stream(stream).close()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _print(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def _append(folder: str, of: str, batch: str, count: str, file_bytes: str = "0") -> None:
    """Append batches; print the number behind the last that was answered, or why it was not."""
    journal = Journal(folder=Path(folder), reactor=reactor)
    await journal.start()
    if int(file_bytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), resource.RLIM_INFINITY))
    for first in range(0, int(count), int(batch)):
        some = entries(first, first + int(batch), of=of, more="x" * 200)
        try:
            assert await journal.append(some) == [one.id for one in some]
        except StoreUnavailable as error:
            _print(f"failed {error}")
            break
        _print(str(first + int(batch)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found = numbers([one for one in await everything(journal) if one.row["of"] == of])
    _print(f"found {len(found)} {found == list(range(len(found)))}")
    await journal.close()


async def _hold(folder: str) -> None:
    """Have the journal for a transaction that does not end."""
    place = JournalPlace(Path(folder), say=lambda *_, **__: None)

    def work(db: Any) -> None:
        db.execute("BEGIN IMMEDIATE")
        _print("held")
        signal.pause()

    place.with_file(work)


async def _move(folder: str) -> None:
    """Have the turn to move; for ever."""
    journal = Journal(folder=Path(folder), reactor=reactor)
    await journal.start()
    _print(f"{journal.begin_moving()} {journal.pending}")
    sys.stdin.read()
    await journal.close()


async def _locked_out(folder: str, user: str) -> None:
    """As an ordinary user: fill a journal, lose the right to write to it, move it, and have it back."""
    os.setuid(int(user))
    journal = Journal(folder=Path(folder, "journal"), reactor=reactor)
    await journal.start()
    await journal.append(entries(0, 20))
    await journal.close()
    for path in (*Path(folder, "journal").iterdir(), Path(folder, "journal")):
        path.chmod(0o500)
    journal = Journal(folder=Path(folder, "journal"), reactor=reactor)
    await journal.start()
    _print(str(journal.trouble))
    _print(f"{journal.pending} pending")
    found = numbers(await move(journal, 7))
    _print(f"found {len(found)} {found == list(range(20))}")
    _print(f"{journal.pending} pending")
    Path(folder, "journal").chmod(0o700)
    for path in Path(folder, "journal").iterdir():
        path.chmod(0o600)
    await journal.append([entry(20)])
    _print(str(journal.trouble))
    _print(f"{journal.pending} pending")
    await journal.close()


if __name__ == "__main__":
    programs: dict[str, Callable[..., Awaitable[None]]] = {
        "append": _append,
        "hold": _hold,
        "move": _move,
        "locked-out": _locked_out,
    }
    program = programs[sys.argv[1]]
    react(lambda _: ensureDeferred(program(*sys.argv[2:])))  # type: ignore[arg-type]
