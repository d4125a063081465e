"""The user data header of a concatenated SMS (3GPP TS 23.040, 9.2.3.24)."""

from __future__ import annotations

from smsdaemon.domain.model import Part

_REFERENCE_8, _REFERENCE_16 = 0x00, 0x08
"""The elements "concatenated short messages" with a reference of 8 and of 16 bits."""


def part_of(header: bytes) -> Part | None:
    """Which part of a concatenated SMS has this header, its length in front; None if it is of none.

    Raises ValueError where the header says something that cannot be: its length, above all.
    """
    if not header:
        return None
    if header[0] != len(header) - 1:
        raise ValueError("the UDH is not as long as it says")
    position = 1
    part = None
    while position < len(header):
        if position + 2 > len(header) or position + 2 + header[position + 1] > len(header):
            raise ValueError("an element of the UDH is not as long as it says")
        content = header[position + 2 : position + 2 + header[position + 1]]
        if header[position] == _REFERENCE_8:
            part = _part(content, 1)
        elif header[position] == _REFERENCE_16:
            part = _part(content, 2)
        position += 2 + len(content)
    return part


def _part(content: bytes, reference_bytes: int) -> Part | None:
    if len(content) != reference_bytes + 2:
        raise ValueError("the UDH's element about parts is not as long as it must be")
    reference = int.from_bytes(content[:reference_bytes], "big")
    return checked_part(str(reference), content[-1], content[-2])


def checked_part(reference: str, number: int, total: int) -> Part | None:
    """None for the only part of one; raises ValueError where there can be no such part."""
    if total == 1 and number == 1:
        return None
    if not (2 <= total <= 255 and 1 <= number <= total):
        raise ValueError("there can be no such part")
    if not reference or len(reference) > 64:
        raise ValueError("the parts' reference must have 1 to 64 characters")
    return Part(reference=reference, number=number, total=total)
