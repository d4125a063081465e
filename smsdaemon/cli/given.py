"""Option values that need not stand on the command line, which other users can read with `ps`."""

from __future__ import annotations

from pathlib import Path

import click


class Confidential(click.ParamType[str]):
    """A token or secret: as it is, or @FILE, whose content it is, less the blanks around it."""

    name = "text|@file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.startswith("@"):
            return value
        path = Path(value[1:])
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{path} cannot be read: {error}", param, ctx)
