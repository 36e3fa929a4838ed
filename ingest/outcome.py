"""What became of a command, and how that looks on the wire.

An outcome is JSON with `outcome`, `command_id`, `partition`, `position`, and `reason` where there
is one. `position` is that of the command's last row in the log: a reader that waits for it sees
everything that the command did.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["accepted", "rejected", "unreadable"]
"""By the rules; or no rule was asked, since it was no command."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one outcome of a command.

    A `duplicate` command changed nothing: the rest says what its first arrival came to, and where.
    """

    outcome: Kind
    command_id: str | None
    partition: int
    position: int
    reason: str | None = None
    duplicate: bool = False

    def to_json(self) -> bytes:
        """As it stands in the field `outcome` of a reply."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, payload: bytes) -> Outcome:
        """From the field `outcome` of a reply, which the pipeline wrote."""
        return cls(**json.loads(payload))
