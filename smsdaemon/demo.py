"""What `make run` shows: a directory applied at start, and calls to try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from twisted.internet.defer import Deferred

from smsdaemon.domain.directory_file import parse
from smsdaemon.domain.providers import Providers
from smsdaemon.errors import ConfigurationError
from smsdaemon.store.apply import apply
from smsdaemon.store.pool import Pool

_TRY = """\
Try, in another terminal:
  curl -i '{url}?receiver=%2B49123123&sender=%2B49789789&message=Hello'
  .venv/bin/smsdaemon messages
README.md tells what else there is; Ctrl-C stops."""


def preparation(
    file: Path, utc_now: Callable[[], datetime], providers: Providers
) -> Callable[[Pool], Deferred[Sequence[str]]]:
    """Reads the file now (raises ConfigurationError); what it returns applies it, and says what to try.

    In what it says ``{url}`` stands for where the daemon listens.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError([f"{file}: {error.strerror}"]) from None
    directory = parse(content, file.name)

    def prepare(pool: Pool) -> Deferred[Sequence[str]]:
        applied = apply(
            pool, directory, dry_run=False, prune=False, force=False, now=utc_now(), providers=providers
        )
        return applied.addCallback(lambda _: _TRY.splitlines())

    return prepare
