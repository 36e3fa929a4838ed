"""How far a partition's writer has read what it decides on: in the footer of each commit.

A commit and how far its inputs were read become durable together, so what is read again after a
kill is just what no commit holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Inputs:
    """As of the end of a commit."""

    stream_id: str = "0-0"
    """Of the last entry of the partition's stream that is handled."""
    cursors: Mapping[int, int] = field(default_factory=dict)
    """Partition → the position in its log below which all that is sent to this one is handled."""
    sent: Mapping[int, int] = field(default_factory=dict)
    """Partition → the position of the last row of this one that is sent to it."""

    def moved(
        self, stream_id: str | None, cursors: Mapping[int, int], sent: Mapping[int, int]
    ) -> Inputs:
        """As of the end of a commit after it; without a stream id where it read none."""
        if not cursors and not sent:
            return self if stream_id is None else replace(self, stream_id=stream_id)
        return Inputs(
            stream_id or self.stream_id, {**self.cursors, **cursors}, {**self.sent, **sent}
        )

    def encoded(self) -> bytes:
        """For a file's footer."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decoded(cls, content: bytes) -> Inputs:
        """Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        found = json.loads(content)
        cursors, sent = (
            {int(partition): int(at) for partition, at in found[name].items()}
            for name in ("cursors", "sent")
        )
        return cls(str(found["stream_id"]), cursors, sent)
