"""Makes docs/providers.md of the shipped profiles: `make docs-providers`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from smsdaemon.providers.catalogue import load
from smsdaemon.providers.described import Told, told

PAGE = Path(__file__).resolve().parents[2] / "docs" / "providers.md"
INTRODUCTION = Path(__file__).with_name("provider_docs.md")
"""What stands before the providers."""


def page() -> str:
    """The whole page."""
    all_told = [told(loaded.profile) for loaded in load(None).values()]
    lines = [INTRODUCTION.read_text(encoding="utf-8").rstrip(), "", *_table(all_told)]
    for described in all_told:
        lines += ["", *_section(described)]
    return "\n".join(lines) + "\n"


def _table(all_told: list[Told]) -> Iterator[str]:
    yield "| profile | provider | requests | signed in |"
    yield "| --- | --- | --- | --- |"
    for described in all_told:
        signed = "; or ".join(signature.place for signature in described.signatures) or "nothing"
        optional = "" if described.required or not described.signatures else " (if you want)"
        name = f"[{described.name}](#{described.name})"
        requests = f"{', '.join(described.methods)}: {described.body}"
        yield f"| {name} | {_cell(described.description)} | {_cell(requests)} | {_cell(signed)}{optional} |"


def _section(described: Told) -> Iterator[str]:
    yield f"## {described.name}"
    yield ""
    yield f"{_text(described.description)}. URL: `https://HOST{described.path}`"
    yield ""
    for name, text in (("Enter", described.setup), ("Repeats", described.repeats)):
        if text:
            yield f"- **{name}:** {_text(text)}"
    yield from _signatures(described)
    if described.parts:
        yield f"- **Long SMS:** {_text(described.parts)}."
    if described.not_sms:
        yield f"- **Acknowledged and not stored:** {', '.join(described.not_sms)}."
    for what, answer in described.answers:
        yield f"- **Hears of {what}:** `{answer.replace('`', '')}`"
    for quirk in described.quirks:
        yield f"- {_text(quirk)}"
    if described.sources:
        yield f"- Sources: {', '.join(f'`{source}`' for source in described.sources)}"


def _signatures(described: Told) -> Iterator[str]:
    if not described.signatures:
        yield "- **Signed:** not at all; a token in the URL's query helps (`require_token`, `&token=…`)."
        return
    for signature in described.signatures:
        yield f"- **Signed** in {_text(signature.place)} (`{signature.scheme}`): {_text(signature.covers)}"
    optional = "" if described.required else " Without any, requests are taken as they come."
    yield f"- **`provider_secrets`:** {_text(described.secrets)}.{optional}"
    if described.covers_url:
        yield "- The signature covers the URL: `public_url` must be as the provider calls it."


def _text(text: str) -> str:
    """Not Markdown: what stands in it is meant as it is."""
    return "".join(f"\\{mark}" if mark in "*_<>[]|`" else mark for mark in text)


def _cell(text: str) -> str:
    return _text(text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
