"""Makes answers of a profile's rules."""

from __future__ import annotations

from smsdaemon.domain.reading import ProviderAnswer
from smsdaemon.providers.profile import AnswerRule
from smsdaemon.providers.templates import Look


def rendered(rule: AnswerRule, status: int, look: Look, without_body: str = "") -> ProviderAnswer:
    """The whole answer; ``status`` where the rule names none, ``without_body`` where it has no body."""
    body = without_body if rule.body is None else rule.body.filled(look)
    return ProviderAnswer(
        status=status if rule.status is None else rule.status,
        content_type=rule.content_type,
        body=body.encode("utf-8", "replace"),
        headers=tuple((name, value.filled(look)) for name, value in rule.headers),
    )
