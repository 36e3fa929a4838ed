"""What stands in a stream, one by one and as the batches that move through the write side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Entry: TypeAlias = tuple[bytes, bytes | None, Sequence[bytes]]
"""Stream id, the field `command` (None where the entry has none), all fields and values."""

Standing: TypeAlias = Literal["committed", "duplicate", "new"]
"""Of an entry: the log has it; it has only the same command from an earlier entry; it has neither.

Both of the latter are read again, a duplicate so that its sender is told.
"""

Compare: TypeAlias = Callable[[Sequence[Entry]], Sequence[Standing]]
"""Looks up entries in the log."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What moves through the dataflow first: entries of one partition's stream, in order."""

    partition: int
    entries: list[Entry]

    def before(self, stream_id: str | None) -> Batch:
        """Its entries before one of them."""
        ids = [entry[0].decode() for entry in self.entries]
        end = ids.index(stream_id) if stream_id in ids else 0
        return Batch(self.partition, self.entries[:end])


def entry_of(stream_id: bytes, fields: Sequence[bytes]) -> Entry:
    """What Redis says of one entry, as an `Entry`."""
    if len(fields) == 2 and fields[0] == b"command":
        return stream_id, fields[1], fields
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return stream_id, named.get(b"command"), fields
