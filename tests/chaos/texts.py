"""What SMS say, so that each can be told by its text alone, and each of its parts too."""

from __future__ import annotations

from attrs import frozen

from tests.support.secrets_in_tests import TEXT_MARKER

STRANGE = 0
"""In place of the number of a part: what stands there is of another SMS, or of none."""
_END = ";"


@frozen(kw_only=True)
class Said:
    """What the text of an SMS says it is."""

    conversation: str
    number: int
    pieces: tuple[int, ...] = ()
    """The parts that it is made of, as they stand there; of an SMS that was never in parts none."""


def whole_text(habit: str, conversation: str, number: int) -> str:
    return f"{TEXT_MARKER} {habit} {conversation} {number}"


def part_text(habit: str, conversation: str, number: int, part: int, total: int) -> str:
    """Of a concatenated SMS, whose text is that of its parts one behind the other."""
    return f"{whole_text(habit, conversation, number)} {part}/{total}{_END}"


def read_text(text: str) -> Said:
    """What a text says that was made by these."""
    *parts, rest = (each.split(" ") for each in text.split(_END))
    if not parts:
        _, _, conversation, number = rest
        return Said(conversation=conversation, number=int(number))
    _, _, conversation, number, _ = parts[0]
    pieces = [
        int(part[4].partition("/")[0]) if part[2:4] == [conversation, number] else STRANGE for part in parts
    ]
    pieces += [STRANGE] if rest != [""] else []
    return Said(conversation=conversation, number=int(number), pieces=tuple(pieces))
