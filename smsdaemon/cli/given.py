"""Option values: secrets that need not stand on the command line, which `ps` shows, texts, numbers."""

from __future__ import annotations

import math
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


class Utf8(click.ParamType[str]):
    """A text that the database can be asked for: an argument may be any bytes."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
            self.fail(f"{value!r} is not UTF-8", param, ctx)
        return value


class Finite(click.FloatRange):
    """A number in a range; click lets nan pass, whatever the range."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number in the range {self._describe_range()}.", param, ctx)
        return number
