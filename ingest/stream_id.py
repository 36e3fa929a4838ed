"""Stream ids as Redis gives them, `MILLISECONDS-SEQUENCE`: their order, and the time in them."""

from __future__ import annotations

SEQUENCE_MAX = 2**64 - 1

RECORDED_AT_MAX_MS = 253_402_300_799_999
"""The end of the year 9999: a stream id may say later, a timestamp may not."""


def as_numbers(stream_id: str) -> tuple[int, int]:
    """Milliseconds and sequence, which compare in the stream's order."""
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence)


def next_id(stream_id: str) -> str:
    """The lowest id above another."""
    milliseconds, sequence = as_numbers(stream_id)
    return f"{milliseconds}-{sequence + 1}" if sequence < SEQUENCE_MAX else f"{milliseconds + 1}-0"


def recorded_us(stream_id: bytes) -> int:
    """When an entry was recorded, in microseconds since 1970 in UTC, at most the year 9999."""
    milliseconds, _, _ = stream_id.partition(b"-")
    return min(int(milliseconds), RECORDED_AT_MAX_MS) * 1000
