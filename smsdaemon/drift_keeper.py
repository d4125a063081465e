"""What a worker knows of the shapes of requests, in the state folder from start to start."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.drift import DriftWatch

LOOK_SECONDS = 1.0
"""Whether somebody has acknowledged."""
WRITE_SECONDS = 60.0
"""At most so often; changes become rare once the requests are known."""
MAX_BYTES = 1 << 25


def acknowledge(state_dir: Path) -> None:
    """Have the workers of a daemon on this state folder, now or later, take what is flagged for normal.

    Raises OSError.
    """
    descriptor = os.open(_acknowledged(state_dir), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.utime(descriptor)
    finally:
        os.close(descriptor)


def _acknowledged(state_dir: Path) -> Path:
    return state_dir / "drift.acknowledged"


class DriftKeeper:
    """For one worker; its number belongs to one living process at a time."""

    def __init__(self, *, watch: DriftWatch, state_dir: Path, number: int, reactor: Any) -> None:
        self._watch, self._reactor = watch, reactor
        self._path = state_dir / f"drift-{number}.json"
        self._marker = _acknowledged(state_dir)
        self._marked: int | None = None
        self._written_at = 0.0
        self._log = Logger(namespace="smsdaemon.drift")
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """What cannot be read is learned anew."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if self._path.stat().st_size <= MAX_BYTES:
                told = json.loads(self._path.read_bytes())
                self._watch.remember(told["shapes"])
                self._marked = told["acknowledged"]
        self._written_at = self._reactor.seconds()
        self._looking.start(LOOK_SECONDS).addErrback(self._failed)

    def stop(self) -> None:
        """Write it down."""
        if self._looking.running:
            self._looking.stop()
        self._write()

    def _look(self) -> None:
        marked = self._mark()
        if marked != self._marked:
            self._marked = marked
            if marked is not None:
                self._watch.acknowledge()
        now = self._reactor.seconds()
        if now >= self._written_at + WRITE_SECONDS:
            self._written_at = now
            self._watch.forget()
            if self._watch.changed:
                self._write()

    def _mark(self) -> int | None:
        try:
            return self._marker.stat().st_mtime_ns
        except OSError:
            return None

    def _write(self) -> None:
        self._watch.changed = False
        new = self._path.with_name(f".{self._path.name}.new")
        document = {"shapes": self._watch.memory(), "acknowledged": self._marked}
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                json.dump(document, stream)
            new.replace(self._path)
        except OSError as error:
            self._log.warn("{path} cannot be written: {why}", path=str(self._path), why=error.strerror)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("drift is not looked after any more", failure=failure)
