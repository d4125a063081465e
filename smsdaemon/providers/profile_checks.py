"""What the tables of a profile must be together, so that its requests can be read at all."""

from __future__ import annotations

from collections.abc import Set

from smsdaemon.providers.profile import Profile
from smsdaemon.providers.profile_table import Problems
from smsdaemon.providers.selectors import Anywhere, Attribute, Every, Member, PathStep, Where


def check_together(profile: Profile, problems: Problems) -> None:
    """Add what is wrong to the problems."""
    if not profile.fields.text and not profile.text.may_be_missing:
        have = profile.text.rules and all(rule.alternatives for rule in profile.text.rules)
        if not have:
            problems.add("fields.text", "is missing; allowed: where the text stands")
    formats: set[str] = set(profile.request.formats.values())
    if not {"POST", "PUT"} & set(profile.methods) and formats - {"form"}:
        problems.add("request.body", "is not read of GET and HEAD; allowed: with POST or PUT among methods")
    if "PUT" in profile.methods and not formats:
        problems.add("methods", "PUT needs a body format")
    inner = profile.request.inner
    if profile.request.batch is not None:
        _check_batch(profile.request.batch, formats if inner is None else {inner.format}, problems)


def _check_batch(batch: tuple[PathStep, ...], formats: Set[str], problems: Problems) -> None:
    if not formats & {"json", "xml"}:
        problems.add("request.batch", 'only with body = "json" or "xml"; a form has no list')
    elif any(isinstance(step, Every) for step in batch):
        problems.add("request.batch", "must not have [*]; allowed: the path to the list itself")
    elif not (("json" in formats and _leads_json(batch)) or ("xml" in formats and _leads_xml(batch))):
        allowed = {"json": "the path to an array", "xml": "the path to elements of a name"}
        told = " or, in XML, ".join(allowed[name] for name in ("json", "xml") if name in formats)
        problems.add("request.batch", f"leads to no list; allowed: {told}")


def _leads_json(batch: tuple[PathStep, ...]) -> bool:
    if any(isinstance(step, Attribute | Anywhere) for step in batch):
        return False
    # What a condition picks is an object.
    return not batch or not isinstance(batch[-1], Where)


def _leads_xml(batch: tuple[PathStep, ...]) -> bool:
    return (
        bool(batch)
        and isinstance(batch[-1], Member | Anywhere)
        and not any(isinstance(step, Attribute) for step in batch)
    )
